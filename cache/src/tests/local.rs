//! `Durability::Local`: the write-ahead log, and what comes back from it.

use std::time::Duration;

use frazil_core::env::testing::{EIO, ENOSPC, Fault, Operation, check_golden};
use frazil_core::ports::{LogIndex, ProducerBatch};
use frazil_core::{BrokerEpoch, Location, Offset, ProducerEpoch, ProducerId};
use tokio::time::Instant;

use crate::testing::store::Weather;
use crate::testing::world::{BROKER, wal_dir};
use crate::testing::{Mishap, World, batch, batch_of, partition};
use crate::{AppendBatch, AppendError, Durability, Error, WalConfig};

const LOCAL: Durability = Durability::Local;
const OBJECT: Durability = Durability::Object;

/// No object reaches the store.
const DOWN: Weather = Weather {
    throttled: 100,
    ..Weather::FAIR
};

/// Where the batches of a partition are: in the log, or in segments.
fn places(world: &World, index: i32) -> Vec<bool> {
    let extents = world.quorum.extents(partition(index));
    let in_wal = |location| matches!(location, Location::Wal { .. });
    extents.iter().map(|e| in_wal(e.location)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_local_batch_does_not_wait_for_the_store_and_is_read_before_it_gets_there() {
    let world = World::new(1);
    world.store.set(DOWN);
    let node = world.start().await;
    let began = Instant::now();
    for n in 0..10 {
        let appended = node.append(0, LOCAL).await.await.unwrap();
        assert_eq!(appended.base_offset, Offset(n));
    }
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(node.cache.stats().wal_syncs > 0);
    assert!(places(&world, 0).iter().all(|in_wal| *in_wal));
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 250).await.len(),
        10
    );

    world.store.set(Weather::default());
    node.cache.drain().await;
    assert!(places(&world, 0).iter().all(|in_wal| !in_wal));
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 250).await.len(),
        10
    );
    assert_eq!(
        node.cache.stats().puts - node.cache.metrics().put_failures.get(),
        1
    );
    node.stop().await.unwrap();
    assert_eq!(
        world.wal_files(),
        Vec::<String>::new(),
        "nothing is left over"
    );
}

#[tokio::test(start_paused = true)]
async fn many_appends_share_a_sync_and_a_commit() {
    let world = World::new(1);
    let node = world.start().await;
    let mut whole = node.cache.reserve(1_000_000).await.unwrap();
    let append = |n: i32| {
        let (info, bytes) = batch(1, 100);
        let reservation = whole.split(bytes.len());
        let batch = AppendBatch {
            partition: partition(n % 4),
            info,
            bytes,
            durability: LOCAL,
        };
        node.cache.append(batch, reservation)
    };
    let pending: Vec<_> = (0..1_000).map(append).collect();
    for pending in pending {
        pending.await.unwrap();
    }
    let stats = node.cache.stats();
    assert_eq!((stats.wal_syncs, stats.commits), (1, 1), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_local_batch_does_not_overtake_an_object_batch_nor_the_other_way_round() {
    let world = World::new(1);
    let slow = Weather {
        latency: Duration::from_millis(50),
        ..Weather::default()
    };
    world.store.set(slow);
    let node = world.start().await;
    let mut pending = Vec::new();
    for n in 0..50 {
        let durability = if n % 3 == 0 { OBJECT } else { LOCAL };
        pending.push((n, node.append(0, durability).await));
        tokio::time::sleep(Duration::from_millis(n as u64 * 7 % 60)).await;
    }
    for (n, pending) in pending {
        assert_eq!(pending.await.unwrap().base_offset, Offset(n));
    }
    assert!(node.cache.stats().wal_syncs > 0, "some of them were local");
    node.cache.drain().await;
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 250).await.len(),
        50
    );
}

#[tokio::test(start_paused = true)]
async fn refused_and_repeated_batches_in_the_log_are_not_moved() {
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
    let mut pending = Vec::new();
    for sequence in [0, 2, 2, 90, 4, 6] {
        pending.push(node.append_bytes(0, LOCAL, with(sequence)).await);
    }
    pending.push(node.append(9, LOCAL).await);
    let mut answers = Vec::new();
    for pending in pending {
        answers.push(pending.await.map(|a| (a.base_offset.0, a.duplicate)).ok());
    }
    let expected = [
        Some((0, false)),
        Some((2, false)),
        Some((2, true)),
        None,
        Some((4, false)),
        Some((6, false)),
        None,
    ];
    assert_eq!(answers, expected);
    node.cache.drain().await;
    assert!(world.quorum.wal_extents(BROKER).is_empty());
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 99).await.len(),
        4
    );
    node.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_power() {
    for seed in 0..50 {
        let world = World::new(seed);
        world.store.set(DOWN);
        let node = world.start().await;
        let mut acknowledged = Vec::new();
        for n in 0..20 {
            let index = n % 3;
            acknowledged.push((index, node.append(index, LOCAL).await.await.unwrap()));
        }
        // These are under way.
        let late = node.append(0, LOCAL).await;
        let object = node.append(1, OBJECT).await;
        tokio::task::yield_now().await;
        node.kill().await;
        drop((late, object));
        world.disk.crash(seed);

        let node = world.start().await;
        // Before anything reaches the store, all of it can be read.
        for index in 0..3 {
            let batches = node.read_all(&world.quorum, partition(index), 300).await;
            let count = acknowledged.iter().filter(|(at, _)| *at == index).count();
            assert!(batches.len() >= count, "seed {seed}");
        }
        world.store.set(Weather::default());
        node.cache.drain().await;
        assert!(world.quorum.wal_extents(BROKER).is_empty(), "seed {seed}");
        for index in 0..3 {
            node.read_all(&world.quorum, partition(index), 300).await;
        }
        node.stop().await.unwrap();
        assert_eq!(world.wal_files(), Vec::<String>::new(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn expected_bytes_that_are_lost_or_damaged_end_the_start() {
    type Damage = fn(&World, &str);
    let cases: [(&str, Damage); 4] = [
        ("there is no file", |world, file| {
            frazil_core::env::Disk::remove(&world.disk, &wal_dir().join(file)).unwrap();
        }),
        ("the log ends", |world, file| {
            world.disk.rot(&wal_dir().join(file), 140, 1);
        }),
        ("header is damaged", |world, file| {
            world.disk.rot(&wal_dir().join(file), 20, 1);
        }),
        ("not a log file", |world, file| {
            world.disk.rot(&wal_dir().join(file), 0, 1);
        }),
    ];
    for (reason, damage) in cases {
        let world = World::new(1);
        world.store.set(DOWN);
        let node = world.start().await;
        node.append(0, LOCAL).await.await.unwrap();
        node.kill().await;
        let files = world.wal_files();
        assert_eq!(files.len(), 1);
        damage(&world, &files[0]);
        let error = world.try_start().await.err().expect("it does not start");
        let Error::WalLost(lost) = &error else {
            panic!("{error}");
        };
        let lost: Vec<_> = lost.iter().map(|l| (l.partition, l.base, l.end)).collect();
        assert_eq!(lost, [(partition(0), Offset(0), Offset(1))]);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_front_of_later_groups_is_told_from_a_torn_tail() {
    let world = World::new(1);
    world.store.set(DOWN);
    let node = world.start().await;
    for _ in 0..3 {
        node.append(0, LOCAL).await.await.unwrap();
    }
    node.kill().await;
    let files = world.wal_files();
    world.disk.rot(&wal_dir().join(&files[0]), 140, 1);
    let error = world.try_start().await.err().expect("it does not start");
    assert!(error.to_string().contains("the log is corrupt"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_log_nothing_may_be_expected_of_it() {
    let mut world = World::new(1);
    world.store.set(DOWN);
    let node = world.start().await;
    node.append(0, LOCAL).await.await.unwrap();
    node.kill().await;
    let wal = world.config.wal.take();
    let error = world.try_start().await.err().expect("it does not start");
    assert!(matches!(error, Error::WalLost(_)), "{error}");
    world.config.wal = wal;
    world.store.set(Weather::default());
    let node = world.start().await;
    node.cache.drain().await;
    node.stop().await.unwrap();

    world.config.wal = None;
    let node = world.start().await;
    let appended = node.append(0, LOCAL).await.await.unwrap();
    assert_eq!(appended.base_offset, Offset(1), "raised to object");
    assert_eq!(node.cache.stats().wal_syncs, 0);
}

#[tokio::test(start_paused = true)]
async fn the_log_has_a_limit_and_is_free_again_after_the_flush() {
    let mut world = World::new(1);
    world.config.wal = Some(WalConfig {
        bytes: 10_000,
        file_bytes: 64 * 1024,
        ..WalConfig::new(wal_dir())
    });
    world.store.set(DOWN);
    let node = world.start().await;
    let mut refused = 0;
    for _ in 0..20 {
        match node.append_bytes(0, LOCAL, batch(1, 1_000)).await.await {
            Ok(_) => {}
            Err(AppendError::Unavailable(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused, 11);
    world.store.set(Weather::default());
    node.cache.drain().await;
    node.append_bytes(0, LOCAL, batch(1, 1_000))
        .await
        .await
        .unwrap();
    assert_eq!(world.quorum.end(partition(0)), Offset(10));
}

#[tokio::test(start_paused = true)]
async fn files_are_removed_as_their_batches_reach_the_store() {
    let world = World::new(1);
    let node = world.start().await;
    for _ in 0..100 {
        node.append_bytes(0, LOCAL, batch(1, 10_000))
            .await
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(node.cache.stats().wal_bytes > 1_000_000);
    // Those of the last second, and those that are kept to be used again.
    assert!(world.wal_files().len() <= 8, "{:?}", world.wal_files());
    let made = world.disk.count(Operation::Create);
    assert!(
        made <= 8,
        "{made} files were made for 1 MB in files of 64 KiB"
    );
    node.stop().await.unwrap();
    assert_eq!(world.wal_files(), Vec::<String>::new());
}

/// Whatever of the old content a crash leaves behind the new one, or instead of it.
#[tokio::test(start_paused = true)]
async fn what_a_file_held_before_it_was_used_again_is_not_mistaken_for_the_log() {
    for seed in 0..20 {
        let world = World::new(seed);
        let node = world.start().await;
        let append = |fill, size| node.append_bytes(0, LOCAL, batch_of(1, size, fill));
        for _ in 0..30 {
            append(1, 10_000).await.await.unwrap();
            node.cache.drain().await;
        }
        let made = world.disk.count(Operation::Create);
        world.store.set(DOWN);
        // Up to where the file in use ends, or into the next one.
        for n in 0..(seed as usize % 6) {
            append(2, 10_000 + n).await.await.unwrap();
        }
        append(3, 100).await.await.unwrap();
        assert_eq!(
            world.disk.count(Operation::Create),
            made,
            "no other file was made"
        );
        node.kill().await;
        world.disk.crash(seed);
        let node = world.start().await;
        world.store.set(Weather::default());
        let batches = node.read_all(&world.quorum, partition(0), 1 << 20).await;
        let fills: Vec<u8> = batches.iter().map(|(_, bytes)| bytes[70]).collect();
        let mut expected = vec![1; 30];
        expected.extend(vec![2; seed as usize % 6]);
        expected.push(3);
        assert_eq!(fills, expected, "seed {seed}");
        node.cache.drain().await;
        node.stop().await.unwrap();
        assert_eq!(world.wal_files(), Vec::<String>::new(), "seed {seed}");
    }
}

/// A file that cannot be used again, at whatever step, sends batches past the log, and leaves nothing
/// behind.
#[tokio::test(start_paused = true)]
async fn a_full_disk_while_a_file_is_used_again_is_waited_for() {
    for operation in [Operation::Write, Operation::Rename] {
        let world = World::new(1);
        let node = world.start().await;
        let append = |size| node.append_bytes(0, LOCAL, batch(1, size));
        let mut appended = 0;
        // As many as go into one file, and then the next file is due.
        for _ in 0..6 {
            append(10_000).await.await.unwrap();
            appended += 1;
        }
        node.cache.drain().await;
        append(10_000).await.await.unwrap();
        node.cache.drain().await;
        appended += 1;
        for _ in 0..5 {
            append(10_000).await.await.unwrap();
            appended += 1;
        }
        node.cache.drain().await;
        let syncs = node.cache.stats().wal_syncs;
        let renamed = world.disk.count(Operation::Rename);
        world.disk.fail(Fault::once(operation, 0, ENOSPC));
        for _ in 0..8 {
            append(10_000).await.await.unwrap();
            appended += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(node.cache.stats().wal_syncs > syncs, "it is used again");
        assert!(
            world.disk.count(Operation::Rename) > renamed,
            "so are its files"
        );
        let end = world.quorum.end(partition(0));
        assert_eq!(end, Offset(appended));
        node.stop().await.unwrap();
        assert_eq!(world.wal_files(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_sends_batches_past_the_log_until_there_is_room() {
    for operation in [Operation::Resize, Operation::Write] {
        let world = World::new(1);
        let node = world.start().await;
        world.disk.fail(Fault::forever(operation, 0, ENOSPC));
        for n in 0..5 {
            let appended = node.append(0, LOCAL).await.await.unwrap();
            assert_eq!(appended.base_offset, Offset(n));
        }
        assert_eq!(node.cache.stats().wal_syncs, 0);
        assert_eq!(places(&world, 0), [false; 5]);
        // Not for each batch is it found out anew.
        assert!(world.disk.count(operation) <= 2);
        world.disk.heal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.append(0, LOCAL).await.await.unwrap();
        assert_eq!(node.cache.stats().wal_syncs, 1);
        node.stop().await.unwrap();
        assert_eq!(world.wal_files(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn small_groups_find_space_that_is_written_already() {
    let world = World::new(1);
    let node = world.start().await;
    let before = world.disk.count(Operation::Write);
    for _ in 0..10 {
        node.append(0, LOCAL).await.await.unwrap();
    }
    // Zeros, the header, and ten groups.
    assert_eq!(world.disk.count(Operation::Write) - before, 12);
    assert_eq!(node.cache.stats().wal_syncs, 10);
    node.kill().await;

    // There is no promise in the zeros: without room for them, the log is used all the same.
    let world = World::new(2);
    let node = world.start().await;
    world.disk.fail(Fault::once(Operation::Write, 0, ENOSPC));
    node.append(0, LOCAL).await.await.unwrap();
    node.append(0, LOCAL).await.await.unwrap();
    assert_eq!(node.cache.stats().wal_syncs, 2);
    assert_eq!(places(&world, 0), [true; 2]);
    node.kill().await;
    world.disk.crash(1);
    let node = world.start().await;
    let batches = node.read_all(&world.quorum, partition(0), 1_000).await;
    assert_eq!(batches.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_write_left_is_not_mistaken_for_a_later_one() {
    let world = World::new(1);
    let node = world.start().await;
    let append = |fill| node.append_bytes(0, LOCAL, batch_of(1, 100, fill));
    // After the file's zeros and header, half of this one is in the file.
    world.disk.fail(Fault::once(Operation::Write, 2, ENOSPC));
    append(1).await.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    append(2).await.await.unwrap();
    assert_eq!(node.cache.stats().wal_syncs, 1);
    node.cache.drain().await;
    world.store.set(DOWN);
    append(3).await.await.unwrap();
    assert_eq!(world.wal_files().len(), 1, "the old file is done with");
    append(4).await.await.unwrap();
    node.kill().await;
    world.disk.crash(1);
    let node = world.start().await;
    world.store.set(Weather::default());
    let batches = node.read_all(&world.quorum, partition(0), 1_000).await;
    let fills: Vec<u8> = batches.iter().map(|(_, bytes)| bytes[70]).collect();
    assert_eq!(fills, [1, 2, 3, 4]);
}

/// The format of the log's files: changing it loses what gateways hold at an upgrade.
#[test]
fn files_are_written_as_ever() {
    use frazil_core::frame::FileHeader;

    use crate::wal::file::{FILE_KIND, encode, name, parse_name};

    let salt = *b"0123456789abcdef";
    let header = FileHeader {
        kind: FILE_KIND,
        salt,
        first_sequence: 5,
    };
    let batches = [(0, 3), (1, 4), (0, 5)].map(|(index, fill)| {
        let (info, bytes) = batch_of(1, 10, fill);
        (partition(index), bytes, info)
    });
    let encoded = encode(&batches.to_vec(), &salt, 5, 5);
    assert_eq!((encoded.count, &*encoded.starts), (2, &[50, 242, 121][..]));
    let file = [&header.encode()[..], &encoded.frames].concat();
    check_golden("wal-v1.bin", &file);
    let epoch = BrokerEpoch(17);
    assert_eq!(
        name(epoch, 123),
        "wal-0000000000000011-000000000000007b.log"
    );
    assert_eq!(parse_name(&name(epoch, 123)), Some((epoch, 123)));
    for other in [
        "wal-11-7b.log",
        "wal-0000000000000011-000000000000007b",
        "x",
    ] {
        assert_eq!(parse_name(other), None);
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_can_be_interrupted() {
    let world = World::new(1);
    world.store.set(DOWN);
    let node = world.start().await;
    for index in 0..3 {
        node.append(index, LOCAL).await.await.unwrap();
    }
    node.kill().await;
    for seed in 0..3 {
        world.disk.crash(seed);
        let node = world.start().await;
        node.append(3, LOCAL).await.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.kill().await;
    }
    world.store.set(Weather::default());
    let node = world.start().await;
    node.cache.drain().await;
    for (index, count) in [(0, 1), (1, 1), (2, 1), (3, 3)] {
        let batches = node.read_all(&world.quorum, partition(index), 1_000).await;
        assert_eq!(batches.len(), count);
    }
    node.stop().await.unwrap();
    assert_eq!(world.wal_files(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_service_after_everything_is_in_the_store() {
    let world = World::new(1);
    world.store.set(Weather {
        latency: Duration::from_millis(100),
        ..Weather::default()
    });
    let node = world.start().await;
    node.append(0, LOCAL).await.await.unwrap();
    world.disk.fail(Fault::once(Operation::Sync, 0, EIO));
    let second = node.append(0, LOCAL).await;
    let third = node.append(1, LOCAL).await;
    assert_eq!(second.await.unwrap().base_offset, Offset(1));
    assert_eq!(third.await.unwrap().base_offset, Offset(0));
    assert_eq!(*places(&world, 1), [false], "it went to the store");
    let ended = node.service.await.unwrap();
    assert!(matches!(ended, Err(Error::Wal { .. })), "{ended:?}");
    assert!(world.quorum.wal_extents(BROKER).is_empty());
    // The files stay for whoever wants to look; the next start removes them.
    let node = world.start().await;
    node.cache.drain().await;
    assert_eq!(
        node.read_all(&world.quorum, partition(0), 99).await.len(),
        2
    );
    node.stop().await.unwrap();
    assert_eq!(world.wal_files(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_commit_the_log_holds_what_the_state_says() {
    for mishap in [Mishap::Lost, Mishap::Unanswered, Mishap::Late] {
        let world = World::new(1);
        let node = world.start().await;
        // The commit of the log.
        world.quorum.happen([mishap]);
        let first = node.append(0, LOCAL).await.await;
        assert!(
            matches!(first, Err(AppendError::Indeterminate(_))),
            "{first:?}"
        );
        let happened = i64::from(mishap != Mishap::Lost);
        assert_eq!(world.quorum.end(partition(0)), Offset(happened));
        let second = node.append(0, LOCAL).await.await.unwrap();
        assert_eq!(second.base_offset, Offset(happened));
        // The commit of the move.
        world.quorum.happen([mishap]);
        node.cache.drain().await;
        node.cache.drain().await;
        assert!(world.quorum.wal_extents(BROKER).is_empty());
        let batches = node.read_all(&world.quorum, partition(0), 99).await;
        assert_eq!(batches.len() as i64, happened + 1);
        node.stop().await.unwrap();
        assert_eq!(world.wal_files(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_an_unknown_commit_has_left_in_the_log() {
    for mishap in [Mishap::Lost, Mishap::Unanswered, Mishap::Late] {
        let world = World::new(1);
        let node = world.start().await;
        node.append(0, LOCAL).await.await.unwrap();
        // Of the commit that moves it.
        world.quorum.happen([mishap]);
        node.cache.drain().await;
        assert!(world.quorum.wal_extents(BROKER).is_empty(), "{mishap:?}");
        node.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_batches_take_of_the_log_until_their_segment_is_settled() {
    let mut world = World::new(1);
    world.config.wal = Some(WalConfig {
        bytes: 10_000,
        ..WalConfig::new(wal_dir())
    });
    world.store.set(DOWN);
    let node = world.start().await;
    let (mut info, bytes) = batch(2, 1_000);
    info.producer = Some(ProducerBatch {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: 0,
    });
    let mut refused = 0;
    for _ in 0..100 {
        let append = node.append_bytes(0, LOCAL, (info, bytes.clone()));
        match append.await.await {
            Ok(appended) => assert_eq!(appended.base_offset, Offset(0)),
            Err(AppendError::Unavailable(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 80, "the log is full: {refused}");
    world.store.set(Weather::default());
    node.cache.drain().await;
    let appended = node.append_bytes(0, LOCAL, (info, bytes)).await.await;
    assert!(appended.unwrap().duplicate);
    node.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_lost_is_told_and_can_be_given_up() {
    let world = World::new(1);
    world.store.set(DOWN);
    let node = world.start().await;
    for index in [0, 1] {
        node.append(index, LOCAL).await.await.unwrap();
    }
    node.kill().await;
    let node = world.start().await;
    node.append(0, LOCAL).await.await.unwrap();
    node.kill().await;
    // The first file goes; the second, of the second registration, stays.
    let files = world.wal_files();
    assert_eq!(files.len(), 2);
    frazil_core::env::Disk::remove(&world.disk, &wal_dir().join(&files[0])).unwrap();
    let error = world.try_start().await.err().expect("it does not start");
    let Error::WalLost(lost) = error else {
        panic!("{error}");
    };
    let told: Vec<_> = lost
        .iter()
        .map(|l| (l.partition, l.base.0, l.end.0))
        .collect();
    assert_eq!(told, [(partition(0), 0, 1), (partition(1), 0, 1)]);
    for lost in &lost {
        world.quorum.give_up(lost.partition, lost.base);
    }
    world.store.set(Weather::default());
    let node = world.start().await;
    node.cache.drain().await;
    node.stop().await.unwrap();
    assert!(world.quorum.wal_extents(BROKER).is_empty());
    let places = world.quorum.locate(&partition(0), Offset(0), 99).extents;
    assert!(
        matches!(places[1].location, Location::Segment { .. }),
        "{places:?}"
    );
}
