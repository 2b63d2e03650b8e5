//! The bytes of tables: manifests, row groups, ranges of row groups.
//!
//! What was fetched is checked before it is kept. Bytes that are wrong are fetched once more: they
//! may have been damaged on the way. What is wrong then is wrong in the store, and refused.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::TopicPartition;
use frazil_core::cold::{NodeRef, TableObject};
use frazil_table::manifest::Node;
use frazil_table::read::coalesce;
use frazil_table::{Fetched, GroupRef};
use futures_util::future::try_join_all;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::Cold;
use super::kept::{ColdItem, ColdKey, GroupKey, Head};
use crate::ReadError;
use crate::read::Class;
use crate::read::flights::Flight;
use crate::read::objects::Object;

/// Ranges of one row group that are nearer to each other than this are one request.
const GAP: u64 = 1 << 20;

/// A whole row group.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) head: Arc<Head>,
    pub(crate) bytes: Bytes,
    /// Its bytes of what may be on its way at once; `None`: they count where they are kept.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// Bytes of a row group, and their place in the budget.
pub(super) struct Held {
    pub(super) fetched: Fetched,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl From<(&GroupRef, Loaded)> for Held {
    fn from((group, loaded): (&GroupRef, Loaded)) -> Self {
        let mut fetched = Fetched::default();
        fetched.add(group.start, loaded.bytes);
        Self {
            fetched,
            _room: loaded.room,
        }
    }
}

impl Cold {
    /// A manifest. Reads it at most once at a time.
    pub(super) async fn node(
        self: &Arc<Self>,
        partition: TopicPartition,
        reference: &NodeRef,
        class: Class,
    ) -> Result<Arc<Node>, ReadError> {
        let key = ColdKey::Node(partition.topic, reference.id);
        if let Some(ColdItem::Node(node, _)) = self.shelf.cold(&key) {
            return Ok(node);
        }
        let (flight, landing) = self.nodes.join((partition.topic, reference.id));
        if let Some(landing) = landing {
            let cold = Arc::clone(self);
            let reference = reference.clone();
            tokio::spawn(async move {
                let node = match cold.shelf.cold(&key) {
                    Some(ColdItem::Node(node, _)) => Ok(node),
                    _ => cold.fetch_node(partition, reference, class).await,
                };
                landing.land(node);
            });
        }
        flight.await
    }

    async fn fetch_node(
        &self,
        partition: TopicPartition,
        reference: NodeRef,
        class: Class,
    ) -> Result<Arc<Node>, ReadError> {
        let object = TableObject::Manifest(partition.partition, reference.id);
        let length = reference.length as usize;
        let parsed = self.sound(partition, object, || async {
            let range = 0..u64::from(reference.length);
            let (bytes, _room) = self.get(partition, object, range, class).await?;
            let reference = reference.clone();
            work(move || Node::parse(&partition, &reference, &bytes)).await
        });
        let node = Arc::new(parsed.await?);
        let key = ColdKey::Node(partition.topic, object.id());
        let item = ColdItem::Node(Arc::clone(&node), length);
        self.shelf.keep_cold(key, item, Class::Near);
        Ok(node)
    }

    /// What is known of a row group without reading it.
    pub(super) fn head_at_hand(&self, key: GroupKey) -> Option<Arc<Head>> {
        match self.shelf.cold(&ColdKey::Head(key)) {
            Some(ColdItem::Head(head)) => Some(head),
            _ => None,
        }
    }

    /// A row group that is in memory.
    pub(super) fn group_at_hand(&self, key: GroupKey) -> Option<Loaded> {
        let head = self.head_at_hand(key)?;
        match self.shelf.cold(&ColdKey::Group(key)) {
            Some(ColdItem::Group(bytes)) => Some(Loaded {
                head,
                bytes,
                room: None,
            }),
            _ => None,
        }
    }

    /// The index of a row group: together with all of it, unless that is too large to be kept.
    pub(super) async fn head(
        self: &Arc<Self>,
        partition: TopicPartition,
        group: &GroupRef,
        class: Class,
    ) -> Result<(Arc<Head>, Option<Loaded>), ReadError> {
        let key = GroupKey::of(partition.topic, group);
        if let Some(head) = self.head_at_hand(key) {
            return Ok((head, None));
        }
        if u64::from(group.length) <= self.whole_max {
            let loaded = self.whole(partition, group, class).await?;
            return Ok((Arc::clone(&loaded.head), Some(loaded)));
        }
        let (flight, landing) = self.heads.join(key);
        if let Some(landing) = landing {
            let cold = Arc::clone(self);
            let group = group.clone();
            tokio::spawn(async move {
                let range = group.index_range();
                let fetched = cold.fetch_head(partition, &group, range, class).await;
                landing.land(fetched.map(|loaded| loaded.head));
            });
        }
        Ok((flight.await?, None))
    }

    /// A whole row group.
    pub(super) fn whole(
        self: &Arc<Self>,
        partition: TopicPartition,
        group: &GroupRef,
        class: Class,
    ) -> Flight<Loaded> {
        let key = GroupKey::of(partition.topic, group);
        let (flight, landing) = self.groups.join(key);
        if let Some(landing) = landing {
            let cold = Arc::clone(self);
            let group = group.clone();
            tokio::spawn(async move {
                let loaded = match cold.group_at_hand(key) {
                    Some(loaded) => Ok(loaded),
                    None => {
                        let range = group.range();
                        cold.fetch_head(partition, &group, range, class).await
                    }
                };
                if let Ok(loaded) = &loaded {
                    let item = ColdItem::Group(loaded.bytes.clone());
                    cold.shelf.keep_cold(ColdKey::Group(key), item, class);
                }
                landing.land(loaded);
            });
        }
        flight
    }

    /// Fetches a row group from its index on.
    async fn fetch_head(
        &self,
        partition: TopicPartition,
        group: &GroupRef,
        range: Range<u64>,
        class: Class,
    ) -> Result<Loaded, ReadError> {
        let object = TableObject::Data(group.file);
        let loaded = self.sound(partition, object, || async {
            let (bytes, room) = self.get(partition, object, range.clone(), class).await?;
            let (group, whole) = (group.clone(), bytes.clone());
            let head = work(move || Head::parse(&group, &whole)).await?;
            Ok(Loaded {
                head: Arc::new(head),
                bytes,
                room: Some(Arc::new(room)),
            })
        });
        let loaded = loaded.await?;
        let key = ColdKey::Head(GroupKey::of(partition.topic, group));
        let item = ColdItem::Head(Arc::clone(&loaded.head));
        self.shelf.keep_cold(key, item, Class::Near);
        Ok(loaded)
    }

    /// Adds `ranges` of a row group, in order, to what there is.
    pub(super) async fn fill(
        &self,
        partition: TopicPartition,
        group: &GroupRef,
        mut fetched: Fetched,
        ranges: &[Range<u64>],
        class: Class,
    ) -> Result<Held, ReadError> {
        let missing = ranges
            .iter()
            .filter(|range| fetched.get((*range).clone()).is_none());
        let missing: Vec<_> = missing.cloned().collect();
        let ranges = coalesce(&missing, GAP);
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let room = self.room(bytes).await;
        let object = Object::Table(partition.topic, TableObject::Data(group.file));
        let gets = ranges.iter().cloned();
        let gets = gets.map(|range| self.objects.fetch(object, range, class));
        for (range, bytes) in ranges.iter().zip(try_join_all(gets).await?) {
            fetched.add(range.start, bytes);
        }
        Ok(Held {
            fetched,
            _room: Some(Arc::new(room)),
        })
    }

    async fn get(
        &self,
        partition: TopicPartition,
        object: TableObject,
        range: Range<u64>,
        class: Class,
    ) -> Result<(Bytes, OwnedSemaphorePermit), ReadError> {
        let room = self.room(range.end - range.start).await;
        let object = Object::Table(partition.topic, object);
        let bytes = self.objects.fetch(object, range, class).await?;
        Ok((bytes, room))
    }

    /// Waits until so many bytes more may be on their way; what is more than all goes alone.
    async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.min(self.room_bytes));
        room.await.expect("it is never closed")
    }

    /// What `attempt` makes of bytes of the store; if they are damaged, of those of a second
    /// request.
    async fn sound<T, F>(
        &self,
        partition: TopicPartition,
        object: TableObject,
        attempt: impl Fn() -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut again = true;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Trouble::Read(error)) => return Err(error),
                Err(Trouble::Table(error)) => {
                    let refused = self.damaged(partition, object, &error);
                    if !std::mem::take(&mut again) {
                        return Err(refused);
                    }
                }
            }
        }
    }

    /// Tells of damaged bytes.
    pub(super) fn damaged(
        &self,
        partition: TopicPartition,
        object: TableObject,
        reason: &dyn Display,
    ) -> ReadError {
        self.metrics.corrupt.inc();
        let what = format!("{} of {partition}", object.key(partition.topic));
        warn!(%what, %reason, "damaged bytes");
        ReadError::Corrupt {
            what,
            reason: reason.to_string(),
        }
    }
}

/// Why there is nothing.
pub(super) enum Trouble {
    /// It cannot be read.
    Read(ReadError),
    /// It is damaged.
    Table(frazil_table::Error),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<frazil_table::Error> for Trouble {
    fn from(error: frazil_table::Error) -> Self {
        Self::Table(error)
    }
}

/// Computes off the runtime's threads.
pub(super) async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, frazil_table::Error> + Send + 'static,
) -> Result<T, Trouble> {
    match crate::blocking::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Trouble::Read(ReadError::Store("the runtime ends".into()))),
        },
    }
}
