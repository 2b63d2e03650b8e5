//! Ways to spoil the rest: the sweep, producers, topics.

use frazil_history::{Answer, Event, History, Op, Outcome};

use super::look::*;

pub(super) fn stuck(history: &History, seed: u64) -> Option<History> {
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

pub(super) fn first_refused(history: &History, seed: u64) -> Option<History> {
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

pub(super) fn same_producer(history: &History, seed: u64) -> Option<History> {
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
pub(super) fn topic_stale(history: &History, seed: u64, created: bool) -> Option<History> {
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
pub(super) fn setting_goes_back(history: &History, seed: u64) -> Option<History> {
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
