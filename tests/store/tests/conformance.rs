//! The store is what `object_store`'s own tests expect of S3, in memory and in a directory.

use std::sync::Arc;

use frazil_store::{Operation, Options, Store};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig, integration,
};

fn client(store: &Store, bucket: &str) -> AmazonS3 {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        });
    for (name, value) in store.settings() {
        builder = builder.with_config(name.parse().unwrap(), value);
    }
    builder.build().unwrap()
}

async fn conforms(options: Options) {
    let store = Store::start(options).await.unwrap();
    // Each in a bucket of its own: some leave something.
    let bucket = client(&store, "put_get_delete_list");
    integration::put_get_delete_list(&bucket).await;
    let bucket = client(&store, "put_get_attributes");
    integration::put_get_attributes(&bucket).await;
    let bucket = client(&store, "get_opts");
    integration::get_opts(&bucket).await;
    let bucket = client(&store, "put_opts");
    integration::put_opts(&bucket, true).await;
    let bucket = client(&store, "list_uses_directories_correctly");
    integration::list_uses_directories_correctly(&bucket).await;
    let bucket = client(&store, "list_with_delimiter");
    integration::list_with_delimiter(&bucket).await;
    let bucket = client(&store, "list_with_offset_exclusivity");
    integration::list_with_offset_exclusivity(&bucket).await;
    let bucket = client(&store, "list_paginated");
    integration::list_paginated(&bucket, &bucket).await;
    let bucket = client(&store, "rename_and_copy");
    integration::rename_and_copy(&bucket).await;
    let bucket = client(&store, "copy_if_not_exists");
    integration::copy_if_not_exists(&bucket).await;
    let bucket = client(&store, "copy_rename_nonexistent_object");
    integration::copy_rename_nonexistent_object(&bucket).await;
    let bucket = client(&store, "stream_get");
    integration::stream_get(&bucket).await;
    let bucket = client(&store, "multipart");
    integration::multipart(&bucket, &bucket).await;
    let bucket = client(&store, "multipart_race_condition");
    integration::multipart_race_condition(&bucket, true).await;
    let bucket = client(&store, "multipart_out_of_order");
    integration::multipart_out_of_order(&bucket).await;
    let counters = store.counters();
    for operation in [
        Operation::Put,
        Operation::Get,
        Operation::Head,
        Operation::DeleteMany,
        Operation::List,
        Operation::Copy,
        Operation::PutPart,
        Operation::CompleteUpload,
    ] {
        assert!(counters.of(operation) > 0, "{operation:?} was not tried");
    }
    assert_eq!(counters.of(Operation::Other), 0);
    assert_eq!(counters.in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    conforms(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    conforms(Options {
        directory: Some(dir.path().to_owned()),
        ..Options::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_creates_one_wins_also_in_a_directory_that_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        directory: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let store = Store::start(options.clone()).await.unwrap();
    let one = Arc::new(client(&store, "bucket"));
    for round in 0..50 {
        let key = Path::from(format!("race/{round}"));
        let racers = (0..8).map(|racer: u8| {
            let (one, key) = (Arc::clone(&one), key.clone());
            tokio::spawn(async move {
                let options = PutOptions::from(PutMode::Create);
                let put = one.put_opts(&key, vec![racer; 100].into(), options).await;
                match put {
                    Ok(_) => Some(racer),
                    Err(Error::AlreadyExists { .. }) => None,
                    Err(e) => panic!("{e}"),
                }
            })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            winners.extend(racer.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        let found = one.get(&key).await.unwrap().bytes().await.unwrap();
        assert_eq!(found[..], vec![winners[0]; 100]);
    }
    // Overwritten and deleted ones are remembered so.
    let (kept, gone) = (Path::from("race/0"), Path::from("race/1"));
    one.put(&kept, "newer".into()).await.unwrap();
    one.delete(&gone).await.unwrap();
    drop(store);
    let store = Store::start(options).await.unwrap();
    let one = client(&store, "bucket");
    let found = one.get(&kept).await.unwrap().bytes().await.unwrap();
    assert_eq!(&found[..], b"newer");
    assert!(matches!(one.get(&gone).await, Err(Error::NotFound { .. })));
    assert_eq!(store.keys("bucket").await.len(), 49);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 49, "what is replaced or lost a race leaves no file");
}

#[tokio::test]
async fn a_bucket_can_be_missing() {
    let store = Store::start(Options {
        buckets: ["another".to_owned()].into(),
        ..Options::default()
    });
    let store = store.await.unwrap();
    let put = client(&store, "bucket")
        .put(&Path::from("a"), "a".into())
        .await;
    let error = put.unwrap_err().to_string();
    assert!(error.contains("NoSuchBucket"), "{error}");
}
