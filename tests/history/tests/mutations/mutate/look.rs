//! Finding places in a history, and changing them.

use std::collections::BTreeMap;

use frazil_history::{Answer, Event, History, Op, Outcome, Record, Rng, Time, TopicPartition};

pub(super) fn healed(history: &History) -> Time {
    let healed = history.events.iter().find(|e| e.op == Op::Healed);
    healed.expect("every history is healed").ret
}

/// The partition whose records an event carries.
pub(super) fn place(event: &Event) -> Option<TopicPartition> {
    match &event.op {
        Op::Fetch { at, .. } | Op::Poll { at, .. } => Some(*at),
        _ => None,
    }
}

pub(super) fn records(event: &Event) -> &[Record] {
    match event.outcome.answer() {
        Some(Answer::Records { records, .. } | Answer::Polled(records)) => records,
        _ => &[],
    }
}

pub(super) fn records_mut(event: &mut Event) -> Option<&mut Vec<Record>> {
    match &mut event.outcome {
        Outcome::Ok(Answer::Records { records, .. } | Answer::Polled(records)) => Some(records),
        _ => None,
    }
}

pub(super) struct Acked {
    pub(super) event: usize,
    pub(super) at: TopicPartition,
    pub(super) values: Vec<u64>,
    pub(super) base: i64,
    pub(super) idempotent: bool,
    pub(super) resends: bool,
}

pub(super) fn acked(history: &History) -> Vec<Acked> {
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
pub(super) fn final_log(history: &History, at: TopicPartition) -> Vec<Record> {
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
pub(super) fn kept(history: &History) -> Vec<Acked> {
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
pub(super) fn attempts(history: &History, value: u64) -> usize {
    let sent = |e: &&Event| matches!(&e.op, Op::Produce { values, .. } if values.contains(&value));
    history.events.iter().filter(sent).count()
}

/// Changes what every reader of a partition sees.
pub(super) fn rewrite(
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
pub(super) fn replace(
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

pub(super) fn with(event: &Event, outcome: Outcome) -> Event {
    Event {
        outcome,
        ..event.clone()
    }
}

pub(super) fn answered(event: &Event, answer: Answer) -> Event {
    with(event, Outcome::Ok(answer))
}

pub(super) fn kept_one(
    history: &History,
    seed: u64,
    want: impl Fn(&Acked) -> bool,
) -> Option<Acked> {
    let mut kept = kept(history);
    kept.retain(|batch| want(batch));
    if kept.is_empty() {
        return None;
    }
    let index = Rng::new(seed).below(kept.len() as u64) as usize;
    Some(kept.swap_remove(index))
}

pub(super) fn alive(history: &History, at: TopicPartition) -> bool {
    !final_log(history, at).is_empty()
}

pub(super) fn skip_one(history: &History, seed: u64, fetch: bool) -> Option<History> {
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
