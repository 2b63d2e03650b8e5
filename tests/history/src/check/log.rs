//! What is at each offset, and where each value is: I1, I2, I4, I5, I6, I12, I23, I30, I31, I36.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Log, Sent};
use super::{Invariant, Report};
use crate::{Time, TopicPartition};

pub(super) fn check(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    check_one_value_per_offset(at, log, report);
    check_reads_are_whole(index, at, log, report);
    check_origins(index, at, log, report);
    check_copies(index, at, log, report);
    check_acks(index, at, log, report);
    check_first_batches(at, log, report);
}

/// I1.
fn check_one_value_per_offset(at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    for pair in log.sightings.windows(2) {
        let [first, second] = [pair[0], pair[1]];
        if first.offset != second.offset {
            continue;
        }
        let shown = |s: super::index::Sighting| (s.value, s.timestamp);
        if shown(first) != shown(second) {
            report.add(Invariant::I1, &[first.event, second.event], || {
                format!(
                    "{at:?}: {} has {:?} and {:?} (value, timestamp)",
                    first.offset,
                    shown(first),
                    shown(second)
                )
            });
        }
    }
}

/// I23, and I2 where what is skipped was acknowledged: one answer leaves nothing out.
fn check_reads_are_whole(
    index: &Index<'_>,
    at: TopicPartition,
    log: &Log<'_>,
    report: &mut Report,
) {
    let gaps = index.topic(at.topic).gaps;
    let mut acked: Vec<(i64, i64, usize)> = log
        .acked()
        .map(|(sent, base)| (base, base + sent.values.len() as i64, sent.event))
        .collect();
    acked.sort_unstable();
    for read in &log.reads {
        let mut next = read.from.max(read.log_start.unwrap_or(0));
        for record in read.records {
            if record.offset < next {
                report.add(Invariant::I23, &[read.event], || {
                    format!("{at:?}: {} was read where {next} was due", record.offset)
                });
            } else if record.offset > next {
                // Batches do not overlap, so the one that ends first after `next` is the one.
                let skipped = acked
                    .get(acked.partition_point(|batch| batch.1 <= next))
                    .filter(|batch| batch.0 < record.offset);
                let what = || format!("{at:?}: {} follows {next}", record.offset);
                if let Some((_, _, event)) = skipped {
                    report.add(Invariant::I2, &[*event, read.event], what);
                } else if !gaps {
                    report.add(Invariant::I23, &[read.event], what);
                }
            }
            next = record.offset + 1;
        }
    }
}

/// I6 and I12: what is read was sent here, before, and not refused.
fn check_origins(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    for (value, offset, event) in &log.places {
        let read_by = index.events[*event].ret;
        let attempts = index.attempts(*value);
        let sent = |sent: &Sent<'_>| sent.invoke <= read_by;
        let possible = |sent: &Sent<'_>| sent.failed.is_none();
        let here = attempts.iter().filter(|attempt| attempt.at == at);
        let mut here = here.map(|attempt| index.sent(attempt)).peekable();
        if here.peek().is_some() {
            let mut here = here.filter(|s| sent(s)).peekable();
            let Some(one) = here.peek().map(|s| s.event) else {
                report.add(Invariant::I12, &[*event], || {
                    format!("{at:?}: {value} was read at {offset} before it was sent")
                });
                continue;
            };
            if !here.any(possible) {
                report.add(Invariant::I6, &[one, *event], || {
                    format!("{at:?}: {value} was refused, and is at {offset}")
                });
            }
            continue;
        }
        if !may_have_strayed(index, at, *value, read_by) {
            let mut events: Vec<usize> = attempts.iter().map(|a| index.sent(a).event).collect();
            events.truncate(3);
            events.push(*event);
            report.add(Invariant::I12, &events, || {
                format!("{at:?}: {value} is at {offset}, and was never sent there")
            });
        }
    }
}

/// Whether a value that was sent elsewhere can be here: a request that names its topic may arrive
/// after a topic of that name was made again.
pub(super) fn may_have_strayed(
    index: &Index<'_>,
    at: TopicPartition,
    value: u64,
    seen: Time,
) -> bool {
    let topic = index.topic(at.topic);
    index.attempts(value).iter().any(|attempt| {
        let other = index.topic(attempt.at.topic);
        let batch = index.sent(attempt);
        let last = if batch.acked.is_some() {
            batch.ret
        } else {
            Time::MAX
        };
        attempt.at.partition == at.partition
            && other.name.is_some()
            && other.name == topic.name
            && last >= topic.created
            && batch.invoke <= seen
            && batch.failed.is_none()
    })
}

/// I4, I30 and I36: no value has more places than it can have.
fn check_copies(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    // Places that are only known by an acknowledgement count as well.
    let mut places: Vec<(u64, i64, usize)> = log.places.clone();
    for (sent, base) in log.acked() {
        let values = sent.values.iter().zip(base..);
        places.extend(values.map(|(value, offset)| (*value, offset, sent.event)));
    }
    places.sort_unstable();
    places.dedup_by_key(|place| (place.0, place.1));
    for copies in places.chunk_by(|a, b| a.0 == b.0) {
        if copies.len() < 2 {
            continue;
        }
        let value = copies[0].0;
        let attempts: Vec<&Sent<'_>> = index
            .attempts(value)
            .iter()
            .filter(|attempt| attempt.at == at)
            .map(|attempt| index.sent(attempt))
            .collect();
        let mut producers = BTreeSet::new();
        let mut single = 0;
        let mut any = false;
        for sent in &attempts {
            match sent.producer {
                Some(producer) => {
                    producers.insert((producer.id, producer.epoch));
                }
                None if sent.resends => any = true,
                None if sent.failed.is_none() => single += 1,
                None => {}
            }
        }
        let allowed = producers.len() + single;
        if any || allowed == 0 || copies.len() <= allowed {
            continue;
        }
        let invariant = match (producers.is_empty(), attempts.len()) {
            (true, _) => Invariant::I36,
            (false, 1) => Invariant::I4,
            (false, _) => Invariant::I30,
        };
        let events: Vec<usize> = copies.iter().take(8).map(|copy| copy.2).collect();
        report.add(invariant, &events, || {
            let offsets: Vec<i64> = copies.iter().take(8).map(|copy| copy.1).collect();
            format!("{at:?}: {value} is at {offsets:?}, and may be at {allowed} place(s)")
        });
    }
}

/// I5 and I36: acknowledgements agree with reads and with each other.
fn check_acks(index: &Index<'_>, at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    let mut acked: Vec<(i64, u64, usize)> = Vec::new();
    for (sent, base) in log.acked() {
        for (value, offset) in sent.values.iter().zip(base..) {
            acked.push((offset, *value, sent.event));
            match log.at(offset) {
                Some(found) if found.value != *value => {
                    report.add(Invariant::I5, &[sent.event, found.event], || {
                        let other = found.value;
                        format!("{at:?}: {value} was acknowledged at {offset}, where {other} is")
                    });
                }
                Some(_) => {}
                None => {
                    let elsewhere = log.places(*value).first();
                    let only = index.attempts(*value).len() == 1;
                    let once = sent.producer.is_some() || (only && !sent.resends);
                    if let (true, Some((_, other, event))) = (once, elsewhere) {
                        report.add(Invariant::I5, &[sent.event, *event], || {
                            format!(
                                "{at:?}: {value} was acknowledged at {offset}, and is at {other}"
                            )
                        });
                    }
                }
            }
        }
    }
    acked.sort_unstable();
    for pair in acked.windows(2) {
        let [(offset, value, event), (other_offset, other, other_event)] = [pair[0], pair[1]];
        if offset == other_offset && value != other {
            report.add(Invariant::I36, &[event, other_event], || {
                format!("{at:?}: {offset} was given to {value} and to {other}")
            });
        }
    }
}

/// I31: the first batch that a producer sends to a partition is not refused for its identity.
fn check_first_batches(at: TopicPartition, log: &Log<'_>, report: &mut Report) {
    const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    const UNKNOWN_PRODUCER_ID: i16 = 59;
    let mut first: BTreeMap<(i64, i16), &Sent<'_>> = BTreeMap::new();
    for sent in &log.sent {
        let Some(producer) = sent.producer else {
            continue;
        };
        let entry = first.entry((producer.id, producer.epoch)).or_insert(sent);
        if sent.invoke < entry.invoke {
            *entry = sent;
        }
    }
    for sent in first.values() {
        let refused = [
            Some(OUT_OF_ORDER_SEQUENCE_NUMBER),
            Some(UNKNOWN_PRODUCER_ID),
        ];
        let fresh = sent.producer.is_some_and(|p| p.sequence == 0);
        if fresh && refused.contains(&sent.failed) {
            report.add(Invariant::I31, &[sent.event], || {
                format!("{at:?}: a first batch was refused with {:?}", sent.failed)
            });
        }
    }
}
