//! What must hold of a state after every command.
//!
//! Costs a walk over everything: for tests, and for whatever comes from outside (a restore).

use std::collections::BTreeMap;

use frazil_core::SegmentId;

use super::State;
use super::log::segment_of;

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
                if let Some(id) = segment_of(&extent.location) {
                    *references.entry(id).or_default() += 1;
                }
            }
        }
        self.segments.check(&references)?;
        self.groups.check(&self.topics, self.applied)?;
        self.sessions.check(self.applied)?;
        if self.next_producer < 0 || self.collector > self.applied {
            return Err("producer ids or the collector's claim".to_owned());
        }
        Ok(())
    }
}
