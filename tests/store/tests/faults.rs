//! What goes wrong goes wrong as it was told to, through the client that Frazil uses.

use std::sync::Arc;
use std::time::Duration;

use frazil_store::{Fault, Faults, Operation, Options, Outage, Rule, Store};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult, Result,
    RetryConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What takes milliseconds unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start() -> (Store, Arc<AmazonS3>) {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let store = Store::start(Options::default()).await.unwrap();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_client_options(ClientOptions::new().with_timeout(PATIENCE))
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        });
    for (name, value) in store.settings() {
        builder = builder.with_config(name.parse().unwrap(), value);
    }
    (store, Arc::new(builder.build().unwrap()))
}

async fn create(client: &AmazonS3, key: &str) -> Result<PutResult> {
    let options = PutOptions::from(PutMode::Create);
    let body = vec![7; 100_000].into();
    client.put_opts(&Path::from(key), body, options).await
}

async fn read(client: &AmazonS3, key: &str) -> Result<Vec<u8>> {
    let bytes = client.get_range(&Path::from(key), 0..100_000).await?;
    Ok(bytes.to_vec())
}

#[tokio::test]
async fn a_write_that_failed_may_have_been_done() {
    let (store, client) = start().await;
    let faults = store.faults();
    let put = |fault| Rule::new(&[Operation::Put], fault).times(1);
    for (number, (fault, applied)) in [
        (Fault::status(503), false),
        (Fault::status_applied(500), true),
        (Fault::Reset { applied: false }, false),
        (Fault::Reset { applied: true }, true),
        (Fault::status(409), false),
        (Fault::status_applied(412), true),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("a/{number}");
        faults.add(put(fault.clone()));
        create(&client, &key).await.expect_err(&key);
        let there = store.keys("bucket").await.contains(&key);
        assert_eq!(there, applied, "{fault:?}");
        match create(&client, &key).await {
            Ok(_) => assert!(!applied, "{fault:?}"),
            Err(Error::AlreadyExists { .. }) => assert!(applied, "{fault:?}"),
            Err(e) => panic!("{e}"),
        }
    }
    let counters = store.counters();
    assert_eq!(counters.with_status(Operation::Put, 0), 2, "resets");
    assert_eq!(counters.with_status(Operation::Put, 503), 1);
    assert_eq!(counters.with_status(Operation::Put, 200), 3);
    assert_eq!(counters.keys, 6);
    assert_eq!(counters.bytes_in, 12 * 100_000);
}

#[tokio::test]
async fn a_write_can_be_done_after_its_client_was_told_that_it_failed() {
    let (store, client) = start().await;
    let late = Rule::new(&[Operation::Put], Fault::Late { after_ms: 300 }).times(1);
    store.faults().add(late);
    create(&client, "late").await.unwrap_err();
    assert!(store.keys("bucket").await.is_empty());
    tokio::time::timeout(PATIENCE, async {
        while store.keys("bucket").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_held_write_is_done_when_it_is_released_even_if_its_client_is_gone() {
    let (store, client) = start().await;
    let faults = store.faults();
    let hold = |applied| Rule::new(&[Operation::Put], Fault::Hold { applied });
    faults.add(hold(false).key("*before*").named("before").times(1));
    faults.add(hold(true).key("*after*").named("after").times(1));
    for (key, applied) in [("x/before", false), ("x/after", true)] {
        let put = tokio::spawn({
            let client = Arc::clone(&client);
            async move { create(&client, key).await }
        });
        let held = tokio::time::timeout(PATIENCE, faults.wait_held(&key[2..]));
        let held = held.await.unwrap();
        assert_eq!((held.key.as_str(), held.applied), (key, applied));
        assert_eq!(store.keys("bucket").await.len(), usize::from(applied));
        put.abort();
        put.await.unwrap_err();
        assert_eq!(faults.release(&key[2..]), 1);
        tokio::time::timeout(PATIENCE, async {
            while !store.keys("bucket").await.contains(&key.to_owned()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        client.delete(&Path::from(key)).await.unwrap();
    }
    assert_eq!(faults.held(), []);
}

#[tokio::test]
async fn reads_are_truncated_wrong_or_not_there() {
    let (store, client) = start().await;
    create(&client, "b").await.unwrap();
    let get = |fault| Rule::new(&[Operation::Get], fault).times(1);
    store.faults().add(get(Fault::Truncate { keep: 0.7 }));
    read(&client, "b").await.unwrap_err();
    store.faults().add(get(Fault::Flip));
    let wrong = read(&client, "b").await.unwrap();
    assert_eq!(wrong.iter().filter(|byte| **byte != 7).count(), 1);
    store.faults().add(get(Fault::status(404)));
    let missing = read(&client, "b").await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    assert_eq!(read(&client, "b").await.unwrap(), vec![7; 100_000]);
}

#[tokio::test]
async fn an_outage_ends() {
    let (store, client) = start().await;
    create(&client, "c").await.unwrap();
    let connection = |error: Error| match error {
        Error::Generic { .. } => {}
        other => panic!("{other}"),
    };
    store.faults().outage(Some(Outage::Reset));
    connection(read(&client, "c").await.unwrap_err());
    store.faults().outage(Some(Outage::Hang));
    let hung = tokio::spawn({
        let client = Arc::clone(&client);
        async move { read(&client, "c").await }
    });
    tokio::time::timeout(PATIENCE, async {
        while store.counters().in_flight == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(!hung.is_finished());
    store.faults().outage(None);
    connection(hung.await.unwrap().unwrap_err());
    assert_eq!(read(&client, "c").await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_line_carries_only_so_much() {
    let (store, client) = start().await;
    let faults = Faults {
        bandwidth: Some(1_000_000),
        ..Faults::default()
    };
    store.faults().set(faults);
    let begun = tokio::time::Instant::now();
    create(&client, "d").await.unwrap();
    read(&client, "d").await.unwrap();
    // Never less than it takes: the line cannot be faster.
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

async fn http(store: &Store, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(store.address()).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: store\r\nConnection: close\r\nContent-Length: {length}\r\n\
         \r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn processes_control_it_over_http_also_in_an_outage() {
    let (store, client) = start().await;
    let answer = http(&store, "PUT /_frazil/outage", "\"reset\"").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    create(&client, "e").await.unwrap_err();
    let answer = http(&store, "PUT /_frazil/outage", "null").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let rule = r#"{"name": "n", "operations": ["put"], "key": "e*", "count": 1,
                   "fault": {"kind": "hold"}}"#;
    http(&store, "POST /_frazil/rules", rule).await;
    let answer = http(&store, "GET /_frazil/faults", "").await;
    assert!(answer.contains(r#""kind":"hold""#), "{answer}");
    let put = tokio::spawn(async move { create(&client, "e").await });
    let held = http(&store, "GET /_frazil/held?name=n&wait_ms=60000", "").await;
    assert!(held.contains(r#""key":"e""#), "{held}");
    let released = http(&store, "POST /_frazil/release?name=n", "").await;
    assert!(released.ends_with("\r\n\r\n1"), "{released}");
    put.await.unwrap().unwrap();
    let counters = http(&store, "GET /_frazil/counters", "").await;
    assert!(counters.contains(r#""put":{"0":1,"200":1}"#), "{counters}");
    let wrong = http(&store, "PUT /_frazil/faults", r#"{"oops": 1}"#).await;
    assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");
}
