//! Ways to spoil a clean history. Each answers `None` if the history has no place where the
//! spoiling would show; the comments say when that is.

use std::collections::BTreeMap;

use frazil_history::{
    Answer, Event, History, Invariant, List, Op, Outcome, Record, Rng, Time, Topic, TopicPartition,
};

use Invariant::{
    I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I17, I23, I24, I25, I26, I27, I29, I30,
    I31, I32, I36, I39,
};

/// A way to spoil a history.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    /// The invariants of which at least one must be named.
    pub(crate) expected: &'static [Invariant],
    pub(crate) spoil: fn(&History, u64) -> Option<History>,
}

macro_rules! classes {
    ($($name:literal, $expected:expr, $spoil:expr;)*) => {
        pub(crate) const CLASSES: &[Class] = &[$(Class {
            name: $name,
            expected: &$expected,
            spoil: $spoil,
        }),*];
    };
}

classes! {
    "an acknowledged record is dropped, the rest moves up", [I2, I5], drop_and_close;
    "an acknowledged record is dropped, a gap stays", [I2], drop_and_gap;
    "the acknowledged end of a log is cut off", [I3], cut_tail;
    "an idempotent value is at a second offset", [I4, I30], |h, s| duplicate(h, s, Some(true));
    "a value sent once is at a second offset", [I36], |h, s| duplicate(h, s, Some(false));
    "two offsets are swapped in every read", [I5, I8], swap_offsets;
    "a value changes between two reads", [I1], |h, s| change_one_read(h, s, |r| r.value += 1_000_000);
    "a timestamp changes between two reads", [I1], |h, s| change_one_read(h, s, |r| r.timestamp += 1);
    "an acknowledgement names the offset before", [I5], |h, s| shift_ack(h, s, -1);
    "an acknowledgement names an offset after", [I5], |h, s| shift_ack(h, s, 1);
    "a repeated batch is answered with another offset", [I5, I30], reassign_retry;
    "two batches are acknowledged at one offset", [I36, I5], share_offset;
    "a batch goes below an earlier one of its producer", [I7], reorder_producer;
    "latest is stale after an acknowledgement", [I9], stale_latest;
    "latest goes back although nobody had been acknowledged more", [I10], latest_goes_back;
    "a gateway's high watermark goes back", [I10], |h, s| bound_goes_back(h, s, true);
    "a gateway's log start goes back", [I10], |h, s| bound_goes_back(h, s, false);
    "earliest goes back", [I10], earliest_goes_back;
    "the log start moves though nobody asked", [I2, I10], log_start_by_itself;
    "a record at or beyond the high watermark is read", [I10], read_beyond_end;
    "a committed read passes the last stable offset", [I17], read_unstable;
    "OFFSET_OUT_OF_RANGE inside the log", [I11], out_of_range;
    "a value that nobody sent", [I12], phantom;
    "a value read before it was sent", [I12], read_before_sent;
    "a value of another partition", [I12], wrong_partition;
    "a value of a deleted topic under its name", [I12], resurrected;
    "ListOffsets by time skips a record", [I13], |h, s| by_time(h, s, true);
    "ListOffsets by time answers an earlier record", [I13], |h, s| by_time(h, s, false);
    "what was refused is visible", [I6], refused_is_visible;
    "a fetch skips a record", [I2, I23], skip_in_fetch;
    "a poll skips a record", [I23], skip_in_poll;
    "a poll repeats a record", [I23], repeat_in_poll;
    "a poll skips what was between it and the one before", [I24, I26], lose_poll;
    "an assignment begins at zero again", [I24], back_to_zero;
    "a committed offset goes back", [I25], commit_goes_back;
    "a committed offset is forgotten", [I25], commit_forgotten;
    "an offset is fetched that nobody committed", [I25], commit_invented;
    "more is committed than was delivered", [I26], commit_too_far;
    "a stale generation's commit is accepted", [I27], stale_commit;
    "two own a partition in one generation", [I27], two_owners;
    "a generation begins after a later one", [I27], generation_goes_back;
    "the final sweep gets nothing where there is something", [I29], stuck;
    "a first batch is refused for its producer", [I31], first_refused;
    "a producer id is given twice", [I32], same_producer;
    "a topic is not there after it was created", [I39], |h, s| topic_stale(h, s, true);
    "a topic is there after it was deleted", [I39], |h, s| topic_stale(h, s, false);
    "a setting goes back", [I39], setting_goes_back;
}

// --- looking around ------------------------------------------------------------------------------

fn healed(history: &History) -> Time {
    let healed = history.events.iter().find(|e| e.op == Op::Healed);
    healed.expect("every history is healed").ret
}

/// The partition whose records an event carries.
fn place(event: &Event) -> Option<TopicPartition> {
    match &event.op {
        Op::Fetch { at, .. } | Op::Poll { at, .. } => Some(*at),
        _ => None,
    }
}

fn records(event: &Event) -> &[Record] {
    match event.outcome.answer() {
        Some(Answer::Records { records, .. } | Answer::Polled(records)) => records,
        _ => &[],
    }
}

fn records_mut(event: &mut Event) -> Option<&mut Vec<Record>> {
    match &mut event.outcome {
        Outcome::Ok(Answer::Records { records, .. } | Answer::Polled(records)) => Some(records),
        _ => None,
    }
}

struct Acked {
    event: usize,
    at: TopicPartition,
    values: Vec<u64>,
    base: i64,
    idempotent: bool,
    resends: bool,
}

fn acked(history: &History) -> Vec<Acked> {
    let of = |(event, e): (usize, &Event)| match (&e.op, e.outcome.answer()) {
        (
            Op::Produce {
                at,
                values,
                producer,
                resends,
                ..
            },
            Some(Answer::Offset(base)),
        ) => Some(Acked {
            event,
            at: *at,
            values: values.clone(),
            base: *base,
            idempotent: producer.is_some(),
            resends: *resends,
        }),
        _ => None,
    };
    history.events.iter().enumerate().filter_map(of).collect()
}

/// What the final sweep read of a partition, by offset; nothing if anybody may have deleted the
/// topic, since from then on its answers prove nothing.
fn final_log(history: &History, at: TopicPartition) -> Vec<Record> {
    let healed = healed(history);
    let doomed = |e: &Event| matches!(e.op, Op::DeleteTopic { topic } if topic == at.topic);
    let refused = |e: &Event| matches!(e.outcome, Outcome::Fail(_));
    if history.events.iter().any(|e| doomed(e) && !refused(e)) {
        return Vec::new();
    }
    let reads = history.events.iter().filter(|e| e.invoke > healed);
    let here = reads.filter(|e| place(e) == Some(at));
    let mut found: Vec<Record> = here.flat_map(|e| records(e).to_vec()).collect();
    found.sort_by_key(|record| record.offset);
    found
}

/// Acknowledged batches that the final sweep still reads.
fn kept(history: &History) -> Vec<Acked> {
    let mut kept = acked(history);
    let mut logs: BTreeMap<TopicPartition, Vec<Record>> = BTreeMap::new();
    kept.retain(|batch| {
        let log = logs
            .entry(batch.at)
            .or_insert_with(|| final_log(history, batch.at));
        log.iter()
            .any(|r| r.value == batch.values[0] && r.offset == batch.base)
    });
    kept
}

/// How often a value was sent.
fn attempts(history: &History, value: u64) -> usize {
    let sent = |e: &&Event| matches!(&e.op, Op::Produce { values, .. } if values.contains(&value));
    history.events.iter().filter(sent).count()
}

/// Changes what every reader of a partition sees.
fn rewrite(
    history: &History,
    at: TopicPartition,
    change: impl Fn(Record) -> Option<Record>,
) -> History {
    let mut spoilt = history.clone();
    for event in &mut spoilt.events {
        if place(event) == Some(at)
            && let Some(records) = records_mut(event)
        {
            *records = records
                .iter()
                .filter_map(|record| change(*record))
                .collect();
        }
    }
    spoilt
        .events
        .retain(|e| e.outcome != Outcome::Ok(Answer::Polled(Vec::new())));
    spoilt
}

/// Replaces one event at random among those that `change` answers something for.
fn replace(
    history: &History,
    seed: u64,
    change: impl Fn(usize, &Event) -> Option<Event>,
) -> Option<History> {
    let mut rng = Rng::new(seed);
    let candidates: Vec<(usize, Event)> = history
        .events
        .iter()
        .enumerate()
        .filter_map(|(index, event)| Some((index, change(index, event)?)))
        .collect();
    let (index, event) = rng.pick(&candidates)?.clone();
    let mut spoilt = history.clone();
    spoilt.events[index] = event;
    Some(spoilt)
}

fn with(event: &Event, outcome: Outcome) -> Event {
    Event {
        outcome,
        ..event.clone()
    }
}

fn answered(event: &Event, answer: Answer) -> Event {
    with(event, Outcome::Ok(answer))
}

fn kept_one(history: &History, seed: u64, want: impl Fn(&Acked) -> bool) -> Option<Acked> {
    let mut kept = kept(history);
    kept.retain(|batch| want(batch));
    if kept.is_empty() {
        return None;
    }
    let index = Rng::new(seed).below(kept.len() as u64) as usize;
    Some(kept.swap_remove(index))
}

// --- the log -------------------------------------------------------------------------------------

/// Needs something behind the dropped record that is read at another offset then.
fn drop_and_close(history: &History, seed: u64) -> Option<History> {
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

fn drop_and_gap(history: &History, seed: u64) -> Option<History> {
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
fn cut_tail(history: &History, seed: u64) -> Option<History> {
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

/// The value takes the place of another that was never acknowledged, or of nothing at the end.
fn duplicate(history: &History, seed: u64, idempotent: Option<bool>) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        Some(batch.idempotent) == idempotent
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

fn swap_offsets(history: &History, seed: u64) -> Option<History> {
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
fn change_one_read(history: &History, seed: u64, change: fn(&mut Record)) -> Option<History> {
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
fn shift_ack(history: &History, seed: u64, by: i64) -> Option<History> {
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
fn reassign_retry(history: &History, seed: u64) -> Option<History> {
    let victim = kept_one(history, seed, |batch| {
        batch.idempotent && attempts(history, batch.values[0]) > 1
    })?;
    let far = final_log(history, victim.at).last()?.offset + 10;
    let mut spoilt = history.clone();
    spoilt.events[victim.event].outcome = Outcome::Ok(Answer::Offset(far));
    Some(spoilt)
}

fn share_offset(history: &History, seed: u64) -> Option<History> {
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
fn reorder_producer(history: &History, seed: u64) -> Option<History> {
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
fn acked_before(history: &History, at: TopicPartition, invoke: Time) -> Option<i64> {
    acked(history)
        .into_iter()
        .filter(|batch| batch.at == at && history.events[batch.event].ret < invoke)
        .map(|batch| batch.base + batch.values.len() as i64 - 1)
        .max()
}

fn alive(history: &History, at: TopicPartition) -> bool {
    !final_log(history, at).is_empty()
}

fn stale_latest(history: &History, seed: u64) -> Option<History> {
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
fn latest_goes_back(history: &History, seed: u64) -> Option<History> {
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

fn shown_end(history: &History, at: TopicPartition, invoke: Time) -> Option<i64> {
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
fn bound_goes_back(history: &History, seed: u64, high: bool) -> Option<History> {
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

fn earliest_goes_back(history: &History, seed: u64) -> Option<History> {
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

fn log_start_by_itself(history: &History, seed: u64) -> Option<History> {
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
fn read_beyond_end(history: &History, seed: u64) -> Option<History> {
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

fn read_unstable(history: &History, seed: u64) -> Option<History> {
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
fn out_of_range(history: &History, seed: u64) -> Option<History> {
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

fn change_final(
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

fn phantom(history: &History, seed: u64) -> Option<History> {
    change_final(history, seed, |_, record| Some(record.value + 1_000_000))
}

fn read_before_sent(history: &History, seed: u64) -> Option<History> {
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

fn wrong_partition(history: &History, seed: u64) -> Option<History> {
    let all = acked(history);
    change_final(history, seed, |at, _| {
        let other = all
            .iter()
            .find(|batch| batch.at.topic == at.topic && batch.at.partition != at.partition)?;
        Some(other.values[0])
    })
}

/// A value that was acknowledged in a topic before its deletion was asked for.
fn resurrected(history: &History, seed: u64) -> Option<History> {
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
fn by_time(history: &History, seed: u64, skip: bool) -> Option<History> {
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
fn refused_is_visible(history: &History, seed: u64) -> Option<History> {
    let kept = kept(history);
    replace(history, seed, |index, event| {
        let batch = kept.iter().find(|batch| batch.event == index)?;
        (attempts(history, batch.values[0]) == 1).then(|| with(event, Outcome::Fail(29)))
    })
}

fn skip_one(history: &History, seed: u64, fetch: bool) -> Option<History> {
    replace(history, seed, |_, event| {
        if matches!(event.op, Op::Fetch { .. }) != fetch || !alive(history, place(event)?) {
            return None;
        }
        let mut event = event.clone();
        let records = records_mut(&mut event)?;
        if records.len() < 3 {
            return None;
        }
        records.remove(1);
        Some(event)
    })
}

fn skip_in_fetch(history: &History, seed: u64) -> Option<History> {
    skip_one(history, seed, true)
}

// --- groups --------------------------------------------------------------------------------------

fn skip_in_poll(history: &History, seed: u64) -> Option<History> {
    skip_one(history, seed, false)
}

fn repeat_in_poll(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        if !matches!(event.op, Op::Poll { .. }) {
            return None;
        }
        let records = records_mut(&mut event)?;
        let first = *records.first()?;
        records.insert(0, first);
        Some(event)
    })
}

/// Nobody was given what one poll gave. Undetectable, and excluded, if it is the last of its
/// member on that partition, or if the log start was moved there.
fn lose_poll(history: &History, seed: u64) -> Option<History> {
    let mut rng = Rng::new(seed);
    let joins = |client, from: Time, to: Time| {
        history.events.iter().any(|e| {
            e.client == client && matches!(e.op, Op::Join { .. }) && e.ret > from && e.ret < to
        })
    };
    let polls: Vec<(usize, &Event)> = history
        .events
        .iter()
        .enumerate()
        .filter(|(_, e)| matches!(e.op, Op::Poll { .. }))
        .collect();
    let mut candidates = Vec::new();
    for (index, event) in &polls {
        let same = |e: &&(usize, &Event)| e.1.client == event.client && place(e.1) == place(event);
        let before = polls.iter().filter(same).filter(|e| e.1.ret < event.ret);
        let after = polls.iter().filter(same).filter(|e| e.1.ret > event.ret);
        let before = before.max_by_key(|e| e.1.ret);
        let after = after.min_by_key(|e| e.1.ret);
        if let (Some((_, before)), Some((_, after))) = (before, after)
            && !joins(event.client, before.ret, after.ret)
            && !history
                .events
                .iter()
                .any(|e| matches!(&e.op, Op::DeleteRecords { at, .. } if Some(*at) == place(event)))
        {
            candidates.push(*index);
        }
    }
    let index = *rng.pick(&candidates)?;
    let mut spoilt = history.clone();
    spoilt.events.remove(index);
    Some(spoilt)
}

/// A member's first poll after joining, once something has been committed for good.
fn back_to_zero(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let Op::Poll { at, .. } = &event.op else {
            return None;
        };
        let mine = |e: &&Event| e.client == event.client && e.ret < event.ret;
        let joins = history.events.iter().filter(mine);
        let join = joins
            .filter(|e| matches!(e.op, Op::Join { .. }))
            .max_by_key(|e| e.ret)?;
        let polled =
            history.events.iter().filter(mine).any(|e| {
                e.ret > join.ret && matches!(e.op, Op::Poll { .. }) && place(e) == Some(*at)
            });
        let committed = history.events.iter().any(|e| {
            e.ret < join.invoke
                && e.outcome == Outcome::Ok(Answer::Done)
                && matches!(&e.op, Op::OffsetCommit { at: a, .. } if a == at)
        });
        let first = records(event).first()?.offset;
        if polled || !committed || first == 0 {
            return None;
        }
        let mut event = event.clone();
        for (offset, record) in (0..).zip(records_mut(&mut event)?) {
            record.offset = offset;
        }
        Some(event)
    })
}

/// Commits that ended before an instant, by end; and whether every one was acknowledged.
fn commits(history: &History, at: TopicPartition, before: Time) -> Vec<(Time, Time, i64)> {
    let mut commits: Vec<(Time, Time, i64)> = history
        .events
        .iter()
        .filter(|e| e.ret < before && e.outcome == Outcome::Ok(Answer::Done))
        .filter_map(|e| match &e.op {
            Op::OffsetCommit { at: a, offset, .. } if *a == at => Some((e.invoke, e.ret, *offset)),
            _ => None,
        })
        .collect();
    commits.sort_unstable();
    commits
}

/// The offsets that commits of unknown outcome may have made, which may come back at any time.
fn unsure(history: &History, at: TopicPartition, before: Time) -> Vec<i64> {
    let unsure = history.events.iter().filter(|e| e.invoke < before);
    unsure
        .filter_map(|e| match (&e.op, &e.outcome) {
            (Op::OffsetCommit { at: a, offset, .. }, Outcome::Info(_)) if *a == at => Some(*offset),
            _ => None,
        })
        .collect()
}

fn refetch(
    history: &History,
    seed: u64,
    choose: impl Fn(TopicPartition, &Event) -> Option<Option<i64>>,
) -> Option<History> {
    replace(history, seed, |_, event| match &event.op {
        Op::OffsetFetch { at, .. } => {
            let offset = choose(*at, event)?;
            Some(answered(event, Answer::Position(offset)))
        }
        _ => None,
    })
}

/// Undetectable, and excluded, if a commit of that offset may still have been under way.
fn commit_goes_back(history: &History, seed: u64) -> Option<History> {
    refetch(history, seed, |at, event| {
        let known = commits(history, at, event.invoke);
        let last = known.last()?;
        let unsure = unsure(history, at, event.ret);
        let running = history.events.iter().filter(|e| e.ret >= last.0);
        let running: Vec<i64> = running
            .filter_map(|e| match &e.op {
                Op::OffsetCommit { at: a, offset, .. } if *a == at => Some(*offset),
                _ => None,
            })
            .collect();
        let old = known.iter().find(|old| {
            old.1 < last.0
                && old.2 != last.2
                && !unsure.contains(&old.2)
                && !running.contains(&old.2)
        })?;
        Some(Some(old.2))
    })
}

fn commit_forgotten(history: &History, seed: u64) -> Option<History> {
    refetch(history, seed, |at, event| {
        commits(history, at, event.invoke).last()?;
        Some(None)
    })
}

fn commit_invented(history: &History, seed: u64) -> Option<History> {
    refetch(history, seed, |_, _| Some(Some(1_000_000)))
}

fn commit_too_far(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        match (&mut event.op, &event.outcome) {
            (Op::OffsetCommit { offset, .. }, Outcome::Ok(_)) => *offset += 1_000_000,
            _ => return None,
        }
        Some(event)
    })
}

fn generation(event: &Event) -> Option<i32> {
    match event.outcome.answer() {
        Some(Answer::Assignment { generation, .. }) => *generation,
        _ => None,
    }
}

fn stale_commit(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let before = history.events.iter().filter(|e| e.ret < event.invoke);
        let known = before.filter_map(generation).max()?;
        let mut event = event.clone();
        match (&mut event.op, &event.outcome) {
            (Op::OffsetCommit { generation, .. }, Outcome::Ok(_)) => *generation = Some(known - 1),
            _ => return None,
        }
        Some(event)
    })
}

fn two_owners(history: &History, seed: u64) -> Option<History> {
    let joins = || history.events.iter().filter(|e| generation(e).is_some());
    replace(history, seed, |_, event| {
        let mine = generation(event)?;
        let other = joins().find(|e| generation(e) == Some(mine) && e.client != event.client)?;
        let Some(Answer::Assignment { partitions, .. }) = other.outcome.answer() else {
            return None;
        };
        let partition = *partitions.first()?;
        let mut event = event.clone();
        if let Outcome::Ok(Answer::Assignment { partitions, .. }) = &mut event.outcome {
            partitions.push(partition);
        }
        Some(event)
    })
}

fn generation_goes_back(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        generation(event)?;
        let before = history.events.iter().filter(|e| e.ret < event.invoke);
        let known = before.filter_map(generation).max()?;
        let answer = Answer::Assignment {
            generation: Some(known - 1),
            partitions: Vec::new(),
        };
        Some(answered(event, answer))
    })
}

// --- the rest ------------------------------------------------------------------------------------

fn stuck(history: &History, seed: u64) -> Option<History> {
    let healed = healed(history);
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        if event.invoke < healed || records(&event).is_empty() || !alive(history, place(&event)?) {
            return None;
        }
        records_mut(&mut event)?.clear();
        Some(event)
    })
}

fn first_refused(history: &History, seed: u64) -> Option<History> {
    let codes = [45, 59];
    let code = codes[seed as usize % 2];
    replace(history, seed, |_, event| match &event.op {
        Op::Produce {
            producer: Some(producer),
            values,
            ..
        } if producer.sequence == 0 && attempts(history, values[0]) == 1 => {
            Some(with(event, Outcome::Fail(code)))
        }
        _ => None,
    })
}

fn same_producer(history: &History, seed: u64) -> Option<History> {
    let mut spoilt = history.clone();
    let end = history.events.iter().map(|e| e.ret).max()?;
    for n in 0..2 {
        spoilt.events.push(Event {
            client: frazil_history::Client(n as u32),
            invoke: end + n,
            ret: end + n + 2,
            op: Op::InitProducer,
            outcome: Outcome::Ok(Answer::ProducerId(seed as i64)),
        });
    }
    Some(spoilt)
}

/// Whatever a name was last known to be, it is now said to be otherwise. Excluded while a change
/// may be under way.
fn topic_stale(history: &History, seed: u64, created: bool) -> Option<History> {
    let change = |e: &Event| match &e.op {
        Op::CreateTopic { topic, name, .. } => Some((name.clone(), *topic, true)),
        Op::DeleteTopic { topic } => Some(("clicks".to_owned(), *topic, false)),
        _ => None,
    };
    replace(history, seed, |_, event| {
        let Op::Metadata { name, .. } = &event.op else {
            return None;
        };
        let changes: Vec<&Event> = history
            .events
            .iter()
            .filter(|e| change(e).is_some_and(|c| c.0 == *name) && e.invoke < event.ret)
            .collect();
        let last = changes.iter().max_by_key(|e| e.ret)?;
        // Nothing of unknown outcome, nothing beside it.
        let sure = |e: &&Event| !matches!(e.outcome, Outcome::Info(_));
        if last.ret >= event.invoke
            || !matches!(last.outcome, Outcome::Ok(_))
            || !changes.iter().all(sure)
        {
            return None;
        }
        let (_, topic, made) = change(last)?;
        if made != created {
            return None;
        }
        let stale = if made { None } else { Some(topic) };
        Some(answered(event, Answer::Topic(stale)))
    })
}

/// Undetectable, and excluded, if somebody else may be setting the old value.
fn setting_goes_back(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let Op::DescribeConfig { .. } = &event.op else {
            return None;
        };
        let changes = history.events.iter().filter_map(|e| match &e.op {
            Op::AlterConfig { value, .. } => Some((e, value)),
            _ => None,
        });
        let acked = changes.filter(|(e, _)| matches!(e.outcome, Outcome::Ok(_)));
        let done: Vec<_> = acked.filter(|(e, _)| e.ret < event.invoke).collect();
        let (last, now) = done.iter().max_by_key(|(e, _)| e.ret)?;
        let (_, old) = done.iter().find(|(e, value)| {
            let others = history
                .events
                .iter()
                .filter(|o| matches!(&o.op, Op::AlterConfig { value: v, .. } if v == *value));
            e.ret < last.invoke && value != now && others.count() == 1
        })?;
        let stale = Answer::Config(Some((*old).clone()));
        (event.outcome.answer() != Some(&stale)).then(|| answered(event, stale))
    })
}
