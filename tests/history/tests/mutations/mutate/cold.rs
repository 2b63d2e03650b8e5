//! Ways to spoil what is cold, and what tables say of it.

use frazil_history::{Answer, Event, History, Op, Outcome, Record, TopicPartition};

use super::look::*;

/// Where cold offsets certainly ended before an event.
fn cold_end(history: &History, at: TopicPartition, event: &Event) -> i64 {
    let before = history.events.iter().filter(|e| e.ret < event.invoke);
    let ends = before.filter_map(|e| match e.op {
        Op::Frozen { at: a, end } if a == at => Some(end),
        _ => None,
    });
    ends.max().unwrap_or(0)
}

/// Changes the records of a read before the healing that has cold ones; `change` gets them with
/// the place of one that is cold and that the final sweep reads too.
fn change_cold(
    history: &History,
    seed: u64,
    change: impl Fn(&mut Vec<Record>, usize) -> bool,
) -> Option<History> {
    let healed = healed(history);
    replace(history, seed, |_, event| {
        let Op::Fetch { at, .. } = event.op else {
            return None;
        };
        let end = cold_end(history, at, event);
        let log = final_log(history, at);
        let known = |record: &Record| record.offset < end && log.contains(record);
        let index = records(event).iter().rposition(known)?;
        let mut event = event.clone();
        (event.invoke < healed && change(records_mut(&mut event)?, index)).then_some(event)
    })
}

pub(super) fn other_value(history: &History, seed: u64) -> Option<History> {
    change_cold(history, seed, |records, index| {
        records[index].value += 1_000_000;
        true
    })
}

pub(super) fn other_time(history: &History, seed: u64) -> Option<History> {
    change_cold(history, seed, |records, index| {
        records[index].timestamp += 1;
        true
    })
}

/// Needs one that was acknowledged, and another behind it.
pub(super) fn skipped(history: &History, seed: u64) -> Option<History> {
    let acked: Vec<(u64, i64)> = acked(history)
        .into_iter()
        .flat_map(|batch| batch.values.into_iter().zip(batch.base..))
        .collect();
    change_cold(history, seed, |records, index| {
        let Record { value, offset, .. } = records[index];
        let skips = index + 1 < records.len() && acked.contains(&(value, offset));
        records.remove(index);
        skips
    })
}

/// Changes the rows of one scan of a topic that nobody deletes; answers false if nothing shows.
fn change_rows(
    history: &History,
    seed: u64,
    change: impl Fn(TopicPartition, i64, &mut Vec<Record>) -> bool,
) -> Option<History> {
    replace(history, seed, |_, event| {
        let Op::Scan { at, sequence } = event.op else {
            return None;
        };
        let mut event = event.clone();
        match &mut event.outcome {
            Outcome::Ok(Answer::Rows(rows)) if alive(history, at) => {
                change(at, sequence, rows).then_some(event)
            }
            _ => None,
        }
    })
}

/// Below this, rows may be gone.
fn removed(history: &History, at: TopicPartition) -> i64 {
    let cuts = history.events.iter().filter_map(|e| match e.op {
        Op::DeleteRecords { at: a, before } if a == at => Some(before),
        _ => None,
    });
    cuts.max().unwrap_or(0)
}

pub(super) fn row_twice(history: &History, seed: u64) -> Option<History> {
    change_rows(history, seed, |_, _, rows| {
        let Some(last) = rows.last().copied() else {
            return false;
        };
        rows.push(last);
        true
    })
}

/// Needs a row behind it, and that nobody may have removed it.
pub(super) fn row_missing(history: &History, seed: u64, first: bool) -> Option<History> {
    change_rows(history, seed, |at, _, rows| {
        let index = if first { 0 } else { rows.len() / 2 };
        let shows = index + 1 < rows.len() && rows[index].offset >= removed(history, at);
        if shows {
            rows.remove(index);
        }
        shows
    })
}

/// Needs one that the final sweep reads.
pub(super) fn row_differs(history: &History, seed: u64, value: bool) -> Option<History> {
    change_rows(history, seed, |at, _, rows| {
        let log = final_log(history, at);
        let Some(row) = rows.iter_mut().find(|row| log.contains(row)) else {
            return false;
        };
        if value {
            row.value += 1_000_000;
        } else {
            row.timestamp += 1;
        }
        true
    })
}

/// Needs an earlier snapshot with rows that nobody may have removed.
pub(super) fn table_goes_back(history: &History, seed: u64) -> Option<History> {
    change_rows(history, seed, |at, sequence, rows| {
        let ends = history
            .events
            .iter()
            .filter_map(|e| match (&e.op, &e.outcome) {
                (
                    Op::Scan {
                        at: a,
                        sequence: earlier,
                    },
                    Outcome::Ok(Answer::Rows(rows)),
                ) if *a == at && *earlier < sequence => rows.last().map(|row| row.offset + 1),
                _ => None,
            });
        let end = ends.max().unwrap_or(0);
        rows.retain(|row| row.offset + 1 < end);
        end > removed(history, at)
    })
}

/// A row of a record that was sent and is not in the log.
pub(super) fn row_beyond_the_log(history: &History, seed: u64) -> Option<History> {
    change_rows(history, seed, |at, _, rows| {
        let log = final_log(history, at);
        let all = acked(history);
        let (Some(last), Some(sent)) = (log.last(), all.iter().find(|sent| sent.at == at)) else {
            return false;
        };
        rows.push(Record {
            offset: last.offset + 1,
            value: sent.values[0],
            timestamp: 0,
        });
        true
    })
}
