//! What must hold of state and store together, looked at after every command and every deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use frazil_core::ports::{Bounds, SegmentStatus};
use frazil_core::{Extent, Location, SegmentId, TopicPartition};
use frazil_metadata::command::{Command, Envelope, Outcome};
use frazil_metadata::simulated::Applied;
use frazil_metadata::state::State;
use object_store::path::Path;

use crate::reclaim::object;

/// What retention keeps in these simulations.
pub(super) const RETENTION_MS: i64 = 60_000;
pub(super) const RETENTION_BYTES: u64 = 400;
pub(super) const GRACE: Duration = Duration::from_secs(40);

/// What was seen so far, and the objects that are in the store.
pub(super) struct Oracle {
    pub(super) prefix: Path,
    pub(super) objects: BTreeMap<Path, Bytes>,
    /// The state's time at which each segment was retired.
    retired: BTreeMap<SegmentId, i64>,
    live: BTreeSet<SegmentId>,
    /// The requests that were applied.
    seen: BTreeSet<(uuid::Uuid, u64)>,
    logs: BTreeMap<TopicPartition, (Bounds, Vec<Extent>)>,
    pub(super) deletions: u64,
    pub(super) expired: u64,
}

impl Oracle {
    pub(super) fn new(prefix: Path) -> Self {
        Self {
            prefix,
            objects: BTreeMap::new(),
            retired: BTreeMap::new(),
            live: BTreeSet::new(),
            seen: BTreeSet::new(),
            logs: BTreeMap::new(),
            deletions: 0,
            expired: 0,
        }
    }

    /// After every command.
    pub(super) fn applied(&mut self, (state, envelope, outcome): Applied<'_>) {
        match (&envelope.command, outcome) {
            (Command::Heartbeat { .. }, _) => return,
            (Command::Commit(commit), Outcome::Committed(_)) if !self.answered(envelope) => {
                let known = state.registration(commit.broker);
                let current = known.is_some_and(|known| known.broker.epoch == commit.epoch);
                assert!(current, "{} commits, and was superseded", commit.epoch);
            }
            _ => {}
        }
        let live: BTreeSet<SegmentId> = state.live_segments().collect();
        for id in live.difference(&self.live) {
            // I33: what is referred to exists; and what was retired never comes back.
            let path = object(&self.prefix, *id);
            assert!(self.objects.contains_key(&path), "{id} is not in the store");
            assert!(!self.retired.contains_key(id), "{id} has come back");
        }
        self.live = live;
        for (id, since) in state.retired_segments(usize::MAX) {
            self.retired.entry(id).or_insert(since);
        }
        let mut logs = BTreeMap::new();
        for log in state.partitions() {
            let extents = state.oldest_extents(&log.partition, usize::MAX);
            if let Some((before, old)) = self.logs.get(&log.partition) {
                // I10, and I36 in part: nothing goes back.
                assert!(log.bounds.log_start >= before.log_start);
                assert!(log.bounds.high_watermark >= before.high_watermark);
                if let Command::RaiseLogStarts { .. } = envelope.command {
                    self.expired += judge_retention(state.now_ms(), log.bounds, old);
                }
            }
            assert!(log.bounds.log_start <= log.bounds.high_watermark);
            let end = extents.last().map(|extent| extent.end);
            assert!(end.is_none_or(|end| end == log.bounds.high_watermark));
            logs.insert(log.partition, (log.bounds, extents));
        }
        self.logs = logs;
        self.bytes_have_one_place();
    }

    /// Whether the command is a copy of one that was applied before: it gets that one's outcome,
    /// whoever is current by now.
    fn answered(&mut self, envelope: &Envelope) -> bool {
        !self.seen.insert((envelope.client, envelope.request))
    }

    /// I36: what was appended once stands in the log once.
    fn bytes_have_one_place(&self) {
        let mut places = BTreeMap::new();
        for extent in self.logs.values().flat_map(|(_, extents)| extents) {
            if let Location::Segment { id, start, length } = extent.location {
                let twice = places.insert((id, start), start + length);
                assert!(
                    twice.is_none(),
                    "{id} from {start} on stands in the log twice"
                );
            }
        }
        for (((id, _), end), ((next, start), _)) in places.iter().zip(places.iter().skip(1)) {
            assert!(
                id != next || end <= start,
                "{id} stands in the log twice at {start}"
            );
        }
    }

    /// An object was there and has been deleted.
    pub(super) fn deleted(&mut self, state: &State, id: SegmentId) {
        self.deletions += 1;
        let status = state.segment(id);
        assert!(
            matches!(status, SegmentStatus::Retired | SegmentStatus::Orphan),
            "{id} was deleted, and is {status:?}"
        );
        assert!(self.may_be_gone(state, id), "{id} was deleted too early");
    }

    /// Whether the grace period of a segment is over, or it was never referred to.
    pub(super) fn may_be_gone(&self, state: &State, id: SegmentId) -> bool {
        let grace_ms = GRACE.as_millis() as i64;
        match self.retired.get(&id) {
            Some(since) => state.now_ms() - since >= grace_ms,
            None => state.segment(id) == SegmentStatus::Orphan,
        }
    }

    /// When everything has come to rest: what is in the store is what is referred to, and with
    /// `pending` what a gateway may still commit if it ever comes back.
    pub(super) fn at_rest(&self, state: &State, pending: bool) {
        for id in &self.live {
            let path = object(&self.prefix, *id);
            assert!(self.objects.contains_key(&path), "{id} is not in the store");
        }
        for path in self.objects.keys() {
            let id = SegmentId::from_object_key(path.as_ref()).expect("a segment");
            match state.segment(id) {
                SegmentStatus::Live => {}
                SegmentStatus::Pending if pending => {}
                other => panic!("{id} is {other:?}, and still in the store"),
            }
        }
    }
}

/// Whether what retention took was older, or more, than it has to keep. How many extents it took.
fn judge_retention(now_ms: i64, bounds: Bounds, before: &[Extent]) -> u64 {
    let length = |extent: &Extent| u64::from(extent.location.length());
    let mut remaining: u64 = before.iter().map(length).sum();
    let gone = before
        .iter()
        .take_while(|extent| extent.end <= bounds.log_start);
    let mut count = 0;
    for extent in gone {
        count += 1;
        remaining -= length(extent);
        let old = extent.max_timestamp < now_ms - RETENTION_MS;
        assert!(
            old || remaining >= RETENTION_BYTES,
            "retention took {extent:?} at {now_ms}, of which {remaining} bytes remain"
        );
    }
    count
}
