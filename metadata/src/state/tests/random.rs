//! Random commands: the invariants hold after each, snapshots give back the same state at every
//! point, and copies of a command in whatever place of the log change nothing.

use std::collections::BTreeMap;

use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::group::{CommittedOffset, Group, Member};
use frazil_core::ports::{
    ColdMove, ConfigTarget, GroupClaim, Move, Replacement, TableMove, TablePointer,
};
use proptest::prelude::*;

use super::*;

/// Clients with sessions.
const CLIENTS: u8 = 3;

/// Four random bytes that become a command, and two for the session it is sent in.
type Seed = ([u8; 4], u8, u8);

fn seeds(most: usize) -> impl Strategy<Value = Vec<Seed>> {
    prop::collection::vec(any::<Seed>(), 1..most)
}

/// Makes commands out of random bytes that mostly refer to something that is there.
struct Author {
    world: World,
    gateways: Vec<Gateway>,
    claims: Vec<GroupClaim>,
    collectors: Vec<u64>,
    requests: BTreeMap<u128, u64>,
}

fn pick<T: Copy>(from: &[T], at: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(at) % from.len()])
}

fn some_partition(n: u8) -> TopicPartition {
    partition(u128::from(1 + n % 3), i32::from(n / 3 % 3))
}

impl Author {
    fn new() -> Self {
        Self {
            world: World::new(),
            gateways: Vec::new(),
            claims: Vec::new(),
            collectors: Vec::new(),
            requests: BTreeMap::new(),
        }
    }

    fn commit(&self, gateway: Gateway, [_, a, b, c]: [u8; 4]) -> Commit {
        let number = u64::from(b % 16);
        let batches: Vec<_> = (0..1 + i32::from(c % 3))
            .map(|i| {
                if c & 0x80 == 0 {
                    plain(1 + u32::from(b % 4))
                } else {
                    sequenced(i16::from(c >> 5 & 1), i32::from(a % 4) + i, 1)
                }
            })
            .collect();
        let length = batches.iter().map(|batch| batch.length).sum();
        let append = |n: u8, start: u32| Append {
            partition: some_partition(n),
            location: if n & 0x40 == 0 {
                gateway.in_segment(number, start, length)
            } else {
                gateway.in_wal(u64::from(b) * 1000 + u64::from(start), length)
            },
            batches: batches.clone(),
        };
        let appends = vec![append(a, 0), append(c, length)];
        let held = self.world.state.wal_extents(gateway.id);
        let mut start = 2 * length;
        let moves: Vec<_> = held
            .iter()
            .take(usize::from(a % 4))
            .map(|(partition, extent)| {
                let length = extent.location.length();
                start += length;
                Move {
                    partition: *partition,
                    base: extent.base,
                    end: extent.end,
                    to: gateway.in_segment(number, start - length, length),
                }
            })
            .collect();
        let mut commit = gateway.commit(appends);
        if commit.segments.is_empty() {
            commit.segments.push(SegmentInfo {
                id: gateway.segment(number),
                bytes: start.into(),
            });
        }
        Commit {
            sealed_below: u64::from(b % 16 / 2),
            moves,
            ..commit
        }
    }

    fn group_command(&self, [kind, a, b, c]: [u8; 4]) -> Option<Command> {
        let claim = self
            .claims
            .get(usize::from(a) % self.claims.len().max(1))
            .cloned()?;
        let member = format!("m{}", c % 2);
        let generation = i32::from(b % 3);
        Some(match kind % 4 {
            0 => Command::SaveGroup {
                claim,
                group: Group {
                    protocol_type: "consumer".to_owned(),
                    generation,
                    protocol: None,
                    leader: None,
                    members: (0..c % 3)
                        .map(|n| (format!("m{n}"), test_member()))
                        .collect(),
                },
            },
            1 => Command::CommitOffsets {
                claim,
                member: (b & 4 == 0).then_some((generation, member)),
                offsets: vec![(
                    some_partition(c),
                    CommittedOffset {
                        offset: Offset(c.into()),
                        leader_epoch: -1,
                        metadata: String::new(),
                        committed_ms: 0,
                    },
                )],
            },
            2 => Command::DeleteOffsets {
                claim,
                partitions: vec![some_partition(c)],
            },
            _ => Command::DeleteGroup { claim },
        })
    }

    /// What a compactor would do now with a partition, or nearly that.
    fn replacement(&self, [_, a, b, c]: [u8; 4]) -> Replacement {
        let state = &self.world.state;
        let claimed: Vec<_> = state
            .partitions()
            .iter()
            .map(|log| log.partition)
            .filter(|at| state.table(at.topic).is_some_and(|table| table.claim > 0))
            .collect();
        let at = pick(&claimed, a).unwrap_or(some_partition(a));
        let table = state.table(at.topic).unwrap_or_default();
        let claim = match b % 16 {
            0 => table.claim.saturating_sub(1),
            1 => table.claim + 1,
            _ => table.claim,
        };
        let number = self.world.index;
        let mut replacement = Replacement {
            topic: at.topic,
            claim,
            lease_ms: u32::from(b / 64) * 100,
            moves: vec![],
            table: (c & 0x10 == 0).then(|| TableMove {
                expected: table.pointer.map(|pointer| pointer.metadata),
                new: TablePointer {
                    metadata: ObjectId::new(claim, number),
                    length: b.into(),
                    crc: c.into(),
                },
            }),
            retired: vec![TableObject::Data(ObjectId::new(
                claim.min(1),
                u64::from(b % 4),
            ))],
        };
        if let Some(TableMove {
            expected: Some(old),
            ..
        }) = replacement.table
        {
            replacement.retired.push(TableObject::Metadata(old));
        }
        let Some(bounds) = state.bounds(&at) else {
            return replacement;
        };
        let old = state.cold(&at);
        let extents = state.oldest_extents(&at, usize::from(c % 4));
        let whole = extents
            .iter()
            .take_while(|extent| !matches!(extent.location, Location::Wal { .. }));
        let readable = old.as_ref().filter(|root| bounds.log_start < root.end);
        let first = state.oldest_extents(&at, 1);
        let base = match readable {
            Some(root) => root.end,
            None => first
                .first()
                .map_or(bounds.high_watermark, |extent| extent.base),
        };
        let end = whole.last().map_or(base, |extent| extent.end);
        let root_base = match readable {
            Some(root) if c & 0x20 == 0 => root.base,
            Some(_) => bounds.log_start,
            None => base,
        };
        let root = (root_base < end).then(|| NodeRef {
            base: root_base,
            end,
            id: ObjectId::new(claim, number),
            level: c % 2,
            length: 1,
            crc: 2,
            records: 1,
            bytes: 3,
            max_timestamp: b.into(),
        });
        let mut moved = ColdMove {
            partition: at.partition,
            expected: old.as_ref().map(|root| root.id),
            base,
            end,
            root,
        };
        match b % 32 {
            2 => moved.end = moved.end + 1,
            3 => moved.base = moved.base + 1,
            4 => moved.expected = None,
            5 => moved.root = None,
            _ => {}
        }
        if let Some(root) = old {
            let object = TableObject::Manifest(at.partition, root.id);
            replacement.retired.push(object);
        }
        replacement.moves.push(moved);
        replacement
    }

    fn table_command(&self, [kind, a, b, c]: [u8; 4]) -> Command {
        let state = &self.world.state;
        let collector = pick(&self.collectors, 0).map_or(0, |first| match b % 8 {
            0 => first,
            _ => self.collectors.iter().copied().max().unwrap_or(0),
        });
        let there: Vec<_> = state.topics().iter().map(|topic| topic.id).collect();
        let topic = pick(&there, a).unwrap_or(topic_id(1));
        match kind % 8 {
            0 | 1 => Command::ClaimTable {
                topic,
                holder: Uuid::from_u128(u128::from(b % 2)),
                lease_ms: u32::from(c) * 10,
            },
            2 => Command::ForgetTableObjects {
                collector,
                topic,
                objects: state
                    .retired_objects(usize::from(c % 8))
                    .into_iter()
                    .map(|(_, object, _)| object)
                    .collect(),
            },
            3 => Command::ForgetTables {
                collector,
                topics: vec![topic_id(1), topic_id(2), topic_id(3)],
            },
            _ => Command::Replace(self.replacement([kind, a, b, c])),
        }
    }

    fn command(&self, seed: [u8; 4]) -> Command {
        let [kind, a, b, c] = seed;
        let level = self.world.state.level();
        if level < crate::command::LEVEL {
            return Command::RaiseLevel { level: level + 1 };
        }
        let id = topic_id(u128::from(1 + a % 3));
        let gateway = pick(&self.gateways, a);
        let fallback = register(None, u128::from(b % 8));
        let kind = if self.world.state.topics().len() < 2 && c % 4 == 0 {
            12
        } else {
            kind
        };
        match kind % 48 {
            0 => register(gateway.map(|known| known.id), u128::from(b % 8)),
            1 => fallback,
            2..=11 => gateway.map_or(fallback, |known| Command::Commit(self.commit(known, seed))),
            12 => {
                let name = ["a.b", "a_b", "c", "d"][usize::from(b % 4)];
                Command::CreateTopic(new_topic(u128::from(1 + a % 3), name, 1 + i32::from(c % 3)))
            }
            13 if b % 2 == 0 => Command::DeleteTopic { id },
            13 | 14 => Command::CreatePartitions {
                id,
                partitions: i32::from(b % 5),
            },
            15 => Command::AlterConfig {
                target: match b % 3 {
                    0 => ConfigTarget::Topic(id),
                    1 => ConfigTarget::Broker(None),
                    _ => ConfigTarget::Broker(Some(BrokerId(a.into()))),
                },
                changes: vec![("k".to_owned(), (c % 2 == 0).then(|| "v".to_owned()))],
            },
            16 => Command::DeleteRecords {
                partition: some_partition(a),
                to: (b % 4 != 0).then_some(Offset(i64::from(c % 16) - 1)),
            },
            17 => Command::AllocateProducerIds { count: b.into() },
            18 | 19 => gateway.map_or(fallback, |known| Command::ClaimGroup {
                group: format!("g{}", b % 3),
                broker: known.id,
                epoch: known.epoch,
            }),
            20..=24 => self.group_command([b, a, c, kind / 48]).unwrap_or(fallback),
            25 => Command::RaiseLogStarts {
                to: vec![
                    (some_partition(a), Offset(b.into())),
                    (some_partition(c), Offset(i64::from(b) / 4)),
                ],
            },
            26 => Command::ClaimCollector,
            27 => Command::ForgetSegments {
                collector: pick(&self.collectors, a).unwrap_or(0),
                ids: (0..32)
                    .filter_map(|number| {
                        gateway.map(|known| SegmentId::new(known.epoch, number % 16))
                    })
                    .collect(),
            },
            28 => Command::Expire {
                producers_before_ms: self.world.now_ms - i64::from(b) * 100,
                offsets_before_ms: self.world.now_ms - i64::from(c) * 100,
            },
            29 if b % 2 == 0 => gateway.map_or(fallback, |known| Command::Lapse {
                broker: known.id,
                epoch: known.epoch,
            }),
            29 if b % 4 == 1 => gateway.map_or(fallback, |known| Command::ForgetGateway {
                broker: known.id,
                epoch: known.epoch,
                accept_loss: c % 2 == 0,
            }),
            29 => gateway.map_or(fallback, |known| Command::Heartbeat {
                broker: known.id,
                epoch: known.epoch,
                lease_ms: u32::from(b) * 100,
            }),
            30 => gateway.map_or(fallback, |known| {
                let Gateway { id: broker, epoch } = known;
                match b % 8 {
                    3 | 5 => Command::ForgetGateway {
                        broker,
                        epoch,
                        accept_loss: c % 2 == 0,
                    },
                    6 => Command::GiveUpWal {
                        broker,
                        epoch,
                        lost: vec![(some_partition(a), Offset(0), Offset(c.into()))],
                    },
                    0 | 4 => Command::Leave { broker, epoch },
                    1 => Command::SealEpoch { epoch },
                    2 => Command::ReserveBrokerIds {
                        below: i32::from(b % 128),
                    },
                    _ => Command::Drain { broker, epoch },
                }
            }),
            31 => Command::NoteVoters {
                ids: vec![u64::from(b % 4)],
            },
            32..47 => self.table_command([c / 3, a, b, kind ^ c]),
            _ => Command::InitCluster {
                level: None,
                cluster_id: format!("cluster-{}", b % 2),
            },
        }
    }

    fn envelope(&mut self, (seed, client, lag): Seed) -> Envelope {
        self.world.now_ms += i64::from(lag) * 10;
        let client = u128::from(1 + client % CLIENTS);
        let request = self.requests.entry(client).or_insert(0);
        *request += 1;
        let envelope = Envelope {
            client: Uuid::from_u128(client),
            request: *request,
            done_below: request.saturating_sub(u64::from(lag % 8)),
            time_ms: self.world.now_ms,
            command: Command::ClaimCollector,
        };
        Envelope {
            command: self.command(seed),
            ..envelope
        }
    }

    /// Applies it, and learns from its outcome what later commands can refer to.
    fn send(&mut self, envelope: &Envelope) -> Outcome {
        let outcome = self.world.send(envelope).0;
        match (&outcome, &envelope.command) {
            (&Outcome::Registered { id, epoch }, _) => {
                self.gateways.push(Gateway { id, epoch });
            }
            (&Outcome::GroupClaimed { coordinator, .. }, Command::ClaimGroup { group, .. }) => {
                self.claims.push(GroupClaim {
                    group: group.clone(),
                    coordinator,
                });
            }
            (&Outcome::CollectorClaimed(epoch), _) => self.collectors.push(epoch),
            _ => {}
        }
        outcome
    }

    /// The log that the seeds amount to, with what came of each entry.
    fn log(mut self, seeds: &[Seed]) -> (World, Vec<(Envelope, Outcome)>) {
        let entries = seeds
            .iter()
            .map(|seed| {
                let envelope = self.envelope(*seed);
                let outcome = self.send(&envelope);
                (envelope, outcome)
            })
            .collect();
        (self.world, entries)
    }
}

fn test_member() -> Member {
    Member {
        instance_id: Some("static".to_owned()),
        client_id: "client".to_owned(),
        client_host: "/10.0.0.9".to_owned(),
        session_timeout_ms: 1,
        rebalance_timeout_ms: 2,
        protocols: vec![],
        assignment: vec![].into(),
    }
}

/// The state without what a session leaves behind.
fn without_sessions(state: &State) -> State {
    State {
        applied: 0,
        sessions: crate::state::Sessions::default(),
        ..state.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_survives_a_snapshot(seeds in seeds(60)) {
        let mut author = Author::new();
        for seed in seeds {
            let envelope = author.envelope(seed);
            author.send(&envelope);
            let state = &author.world.state;
            let restored = State::restore(&state.snapshot()).expect("restores");
            prop_assert_eq!(&restored, state);
        }
    }

    #[test]
    fn envelopes_and_outcomes_survive_their_bytes(seeds in seeds(60)) {
        let (_, entries) = Author::new().log(&seeds);
        for (envelope, outcome) in entries {
            prop_assert_eq!(&Envelope::decode(&envelope.encode()).expect("decodes"), &envelope);
            prop_assert_eq!(&Outcome::decode(&outcome.encode()).expect("decodes"), &outcome);
        }
    }

    /// Every copy of a command, wherever it comes after the first, gets the first outcome or is
    /// stale, and the state ends as if it had not been there.
    #[test]
    fn copies_change_nothing(
        seeds in seeds(50),
        copies in prop::collection::vec((any::<prop::sample::Index>(), 1..30_usize), 0..40),
    ) {
        let (world, entries) = Author::new().log(&seeds);
        let mut plain = State::new();
        let mut with_copies = State::new();
        // Commands name epochs, which are indexes: a copy takes the index of the entry before it,
        // so that the originals keep theirs.
        for (at, (envelope, outcome)) in entries.iter().enumerate() {
            let index = at as u64 + 1;
            prop_assert_eq!(&plain.apply(index, envelope).0, outcome);
            prop_assert_eq!(&with_copies.apply(index, envelope).0, outcome);
            for (original, distance) in &copies {
                let original = original.index(entries.len());
                if original + distance == at {
                    let (envelope, first) = &entries[original];
                    let (copy, changes) = with_copies.apply(index, envelope);
                    prop_assert!(copy == *first || copy == Outcome::Stale, "{copy:?}");
                    prop_assert_eq!(changes, Changes::default());
                }
            }
            with_copies.check().expect("consistent");
        }
        prop_assert_eq!(&plain, &world.state);
        prop_assert_eq!(without_sessions(&with_copies), without_sessions(&plain));
    }

    /// In any order, with any copies, the invariants hold and a request has one outcome.
    #[test]
    fn any_order_keeps_the_invariants(
        seeds in seeds(40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let (_, entries) = Author::new().log(&seeds);
        let mut world = World::new();
        let mut outcomes = BTreeMap::new();
        for at in order {
            let (envelope, _) = at.get(&entries);
            let outcome = world.send(envelope).0;
            if outcome != Outcome::Stale {
                let key = (envelope.client, envelope.request);
                let first = outcomes.entry(key).or_insert_with(|| outcome.clone());
                prop_assert_eq!(&*first, &outcome);
            }
        }
    }
}

/// The author's commands are not all refused: each kind of success occurs.
#[test]
fn random_commands_reach_every_outcome() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        let seeds = seeds(60).new_tree(&mut runner).expect("a value").current();
        for (envelope, outcome) in Author::new().log(&seeds).1 {
            let words = format!("{:?}", envelope.command);
            let command = words.split([' ', '(']).next().expect("a word").to_owned();
            let good = match &outcome {
                Outcome::TopicCreated(result) => result.is_ok(),
                Outcome::Catalog(result) => result.is_ok(),
                Outcome::RecordsDeleted(result) => result.is_ok(),
                Outcome::Group(result) => result.is_ok(),
                Outcome::Gateway(result) => result.is_ok(),
                Outcome::TableClaimed(result) => result.is_ok(),
                Outcome::Replaced(result) => result.is_ok(),
                Outcome::Forgotten(done) => *done,
                Outcome::Stale | Outcome::Fenced | Outcome::Invalid(_) => false,
                Outcome::Done
                | Outcome::Cluster { .. }
                | Outcome::Registered { .. }
                | Outcome::Committed(_)
                | Outcome::ProducerIds { .. }
                | Outcome::GroupClaimed { .. }
                | Outcome::CollectorClaimed(_) => true,
            };
            *seen.entry(command).or_default() += u32::from(good);
        }
    }
    assert_eq!(seen.len(), 32, "{seen:?}");
    assert!(seen.values().all(|count| *count > 3), "{seen:?}");
}
