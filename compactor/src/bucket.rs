//! The cluster's part of the object store, asked with patience.
//!
//! Every object of a table is put under a name that nothing else ever has, so a put may be repeated
//! and may come late: it always says the same.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::cold::TableObject;
use frazil_core::{SegmentId, TopicId};
use frazil_objects::{Failure, Retries};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, Result};
use tokio::time::Instant;

/// How long one object is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the list of the store says of an object: another one, if it was written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified_us: i64,
    tag: Option<String>,
}

/// The objects below the cluster's prefix. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    retries: Retries,
    prefix: Path,
}

impl Bucket {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, retries: Retries, prefix: Path) -> Self {
        Self {
            store,
            retries,
            prefix,
        }
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Path {
        crate::reclaim::object(&self.prefix, id)
    }

    pub(crate) fn table(&self, topic: TopicId, object: TableObject) -> Path {
        Path::from(format!("{}/{}", self.prefix, object.key(topic)))
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub(crate) fn retries(&self) -> &Retries {
        &self.retries
    }

    /// The keys of the objects below `folder`, all without the cluster's prefix.
    pub(crate) fn list(&self, folder: &str) -> BoxStream<'static, Result<(String, Stamp)>> {
        let prefix = self.prefix.clone();
        let folder = Path::from(format!("{prefix}/{folder}"));
        let keys = self
            .store
            .list(Some(&folder))
            .try_filter_map(move |object| {
                let key = object.location.prefix_match(&prefix).map(|parts| {
                    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                    parts.join("/")
                });
                let stamp = Stamp {
                    bytes: object.size,
                    modified_us: object.last_modified.timestamp_micros(),
                    tag: object.e_tag,
                };
                std::future::ready(Ok(key.map(|key| (key, stamp))))
            });
        keys.boxed()
    }

    pub(crate) async fn exists(&self, path: &Path) -> Result<bool> {
        match self.patiently(|| self.store.head(path)).await {
            Ok(_) => Ok(true),
            Err(error) if Failure::of(&error) == Failure::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn get(&self, path: &Path) -> Result<Bytes> {
        self.patiently(|| async { self.store.get(path).await?.bytes().await })
            .await
    }

    pub(crate) async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        self.patiently(|| self.store.get_range(path, range.clone()))
            .await
    }

    pub(crate) async fn put(&self, path: &Path, payload: PutPayload) -> Result<()> {
        self.patiently(|| self.store.put(path, payload.clone()))
            .await
            .map(drop)
    }

    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = self.retries.begin();
        loop {
            let error = match ask().await {
                Ok(answer) => {
                    attempts.done();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if Failure::of(&error) == Failure::NotFound {
                attempts.done();
                return Err(error);
            }
            if !attempts.again_before(&error, deadline).await {
                return Err(error);
            }
        }
    }
}
