//! Manifests: which row group holds which offsets of a partition.
//!
//! ```text
//! root  ─┬─► node of level 1 ─┬─► leaf ─► row groups …
//!        │                    └─► leaf
//!        ├─► leaf (level 0) …
//!        └─  row groups: the newest, in the root itself
//!
//! object  "FRZMNFT\x01" | length u32 LE of the CBOR | CBOR | crc u32 LE of everything before
//! ```
//!
//! The root of a partition is named by the metadata; everything else is named by the root. Objects
//! are never changed: an edit writes the leaves and nodes on its way and a new root. Appending, the
//! common case, writes the root alone, and every [`LEAF`] row groups a leaf. So the metadata holds
//! one name and a checksum per partition, however old it is, and the root stays below some 100 KiB.
//!
//! A cold read at an offset takes one GET for the root, none or one for a leaf, and one for the
//! row group with its index; a level more for each factor of [`FANOUT`], the first time beyond
//! 1024 leaves, which are 4 TiB of row groups of 8 MiB.
//!
//! Invariant: the ranges of what stands in a node tile the node's range, without gaps and overlaps.
//!
//! # A crash
//! before the metadata names the new root leaves objects that nothing names. They carry the claim
//! of the job that wrote them, so once that claim is over they are known to be orphans.

mod edit;
#[cfg(test)]
mod tests;

use std::ops::Range;

use frazil_core::batch::Codec;
pub use frazil_core::cold::NodeRef;
use frazil_core::cold::ObjectId;
use frazil_core::{Offset, TopicPartition};
use minicbor::{Decode, Encode};

pub use edit::{Edited, Editor, Misfit, Need, ReplaceError};

use crate::{Damage, Error};

const MAGIC: &[u8; 8] = b"FRZMNFT\x01";
/// Row groups of a full leaf. The root holds up to twice as many itself.
pub const LEAF: usize = 512;
/// Children of a full node. The root holds up to twice as many of each level.
pub const FANOUT: usize = 1024;
const LEVEL_MAX: u8 = 8;

/// One row group: the offsets it covers and where it is. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupRef {
    /// First offset it covers.
    #[n(0)]
    pub base: Offset,
    /// One past the last offset it covers.
    #[n(1)]
    pub end: Offset,
    /// The data file.
    #[n(2)]
    pub file: ObjectId,
    /// The partition's index.
    #[n(3)]
    pub partition: i32,
    /// Byte of the file at which it begins, with its index.
    #[n(4)]
    pub start: u64,
    /// Bytes, index included. 0 if it has no records: then there is nothing to be read.
    #[n(5)]
    pub length: u32,
    /// Bytes of its index.
    #[n(6)]
    pub index_length: u32,
    /// CRC-32C of its index.
    #[n(7)]
    pub index_crc: u32,
    /// How many records it has; fewer than offsets if some are gone.
    #[n(8)]
    pub records: u32,
    /// The smallest timestamp, in milliseconds; -1 without records.
    #[n(9)]
    pub min_timestamp: i64,
    /// The largest timestamp, in milliseconds; -1 without records.
    #[n(10)]
    pub max_timestamp: i64,
    /// How its producers compressed it: whoever could read it from them can read batches compressed
    /// so. Of several codecs the one that costs the least. `None`: not known.
    #[n(11)]
    pub codec: Option<Codec>,
}

impl GroupRef {
    /// Bytes of the file that hold its [index](crate::GroupIndex).
    pub fn index_range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.index_length)
    }

    /// All bytes of it.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.length)
    }

    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        Error::Damaged {
            file: self.file,
            partition: self.partition,
            base: self.base,
            damage,
        }
    }

    fn is_sound(&self) -> bool {
        let empty = self.records == 0;
        self.base < self.end
            && self.base.0 >= 0
            && self.start.checked_add(u64::from(self.length)).is_some()
            && self.index_length <= self.length
            && empty == (self.length == 0)
            && i64::from(self.records) <= self.end - self.base
    }
}

/// A manifest object's content. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    #[n(0)]
    partition: TopicPartition,
    #[n(1)]
    id: ObjectId,
    #[n(2)]
    base: Offset,
    #[n(3)]
    end: Offset,
    #[n(4)]
    level: u8,
    /// The older part.
    #[n(5)]
    children: Vec<NodeRef>,
    /// The newer part.
    #[n(6)]
    groups: Vec<GroupRef>,
}

/// What holds an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This row group.
    Group(&'a GroupRef),
    /// Something below this node, which is to be read next.
    Node(&'a NodeRef),
}

impl Node {
    /// Reads the manifest object that `reference` names.
    ///
    /// # Errors
    /// [`Error::DamagedManifest`], whatever is wrong.
    pub fn parse(
        partition: &TopicPartition,
        reference: &NodeRef,
        bytes: &[u8],
    ) -> Result<Self, Error> {
        let damaged = |what| Error::DamagedManifest {
            id: reference.id,
            what,
        };
        if bytes.len() != reference.length as usize {
            return Err(damaged("its length"));
        }
        if crc32c::crc32c(bytes) != reference.crc {
            return Err(damaged("its checksum"));
        }
        let node = Self::decode(bytes).map_err(damaged)?;
        if node.partition != *partition || node.id != reference.id || node.level != reference.level
        {
            return Err(damaged("its name"));
        }
        if node.summary(reference.length, reference.crc) != *reference {
            return Err(damaged("its range or one of its sums"));
        }
        Ok(node)
    }

    /// Reads a manifest object, whichever it is. For tools: readers know what they expect.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let node: Self = crate::unframed(MAGIC, bytes)?;
        node.check()?;
        Ok(node)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.level > LEVEL_MAX || self.base.0 < 0 || self.base > self.end {
            return Err("its head");
        }
        let mut at = self.base;
        for child in &self.children {
            if child.base != at || child.base >= child.end {
                return Err("a node's range");
            }
            if child.level >= self.level {
                return Err("a node's level");
            }
            at = child.end;
        }
        for group in &self.groups {
            if group.base != at || !group.is_sound() || group.partition != self.partition.partition
            {
                return Err("a row group's range or place");
            }
            at = group.end;
        }
        if at == self.end {
            Ok(())
        } else {
            Err("its range")
        }
    }

    /// The reference to this node, as an object of so many bytes.
    fn summary(&self, length: u32, crc: u32) -> NodeRef {
        let children = self.children.iter();
        let groups = self.groups.iter();
        let times = children
            .clone()
            .filter(|child| child.records > 0)
            .map(|child| child.max_timestamp);
        let group_times = groups
            .clone()
            .filter(|group| group.records > 0)
            .map(|group| group.max_timestamp);
        NodeRef {
            base: self.base,
            end: self.end,
            id: self.id,
            level: self.level,
            length,
            crc,
            records: children
                .clone()
                .map(|child| child.records)
                .chain(groups.clone().map(|group| u64::from(group.records)))
                .fold(0, u64::saturating_add),
            bytes: children
                .map(|child| child.bytes)
                .chain(groups.map(|group| u64::from(group.length)))
                .fold(0, u64::saturating_add),
            max_timestamp: times.chain(group_times).max().unwrap_or(-1),
        }
    }

    /// What holds `offset`, or nothing if it is outside.
    pub fn find(&self, offset: Offset) -> Option<Found<'_>> {
        if offset < self.base || offset >= self.end {
            return None;
        }
        let child = self.children.partition_point(|node| node.end <= offset);
        if let Some(node) = self.children.get(child) {
            return Some(Found::Node(node));
        }
        let group = self.groups.partition_point(|group| group.end <= offset);
        self.groups.get(group).map(Found::Group)
    }

    /// What may hold the first record at `from` or later whose timestamp is at least `timestamp`:
    /// it has such a record, but that may lie before `from`; then look again from its end.
    pub fn find_time(&self, from: Offset, timestamp: i64) -> Option<Found<'_>> {
        let node = self
            .children
            .iter()
            .find(|node| node.end > from && node.records > 0 && node.max_timestamp >= timestamp);
        node.map(Found::Node).or_else(|| {
            let mut groups = self.groups.iter();
            let group = groups.find(|group| {
                group.end > from && group.records > 0 && group.max_timestamp >= timestamp
            });
            group.map(Found::Group)
        })
    }

    /// The row groups that stand in this node itself, in order.
    pub fn groups(&self) -> &[GroupRef] {
        &self.groups
    }

    /// The nodes below this one, in order; they come before its row groups.
    pub fn children(&self) -> &[NodeRef] {
        &self.children
    }
}
