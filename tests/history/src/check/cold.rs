//! What is in tables: I37 and I38.
//!
//! A reader must not notice that offsets have become cold, so everything that holds of reads holds
//! of cold ones: what the other checks find of them is reported as I37 too, since that is where to
//! look. A table's snapshot is a prefix of the log.

use std::collections::BTreeMap;

use super::index::{Index, Log, Scan};
use super::log::may_have_strayed;
use super::{Invariant, Report};
use crate::{Answer, History, Op, Time, TopicPartition};

pub(super) fn check(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    if index.topic(at.topic).doomed != Time::MAX {
        return;
    }
    let acked = acked(log);
    let reach = Reach::new(log.frozen.iter().map(|frozen| (frozen.ret, frozen.end)));
    check_reads(index, at, log, &reach, &acked, report);
    check_tables(index, at, log, &acked, report);
}

/// What was acknowledged at each offset: the value and the event.
fn acked(log: &Log<'_>) -> BTreeMap<i64, (u64, usize)> {
    let values = log.acked().flat_map(|(sent, base)| {
        let values = sent.values.iter().zip(base..);
        values.map(|(value, offset)| (offset, (*value, sent.event)))
    });
    values.collect()
}

/// How far cold offsets reached, by the time at which that was certain.
struct Reach(Vec<(Time, i64)>);

impl Reach {
    fn new(known: impl Iterator<Item = (Time, i64)>) -> Self {
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        let mut highest = 0;
        for (_, end) in &mut known {
            highest = highest.max(*end);
            *end = highest;
        }
        Self(known)
    }

    /// One past the last offset that was cold before an instant.
    fn before(&self, instant: Time) -> i64 {
        let index = self.0.partition_point(|step| step.0 < instant);
        self.0[..index].last().map_or(0, |step| step.1)
    }
}

/// I37.
fn check_reads(
    index: &Index<'_>,
    at: TopicPartition,
    log: &Log<'_>,
    reach: &Reach,
    acked: &BTreeMap<i64, (u64, usize)>,
    report: &mut Report,
) {
    let is_cold = |event: usize, offset: i64| offset < reach.before(index.events[event].invoke);
    for pair in log.sightings.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        let differ = (a.value, a.timestamp) != (b.value, b.timestamp);
        let cold = || is_cold(a.event, a.offset) || is_cold(b.event, b.offset);
        if a.offset == b.offset && differ && cold() {
            report.add(Invariant::I37, &[a.event, b.event], || {
                format!(
                    "{at:?}: {} has become cold and has {:?} and {:?}",
                    a.offset,
                    (a.value, a.timestamp),
                    (b.value, b.timestamp)
                )
            });
        }
    }
    for sighting in &log.truth {
        if let Some((value, event)) = acked.get(&sighting.offset)
            && *value != sighting.value
            && is_cold(sighting.event, sighting.offset)
        {
            report.add(Invariant::I37, &[*event, sighting.event], || {
                format!(
                    "{at:?}: {value} was acknowledged at {}, where {} is now that it is cold",
                    sighting.offset, sighting.value
                )
            });
        }
    }
    for read in &log.reads {
        let cold = reach.before(read.invoke);
        let mut next = read.from.max(read.log_start.unwrap_or(0));
        for record in read.records {
            let mut skipped = acked.range(next..record.offset.min(cold).max(next));
            if let Some((offset, (value, event))) = skipped.next() {
                report.add(Invariant::I37, &[*event, read.event], || {
                    format!("{at:?}: {value} at {offset} is cold, and is skipped")
                });
            }
            next = record.offset + 1;
        }
    }
}

/// I38.
fn check_tables(
    index: &Index<'_>,
    at: TopicPartition,
    log: &Log<'_>,
    acked: &BTreeMap<i64, (u64, usize)>,
    report: &mut Report,
) {
    let topic = index.topic(at.topic);
    let swept = index
        .healed
        .is_some_and(|healed| log.reads.iter().any(|read| read.invoke > healed));
    let mut scans: Vec<&Scan<'_>> = log.scans.iter().collect();
    scans.sort_by_key(|scan| (scan.sequence, scan.event));
    let mut before: Option<(i64, usize)> = None;
    for scan in scans {
        // Up to where rows may be gone.
        let cuts = log.cuts.iter().filter(|cut| cut.invoke <= scan.ret);
        let cuts = cuts.map(|cut| match cut.before {
            -1 => i64::MAX,
            offset => offset,
        });
        let removed = if topic.retention || topic.gaps {
            i64::MAX
        } else {
            cuts.max().unwrap_or(0)
        };
        let mut next = 0;
        for record in scan.records {
            let offset = record.offset;
            if offset < next {
                report.add(Invariant::I38, &[scan.event], || {
                    format!("{at:?}: row {offset} of the table follows {}", next - 1)
                });
            } else if offset > next && offset > removed {
                report.add(Invariant::I38, &[scan.event], || {
                    format!("{at:?}: rows {next} to {offset} of the table are missing")
                });
            }
            next = offset + 1;
            check_row(index, at, log, acked, (scan, swept), *record, report);
        }
        if let Some((end, event)) = before
            && next < end
            && removed < end
        {
            report.add(Invariant::I38, &[event, scan.event], || {
                format!("{at:?}: the table ended at {end}, and now at {next}")
            });
        }
        if before.is_none_or(|(end, _)| end < next) {
            before = Some((next, scan.event));
        }
    }
}

/// A row is what the log has at its offset.
fn check_row(
    index: &Index<'_>,
    at: TopicPartition,
    log: &Log<'_>,
    acked: &BTreeMap<i64, (u64, usize)>,
    (scan, swept): (&Scan<'_>, bool),
    record: crate::Record,
    report: &mut Report,
) {
    let crate::Record {
        offset,
        value,
        timestamp,
    } = record;
    let mut wrong = |event: Option<usize>, what: &str| {
        let events: Vec<usize> = event.into_iter().chain([scan.event]).collect();
        report.add(Invariant::I38, &events, || {
            format!("{at:?}: the table has {value} ({timestamp}) at {offset}, {what}")
        });
    };
    if let Some(known) = log.at(offset) {
        if (known.value, known.timestamp) != (value, timestamp) {
            wrong(Some(known.event), "and the log has something else");
        }
        return;
    }
    if let Some((known, event)) = acked.get(&offset) {
        if *known != value {
            wrong(Some(*event), "where another was acknowledged");
        }
        return;
    }
    let mut sent = index.attempts(value).iter().filter(|a| a.at == at);
    let possible = sent.any(|attempt| {
        let sent = index.sent(attempt);
        sent.failed.is_none() && sent.invoke <= scan.ret
    });
    if !possible && !may_have_strayed(index, at, value, scan.ret) {
        wrong(None, "and nobody has sent it there");
    } else if swept
        && log.truth.last().is_none_or(|last| last.offset < offset)
        && !may_come_late(index, at, value)
    {
        wrong(None, "where the log has nothing");
    }
}

/// Whether a value can have been committed after the log was read for the last time: nobody knows
/// what came of a request that sent it.
fn may_come_late(index: &Index<'_>, at: TopicPartition, value: u64) -> bool {
    index.attempts(value).iter().any(|attempt| {
        let sent = index.sent(attempt);
        let is_unknown = sent.acked.is_none() && sent.failed.is_none();
        is_unknown && attempt.at.partition == at.partition
    })
}

/// How many reads of a history were answered with offsets that were cold for certain, and how many
/// with such and others.
pub fn cold_reads(history: &History) -> (usize, usize) {
    let mut frozen: BTreeMap<TopicPartition, Vec<(Time, i64)>> = BTreeMap::new();
    for event in &history.events {
        if let Op::Frozen { at, end } = event.op {
            frozen.entry(at).or_default().push((event.ret, end));
        }
    }
    let reach: BTreeMap<_, _> = frozen
        .into_iter()
        .map(|(at, known)| (at, Reach::new(known.into_iter())))
        .collect();
    let (mut cold, mut both) = (0, 0);
    for event in &history.events {
        let (Op::Fetch { at, .. }, Some(Answer::Records { records, .. })) =
            (&event.op, event.outcome.answer())
        else {
            continue;
        };
        let end = reach.get(at).map_or(0, |reach| reach.before(event.invoke));
        if let (Some(first), Some(last)) = (records.first(), records.last())
            && first.offset < end
        {
            cold += 1;
            both += usize::from(last.offset >= end);
        }
    }
    (cold, both)
}
