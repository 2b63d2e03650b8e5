//! What the final sweep proves: I2, I3, and I1 for what was read and has gone; I29 and a complaint
//! if the sweep itself is not complete.

use super::index::{Index, Log, Read};
use super::{Invariant, Report};
use crate::{List, TopicPartition};

pub(super) fn check(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    let Some(healed) = index.healed else {
        return;
    };
    let topic = index.topic(at.topic);
    if topic.doomed != crate::Time::MAX {
        return;
    }
    let mut reads: Vec<&Read<'_>> = log.reads.iter().filter(|r| r.invoke > healed).collect();
    reads.sort_by_key(|read| read.from);
    let Some(last) = reads.iter().max_by_key(|read| read.high_watermark) else {
        if log.sent.iter().any(|sent| sent.acked.is_some()) {
            report.add(Invariant::Malformed, &[], || {
                format!("{at:?} was not read after healing")
            });
        }
        return;
    };
    let (mut end, end_event) = (last.high_watermark, last.event);
    let mut start = reads.iter().filter_map(|r| r.log_start).max().unwrap_or(0);
    for listed in log.listed.iter().filter(|listed| listed.invoke > healed) {
        match (listed.list, listed.offset) {
            (List::Earliest, Some(offset)) => start = start.max(offset),
            (List::Latest, Some(offset)) => end = end.max(offset),
            _ => {}
        }
    }

    check_cover(at, &reads, start, end, report);

    let mut seen: Vec<(i64, u64)> = reads
        .iter()
        .flat_map(|read| read.records)
        .map(|record| (record.offset, record.value))
        .collect();
    seen.sort_unstable();
    let at_offset = |offset: i64| {
        let found = seen.binary_search_by_key(&offset, |record| record.0);
        found.ok().map(|position| seen[position].1)
    };
    for (sent, base) in log.acked() {
        for (value, offset) in sent.values.iter().zip(base..) {
            if offset < start {
                continue;
            }
            let found = at_offset(offset);
            if offset >= end {
                report.add(Invariant::I3, &[sent.event, end_event], || {
                    format!(
                        "{at:?}: {value} was acknowledged at {offset}, and the log ends at {end}"
                    )
                });
            } else if found != Some(*value) {
                report.add(Invariant::I2, &[sent.event], || {
                    format!("{at:?}: {value} was acknowledged at {offset}, where {found:?} is")
                });
            }
        }
    }
    for sighting in &log.truth {
        let offset = sighting.offset;
        if offset >= start && at_offset(offset) != Some(sighting.value) {
            report.add(Invariant::I1, &[sighting.event], || {
                format!(
                    "{at:?}: {} was read at {offset}, and has gone",
                    sighting.value
                )
            });
        }
    }
}

/// The sweep reaches from start to end, or says why it cannot.
fn check_cover(at: TopicPartition, reads: &[&Read<'_>], start: i64, end: i64, report: &mut Report) {
    let mut reached = start;
    for read in reads {
        if read.from > reached {
            break;
        }
        if read.records.is_empty() && read.from < read.high_watermark && read.from >= start {
            report.add(Invariant::I29, &[read.event], || {
                format!(
                    "{at:?}: nothing was read at {} of {}",
                    read.from, read.high_watermark
                )
            });
        }
        let next = read
            .records
            .last()
            .map_or(read.from, |last| last.offset + 1);
        reached = reached.max(next);
    }
    if reached < end {
        report.add(Invariant::Malformed, &[], || {
            format!("{at:?}: the final sweep reached {reached} of {start}..{end}")
        });
    }
}
