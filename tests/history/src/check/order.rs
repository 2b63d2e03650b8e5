//! Offsets follow the order in which things were sent: I7, I8.

use std::collections::BTreeMap;

use super::index::{Log, Sent};
use super::{Invariant, Report};
use crate::{Time, TopicPartition};

/// The lowest offset at which a batch's first value is known to be.
fn lowest(log: &Log<'_>, sent: &Sent<'_>) -> Option<i64> {
    let read = log.places(sent.values[0]).first().map(|place| place.1);
    sent.acked.into_iter().chain(read).min()
}

pub(super) fn check(at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    check_acknowledged_first(at, log, report);
    check_producers(at, log, report);
}

/// I8: what is acknowledged before another is first sent has the lower offset.
fn check_acknowledged_first(at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    let mut acked: Vec<(Time, i64, usize)> = log
        .acked()
        .map(|(sent, base)| (sent.ret, base + sent.values.len() as i64 - 1, sent.event))
        .collect();
    acked.sort_unstable();
    // Per first value: when it can first have happened, and its lowest offset.
    let mut first_sent: BTreeMap<u64, (Time, Option<i64>, usize)> = BTreeMap::new();
    for sent in log.sent.iter().filter(|sent| sent.failed.is_none()) {
        let entry = first_sent
            .entry(sent.values[0])
            .or_insert((sent.invoke, None, sent.event));
        entry.0 = entry.0.min(sent.invoke);
        entry.1 = entry.1.into_iter().chain(lowest(log, sent)).min();
    }
    let mut by_time: Vec<(Time, i64, usize)> = first_sent
        .into_values()
        .filter_map(|(invoke, offset, event)| Some((invoke, offset?, event)))
        .collect();
    by_time.sort_unstable();
    let mut acked = acked.into_iter().peekable();
    let mut highest: Option<(i64, usize)> = None;
    for (invoke, offset, event) in by_time {
        while let Some((_, last, before)) = acked.next_if(|acked| acked.0 < invoke) {
            highest = highest.max(Some((last, before)));
        }
        if let Some((last, before)) = highest.filter(|(last, _)| *last >= offset) {
            report.add(Invariant::I8, &[before, event], || {
                format!("{at:?}: {last} was acknowledged before {offset} was sent")
            });
        }
    }
}

/// I7: an idempotent producer's records keep their order. (Another's may lose it by retries.)
fn check_producers(at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    /// Sequence, first and last offset, event.
    type Batch = (i64, i64, i64, usize);
    let mut of_producer: BTreeMap<(i64, i16), Vec<Batch>> = BTreeMap::new();
    for sent in &log.sent {
        let (Some(producer), Some(offset)) = (sent.producer, lowest(log, sent)) else {
            continue;
        };
        let last = offset + sent.values.len() as i64 - 1;
        of_producer
            .entry((producer.id, producer.epoch))
            .or_default()
            .push((producer.sequence, offset, last, sent.event));
    }
    for (producer, mut batches) in of_producer {
        batches.sort_unstable();
        batches.dedup_by_key(|batch| batch.0);
        for pair in batches.windows(2) {
            let [(_, _, last, before), (_, offset, _, event)] = [pair[0], pair[1]];
            if offset <= last {
                report.add(Invariant::I7, &[before, event], || {
                    format!(
                        "{at:?}: producer {producer:?} sent {offset} after {last}, and it is before"
                    )
                });
            }
        }
    }
}
