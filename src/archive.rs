//! The quorum's archive in the object store.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_metadata::Archive;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

/// The part of a store that belongs to one cluster.
pub struct StoreArchive {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl StoreArchive {
    /// The cluster whose objects are below `prefix`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, prefix }
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}/{key}", self.prefix))
    }
}

#[async_trait]
impl Archive for StoreArchive {
    async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(&self.path(key), bytes.into(), options)
            .await
        {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let below = self.path(prefix);
        let own = format!("{}/", self.prefix);
        let mut keys = Vec::new();
        let mut objects = self.store.list(Some(&below));
        while let Some(object) = objects.try_next().await.map_err(io::Error::other)? {
            keys.extend(
                object
                    .location
                    .as_ref()
                    .strip_prefix(&own)
                    .map(str::to_owned),
            );
        }
        Ok(keys)
    }

    async fn get(&self, key: &str) -> io::Result<Bytes> {
        let found = self.store.get(&self.path(key)).await;
        let found = found.map_err(io::Error::other)?;
        found.bytes().await.map_err(io::Error::other)
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn keys_are_relative_and_what_is_there_stays() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let of = |cluster: &str| StoreArchive::new(Arc::clone(&store), Path::from(cluster));
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
}
