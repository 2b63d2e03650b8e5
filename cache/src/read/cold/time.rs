//! Which record a time is at, among cold offsets.

use std::sync::Arc;

use frazil_core::cold::NodeRef;
use frazil_core::{Offset, TopicPartition};
use frazil_table::GroupRef;
use frazil_table::manifest::Found;

use super::Cold;
use crate::ReadError;
use crate::read::Class;

/// A record's offset and timestamp.
pub(crate) type At = (Offset, i64);

/// What may hold the record.
enum Step {
    Group(GroupRef),
    /// Nothing before this offset.
    Behind(Offset),
    Nothing,
}

impl Cold {
    /// The first record at `from` or later whose timestamp is at least `timestamp`.
    pub(crate) async fn find_time(
        self: &Arc<Self>,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
        timestamp: i64,
    ) -> Result<Option<At>, ReadError> {
        let mut from = from.max(root.base);
        while from < root.end {
            match self.step(partition, root, from, timestamp).await? {
                Step::Nothing => break,
                Step::Behind(end) => from = end,
                Step::Group(group) => {
                    let look = move |read: &frazil_table::Read<'_>, fetched: &_| {
                        read.find_time(fetched, from, timestamp)
                    };
                    let found = self.times(partition, &group, Class::Far, look).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                    from = group.end;
                }
            }
        }
        Ok(None)
    }

    async fn step(
        self: &Arc<Self>,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
        timestamp: i64,
    ) -> Result<Step, ReadError> {
        let mut reference = root.clone();
        loop {
            let node = self.node(partition, &reference, Class::Far).await?;
            let next = match node.find_time(from, timestamp) {
                None if reference.id == root.id => return Ok(Step::Nothing),
                // The record that it was entered for lies before.
                None => return Ok(Step::Behind(reference.end)),
                Some(Found::Group(group)) => return Ok(Step::Group(group.clone())),
                Some(Found::Node(below)) => below.clone(),
            };
            reference = next;
        }
    }

    /// The first of the records at `from` or later with the largest timestamp.
    pub(crate) async fn find_max_time(
        self: &Arc<Self>,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
    ) -> Result<Option<At>, ReadError> {
        if root.records == 0 {
            return Ok(None);
        }
        let largest = root.max_timestamp;
        let found = self.find_time(partition, root, from, largest).await?;
        if found.is_some() {
            return Ok(found);
        }
        // That record lies before: what is there behind it?
        let (largest, cut) = self.largest_behind(partition, root, from).await?;
        let own = match cut {
            Some(group) => {
                let look =
                    move |read: &frazil_table::Read<'_>, fetched: &_| read.max_time(fetched, from);
                self.times(partition, &group, Class::Far, look).await?
            }
            None => None,
        };
        match (own, largest) {
            (Some((offset, at)), Some(largest)) if at >= largest => Ok(Some((offset, at))),
            (own, None) => Ok(own),
            (_, Some(largest)) => self.find_time(partition, root, from, largest).await,
        }
    }

    /// The largest timestamp of what lies behind `from` as a whole, and the row group that `from` is
    /// in the middle of.
    async fn largest_behind(
        self: &Arc<Self>,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
    ) -> Result<(Option<i64>, Option<GroupRef>), ReadError> {
        let mut largest = None;
        let mut reference = root.clone();
        loop {
            let node = self.node(partition, &reference, Class::Far).await?;
            let mut below = None;
            for child in node.children().iter().filter(|child| child.end > from) {
                if child.base < from {
                    below = Some(child.clone());
                } else if child.records > 0 {
                    largest = largest.max(Some(child.max_timestamp));
                }
            }
            for group in node.groups().iter().filter(|group| group.end > from) {
                if group.records == 0 {
                    continue;
                }
                if group.base < from {
                    return Ok((largest_of(&node, from, largest), Some(group.clone())));
                }
                largest = largest.max(Some(group.max_timestamp));
            }
            match below {
                Some(below) => reference = below,
                None => return Ok((largest, None)),
            }
        }
    }
}

/// The largest timestamp, together with those of the row groups of `node` that lie behind `from`.
fn largest_of(
    node: &frazil_table::manifest::Node,
    from: Offset,
    largest: Option<i64>,
) -> Option<i64> {
    let whole = node.groups().iter();
    let whole = whole.filter(|group| group.base >= from && group.records > 0);
    largest.max(whole.map(|group| group.max_timestamp).max())
}
