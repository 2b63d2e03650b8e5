//! The order of everything between an append and its acknowledgement. Pure: no clock, no I/O.
//!
//! ```text
//!  stage ──► open segment ──seal──► uploading ──► uploaded ──┐
//!     │          │ its local batches form groups             ├─► one commit in flight ──► settled
//!     └──────────┴──► group: forming ─► writing ─► synced ───┘
//! ```
//!
//! Every batch enters the open segment, in the order of the calls. Batches with
//! [`Durability::Local`](crate::Durability) also form a *group* for the write-ahead log. A group
//! belongs to one segment: sealing the segment closes its group.
//!
//! Invariants, each of which holds some promise:
//!
//! - Segments are committed in the order in which they were sealed, a group is committed before
//!   its segment, and one commit is in flight at a time. With the next one, the offsets of a
//!   partition are in the order of the calls.
//! - A local batch does not overtake an object batch of its partition: while one is not settled,
//!   local batches of that partition become object batches, whose promise is the stronger one. Where
//!   batches may pass the log (below) they do so only when they are sealed; until then they wait.
//! - A segment is committed only when it is durable, a group only when it is synced. Nothing is
//!   acknowledged before its commit.
//! - A segment's commit moves exactly those of its local batches which the state has appended,
//!   never a refused or repeated one, so the state's extents and the log agree.
//! - `sealed_below` never passes a segment that may still be committed, and passes every segment
//!   that was given up before anything later is committed.
//!
//! # Past the log
//! On a store that is on the disk of the log, every byte would be written there twice. So when local
//! batches have gathered to [`Config::past_log_bytes`](crate::Config::past_log_bytes) while the log was
//! busy or an object batch was in front of them, they become object batches, and their segment is sealed.
//! As soon as fewer come together they go into the log again.
//!
//! # Unknown outcomes
//! If the outcome of a commit stays unknown, its batches are answered so, and the pipeline goes
//! on behind a *fence*: an empty commit that has succeeded, after which the unknown one can no
//! longer take effect. What the state then says of the write-ahead log decides about the local
//! batches: those which are still expected there go into a later segment.

mod assemble;
mod segment;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use frazil_core::ports::{
    BatchInfo, BatchOutcome, BatchRefusal, COMMIT_BATCHES_MAX, Commit, CommitOutcome,
};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerEpoch, BrokerId, Extent, Location, Offset, SegmentId, TopicPartition};

use self::assemble::{Assembly, InFlight};
use self::segment::{
    Group, GroupStage, Place, Segment, Slot, SlotRef, Stage, close_group, cost, find, length,
};
use super::policy::{Open, Policy, Verdict};
use crate::{AppendError, Appended, Durability};

/// A batch, by the order of the calls.
pub(crate) type Ticket = u64;

/// What the task around the machine has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Build a segment from these batches under this name and make it durable in the store; then
    /// [`Pipeline::uploaded`], or [`Pipeline::name_taken`].
    Upload {
        seal: u64,
        id: SegmentId,
        batches: Vec<(Ticket, TopicPartition)>,
    },
    /// Write these batches into the log and sync it; then [`Pipeline::wal_synced`] or
    /// [`Pipeline::wal_failed`]. There is one such effect at a time.
    WriteWal(Vec<(Ticket, TopicPartition)>),
    /// Commit; then [`Pipeline::committed`], [`Pipeline::commit_unknown`] behind a fence with the
    /// same `sealed_below`, or [`Pipeline::fenced`]. There is one such effect at a time.
    Commit(Commit),
    /// The batch has its answer.
    Answer(Ticket, Result<Appended, AppendError>),
    /// A segment is through, and with it the bytes of these batches.
    Settled { tickets: Vec<Ticket> },
    /// Positions of the log below this one are no longer needed.
    TruncateWal(u64),
}

/// A recovered batch: the state has it at this offset.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) ticket: Ticket,
    pub(crate) partition: TopicPartition,
    pub(crate) info: BatchInfo,
    pub(crate) offset: Offset,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipeline {
    broker: BrokerId,
    epoch: BrokerEpoch,
    policy: Policy,
    /// Sealed segments in the order of their seals, then the open one. Never empty.
    segments: VecDeque<Segment>,
    groups: VecDeque<Group>,
    in_flight: Option<InFlight>,
    next_number: u64,
    /// Object batches that are not settled, by partition.
    awaiting: HashMap<TopicPartition, usize>,
    wal: WalState,
    /// What has come up between two pumps.
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct WalState {
    usable: bool,
    /// Bytes that local batches may take.
    limit: u64,
    /// Bytes of local batches whose segment is not settled.
    held: u64,
    /// Everything below is durable.
    synced: u64,
    /// What [`Effect::TruncateWal`] has said.
    truncated: u64,
    writing: bool,
}

impl Pipeline {
    /// `wal_limit`: bytes that local batches may take in the write-ahead log; `None`: there is
    /// none, and every batch is an object batch.
    pub(crate) fn new(
        broker: BrokerId,
        epoch: BrokerEpoch,
        policy: Policy,
        wal_limit: Option<u64>,
    ) -> Self {
        let first = Segment::new(0, policy.may_pass_the_log());
        Self {
            broker,
            epoch,
            policy,
            segments: VecDeque::from([first]),
            groups: VecDeque::new(),
            in_flight: None,
            next_number: 0,
            awaiting: HashMap::new(),
            wal: WalState {
                usable: wal_limit.is_some(),
                limit: wal_limit.unwrap_or(0),
                held: 0,
                synced: 0,
                truncated: 0,
                writing: false,
            },
            effects: Vec::new(),
        }
    }

    // -- events ------------------------------------------------------------------------------

    /// Takes a batch. Tickets are in the order of the calls.
    pub(crate) fn stage(
        &mut self,
        ticket: Ticket,
        partition: TopicPartition,
        info: BatchInfo,
        durability: Durability,
        now: Duration,
    ) -> Result<(), AppendError> {
        let overtakes = self.open().has_object(&partition);
        let local = durability == Durability::Local
            && self.wal.usable
            && match self.policy.may_pass_the_log() {
                true => !overtakes,
                false => !self.awaiting.contains_key(&partition),
            };
        if local {
            if self.wal.held + u64::from(info.length) > self.wal.limit {
                return Err(AppendError::Unavailable(
                    "the write-ahead log is full of batches that wait for their upload".into(),
                ));
            }
            self.wal.held += u64::from(info.length);
        } else {
            *self.awaiting.entry(partition).or_default() += 1;
        }
        let open = self.room(1, cost(info.length), now);
        if !local {
            open.awaited_since.get_or_insert(now);
        }
        open.put(
            Slot {
                ticket,
                partition,
                info,
                place: if local { Place::Local } else { Place::Object },
                held: local,
            },
            now,
        );
        Ok(())
    }

    /// Takes an extent that the state expects in the write-ahead log of an earlier run. It stays
    /// whole: a move cannot cut it.
    pub(crate) fn stage_recovered(&mut self, batches: Vec<Recovered>, now: Duration) {
        let slots = batches.into_iter().map(|batch| Slot {
            ticket: batch.ticket,
            partition: batch.partition,
            info: batch.info,
            place: Place::At(batch.offset),
            held: true,
        });
        let slots: Vec<Slot> = slots.collect();
        self.wal.held += length(&slots);
        self.put_together(slots, None, now);
        self.open().flush = true;
    }

    /// Somebody wants everything settled. Answers the seal below which that is the case once
    /// [`Self::settled_below`] has reached it.
    pub(crate) fn flush(&mut self) -> u64 {
        let open = self.open();
        if open.slots.is_empty() {
            open.seal
        } else {
            open.flush = true;
            open.seal + 1
        }
    }

    /// Bytes of local batches that are not in a settled segment.
    pub(crate) fn wal_held(&self) -> u64 {
        self.wal.held
    }

    /// Segments with a lower seal are settled.
    pub(crate) fn settled_below(&self) -> u64 {
        self.segments[0].seal
    }

    /// A segment is durable under the name last given. `starts` says where the batches begin, in
    /// the order in which the effect listed them.
    pub(crate) fn uploaded(&mut self, seal: u64, starts: Vec<u32>, bytes: u64) {
        let segment = self.segment(seal);
        assert_eq!(starts.len(), segment.slots.len(), "segment {seal}");
        segment.stage = Stage::Uploaded { starts, bytes };
    }

    /// The segment's name turned out to be taken by a different object: it gets another one.
    pub(crate) fn name_taken(&mut self, seal: u64) -> Effect {
        let number = self.next_number;
        self.next_number += 1;
        let epoch = self.epoch;
        let segment = self.segment(seal);
        segment.number = number;
        Effect::Upload {
            seal,
            id: SegmentId::new(epoch, number),
            batches: segment.batches(),
        }
    }

    /// The batches of the last [`Effect::WriteWal`] are durable, at these positions, in its order;
    /// the log ends at `end`.
    pub(crate) fn wal_synced(&mut self, positions: &[u64], end: u64) {
        let mut positions = positions.iter().copied();
        self.wal.writing = false;
        self.wal.synced = end;
        for group in &mut self.groups {
            if !matches!(group.stage, GroupStage::Writing) {
                continue;
            }
            let own: Vec<u64> = positions.by_ref().take(group.members.len()).collect();
            assert_eq!(own.len(), group.members.len(), "a position is missing");
            let segment = find(&mut self.segments, group.seal);
            let first = own.iter().copied().min();
            segment.wal_start = segment.wal_start.into_iter().chain(first).min();
            group.stage = GroupStage::Synced(own);
        }
        assert!(positions.next().is_none(), "a position too many");
    }

    /// The batches of the last [`Effect::WriteWal`] could not be written. They, and with
    /// `for_good` all later ones, become object batches: they stand in their segment anyway, and
    /// nothing was promised yet.
    pub(crate) fn wal_failed(&mut self, for_good: bool, now: Duration) {
        self.wal.writing = false;
        self.wal.usable &= !for_good;
        let mut kept = VecDeque::new();
        for group in std::mem::take(&mut self.groups) {
            let raise = match group.stage {
                GroupStage::Writing => true,
                GroupStage::Queued => for_good,
                GroupStage::Synced(_) => false,
            };
            if raise {
                let segment = find(&mut self.segments, group.seal);
                segment.groups -= 1;
                raise_to_object(
                    segment,
                    &group.members,
                    &mut self.awaiting,
                    &mut self.wal,
                    now,
                );
            } else {
                kept.push_back(group);
            }
        }
        self.groups = kept;
        // Behind a batch that was raised, the others of its partition must not stay local.
        let rest: Vec<u64> = self
            .groups
            .iter()
            .filter(|g| g.is_queued())
            .map(|g| g.seal)
            .collect();
        for seal in rest {
            self.raise_queued(seal, now);
        }
        let usable = self.wal.usable;
        self.raise_forming(now, |awaited| !usable || awaited);
    }

    /// The commit in flight has succeeded.
    pub(crate) fn committed(&mut self, outcome: &CommitOutcome) -> Vec<Effect> {
        let in_flight = self.in_flight.take().expect("a commit is in flight");
        let mut effects = Vec::new();
        assert_eq!(
            outcome.appends.len(),
            in_flight.appends.len(),
            "one outcome per append"
        );
        for (append, slots) in outcome.appends.iter().zip(&in_flight.appends) {
            assert_eq!(append.batches.len(), slots.len(), "one outcome per batch");
            for (batch, &(seal, index)) in append.batches.iter().zip(slots) {
                let answer = answer(*batch, append.log_start);
                let place = match batch {
                    BatchOutcome::Appended(offset) => Place::At(*offset),
                    BatchOutcome::Duplicate(_) | BatchOutcome::Refused(_) => Place::Nowhere,
                };
                let ticket = self.settle(seal, index, place);
                effects.push(Effect::Answer(ticket, answer));
            }
        }
        self.release_groups(&in_flight);
        self.release_segments(in_flight.segments, &mut effects);
        effects
    }

    /// The outcome of the commit in flight is not known, and it can no longer take effect. `wal`
    /// is what the state expects of this gateway's log by now, of any epoch.
    pub(crate) fn commit_unknown(
        &mut self,
        reason: &str,
        wal: &[(TopicPartition, Extent)],
        now: Duration,
    ) -> Vec<Effect> {
        let in_flight = self.in_flight.take().expect("a commit is in flight");
        let mut effects = Vec::new();
        let unknown = || {
            if sabotage::on(Bug::UnknownMeansFailed) {
                return Err(AppendError::Unavailable(reason.to_owned()));
            }
            Err(AppendError::Indeterminate(reason.to_owned()))
        };
        let mut offsets = self.offsets_in_wal(&in_flight.wal, wal);
        for &(seal, index) in in_flight.appends.iter().flatten() {
            let place = offsets
                .remove(&(seal, index))
                .map_or(Place::Nowhere, Place::At);
            let ticket = self.settle(seal, index, place);
            effects.push(Effect::Answer(ticket, unknown()));
        }
        self.release_groups(&in_flight);
        // What the given-up segments should have moved and has not moved goes into the open one.
        for position in 0..in_flight.segments {
            let segment = &mut self.segments[position];
            let start = segment.wal_start;
            let (again, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut segment.slots)
                .into_iter()
                .partition(|slot| matches!(slot.place, Place::At(offset) if expected(wal, slot.partition, offset)));
            segment.slots = rest;
            if again.is_empty() {
                continue;
            }
            self.put_together(again, start, now);
        }
        self.release_segments(in_flight.segments, &mut effects);
        effects
    }

    /// Nothing can be committed any more. Everything that has no answer gets one. `unknown`: the
    /// commit in flight may have happened before.
    pub(crate) fn fenced(&mut self, reason: &str, unknown: bool) -> Vec<Effect> {
        let in_flight: HashSet<SlotRef> = self
            .in_flight
            .iter()
            .filter(|_| unknown)
            .flat_map(|in_flight| in_flight.appends.iter().flatten().copied())
            .collect();
        let mut effects = Vec::new();
        for segment in &self.segments {
            for (index, slot) in segment.slots.iter().enumerate() {
                if !matches!(slot.place, Place::Object | Place::Local) {
                    continue;
                }
                let reason = reason.to_owned();
                let error = if in_flight.contains(&(segment.seal, index)) {
                    AppendError::Indeterminate(reason)
                } else {
                    AppendError::Fenced(reason)
                };
                effects.push(Effect::Answer(slot.ticket, Err(error)));
            }
        }
        effects
    }

    // -- what is to be done --------------------------------------------------------------------

    /// What is to be done now, and when to ask again at the latest.
    pub(crate) fn pump(&mut self, now: Duration) -> (Vec<Effect>, Option<Duration>) {
        let waiting = self.open().forming_bytes;
        if self.policy.passes_the_log(waiting) {
            self.raise_forming(now, |_| true);
        }
        let wake = self.judge(now);
        let mut effects = std::mem::take(&mut self.effects);
        self.write_wal(&mut effects);
        self.commit(&mut effects);
        let truncated = self
            .segments
            .iter()
            .filter_map(|segment| segment.wal_start)
            .min();
        let truncated = truncated.filter(|_| !sabotage::on(Bug::WalIsCutEarly));
        let truncated = truncated.unwrap_or(self.wal.synced);
        if truncated > self.wal.truncated {
            self.wal.truncated = truncated;
            effects.push(Effect::TruncateWal(truncated));
        }
        (effects, wake)
    }

    fn judge(&mut self, now: Duration) -> Option<Duration> {
        match self.verdict(now) {
            Verdict::Wait => None,
            Verdict::WaitUntil(at) => Some(at),
            Verdict::Seal => {
                self.seal(now);
                None
            }
        }
    }

    fn verdict(&mut self, now: Duration) -> Verdict {
        let uploading = |segment: &&Segment| matches!(segment.stage, Stage::Uploading);
        let busy = self.segments.iter().filter(uploading).count();
        let open = self.segments.back().expect("there is an open segment");
        let facts = Open {
            bytes: open.bytes,
            since: open.since,
            awaited_since: open.awaited_since,
            flush: open.flush,
        };
        self.policy.judge(&facts, busy, now)
    }

    fn seal(&mut self, now: Duration) {
        self.close_forming(now);
        let open = self.segments.back_mut().expect("there is an open segment");
        open.stage = Stage::Uploading;
        open.objects = None;
        open.number = self.next_number;
        self.next_number += 1;
        self.effects.push(Effect::Upload {
            seal: open.seal,
            id: SegmentId::new(self.epoch, open.number),
            batches: open.batches(),
        });
        let next = Segment::new(open.seal + 1, self.policy.may_pass_the_log());
        self.segments.push_back(next);
    }

    fn write_wal(&mut self, effects: &mut Vec<Effect>) {
        if self.wal.writing {
            return;
        }
        let open = self.segments.back_mut().expect("there is an open segment");
        // The others wait for what is in front of them.
        let ready = |slot: &Slot| !self.awaiting.contains_key(&slot.partition);
        let wait = self.policy.may_pass_the_log() && !self.awaiting.is_empty();
        self.groups
            .extend(close_group(open, |slot| !wait || ready(slot)));
        let mut batches = Vec::new();
        for group in self.groups.iter_mut().filter(|group| group.is_queued()) {
            group.stage = GroupStage::Writing;
            let segment = find(&mut self.segments, group.seal);
            batches.extend(group.members.iter().map(|&slot| {
                let slot = &segment.slots[slot];
                (slot.ticket, slot.partition)
            }));
        }
        if !batches.is_empty() {
            self.wal.writing = true;
            effects.push(Effect::WriteWal(batches));
        }
    }

    fn commit(&mut self, effects: &mut Vec<Effect>) {
        if self.in_flight.is_some() {
            return;
        }
        let mut assembly = Assembly::new(self.broker, self.epoch);
        while let Some(group) = self.groups.front()
            && let GroupStage::Synced(positions) = &group.stage
            && assembly.has_room(group.members.len())
        {
            let segment = find(&mut self.segments, group.seal);
            assembly.add_group(segment, &group.members, positions);
            self.groups.pop_front();
        }
        for segment in &self.segments {
            if !matches!(segment.stage, Stage::Uploaded { .. })
                || segment.groups > 0
                || !assembly.has_room(segment.slots.len())
            {
                break;
            }
            assembly.add_segment(segment, self.epoch);
        }
        if assembly.is_empty() {
            // Segments in which nothing is left to be committed are given up.
            self.release_segments(assembly.segments(), effects);
            return;
        }
        let outstanding = self.segments.iter().skip(assembly.segments());
        let outstanding = outstanding.filter(|segment| !matches!(segment.stage, Stage::Open));
        let sealed_below = outstanding.map(|segment| segment.number).min();
        let sealed_below = sealed_below.filter(|_| !sabotage::on(Bug::SealsWhatIsUnderWay));
        let (commit, in_flight) = assembly.finish(sealed_below.unwrap_or(self.next_number));
        self.in_flight = Some(in_flight);
        effects.push(Effect::Commit(commit));
    }

    // -- helpers -------------------------------------------------------------------------------

    fn open(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is an open segment")
    }

    /// Adds batches that have their offsets to one segment.
    fn put_together(&mut self, slots: Vec<Slot>, wal_start: Option<u64>, now: Duration) {
        let bytes = slots.iter().map(|slot| cost(slot.info.length)).sum();
        self.room(slots.len(), bytes, now);
        // They come to lie between the batches of a group that is still forming. Those in front of
        // them have to be an extent of their own, or it would be cut when it is moved.
        self.close_forming(now);
        let open = self.open();
        open.wal_start = open.wal_start.into_iter().chain(wal_start).min();
        for slot in slots {
            open.put(slot, now);
        }
    }

    /// The open segment, after sealing it if it is full or has no room for so many batches and
    /// bytes. No segment has more batches than one commit may, since each is committed as a whole.
    fn room(&mut self, batches: usize, bytes: usize, now: Duration) -> &mut Segment {
        let open = self.segments.back_mut().expect("there is an open segment");
        let crowded = !open.slots.is_empty() && open.slots.len() + batches > COMMIT_BATCHES_MAX;
        if crowded || !self.policy.has_room(open.bytes, bytes) {
            open.flush = true;
            let verdict = self.verdict(now);
            assert_eq!(verdict, Verdict::Seal, "a flush needs no reason");
            self.seal(now);
        }
        self.open()
    }

    fn segment(&mut self, seal: u64) -> &mut Segment {
        find(&mut self.segments, seal)
    }

    /// Gives a batch of a commit its place and answers its ticket.
    fn settle(&mut self, seal: u64, index: usize, place: Place) -> Ticket {
        let slot = &mut find(&mut self.segments, seal).slots[index];
        match slot.place {
            Place::Object => {
                let left = self.awaiting.get_mut(&slot.partition);
                let left = left.expect("an unsettled object batch is counted");
                *left -= 1;
                if *left == 0 {
                    self.awaiting.remove(&slot.partition);
                }
                slot.place = Place::Nowhere;
            }
            Place::Local => {
                slot.place = place;
            }
            Place::At(_) | Place::Nowhere => unreachable!("settled twice: {slot:?}"),
        }
        slot.ticket
    }

    fn release_groups(&mut self, in_flight: &InFlight) {
        for &seal in &in_flight.groups {
            self.segment(seal).groups -= 1;
        }
    }

    fn release_segments(&mut self, count: usize, effects: &mut Vec<Effect>) {
        for segment in self.segments.drain(..count) {
            let held = segment.slots.iter().filter(|slot| slot.held);
            self.wal.held -= held.map(|slot| u64::from(slot.info.length)).sum::<u64>();
            effects.push(Effect::Settled {
                tickets: segment.slots.iter().map(|slot| slot.ticket).collect(),
            });
        }
    }

    /// Ends what is forming: nothing comes to it any more.
    fn close_forming(&mut self, now: Duration) {
        if self.policy.may_pass_the_log() {
            // What waits behind an object batch would overtake it as a group.
            self.raise_forming(now, |awaited| awaited);
        }
        let open = self.segments.back_mut().expect("there is an open segment");
        self.groups.extend(close_group(open, |_| true));
    }

    /// Raises those of the forming local batches for which `wanted` holds, given whether
    /// an object batch of its partition is not settled.
    fn raise_forming(&mut self, now: Duration, wanted: impl Fn(bool) -> bool) {
        let open = self.segments.back_mut().expect("there is an open segment");
        let awaiting = &self.awaiting;
        let raised = open.take_forming(|slot| wanted(awaiting.contains_key(&slot.partition)));
        raise_to_object(open, &raised, &mut self.awaiting, &mut self.wal, now);
    }

    /// Raises the batches of a queued group whose partition has unsettled object batches.
    fn raise_queued(&mut self, seal: u64, now: Duration) {
        let segment = find(&mut self.segments, seal);
        for group in self
            .groups
            .iter_mut()
            .filter(|g| g.is_queued() && g.seal == seal)
        {
            let (raised, stay): (Vec<_>, Vec<_>) = group
                .members
                .iter()
                .partition(|&&slot| self.awaiting.contains_key(&segment.slots[slot].partition));
            group.members = stay;
            raise_to_object(segment, &raised, &mut self.awaiting, &mut self.wal, now);
        }
        let before = self.groups.len();
        self.groups.retain(|group| !group.members.is_empty());
        segment.groups -= before - self.groups.len();
    }

    /// The offsets of those batches at these positions which `wal` contains.
    fn offsets_in_wal(
        &self,
        batches: &[(SlotRef, u64)],
        wal: &[(TopicPartition, Extent)],
    ) -> HashMap<SlotRef, Offset> {
        let mut found = HashMap::new();
        for (partition, extent) in wal {
            let Location::Wal {
                broker,
                epoch,
                start,
                length,
            } = extent.location
            else {
                continue;
            };
            if broker != self.broker || epoch != self.epoch {
                continue;
            }
            let range = start..start + u64::from(length);
            let mut inside: Vec<_> = batches
                .iter()
                .filter(|(_, at)| range.contains(at))
                .collect();
            inside.sort_unstable_by_key(|(_, at)| *at);
            // An extent may have begun with a commit before this one, but then it also ends there:
            // what a commit appends is behind a frame's header.
            let mut offset = extent.base;
            for &&((seal, index), _) in &inside {
                let segment = self.segments.iter().find(|segment| segment.seal == seal);
                let slot = &segment.expect("its group is not settled").slots[index];
                debug_assert_eq!(slot.partition, *partition);
                found.insert((seal, index), offset);
                offset = offset + slot.info.records;
            }
        }
        found
    }
}

fn raise_to_object(
    segment: &mut Segment,
    members: &[usize],
    awaiting: &mut HashMap<TopicPartition, usize>,
    wal: &mut WalState,
    now: Duration,
) {
    for &index in members {
        let slot = &mut segment.slots[index];
        slot.place = Place::Object;
        slot.held = false;
        wal.held -= u64::from(slot.info.length);
        let partition = slot.partition;
        *awaiting.entry(partition).or_default() += 1;
        segment.note_object(partition);
        segment.awaited_since.get_or_insert(now);
    }
}

fn expected(wal: &[(TopicPartition, Extent)], partition: TopicPartition, offset: Offset) -> bool {
    wal.iter()
        .any(|(p, extent)| *p == partition && (extent.base..extent.end).contains(&offset))
}

fn answer(outcome: BatchOutcome, log_start: Offset) -> Result<Appended, AppendError> {
    match outcome {
        BatchOutcome::Appended(base_offset) => Ok(Appended {
            base_offset,
            log_start,
            duplicate: false,
        }),
        BatchOutcome::Duplicate(base_offset) => Ok(Appended {
            base_offset,
            log_start,
            duplicate: true,
        }),
        // Not the batch was at fault.
        BatchOutcome::Refused(BatchRefusal::SealedSegment) => Err(AppendError::Unavailable(
            BatchRefusal::SealedSegment.to_string(),
        )),
        BatchOutcome::Refused(refusal) => Err(AppendError::Refused(refusal)),
    }
}

#[cfg(test)]
mod tests;
