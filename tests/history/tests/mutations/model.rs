//! A broker in memory that keeps every promise, and clients that meet every kind of outcome.
//!
//! Several gateways with images that lag behind; requests that are lost, answered late, or take
//! effect after their client gave up; retries of idempotent and other producers; deletions of
//! records and topics; a group whose generations change.

use std::collections::BTreeMap;

use frazil_history::{
    Answer, Client, Event, Gateway, Group, History, Isolation, List, Op, Outcome, Producer, Record,
    Rng, Topic, TopicPartition,
};

pub(crate) const PARTITIONS: i32 = 2;
const GATEWAYS: u64 = 3;
const GROUP: Group = Group(0);

#[derive(Clone, Default)]
struct Log {
    records: Vec<(u64, i64)>,
    start: i64,
    /// Per producer: sequence → first offset.
    batches: BTreeMap<(i64, i64), i64>,
}

impl Log {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    fn read(&self, from: i64, to: i64) -> Vec<Record> {
        (from..to)
            .map(|offset| {
                let (value, timestamp) = self.records[offset as usize];
                Record {
                    offset,
                    value,
                    timestamp,
                }
            })
            .collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    ReplyLost,
    RequestLost,
    Late,
    Refused,
}

/// A request on its way.
struct Flight {
    client: usize,
    invoke: u64,
    op: Op,
    fate: Fate,
    applied: Option<Outcome>,
    returned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Idempotent,
    Plain,
    Resending,
    Reader,
    Admin,
    Member,
}

const KINDS: [Kind; 10] = [
    Kind::Idempotent,
    Kind::Idempotent,
    Kind::Plain,
    Kind::Resending,
    Kind::Reader,
    Kind::Reader,
    Kind::Reader,
    Kind::Admin,
    Kind::Member,
    Kind::Member,
];

#[derive(Default)]
struct State {
    busy: bool,
    /// What an idempotent producer must repeat until it knows.
    again: Option<Op>,
    sequences: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<TopicPartition, i64>,
    generation: i32,
    owned: Vec<TopicPartition>,
}

struct World {
    rng: Rng,
    time: u64,
    events: Vec<Event>,
    flights: Vec<Flight>,
    clients: Vec<State>,
    next_value: u64,
    next_topic: u32,
    /// By name; a topic that is being changed is missing.
    topics: [Option<Topic>; 2],
    known: [Topic; 2],
    logs: BTreeMap<TopicPartition, Log>,
    images: Vec<BTreeMap<TopicPartition, (i64, i64)>>,
    settings: BTreeMap<Topic, String>,
    generation: i32,
    assignment: [Vec<TopicPartition>; 2],
    offsets: BTreeMap<TopicPartition, i64>,
    /// Per partition, what the table has.
    tables: BTreeMap<TopicPartition, (i64, i64)>,
    /// Counts the tables' snapshots.
    snapshots: i64,
}

/// A clean history of about `steps` operations.
pub(crate) fn run(seed: u64, steps: usize) -> History {
    let mut world = World {
        rng: Rng::new(seed),
        time: 1,
        events: Vec::new(),
        flights: Vec::new(),
        clients: KINDS.iter().map(|_| State::default()).collect(),
        next_value: 1,
        next_topic: 0,
        topics: [None, None],
        known: [Topic(0), Topic(1)],
        logs: BTreeMap::new(),
        images: vec![BTreeMap::new(); GATEWAYS as usize],
        settings: BTreeMap::new(),
        generation: 0,
        assignment: [Vec::new(), Vec::new()],
        offsets: BTreeMap::new(),
        tables: BTreeMap::new(),
        snapshots: 0,
    };
    for name in 0..2 {
        let op = world.create(name);
        world.alone(7, op);
    }
    world.rebalance();
    let mut begun = 0;
    while begun < steps {
        if world.rng.chance(45) {
            begun += usize::from(world.begin());
        } else {
            world.advance();
        }
        if world.rng.below(60) == 0 {
            world.freeze();
        }
        if world.rng.below(600) == 0 {
            world.rebalance();
        }
    }
    world.heal();
    History {
        events: world.events,
    }
}

fn name(index: usize) -> String {
    ["orders", "clicks"][index].to_owned()
}

impl World {
    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    fn gateway(&mut self) -> Gateway {
        Gateway(self.rng.below(GATEWAYS) as u32)
    }

    fn create(&mut self, index: usize) -> Op {
        let topic = Topic(self.next_topic);
        self.next_topic += 1;
        Op::CreateTopic {
            topic,
            name: name(index),
            retention: false,
            gaps: false,
        }
    }

    /// An operation that nothing happens beside.
    fn alone(&mut self, client: usize, op: Op) {
        let invoke = self.tick();
        let outcome = self.apply(client, &op);
        let ret = self.tick();
        self.events.push(Event {
            client: Client(client as u32),
            invoke,
            ret,
            op,
            outcome,
        });
    }

    /// A partition of a live topic; the first topic, which the group reads, is never deleted.
    fn somewhere(&mut self) -> TopicPartition {
        let index = usize::from(self.rng.chance(40));
        let partition = self.rng.below(PARTITIONS as u64) as i32;
        TopicPartition::new(self.known[index], partition)
    }

    fn begin(&mut self) -> bool {
        let client = self.rng.below(KINDS.len() as u64) as usize;
        if self.clients[client].busy {
            return false;
        }
        let Some(op) = self.next_op(client) else {
            return false;
        };
        let writes = !matches!(
            op,
            Op::Fetch { .. } | Op::ListOffsets { .. } | Op::OffsetFetch { .. }
        );
        let fate = match self.rng.below(100) {
            0..5 if writes => Fate::ReplyLost,
            5..10 if writes => Fate::RequestLost,
            10..15 if writes => Fate::Late,
            15..20 if writes => Fate::Refused,
            _ => Fate::Answered,
        };
        // What members and Metadata are told is all that matters of these.
        let fate = match op {
            Op::Join { .. } | Op::Poll { .. } | Op::Revoke { .. } | Op::Metadata { .. } => {
                Fate::Answered
            }
            _ => fate,
        };
        self.clients[client].busy = true;
        let invoke = self.tick();
        self.flights.push(Flight {
            client,
            invoke,
            op,
            fate,
            applied: None,
            returned: false,
        });
        true
    }

    fn next_op(&mut self, client: usize) -> Option<Op> {
        match KINDS[client] {
            Kind::Idempotent | Kind::Plain | Kind::Resending => Some(self.next_produce(client)),
            Kind::Reader => Some(self.next_read()),
            Kind::Admin => self.next_change(),
            Kind::Member => Some(self.next_step(client)),
        }
    }

    fn next_produce(&mut self, client: usize) -> Op {
        if let Some(op) = &self.clients[client].again {
            return op.clone();
        }
        let at = self.somewhere();
        let count = 1 + self.rng.below(3);
        let values: Vec<u64> = (self.next_value..self.next_value + count).collect();
        self.next_value += count;
        let producer = (KINDS[client] == Kind::Idempotent).then(|| {
            let sequence = self.clients[client].sequences.entry(at).or_default();
            let producer = Producer {
                id: client as i64,
                epoch: 0,
                sequence: *sequence,
            };
            *sequence += count as i64;
            producer
        });
        Op::Produce {
            at,
            values,
            producer,
            acks: -1,
            resends: KINDS[client] == Kind::Resending,
        }
    }

    fn next_read(&mut self) -> Op {
        let (at, gateway) = (self.somewhere(), self.gateway());
        match self.rng.below(10) {
            0..6 => {
                let end = self.logs.get(&at).map_or(0, Log::end);
                let from = match self.rng.below(10) {
                    0 => end + self.rng.below(4) as i64,
                    _ => self.rng.below(end as u64 + 1) as i64,
                };
                Op::Fetch {
                    at,
                    from,
                    isolation: Isolation::ReadUncommitted,
                    gateway,
                }
            }
            6 => Op::OffsetFetch {
                group: GROUP,
                at: TopicPartition::new(Topic(0), at.partition),
                gateway,
            },
            7 if self.rng.chance(50) => Op::Metadata {
                name: name(usize::from(self.rng.chance(80))),
                gateway,
            },
            7 => Op::DescribeConfig {
                topic: Topic(0),
                key: "retention.ms".to_owned(),
                gateway,
            },
            _ => {
                let list = match self.rng.below(4) {
                    0 => List::Earliest,
                    1 => List::Timestamp(self.rng.below(self.time / 2 + 1) as i64),
                    _ => List::Latest,
                };
                Op::ListOffsets { at, list, gateway }
            }
        }
    }

    fn next_change(&mut self) -> Option<Op> {
        match self.rng.below(60) {
            0..2 => {
                let at = self.somewhere();
                let log = self.logs.get(&at)?;
                let before =
                    log.start + self.rng.below((log.end() - log.start) as u64 / 2 + 1) as i64;
                Some(Op::DeleteRecords { at, before })
            }
            2..6 => Some(Op::AlterConfig {
                topic: Topic(0),
                key: "retention.ms".to_owned(),
                value: self.rng.below(1000).to_string(),
            }),
            6 if self.topics[1].is_some() => Some(Op::DeleteTopic {
                topic: self.known[1],
            }),
            7..20 if self.topics[1].is_none() => Some(self.create(1)),
            _ => None,
        }
    }

    fn next_step(&mut self, client: usize) -> Op {
        let member = &self.clients[client];
        if member.owned.is_empty() && member.generation == self.generation {
            // Nothing to do but to ask for the next generation.
            return Op::Join { group: GROUP };
        }
        if member.generation == 0 || (member.generation < self.generation && self.rng.chance(20)) {
            return Op::Join { group: GROUP };
        }
        let owned = self.clients[client].owned.clone();
        let Some(at) = self.rng.pick(&owned).copied() else {
            return Op::Join { group: GROUP };
        };
        let member = &self.clients[client];
        match member.positions.get(&at) {
            Some(position) if self.rng.chance(30) => Op::OffsetCommit {
                group: GROUP,
                generation: Some(member.generation),
                at,
                offset: *position,
            },
            _ => Op::Poll { group: GROUP, at },
        }
    }

    /// A topic's table has its next snapshot, and loses some of what is deleted.
    fn freeze(&mut self) {
        let compactor = KINDS.len();
        let Some(topic) = self.topics[usize::from(self.rng.chance(40))] else {
            return;
        };
        self.snapshots += 1;
        let sequence = self.snapshots;
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(topic, partition);
            let (first, end) = self.tables.get(&at).copied().unwrap_or_default();
            let log = &self.logs[&at];
            let (log_start, log_end) = (log.start, log.end());
            let end = end + self.rng.below((log_end - end) as u64 + 1) as i64;
            let cut = log_start.min(end).max(first);
            let first = first + self.rng.below((cut - first) as u64 + 1) as i64;
            self.tables.insert(at, (first, end));
            self.alone(compactor, Op::Frozen { at, end });
            self.alone(compactor, Op::Scan { at, sequence });
        }
    }

    fn rebalance(&mut self) {
        self.generation += 1;
        self.assignment = [Vec::new(), Vec::new()];
        for partition in 0..PARTITIONS {
            let member = self.rng.below(2) as usize;
            self.assignment[member].push(TopicPartition::new(Topic(0), partition));
        }
    }

    /// One request goes one step further.
    fn advance(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let index = self.rng.below(self.flights.len() as u64) as usize;
        let flight = &self.flights[index];
        let (returned, applied, fate) = (flight.returned, flight.applied.is_some(), flight.fate);
        match fate {
            Fate::Answered | Fate::ReplyLost if !applied => self.apply_flight(index),
            Fate::Answered | Fate::ReplyLost | Fate::RequestLost | Fate::Refused => {
                self.end(index);
            }
            Fate::Late if !returned => {
                self.end(index);
            }
            Fate::Late => {
                // Most come soon or never.
                if self.rng.chance(30) {
                    self.apply_flight(index);
                    self.flights.swap_remove(index);
                }
            }
        }
    }

    fn apply_flight(&mut self, index: usize) {
        let (client, op) = (self.flights[index].client, self.flights[index].op.clone());
        self.tick();
        let outcome = self.apply(client, &op);
        self.flights[index].applied = Some(outcome);
    }

    /// The client learns, or gives up.
    fn end(&mut self, index: usize) {
        let ret = self.tick();
        let late = self.flights[index].fate == Fate::Late;
        let flight = &mut self.flights[index];
        let outcome = match flight.fate {
            Fate::Answered => flight.applied.take().expect("applied first"),
            Fate::ReplyLost | Fate::RequestLost | Fate::Late => Outcome::Info(0),
            Fate::Refused => Outcome::Fail(29),
        };
        flight.returned = true;
        let (client, invoke, op) = (flight.client, flight.invoke, flight.op.clone());
        if !late {
            self.flights.swap_remove(index);
        }
        self.clients[client].busy = false;
        self.learn(client, &op, &outcome);
        let polled_nothing = outcome.answer() == Some(&Answer::Polled(Vec::new()));
        if !polled_nothing {
            self.events.push(Event {
                client: Client(client as u32),
                invoke,
                ret,
                op,
                outcome,
            });
        }
    }

    fn learn(&mut self, client: usize, op: &Op, outcome: &Outcome) {
        let unsure = matches!(outcome, Outcome::Info(_));
        let state = &mut self.clients[client];
        match (op, outcome) {
            (Op::Produce { at, producer, .. }, _) => {
                let alive = self.topics.contains(&Some(at.topic));
                // An idempotent producer repeats whatever it was told but success: a gap in its
                // sequences would end it.
                let again = match KINDS[client] {
                    Kind::Idempotent => !matches!(outcome, Outcome::Ok(_)),
                    _ => unsure && self.rng.chance(50),
                };
                debug_assert_eq!(producer.is_some(), KINDS[client] == Kind::Idempotent);
                self.clients[client].again = (again && alive).then(|| op.clone());
            }
            (
                Op::Join { .. },
                Outcome::Ok(Answer::Assignment {
                    generation,
                    partitions,
                }),
            ) => {
                state.generation = generation.expect("the model knows");
                state.owned.clone_from(partitions);
                state.positions.clear();
            }
            (Op::Poll { at, .. }, Outcome::Ok(Answer::Polled(records))) => {
                if let Some(last) = records.last() {
                    state.positions.insert(*at, last.offset + 1);
                }
            }
            (Op::OffsetCommit { .. }, Outcome::Fail(22)) => {
                state.owned.clear();
                state.generation = 0;
            }
            _ => {}
        }
    }

    /// What a broker does with a request, at one instant.
    fn apply(&mut self, client: usize, op: &Op) -> Outcome {
        const UNKNOWN_TOPIC: Outcome = Outcome::Fail(3);
        match op {
            Op::CreateTopic { topic, name, .. } => {
                let index = usize::from(name == "clicks");
                if self.topics[index].is_some() {
                    return Outcome::Fail(36);
                }
                self.topics[index] = Some(*topic);
                self.known[index] = *topic;
                for partition in 0..PARTITIONS {
                    let at = TopicPartition::new(*topic, partition);
                    self.logs.insert(at, Log::default());
                }
                Outcome::Ok(Answer::Done)
            }
            Op::DeleteTopic { topic } => {
                let Some(known) = self.topics.iter_mut().find(|t| **t == Some(*topic)) else {
                    return UNKNOWN_TOPIC;
                };
                *known = None;
                Outcome::Ok(Answer::Done)
            }
            Op::Metadata { name, .. } => {
                Outcome::Ok(Answer::Topic(self.topics[usize::from(name == "clicks")]))
            }
            Op::AlterConfig { topic, value, .. } => {
                self.settings.insert(*topic, value.clone());
                Outcome::Ok(Answer::Done)
            }
            Op::DescribeConfig { topic, .. } => {
                Outcome::Ok(Answer::Config(self.settings.get(topic).cloned()))
            }
            Op::Produce {
                at,
                values,
                producer,
                resends,
                ..
            } => self.append(*at, values, *producer, *resends),
            Op::DeleteRecords { at, .. } | Op::Fetch { at, .. } | Op::ListOffsets { at, .. }
                if !self.topics.contains(&Some(at.topic)) =>
            {
                UNKNOWN_TOPIC
            }
            Op::DeleteRecords { at, before } => {
                let log = self.logs.get_mut(at).expect("it is alive");
                log.start = log.start.max(*before);
                Outcome::Ok(Answer::Done)
            }
            Op::Fetch {
                at, from, gateway, ..
            } => self.fetch(*at, *from, *gateway),
            Op::ListOffsets { at, list, .. } => {
                let log = &self.logs[at];
                let offset = match list {
                    List::Earliest => Some(log.start),
                    List::Latest => Some(log.end()),
                    List::Timestamp(wanted) => (log.start..log.end())
                        .find(|offset| log.records[*offset as usize].1 >= *wanted),
                };
                Outcome::Ok(Answer::Position(offset))
            }
            Op::OffsetFetch { at, .. } => {
                Outcome::Ok(Answer::Position(self.offsets.get(at).copied()))
            }
            Op::OffsetCommit {
                generation,
                at,
                offset,
                ..
            } => {
                if *generation != Some(self.generation) {
                    return Outcome::Fail(22);
                }
                self.offsets.insert(*at, *offset);
                Outcome::Ok(Answer::Done)
            }
            Op::Join { .. } => {
                if self.clients[client].generation == self.generation {
                    self.rebalance();
                }
                let member = KINDS[..client]
                    .iter()
                    .filter(|k| **k == Kind::Member)
                    .count();
                Outcome::Ok(Answer::Assignment {
                    generation: Some(self.generation),
                    partitions: self.assignment[member].clone(),
                })
            }
            Op::Poll { at, .. } => {
                let log = &self.logs[at];
                let position = self.clients[client].positions.get(at);
                let committed = self.offsets.get(at);
                let from = *position.or(committed).unwrap_or(&0).max(&log.start);
                let to = log.end().min(from + 1 + self.rng.below(6) as i64);
                Outcome::Ok(Answer::Polled(log.read(from, to)))
            }
            Op::Scan { at, .. } => {
                let (first, end) = self.tables[at];
                Outcome::Ok(Answer::Rows(self.logs[at].read(first, end)))
            }
            Op::InitProducer | Op::Healed | Op::Revoke { .. } | Op::Frozen { .. } => {
                Outcome::Ok(Answer::Done)
            }
        }
    }

    fn append(
        &mut self,
        at: TopicPartition,
        values: &[u64],
        producer: Option<Producer>,
        resends: bool,
    ) -> Outcome {
        let mut at = at;
        if !self.topics.contains(&Some(at.topic)) {
            // Addressed by name, it may land in the topic that has the name now.
            match self.topics[1] {
                Some(topic) if producer.is_none() => at.topic = topic,
                _ => return Outcome::Fail(3),
            }
        }
        let log = self.logs.get_mut(&at).expect("it is alive");
        if let Some(producer) = producer {
            let batch = (producer.id, producer.sequence);
            if let Some(base) = log.batches.get(&batch) {
                return Outcome::Ok(Answer::Offset(*base));
            }
            log.batches.insert(batch, log.end());
        }
        let times = if resends && self.rng.chance(20) { 2 } else { 1 };
        let mut base = 0;
        for _ in 0..times {
            base = log.end();
            for value in values {
                let timestamp = (self.time + self.rng.below(20)) as i64;
                log.records.push((*value, timestamp));
            }
        }
        Outcome::Ok(Answer::Offset(base))
    }

    fn fetch(&mut self, at: TopicPartition, from: i64, gateway: Gateway) -> Outcome {
        let log = &self.logs[&at];
        let truth = (log.start, log.end());
        let image = self.images[gateway.0 as usize].entry(at).or_insert(truth);
        if self.rng.chance(30) || from >= image.1 {
            *image = truth;
        }
        let (start, end) = *image;
        if from < start || from > end {
            // Authoritative only after a look at the truth.
            *image = truth;
            if from < truth.0 || from > truth.1 {
                return Outcome::Ok(Answer::OutOfRange);
            }
        }
        let (start, end) = *image;
        let to = end.min(from + 1 + self.rng.below(8) as i64);
        Outcome::Ok(Answer::Records {
            records: log.read(from, to),
            high_watermark: end,
            log_start: Some(start),
            last_stable: Some(end),
        })
    }

    /// Everybody hears or gives up, and all is read.
    fn heal(&mut self) {
        let mut late = Vec::new();
        while !self.flights.is_empty() {
            let index = self.flights.len() - 1;
            let flight = &self.flights[index];
            if flight.fate == Fate::Late && flight.returned {
                late.extend(self.flights.pop());
                continue;
            }
            if flight.fate == Fate::Answered && flight.applied.is_none() {
                self.apply_flight(index);
            }
            self.end(index);
        }
        self.alone(7, Op::Healed);
        let live: Vec<TopicPartition> = self
            .logs
            .keys()
            .filter(|at| self.topics.contains(&Some(at.topic)))
            .copied()
            .collect();
        for at in live {
            for list in [List::Earliest, List::Latest] {
                let gateway = self.gateway();
                self.alone(4, Op::ListOffsets { at, list, gateway });
            }
            let (mut from, end) = (self.logs[&at].start, self.logs[&at].end());
            for image in &mut self.images {
                image.remove(&at);
            }
            while from < end {
                let gateway = self.gateway();
                let op = Op::Fetch {
                    at,
                    from,
                    isolation: Isolation::ReadUncommitted,
                    gateway,
                };
                self.alone(4, op);
                if let Some(Event {
                    outcome: Outcome::Ok(Answer::Records { records, .. }),
                    ..
                }) = self.events.last()
                {
                    from = records.last().expect("there is more").offset + 1;
                }
            }
        }
        // What may have happened may still happen, and tables have it then.
        for flight in late {
            if matches!(flight.op, Op::Produce { .. }) {
                self.apply(flight.client, &flight.op);
            }
        }
        for _ in 0..4 {
            self.freeze();
        }
    }
}
