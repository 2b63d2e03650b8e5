//! Reads: budgets, bounds, lagging readers, damage.

use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::{BatchHeader, Codec, batches};
use frazil_core::ports::LogIndex;
use frazil_core::{Extent, Location, Offset, SegmentId};
use object_store::{ObjectStoreExt, PutPayload};

use crate::config::BlockDisk;
use crate::flush::upload::object_path;
use crate::testing::store::Weather;
use crate::testing::world::BROKER;
use crate::testing::{Running, World, batch, batch_of, partition};
use crate::{Compression, Durability, Read, ReadError, ReadRequest};

const OBJECT: Durability = Durability::Object;

/// A world whose gateway keeps nothing in memory but blocks.
fn cold_world() -> World {
    let mut world = World::new(1);
    world.config.tail_bytes = 0;
    world
}

async fn append_all(node: &Running, index: i32, sizes: &[usize]) {
    let mut pending = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        let batch = batch_of(2, *size, n as u8);
        pending.push(node.append_bytes(index, OBJECT, batch).await);
    }
    for pending in pending {
        pending.await.unwrap();
    }
}

async fn read(node: &Running, from: i64, up_to: i64, max_bytes: usize) -> Read {
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(from),
        up_to: Offset(up_to),
        max_bytes,
        min_one: false,
        compression: Compression::As(Codec::Lz4),
    };
    node.cache.read(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_read_keeps_to_its_bounds_wherever_the_bytes_are() {
    for world in [World::new(1), cold_world()] {
        let node = world.start().await;
        // Batches of 161 bytes at offsets 0, 2, 4, 6, 8 in one segment, then one more in another.
        append_all(&node, 0, &[100; 5]).await;
        append_all(&node, 0, &[100]).await;
        let cases = [
            // from, up to, max bytes, next, bytes
            (0, 12, 1000, 12, 966),
            (0, 12, 965, 10, 805),
            (0, 12, 161, 2, 161),
            (0, 12, 160, 0, 0),
            (0, 12, 0, 0, 0),
            (0, 7, 1000, 8, 644),
            (0, 6, 1000, 6, 483),
            (0, 0, 1000, 0, 0),
            (3, 12, 322, 6, 322),
            (4, 12, 322, 8, 322),
            (5, 12, 1, 5, 0),
            (11, 12, 1000, 12, 161),
            (12, 12, 1000, 12, 0),
            (12, 99, 1000, 12, 0),
        ];
        for (from, up_to, max_bytes, next, bytes) in cases {
            let read = read(&node, from, up_to, max_bytes).await;
            let case = format!("{from}..{up_to} {max_bytes}");
            assert_eq!((read.next.0, read.bytes), (next, bytes), "{case}");
            let sent: usize = read.pieces.iter().map(Bytes::len).sum();
            assert_eq!(sent, bytes, "{case}");
        }
        let request = ReadRequest {
            partition: partition(0),
            from: Offset(5),
            up_to: Offset(12),
            max_bytes: 1,
            min_one: true,
            compression: Compression::As(Codec::Lz4),
        };
        let one = node.cache.read(request).await.unwrap();
        assert_eq!((one.next, one.bytes), (Offset(6), 161));
        let unknown = ReadRequest {
            partition: partition(9),
            ..request
        };
        let unknown = node.cache.read(unknown).await.unwrap_err();
        assert_eq!(unknown, ReadError::UnknownPartition(partition(9)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lagging_reader_fetches_each_block_once() {
    let mut world = cold_world();
    world.config.gather = Duration::from_millis(50);
    let node = world.start().await;
    append_all(&node, 1, &[10]).await;
    // Three megabytes and a bit, in one segment with a neighbour.
    append_all(&node, 0, &[300_000; 11]).await;
    let before = node.cache.stats();
    let batches = node.read_all(&world.quorum, partition(0), 700_000).await;
    assert_eq!(batches.len(), 11);
    for (n, (_, bytes)) in batches.iter().enumerate() {
        assert_eq!(bytes[61..], vec![n as u8; 300_000]);
    }
    let after = node.cache.stats();
    let bytes = after.get_bytes - before.get_bytes;
    assert!(bytes < 3_400_000, "{bytes} bytes for 3.3 MB");
    let gets = after.gets;
    node.read_all(&world.quorum, partition(0), 700_000).await;
    assert_eq!(node.cache.stats().gets, gets, "all of it is cached");
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_a_disk_in_this_machine_reads_each_byte_once() {
    let mut world = cold_world();
    world.config.gather = Duration::from_millis(50);
    world.config.buffer_bytes = 256 << 20;
    world.config.block_memory_bytes = 4 << 20;
    let node = world.start().await;
    // Segments of 8 MB, a quarter of each partition's, in batches that do not divide what is read.
    let mut pending = Vec::new();
    for n in 0..40 {
        for index in 0..4 {
            let batch = batch_of(2, 630_000, (4 * n + index) as u8);
            pending.push(node.append_bytes(index, OBJECT, batch).await);
        }
    }
    for pending in pending {
        pending.await.unwrap();
    }
    let before = node.cache.stats();
    let mut total = 0;
    // One partition after the other: nothing of a segment is left in memory for the next. Their ends
    // are near the end of the log, and read otherwise.
    for index in 0..4 {
        let mut from = 0;
        while from < 70 {
            let request = ReadRequest {
                partition: partition(index),
                from: Offset(from),
                up_to: Offset(80),
                max_bytes: 1 << 20,
                min_one: true,
                compression: Compression::As(Codec::Lz4),
            };
            let read = node.cache.read(request).await.unwrap();
            assert_eq!(read.next, Offset(from + 2), "one batch fits");
            let bytes = read.pieces.concat();
            let header = BatchHeader::parse(&bytes).unwrap();
            header.check_crc(&bytes).unwrap();
            assert_eq!(header.base_offset, from);
            assert_eq!(bytes[61], (2 * from + i64::from(index)) as u8);
            total += read.bytes as u64;
            from = read.next.0;
        }
    }
    let read = node.cache.stats().get_bytes - before.get_bytes;
    // The part of a batch that did not fit is read again.
    assert!(read < 2 * total, "{read} bytes for {total}");
    // Damage is found here as well, and looked for once more.
    let extent = world.quorum.extents(partition(0))[0];
    let path = object_path(&world.prefix, segment_of(&extent));
    let store = &world.store.objects;
    let mut object = store
        .get(&path)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec();
    object[600_000] ^= 1;
    store.put(&path, PutPayload::from(object)).await.unwrap();
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(0),
        up_to: Offset(80),
        max_bytes: 1 << 20,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    let error = node.cache.read(request).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn readers_of_the_same_block_share_a_request() {
    let world = cold_world();
    let node = world.start().await;
    append_all(&node, 0, &[100; 5]).await;
    world.store.set(Weather {
        latency: Duration::from_millis(500),
        ..Weather::default()
    });
    let gets = node.cache.stats().gets;
    let reads = (0..20).map(|_| read(&node, 0, 10, 1000));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.next, Offset(10));
    }
    assert_eq!(node.cache.stats().gets, gets + 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_throttles_and_cuts_answers_short_is_asked_again() {
    let world = cold_world();
    let node = world.start().await;
    append_all(&node, 0, &[100; 5]).await;
    world.store.set(Weather {
        throttled: 50,
        truncated: 50,
        ..Weather::default()
    });
    assert_eq!(read(&node, 0, 10, 1000).await.next, Offset(10));
    assert!(node.cache.metrics().get_failures.get() > 0);
    assert_eq!(node.cache.metrics().corrupt.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_down_fails_the_read_in_time() {
    let world = cold_world();
    let node = world.start().await;
    append_all(&node, 0, &[100]).await;
    world.store.set(Weather {
        throttled: 100,
        ..Weather::default()
    });
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(0),
        up_to: Offset(2),
        max_bytes: 1000,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    let limit = world.config.read_timeout + Duration::from_secs(1);
    let failed = tokio::time::timeout(limit, node.cache.read(request)).await;
    assert!(matches!(failed, Ok(Err(ReadError::Store(_)))), "{failed:?}");
    world.store.set(Weather::default());
    assert_eq!(read(&node, 0, 2, 1000).await.next, Offset(2));
}

fn segment_of(extent: &Extent) -> SegmentId {
    match extent.location {
        Location::Segment { id, .. } => id,
        Location::Wal { .. } | Location::Lost => panic!("{extent:?} is not in a segment"),
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_never_given_out() {
    let world = cold_world();
    let node = world.start().await;
    append_all(&node, 0, &[100; 3]).await;
    let path = object_path(
        &world.prefix,
        segment_of(&world.quorum.extents(partition(0))[0]),
    );
    let objects = &world.store.objects;
    let good = objects.get(&path).await.unwrap().bytes().await.unwrap();
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(0),
        up_to: Offset(6),
        max_bytes: 1000,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    // A bit of a record, of a length, of a count; and an object cut off.
    for at in [16 + 100, 16 + 10, 16 + 26, good.len()] {
        let mut bad = good.to_vec();
        match bad.get_mut(at) {
            Some(byte) => *byte ^= 4,
            None => bad.truncate(100),
        }
        objects.put(&path, PutPayload::from(bad)).await.unwrap();
        // Nobody has looked yet, so what is read is what is there now.
        let node = world.start().await;
        let failed = node.cache.read(request).await;
        assert!(
            matches!(failed, Err(ReadError::Corrupt { .. })),
            "{at}: {failed:?}"
        );
        // And it does not stay in the cache.
        let good = PutPayload::from(good.clone());
        objects.put(&path, good).await.unwrap();
        assert_eq!(node.cache.read(request).await.unwrap().next, Offset(6));
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_an_error_and_no_gap() {
    let world = cold_world();
    let node = world.start().await;
    append_all(&node, 0, &[100]).await;
    append_all(&node, 0, &[100]).await;
    let extents = world.quorum.extents(partition(0));
    let path = object_path(&world.prefix, segment_of(&extents[1]));
    world.store.objects.delete(&path).await.unwrap();
    let some = read(&node, 0, 4, 1000).await;
    assert_eq!(some.next, Offset(2), "what is there is given out");
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(2),
        up_to: Offset(4),
        max_bytes: 1000,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    let missing = node.cache.read(request).await;
    assert!(
        matches!(missing, Err(ReadError::NotFound { .. })),
        "{missing:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_another_gateway_holds_is_to_be_asked_of_it() {
    let world = World::new(1);
    world.store.set(Weather {
        throttled: 100,
        ..Weather::default()
    });
    let node = world.start().await;
    let pending = node.append(0, Durability::Local).await;
    pending.await.unwrap();
    let (_, extent) = world.quorum.wal_extents(BROKER)[0];
    let here = node.cache.read_extent(partition(0), &extent).await.unwrap();
    assert_eq!(here.len(), 1);
    let Location::Wal {
        epoch,
        start,
        length,
        ..
    } = extent.location
    else {
        panic!("it is in the log");
    };
    let broker = frazil_core::BrokerId(77);
    let elsewhere = Extent {
        location: Location::Wal {
            broker,
            epoch,
            start,
            length,
        },
        ..extent
    };
    let elsewhere = node.cache.read_extent(partition(0), &elsewhere).await;
    assert_eq!(elsewhere, Err(ReadError::ElsewhereInWal { broker }));
}

#[tokio::test(start_paused = true)]
async fn an_extent_is_read_whole_even_if_it_has_moved_meanwhile() {
    let world = World::new(1);
    let node = world.start().await;
    let mut pending = Vec::new();
    for n in 0..4 {
        pending.push(
            node.append_bytes(0, Durability::Local, batch(3, 10 + n))
                .await,
        );
    }
    for pending in pending {
        pending.await.unwrap();
    }
    let old = world.quorum.extents(partition(0))[0];
    assert!(matches!(old.location, Location::Wal { .. }));
    node.cache.drain().await;
    // More than one commit later, the log has been cut.
    let batches = node.cache.read_extent(partition(0), &old).await.unwrap();
    let bases: Vec<i64> = batches.iter().map(|(base, _)| base.0).collect();
    let expected: Vec<i64> = (old.base.0..old.end.0).step_by(3).collect();
    assert_eq!(bases, expected);
}

#[tokio::test]
async fn blocks_on_disk_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = cold_world();
    world.config.block_disk = Some(BlockDisk {
        dir: dir.path().to_path_buf(),
        bytes: 64 << 20,
    });
    let node = world.start().await;
    append_all(&node, 0, &[100_000; 5]).await;
    assert_eq!(read(&node, 0, 10, 1 << 20).await.next, Offset(10));
    assert_eq!(node.cache.stats().gets, 1);
    // The disk is written in the background.
    let mut gets = 1;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let node = world.start().await;
        assert_eq!(read(&node, 0, 10, 1 << 20).await.next, Offset(10));
        gets = node.cache.stats().gets;
        if gets == 0 {
            break;
        }
    }
    assert_eq!(gets, 0, "the block came from the disk");
}

#[tokio::test]
async fn a_disk_that_cannot_hold_blocks_is_done_without() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut world = cold_world();
    world.config.block_disk = Some(BlockDisk {
        dir: file.path().to_path_buf(),
        bytes: 64 << 20,
    });
    let node = world.start().await;
    append_all(&node, 0, &[100_000; 5]).await;
    for _ in 0..2 {
        assert_eq!(read(&node, 0, 10, 1 << 20).await.next, Offset(10));
    }
    assert_eq!(node.cache.stats().gets, 1, "the memory has it");
}

#[tokio::test]
async fn blocks_on_disk_are_of_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    // The same names stand for other objects in each, as after the metadata was begun anew.
    for (fill, cluster) in [(1, "first"), (2, "second")] {
        let mut world = cold_world();
        world.cluster = cluster;
        world.config.block_disk = Some(BlockDisk {
            dir: dir.path().to_path_buf(),
            bytes: 64 << 20,
        });
        let node = world.start().await;
        let (info, bytes) = batch_of(2, 100_000, fill);
        let append = node.append_bytes(0, OBJECT, (info, bytes.clone()));
        append.await.await.unwrap();
        for _ in 0..20 {
            let node = world.start().await;
            let batches = node.read_all(&world.quorum, partition(0), 1 << 20).await;
            assert_eq!(batches[0].1[16..], bytes[16..], "cluster {cluster}");
            if node.cache.stats().gets == 0 {
                break;
            }
            // The disk is written in the background.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_offsets_are_passed_over_and_never_silently_at_the_end() {
    let world = World::new(1);
    world.store.set(Weather {
        throttled: 100,
        ..Weather::default()
    });
    let node = world.start().await;
    // Offsets 0, 1 and 2, each in an extent of its own.
    for _ in 0..3 {
        node.append(0, Durability::Local).await.await.unwrap();
    }
    let read = |from: i64, max_bytes| {
        node.cache.read(ReadRequest {
            partition: partition(0),
            from: Offset(from),
            up_to: Offset(3),
            max_bytes,
            min_one: false,
            compression: Compression::As(Codec::Lz4),
        })
    };
    world.quorum.give_up(partition(0), Offset(1));
    // In the middle: the next batch begins higher.
    let found = read(0, 10_000).await.unwrap();
    let bytes = Bytes::from(found.pieces.concat());
    let bases: Vec<i64> = batches(&bytes)
        .map(|item| item.unwrap().0.base_offset)
        .collect();
    assert_eq!((bases, found.next), (vec![0, 2], Offset(3)));
    // At the end: a batch without records tells how far it goes.
    world.quorum.give_up(partition(0), Offset(2));
    for from in [1, 2] {
        let found = read(from, 10_000).await.unwrap();
        let bytes = Bytes::from(found.pieces.concat());
        let header = BatchHeader::parse(&bytes).unwrap();
        header.check_crc(&bytes).unwrap();
        assert_eq!((header.base_offset, header.record_count), (from, 0));
        assert_eq!(from + i64::from(header.offsets()), 3);
        assert_eq!((found.next, found.bytes), (Offset(3), bytes.len()));
    }
    // Without room for it, nothing is passed over.
    let found = read(1, 60).await.unwrap();
    assert_eq!((found.next, found.bytes), (Offset(1), 0));
    let extent = world.quorum.locate(&partition(0), Offset(1), 1).extents[0];
    assert_eq!(
        node.cache.read_extent(partition(0), &extent).await.unwrap(),
        []
    );
    node.kill().await;
}
