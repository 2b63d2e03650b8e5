//! Gateways of a zone that share what they fetch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::Codec;
use frazil_core::ports::{Gateway, Gateways};
use frazil_core::{BrokerId, Offset};
use tokio::time::Instant;

use crate::peer::wire::{Reply, Request};
use crate::read::plan::{BLOCK_BYTES, STRIPE_BLOCKS};
use crate::testing::net::Script;
use crate::testing::store::Weather;
use crate::testing::world::{BROKER, address};
use crate::testing::{Host, Running, World, batch_of, partition};
use crate::{Compression, Durability, ReadRequest};

const STRIPE: u64 = BLOCK_BYTES * STRIPE_BLOCKS as u64;
const MIB: usize = 1 << 20;

/// A world with some megabytes of records in partition 0, in segments of about 8 MiB, which no
/// gateway has in memory. `local_store`: whether GETs are never hedged.
async fn world_with(megabytes: usize, local_store: bool) -> World {
    let mut world = World::new(1);
    world.config.tail_bytes = 0;
    world.config.gather = Duration::from_millis(50);
    world.config.buffer_bytes = 256 * MIB;
    world.config.local_store = local_store;
    let node = world.start().await;
    let mut pending = Vec::new();
    for n in 0..megabytes * 4 {
        let batch = batch_of(1, MIB / 4 - 61, n as u8);
        pending.push(node.append_bytes(0, Durability::Object, batch).await);
    }
    for pending in pending {
        pending.await.unwrap();
    }
    node.stop().await.unwrap();
    assert_eq!(world.store.gets(), 0);
    world
}

/// How many stripes the store has.
fn stripes(world: &World) -> u64 {
    let commits = world.quorum.commits();
    let segments = commits.iter().flat_map(|commit| &commit.segments);
    segments.map(|info| info.bytes.div_ceil(STRIPE)).sum()
}

async fn read_all(world: &World, node: &Running) {
    let batches = node.read_all(&world.quorum, partition(0), 3 * MIB).await;
    let end = world.quorum.end(partition(0));
    assert_eq!(Offset(batches.len() as i64), end);
    for (n, (_, bytes)) in batches.iter().enumerate() {
        assert!(bytes[61..].iter().all(|byte| *byte == n as u8));
    }
}

fn script(answer: impl Fn(u64, Request) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Arc::new(answer)
}

fn frame(id: u64, reply: Reply) -> Vec<u8> {
    let (head, body) = reply.frame(id);
    [head, body].concat()
}

#[tokio::test(start_paused = true)]
async fn a_zone_fetches_each_stripe_once_however_many_read_it() {
    let world = world_with(40, false).await;
    let mut nodes = Vec::new();
    for id in [1, 2, 3] {
        nodes.push(world.start_gateway(BrokerId(id), Some("a")).await);
    }
    world.store.set(Weather {
        latency: Duration::from_millis(50),
        ..Weather::default()
    });
    // Four consumers, two of them through one gateway.
    let readers = [0, 1, 2, 0].map(|n| read_all(&world, &nodes[n]));
    futures_util::future::join_all(readers).await;
    assert_eq!(world.store.gets(), stripes(&world));
    // Those that come later find it in memory.
    read_all(&world, &nodes[1]).await;
    assert_eq!(world.store.gets(), stripes(&world));
    // The work is shared.
    for node in &nodes {
        let stats = node.cache.stats();
        assert!(stats.gets > 0 && stats.peer_blocks > 0 && stats.peer_served > 0);
        assert_eq!((stats.peer_failures, stats.peer_hedges), (0, 0));
    }
    // Another zone fetches for itself.
    let far = world.start_gateway(BrokerId(4), Some("b")).await;
    read_all(&world, &far).await;
    assert_eq!(world.store.gets(), 2 * stripes(&world));
    assert_eq!(far.cache.stats().peer_blocks, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_has_just_written_costs_no_get() {
    let mut world = World::new(1);
    world.config.gather = Duration::from_millis(50);
    let writer = world.start_gateway(BrokerId(1), None).await;
    let reader = world.start_gateway(BrokerId(2), None).await;
    for n in 0..8 {
        let batch = batch_of(1, 1000, n);
        let append = writer.append_bytes(0, Durability::Object, batch).await;
        append.await.unwrap();
    }
    reader.read_all(&world.quorum, partition(0), 100_000).await;
    let stats = reader.cache.stats();
    assert!(stats.peer_blocks > 0, "{stats:?}");
    // Only what the reader owns itself is fetched.
    assert_eq!(world.store.gets() + stats.peer_blocks, 8);
    assert_eq!(world.store.gets(), stats.gets);
}

#[tokio::test(start_paused = true)]
async fn whatever_an_owner_does_the_records_are_read() {
    let flip = |bytes: Vec<u8>| {
        let mut bytes = bytes;
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    let block = vec![7; BLOCK_BYTES as usize];
    let hosts: [(&str, Option<Host>); 9] = [
        ("refuses", None),
        ("is silent", Some(Host::Mute)),
        (
            "is at work for ever",
            scripted(|id, _| frame(id, Reply::Working)),
        ),
        (
            "does not have it",
            scripted(|id, _| frame(id, Reply::NotHere)),
        ),
        (
            "fails",
            scripted(|id, _| frame(id, Reply::Failed("as the test wants it".into()))),
        ),
        (
            "sends other bytes",
            scripted(move |id, _| frame(id, Reply::Bytes(flip(block.clone()).into()))),
        ),
        (
            "sends nothing",
            scripted(|id, _| frame(id, Reply::Bytes(Bytes::new()))),
        ),
        (
            "claims much",
            scripted(|_, _| u32::MAX.to_be_bytes().to_vec()),
        ),
        (
            "dies in mid answer",
            scripted(|id, _| {
                let mut frame = frame(id, Reply::Bytes(Bytes::from(vec![0; 1000])));
                frame.truncate(500);
                frame.extend([0xFF; 2000]);
                frame
            }),
        ),
    ];
    for (what, host) in hosts {
        let world = world_with(8, true).await;
        let reader = world.start_gateway(BrokerId(2), None).await;
        world.quorum.announce(Gateway {
            id: BrokerId(1),
            epoch: frazil_core::BrokerEpoch(1000),
            zone: None,
            address: address(BrokerId(1)),
            live: true,
        });
        if let Some(host) = host {
            world.net.set(&address(BrokerId(1)), host);
        }
        let before = Instant::now();
        read_all(&world, &reader).await;
        let stats = reader.cache.stats();
        assert!(world.net.dials() > 0, "{what}: it was asked");
        assert!(before.elapsed() < Duration::from_secs(60), "{what}");
        if ["refuses", "is silent"].contains(&what) {
            // It is asked once, not for every block.
            assert!(stats.peer_failures > 0, "{what}");
            assert_eq!(world.net.dials(), 1, "{what}");
            assert!(
                before.elapsed() <= Duration::from_millis(600),
                "{what}: once"
            );
        }
    }
}

fn scripted(answer: impl Fn(u64, Request) -> Vec<u8> + Send + Sync + 'static) -> Option<Host> {
    Some(Host::Scripted(BrokerId(1), script(answer)))
}

#[tokio::test(start_paused = true)]
async fn ownership_follows_those_that_are_live() {
    let mut world = world_with(40, false).await;
    world.config.block_memory_bytes = 256 * MIB;
    let first = world.start_gateway(BrokerId(1), None).await;
    let second = world.start_gateway(BrokerId(2), None).await;
    let draining = |live| {
        let mut gateway = world.quorum.gateways().remove(0);
        gateway.live = live;
        world.quorum.announce(gateway);
    };
    draining(false);
    read_all(&world, &first).await;
    // The one that drains asks, and is not asked.
    assert_eq!(first.cache.stats().gets, 0);
    assert_eq!(second.cache.stats().gets, stripes(&world));
    // Back again, it owns what it owned: of that, nothing is in the other's way.
    draining(true);
    read_all(&world, &second).await;
    let owned = first.cache.stats().gets;
    assert_eq!(owned, 0, "the other had it all");
    assert_eq!(world.store.gets(), stripes(&world));
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_stuck_is_sent_again_within_a_budget() {
    // The clock is the test's: this is what waiting adds up to.
    let read_with = async |local_store| {
        let world = world_with(160, local_store).await;
        let node = world.start().await;
        world.store.set(Weather {
            latency: Duration::from_millis(50),
            stuck: 15,
            ..Weather::default()
        });
        let before = Instant::now();
        read_all(&world, &node).await;
        let took = before.elapsed();
        (took, node.cache.stats(), world)
    };
    let (alone, stats, _) = read_with(true).await;
    assert_eq!(
        stats.gets_hedged, 0,
        "a store in this machine is asked once"
    );
    let (took, stats, world) = read_with(false).await;
    println!("{took:?} with second requests, {alone:?} without");
    assert!(2 * took < alone, "{took:?} {alone:?}");
    // Every one that is stuck, as long as the budget lasts.
    assert!(stats.gets_hedged >= 2, "{stats:?}");
    assert!(stats.gets_hedged <= 1 + stats.gets / 20, "{stats:?}");
    // Where everything is slow, it is not asked twice as much.
    world.store.set(Weather {
        latency: Duration::from_secs(4),
        ..Weather::default()
    });
    let node = world.start().await;
    read_all(&world, &node).await;
    let after = node.cache.stats();
    assert!(after.gets_hedged > 0, "{after:?}");
    assert!(after.gets_hedged <= 1 + after.gets / 20, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_far_behind_evicts_nothing_that_others_read_near_the_end() {
    // What is near the end of a store in this machine is nearer.
    for (local_store, batches) in [(false, 24), (true, 12)] {
        evicts_nothing(local_store, batches).await;
    }
}

async fn evicts_nothing(local_store: bool, batches: i64) {
    let world = world_with(120, local_store).await;
    let node = world.start_gateway(BROKER, None).await;
    let end = world.quorum.end(partition(0)).0;
    let near = || async {
        let mut from = end - batches;
        while from < end {
            let request = ReadRequest {
                partition: partition(0),
                from: Offset(from),
                up_to: Offset(end),
                max_bytes: MIB,
                min_one: true,
                compression: Compression::As(Codec::Lz4),
            };
            from = node.cache.read(request).await.unwrap().next.0;
        }
        node.cache.stats().gets
    };
    let gets = near().await;
    assert_eq!(near().await, gets, "it is kept");
    read_all(&world, &node).await;
    let scanned = node.cache.stats().gets;
    assert!(scanned > gets + 20);
    assert_eq!(near().await, scanned, "it is still there");
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_far_behind_reads_next_is_on_its_way() {
    let world = world_with(64, true).await;
    let node = world.start().await;
    world.store.set(Weather {
        latency: Duration::from_millis(100),
        ..Weather::default()
    });
    let end = world.quorum.end(partition(0));
    let (mut from, mut steps) = (Offset(0), 0);
    let mut misses = Vec::new();
    while from.0 < 4 * 32 {
        let before = node.cache.stats().block_misses;
        let request = ReadRequest {
            partition: partition(0),
            from,
            up_to: end,
            max_bytes: MIB,
            min_one: true,
            compression: Compression::As(Codec::Lz4),
        };
        from = node.cache.read(request).await.unwrap().next;
        misses.push(node.cache.stats().block_misses - before);
        // The consumer takes its time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        steps += 1;
    }
    assert!(steps > 20);
    let waited = misses[1..].iter().filter(|misses| **misses > 0).count();
    assert_eq!(waited, 0, "{misses:?}");
    // Not more than the window is fetched ahead.
    let stats = node.cache.stats();
    assert!(
        stats.get_bytes <= (32 + 2 + 2 * 5) * MIB as u64,
        "{stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn readers_far_behind_do_not_take_the_places_of_those_near_the_end() {
    let mut world = world_with(64, true).await;
    world.config.cold_reads_max = 2;
    let node = world.start().await;
    let end = world.quorum.end(partition(0)).0;
    let read = |from: i64| {
        let cache = node.cache.clone();
        async move {
            let request = ReadRequest {
                partition: partition(0),
                from: Offset(from),
                up_to: Offset(end),
                max_bytes: 1,
                min_one: true,
                compression: Compression::As(Codec::Lz4),
            };
            cache.read(request).await.map(|read| read.next.0)
        }
    };
    // No GET is answered, and more are wanted than there are places.
    world.store.set(Weather {
        stuck: 1,
        ..Weather::default()
    });
    let far: Vec<_> = (0..6).map(|n| tokio::spawn(read(n * 32))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.gets(), 1, "one of two places");
    world.store.set(Weather::default());
    let before = Instant::now();
    assert_eq!(read(end - 1).await, Ok(end));
    assert_eq!(before.elapsed(), Duration::ZERO);
    for (n, far) in (0..).zip(far) {
        assert_eq!(far.await.unwrap(), Ok(n * 32 + 1));
    }
}
