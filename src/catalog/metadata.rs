//! Metadata objects: fetched, checked, kept.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::ports::TablePointer;
use frazil_core::topic_config::TopicConfig;
use frazil_core::{Topic, TopicId};
use frazil_objects::Failure;
use frazil_table::iceberg::TableMetadata;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::Refusal;
use super::{Catalog, FETCH_BYTES};

/// How long the store is asked for one object.
const PATIENCE: Duration = Duration::from_secs(15);

/// The newest metadata of the tables that were asked for lately, at most so many bytes. Objects never
/// change, so what is here under an object's name is what the object holds.
pub(super) struct Cache {
    capacity: usize,
    kept: Mutex<Kept>,
    fetching: Semaphore,
}

#[derive(Default)]
struct Kept {
    tables: HashMap<TopicId, Entry>,
    bytes: usize,
    /// Counts uses, to know which is the oldest.
    turn: u64,
}

struct Entry {
    object: ObjectId,
    bytes: Bytes,
    used: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            kept: Mutex::default(),
            fetching: Semaphore::new(FETCH_BYTES as usize),
        }
    }

    fn get(&self, topic: TopicId, object: ObjectId) -> Option<Bytes> {
        let mut kept = self.kept.lock();
        kept.turn += 1;
        let turn = kept.turn;
        let entry = kept.tables.get_mut(&topic)?;
        if entry.object != object {
            return None;
        }
        entry.used = turn;
        Some(entry.bytes.clone())
    }

    /// Keeps an object in the place of older ones; answers how many bytes are kept then.
    fn put(&self, topic: TopicId, object: ObjectId, bytes: Bytes) -> usize {
        let mut kept = self.kept.lock();
        if bytes.len() <= self.capacity {
            kept.turn += 1;
            kept.bytes += bytes.len();
            let entry = Entry {
                object,
                bytes,
                used: kept.turn,
            };
            if let Some(replaced) = kept.tables.insert(topic, entry) {
                kept.bytes -= replaced.bytes.len();
            }
        }
        while kept.bytes > self.capacity {
            let oldest = kept.tables.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(topic, _)| *topic) else {
                break;
            };
            if let Some(entry) = kept.tables.remove(&oldest) {
                kept.bytes -= entry.bytes.len();
            }
        }
        kept.bytes
    }
}

/// Why metadata cannot be given out.
pub(super) enum Unreadable {
    /// There is no such object.
    Missing,
    /// Anything else.
    Other(Refusal),
}

impl Catalog {
    /// The location of a topic's table.
    pub(super) fn location(&self, topic: TopicId) -> String {
        format!("{}/tables/{topic}", self.parts.location)
    }

    /// The URL of a table's metadata object.
    pub(super) fn metadata_location(&self, topic: TopicId, object: ObjectId) -> String {
        let key = TableObject::Metadata(object).key(topic);
        format!("{}/{key}", self.parts.location)
    }

    /// The metadata of a table of which nothing has been converted.
    pub(super) fn empty(&self, topic: &Topic) -> Bytes {
        let location = self.location(topic.id);
        let mut table = TableMetadata::new(topic.id.to_string(), location, topic.created_ms);
        let settings = TopicConfig::resolve(&topic.config, &self.broker_settings());
        table.set_partition_by(settings.table.partition_by);
        table.keep_files();
        Bytes::from(table.encode())
    }

    /// The object that a pointer names, as it was written.
    pub(super) async fn metadata(
        &self,
        topic: TopicId,
        pointer: TablePointer,
    ) -> Result<Bytes, Unreadable> {
        let object = pointer.metadata;
        if let Some(bytes) = self.cache.get(topic, object) {
            return Ok(bytes);
        }
        let permits = pointer.length.clamp(1, FETCH_BYTES);
        let _permit = self.cache.fetching.acquire_many(permits).await;
        // Whoever was waited for may have asked for the same.
        if let Some(bytes) = self.cache.get(topic, object) {
            return Ok(bytes);
        }
        let key = TableObject::Metadata(object).key(topic);
        let bytes = self.fetch(&key, pointer.length).await?;
        if crc32c::crc32c(&bytes) != pointer.crc {
            return Err(damaged(&key, "its checksum"));
        }
        if TableMetadata::decode(&bytes).is_err() {
            return Err(damaged(&key, "its content"));
        }
        self.parts.metrics.fetched.inc();
        let kept = self.cache.put(topic, object, bytes.clone());
        self.parts.metrics.cached.set(kept as i64);
        Ok(bytes)
    }

    /// Reads an object of this length.
    async fn fetch(&self, key: &str, length: u32) -> Result<Bytes, Unreadable> {
        let path = Path::from(format!("{}/{key}", self.parts.prefix));
        let get = async || {
            let found = self.parts.store.get(&path).await?;
            match found.meta.size == u64::from(length) {
                true => found.bytes().await.map(Some),
                false => Ok(None),
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = self.parts.retries.begin();
        let unavailable = |why: &str| {
            Unreadable::Other(Refusal::unavailable(format_args!("object {key}: {why}")))
        };
        loop {
            let error: StoreError = match tokio::time::timeout_at(deadline, get()).await {
                Ok(Ok(bytes)) => {
                    attempts.done();
                    return bytes.ok_or_else(|| damaged(key, "its length"));
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(unavailable("the object store does not answer")),
            };
            if Failure::of(&error) == Failure::NotFound {
                attempts.done();
                return Err(Unreadable::Missing);
            }
            if !attempts.again_before(&error, deadline).await {
                return Err(unavailable("the object store fails"));
            }
        }
    }
}

fn damaged(key: &str, what: &str) -> Unreadable {
    let refusal = Refusal::damaged(format_args!("object {key}: {what} is wrong"));
    Unreadable::Other(refusal)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_cache_keeps_the_newest_of_each_and_no_more_than_it_may() {
        let cache = Cache::new(100);
        let topic = |n| TopicId::new(Uuid::from_u128(n));
        let id = |n| ObjectId::new(n, 0);
        assert_eq!(cache.put(topic(1), id(1), Bytes::from(vec![1; 40])), 40);
        assert_eq!(cache.put(topic(1), id(2), Bytes::from(vec![2; 50])), 50);
        assert!(cache.get(topic(1), id(1)).is_none());
        assert_eq!(cache.get(topic(1), id(2)).unwrap()[0], 2);
        assert_eq!(cache.put(topic(2), id(3), Bytes::from(vec![3; 40])), 90);
        assert!(cache.get(topic(1), id(2)).is_some());
        // The second was used longest ago.
        assert_eq!(cache.put(topic(3), id(4), Bytes::from(vec![4; 40])), 90);
        assert!(cache.get(topic(2), id(3)).is_none());
        assert!(cache.get(topic(1), id(2)).is_some());
        assert_eq!(cache.put(topic(4), id(5), Bytes::from(vec![5; 101])), 90);
        assert!(cache.get(topic(4), id(5)).is_none());
    }
}
