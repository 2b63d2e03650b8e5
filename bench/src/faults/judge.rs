//! Whether a promise was broken.

use std::collections::BTreeSet;

use frazil_history::{Answer, Client, Event, History, Op, Outcome, Topic, check};

use super::group::Consumed;
use super::load::Sent;

/// The whole history of a run.
pub(crate) fn history(sent: &[Sent], consumed: &Consumed, swept: Vec<Event>) -> History {
    let created = Event {
        client: Client(1000),
        invoke: 0,
        ret: 0,
        op: Op::CreateTopic {
            topic: Topic(0),
            name: "reliability".to_owned(),
            retention: false,
            gaps: false,
        },
        outcome: Outcome::Ok(Answer::Done),
    };
    let mut events = vec![created];
    events.extend(sent.iter().map(Sent::event));
    events.extend(consumed.events.iter().cloned());
    events.extend(swept);
    History { events }
}

/// What was broken, one line each: by the checker, and of what it does not look at here.
pub(crate) fn violations(
    history: &History,
    sent: &[Sent],
    consumed: &Consumed,
    ends: &[i64],
) -> Vec<String> {
    let mut found: Vec<String> = check(history)
        .iter()
        .map(|violation| violation.explain(history))
        .collect();
    for (partition, (reached, end)) in consumed.reached.iter().zip(ends).enumerate() {
        if reached < end {
            found.push(format!(
                "partition {partition}: the group has come to {reached} of {end}"
            ));
        }
    }
    let mut delivered = vec![BTreeSet::new(); ends.len()];
    for event in &history.events {
        if let (Op::Poll { at, .. }, Some(Answer::Polled(records))) =
            (&event.op, event.outcome.answer())
        {
            delivered[at.partition as usize].extend(records.iter().map(|record| record.offset));
        }
    }
    for (partition, (offsets, end)) in delivered.iter().zip(ends).enumerate() {
        let missing = (0..*end).filter(|offset| !offsets.contains(offset)).count();
        if missing > 0 {
            found.push(format!(
                "partition {partition}: {missing} records were not delivered to the group"
            ));
        }
    }
    // What was acknowledged without an offset, the history calls open; it must be there all the same.
    let mut read = BTreeSet::new();
    for event in &history.events {
        if let Some(Answer::Records { records, .. }) = event.outcome.answer() {
            read.extend(records.iter().map(|record| record.value));
        }
    }
    let acked = sent.iter().filter(|sent| sent.outcome.is_ok());
    for lost in acked.filter(|sent| !read.contains(&sent.value)) {
        found.push(format!(
            "partition {}: {} was acknowledged and cannot be read",
            lost.partition, lost.value
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use frazil_history::{Gateway, Isolation, Record, TopicPartition};

    use super::*;

    fn sent(value: u64, sequence: u32, offset: i64) -> Sent {
        Sent {
            producer: 0,
            partition: 0,
            sequence,
            value,
            due: 1,
            invoke: 1 + value,
            ret: 50,
            outcome: Ok(offset),
        }
    }

    /// One partition that holds these values, all of them delivered to the group.
    fn found(sent: &[Sent], values: &[u64]) -> Vec<String> {
        let records: Vec<Record> = (0..)
            .zip(values)
            .map(|(offset, &value)| Record {
                offset,
                value,
                timestamp: 0,
            })
            .collect();
        let (at, end) = (TopicPartition::new(Topic(0), 0), values.len() as i64);
        let event = |time, op, answer| Event {
            client: Client(200),
            invoke: time,
            ret: time + 1,
            op,
            outcome: Outcome::Ok(answer),
        };
        let group = frazil_history::Group(0);
        let assigned = Answer::Assignment {
            generation: None,
            partitions: vec![at],
        };
        let fetch = Op::Fetch {
            at,
            from: 0,
            isolation: Isolation::ReadCommitted,
            gateway: Gateway(0),
        };
        let answer = Answer::Records {
            records: records.clone(),
            high_watermark: end,
            log_start: Some(0),
            last_stable: None,
        };
        let consumed = Consumed {
            events: vec![
                event(60, Op::Join { group }, assigned),
                event(70, Op::Poll { group, at }, Answer::Polled(records)),
            ],
            errors: Vec::new(),
            reached: vec![end],
        };
        let swept = vec![
            event(80, Op::Healed, Answer::Done),
            event(90, fetch, answer),
        ];
        let history = history(sent, &consumed, swept);
        violations(&history, sent, &consumed, &[end])
    }

    #[test]
    fn what_is_lost_is_found_out_with_and_without_an_offset() {
        let all = [sent(5, 0, 0), sent(6, 1, -1001), sent(7, 2, 2)];
        assert_eq!(found(&all, &[5, 6, 7]), Vec::<String>::new());
        assert!(!found(&all, &[5, 6]).is_empty(), "the end is lost");
        assert!(!found(&all, &[5, 8, 7]).is_empty(), "another is there");
        assert!(!found(&all, &[6, 5, 7]).is_empty(), "the order is wrong");
        assert!(!found(&all, &[5, 6, 7, 6]).is_empty(), "one is twice");
    }
}
