//! Segments on their way, and the groups of their local batches.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use frazil_core::ports::BatchInfo;
use frazil_core::{Offset, TopicPartition};

use super::Ticket;

/// The size of an entry of a segment's footer.
pub(super) const FOOTER_ENTRY: usize = 64;

/// What is known of a batch's place in the log of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its segment's commit will tell.
    Object,
    /// Its group's commit will tell.
    Local,
    /// The state has it, in the write-ahead log; its segment's commit moves it.
    At(Offset),
    /// It will not be, or is already elsewhere.
    Nowhere,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) ticket: Ticket,
    pub(super) partition: TopicPartition,
    pub(super) info: BatchInfo,
    pub(super) place: Place,
    /// It counts among the bytes that the write-ahead log may take. Until its segment is settled,
    /// whatever its place: so long it is in the log, and in memory.
    pub(super) held: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Open,
    Uploading,
    /// Where each slot's batch begins in the object, and the object's size.
    Uploaded {
        starts: Vec<u32>,
        bytes: u64,
    },
}

/// A segment; the last of [`Pipeline::segments`] is the open one.
#[derive(Debug)]
pub(super) struct Segment {
    /// Counts seals; never changes, while the name may.
    pub(super) seal: u64,
    pub(super) number: u64,
    pub(super) stage: Stage,
    pub(super) slots: Vec<Slot>,
    pub(super) bytes: usize,
    pub(super) since: Option<Duration>,
    pub(super) awaited_since: Option<Duration>,
    pub(super) flush: bool,
    /// The first position of the write-ahead log that it still needs.
    pub(super) wal_start: Option<u64>,
    /// The local batches that are not in a group yet.
    pub(super) forming: Vec<usize>,
    /// Their bytes.
    pub(super) forming_bytes: usize,
    /// While it is open, the partitions of its object batches; `None`: nobody asks for them.
    pub(super) objects: Option<HashSet<TopicPartition>>,
    /// Groups of it that are not settled.
    pub(super) groups: usize,
}

/// Local batches that are synced together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) seal: u64,
    pub(super) members: Vec<usize>,
    pub(super) stage: GroupStage,
}

#[derive(Debug)]
pub(super) enum GroupStage {
    Queued,
    Writing,
    /// Where each member's batch begins in the write-ahead log.
    Synced(Vec<u64>),
}

/// A batch of a commit: the segment by its seal, and the slot.
pub(super) type SlotRef = (u64, usize);

impl Segment {
    /// `notes`: whether it notes the partitions of its object batches.
    pub(super) fn new(seal: u64, notes: bool) -> Self {
        Self {
            seal,
            number: 0,
            stage: Stage::Open,
            slots: Vec::new(),
            bytes: 0,
            since: None,
            awaited_since: None,
            flush: false,
            wal_start: None,
            forming: Vec::new(),
            forming_bytes: 0,
            objects: notes.then(HashSet::new),
            groups: 0,
        }
    }

    /// The slots in the order of their bytes, if the segment is uploaded.
    pub(super) fn by_start(&self) -> Vec<(u32, usize)> {
        let Stage::Uploaded { starts, .. } = &self.stage else {
            return Vec::new();
        };
        let mut order: Vec<_> = starts.iter().copied().zip(0..).collect();
        order.sort_unstable();
        order
    }
}

impl Segment {
    pub(super) fn put(&mut self, slot: Slot, now: Duration) {
        self.since.get_or_insert(now);
        self.bytes += cost(slot.info.length);
        match slot.place {
            Place::Local => {
                self.forming.push(self.slots.len());
                self.forming_bytes += slot.info.length as usize;
            }
            Place::Object => self.note_object(slot.partition),
            Place::At(_) | Place::Nowhere => {}
        }
        self.slots.push(slot);
    }

    pub(super) fn note_object(&mut self, partition: TopicPartition) {
        if let Some(objects) = &mut self.objects {
            objects.insert(partition);
        }
    }

    /// Whether it has an object batch of a partition, if it is open and notes that.
    pub(super) fn has_object(&self, partition: &TopicPartition) -> bool {
        self.objects
            .as_ref()
            .is_some_and(|objects| objects.contains(partition))
    }

    /// Takes those of the local batches that are not in a group yet for which `wanted` holds.
    pub(super) fn take_forming(&mut self, wanted: impl Fn(&Slot) -> bool) -> Vec<usize> {
        let slots = &self.slots;
        let (taken, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.forming)
            .into_iter()
            .partition(|&slot| wanted(&slots[slot]));
        self.forming = stay;
        let bytes = taken.iter().map(|&slot| slots[slot].info.length as usize);
        self.forming_bytes -= bytes.sum::<usize>();
        taken
    }

    pub(super) fn batches(&self) -> Vec<(Ticket, TopicPartition)> {
        let slots = self.slots.iter();
        slots.map(|slot| (slot.ticket, slot.partition)).collect()
    }
}

impl Group {
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.stage, GroupStage::Queued)
    }
}

/// What a batch takes of a segment: its bytes, and at most an entry of the footer.
pub(super) fn cost(length: u32) -> usize {
    length as usize + FOOTER_ENTRY
}

pub(super) fn length(slots: &[Slot]) -> u64 {
    slots.iter().map(|slot| u64::from(slot.info.length)).sum()
}

pub(super) fn find(segments: &mut VecDeque<Segment>, seal: u64) -> &mut Segment {
    // Seals count up by one.
    let first = segments[0].seal;
    let segment = &mut segments[(seal - first) as usize];
    assert_eq!(segment.seal, seal, "seals count up by one");
    segment
}

/// Makes a group of those of the forming local batches for which `wanted` holds.
pub(super) fn close_group(segment: &mut Segment, wanted: impl Fn(&Slot) -> bool) -> Option<Group> {
    let members = segment.take_forming(wanted);
    if members.is_empty() {
        return None;
    }
    segment.groups += 1;
    Some(Group {
        seal: segment.seal,
        members,
        stage: GroupStage::Queued,
    })
}
