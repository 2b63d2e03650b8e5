//! Whether a promise was broken.

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
pub(crate) fn violations(history: &History, consumed: &Consumed, ends: &[i64]) -> Vec<String> {
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
    let mut delivered = vec![std::collections::BTreeSet::new(); ends.len()];
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
    found
}
