//! The events of a history by what they are about.

use std::collections::BTreeMap;

use super::{Invariant, Report, timely};
use crate::{
    Answer, Client, Event, Gateway, Group, Isolation, List, Op, Outcome, Producer, Record, Time,
    Topic, TopicPartition,
};

/// One batch that was sent.
pub(super) struct Sent<'a> {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) values: &'a [u64],
    pub(super) producer: Option<Producer>,
    pub(super) resends: bool,
    /// The first offset, if acknowledged.
    pub(super) acked: Option<i64>,
    pub(super) failed: Option<i16>,
}

/// One successful fetch.
pub(super) struct Read<'a> {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) gateway: Gateway,
    pub(super) from: i64,
    pub(super) committed: bool,
    pub(super) records: &'a [Record],
    pub(super) high_watermark: i64,
    pub(super) log_start: Option<i64>,
    pub(super) last_stable: Option<i64>,
}

/// One fetch that was out of range.
pub(super) struct OutOfRange {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) from: i64,
}

/// One answered ListOffsets.
pub(super) struct Listed {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) list: List,
    pub(super) offset: Option<i64>,
}

/// One DeleteRecords that may have happened.
pub(super) struct Cut {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) before: i64,
    pub(super) acked: bool,
}

/// Offsets that are cold for certain since an instant.
pub(super) struct Frozen {
    pub(super) ret: Time,
    pub(super) end: i64,
}

/// The rows that a table's snapshot has of a partition.
pub(super) struct Scan<'a> {
    pub(super) event: usize,
    pub(super) ret: Time,
    pub(super) sequence: i64,
    pub(super) records: &'a [Record],
}

/// Where a value was seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sighting {
    pub(super) offset: i64,
    pub(super) value: u64,
    pub(super) timestamp: i64,
    pub(super) event: usize,
}

/// Everything about one partition.
#[derive(Default)]
pub(super) struct Log<'a> {
    pub(super) sent: Vec<Sent<'a>>,
    pub(super) reads: Vec<Read<'a>>,
    pub(super) out_of_range: Vec<OutOfRange>,
    pub(super) listed: Vec<Listed>,
    pub(super) cuts: Vec<Cut>,
    pub(super) frozen: Vec<Frozen>,
    pub(super) scans: Vec<Scan<'a>>,
    /// By offset; several per offset if it was read several times.
    pub(super) sightings: Vec<Sighting>,
    /// The first sighting at each offset.
    pub(super) truth: Vec<Sighting>,
    /// (value, offset, event), the first sighting of each pair.
    pub(super) places: Vec<(u64, i64, usize)>,
}

impl Log<'_> {
    /// What was read at an offset.
    pub(super) fn at(&self, offset: i64) -> Option<&Sighting> {
        let found = self.truth.binary_search_by_key(&offset, |s| s.offset);
        found.ok().map(|index| &self.truth[index])
    }

    /// Where a value was read, as (value, offset, event), by offset.
    pub(super) fn places(&self, value: u64) -> &[(u64, i64, usize)] {
        let start = self.places.partition_point(|place| place.0 < value);
        let end = start + self.places[start..].partition_point(|place| place.0 == value);
        &self.places[start..end]
    }

    /// The batches that were acknowledged, with their first offsets.
    pub(super) fn acked(&self) -> impl Iterator<Item = (&Sent<'_>, i64)> {
        self.sent
            .iter()
            .filter_map(|sent| sent.acked.map(|base| (sent, base)))
    }
}

/// Everything about one topic.
#[derive(Clone, Copy)]
pub(super) struct TopicFacts<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) created: Time,
    /// When it was first asked to be deleted.
    pub(super) doomed: Time,
    pub(super) retention: bool,
    pub(super) gaps: bool,
}

impl TopicFacts<'_> {
    /// What is known of a topic that existed before the history.
    const OLD: Self = Self {
        name: None,
        created: 0,
        doomed: Time::MAX,
        retention: false,
        gaps: false,
    };
}

/// One attempt to produce a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    pub(super) value: u64,
    pub(super) at: TopicPartition,
    /// Into [`Log::sent`].
    pub(super) sent: usize,
}

/// One step of a member of a group on one partition.
pub(super) struct Polled<'a> {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) client: Client,
    pub(super) at: TopicPartition,
    pub(super) records: &'a [Record],
}

/// One assignment.
pub(super) struct Joined<'a> {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) client: Client,
    pub(super) generation: Option<i32>,
    pub(super) partitions: &'a [TopicPartition],
}

/// One commit that was not definitely refused.
pub(super) struct Committed {
    pub(super) event: usize,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) at: TopicPartition,
    pub(super) generation: Option<i32>,
    pub(super) offset: i64,
    pub(super) acked: bool,
}

/// Everything about one group.
#[derive(Default)]
pub(super) struct GroupFacts<'a> {
    pub(super) polled: Vec<Polled<'a>>,
    pub(super) joined: Vec<Joined<'a>>,
    /// (invoke, client, partitions).
    pub(super) revoked: Vec<(Time, Client, &'a [TopicPartition])>,
    pub(super) committed: Vec<Committed>,
    /// (event, invoke, ret, partition, offset or -1).
    pub(super) fetched: Vec<(usize, Time, Time, TopicPartition, i64)>,
}

/// A history by what its events are about.
pub(super) struct Index<'a> {
    pub(super) events: &'a [Event],
    pub(super) logs: BTreeMap<TopicPartition, Log<'a>>,
    pub(super) groups: BTreeMap<Group, GroupFacts<'a>>,
    pub(super) topics: BTreeMap<Topic, TopicFacts<'a>>,
    pub(super) attempts: Vec<Attempt>,
    /// When all was healed, if it was.
    pub(super) healed: Option<Time>,
}

impl<'a> Index<'a> {
    pub(super) fn new(events: &'a [Event], report: &mut Report) -> Self {
        let mut index = Self {
            events,
            logs: BTreeMap::new(),
            groups: BTreeMap::new(),
            topics: BTreeMap::new(),
            attempts: Vec::new(),
            healed: None,
        };
        for (number, event) in events.iter().enumerate() {
            if !timely(event) || !index.add(number, event) {
                report.add(Invariant::Malformed, &[number], || {
                    "the event ends before it begins, or its answer is not one to its operation"
                        .to_owned()
                });
            }
        }
        index.forget_the_doomed();
        index.gather_sightings();
        for (at, log) in &mut index.logs {
            log.sightings.sort_unstable();
            log.truth.clone_from(&log.sightings);
            log.truth.dedup_by_key(|sighting| sighting.offset);
            log.places = log
                .sightings
                .iter()
                .map(|s| (s.value, s.offset, s.event))
                .collect();
            log.places.sort_unstable();
            log.places.dedup_by_key(|place| (place.0, place.1));
            for (sent, batch) in log.sent.iter().enumerate() {
                let attempt = |&value| Attempt {
                    value,
                    at: *at,
                    sent,
                };
                index.attempts.extend(batch.values.iter().map(attempt));
            }
        }
        index.attempts.sort_unstable();
        index
    }

    /// What is known about a topic.
    pub(super) fn topic(&self, topic: Topic) -> TopicFacts<'a> {
        self.topics.get(&topic).copied().unwrap_or(TopicFacts::OLD)
    }

    /// Every attempt to produce a value, anywhere.
    pub(super) fn attempts(&self, value: u64) -> &[Attempt] {
        let start = self.attempts.partition_point(|a| a.value < value);
        let end = start + self.attempts[start..].partition_point(|a| a.value == value);
        &self.attempts[start..end]
    }

    /// The batch of an attempt.
    pub(super) fn sent(&self, attempt: &Attempt) -> &Sent<'a> {
        &self.logs[&attempt.at].sent[attempt.sent]
    }

    /// Clients that address a topic by name cannot know which topic answers once a deletion has
    /// been asked for. What they were told from then on proves nothing.
    fn forget_the_doomed(&mut self) {
        let topics = &self.topics;
        let doomed = |at: TopicPartition| topics.get(&at.topic).map_or(Time::MAX, |t| t.doomed);
        for (at, log) in &mut self.logs {
            let doomed = doomed(*at);
            log.reads.retain(|read| read.ret < doomed);
            log.out_of_range.retain(|refused| refused.ret < doomed);
            log.listed.retain(|listed| listed.ret < doomed);
            for sent in log.sent.iter_mut().filter(|sent| sent.ret >= doomed) {
                sent.acked = None;
            }
            for cut in log.cuts.iter_mut().filter(|cut| cut.ret >= doomed) {
                cut.acked = false;
            }
        }
        for group in self.groups.values_mut() {
            group.polled.retain(|poll| poll.ret < doomed(poll.at));
            group
                .fetched
                .retain(|fetched| fetched.2 < doomed(fetched.3));
            for commit in &mut group.committed {
                commit.acked &= commit.ret < doomed(commit.at);
            }
        }
    }

    fn gather_sightings(&mut self) {
        for log in self.logs.values_mut() {
            for read in &log.reads {
                log.sightings.extend(
                    read.records
                        .iter()
                        .map(|record| sighting(read.event, *record)),
                );
            }
        }
        for group in self.groups.values() {
            for poll in &group.polled {
                let log = self.logs.entry(poll.at).or_default();
                log.sightings.extend(
                    poll.records
                        .iter()
                        .map(|record| sighting(poll.event, *record)),
                );
            }
        }
    }

    /// Files an event; answers false if its answer does not fit.
    fn add(&mut self, number: usize, event: &'a Event) -> bool {
        let (invoke, ret) = (event.invoke, event.ret);
        let answer = event.outcome.answer();
        let failed = matches!(event.outcome, Outcome::Fail(_));
        match &event.op {
            Op::CreateTopic {
                topic,
                name,
                retention,
                gaps,
            } => {
                let facts = self.topics.entry(*topic).or_insert(TopicFacts::OLD);
                facts.name = Some(name);
                facts.created = invoke;
                facts.retention = *retention;
                facts.gaps = *gaps;
                matches!(answer, None | Some(Answer::Done))
            }
            Op::DeleteTopic { topic } => {
                if !failed {
                    let facts = self.topics.entry(*topic).or_insert(TopicFacts::OLD);
                    facts.doomed = facts.doomed.min(invoke);
                }
                matches!(answer, None | Some(Answer::Done))
            }
            Op::Metadata { .. } => matches!(answer, None | Some(Answer::Topic(_))),
            Op::AlterConfig { .. } => matches!(answer, None | Some(Answer::Done)),
            Op::DescribeConfig { .. } => matches!(answer, None | Some(Answer::Config(_))),
            Op::InitProducer => matches!(answer, None | Some(Answer::ProducerId(_))),
            Op::Healed => {
                self.healed = self.healed.max(Some(ret));
                matches!(answer, Some(Answer::Done))
            }
            Op::Frozen { at, end } => {
                let end = *end;
                let log = self.logs.entry(*at).or_default();
                log.frozen.push(Frozen { ret, end });
                matches!(answer, Some(Answer::Done))
            }
            Op::Scan { at, sequence } => {
                match answer {
                    None => {}
                    Some(Answer::Rows(records)) => {
                        self.logs.entry(*at).or_default().scans.push(Scan {
                            event: number,
                            ret,
                            sequence: *sequence,
                            records,
                        });
                    }
                    Some(_) => return false,
                }
                true
            }
            Op::DeleteRecords { at, before } => {
                if !failed {
                    self.logs.entry(*at).or_default().cuts.push(Cut {
                        event: number,
                        invoke,
                        ret,
                        before: *before,
                        acked: answer.is_some(),
                    });
                }
                matches!(answer, None | Some(Answer::Done))
            }
            Op::Produce {
                at,
                values,
                producer,
                resends,
                ..
            } => {
                let acked = match answer {
                    Some(Answer::Offset(base)) => Some(*base),
                    Some(_) => return false,
                    None => None,
                };
                self.logs.entry(*at).or_default().sent.push(Sent {
                    event: number,
                    invoke,
                    ret,
                    values,
                    producer: *producer,
                    resends: *resends,
                    acked,
                    failed: match event.outcome {
                        Outcome::Fail(code) => Some(code),
                        _ => None,
                    },
                });
                !values.is_empty()
            }
            Op::Fetch {
                at,
                from,
                isolation,
                gateway,
            } => {
                let log = self.logs.entry(*at).or_default();
                match answer {
                    None => {}
                    Some(Answer::OutOfRange) => log.out_of_range.push(OutOfRange {
                        event: number,
                        invoke,
                        ret,
                        from: *from,
                    }),
                    Some(Answer::Records {
                        records,
                        high_watermark,
                        log_start,
                        last_stable,
                    }) => log.reads.push(Read {
                        event: number,
                        invoke,
                        ret,
                        gateway: *gateway,
                        from: *from,
                        committed: *isolation == Isolation::ReadCommitted,
                        records,
                        high_watermark: *high_watermark,
                        log_start: *log_start,
                        last_stable: *last_stable,
                    }),
                    Some(_) => return false,
                }
                true
            }
            Op::ListOffsets { at, list, .. } => {
                match answer {
                    None => {}
                    Some(Answer::Position(offset)) => {
                        self.logs.entry(*at).or_default().listed.push(Listed {
                            event: number,
                            invoke,
                            ret,
                            list: *list,
                            offset: *offset,
                        });
                    }
                    Some(_) => return false,
                }
                true
            }
            _ => self.add_to_group(number, event),
        }
    }

    fn add_to_group(&mut self, event: usize, entry: &'a Event) -> bool {
        let (invoke, ret, client) = (entry.invoke, entry.ret, entry.client);
        let answer = entry.outcome.answer();
        match (&entry.op, answer) {
            (
                Op::Join { group },
                Some(Answer::Assignment {
                    generation,
                    partitions,
                }),
            ) => self.groups.entry(*group).or_default().joined.push(Joined {
                event,
                invoke,
                ret,
                client,
                generation: *generation,
                partitions,
            }),
            // Whatever becomes of it, the member has stopped.
            (Op::Revoke { group, partitions }, None | Some(Answer::Done)) => {
                let group = self.groups.entry(*group).or_default();
                group.revoked.push((invoke, client, partitions));
            }
            (Op::Poll { group, at }, Some(Answer::Polled(records))) => {
                let group = self.groups.entry(*group).or_default();
                group.polled.push(Polled {
                    event,
                    invoke,
                    ret,
                    client,
                    at: *at,
                    records,
                });
                return !records.is_empty();
            }
            (
                Op::OffsetCommit {
                    group,
                    generation,
                    at,
                    offset,
                },
                None | Some(Answer::Done),
            ) => {
                if !matches!(entry.outcome, Outcome::Fail(_)) {
                    let group = self.groups.entry(*group).or_default();
                    group.committed.push(Committed {
                        event,
                        invoke,
                        ret,
                        at: *at,
                        generation: *generation,
                        offset: *offset,
                        acked: answer.is_some(),
                    });
                }
            }
            (Op::OffsetFetch { group, at, .. }, Some(Answer::Position(offset))) => {
                let group = self.groups.entry(*group).or_default();
                group
                    .fetched
                    .push((event, invoke, ret, *at, offset.unwrap_or(-1)));
            }
            (Op::Join { .. } | Op::Poll { .. } | Op::OffsetFetch { .. }, None) => {}
            _ => return false,
        }
        true
    }
}

const fn sighting(event: usize, record: Record) -> Sighting {
    Sighting {
        offset: record.offset,
        value: record.value,
        timestamp: record.timestamp,
        event,
    }
}
