//! Ways to spoil what is told about partitions.

use frazil_history::{
    Answer, Event, History, List, Op, Outcome, Record, Rng, Time, Topic, TopicPartition,
};

use super::look::*;

/// Needs something behind the dropped record that is read at another offset then.
pub(super) fn drop_and_close(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |_| true)?;
    let gone = victim.base;
    Some(rewrite(history, victim.at, |mut record| {
        if record.offset == gone {
            return None;
        }
        record.offset -= i64::from(record.offset > gone);
        Some(record)
    }))
}

pub(super) fn drop_and_gap(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        let last = final_log(history, batch.at).last().map(|r| r.offset);
        // At the end it would be a sweep that stopped early.
        last > Some(batch.base)
    })?;
    let gone = victim.base;
    Some(rewrite(history, victim.at, |record| {
        (record.offset != gone).then_some(record)
    }))
}

/// The log loses its end, and nobody had read it.
pub(super) fn cut_tail(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |_| true)?;
    let (at, end) = (victim.at, victim.base);
    let mut spoilt = rewrite(history, at, |r| (r.offset < end).then_some(r));
    let healed = healed(history);
    spoilt.events.retain(|event| {
        let here = matches!(&event.op, Op::Fetch { at: a, .. } | Op::ListOffsets { at: a, .. } if *a == at);
        !here || event.invoke > healed
    });
    for event in spoilt.events.iter_mut().filter(|e| e.invoke > healed) {
        match (&event.op, &mut event.outcome) {
            (
                Op::Fetch { at: a, .. },
                Outcome::Ok(Answer::Records {
                    high_watermark,
                    last_stable,
                    ..
                }),
            ) if *a == at => {
                *high_watermark = end;
                *last_stable = Some(end);
            }
            (
                Op::ListOffsets {
                    at: a,
                    list: List::Latest,
                    ..
                },
                Outcome::Ok(Answer::Position(offset)),
            ) if *a == at => *offset = Some(end),
            _ => {}
        }
    }
    Some(spoilt)
}

/// The value is also behind the end of the log.
pub(super) fn duplicate(history: &History, seed: u64, idempotent: bool) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        batch.idempotent == idempotent
            && (batch.idempotent || (!batch.resends && attempts(history, batch.values[0]) == 1))
    })?;
    let mut copy = *final_log(history, victim.at)
        .iter()
        .find(|record| record.offset == victim.base)?;
    let end = final_log(history, victim.at).last()?.offset + 1;
    copy.offset = end;
    let mut spoilt = history.clone();
    let read = spoilt.events.iter_mut().rev().find(|event| {
        place(event) == Some(victim.at)
            && records(event).last().is_some_and(|r| r.offset == end - 1)
    })?;
    records_mut(read)?.push(copy);
    Some(spoilt)
}

pub(super) fn swap_offsets(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        final_log(history, batch.at)
            .last()
            .is_some_and(|r| r.offset > batch.base)
    })?;
    let log = final_log(history, victim.at);
    let index = log.iter().position(|r| r.offset == victim.base)?;
    let (first, second) = (log[index], log[index + 1]);
    // A value that a client sent twice may be its own neighbour.
    if first.value == second.value {
        return None;
    }
    Some(rewrite(history, victim.at, |mut record| {
        let other = match record.offset {
            offset if offset == first.offset => second,
            offset if offset == second.offset => first,
            _ => return Some(record),
        };
        record.value = other.value;
        record.timestamp = other.timestamp;
        Some(record)
    }))
}

/// Needs a record that another read shows as well; the final sweep does, if it is kept.
pub(super) fn change_one_read(
    history: &History,
    seed: u64,
    change: fn(&mut Record),
) -> Option<History> {
    let healed = healed(history);
    let mut rng = Rng::new(seed ^ 1);
    let nth = rng.next() as usize;
    replace(history, seed, |_, event| {
        let at = place(event)?;
        let log = final_log(history, at);
        let swept = event.invoke > healed;
        let mut event = event.clone();
        let found = records_mut(&mut event)?;
        let count = found.len();
        let record = found.get_mut(nth % count.max(1))?;
        let again = log.iter().any(|r| r.offset == record.offset);
        if swept || !again {
            return None;
        }
        change(record);
        Some(event)
    })
}

/// Undetectable, and excluded, if nothing was read at either offset: then nobody can tell.
pub(super) fn shift_ack(history: &History, seed: u64, by: i64) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        let log = final_log(history, batch.at);
        let other = log.iter().find(|r| r.offset == batch.base + by);
        // A client that sends twice may find its value at both.
        other.is_some_and(|r| r.value != batch.values[0])
    })?;
    let mut spoilt = history.clone();
    spoilt.events[victim.event].outcome = Outcome::Ok(Answer::Offset(victim.base + by));
    Some(spoilt)
}

/// The second acknowledgement of a batch that was sent twice, and whose place nobody reads.
pub(super) fn reassign_retry(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        batch.idempotent && attempts(history, batch.values[0]) > 1
    })?;
    let far = final_log(history, victim.at).last()?.offset + 10;
    let mut spoilt = history.clone();
    spoilt.events[victim.event].outcome = Outcome::Ok(Answer::Offset(far));
    Some(spoilt)
}

pub(super) fn share_offset(history: &History, seed: u64) -> Option<History> {
    let all = acked(history);
    let victim = kept_one(history, seed, |batch| {
        all.iter()
            .any(|other| other.at == batch.at && other.base != batch.base)
    })?;
    let other = all
        .iter()
        .find(|o| o.at == victim.at && o.base != victim.base)?;
    // The same value twice at one offset is what a repeated batch is told.
    if other.values[0] == victim.values[0] {
        return None;
    }
    let mut spoilt = history.clone();
    spoilt.events[victim.event].outcome = Outcome::Ok(Answer::Offset(other.base));
    Some(spoilt)
}

/// Swaps the sequences of two neighbouring batches of a producer.
pub(super) fn reorder_producer(history: &History, seed: u64) -> Option<History> {
    let key = |event: &Event| match &event.op {
        Op::Produce {
            at,
            producer: Some(producer),
            ..
        } => Some((*at, producer.id, producer.sequence)),
        _ => None,
    };
    let kept = kept(history);
    let victim = kept_one(history, seed, |batch| {
        let sequence = key(&history.events[batch.event]);
        kept.iter().any(|other| {
            let later = key(&history.events[other.event]);
            sequence
                .is_some_and(|(at, id, s)| later.is_some_and(|l| (l.0, l.1) == (at, id) && l.2 > s))
        })
    })?;
    let (at, id, sequence) = key(&history.events[victim.event])?;
    let highest = history
        .events
        .iter()
        .filter_map(key)
        .filter(|other| (other.0, other.1) == (at, id))
        .map(|other| other.2)
        .max()?;
    let mut spoilt = history.clone();
    for event in &mut spoilt.events {
        if key(event) == Some((at, id, sequence))
            && let Op::Produce {
                producer: Some(producer),
                ..
            } = &mut event.op
        {
            producer.sequence = highest + 10;
        }
    }
    Some(spoilt)
}

/// Offsets that were acknowledged before an event began, per partition: the highest.
pub(super) fn acked_before(history: &History, at: TopicPartition, invoke: Time) -> Option<i64> {
    acked(history)
        .into_iter()
        .filter(|batch| batch.at == at && history.events[batch.event].ret < invoke)
        .map(|batch| batch.base + batch.values.len() as i64 - 1)
        .max()
}

pub(super) fn stale_latest(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| match &event.op {
        Op::ListOffsets {
            at,
            list: List::Latest,
            ..
        } if alive(history, *at) => {
            let last = acked_before(history, *at, event.invoke)?;
            Some(answered(event, Answer::Position(Some(last))))
        }
        _ => None,
    })
}

/// Something else than an acknowledgement had shown the higher bound.
pub(super) fn latest_goes_back(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| match &event.op {
        Op::ListOffsets {
            at,
            list: List::Latest,
            ..
        } if alive(history, *at) => {
            let shown = shown_end(history, *at, event.invoke)?;
            let lowest = acked_before(history, *at, event.invoke).map_or(0, |last| last + 1);
            (shown > lowest).then(|| answered(event, Answer::Position(Some(shown - 1))))
        }
        _ => None,
    })
}

pub(super) fn shown_end(history: &History, at: TopicPartition, invoke: Time) -> Option<i64> {
    let before = history.events.iter().filter(|e| e.ret < invoke);
    before
        .filter_map(|e| match (&e.op, e.outcome.answer()) {
            (Op::Fetch { at: a, .. }, Some(Answer::Records { high_watermark, .. })) if *a == at => {
                Some(*high_watermark)
            }
            (
                Op::ListOffsets {
                    at: a,
                    list: List::Latest,
                    ..
                },
                Some(Answer::Position(Some(offset))),
            ) if *a == at => Some(*offset),
            _ => None,
        })
        .max()
}

/// Needs an earlier answer of the same gateway.
pub(super) fn bound_goes_back(history: &History, seed: u64, high: bool) -> Option<History> {
    let bounds = |event: &Event| match (&event.op, event.outcome.answer()) {
        (
            Op::Fetch { at, gateway, .. },
            Some(Answer::Records {
                high_watermark,
                log_start: Some(log_start),
                ..
            }),
        ) => Some((*at, *gateway, *high_watermark, *log_start)),
        _ => None,
    };
    replace(history, seed, |_, event| {
        let (at, gateway, _, _) = bounds(event)?;
        let before = history
            .events
            .iter()
            .filter(|e| e.ret < event.invoke)
            .filter_map(bounds)
            .filter(|b| (b.0, b.1) == (at, gateway));
        let bound = before.map(|b| if high { b.2 } else { b.3 }).max()?;
        if !alive(history, at) || bound == 0 {
            return None;
        }
        let mut event = event.clone();
        if let Outcome::Ok(Answer::Records {
            records,
            high_watermark,
            log_start,
            last_stable,
        }) = &mut event.outcome
        {
            if high {
                *high_watermark = bound - 1;
                *last_stable = Some(bound - 1);
                *log_start = Some(0);
                records.retain(|record| record.offset < bound - 1);
            } else {
                *log_start = Some(bound - 1);
            }
        }
        Some(event)
    })
}

pub(super) fn earliest_goes_back(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let Op::ListOffsets {
            at,
            list: List::Earliest,
            ..
        } = &event.op
        else {
            return None;
        };
        let before = history.events.iter().filter(|e| e.ret < event.invoke);
        let deleted = before.filter_map(|e| match (&e.op, &e.outcome) {
            (Op::DeleteRecords { at: a, before }, Outcome::Ok(_)) if a == at => Some(*before),
            _ => None,
        });
        let start = deleted.max()?;
        (alive(history, *at) && start > 0)
            .then(|| answered(event, Answer::Position(Some(start - 1))))
    })
}

pub(super) fn log_start_by_itself(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| match &event.op {
        Op::ListOffsets {
            at,
            list: List::Earliest,
            ..
        } if alive(history, *at) => {
            let asked = history.events.iter().filter_map(|e| match &e.op {
                Op::DeleteRecords { at: a, before } if a == at => Some(*before),
                _ => None,
            });
            let beyond = asked.max().unwrap_or(0) + 1;
            Some(answered(event, Answer::Position(Some(beyond))))
        }
        _ => None,
    })
}

/// Excluded in topics that are deleted meanwhile: their answers prove nothing.
pub(super) fn read_beyond_end(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        if !alive(history, place(&event)?) {
            return None;
        }
        let last = records(&event).last()?.offset;
        match &mut event.outcome {
            Outcome::Ok(Answer::Records {
                high_watermark,
                last_stable,
                ..
            }) => {
                *high_watermark = last;
                *last_stable = Some(last);
            }
            _ => return None,
        }
        Some(event)
    })
}

pub(super) fn read_unstable(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        if !alive(history, place(&event)?) {
            return None;
        }
        let last = records(&event).last()?.offset;
        match (&mut event.op, &mut event.outcome) {
            (Op::Fetch { isolation, .. }, Outcome::Ok(Answer::Records { last_stable, .. })) => {
                *isolation = frazil_history::Isolation::ReadCommitted;
                *last_stable = Some(last);
            }
            _ => return None,
        }
        Some(event)
    })
}

/// Excluded where a log start that moved meanwhile may have made it true.
pub(super) fn out_of_range(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| match &event.op {
        Op::Fetch { at, from, .. } if alive(history, *at) => {
            let cut = history.events.iter().any(
                |e| matches!(&e.op, Op::DeleteRecords { at: a, before } if a == at && *before > *from),
            );
            let end = shown_end(history, *at, event.invoke)?;
            let inside =
                !cut && *from <= end && event.outcome.answer() != Some(&Answer::OutOfRange);
            inside.then(|| answered(event, Answer::OutOfRange))
        }
        _ => None,
    })
}

pub(super) fn change_final(
    history: &History,
    seed: u64,
    change: impl Fn(TopicPartition, Record) -> Option<u64>,
) -> Option<History> {
    let mut rng = Rng::new(seed);
    let mut candidates = Vec::new();
    let mut places: Vec<TopicPartition> = history.events.iter().filter_map(place).collect();
    places.sort_unstable();
    places.dedup();
    for at in places {
        for record in final_log(history, at) {
            candidates.extend(change(at, record).map(|value| (at, record.offset, value)));
        }
    }
    let (at, offset, value) = *rng.pick(&candidates)?;
    Some(rewrite(history, at, |mut record| {
        if record.offset == offset {
            record.value = value;
        }
        Some(record)
    }))
}

pub(super) fn phantom(history: &History, seed: u64) -> Option<History> {
    change_final(history, seed, |_, record| Some(record.value + 1_000_000))
}

pub(super) fn read_before_sent(history: &History, seed: u64) -> Option<History> {
    let healed = healed(history);
    let last = history.events.iter().map(|e| e.ret).max()?;
    // Its producer begins after everything else has ended.
    replace(history, seed, |_, event| match &event.op {
        Op::Produce { at, values, .. }
            if attempts(history, values[0]) == 1
                && final_log(history, *at).iter().any(|r| r.value == values[0]) =>
        {
            assert!(event.invoke < healed);
            Some(Event {
                invoke: last + 1,
                ret: last + 2,
                ..event.clone()
            })
        }
        _ => None,
    })
}

pub(super) fn wrong_partition(history: &History, seed: u64) -> Option<History> {
    let all = acked(history);
    change_final(history, seed, |at, _| {
        let other = all
            .iter()
            .find(|batch| batch.at.topic == at.topic && batch.at.partition != at.partition)?;
        Some(other.values[0])
    })
}

/// A value that was acknowledged in a topic before its deletion was asked for.
pub(super) fn resurrected(history: &History, seed: u64) -> Option<History> {
    let created = |topic: Topic| {
        history.events.iter().find_map(|e| match &e.op {
            Op::CreateTopic { topic: t, name, .. } if *t == topic => Some((name.clone(), e.invoke)),
            _ => None,
        })
    };
    let doomed: Vec<(Topic, Time)> = history
        .events
        .iter()
        .filter_map(|e| match &e.op {
            Op::DeleteTopic { topic } => Some((*topic, e.invoke)),
            _ => None,
        })
        .collect();
    let all = acked(history);
    change_final(history, seed, |at, _| {
        let (name, since) = created(at.topic)?;
        all.iter().find_map(|batch| {
            let asked = doomed
                .iter()
                .filter(|d| d.0 == batch.at.topic)
                .map(|d| d.1)
                .min()?;
            let (old, _) = created(batch.at.topic)?;
            let before = history.events[batch.event].ret < asked.min(since);
            let only = attempts(history, batch.values[0]) == 1;
            (old == name && batch.at.partition == at.partition && before && only)
                .then_some(batch.values[0])
        })
    })
}

/// Needs an answer with another record before or behind it, which nobody may have deleted.
pub(super) fn by_time(history: &History, seed: u64, skip: bool) -> Option<History> {
    replace(history, seed, |_, event| {
        let Op::ListOffsets {
            at,
            list: List::Timestamp(wanted),
            ..
        } = &event.op
        else {
            return None;
        };
        let Some(Answer::Position(Some(offset))) = event.outcome.answer() else {
            return None;
        };
        let log = final_log(history, *at);
        log.iter().find(|r| r.offset == *offset)?;
        if skip {
            if shown_end(history, *at, event.invoke)? <= *offset {
                return None;
            }
            return Some(answered(event, Answer::Position(Some(offset + 1))));
        }
        let before = log.iter().find(|r| r.offset == offset - 1)?;
        (before.timestamp < *wanted).then(|| answered(event, Answer::Position(Some(offset - 1))))
    })
}

/// Excluded where another attempt of the same batch may have done it.
pub(super) fn refused_is_visible(history: &History, seed: u64) -> Option<History> {
    let kept = kept(history);
    replace(history, seed, |index, event| {
        let batch = kept.iter().find(|batch| batch.event == index)?;
        (attempts(history, batch.values[0]) == 1).then(|| with(event, Outcome::Fail(29)))
    })
}

pub(super) fn skip_in_fetch(history: &History, seed: u64) -> Option<History> {
    skip_one(history, seed, true)
}
