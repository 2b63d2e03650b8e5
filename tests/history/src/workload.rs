//! What clients do while things break: pure plans, made of a seed.
//!
//! A harness drives each [`Worker`] with one client of any kind, over any transport, in real or
//! simulated time:
//!
//! ```text
//! loop:  step = worker.step()  →  pending = recorder.begin(client, step.op)
//!        outcome = the client does step.op, asking step.gateway
//!        worker.learn(&step.op, &outcome)  →  pending.end(outcome)
//! ```
//!
//! and ends with a [`Sweep`] in the same way, after recording [`Op::Healed`]. Workers retry as real
//! clients do, through another gateway where there are several: an idempotent producer repeats a
//! batch under its sequence until it knows, another producer repeats it or gives it up.

use std::collections::BTreeMap;

use crate::{
    Answer, Client, Gateway, Group, Isolation, List, Op, Outcome, Producer, Rng, TopicPartition,
};

/// Most records of one batch.
const BATCH_MAX: u64 = 5;

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A producer that asks for an id and numbers its batches, with acks=all.
    Idempotent,
    /// A producer that does not, with these acks (-1 or 1).
    Plain(i16),
    /// Fetches from here and there, and lists offsets.
    Reader,
    /// Commits ever higher offsets for a group, from outside it, and fetches them. One per group:
    /// nobody else fences it.
    Committer(Group),
    /// Moves log starts a little.
    Deleter,
}

/// One operation, and the gateway that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whom to ask.
    pub gateway: Gateway,
    /// What to ask.
    pub op: Op,
}

/// One client's plan.
#[derive(Clone, Debug)]
pub struct Worker {
    role: Role,
    client: Client,
    partitions: Vec<TopicPartition>,
    gateways: u32,
    rng: Rng,
    next_value: u64,
    producer: Option<i64>,
    sequences: BTreeMap<TopicPartition, i64>,
    again: Option<Op>,
    /// Highest end that this worker was told.
    ends: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
}

impl Worker {
    /// A plan for `client`, whose number must be its own: the values it sends begin with it.
    ///
    /// # Panics
    ///
    /// If there are no partitions or no gateways.
    pub fn new(
        role: Role,
        client: Client,
        partitions: &[TopicPartition],
        gateways: u32,
        seed: u64,
    ) -> Self {
        assert!(!partitions.is_empty() && gateways > 0, "nothing to work on");
        Self {
            role,
            client,
            partitions: partitions.to_vec(),
            gateways,
            rng: Rng::new(seed ^ (u64::from(client.0) << 32)),
            next_value: u64::from(client.0) << 40,
            producer: None,
            sequences: BTreeMap::new(),
            again: None,
            ends: BTreeMap::new(),
            positions: BTreeMap::new(),
        }
    }

    /// What to do next. To be followed by [`Self::learn`].
    pub fn step(&mut self) -> Step {
        let gateway = Gateway(self.rng.below(u64::from(self.gateways)) as u32);
        let op = match self.role {
            Role::Idempotent if self.producer.is_none() => Op::InitProducer,
            Role::Idempotent => self.produce(-1),
            Role::Plain(acks) => self.produce(acks),
            Role::Reader => self.read(gateway),
            Role::Committer(group) => self.commit(group, gateway),
            Role::Deleter => self.delete(gateway),
        };
        Step { gateway, op }
    }

    fn somewhere(&mut self) -> TopicPartition {
        self.partitions[self.rng.below(self.partitions.len() as u64) as usize]
    }

    fn produce(&mut self, acks: i16) -> Op {
        if let Some(op) = &self.again {
            return op.clone();
        }
        let at = self.somewhere();
        let count = 1 + self.rng.below(BATCH_MAX);
        let values = (self.next_value..self.next_value + count).collect();
        self.next_value += count;
        let producer = self.producer.map(|id| {
            let next = self.sequences.entry(at).or_default();
            let sequence = *next;
            *next += count as i64;
            Producer {
                id,
                epoch: 0,
                sequence,
            }
        });
        Op::Produce {
            at,
            values,
            producer,
            acks,
            resends: false,
        }
    }

    fn read(&mut self, gateway: Gateway) -> Op {
        let at = self.somewhere();
        let end = self.ends.get(&at).copied().unwrap_or(0);
        let list = match self.rng.below(10) {
            0..7 => {
                let from = match self.rng.below(10) {
                    // Go on, or back to somewhere.
                    0..7 => self.positions.get(&at).copied().unwrap_or(0),
                    _ => self.rng.below(end as u64 + 2) as i64,
                };
                return Op::Fetch {
                    at,
                    from,
                    isolation: if self.rng.chance(50) {
                        Isolation::ReadCommitted
                    } else {
                        Isolation::ReadUncommitted
                    },
                    gateway,
                };
            }
            7 => List::Earliest,
            8 => List::Timestamp(self.rng.below(end as u64 * 2 + 1) as i64),
            _ => List::Latest,
        };
        Op::ListOffsets { at, list, gateway }
    }

    fn commit(&mut self, group: Group, gateway: Gateway) -> Op {
        let at = self.somewhere();
        if self.rng.chance(50) {
            return Op::OffsetFetch { group, at, gateway };
        }
        let position = self.positions.entry(at).or_default();
        *position += 1 + self.rng.below(3) as i64;
        Op::OffsetCommit {
            group,
            generation: None,
            at,
            offset: *position,
        }
    }

    fn delete(&mut self, gateway: Gateway) -> Op {
        let at = self.somewhere();
        let end = self.ends.get(&at).copied().unwrap_or(0);
        let start = self.positions.get(&at).copied().unwrap_or(0);
        if end <= start || self.rng.chance(70) {
            return Op::ListOffsets {
                at,
                list: List::Latest,
                gateway,
            };
        }
        let before = start + self.rng.below((end - start) as u64 / 4 + 1) as i64;
        self.positions.insert(at, before);
        Op::DeleteRecords { at, before }
    }

    /// How the last step ended.
    pub fn learn(&mut self, op: &Op, outcome: &Outcome) {
        match (op, outcome) {
            (Op::InitProducer, Outcome::Ok(Answer::ProducerId(id))) => self.producer = Some(*id),
            (Op::Produce { producer, .. }, _) => {
                let again = match outcome {
                    Outcome::Ok(_) => false,
                    // A gap in the sequences would end the producer.
                    _ if producer.is_some() => true,
                    Outcome::Info(_) => self.rng.chance(50),
                    Outcome::Fail(_) => false,
                };
                self.again = again.then(|| op.clone());
            }
            (
                Op::Fetch { at, from, .. },
                Outcome::Ok(Answer::Records {
                    records,
                    high_watermark,
                    ..
                }),
            ) => {
                self.ends.insert(*at, *high_watermark);
                let next = records.last().map_or(*from, |last| last.offset + 1);
                self.positions.insert(*at, next);
            }
            (Op::Fetch { at, .. }, Outcome::Ok(Answer::OutOfRange)) => {
                // As `auto.offset.reset=latest` would, as far as this worker knows.
                let end = self.ends.get(at).copied().unwrap_or(0);
                self.positions.insert(*at, end);
            }
            (
                Op::ListOffsets {
                    at,
                    list: List::Latest,
                    ..
                },
                Outcome::Ok(Answer::Position(Some(end))),
            ) => {
                self.ends.insert(*at, *end);
            }
            _ => {}
        }
    }

    /// The client that the plan is for.
    pub const fn client(&self) -> Client {
        self.client
    }
}

/// Reads all partitions from their log start to their high watermark; what does not succeed is
/// repeated.
#[derive(Clone, Debug)]
pub struct Sweep {
    left: Vec<TopicPartition>,
    start: Option<i64>,
    end: Option<i64>,
    gateways: u32,
    turn: u32,
}

impl Sweep {
    /// Over these partitions, asking all gateways in turn.
    ///
    /// # Panics
    ///
    /// If there are no gateways.
    pub fn new(partitions: &[TopicPartition], gateways: u32) -> Self {
        assert!(gateways > 0, "nobody to ask");
        Self {
            left: partitions.to_vec(),
            start: None,
            end: None,
            gateways,
            turn: 0,
        }
    }

    /// What to do next; `None` when all has been read. To be followed by [`Self::learn`].
    pub fn step(&mut self) -> Option<Step> {
        let at = *self.left.last()?;
        self.turn = (self.turn + 1) % self.gateways;
        let gateway = Gateway(self.turn);
        let list = |list| Op::ListOffsets { at, list, gateway };
        let op = match (self.start, self.end) {
            (None, _) => list(List::Earliest),
            (_, None) => list(List::Latest),
            (Some(from), Some(_)) => Op::Fetch {
                at,
                from,
                isolation: Isolation::ReadUncommitted,
                gateway,
            },
        };
        Some(Step { gateway, op })
    }

    /// How the last step ended.
    pub fn learn(&mut self, op: &Op, outcome: &Outcome) {
        match (op, outcome.answer()) {
            (
                Op::ListOffsets {
                    list: List::Earliest,
                    ..
                },
                Some(Answer::Position(start)),
            ) => self.start = Some(start.unwrap_or(0)),
            (
                Op::ListOffsets {
                    list: List::Latest, ..
                },
                Some(Answer::Position(end)),
            ) => self.end = Some(end.unwrap_or(0)),
            (
                Op::Fetch { .. },
                Some(Answer::Records {
                    records,
                    high_watermark,
                    ..
                }),
            ) => {
                let next = records.last().map(|last| last.offset + 1);
                self.start = next.max(self.start);
                // What nobody knew the outcome of may still have been committed.
                self.end = self.end.max(Some(*high_watermark));
                if self.start >= self.end {
                    self.left.pop();
                    (self.start, self.end) = (None, None);
                }
            }
            // Something went on after the healing; look again.
            (Op::Fetch { .. }, Some(Answer::OutOfRange)) => {
                (self.start, self.end) = (None, None);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, Recorder, Topic, check};

    /// A broker without faults, whose answers get lost.
    #[derive(Default)]
    struct Broker {
        logs: BTreeMap<TopicPartition, (i64, Vec<(u64, i64)>)>,
        batches: BTreeMap<(i64, TopicPartition, i64), i64>,
        committed: BTreeMap<TopicPartition, i64>,
        producers: i64,
    }

    impl Broker {
        fn answer(&mut self, op: &Op) -> Answer {
            match op {
                Op::InitProducer => {
                    self.producers += 1;
                    Answer::ProducerId(self.producers)
                }
                Op::Produce {
                    at,
                    values,
                    producer,
                    ..
                } => {
                    let log = &mut self.logs.entry(*at).or_default().1;
                    let mut base = log.len() as i64;
                    if let Some(producer) = producer {
                        let key = (producer.id, *at, producer.sequence);
                        base = *self.batches.entry(key).or_insert(base);
                    }
                    if base == log.len() as i64 {
                        let stamped = values.iter().map(|value| (*value, *value as i64 % 97));
                        log.extend(stamped);
                    }
                    Answer::Offset(base)
                }
                Op::Fetch { at, from, .. } => {
                    let (start, log) = self.logs.entry(*at).or_default();
                    let end = log.len() as i64;
                    if from < start || *from > end {
                        return Answer::OutOfRange;
                    }
                    let records = (*from..end.min(from + 7)).map(|offset| Record {
                        offset,
                        value: log[offset as usize].0,
                        timestamp: log[offset as usize].1,
                    });
                    Answer::Records {
                        records: records.collect(),
                        high_watermark: end,
                        log_start: Some(*start),
                        last_stable: Some(end),
                    }
                }
                Op::ListOffsets { at, list, .. } => {
                    let (start, log) = self.logs.entry(*at).or_default();
                    let end = log.len() as i64;
                    Answer::Position(match list {
                        List::Earliest => Some(*start),
                        List::Latest => Some(end),
                        List::Timestamp(wanted) => {
                            (*start..end).find(|offset| log[*offset as usize].1 >= *wanted)
                        }
                    })
                }
                Op::OffsetCommit { at, offset, .. } => {
                    self.committed.insert(*at, *offset);
                    Answer::Done
                }
                Op::OffsetFetch { at, .. } => Answer::Position(self.committed.get(at).copied()),
                Op::DeleteRecords { at, before } => {
                    let start = &mut self.logs.entry(*at).or_default().0;
                    *start = (*start).max(*before);
                    Answer::Done
                }
                other => panic!("workers do not {other:?}"),
            }
        }
    }

    #[test]
    fn a_sweep_reads_up_to_the_newest_end_that_it_is_told() {
        let at = TopicPartition::new(Topic(0), 0);
        let mut sweep = Sweep::new(&[at], 1);
        let records = |offsets: std::ops::Range<i64>| Answer::Records {
            records: offsets
                .map(|offset| Record {
                    offset,
                    value: 0,
                    timestamp: 0,
                })
                .collect(),
            high_watermark: 3,
            log_start: Some(0),
            last_stable: Some(3),
        };
        // The third record was committed after its end had been asked for.
        let answers = [
            Answer::Position(Some(0)),
            Answer::Position(Some(2)),
            records(0..2),
            records(2..3),
        ];
        for answer in answers {
            let step = sweep.step().expect("there is more to read");
            sweep.learn(&step.op, &Outcome::Ok(answer));
        }
        assert!(sweep.step().is_none());
    }

    #[test]
    fn workers_and_sweep_make_histories_that_are_clean_where_the_broker_is() {
        for seed in 0..50 {
            let partitions: Vec<_> = (0..3).map(|p| TopicPartition::new(Topic(0), p)).collect();
            let roles = [
                Role::Idempotent,
                Role::Plain(-1),
                Role::Plain(1),
                Role::Reader,
                Role::Committer(Group(0)),
                Role::Deleter,
            ];
            let mut workers: Vec<Worker> = (0..)
                .zip(roles)
                .map(|(n, role)| Worker::new(role, Client(n), &partitions, 2, seed))
                .collect();
            let (mut broker, recorder) = (Broker::default(), Recorder::logical());
            let mut rng = Rng::new(seed);
            for _ in 0..500 {
                let index = rng.below(workers.len() as u64) as usize;
                let worker = &mut workers[index];
                let step = worker.step();
                let pending = recorder.begin(worker.client(), step.op.clone());
                let outcome = match rng.below(10) {
                    0 => Outcome::Info(0),
                    1 => {
                        broker.answer(&step.op);
                        Outcome::Info(0)
                    }
                    2 => Outcome::Fail(19),
                    _ => Outcome::Ok(broker.answer(&step.op)),
                };
                worker.learn(&step.op, &outcome);
                pending.end(outcome);
            }
            recorder.begin(Client(9), Op::Healed).ok(Answer::Done);
            let mut sweep = Sweep::new(&partitions, 2);
            while let Some(step) = sweep.step() {
                let pending = recorder.begin(Client(9), step.op.clone());
                let outcome = match rng.below(10) {
                    0 => Outcome::Info(0),
                    _ => Outcome::Ok(broker.answer(&step.op)),
                };
                sweep.learn(&step.op, &outcome);
                pending.end(outcome);
            }
            let history = recorder.history();
            let found = check(&history);
            assert!(
                found.is_empty(),
                "seed {seed}: {}",
                found[0].explain(&history)
            );
            let acked = |e: &&crate::Event| {
                matches!(e.op, Op::Produce { .. }) && e.outcome.answer().is_some()
            };
            assert!(history.events.iter().filter(acked).count() > 50);
        }
    }
}
