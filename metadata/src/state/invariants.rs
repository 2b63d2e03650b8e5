//! What must hold of a state after every command.
//!
//! Costs a walk over everything: for tests, and for whatever comes from outside (a restore).

use std::collections::BTreeMap;

use frazil_core::{Location, SegmentId};

use super::State;
use super::brokers::Bound;

/// Far above what anyone uses, far below where additions overflow.
const PRODUCER_ID_MAX: i64 = 1 << 62;

impl State {
    /// Checks the invariants of the whole state.
    ///
    /// # Errors
    /// The first contradiction found, in words.
    pub fn check(&self) -> Result<(), String> {
        self.brokers.check(self.applied)?;
        self.topics.check()?;
        let mut references: BTreeMap<SegmentId, u64> = BTreeMap::new();
        for (_, _, log) in self.topics.logs() {
            for extent in log.extents() {
                let writer = match extent.location {
                    Location::Segment { id, .. } => {
                        *references.entry(id).or_default() += 1;
                        id.epoch
                    }
                    Location::Wal { epoch, .. } => epoch,
                    // Nobody remembers.
                    Location::Lost => continue,
                };
                if self.brokers.bound(writer) == Bound::Unknown {
                    return Err(format!(
                        "an extent was written under the unknown epoch {writer}"
                    ));
                }
            }
        }
        self.segments.check(&references)?;
        self.check_tables()?;
        self.groups.check(&self.topics, self.applied)?;
        self.sessions.check(self.applied)?;
        if !(0..PRODUCER_ID_MAX).contains(&self.next_producer) {
            return Err(format!("{} is not a producer id", self.next_producer));
        }
        if self.collector > self.applied {
            return Err("the collector claimed in the future".to_owned());
        }
        Ok(())
    }
}
