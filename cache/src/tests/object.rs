//! `Durability::Object`: appends, back-pressure, ambiguous uploads and commits.

use std::time::Duration;

use frazil_core::batch::Codec;
use frazil_core::ports::{BatchRefusal, ProducerBatch};
use frazil_core::{Location, Offset, ProducerEpoch, ProducerId, SegmentId};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::Instant;

use crate::config::PutBudget;
use crate::flush::upload::object_path;
use crate::testing::store::Weather;
use crate::testing::world::BROKER;
use crate::testing::{Mishap, World, batch, partition};
use crate::{AppendError, Appended, Compression, Config, Durability, Error, ReadRequest};

const OBJECT: Durability = Durability::Object;

#[tokio::test(start_paused = true)]
async fn appends_get_offsets_in_the_order_of_the_calls_and_are_read_back() {
    let world = World::new(1);
    let node = world.start().await;
    let mut pending = Vec::new();
    for n in 0..30 {
        pending.push(
            node.append_bytes(n % 3, OBJECT, batch(1 + n as u32 % 2, 50))
                .await,
        );
    }
    let mut next = [Offset::ZERO; 3];
    for (n, pending) in (0..).zip(pending) {
        let appended = pending.await.unwrap();
        let next = &mut next[n as usize % 3];
        let expected = Appended {
            base_offset: *next,
            log_start: Offset::ZERO,
            duplicate: false,
        };
        assert_eq!(appended, expected);
        *next = *next + 1 + n % 2;
    }
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 1).await.len(),
        10
    );
    let batches = node.read_all(&world.quorum, partition(1), 1 << 20).await;
    assert_eq!(batches.len(), 10);
    assert_eq!(node.cache.stats().gets, 0, "the tail has it all");
    assert!(node.cache.stats().tail_hits > 0);
    node.stop().await.unwrap();
    assert_eq!(world.wal_files(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn one_object_and_one_commit_carry_all_partitions_of_a_flush() {
    let mut world = World::new(1);
    world.config.put_budget = Some(PutBudget {
        per_second: 4.0,
        burst: 1,
    });
    let node = world.start().await;
    let mut pending = Vec::new();
    for n in 0..40 {
        pending.push(node.append(n % 4, OBJECT).await);
    }
    for pending in pending {
        pending.await.unwrap();
    }
    assert_eq!(node.cache.stats().puts, 1);
    assert_eq!(node.cache.stats().commits, 1);
    let extents = world.quorum.extents(partition(3));
    assert_eq!(extents.len(), 1, "a partition's batches lie back to back");
}

#[tokio::test(start_paused = true)]
async fn puts_stay_within_their_budget_and_a_lone_producer_sees_no_timer() {
    let mut world = World::new(1);
    world.config = Config::remote();
    let budget = world.config.put_budget.unwrap();
    let node = world.start().await;
    let began = Instant::now();
    node.append(0, OBJECT).await.await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(20),
        "{:?}",
        began.elapsed()
    );
    for _ in 0..200 {
        node.append(0, OBJECT).await.await.unwrap();
    }
    let puts = node.cache.stats().puts as f64;
    let seconds = began.elapsed().as_secs_f64();
    assert!(
        puts <= f64::from(budget.burst) + budget.per_second * seconds + 1.0,
        "{puts} PUTs in {seconds} s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_segment_does_not_wait_for_the_budget() {
    let mut world = World::new(1);
    world.config.segment_bytes = 10_000;
    world.config.put_budget = Some(PutBudget {
        per_second: 0.001,
        burst: 1,
    });
    let node = world.start().await;
    let mut pending = Vec::new();
    for _ in 0..100 {
        pending.push(node.append_bytes(0, OBJECT, batch(1, 1_000)).await);
    }
    let began = Instant::now();
    for pending in pending.drain(..90) {
        pending.await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    for commit in world.quorum.commits() {
        for info in commit.segments {
            assert!(info.bytes < 21_000, "{info:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_put_is_recognised_as_its_own() {
    let world = World::new(1);
    world.store.set(Weather {
        unanswered: 100,
        ..Weather::default()
    });
    let node = world.start().await;
    let pending = node.append(0, OBJECT).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.store.set(Weather::default());
    pending.await.unwrap();
    let committed: usize = world
        .quorum
        .commits()
        .iter()
        .map(|c| c.segments.len())
        .sum();
    assert_eq!(committed, 1);
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 10).await.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_left_alone() {
    let world = World::new(1);
    let epoch = world.quorum.register(BROKER);
    let taken = SegmentId::new(frazil_core::BrokerEpoch(epoch.0 + 1), 0);
    let path = object_path(&world.prefix, taken);
    let foreign = PutPayload::from_static(b"not ours");
    world.store.objects.put(&path, foreign).await.unwrap();
    let node = world.start().await;
    node.append(0, OBJECT).await.await.unwrap();
    let there = world.store.objects.get(&path).await.unwrap().bytes().await;
    assert_eq!(there.unwrap(), "not ours");
    let Location::Segment { id, .. } = world.quorum.extents(partition(0))[0].location else {
        panic!("it is in a segment");
    };
    assert_ne!(id, taken);
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 10).await.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_of_the_store_holds_producers_back_and_loses_nothing() {
    let mut world = World::new(1);
    world.config.buffer_bytes = 20_000;
    let down = Weather {
        throttled: 100,
        ..Weather::default()
    };
    world.store.set(down);
    let node = world.start().await;
    let mut pending = Vec::new();
    while pending.len() < 1_000 {
        let append = node.append_bytes(0, OBJECT, batch(1, 1_000));
        match tokio::time::timeout(Duration::from_secs(1), append).await {
            Ok(append) => pending.push(append),
            Err(_) => break,
        }
    }
    assert!((10..20).contains(&pending.len()), "{}", pending.len());
    let first = pending.remove(0).await;
    assert!(
        matches!(first, Err(AppendError::Indeterminate(_))),
        "{first:?}"
    );
    world.store.set(Weather::default());
    node.cache.drain().await;
    let count = pending.len() + 1;
    let batches = node.read_all(&world.quorum, partition(0), 10_000).await;
    assert_eq!(batches.len(), count, "what timed out has happened later");
    node.cache.reserve(19_000).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusals_and_repetitions_reach_their_batches() {
    let world = World::new(1);
    let node = world.start().await;
    let with = |sequence| {
        let (mut info, bytes) = batch(2, 30);
        info.producer = Some(ProducerBatch {
            id: ProducerId(7),
            epoch: ProducerEpoch(0),
            base_sequence: sequence,
        });
        (info, bytes)
    };
    let unknown = node.append(9, OBJECT).await;
    let first = node.append_bytes(0, OBJECT, with(0)).await;
    let again = node.append_bytes(0, OBJECT, with(0)).await;
    let gap = node.append_bytes(0, OBJECT, with(40)).await;
    let second = node.append_bytes(0, OBJECT, with(2)).await;
    let refused = |refusal| Err(AppendError::Refused(refusal));
    assert_eq!(unknown.await, refused(BatchRefusal::UnknownPartition));
    assert_eq!(first.await.unwrap().base_offset, Offset(0));
    let again = again.await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (Offset(0), true));
    assert_eq!(gap.await, refused(BatchRefusal::OutOfOrderSequence));
    assert_eq!(second.await.unwrap().base_offset, Offset(2));
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 10).await.len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_is_answered_so_and_fenced_off() {
    for mishap in [Mishap::Lost, Mishap::Unanswered, Mishap::Late] {
        let world = World::new(1);
        let node = world.start().await;
        let noise = [
            Mishap::Unavailable,
            mishap,
            Mishap::Unavailable,
            Mishap::Lost,
        ];
        world.quorum.happen(noise);
        let first = node.append(0, OBJECT).await.await;
        assert!(
            matches!(first, Err(AppendError::Indeterminate(_))),
            "{first:?}"
        );
        assert!(world.quorum.is_sealed(0), "it can no longer be committed");
        let happened = i64::from(mishap != Mishap::Lost);
        let second = node.append(0, OBJECT).await.await.unwrap();
        assert_eq!(second.base_offset, Offset(happened));
        let batches = node.read_all(&world.quorum, partition(0), 10).await;
        assert_eq!(batches.len() as i64, happened + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_never_taken_fails_its_batches_and_nothing_else() {
    let world = World::new(1);
    let node = world.start().await;
    world.quorum.happen([Mishap::Impossible]);
    let first = node.append(0, OBJECT).await.await;
    assert!(first.is_err(), "{first:?}");
    assert!(world.quorum.is_sealed(0), "it cannot be committed later");
    let second = node.append(0, OBJECT).await.await.unwrap();
    assert_eq!(second.base_offset, Offset(0));

    // Each time, the fence behind it is taken.
    world
        .quorum
        .happen([Mishap::Impossible, Mishap::None].repeat(5));
    for _ in 0..5 {
        assert!(node.append(0, OBJECT).await.await.is_err());
    }
    let ended = node.service.await.unwrap();
    assert!(ended.is_err(), "it does not go on for ever: {ended:?}");
    assert_eq!(world.quorum.end(partition(0)), Offset(1));
}

#[tokio::test(start_paused = true)]
async fn a_superseded_node_stops_and_says_so() {
    let world = World::new(1);
    let node = world.start().await;
    node.append(0, OBJECT).await.await.unwrap();
    world.quorum.register(BROKER);
    let late = node.append(0, OBJECT).await.await;
    assert!(matches!(late, Err(AppendError::Fenced(_))), "{late:?}");
    assert!(matches!(node.cache.reserve(1).await, Err(Error::Closed)));
    let ended = node.service.await.unwrap();
    assert!(matches!(ended, Err(Error::Fenced(_))), "{ended:?}");
    assert_eq!(world.quorum.end(partition(0)), Offset(1));
}

#[tokio::test(start_paused = true)]
async fn shutting_down_settles_what_is_there_and_refuses_the_rest() {
    let world = World::new(1);
    let node = world.start().await;
    let pending = node.append(0, OBJECT).await;
    let reservation = node.cache.reserve(200).await.unwrap();
    node.shutdown.cancel();
    pending.await.unwrap();
    let (info, bytes) = batch(1, 100);
    let late = crate::AppendBatch {
        partition: partition(0),
        info,
        bytes,
        durability: OBJECT,
    };
    let cache = node.cache.clone();
    node.stop().await.unwrap();
    let late = cache.append(late, reservation).await;
    assert!(matches!(late, Err(AppendError::Unavailable(_))), "{late:?}");
    // Reading goes on.
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(0),
        up_to: Offset(9),
        max_bytes: 1000,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    assert_eq!(cache.read(request).await.unwrap().next, Offset(1));
}
