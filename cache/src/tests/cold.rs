//! Cold offsets: what readers get, from wherever they begin, and what it costs.

use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec, Record, Records, TimestampType};
use frazil_core::cold::TableObject;
use frazil_core::env::Ids;
use frazil_core::env::testing::{SeededIds, seeds};
use frazil_core::ports::BatchInfo;
use frazil_core::{Extent, Location, Offset};
use frazil_table::{GroupRef, WriterConfig};
use object_store::{ObjectStoreExt, PutPayload};

use crate::testing::freezer::{Freezer, table_path};
use crate::testing::store::Weather;
use crate::testing::{Running, World, partition};
use crate::{Compression, Durability, Read, ReadError, ReadRequest};

const MIB: usize = 1 << 20;

/// A record as consumers get it.
type Got = (i64, TimestampType, Record);

struct Random(SeededIds);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        self.0.random() % bound
    }

    fn bytes(&self, most: u64) -> Option<Vec<u8>> {
        match self.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(
                (0..self.below(most))
                    .map(|_| self.below(256) as u8)
                    .collect(),
            ),
        }
    }

    /// A batch of anything that a producer may send.
    fn batch(&self, now: i64) -> Bytes {
        const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];
        let mut builder = BatchBuilder::new().codec(CODECS[self.below(3) as usize]);
        if self.below(4) == 0 {
            builder = builder.timestamp_type(TimestampType::LogAppendTime);
        }
        for _ in 0..=self.below(40) {
            let time = match self.below(10) {
                0 => -1,
                1 => -5_000_000_000_000,
                2 => i64::MAX / 2,
                _ => now + self.below(1000) as i64,
            };
            let headers = (0..self.below(3)).map(|_| {
                let key: &[u8] = match self.below(3) {
                    0 => b"same",
                    1 => b"\xFF\xFE",
                    _ => b"",
                };
                (key, self.bytes(9))
            });
            let headers: Vec<_> = headers.collect();
            let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_deref())).collect();
            let most = if self.below(30) == 0 { 20_000 } else { 60 };
            let (key, value) = (self.bytes(20), self.bytes(most));
            builder.push(time, key.as_deref(), value.as_deref(), &headers);
        }
        builder.build()
    }
}

fn info(batch: &Bytes) -> BatchInfo {
    let header = BatchHeader::parse(batch).unwrap();
    BatchInfo {
        length: batch.len() as u32,
        records: header.offsets(),
        max_timestamp: header.max_timestamp,
        producer: None,
    }
}

/// The records of batches that lie back to back; each knows its base offset.
fn records(bytes: &Bytes) -> Vec<Got> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = BatchHeader::parse(&bytes[at..]).unwrap();
        let batch = bytes.slice(at..at + header.length as usize);
        header.check_crc(&batch).unwrap();
        at += batch.len();
        let made = Records::of(&header, &batch).unwrap();
        for record in made {
            let mut record = record.unwrap();
            let offset = header.base_offset + i64::from(record.offset_delta);
            record.offset_delta = 0;
            all.push((offset, header.timestamp_type(), record));
        }
    }
    all
}

async fn append(node: &Running, durability: Durability, batch: Bytes) -> Offset {
    let pending = node.append_bytes(0, durability, (info(&batch), batch));
    pending.await.await.unwrap().base_offset
}

fn request(from: i64, up_to: i64, max_bytes: usize) -> ReadRequest {
    ReadRequest {
        partition: partition(0),
        from: Offset(from),
        up_to: Offset(up_to),
        max_bytes,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    }
}

async fn read(node: &Running, from: i64, up_to: i64, max_bytes: usize) -> Read {
    let read = node.cache.read(request(from, up_to, max_bytes)).await;
    read.unwrap()
}

/// Small pages and row groups, so that there are many.
fn small() -> WriterConfig {
    WriterConfig {
        page_rows: 7,
        page_bytes: 2000,
        group_bytes: 6000,
        ..WriterConfig::default()
    }
}

/// All that is in segments becomes cold, in these row groups.
async fn freeze_all(world: &World, config: WriterConfig) -> Vec<GroupRef> {
    let (mut freezer, everything) = (Freezer::default(), Offset(i64::MAX));
    freezer
        .freeze(world, partition(0), everything, config)
        .await
}

/// Plain records with offsets in their values, in batches of a hundred.
async fn fill(node: &Running, count: u32, value: usize) {
    for base in (0..count).step_by(100) {
        let mut builder = BatchBuilder::new();
        for n in base..(base + 100).min(count) {
            let value = format!("{n:0>value$}");
            builder.push(1000 + i64::from(n), None, Some(value.as_bytes()), &[]);
        }
        append(node, Durability::Object, builder.build()).await;
    }
}

/// 4000 records of 200 bytes that no codec makes smaller.
async fn fill_with_noise(node: &Running) {
    let random = Random(SeededIds::new(5));
    for base in 0..40 {
        let mut builder = BatchBuilder::new();
        for n in 0..100 {
            let value: Vec<u8> = (0..200).map(|_| random.below(256) as u8).collect();
            builder.push(base * 100 + n, None, Some(&value), &[]);
        }
        append(node, Durability::Object, builder.build()).await;
    }
}

fn cold_world() -> World {
    let mut world = World::new(1);
    world.config.tail_bytes = 0;
    world
}

#[test]
fn a_log_of_all_kinds_of_places_reads_the_same_from_everywhere() {
    let name = "cold::a_log_of_all_kinds_of_places_reads_the_same_from_everywhere";
    seeds("frazil-cache", name, 8, |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(all_kinds_of_places(seed));
    });
}

async fn all_kinds_of_places(seed: u64) {
    {
        let random = Random(SeededIds::new(seed));
        let mut world = World::new(seed);
        world.config.tail_bytes = 20_000;
        world.config.linger = Duration::from_secs(3600);
        let node = world.start().await;
        let mut freezer = Freezer::default();
        let mut expected: Vec<Got> = Vec::new();
        let mut now = 1_700_000_000_000;
        let mut put = async |durability, n: u64| {
            for _ in 0..n {
                now += 500;
                let batch = random.batch(now);
                let base = append(&node, durability, batch.clone()).await;
                let own = records(&batch).into_iter();
                expected.extend(own.map(|(at, kind, record)| (at + base.0, kind, record)));
            }
        };
        // Cold in three conversions, then segments, the tail, and the write-ahead log.
        for _ in 0..3 {
            put(Durability::Object, 8).await;
            let until = Offset(i64::MAX);
            freezer.freeze(&world, partition(0), until, small()).await;
        }
        put(Durability::Object, 10).await;
        put(Durability::Local, 4).await;
        let end = world.quorum.end(partition(0)).0;
        let kinds = world.quorum.extents(partition(0));
        let is_wal = |extent: &Extent| matches!(extent.location, Location::Wal { .. });
        assert!(kinds.iter().any(is_wal) && !kinds.iter().all(is_wal));
        for from in 0..end {
            let max_bytes = match random.below(4) {
                0 => 0,
                1 => random.below(3000) as usize,
                2 => random.below(60_000) as usize,
                _ => 10 * MIB,
            };
            let mut request = request(from, end, max_bytes);
            request.min_one = random.below(4) > 0;
            let codec = [Codec::Lz4, Codec::None, Codec::Zstd][random.below(3) as usize];
            request.compression = Compression::As(codec);
            let read = node.cache.read(request).await.unwrap();
            let case = format!("seed {seed}, {request:?}");
            let bytes = Bytes::from(read.pieces.concat());
            let got = records(&bytes);
            let wanted = expected.iter();
            let wanted = wanted.filter(|(at, ..)| (from..read.next.0).contains(at));
            let asked = got.iter().filter(|(at, ..)| *at >= from);
            assert!(asked.eq(wanted), "{case}");
            if request.min_one || max_bytes == 10 * MIB {
                assert!(read.next.0 > from, "{case}");
            }
            if max_bytes == 10 * MIB {
                assert_eq!(read.next.0, end, "{case}");
            }
            let first = BatchHeader::parse(&bytes).map_or(0, |first| first.length as usize);
            assert!(
                bytes.len() <= max_bytes || request.min_one && bytes.len() == first,
                "{case}"
            );
        }
        times(&world, &node, &expected).await;
        node.stop().await.unwrap();
    }
}

/// Looks for times among what is cold.
async fn times(world: &World, node: &Running, expected: &[Got]) {
    let root = world.quorum.cold(partition(0)).unwrap();
    let cold: Vec<_> = expected
        .iter()
        .filter(|(at, ..)| *at < root.end.0)
        .collect();
    for from in (0..root.end.0).step_by(5) {
        let behind = || cold.iter().filter(|(at, ..)| *at >= from);
        let at = |found: Option<&&Got>| found.map(|got| (Offset(got.0), got.2.timestamp));
        for wanted in behind().map(|got| got.2.timestamp + 1).step_by(7) {
            let first = behind().find(|got| got.2.timestamp >= wanted);
            let found =
                node.cache
                    .find_time(partition(0), &root, Offset(from), Some(wanted.max(0)));
            let first = first.filter(|_| wanted >= 0);
            if wanted >= 0 {
                assert_eq!(found.await.unwrap(), at(first), "{wanted} from {from}");
            }
        }
        let most = behind().map(|got| got.2.timestamp).max();
        let first = behind().find(|got| Some(got.2.timestamp) == most);
        let found = node
            .cache
            .find_time(partition(0), &root, Offset(from), None);
        assert_eq!(found.await.unwrap(), at(first), "the largest from {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_reads_cost() {
    let world = cold_world();
    let node = world.start().await;
    fill(&node, 20_000, 200).await;
    let config = WriterConfig {
        group_bytes: 15_000,
        page_rows: 100,
        ..WriterConfig::default()
    };
    let groups = freeze_all(&world, config).await;
    assert!(groups.len() > 4, "{}", groups.len());
    let gets = || world.store.gets();
    // Nothing is known: the root and the row group.
    let before = gets();
    let at = groups[2].base.0 + 150;
    read(&node, at, 20_000, 1).await;
    assert_eq!(gets() - before, 2);
    // The row group is kept.
    read(&node, groups[2].end.0 - 1, 20_000, 1).await;
    assert_eq!(gets() - before, 2);
    // Another row group: one.
    read(&node, groups[4].base.0 + 150, 20_000, 1).await;
    assert_eq!(gets() - before, 3);
    // Others of a cold start share what one fetches.
    let node = world.start().await;
    let before = gets();
    world.store.set(Weather {
        latency: Duration::from_millis(200),
        ..Weather::default()
    });
    let reads = (0..20).map(|_| read(&node, at, 20_000, 1));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.next.0 > at);
    }
    assert_eq!(gets() - before, 2);
    assert_eq!(node.cache.stats().cold_reads, 20);
    // A scan fetches each row group once, and some ahead of it.
    let node = world.start().await;
    let before = gets();
    let mut from = 0;
    while from < 20_000 {
        from = read(&node, from, 20_000, 5000).await.next.0;
    }
    assert_eq!(gets() - before, 1 + groups.len() as u64);
    let stats = node.cache.stats();
    assert_eq!(stats.cold_gets, gets() - before);
    // Each page is made once, whoever comes first: the reader, or what runs ahead of it.
    assert_eq!(stats.cold_misses, 200, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn with_the_index_in_memory_a_look_up_is_one_request() {
    let mut world = cold_world();
    world.config.block_memory_bytes = 600_000;
    let node = world.start().await;
    fill_with_noise(&node).await;
    let config = WriterConfig {
        group_bytes: 120_000,
        page_rows: 50,
        ..WriterConfig::default()
    };
    let groups = freeze_all(&world, config).await;
    // Three times what there is memory for.
    assert!(groups.len() >= 6);
    for group in &groups {
        read(&node, group.base.0 + 1, 4000, 100).await;
    }
    let before = node.cache.stats();
    let first = read(&node, groups[0].base.0 + 300, 4000, 100).await;
    assert!(first.next > groups[0].base + 300);
    let after = node.cache.stats();
    assert_eq!(after.cold_gets - before.cold_gets, 1);
    let bytes = after.cold_get_bytes - before.cold_get_bytes;
    assert!(bytes < 30_000, "{bytes} bytes for a page of 10 000");
}

#[tokio::test(start_paused = true)]
async fn many_scans_with_little_memory_all_come_to_their_end() {
    let mut world = cold_world();
    // What is on its way at once is little more than a row group.
    world.config.block_memory_bytes = 500_000;
    let node = world.start().await;
    fill_with_noise(&node).await;
    let config = WriterConfig {
        group_bytes: 110_000,
        page_rows: 50,
        ..WriterConfig::default()
    };
    freeze_all(&world, config).await;
    world.store.set(Weather {
        latency: Duration::from_millis(50),
        flipped: 2,
        ..Weather::default()
    });
    let scan = async |scanner: i64| {
        let mut from = 100 * scanner;
        while from < 4000 {
            // A read may meet damage twice, and then says so.
            if let Ok(read) = node.cache.read(request(from, 4000, 15_000)).await {
                let got = records(&Bytes::from(read.pieces.concat()));
                let own = got.iter().filter(|(at, ..)| *at >= from);
                assert!(own.map(|(at, ..)| *at).eq(from..read.next.0));
                from = read.next.0;
            }
        }
    };
    let scans = futures_util::future::join_all((0..30).map(scan));
    let ended = tokio::time::timeout(Duration::from_secs(3600), scans).await;
    assert!(ended.is_ok(), "they wait for each other");
}

/// Changes an object at rest.
async fn damage(world: &World, object: TableObject, at: impl Fn(usize) -> usize) -> Bytes {
    let path = table_path(world, partition(0), object);
    let good = world.store.objects.get(&path).await.unwrap();
    let good = good.bytes().await.unwrap();
    let mut bad = good.to_vec();
    bad[at(good.len())] ^= 4;
    let put = world.store.objects.put(&path, PutPayload::from(bad));
    put.await.unwrap();
    good
}

async fn repair(world: &World, object: TableObject, good: Bytes) {
    let path = table_path(world, partition(0), object);
    let put = world.store.objects.put(&path, PutPayload::from(good));
    put.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn damaged_objects_are_refused_by_name_and_nothing_is_skipped() {
    let world = cold_world();
    let node = world.start().await;
    fill(&node, 1000, 50).await;
    let groups = freeze_all(&world, small()).await;
    node.stop().await.unwrap();
    let middle = groups[groups.len() / 2].clone();
    let root = world.quorum.cold(partition(0)).unwrap();
    let data = TableObject::Data(middle.file);
    let manifest = TableObject::Manifest(0, root.id);
    let places: [(TableObject, usize, i64); 4] = [
        (manifest, 30, 0),
        // The index of a row group, a page in its middle, and its last one.
        (data, middle.start as usize + 20, middle.base.0),
        (
            data,
            (middle.start as usize + middle.range().end as usize) / 2,
            middle.base.0,
        ),
        (data, middle.range().end as usize - 3, middle.base.0),
    ];
    for (object, at, good_until) in places {
        let good = damage(&world, object, |_| at).await;
        let node = world.start().await;
        let mut from = 0;
        let error = loop {
            match node.cache.read(request(from, 1000, 3000)).await {
                Ok(read) => {
                    assert!(read.next.0 > from, "no damage is found");
                    let got = records(&Bytes::from(read.pieces.concat()));
                    let own = got.iter().filter(|(at, ..)| *at >= from);
                    assert!(own.map(|(at, ..)| *at).eq(from..read.next.0));
                    from = read.next.0;
                }
                Err(error) => break error,
            }
        };
        assert!(
            from >= good_until && from < middle.end.0,
            "{object:?} {from}"
        );
        let ReadError::Corrupt { what, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(what.contains(&object.key(partition(0).topic)), "{what}");
        assert!(what.contains(&partition(0).to_string()), "{what}");
        let found = node
            .cache
            .find_time(partition(0), &root, Offset(0), Some(1999))
            .await;
        assert_eq!(found.is_err(), object == manifest, "{found:?}");
        // Once it is sound again, it is read.
        repair(&world, object, good).await;
        assert!(read(&node, from, 1000, 3000).await.next.0 > from);
        node.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_or_lost_on_the_way_is_fetched_again() {
    let world = cold_world();
    let node = world.start().await;
    fill(&node, 2000, 50).await;
    freeze_all(&world, small()).await;
    world.store.set(Weather {
        flipped: 30,
        truncated: 20,
        throttled: 20,
        ..Weather::default()
    });
    let mut from = 0;
    while from < 2000 {
        match node.cache.read(request(from, 2000, 4000)).await {
            Ok(read) => {
                let got = records(&Bytes::from(read.pieces.concat()));
                let own = got.iter().filter(|(at, ..)| *at >= from);
                assert!(own.map(|(at, ..)| *at).eq(from..read.next.0));
                from = read.next.0;
            }
            // Twice in a row.
            Err(error) => assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}"),
        }
    }
    assert!(node.cache.metrics().corrupt.get() > 0);
    let everything = node.read_all(&world.quorum, partition(0), 10_000).await;
    assert!(!everything.is_empty());
}

/// A consumer may know the codec of its producers and no other.
#[tokio::test(start_paused = true)]
async fn cold_batches_are_compressed_as_they_were_produced() {
    let world = cold_world();
    let node = world.start().await;
    let mut freezer = Freezer::default();
    let mut base = Offset::ZERO;
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        let mut builder = BatchBuilder::new().codec(codec);
        for n in 0..100 {
            builder.push(n, None, Some(b"the same again and again"), &[]);
        }
        append(&node, Durability::Object, builder.build()).await;
        let end = base + 100;
        freezer.freeze(&world, partition(0), end, small()).await;
        for zstd in [true, false] {
            let mut request = request(base.0, end.0, 1);
            request.compression = Compression::AsProduced { zstd };
            let read = node.cache.read(request).await.unwrap();
            let given = BatchHeader::parse(&read.pieces.concat()).unwrap().codec();
            let expected = match codec {
                Codec::Zstd if !zstd => Codec::Lz4,
                codec => codec,
            };
            assert_eq!(given.unwrap(), expected);
        }
        base = end;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_down_fails_a_cold_read_in_time() {
    let world = cold_world();
    let node = world.start().await;
    fill(&node, 100, 50).await;
    freeze_all(&world, small()).await;
    world.store.set(Weather {
        throttled: 100,
        ..Weather::default()
    });
    let limit = world.config.read_timeout + Duration::from_secs(1);
    let failed = tokio::time::timeout(limit, node.cache.read(request(0, 100, 100))).await;
    assert!(matches!(failed, Ok(Err(ReadError::Store(_)))), "{failed:?}");
    world.store.set(Weather::default());
    assert!(read(&node, 0, 100, 100).await.next.0 > 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_follows_what_moves_between_its_look_and_its_fetch() {
    let world = cold_world();
    let node = world.start().await;
    fill(&node, 500, 50).await;
    let old = world.quorum.extents(partition(0));
    // The index is of a time before the conversion, and the segments are deleted.
    world.quorum.grow_old();
    let (mut freezer, everything) = (Freezer::default(), Offset(i64::MAX));
    freezer
        .freeze(&world, partition(0), everything, small())
        .await;
    let delete = async |path: &object_store::path::Path| {
        world.store.objects.delete(path).await.unwrap();
    };
    for extent in &old {
        let Location::Segment { id, .. } = extent.location else {
            panic!("{extent:?}")
        };
        delete(&crate::flush::upload::object_path(&world.prefix, id)).await;
    }
    let got = read(&node, 123, 500, MIB).await;
    assert_eq!(got.next, Offset(500));
    let batches = node.cache.read_extent(partition(0), &old[2]).await.unwrap();
    let covered = batches.iter().map(|(_, batch)| records(batch));
    let covered: Vec<i64> = covered.flatten().map(|(at, ..)| at).collect();
    assert!((old[2].base.0..old[2].end.0).all(|offset| covered.contains(&offset)));
    // The index is of a time before the next conversion, and the root is deleted, unread.
    fill(&node, 100, 50).await;
    let first = world.quorum.cold(partition(0)).unwrap();
    world.quorum.grow_old();
    freezer
        .freeze(&world, partition(0), everything, small())
        .await;
    let object = TableObject::Manifest(0, first.id);
    delete(&table_path(&world, partition(0), object)).await;
    let node = world.start().await;
    world.quorum.grow_old();
    assert_eq!(read(&node, 0, 600, MIB).await.next, Offset(600));
    let found = node
        .cache
        .find_time(partition(0), &first, Offset(0), Some(1499))
        .await;
    assert_eq!(found.unwrap(), Some((Offset(499), 1499)));
    // If it stays away, the read fails.
    let root = world.quorum.cold(partition(0)).unwrap();
    delete(&table_path(
        &world,
        partition(0),
        TableObject::Manifest(0, root.id),
    ))
    .await;
    let node = world.start().await;
    let gone = node.cache.read(request(0, 600, MIB)).await;
    assert!(matches!(gone, Err(ReadError::NotFound { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn offsets_without_records_are_passed_over() {
    let world = cold_world();
    let node = world.start().await;
    for _ in 0..3 {
        append(&node, Durability::Local, Random(SeededIds::new(1)).batch(5)).await;
    }
    node.cache.drain().await;
    let ends: Vec<_> = world.quorum.extents(partition(0));
    let per = ends[0].end.0;
    assert_eq!(ends.len(), 3, "{ends:?}");
    for lost in [0, 2] {
        world.quorum.give_up(partition(0), ends[lost].base);
    }
    let mut freezer = Freezer::default();
    // One after the other: the first and the last one have no record at all.
    for extent in &ends {
        freezer
            .freeze(&world, partition(0), extent.end, small())
            .await;
    }
    let got = read(&node, 0, 3 * per, MIB).await;
    let offsets: Vec<i64> = records(&Bytes::from(got.pieces.concat()))
        .iter()
        .map(|(at, ..)| *at)
        .collect();
    assert!(offsets.into_iter().eq(per..2 * per));
    assert_eq!(got.next, Offset(3 * per));
    // Nothing but what is lost: one batch that takes its offsets.
    for (from, up_to) in [
        (0, per),
        (3, per),
        (2 * per, 3 * per),
        (2 * per + 1, 3 * per),
    ] {
        let got = read(&node, from, up_to, MIB).await;
        assert_eq!(got.next, Offset(up_to), "{from}..{up_to}");
        let header = BatchHeader::parse(&got.pieces.concat()).unwrap();
        assert_eq!((header.base_offset, header.record_count), (from, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_record_and_a_million_of_the_smallest_are_read() {
    let world = cold_world();
    let node = world.start().await;
    // What no codec makes smaller; more than is kept whole.
    let mut state = 1u64;
    let value: Vec<u8> = (0..47 * MIB)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let large = BatchBuilder::new().record(1, Some(b"large"), Some(&value));
    append(&node, Durability::Object, large.build()).await;
    const TINY: u32 = 1_000_000;
    const BATCH: u32 = 20_000;
    for _ in 0..TINY / BATCH {
        let mut builder = BatchBuilder::new().codec(Codec::Lz4);
        for n in 0..BATCH {
            builder.push(i64::from(n), None, Some(b"x"), &[]);
        }
        append(&node, Durability::Object, builder.build()).await;
    }
    let config = WriterConfig::default();
    freeze_all(&world, config).await;
    let end = i64::from(TINY) + 1;
    let got = read(&node, 0, end, 1000).await;
    assert_eq!(got.next, Offset(1));
    let got = records(&Bytes::from(got.pieces.concat()));
    assert!(got[0].2.value.as_deref() == Some(&value[..]));
    let (mut from, mut count) = (1, 0);
    while from < end {
        let got = read(&node, from, end, MIB).await;
        let bytes = Bytes::from(got.pieces.concat());
        let mut at = 0;
        while at < bytes.len() {
            let header = BatchHeader::parse(&bytes[at..]).unwrap();
            at += header.length as usize;
            count += header.record_count;
        }
        from = got.next.0;
    }
    assert_eq!(count, TINY as i32);
}
