//! Random histories: producers, a bad store that is away at times, a quorum that loses answers, a disk
//! that is full at times and loses power.
//!
//! What an oracle knows of each batch is compared with what consumers read at the end:
//!
//! - an acknowledged batch is at its offset, once;
//! - a batch that did not happen is nowhere, one whose outcome is unknown is there at most once;
//! - the batches of a partition are in the order in which they were appended;
//! - the log is empty in the end, and so is its directory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use frazil_core::env::Ids;
use frazil_core::env::testing::{ENOSPC, Fault, Operation, SeededIds, seeds};
use frazil_core::ports::LogIndex;
use frazil_core::{BrokerId, Offset, TopicPartition};

use crate::config::PutBudget;
use crate::testing::store::Weather;
use crate::testing::world::{BROKER, address};
use crate::testing::{Mishap, Running, World, batch_of, partition};
use crate::{AppendError, Durability, Pending};

const PARTITIONS: u64 = 3;
const OTHER: BrokerId = BrokerId(9);
/// Where the number of a batch stands in it.
const NUMBER: usize = 61;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Acknowledged(Offset),
    Never,
    Unknown,
}

struct Sent {
    partition: TopicPartition,
    fate: Fate,
}

struct Producer {
    random: SeededIds,
    sent: Vec<Sent>,
}

impl Producer {
    fn below(&self, bound: u64) -> u64 {
        self.random.random() % bound
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A batch that carries its number, with a valid checksum.
    fn batch(&self, number: u64) -> (frazil_core::ports::BatchInfo, Bytes) {
        let size = match self.below(20) {
            // Large enough for several files of the log.
            0..4 => 12_000,
            4..7 => 2_000,
            _ => 40,
        };
        let (info, bytes) = batch_of(1 + self.below(3) as u32, size, 0);
        let mut bytes = bytes.to_vec();
        bytes[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
        let time = info.max_timestamp;
        let bytes = frazil_core::batch::header::with_log_append_time(&bytes, time);
        (info, bytes)
    }

    async fn send(&mut self, node: &Running) -> Option<(usize, Pending)> {
        let number = self.sent.len();
        let index = self.below(PARTITIONS) as i32;
        let durability = match self.below(5) {
            0 | 1 => Durability::Object,
            _ => Durability::Local,
        };
        let batch = self.batch(number as u64);
        let append = node.append_bytes(index, durability, batch);
        let limit = Duration::from_millis(300);
        // Nothing was sent while there is no room.
        let pending = tokio::time::timeout(limit, append).await.ok()?;
        self.sent.push(Sent {
            partition: partition(index),
            fate: Fate::Unknown,
        });
        Some((number, pending))
    }

    fn answer(&mut self, number: usize, answer: &Result<crate::Appended, AppendError>) {
        self.sent[number].fate = match answer {
            Ok(appended) => Fate::Acknowledged(appended.base_offset),
            Err(AppendError::Indeterminate(_)) => Fate::Unknown,
            Err(_) => Fate::Never,
        };
    }
}

/// What comes and goes.
struct Windows {
    /// The store on its ordinary days.
    weather: Weather,
    outage: bool,
    full: bool,
}

impl Windows {
    fn change(&mut self, world: &World, producer: &Producer) {
        if producer.chance(if self.outage { 15 } else { 2 }) {
            self.outage = !self.outage;
            world.store.set(Weather {
                throttled: if self.outage {
                    100
                } else {
                    self.weather.throttled
                },
                ..self.weather
            });
        }
        if producer.chance(if self.full { 10 } else { 2 }) {
            self.full = !self.full;
            if self.full {
                for operation in [Operation::Create, Operation::Resize, Operation::Write] {
                    world.disk.fail(Fault::forever(operation, 0, ENOSPC));
                }
            } else {
                world.disk.heal();
            }
        }
    }

    fn close(&mut self, world: &World) {
        (self.outage, self.full) = (false, false);
        world.store.set(self.weather);
        world.disk.heal();
    }
}

async fn life(
    world: &World,
    producer: &mut Producer,
    windows: &mut Windows,
    last: bool,
    other: bool,
) {
    // Another gateway reads what the first one has, from its log or from the store.
    let (node, reader) = match other {
        false => (world.start().await, None),
        true => (
            world.start_gateway(BROKER, None).await,
            Some(world.start_gateway(OTHER, None).await),
        ),
    };
    let mut pending = Vec::new();
    for _ in 0..40 + producer.below(80) {
        windows.change(world, producer);
        if producer.chance(10) {
            let mishap = match producer.below(4) {
                0 => Mishap::Unavailable,
                1 => Mishap::Lost,
                2 => Mishap::Late,
                _ => Mishap::Unanswered,
            };
            world.quorum.happen([mishap]);
        }
        if let Some(sent) = producer.send(&node).await {
            pending.push(sent);
        }
        if producer.chance(40) {
            let pause = Duration::from_micros(producer.below(20_000));
            tokio::time::sleep(pause).await;
        }
        if producer.chance(5) {
            // A consumer in between. It may fail, but never sees what is not there.
            let at = partition(producer.below(PARTITIONS) as i32);
            let reader = reader.as_ref().unwrap_or(&node);
            drop(reader.read_some(&world.quorum, at, 5_000).await);
        }
        if producer.chance(20) && !pending.is_empty() {
            let some = producer.below(pending.len() as u64) as usize;
            let (number, pending) = pending.swap_remove(some);
            let answer = pending.await;
            producer.answer(number, &answer);
        }
    }
    if last {
        windows.close(world);
        for (number, pending) in pending {
            let answer = pending.await;
            producer.answer(number, &answer);
        }
        world.store.set(Weather::default());
        node.cache.drain().await;
        assert!(world.quorum.wal_extents(BROKER).is_empty());
        check(world, producer, reader.as_ref().unwrap_or(&node)).await;
        node.stop().await.expect("it ends well");
        assert_eq!(world.wal_files(), Vec::<String>::new());
    } else {
        // What has been answered counts, even if nobody has looked yet.
        for (number, pending) in pending {
            if let Ok(answer) = tokio::time::timeout(Duration::ZERO, pending).await {
                producer.answer(number, &answer);
            }
        }
        node.kill().await;
        world.net.remove(&address(BROKER));
        world.disk.crash(producer.random.random());
        // The power came back, and with it what the faults were.
        windows.full = false;
    }
}

async fn check(world: &World, producer: &Producer, node: &Running) {
    let mut found: BTreeMap<u64, Offset> = BTreeMap::new();
    for index in 0..PARTITIONS as i32 {
        let at = partition(index);
        let max_bytes = 1 + producer.below(30_000) as usize;
        let mut before = None;
        for (offset, bytes) in node.read_all(&world.quorum, at, max_bytes).await {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[NUMBER..NUMBER + 8]);
            let number = u64::from_be_bytes(number);
            assert_eq!(producer.sent[number as usize].partition, at);
            assert!(before < Some(number), "{number} after {before:?} in {at}");
            before = Some(number);
            found.insert(number, offset);
        }
    }
    for (number, sent) in (0..).zip(&producer.sent) {
        let there = found.get(&number).copied();
        match sent.fate {
            Fate::Acknowledged(offset) => assert_eq!(there, Some(offset), "batch {number}"),
            Fate::Never => assert_eq!(there, None, "batch {number}"),
            Fate::Unknown => {}
        }
    }
}

/// Answers how many batches were acknowledged.
fn simulate(seed: u64) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut producer = Producer {
            random: SeededIds::new(seed),
            sent: Vec::new(),
        };
        let mut world = World::new(seed);
        world.config.segment_bytes = 20_000;
        world.config.buffer_bytes = 60_000;
        world.config.tail_bytes = if producer.chance(50) { 0 } else { 50_000 };
        world.config.block_memory_bytes = 4 << 20;
        if producer.chance(50) {
            world.config.put_budget = Some(PutBudget {
                per_second: 20.0,
                burst: 2,
            });
        }
        let weather = Weather {
            throttled: producer.below(30),
            unanswered: producer.below(20),
            late: producer.below(10),
            contradicted: producer.below(15),
            contended: producer.below(10),
            truncated: producer.below(20),
            flipped: producer.below(10),
            missed: producer.below(10),
            stuck: 0,
            latency: Duration::from_millis(producer.below(60)),
        };
        world.store.set(weather);
        // As if the store were on the log's disk.
        let least = 100 + producer.below(15_000) as usize;
        world.config.past_log_bytes = producer.chance(40).then_some(least);
        let mut windows = Windows {
            weather,
            outage: false,
            full: false,
        };
        let other = producer.chance(50);
        let lives = 1 + producer.below(4);
        for n in 1..=lives {
            life(&world, &mut producer, &mut windows, n == lives, other).await;
        }
        let acknowledged = |sent: &&Sent| matches!(sent.fate, Fate::Acknowledged(_));
        producer.sent.iter().filter(acknowledged).count()
    })
}

#[test]
fn histories() {
    let (done, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    seeds("frazil-cache", "simulation::histories", 500, |seed| {
        acknowledged.fetch_add(simulate(seed), Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
    });
    // Or nothing would have been tried.
    assert!(acknowledged.into_inner() > 20 * done.into_inner());
}
