//! The quorum's archive in the object store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_metadata::Archive;
use frazil_objects::{Failure, Retries};
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use tokio::time::Instant;

/// How long one request is tried. The archive itself tries again later.
const PATIENCE: Duration = Duration::from_secs(20);

/// The part of a store that belongs to one cluster.
pub struct StoreArchive {
    store: Arc<dyn ObjectStore>,
    retries: Retries,
    prefix: Path,
}

impl StoreArchive {
    /// The cluster whose objects are below `prefix`.
    pub fn new(store: Arc<dyn ObjectStore>, retries: Retries, prefix: Path) -> Self {
        Self {
            store,
            retries,
            prefix,
        }
    }

    /// Sends a request until it succeeds, what it is about is not there, or it takes too long.
    async fn patiently<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = self.retries.begin();
        loop {
            let error = match request().await {
                Ok(done) => {
                    attempts.done();
                    return Ok(done);
                }
                Err(error) => error,
            };
            if Failure::of(&error) == Failure::NotFound
                || !attempts.again_before(&error, deadline).await
            {
                return Err(error);
            }
        }
    }

    /// Puts what is not there yet. A conflict says only that somebody was writing it; whether it
    /// is there now is another question.
    async fn put_once(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(path, bytes.into(), options).await {
            Err(error) if Failure::of(&error) == Failure::Conflict => {
                match self.store.head(path).await {
                    // To be tried again, unlike what is simply not there.
                    Err(missing) if Failure::of(&missing) == Failure::NotFound => Err(error),
                    looked => looked.map(drop),
                }
            }
            put => put.map(drop),
        }
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}/{key}", self.prefix))
    }
}

#[async_trait]
impl Archive for StoreArchive {
    async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        let path = self.path(key);
        let put = self.patiently(|| self.put_once(&path, bytes.clone()));
        put.await.map_err(io::Error::other)
    }

    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let below = self.path(prefix);
        let own = format!("{}/", self.prefix);
        let list = self.patiently(|| self.store.list(Some(&below)).try_collect::<Vec<_>>());
        let objects = list.await.map_err(io::Error::other)?;
        let keys = objects
            .iter()
            .filter_map(|object| object.location.as_ref().strip_prefix(&own));
        Ok(keys.map(str::to_owned).collect())
    }

    async fn get(&self, key: &str) -> io::Result<Bytes> {
        let path = self.path(key);
        let get = self.patiently(|| async { self.store.get(&path).await?.bytes().await });
        get.await.map_err(io::Error::other)
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        let path = self.path(key);
        match self.patiently(|| self.store.delete(&path)).await {
            Err(error) if Failure::of(&error) == Failure::NotFound => Ok(()),
            deleted => deleted.map_err(io::Error::other),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::env::SystemIds;

    #[tokio::test]
    async fn keys_are_relative_and_what_is_there_stays() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let of = |cluster: &str| {
            let retries = Retries::new(Arc::new(SystemIds), Default::default());
            StoreArchive::new(Arc::clone(&store), retries, Path::from(cluster))
        };
        let (one, two) = (of("one"), of("two"));
        one.put("quorum/log/a", Bytes::from_static(b"first"))
            .await
            .unwrap();
        one.put("quorum/log/a", Bytes::from_static(b"first"))
            .await
            .unwrap();
        one.put("quorum/snapshot/b", Bytes::from_static(b"b"))
            .await
            .unwrap();
        two.put("quorum/log/c", Bytes::from_static(b"c"))
            .await
            .unwrap();
        assert_eq!(one.list("quorum/log/").await.unwrap(), ["quorum/log/a"]);
        assert_eq!(&one.get("quorum/log/a").await.unwrap()[..], b"first");
        one.delete("quorum/log/a").await.unwrap();
        one.delete("quorum/log/a").await.unwrap();
        assert_eq!(one.list("quorum/log/").await.unwrap(), [""; 0]);
        assert!(one.get("quorum/log/a").await.is_err());
    }

    #[tokio::test]
    async fn a_conflict_is_not_taken_for_an_object_that_is_there() {
        use frazil_store::{Fault, Operation, Options, Rule};

        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let server = frazil_store::Store::start(Options::default())
            .await
            .unwrap();
        let mut config = crate::config::Config {
            store_url: Some("s3://bucket".to_owned()),
            ..crate::config::Config::default()
        };
        for (name, value) in server.settings() {
            config.store_options.0.insert(name.to_owned(), value);
        }
        let store = crate::store::open(&config, &crate::env::SystemDisk).unwrap();
        let retries = Retries::new(Arc::new(SystemIds), Default::default());
        let archive = StoreArchive::new(store.client, retries, Path::from("one"));
        // What Amazon S3 answers while another write of the same key is under way.
        let conflict = Rule::new(&[Operation::Put], Fault::status(409)).times(1);
        server.faults().add(conflict);
        archive.put("a", Bytes::from_static(b"a")).await.unwrap();
        assert_eq!(server.keys("bucket").await, ["one/a"]);
        // An own write that came through, and was said to be in conflict.
        let conflict = Rule::new(&[Operation::Put], Fault::status_applied(409)).times(1);
        server.faults().add(conflict);
        archive.put("b", Bytes::from_static(b"b")).await.unwrap();
        assert_eq!(server.keys("bucket").await, ["one/a", "one/b"]);
    }
}
