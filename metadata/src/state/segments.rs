//! Which segments exist, how many extents refer to each, and which wait for collection.
//!
//! ```text
//!  (uploaded) ──commit──► live ──last extent goes──► retired ──forget──► unknown
//!                                                       └─ forget before its epoch's bound has
//!                                                          passed it ─► tombstone ─► unknown
//! ```
//! A segment never goes back: once retired its object may be deleted at any moment. A collector
//! may be faster than the gateway that raises its bound, so what is forgotten while it could still
//! be committed leaves a tombstone until the bound passes it.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::ports::SegmentStatus;
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerEpoch, SegmentId};
use minicbor::{Decode, Encode};

use super::brokers::{Bound, Brokers};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Live {
    /// Size of the object; 0 if no commit declared it.
    #[n(0)]
    bytes: u64,
    /// How many extents refer to it.
    #[n(1)]
    references: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Segments {
    #[n(0)]
    live: BTreeMap<SegmentId, Live>,
    /// With the state's time at which the last reference went.
    #[n(1)]
    retired: BTreeMap<SegmentId, i64>,
    #[n(2)]
    tombstones: BTreeSet<SegmentId>,
    /// The retired ones, oldest first. Derived.
    #[cbor(skip)]
    queue: BTreeSet<(i64, SegmentId)>,
}

impl Segments {
    /// Whether a commit under `epoch` may refer to the segment.
    pub(super) fn usable(&self, id: SegmentId, epoch: BrokerEpoch, bound: Bound) -> bool {
        id.epoch == epoch
            && (self.live.contains_key(&id)
                || (sabotage::on(Bug::RetiredSegmentsReturn) && !self.retired.contains_key(&id))
                || (!bound.excludes(id.number)
                    && !self.retired.contains_key(&id)
                    && !self.tombstones.contains(&id)))
    }

    /// Makes a usable segment live. Until an extent refers to it, the caller owes it
    /// [`Self::retire_unreferenced`].
    pub(super) fn declare(&mut self, id: SegmentId, bytes: u64) {
        let live = self.live.entry(id).or_insert(Live {
            bytes,
            references: 0,
        });
        live.bytes = live.bytes.max(bytes);
    }

    /// One more extent refers to the segment.
    pub(super) fn refer(&mut self, id: SegmentId) {
        self.live
            .entry(id)
            .or_insert(Live {
                bytes: 0,
                references: 0,
            })
            .references += 1;
    }

    /// Two extents became one.
    pub(super) fn merge(&mut self, id: SegmentId) {
        self.live_mut(id).references -= 1;
    }

    /// An extent is gone.
    pub(super) fn release(&mut self, id: SegmentId, now_ms: i64) {
        self.live_mut(id).references -= 1;
        self.retire_unreferenced(id, now_ms);
    }

    fn live_mut(&mut self, id: SegmentId) -> &mut Live {
        match self.live.get_mut(&id) {
            Some(live) if live.references > 0 => live,
            _ => unreachable!("an extent refers to segment {id}, which does not know of it"),
        }
    }

    /// Retires a segment to which nothing refers.
    pub(super) fn retire_unreferenced(&mut self, id: SegmentId, now_ms: i64) {
        if self.live.get(&id).is_some_and(|live| live.references == 0) {
            self.live.remove(&id);
            self.retired.insert(id, now_ms);
            self.queue.insert((now_ms, id));
        }
    }

    /// The object is gone. Only a retired segment can be forgotten.
    pub(super) fn forget(&mut self, id: SegmentId, brokers: &Brokers) {
        if let Some(since) = self.retired.remove(&id) {
            self.queue.remove(&(since, id));
            if !brokers.bound(id.epoch).excludes(id.number) {
                self.tombstones.insert(id);
            }
        }
    }

    /// Drops tombstones that the bounds of their epochs make superfluous. They are few.
    pub(super) fn drop_tombstones(&mut self, brokers: &Brokers) {
        self.tombstones
            .retain(|id| !brokers.bound(id.epoch).excludes(id.number));
    }

    pub(super) fn status(&self, id: SegmentId, brokers: &Brokers) -> SegmentStatus {
        if self.live.contains_key(&id) {
            SegmentStatus::Live
        } else if self.retired.contains_key(&id) {
            SegmentStatus::Retired
        } else if self.tombstones.contains(&id) || brokers.bound(id.epoch).excludes(id.number) {
            SegmentStatus::Orphan
        } else {
            SegmentStatus::Pending
        }
    }

    pub(super) fn retired(&self) -> impl Iterator<Item = (SegmentId, i64)> {
        self.queue.iter().map(|&(since, id)| (id, since))
    }

    pub(super) fn live(&self) -> impl Iterator<Item = SegmentId> {
        self.live.keys().copied()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.live.len(), self.retired.len())
    }

    pub(super) fn rebuild(&mut self) {
        self.queue = self
            .retired
            .iter()
            .map(|(&id, &since)| (since, id))
            .collect();
    }

    /// Compares with the references counted in the logs.
    pub(super) fn check(&self, counted: &BTreeMap<SegmentId, u64>) -> Result<(), String> {
        for (id, live) in &self.live {
            let counted = counted.get(id).copied().unwrap_or(0);
            if live.references != counted || counted == 0 {
                return Err(format!(
                    "segment {id} counts {} extents, the logs have {counted}",
                    live.references
                ));
            }
            if self.retired.contains_key(id) || self.tombstones.contains(id) {
                return Err(format!("segment {id} is both live and retired"));
            }
        }
        if let Some(id) = counted.keys().find(|id| !self.live.contains_key(id)) {
            return Err(format!(
                "an extent refers to segment {id}, which is not live"
            ));
        }
        if let Some(id) = self
            .tombstones
            .iter()
            .find(|id| self.retired.contains_key(id))
        {
            return Err(format!("segment {id} is retired and forgotten"));
        }
        let queued = self.queue.iter().map(|&(since, id)| (id, since));
        if queued.collect::<BTreeMap<_, _>>() != self.retired {
            return Err("the queue of retired segments is not in step".to_owned());
        }
        Ok(())
    }
}
