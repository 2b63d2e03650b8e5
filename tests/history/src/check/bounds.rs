//! What is known of a partition's bounds at any time, and what answers say about them: I9, I10,
//! I11, I13, I17.

use std::collections::BTreeMap;

use super::index::{Log, Read, TopicFacts};
use super::{Invariant, Report};
use crate::{Gateway, List, Time, TopicPartition};

/// An observation of a bound that only grows.
#[derive(Clone, Copy)]
struct Seen {
    ret: Time,
    at_least: i64,
    event: usize,
}

/// How far a growing bound has got, by the time at which it was known.
#[derive(Default)]
struct Reached(Vec<(Time, i64, usize)>);

impl Reached {
    fn new(mut seen: Vec<Seen>) -> Self {
        seen.sort_by_key(|seen| seen.ret);
        let mut highest = (i64::MIN, 0);
        let steps = seen.into_iter().map(|seen| {
            if seen.at_least > highest.0 {
                highest = (seen.at_least, seen.event);
            }
            (seen.ret, highest.0, highest.1)
        });
        Self(steps.collect())
    }

    /// What was known strictly before an instant, and the event that shows it.
    fn before(&self, instant: Time) -> Option<(i64, usize)> {
        let index = self.0.partition_point(|step| step.0 < instant);
        let (_, bound, event) = self.0[..index].last()?;
        Some((*bound, *event))
    }
}

/// The bounds of a partition as far as a history tells them. The true high watermark at time t is
/// at least [`Known::end`]`(t)`; the true log start is at most [`Known::start_max`]`(t)`.
pub(super) struct Known {
    end: Reached,
    acked: Reached,
    start: Reached,
    /// By invoke: no log start was higher than this when that observation began.
    later_start: Vec<(Time, i64)>,
    /// By invoke: the highest log start that anybody can have asked for until then.
    cuts: Vec<(Time, i64)>,
    retention: bool,
}

impl Known {
    pub(super) fn new(log: &Log<'_>, topic: TopicFacts<'_>) -> Self {
        let acked: Vec<Seen> = log
            .acked()
            .map(|(sent, base)| Seen {
                ret: sent.ret,
                at_least: base + sent.values.len() as i64,
                event: sent.event,
            })
            .collect();
        let mut end = acked.clone();
        let mut start = Vec::new();
        for read in &log.reads {
            let seen = |at_least| Seen {
                ret: read.ret,
                at_least,
                event: read.event,
            };
            end.push(seen(read.high_watermark));
            start.extend(read.log_start.map(seen));
        }
        for listed in &log.listed {
            let Some(offset) = listed.offset else {
                continue;
            };
            let seen = Seen {
                ret: listed.ret,
                at_least: offset,
                event: listed.event,
            };
            match listed.list {
                List::Earliest => start.push(seen),
                List::Latest => end.push(seen),
                List::Timestamp(_) => {}
            }
        }
        // A fetch may be answered from an image that is behind; only ListOffsets is the truth.
        let earliest = log.listed.iter().filter(|l| l.list == List::Earliest);
        let mut later_start: Vec<_> = earliest
            .filter_map(|listed| Some((listed.invoke, listed.offset?)))
            .collect();
        later_start.sort_unstable();
        let mut lowest = i64::MAX;
        for (_, bound) in later_start.iter_mut().rev() {
            lowest = lowest.min(*bound);
            *bound = lowest;
        }
        start.extend(log.cuts.iter().filter(|cut| cut.acked).map(|cut| Seen {
            ret: cut.ret,
            at_least: cut.before,
            event: cut.event,
        }));
        let asked = |before| if before < 0 { i64::MAX } else { before };
        let mut cuts: Vec<_> = log
            .cuts
            .iter()
            .map(|cut| (cut.invoke, asked(cut.before)))
            .collect();
        cuts.sort_unstable();
        let mut highest = 0;
        for (_, bound) in &mut cuts {
            highest = highest.max(*bound);
            *bound = highest;
        }
        Self {
            end: Reached::new(end),
            acked: Reached::new(acked),
            start: Reached::new(start),
            later_start,
            cuts,
            retention: topic.retention,
        }
    }

    /// No log start at or before `instant` can be higher, as far as anybody asked for it.
    fn start_asked(&self, instant: Time) -> i64 {
        if self.retention {
            return i64::MAX;
        }
        let index = self.cuts.partition_point(|cut| cut.0 <= instant);
        self.cuts[..index].last().map_or(0, |cut| cut.1)
    }

    /// No log start at or before `instant` was higher.
    fn start_max(&self, instant: Time) -> i64 {
        let index = self.later_start.partition_point(|seen| seen.0 <= instant);
        let later = self.later_start.get(index).map_or(i64::MAX, |seen| seen.1);
        later.min(self.start_asked(instant))
    }

    /// Where the high watermark certainly was before `instant`.
    fn end(&self, instant: Time) -> i64 {
        self.end.before(instant).map_or(0, |(bound, _)| bound)
    }
}

pub(super) fn check(at: TopicPartition, log: &Log<'_>, known: &Known, report: &mut Report) {
    check_reads(at, log, known, report);
    check_lists(at, log, known, report);
    check_out_of_range(at, log, known, report);
    check_timestamps(at, log, known, report);
}

fn check_reads(at: TopicPartition, log: &Log<'_>, known: &Known, report: &mut Report) {
    let mut by_gateway: BTreeMap<Gateway, Vec<&Read<'_>>> = BTreeMap::new();
    for read in &log.reads {
        by_gateway.entry(read.gateway).or_default().push(read);
        let (start, end) = (read.log_start.unwrap_or(0), read.high_watermark);
        let stable = read.last_stable.unwrap_or(end);
        if start > stable || stable > end || start < 0 {
            report.add(Invariant::I10, &[read.event], || {
                format!("{at:?}: log start {start}, last stable {stable}, high watermark {end}")
            });
        }
        if let Some(record) = read.records.iter().find(|r| r.offset >= end) {
            report.add(Invariant::I10, &[read.event], || {
                format!("{at:?}: a record at {} of {end}", record.offset)
            });
        }
        let unstable = read.records.iter().find(|r| r.offset >= stable);
        if let (true, Some(record)) = (read.committed, unstable) {
            report.add(Invariant::I17, &[read.event], || {
                format!("{at:?}: {} was read, {stable} is stable", record.offset)
            });
        }
        check_start(at, start, read.ret, read.event, known, report);
    }
    for reads in by_gateway.values() {
        check_growth(
            at,
            reads,
            "high watermark",
            |r| Some(r.high_watermark),
            report,
        );
        check_growth(at, reads, "last stable offset", |r| r.last_stable, report);
        check_growth(at, reads, "log start", |r| r.log_start, report);
    }
}

/// What one gateway tells never goes back.
fn check_growth(
    at: TopicPartition,
    reads: &[&Read<'_>],
    name: &str,
    bound: impl Fn(&Read<'_>) -> Option<i64>,
    report: &mut Report,
) {
    let seen = reads.iter().filter_map(|read| {
        Some(Seen {
            ret: read.ret,
            at_least: bound(read)?,
            event: read.event,
        })
    });
    let reached = Reached::new(seen.collect());
    for read in reads {
        if let (Some(now), Some((before, event))) = (bound(read), reached.before(read.invoke))
            && now < before
        {
            report.add(Invariant::I10, &[event, read.event], || {
                format!("{at:?}: the {name} went from {before} to {now}")
            });
        }
    }
}

/// The log start moves only if somebody asked for it.
fn check_start(
    at: TopicPartition,
    start: i64,
    ret: Time,
    event: usize,
    known: &Known,
    report: &mut Report,
) {
    let asked = known.start_asked(ret);
    if start > asked {
        report.add(Invariant::I2, &[event], || {
            format!("{at:?}: the log starts at {start}, and nobody deleted beyond {asked}")
        });
    }
}

fn check_lists(at: TopicPartition, log: &Log<'_>, known: &Known, report: &mut Report) {
    for listed in &log.listed {
        let now = listed.offset.unwrap_or(-1);
        let reached = match listed.list {
            List::Timestamp(_) => continue,
            List::Latest => {
                let acked = known.acked.before(listed.invoke);
                if let Some((before, event)) = acked.filter(|acked| acked.0 > now) {
                    report.add(Invariant::I9, &[event, listed.event], || {
                        let last = before - 1;
                        format!("{at:?}: {last} was acknowledged, and then the latest is {now}")
                    });
                    continue;
                }
                known.end.before(listed.invoke)
            }
            List::Earliest => {
                check_start(at, now, listed.ret, listed.event, known, report);
                known.start.before(listed.invoke)
            }
        };
        let (before, event) = reached.unwrap_or((0, listed.event));
        if now < before {
            report.add(Invariant::I10, &[event, listed.event], || {
                format!("{at:?}: {:?} went from {before} to {now}", listed.list)
            });
        }
    }
}

fn check_out_of_range(at: TopicPartition, log: &Log<'_>, known: &Known, report: &mut Report) {
    for refused in &log.out_of_range {
        let (start, end) = (known.start_max(refused.ret), known.end(refused.invoke));
        if start <= refused.from && refused.from <= end {
            report.add(Invariant::I11, &[refused.event], || {
                format!(
                    "{at:?}: {} is out of range, but {start}..={end} was there",
                    refused.from
                )
            });
        }
    }
}

fn check_timestamps(at: TopicPartition, log: &Log<'_>, known: &Known, report: &mut Report) {
    let highest = Highest::new(log.truth.iter().map(|sighting| sighting.timestamp));
    for listed in &log.listed {
        let List::Timestamp(wanted) = listed.list else {
            continue;
        };
        if let Some(found) = listed.offset.and_then(|offset| log.at(offset))
            && found.timestamp < wanted
        {
            report.add(Invariant::I13, &[listed.event, found.event], || {
                format!(
                    "{at:?}: {} was answered for time {wanted}, and has {}",
                    found.offset, found.timestamp
                )
            });
        }
        let start = known.start_max(listed.ret);
        let from = log.truth.partition_point(|s| s.offset < start);
        let Some(first) = highest.first(from, wanted).map(|index| &log.truth[index]) else {
            continue;
        };
        let visible = first.offset < known.end(listed.invoke);
        if visible && listed.offset.is_none_or(|offset| first.offset < offset) {
            report.add(Invariant::I13, &[listed.event, first.event], || {
                format!(
                    "{at:?}: {:?} was answered for time {wanted}, but {} has {}",
                    listed.offset, first.offset, first.timestamp
                )
            });
        }
    }
}

/// Answers where, from some index on, the first number is that is at least as high as another.
struct Highest {
    /// A binary heap of maxima; the leaves begin at `leaves`.
    nodes: Vec<i64>,
    leaves: usize,
}

impl Highest {
    fn new(numbers: impl ExactSizeIterator<Item = i64>) -> Self {
        let leaves = numbers.len().next_power_of_two();
        let mut nodes = vec![i64::MIN; 2 * leaves];
        for (index, number) in numbers.enumerate() {
            nodes[leaves + index] = number;
        }
        for index in (1..leaves).rev() {
            nodes[index] = nodes[2 * index].max(nodes[2 * index + 1]);
        }
        Self { nodes, leaves }
    }

    fn first(&self, from: usize, wanted: i64) -> Option<usize> {
        if from >= self.leaves {
            return None;
        }
        // Upwards from the leaf, to the first subtree to the right that has one; then down it.
        let mut node = self.leaves + from;
        while self.nodes[node] < wanted {
            while node & 1 == 1 {
                node >>= 1;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < self.leaves {
            node *= 2;
            if self.nodes[node] < wanted {
                node += 1;
            }
        }
        Some(node - self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn the_first_high_enough_is_found_as_by_looking_at_each() {
        let mut rng = Rng::new(1);
        for length in 0..40usize {
            let numbers: Vec<i64> = (0..length).map(|_| rng.below(10) as i64).collect();
            let highest = Highest::new(numbers.iter().copied());
            for from in 0..length + 2 {
                for wanted in 0..11 {
                    let expected = (from..length).find(|index| numbers[*index] >= wanted);
                    assert_eq!(highest.first(from, wanted), expected, "{numbers:?}");
                }
            }
        }
    }
}
