//! The cold part of a log: offsets whose records are in a table's data files.
//!
//! ```text
//!  root.base   log start            root.end = first extent's base      high watermark
//!     ▼            ▼                            ▼                              ▼
//!     ├────────────┴── row groups below root ───┼─ extent ─┬─ extent ─┬─ extent ┤
//!
//!  once the log start is past root.end, nothing of it is read, and offsets below the log start may
//!  be in neither of the two; the root stays until it is replaced, since only its writer knows
//!  which objects it stands for
//! ```
//!
//! Invariant: every offset from the log start to the high watermark is below the root or in an
//! extent, and in one of them only.

use frazil_core::cold::NodeRef;
use frazil_core::ports::{ColdMove, TableRefusal};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{Location, Offset};

use super::super::segments::Segments;
use super::{Log, segment_of};

/// Why a replacement does not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Misfit {
    /// What it was planned on is not so any more.
    Refused(TableRefusal),
    /// It cannot have been planned on any state of the past: its sender is broken.
    Nonsense(&'static str),
}

const CHANGED: Misfit = Misfit::Refused(TableRefusal::Changed);

/// Whether a move makes sense in itself, under this claim.
pub(in super::super) fn check_move(moved: &ColdMove, claim: u64) -> Result<(), Misfit> {
    let nonsense = |why| Err(Misfit::Nonsense(why));
    if moved.base < Offset::ZERO || moved.base > moved.end {
        return nonsense("cold offsets that end before they begin");
    }
    let Some(root) = &moved.root else {
        return match moved.expected {
            Some(_) if moved.base == moved.end => Ok(()),
            _ => nonsense("extents that become cold under no root"),
        };
    };
    if root.end != moved.end || root.base < Offset::ZERO || root.base >= root.end {
        return nonsense("a root that does not end where its offsets do");
    }
    if root.records > root.end.0.abs_diff(root.base.0) {
        return nonsense("a root of more records than offsets");
    }
    if root.id.claim == 0 || root.id.claim > claim {
        return nonsense("a root that was written under a later claim");
    }
    if moved.expected == Some(root.id) {
        return nonsense("a root in place of itself");
    }
    Ok(())
}

impl Log {
    /// The root of the partition's manifest, read from or not.
    pub(in super::super) fn cold(&self) -> Option<&NodeRef> {
        self.cold.as_deref()
    }

    #[cfg(test)]
    pub(in super::super) fn cold_mut(&mut self) -> &mut NodeRef {
        self.cold.as_deref_mut().expect("cold offsets")
    }

    /// The root, if there are offsets below it that can be read.
    pub(in super::super) fn readable_cold(&self) -> Option<&NodeRef> {
        self.cold().filter(|root| self.log_start < root.end)
    }

    /// The root, if `offset` is below it and can be read.
    pub(in super::super) fn cold_at(&self, offset: Offset) -> Option<&NodeRef> {
        self.readable_cold().filter(|root| offset < root.end)
    }

    /// Where the extents begin; the high watermark if there are none.
    pub(super) fn extents_base(&self) -> Offset {
        self.extents
            .front()
            .map_or(self.high_watermark, |first| first.base)
    }

    /// How many extents a move releases. It has passed [`check_move`].
    ///
    /// The log start may have risen, and extents may have been joined, since the move was planned;
    /// what was below the root then is so still, and what was in a segment or lost is so still,
    /// since only a replacement changes that, and the expected root says that there was none.
    pub(in super::super) fn plan_cold(&self, moved: &ColdMove) -> Result<usize, Misfit> {
        let nonsense = |why| Err(Misfit::Nonsense(why));
        let expected = self.cold().map(|root| root.id);
        if moved.expected != expected && !sabotage::on(Bug::ReplacesWhatHasChanged) {
            return Err(CHANGED);
        }
        if moved.end > self.bounds_in_state().last_stable {
            return nonsense("offsets that become cold and are not stable");
        }
        if moved.base > self.extents_base() {
            return nonsense("a move that leaves out extents");
        }
        if self.cold().is_some_and(|old| moved.base < old.end) {
            return nonsense("a move of what is cold already");
        }
        match (&moved.root, self.cold()) {
            (None, old) => {
                if old.is_some_and(|old| self.log_start < old.end) {
                    return nonsense("cold offsets that can be read lose their root");
                }
            }
            (Some(root), Some(old)) if old.end == moved.base => {
                if root.base < old.base || root.base > self.log_start {
                    // It began where one could read when it was planned; the log start only rises.
                    return nonsense("a root that leaves out offsets that can be read");
                }
            }
            (Some(root), _) => {
                if root.base != moved.base {
                    return nonsense("a root that does not begin with its first extent");
                }
            }
        }
        let count = self.position(moved.end);
        let mut released = self.extents.range(..count);
        if released.any(|extent| matches!(extent.location, Location::Wal { .. })) {
            return nonsense("offsets that become cold out of a write-ahead log");
        }
        match self.extents.get(count) {
            // It has grown, or been joined with others that are given up.
            Some(cut) if cut.base < moved.end && !sabotage::on(Bug::ReplacesWhatHasChanged) => {
                Err(CHANGED)
            }
            _ => Ok(count),
        }
    }

    /// Lets go of so many extents, in favour of a new root.
    pub(in super::super) fn apply_cold(
        &mut self,
        moved: &ColdMove,
        count: usize,
        segments: &mut Segments,
        now_ms: i64,
    ) {
        for extent in self.extents.drain(..count) {
            self.bytes -= u64::from(extent.location.length());
            if let Some(id) = segment_of(&extent.location) {
                segments.release(id, now_ms);
            }
        }
        self.cold = moved.root.clone().map(Box::new);
        self.shrink();
    }

    /// Checks that log start, root and extents fit.
    pub(super) fn check_cold(&self) -> Result<(), String> {
        let base = self.extents_base();
        if let Some(root) = self.cold() {
            if !(Offset::ZERO <= root.base
                && root.base < root.end
                && root.base <= self.log_start
                && root.end <= base)
            {
                return Err(format!("cold offsets {} to {}", root.base, root.end));
            }
            if root.records > root.end.0.abs_diff(root.base.0) {
                return Err(format!("{} records in cold offsets", root.records));
            }
        }
        match (self.readable_cold(), self.extents.front()) {
            (Some(root), _) if root.end != base => Err(format!(
                "cold offsets end at {}, and extents begin at {base}",
                root.end
            )),
            (None, Some(first)) if first.end <= self.log_start || first.base > self.log_start => {
                Err(format!("the first extent does not hold {}", self.log_start))
            }
            (None, None) if self.log_start != self.high_watermark => {
                Err(format!("nothing holds {}", self.log_start))
            }
            _ => Ok(()),
        }
    }
}
