//! What of tables is kept in memory, and what it counts for there.

use std::sync::Arc;

use bytes::Bytes;
use frazil_core::batch::{BatchHeader, Codec};
use frazil_core::cold::ObjectId;
use frazil_core::{Offset, TopicId};
use frazil_table::manifest::Node;
use frazil_table::{Fetched, GroupIndex, GroupRef};

/// What comes with everything that is kept, beside its content.
const OVERHEAD: usize = 256;
/// What is in front of the values of a row group is kept with its index, if it is no longer: then
/// any page of it costs one request.
const FRONT_MAX: u64 = 512 << 10;

/// A row group. Files are never changed, so this names its bytes for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    topic: TopicId,
    file: ObjectId,
    start: u64,
}

impl GroupKey {
    pub(crate) fn of(topic: TopicId, group: &GroupRef) -> Self {
        Self {
            topic,
            file: group.file,
            start: group.start,
        }
    }
}

/// A page of a row group, as record batches of one codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    pub(crate) group: GroupKey,
    /// The first offset that it covers.
    pub(crate) first: Offset,
    pub(crate) codec: Codec,
}

/// The name of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ColdKey {
    Node(TopicId, ObjectId),
    Head(GroupKey),
    Group(GroupKey),
    Page(PageKey),
}

/// What is kept.
#[derive(Clone)]
pub(crate) enum ColdItem {
    /// A manifest.
    Node(Arc<Node>, usize),
    /// The beginning of a row group.
    Head(Arc<Head>),
    /// All bytes of a row group.
    Group(Bytes),
    /// A page as record batches.
    Page(Arc<Page>),
}

impl ColdItem {
    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        let content = match self {
            // The objects are packed more tightly than what is made of them.
            Self::Node(_, length) => 2 * length,
            Self::Head(head) => {
                2 * head.index_length + head.front.as_ref().map_or(0, |(_, front)| front.len())
            }
            Self::Group(bytes) => bytes.len(),
            Self::Page(page) => page.bytes + page.batches.len() * size_of::<Cut>(),
        };
        content + OVERHEAD
    }
}

/// The beginning of a row group: where everything in it is, and some of it.
pub(crate) struct Head {
    pub(crate) index: GroupIndex,
    index_length: usize,
    /// What lies in front of the values, and its place in the file.
    front: Option<(u64, Bytes)>,
    /// Bytes of all pages before compression.
    pub(crate) uncompressed: u64,
}

impl Head {
    /// Made of the bytes of `group`, of which some may be missing.
    ///
    /// # Errors
    /// If the index is not sound.
    pub(crate) fn parse(group: &GroupRef, bytes: &[u8]) -> Result<Self, frazil_table::Error> {
        let index_length = group.index_length as usize;
        let index = bytes.get(..index_length).unwrap_or(bytes);
        let index = GroupIndex::parse(group, index)?;
        let front = index.values_start(group) - group.start;
        let front = (front <= FRONT_MAX)
            .then(|| bytes.get(..front as usize))
            .flatten()
            // A slice would keep the whole row group in memory.
            .map(|front| (group.start, Bytes::copy_from_slice(front)));
        Ok(Self {
            uncompressed: index.uncompressed_bytes(),
            index,
            index_length,
            front,
        })
    }

    /// The bytes that are at hand.
    pub(crate) fn fetched(&self) -> Fetched {
        let mut fetched = Fetched::default();
        if let Some((start, front)) = &self.front {
            fetched.add(*start, front.clone());
        }
        fetched
    }
}

/// A record batch made of a page.
pub(crate) struct Cut {
    pub(crate) base: Offset,
    /// One past the last offset that it takes.
    pub(crate) next: Offset,
    pub(crate) bytes: Bytes,
}

/// A page as record batches.
pub(crate) struct Page {
    pub(crate) batches: Vec<Cut>,
    pub(crate) bytes: usize,
}

impl Page {
    /// Of batches that were made here, and are sound.
    pub(crate) fn new(batches: Vec<Bytes>) -> Self {
        let cut = |bytes: Bytes| {
            let header = BatchHeader::parse(&bytes).expect("a batch made here");
            let base = Offset(header.base_offset);
            Cut {
                base,
                next: base + header.offsets(),
                bytes,
            }
        };
        Self {
            bytes: batches.iter().map(Bytes::len).sum(),
            batches: batches.into_iter().map(cut).collect(),
        }
    }
}
