//! The checker: one file per kind of promise, all over the same index.

mod bounds;
mod cold;
mod groups;
mod index;
mod log;
mod order;
mod register;
mod sweep;
mod topics;

use std::fmt;

use crate::{Event, History};
pub use cold::cold_reads;
use index::Index;

/// How many violations of one invariant are reported; further ones add nothing.
const REPORTED_MAX: usize = 50;

/// What a broker promises. The numbers are those of the project's reliability notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// The history itself cannot be: the harness is wrong, or the final sweep is not complete.
    Malformed,
    /// One value per partition and offset, whoever reads it, whenever.
    I1,
    /// No acknowledged value below the highest visible offset is missing.
    I2,
    /// Every acknowledged value becomes visible after healing.
    I3,
    /// With idempotence a value has at most one offset.
    I4,
    /// The offset in an acknowledgement is where the value is read.
    I5,
    /// What definitely failed is never visible.
    I6,
    /// Per producer and partition, offsets follow the order of sending.
    I7,
    /// What was acknowledged before another was sent has the lower offset.
    I8,
    /// After an acknowledgement, the latest offset through any gateway is above it.
    I9,
    /// Log start ≤ last stable ≤ high watermark, each monotone.
    I10,
    /// OFFSET_OUT_OF_RANGE only when truly out of range.
    I11,
    /// No phantom, no value of a deleted topic under a recreated name.
    I12,
    /// ListOffsets by timestamp is the first visible offset at or after it.
    I13,
    /// Committed reads never pass the last stable offset.
    I17,
    /// No skip and no repeat inside a poll.
    I23,
    /// No skip and no repeat inside an assignment, which begins where the group had committed.
    I24,
    /// A committed offset is read back, by anyone, until another is committed.
    I25,
    /// Nothing below a committed offset is undelivered.
    I26,
    /// One owner per partition and generation; stale generations are refused.
    I27,
    /// Who lags makes progress.
    I29,
    /// A repeated batch is recognised, through any gateway.
    I30,
    /// An unknown producer's first batch is accepted.
    I31,
    /// Producer ids are never reused.
    I32,
    /// Offsets are assigned once.
    I36,
    /// What has become cold is read as it was before.
    I37,
    /// A table's snapshot is a prefix of the log, each offset once, without a gap.
    I38,
    /// An acknowledged change of a topic is visible on every gateway.
    I39,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The events that show it, as indexes into the history.
    pub events: Vec<usize>,
    /// What they show, in one line.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} (events {:?})",
            self.invariant, self.what, self.events
        )
    }
}

impl Violation {
    /// The violation with its events in full, for a person; long batches are cut.
    pub fn explain(&self, history: &History) -> String {
        let mut text = self.to_string();
        for index in &self.events {
            let Some(event) = history.events.get(*index) else {
                continue;
            };
            let line = format!("{event:?}");
            let cut: String = line.chars().take(600).collect();
            text.push_str(&format!("\n  {index}: {cut}"));
        }
        text
    }
}

/// Collects violations, up to [`REPORTED_MAX`] per invariant.
#[derive(Default)]
struct Report {
    found: Vec<Violation>,
    counts: std::collections::BTreeMap<Invariant, usize>,
}

impl Report {
    fn add(&mut self, invariant: Invariant, events: &[usize], what: impl FnOnce() -> String) {
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= REPORTED_MAX {
            self.found.push(Violation {
                invariant,
                events: events.to_vec(),
                what: what(),
            });
        }
    }
}

/// Finds what no correct broker could have answered. At most 50 violations per invariant are
/// reported.
pub fn check(history: &History) -> Vec<Violation> {
    let mut report = Report::default();
    let index = Index::new(&history.events, &mut report);
    topics::check(&index, &mut report);
    for (at, log) in &index.logs {
        let known = bounds::Known::new(log, index.topic(at.topic));
        log::check(&index, *at, log, &mut report);
        order::check(*at, log, &mut report);
        bounds::check(*at, log, &known, &mut report);
        sweep::check(&index, *at, log, &mut report);
        cold::check(&index, *at, log, &mut report);
    }
    groups::check(&index, &mut report);
    report.found.sort_by_key(|violation| violation.invariant);
    report.found
}

/// Whether nothing about the event's time is impossible.
const fn timely(event: &Event) -> bool {
    event.invoke <= event.ret
}
