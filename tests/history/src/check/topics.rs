//! Topics by name and their settings are registers: I39. Producer ids are never reused: I32.

use std::collections::BTreeMap;

use super::register::{Proof, Register, Stale, Write};
use super::{Index, Invariant, Report};
use crate::{Answer, Event, Op, Outcome, Time, Topic};

pub(super) fn check(index: &Index<'_>, report: &mut Report) {
    check_names(index, report);
    check_settings(index, report);
    check_producer_ids(index.events, report);
}

/// The events that write or read one register.
struct Access<V> {
    writes: Vec<Write<V>>,
    proofs: Vec<Proof<V>>,
    reads: Vec<(V, Time, Time, usize)>,
}

impl<V> Default for Access<V> {
    fn default() -> Self {
        Self {
            writes: Vec::new(),
            proofs: Vec::new(),
            reads: Vec::new(),
        }
    }
}

impl<V: Ord + Clone + std::fmt::Debug> Access<V> {
    fn write(&mut self, number: usize, event: &Event, value: V) {
        let acked = match event.outcome {
            Outcome::Fail(_) => return,
            Outcome::Ok(_) => true,
            Outcome::Info(_) => false,
        };
        if acked {
            self.proofs.push(Proof {
                value: value.clone(),
                invoke: event.invoke,
                ret: event.ret,
                event: number,
            });
        }
        self.writes.push(Write {
            value,
            invoke: event.invoke,
            end: if acked { event.ret } else { Time::MAX },
        });
    }

    fn read(&mut self, number: usize, event: &Event, value: V) {
        self.proofs.push(Proof {
            value: value.clone(),
            invoke: event.invoke,
            ret: event.ret,
            event: number,
        });
        self.reads.push((value, event.invoke, event.ret, number));
    }

    fn judge(self, what: &str, report: &mut Report) {
        let register = Register::new(self.writes, self.proofs);
        for (value, invoke, ret, event) in self.reads {
            match register.judge(&value, invoke, ret) {
                Ok(()) => {}
                Err(Stale::Unwritten) => report.add(Invariant::I39, &[event], || {
                    format!("{what} is {value:?}, which nobody made it")
                }),
                Err(Stale::Overwritten(since)) => {
                    report.add(Invariant::I39, &[since, event], || {
                        format!("{what} is {value:?}, and had already been changed")
                    });
                }
            }
        }
    }
}

fn check_names(index: &Index<'_>, report: &mut Report) {
    let mut names: BTreeMap<&str, Access<Option<Topic>>> = BTreeMap::new();
    for (number, event) in index.events.iter().enumerate() {
        match (&event.op, event.outcome.answer()) {
            (Op::CreateTopic { topic, name, .. }, _) => {
                let access = names.entry(name).or_default();
                access.write(number, event, Some(*topic));
            }
            (Op::DeleteTopic { topic }, _) => {
                if let Some(name) = index.topic(*topic).name {
                    names.entry(name).or_default().write(number, event, None);
                }
            }
            (Op::Metadata { name, .. }, Some(Answer::Topic(topic))) => {
                names.entry(name).or_default().read(number, event, *topic);
            }
            _ => {}
        }
    }
    for (name, mut access) in names {
        // No name belongs to a topic at first.
        access.writes.push(Write {
            value: None,
            invoke: 0,
            end: 0,
        });
        access.judge(&format!("the topic {name}"), report);
    }
}

fn check_settings(index: &Index<'_>, report: &mut Report) {
    let mut settings: BTreeMap<(Topic, &str), Access<Option<&str>>> = BTreeMap::new();
    for (number, event) in index.events.iter().enumerate() {
        match (&event.op, event.outcome.answer()) {
            (Op::AlterConfig { topic, key, value }, _) => {
                let access = settings.entry((*topic, key)).or_default();
                access.write(number, event, Some(value));
            }
            (Op::DescribeConfig { topic, key, .. }, Some(Answer::Config(value)))
                if event.ret <= index.topic(*topic).doomed =>
            {
                let access = settings.entry((*topic, key)).or_default();
                access.read(number, event, value.as_deref());
            }
            _ => {}
        }
    }
    for ((topic, key), mut access) in settings {
        // Any value that is read may be the default.
        let defaults: Vec<_> = access.reads.iter().map(|read| read.0).collect();
        access
            .writes
            .extend(defaults.into_iter().map(|value| Write {
                value,
                invoke: 0,
                end: 0,
            }));
        access.judge(&format!("{key} of {topic:?}"), report);
    }
}

fn check_producer_ids(events: &[Event], report: &mut Report) {
    let mut given: BTreeMap<i64, usize> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        if let (Op::InitProducer, Some(Answer::ProducerId(id))) =
            (&event.op, event.outcome.answer())
            && let Some(before) = given.insert(*id, number)
        {
            report.add(Invariant::I32, &[before, number], || {
                format!("{id} was given to two producers")
            });
        }
    }
}
