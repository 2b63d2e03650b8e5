//! Ways to spoil what is told to groups.

use frazil_history::{Answer, Event, History, Op, Outcome, Rng, Time, TopicPartition};

use super::look::*;

pub(super) fn skip_in_poll(history: &History, seed: u64) -> Option<History> {
    skip_one(history, seed, false)
}

pub(super) fn repeat_in_poll(history: &History, seed: u64) -> Option<History> {
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
pub(super) fn lose_poll(history: &History, seed: u64) -> Option<History> {
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
pub(super) fn back_to_zero(history: &History, seed: u64) -> Option<History> {
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
pub(super) fn commits(
    history: &History,
    at: TopicPartition,
    before: Time,
) -> Vec<(Time, Time, i64)> {
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
pub(super) fn unsure(history: &History, at: TopicPartition, before: Time) -> Vec<i64> {
    let unsure = history.events.iter().filter(|e| e.invoke < before);
    unsure
        .filter_map(|e| match (&e.op, &e.outcome) {
            (Op::OffsetCommit { at: a, offset, .. }, Outcome::Info(_)) if *a == at => Some(*offset),
            _ => None,
        })
        .collect()
}

pub(super) fn refetch(
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
pub(super) fn commit_goes_back(history: &History, seed: u64) -> Option<History> {
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

pub(super) fn commit_forgotten(history: &History, seed: u64) -> Option<History> {
    refetch(history, seed, |at, event| {
        commits(history, at, event.invoke).last()?;
        Some(None)
    })
}

pub(super) fn commit_invented(history: &History, seed: u64) -> Option<History> {
    refetch(history, seed, |_, _| Some(Some(1_000_000)))
}

pub(super) fn commit_too_far(history: &History, seed: u64) -> Option<History> {
    replace(history, seed, |_, event| {
        let mut event = event.clone();
        match (&mut event.op, &event.outcome) {
            (Op::OffsetCommit { offset, .. }, Outcome::Ok(_)) => *offset += 1_000_000,
            _ => return None,
        }
        Some(event)
    })
}

pub(super) fn generation(event: &Event) -> Option<i32> {
    match event.outcome.answer() {
        Some(Answer::Assignment { generation, .. }) => *generation,
        _ => None,
    }
}

pub(super) fn stale_commit(history: &History, seed: u64) -> Option<History> {
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

pub(super) fn two_owners(history: &History, seed: u64) -> Option<History> {
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

pub(super) fn generation_goes_back(history: &History, seed: u64) -> Option<History> {
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
