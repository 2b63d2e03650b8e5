//! Commits against a reference model.
//!
//! The model keeps every batch of every partition with the place of its bytes, and the whole
//! history of every producer's epoch; it has no extents, no reference counts and no windows. After
//! each step the state's extents must spell out exactly the model's batches.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::cold::{NodeRef, ObjectId};
use frazil_core::ports::{
    BatchOutcome, BatchRefusal, ColdMove, Located, Move, Replacement, SegmentStatus,
};
use proptest::prelude::*;

use super::*;
use crate::command::GatewayRefusal;

/// A batch to come, relative to what its producer has done.
#[derive(Clone, Debug)]
enum Kind {
    Plain,
    /// The producer's next batch.
    Next(u8),
    /// The producer's batch so many before the last, again.
    Again(u8, u8),
    /// The next batch with a gap before it.
    Gap(u8),
    /// The first batch of a newer epoch; `true`: with sequence 0, as it should be.
    NewEpoch(u8, bool),
    /// The next batch, of an older epoch.
    OldEpoch(u8),
}

/// Batches, with their numbers of records.
type Run = (Partition, InWal, Vec<(Kind, u8)>);
type Partition = u8;
type InWal = bool;

#[derive(Clone, Debug)]
enum Step {
    /// One gateway commits runs of batches.
    Flush(u8, Vec<Run>),
    /// One gateway moves all that it has in its WAL.
    Relocate(u8),
    /// Raises a log start to so many 255ths of the log.
    Raise(u8, u8),
    Restart(u8),
    /// A gateway finds so many extents of its WAL lost, and gives them up.
    Lose(u8, u8),
    /// A gateway is gone with its WAL, and another is registered under its id.
    Forget(u8),
    /// So many of a partition's first extents become cold, and the root is cut at the log start, or
    /// nearly so.
    Freeze(u8, u8, bool),
}

fn kind() -> impl Strategy<Value = Kind> {
    let producer = 0..2_u8;
    prop_oneof![
        2 => Just(Kind::Plain),
        6 => producer.clone().prop_map(Kind::Next),
        3 => (producer.clone(), 0..7_u8).prop_map(|(p, back)| Kind::Again(p, back)),
        1 => producer.clone().prop_map(Kind::Gap),
        1 => (producer.clone(), any::<bool>()).prop_map(|(p, zero)| Kind::NewEpoch(p, zero)),
        1 => producer.prop_map(Kind::OldEpoch),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let batches = prop::collection::vec((kind(), 1..4_u8), 1..5);
    let runs = prop::collection::vec((0..3_u8, any::<bool>(), batches), 1..4);
    prop_oneof![
        8 => (0..2_u8, runs).prop_map(|(gateway, runs)| Step::Flush(gateway, runs)),
        2 => (0..2_u8).prop_map(Step::Relocate),
        2 => (0..3_u8, any::<u8>()).prop_map(|(partition, to)| Step::Raise(partition, to)),
        1 => (0..2_u8).prop_map(Step::Restart),
        1 => (0..2_u8, 1..4_u8).prop_map(|(gateway, count)| Step::Lose(gateway, count)),
        1 => (0..2_u8).prop_map(Step::Forget),
        3 => (0..3_u8, 0..4_u8, any::<bool>()).prop_map(|(p, count, cut)| Step::Freeze(p, count, cut)),
    ]
}

#[derive(Clone, Debug)]
struct ModelBatch {
    base: i64,
    records: u32,
    length: u32,
    place: Location,
}

/// Epoch, and every batch in it as (first sequence, last sequence, offset).
type History = (i16, Vec<(i32, i32, i64)>);

#[derive(Default)]
struct Model {
    logs: [Vec<ModelBatch>; 3],
    ends: [i64; 3],
    /// Where the cold offsets begin and end.
    cold: [Option<(i64, i64)>; 3],
    starts: [i64; 3],
    producers: BTreeMap<(usize, i64), History>,
}

fn wrapped(sequence: i64) -> i32 {
    i32::try_from(sequence.rem_euclid(1 << 31)).expect("31 bits")
}

impl Model {
    /// What the batch of this kind looks like now.
    fn batch(&self, partition: usize, kind: &Kind, records: u32) -> BatchInfo {
        let of = |producer: u8| self.producers.get(&(partition, i64::from(producer)));
        // A producer that is not known begins a little before sequences wrap.
        let next = |producer| match of(producer) {
            Some((epoch, history)) => {
                let last = history.last().expect("a batch").1;
                (*epoch, wrapped(i64::from(last) + 1))
            }
            None => (1, i32::MAX - 5),
        };
        let make = |producer: u8, epoch, base_sequence, records: u32| BatchInfo {
            length: 10 * records + 1,
            records,
            max_timestamp: i64::from(records),
            producer: Some(ProducerBatch {
                id: ProducerId(producer.into()),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            }),
        };
        match *kind {
            Kind::Plain => plain(records),
            Kind::Next(producer) => {
                let (epoch, first) = next(producer);
                make(producer, epoch, first, records)
            }
            Kind::Again(producer, back) => match of(producer) {
                Some((epoch, history)) => {
                    let at = history.len().saturating_sub(1 + usize::from(back));
                    let (first, last, _) = history[at];
                    let records = wrapped(i64::from(last) - i64::from(first)) + 1;
                    make(producer, *epoch, first, records.unsigned_abs())
                }
                None => plain(records),
            },
            Kind::Gap(producer) => {
                let (epoch, first) = next(producer);
                make(producer, epoch, wrapped(i64::from(first) + 2), records)
            }
            Kind::NewEpoch(producer, zero) => {
                let (epoch, _) = next(producer);
                make(producer, epoch + 1, if zero { 0 } else { 3 }, records)
            }
            Kind::OldEpoch(producer) => {
                let (epoch, first) = next(producer);
                make(producer, (epoch - 1).max(0), first, records)
            }
        }
    }

    fn append(&mut self, partition: usize, batch: &BatchInfo, place: Location) -> BatchOutcome {
        let offset = self.ends[partition];
        if let Some(ProducerBatch {
            id,
            epoch,
            base_sequence: first,
        }) = batch.producer
        {
            let last = wrapped(i64::from(first) + i64::from(batch.records) - 1);
            let new = (first, last, offset);
            match self.producers.get_mut(&(partition, id.0)) {
                None => {
                    self.producers
                        .insert((partition, id.0), (epoch.0, vec![new]));
                }
                Some((known, history)) if *known == epoch.0 => {
                    let window = &history[history.len().saturating_sub(5)..];
                    let same = window.iter().find(|old| (old.0, old.1) == (first, last));
                    if let Some(&(_, _, offset)) = same {
                        return duplicate(offset);
                    }
                    let previous = history.last().expect("a batch").1;
                    if first != wrapped(i64::from(previous) + 1) {
                        return BatchOutcome::Refused(BatchRefusal::OutOfOrderSequence);
                    }
                    history.push(new);
                }
                Some((known, _)) if *known > epoch.0 => {
                    return BatchOutcome::Refused(BatchRefusal::InvalidProducerEpoch);
                }
                Some(_) if first != 0 => {
                    return BatchOutcome::Refused(BatchRefusal::OutOfOrderSequence);
                }
                Some(known) => *known = (epoch.0, vec![new]),
            }
        }
        self.ends[partition] += i64::from(batch.records);
        self.logs[partition].push(ModelBatch {
            base: offset,
            records: batch.records,
            length: batch.length,
            place,
        });
        appended(offset)
    }
}

impl Model {
    /// Batches in a gateway's WAL are lost.
    fn lose(&mut self, log: usize, holder: BrokerId, offsets: std::ops::Range<i64>) {
        for batch in &mut self.logs[log] {
            if matches!(batch.place, Location::Wal { broker, .. } if broker == holder)
                && offsets.contains(&batch.base)
            {
                batch.place = Location::Lost;
            }
        }
    }
}

struct Pair {
    world: World,
    gateways: [Gateway; 2],
    /// The next segment number and WAL position of each gateway.
    next: [(u64, u64); 2],
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        world.apply(Command::RaiseLevel { level: 3 });
        world.apply(Command::CreateTopic(new_topic(1, "a", 3)));
        let gateways = [world.register(None, 1), world.register(None, 2)];
        Self {
            world,
            gateways,
            next: [(0, 0); 2],
            model: Model::default(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Flush(gateway, runs) => self.flush(usize::from(*gateway), runs),
            Step::Relocate(gateway) => self.relocate(usize::from(*gateway)),
            Step::Raise(index, part) => {
                let log = usize::from(*index);
                let to = self.model.ends[log] * i64::from(*part) / 255;
                self.world.apply(Command::RaiseLogStarts {
                    to: vec![(partition(1, i32::from(*index)), Offset(to))],
                });
                self.model.starts[log] = self.model.starts[log].max(to);
            }
            Step::Restart(gateway) => self.restart(usize::from(*gateway)),
            Step::Freeze(log, count, cut) => {
                self.freeze(usize::from(*log), usize::from(*count), *cut);
            }
            Step::Lose(gateway, count) => {
                let Gateway { id: broker, epoch } = self.gateways[usize::from(*gateway)];
                let held = self.world.state.wal_extents(broker).into_iter();
                let lost: Vec<_> = held
                    .take(usize::from(*count))
                    .map(|(partition, extent)| (partition, extent.base, extent.end))
                    .collect();
                for (partition, base, end) in &lost {
                    self.model
                        .lose(partition.partition as usize, broker, base.0..end.0);
                }
                let command = Command::GiveUpWal {
                    broker,
                    epoch,
                    lost,
                };
                assert_eq!(self.world.apply(command), Outcome::Done);
            }
            Step::Forget(gateway) => {
                let who = usize::from(*gateway);
                let Gateway { id: broker, epoch } = self.gateways[who];
                let forget = Command::ForgetGateway {
                    broker,
                    epoch,
                    accept_loss: true,
                };
                let refused = Outcome::Gateway(Err(GatewayRefusal::Live));
                assert_eq!(self.world.apply(forget.clone()), refused);
                self.world.apply(Command::Lapse { broker, epoch });
                assert_eq!(self.world.apply(forget), Outcome::Gateway(Ok(())));
                for log in 0..3 {
                    self.model.lose(log, broker, 0..i64::MAX);
                }
                // Whatever is still under way from it comes too late.
                let late = Command::Commit(self.gateways[who].commit(vec![]));
                assert_eq!(self.world.apply(late), Outcome::Fenced);
                self.restart(who);
            }
        }
        self.compare();
    }

    /// The planner of a compactor, on the model.
    fn freeze(&mut self, log: usize, count: usize, cut: bool) {
        let name = partition(1, log as i32);
        let claimed = self.world.apply(Command::ClaimTable {
            topic: topic_id(1),
            holder: Uuid::from_u128(1),
            lease_ms: 0,
        });
        let Outcome::TableClaimed(Ok(claim)) = claimed else {
            panic!("{claimed:?}");
        };
        let extents = self.world.state.oldest_extents(&name, usize::MAX);
        let start = self.model.starts[log];
        let old = self.model.cold[log];
        let live = old.filter(|(_, end)| start < *end);
        let base = match (live, extents.first()) {
            (Some((_, end)), _) => end,
            (None, Some(first)) => first.base.0,
            (None, None) => self.model.ends[log],
        };
        let settled = extents
            .iter()
            .take_while(|extent| !matches!(extent.location, Location::Wal { .. }));
        let end = settled.take(count).last().map_or(base, |e| e.end.0);
        let first = match live {
            Some((first, _)) if !cut => first,
            Some(_) => start,
            None => base,
        };
        let new = (first < end).then_some((first, end));
        if old.is_none() && new.is_none() {
            return;
        }
        let moved = ColdMove {
            partition: log as i32,
            expected: self.world.state.cold(&name).map(|root| root.id),
            base: Offset(base),
            end: Offset(end),
            root: new.map(|(first, end)| NodeRef {
                base: Offset(first),
                end: Offset(end),
                id: ObjectId::new(claim, 0),
                level: 0,
                length: 1,
                crc: 0,
                records: 0,
                bytes: 7,
                max_timestamp: -1,
            }),
        };
        let replaced = self.world.apply(Command::Replace(Replacement {
            topic: topic_id(1),
            claim,
            lease_ms: 0,
            moves: vec![moved],
            table: None,
            retired: vec![],
        }));
        assert_eq!(replaced, Outcome::Replaced(Ok(())));
        self.model.cold[log] = new;
    }

    fn restart(&mut self, gateway: usize) {
        let incarnation = u128::from(self.world.index) + 100;
        let id = self.gateways[gateway].id;
        self.gateways[gateway] = self.world.register(Some(id), incarnation);
        self.next[gateway].0 = 0;
    }

    fn flush(&mut self, who: usize, runs: &[Run]) {
        let gateway = self.gateways[who];
        let number = self.next[who].0;
        self.next[who].0 += 1;
        let mut in_segment = 0;
        let mut appends = Vec::new();
        let mut expected = Vec::new();
        for (log, wal, batches) in runs {
            let log = usize::from(*log);
            let mut infos = Vec::new();
            let mut outcomes = Vec::new();
            let start = if *wal {
                self.next[who].1
            } else {
                u64::from(in_segment)
            };
            let mut at = start;
            for (kind, records) in batches {
                let batch = self.model.batch(log, kind, u32::from(*records));
                let place = if *wal {
                    gateway.in_wal(at, batch.length)
                } else {
                    gateway.in_segment(number, at as u32, batch.length)
                };
                at += u64::from(batch.length);
                outcomes.push(self.model.append(log, &batch, place));
                infos.push(batch);
            }
            let length = (at - start) as u32;
            let location = if *wal {
                self.next[who].1 += u64::from(length);
                gateway.in_wal(start, length)
            } else {
                in_segment += length;
                gateway.in_segment(number, start as u32, length)
            };
            expected.push(outcomes);
            appends.push(Append {
                partition: partition(1, log as i32),
                location,
                batches: infos,
            });
        }
        let commit = Commit {
            sealed_below: number + 1,
            ..gateway.commit(appends)
        };
        let outcomes = self.world.commit(commit);
        let outcomes: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| outcome.batches)
            .collect();
        assert_eq!(outcomes, expected);
    }

    /// Moves every run of consecutive offsets that the gateway holds in its WAL, into one segment
    /// whose bytes are in the order of the partitions.
    fn relocate(&mut self, who: usize) {
        let gateway = self.gateways[who];
        let number = self.next[who].0;
        self.next[who].0 += 1;
        let id = gateway.segment(number);
        let mut at = 0;
        let mut moves: Vec<Move> = Vec::new();
        for (index, log) in (0..).zip(&mut self.model.logs) {
            let mut open = false;
            for batch in log.iter_mut() {
                if !matches!(batch.place, Location::Wal { broker, .. } if broker == gateway.id) {
                    open = false;
                    continue;
                }
                let length = batch.length;
                batch.place = gateway.in_segment(number, at, length);
                let end = Offset(batch.base) + batch.records;
                match moves.last_mut().filter(|_| open) {
                    Some(Move {
                        end: last_end,
                        to: Location::Segment { length: sum, .. },
                        ..
                    }) => {
                        *last_end = end;
                        *sum += length;
                    }
                    _ => moves.push(Move {
                        partition: partition(1, index),
                        base: Offset(batch.base),
                        end,
                        to: batch.place,
                    }),
                }
                open = true;
                at += length;
            }
        }
        let commit = Commit {
            segments: vec![SegmentInfo {
                id,
                bytes: at.into(),
            }],
            moves,
            ..gateway.commit(vec![])
        };
        assert_eq!(self.world.commit(commit), []);
    }

    /// The extents of the state spell out the batches of the model.
    fn compare(&self) {
        for (index, log) in (0..).zip(&self.model.logs) {
            let name = partition(1, index);
            let slot = index as usize;
            assert_eq!(
                self.world.bounds(name),
                (self.model.starts[slot], self.model.ends[slot])
            );
            let extents = self.world.state.oldest_extents(&name, usize::MAX);
            let first = extents
                .first()
                .map_or(self.model.ends[slot], |extent| extent.base.0);
            let mut batches = log.iter().filter(|batch| batch.base >= first);
            let mut stored = 0;
            for extent in &extents {
                let mut offset = extent.base.0;
                let mut skip = 0;
                let mut max_timestamp = i64::MIN;
                while offset < extent.end.0 {
                    let batch = batches.next().expect("a batch for every offset");
                    assert_eq!(batch.base, offset);
                    assert_eq!(batch.place, at(extent.location, skip, batch.length));
                    offset += i64::from(batch.records);
                    skip += batch.length;
                    let timestamp = if batch.length == 10 * batch.records {
                        0
                    } else {
                        i64::from(batch.records)
                    };
                    max_timestamp = max_timestamp.max(timestamp);
                }
                assert_eq!(offset, extent.end.0);
                if extent.location != Location::Lost {
                    assert_eq!(skip, extent.location.length());
                    stored += u64::from(skip);
                }
                assert_eq!(max_timestamp, extent.max_timestamp);
            }
            assert_eq!(batches.count(), 0);
            let start = self.model.starts[slot];
            if let Some((_, end)) = self.model.cold[slot].filter(|(_, end)| start < *end) {
                assert_eq!(first, end, "extents follow what is cold");
                stored += 7;
            } else {
                assert!(extents.first().is_none_or(|extent| extent.base.0 <= start));
            }
            let located = |offset| self.world.state.locate(&name, Offset(offset), 1);
            for offset in start..self.model.ends[slot] {
                let Located { cold, extents } = located(offset);
                let known = self.model.cold[slot].filter(|(_, end)| offset < *end);
                assert_eq!(cold.map(|root| (root.base.0, root.end.0)), known);
                let holds =
                    |extent: &frazil_core::Extent| (extent.base.0..extent.end.0).contains(&offset);
                assert_eq!(extents.first().is_some_and(holds), known.is_none());
            }
            assert_eq!(self.world.state.size_bytes(&name), stored);
            for pair in extents.windows(2) {
                let follows = |a: &Location, b: &Location| match (a, b) {
                    (
                        Location::Segment { id, start, length },
                        Location::Segment {
                            id: next,
                            start: next_start,
                            ..
                        },
                    ) => id == next && start + length == *next_start,
                    (Location::Lost, Location::Lost) => true,
                    _ => false,
                };
                assert!(!follows(&pair[0].location, &pair[1].location), "{pair:?}");
            }
        }
    }

    /// Once the topic is gone, nothing holds a segment.
    fn finish(mut self) {
        self.world.apply(Command::DeleteTopic { id: topic_id(1) });
        let counts = self.world.state.counts();
        assert_eq!((counts.segments, counts.extents), (0, 0));
        let mut seen = BTreeSet::new();
        for (id, _) in self.world.state.retired_segments(usize::MAX) {
            assert_eq!(self.world.state.segment(id), SegmentStatus::Retired);
            assert!(seen.insert(id));
        }
    }
}

/// `length` bytes of a location, `skip` bytes on.
fn at(location: Location, skip: u32, length: u32) -> Location {
    match location {
        Location::Segment { id, start, .. } => Location::Segment {
            id,
            start: start + skip,
            length,
        },
        Location::Wal {
            broker,
            epoch,
            start,
            ..
        } => Location::Wal {
            broker,
            epoch,
            start: start + u64::from(skip),
            length,
        },
        Location::Lost => Location::Lost,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_do_what_the_model_does(steps in prop::collection::vec(step(), 1..25)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.finish();
    }
}
