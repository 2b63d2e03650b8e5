//! Puts a commit together.

use frazil_core::ports::{Append, Commit, Move, SegmentInfo};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerEpoch, BrokerId, Location, SegmentId, TopicPartition};

use super::segment::{Place, Segment, Slot, SlotRef, Stage};

/// The most batches that one commit of several groups or segments carries, so that a backlog does not
/// become one huge command. One group or segment alone may have more.
const BACKLOG_BATCHES_MAX: usize = 8192;

#[derive(Debug)]
pub(super) struct InFlight {
    /// For each append of the commit, its batches.
    pub(super) appends: Vec<Vec<SlotRef>>,
    /// Members of committed groups with their positions.
    pub(super) wal: Vec<(SlotRef, u64)>,
    /// Seals of the groups, one per group.
    pub(super) groups: Vec<u64>,
    /// Segments, which are in front of [`Pipeline::segments`] meanwhile.
    pub(super) segments: usize,
}

/// A commit that is being put together. Groups come in the order of their syncs, segments in that of
/// their seals.
#[derive(Debug)]
pub(super) struct Assembly {
    commit: Commit,
    in_flight: InFlight,
    batches: usize,
}

impl Assembly {
    pub(super) fn new(broker: BrokerId, epoch: BrokerEpoch) -> Self {
        Self {
            commit: Commit {
                broker,
                epoch,
                sealed_below: 0,
                segments: Vec::new(),
                appends: Vec::new(),
                moves: Vec::new(),
            },
            in_flight: InFlight {
                appends: Vec::new(),
                wal: Vec::new(),
                groups: Vec::new(),
                segments: 0,
            },
            batches: 0,
        }
    }

    /// Whether so many more batches fit. The first group or segment always does.
    pub(super) fn has_room(&self, batches: usize) -> bool {
        self.batches == 0 || self.batches + batches <= BACKLOG_BATCHES_MAX
    }

    /// Whether there is nothing to be committed, although there may be segments in it.
    pub(super) fn is_empty(&self) -> bool {
        self.commit.appends.is_empty() && self.commit.moves.is_empty()
    }

    /// How many segments are in it.
    pub(super) fn segments(&self) -> usize {
        self.in_flight.segments
    }

    pub(super) fn finish(mut self, sealed_below: u64) -> (Commit, InFlight) {
        self.commit.sealed_below = sealed_below;
        (self.commit, self.in_flight)
    }

    /// Adds a synced group, given the slots and positions of its batches.
    pub(super) fn add_group(&mut self, segment: &Segment, members: &[usize], positions: &[u64]) {
        self.batches += members.len();
        self.in_flight.groups.push(segment.seal);
        let members = members.iter().copied();
        let mut order: Vec<(u64, usize)> = positions.iter().copied().zip(members).collect();
        order.sort_unstable();
        let (broker, epoch) = (self.commit.broker, self.commit.epoch);
        let location = |start, length| Location::Wal {
            broker,
            epoch,
            start,
            length,
        };
        let mut run = None;
        for (start, index) in order {
            let reference = (segment.seal, index);
            self.in_flight.wal.push((reference, start));
            self.append(&mut run, reference, &segment.slots[index], start, location);
        }
    }

    /// Adds a segment that is uploaded and has no unsettled group.
    pub(super) fn add_segment(&mut self, segment: &Segment, epoch: BrokerEpoch) {
        let Stage::Uploaded { bytes, .. } = segment.stage else {
            unreachable!("segment {} is not uploaded", segment.seal);
        };
        self.batches += segment.slots.len();
        self.in_flight.segments += 1;
        let id = SegmentId::new(epoch, segment.number);
        let location = |start: u64, length| Location::Segment {
            id,
            start: start as u32,
            length,
        };
        let before = (self.commit.appends.len(), self.commit.moves.len());
        let (mut appending, mut moving) = (None, None);
        for (start, index) in segment.by_start() {
            let slot = &segment.slots[index];
            let start = u64::from(start);
            match slot.place {
                Place::Object => {
                    let reference = (segment.seal, index);
                    self.append(&mut appending, reference, slot, start, location);
                }
                Place::At(_) if index == 0 && sabotage::on(Bug::RelocationDropsBatch) => {}
                Place::At(_) => self.relocate(&mut moving, slot, start, location),
                Place::Nowhere => {}
                Place::Local => unreachable!("a segment without groups has no local batch"),
            }
        }
        if before != (self.commit.appends.len(), self.commit.moves.len()) {
            self.commit.segments.push(SegmentInfo { id, bytes });
        }
    }

    /// Appends a batch at byte `start`, as part of the last append if it continues that one. `run`
    /// is where a batch would.
    fn append(
        &mut self,
        run: &mut Option<(TopicPartition, u64)>,
        reference: SlotRef,
        slot: &Slot,
        start: u64,
        location: impl Fn(u64, u32) -> Location,
    ) {
        let length = slot.info.length;
        let continued = *run == Some((slot.partition, start));
        *run = Some((slot.partition, start + u64::from(length)));
        if continued
            && let Some(append) = self.commit.appends.last_mut()
            && let Some(slots) = self.in_flight.appends.last_mut()
        {
            let before = append.location.length();
            append.location = location(start - u64::from(before), before + length);
            append.batches.push(slot.info);
            slots.push(reference);
        } else {
            self.commit.appends.push(Append {
                partition: slot.partition,
                location: location(start, length),
                batches: vec![slot.info],
            });
            self.in_flight.appends.push(vec![reference]);
        }
    }

    /// Moves a batch to byte `start`, as part of the last move if it continues that one in bytes
    /// and in offsets. `run` is where a batch would continue the bytes.
    fn relocate(
        &mut self,
        run: &mut Option<u64>,
        slot: &Slot,
        start: u64,
        location: impl Fn(u64, u32) -> Location,
    ) {
        let Place::At(offset) = slot.place else {
            unreachable!("only what has an offset is moved: {slot:?}");
        };
        let length = slot.info.length;
        let end = offset + slot.info.records;
        let continued = *run == Some(start);
        *run = Some(start + u64::from(length));
        if continued
            && let Some(last) = self.commit.moves.last_mut()
            && last.partition == slot.partition
            && last.end == offset
        {
            let before = last.to.length();
            last.to = location(start - u64::from(before), before + length);
            last.end = end;
        } else {
            self.commit.moves.push(Move {
                partition: slot.partition,
                base: offset,
                end,
                to: location(start, length),
            });
        }
    }
}
