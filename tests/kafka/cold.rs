//! Records that have become cold, through the protocol: what consumers and ListOffsets get is what
//! they got before.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec, Record, Records};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::raw::{Connection, fetch, fetched, outcome, produce};
use crate::server::{PATIENCE, Server};

const TOPIC: &str = "freezes";
/// Some moment in 2026.
const NOW: i64 = 1_790_000_000_000;

/// Batches of anything: no and empty keys and values, headers twice and not UTF-8, times of all
/// kinds.
fn batches() -> Vec<Bytes> {
    const CODECS: [Codec; 4] = [Codec::None, Codec::Gzip, Codec::Lz4, Codec::Zstd];
    let some: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"\xFF\0\xFE"), Some(b"{\"a\":1}")];
    let headers: &[(&[u8], Option<&[u8]>)] = &[
        (b"twice", Some(b"1")),
        (b"twice", None),
        (b"\xC3\x28", Some(b"")),
    ];
    let batch = |n: usize| {
        let mut builder = BatchBuilder::new().codec(CODECS[n % 4]);
        for record in 0..40 + n {
            let time = match (n + record) % 9 {
                0 => -1,
                1 => 0,
                2 => NOW - 400 * 86_400_000,
                _ => NOW + (n * 1000 + record) as i64,
            };
            let large = vec![b'x'; 3000 * (record % 20 / 19)];
            let value = if large.is_empty() {
                some[record % 4]
            } else {
                Some(&large[..])
            };
            builder.push(time, some[n % 4], value, &headers[..record % 4]);
        }
        builder.build()
    };
    (0..24).map(batch).collect()
}

/// Reads from `from` to `end`; the records by offset, and with which codecs they came.
fn read(server: &Server, from: i64, end: i64, bytes: i32) -> (BTreeMap<i64, Record>, Vec<Codec>) {
    let mut connection = Connection::to(server);
    let (mut found, mut codecs) = (BTreeMap::new(), Vec::new());
    let mut next = from;
    let start = Instant::now();
    while next < end {
        assert!(start.elapsed() < PATIENCE, "{next}:\n{}", server.log());
        let answer = connection.ask(&fetch(TOPIC, 0, next, bytes), 12);
        let (error, bytes) = fetched(&answer);
        assert_eq!(error, 0, "{}", server.log());
        let mut at = 0;
        while at < bytes.len() {
            let header = BatchHeader::parse(&bytes[at..]).unwrap();
            let batch = bytes.slice(at..at + header.length as usize);
            header.check_crc(&batch).unwrap();
            at += batch.len();
            if header.base_offset >= end {
                break;
            }
            codecs.push(header.codec().unwrap());
            for record in Records::of(&header, &batch).unwrap() {
                let mut record = record.unwrap();
                let offset = header.base_offset + i64::from(record.offset_delta);
                record.offset_delta = 0;
                if offset >= next {
                    found.insert(offset, record);
                }
            }
            next = next.max(header.base_offset + i64::from(header.offsets()));
        }
    }
    (found, codecs)
}

/// What ListOffsets answers for some times.
fn times(server: &Server) -> Vec<(i64, i64, i64)> {
    let mut connection = Connection::to(server);
    let times = [
        -1,
        -2,
        -3,
        -4,
        0,
        1,
        NOW - 1,
        NOW,
        NOW + 3010,
        NOW + 20_050,
        NOW + 1_000_000,
    ];
    let ask = |time: i64| {
        let partition = ListOffsetsPartition::default()
            .with_timestamp(time)
            .with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let answer = connection.ask(&request, 8);
        let found = &answer.topics[0].partitions[0];
        assert_eq!(found.error_code, 0, "{time}:\n{}", server.log());
        (time, found.offset, found.timestamp)
    };
    times.map(ask).to_vec()
}

fn append(server: &Server, batches: &[Bytes]) {
    let mut connection = Connection::to(server);
    for batch in batches {
        let answer = connection.ask(&produce(TOPIC, 0, batch.clone(), -1), 9);
        assert_eq!(outcome(&answer).0, 0, "{}", server.log());
    }
}

#[tokio::test]
async fn what_has_become_cold_is_read_as_before() {
    let mut server = Server::start();
    // Nothing is converted before everything has been read warm.
    let settings = [("frazil.table.mode", "off")];
    server.create_topic(TOPIC, 1, &settings).await;
    append(&server, &batches());
    let (_, end, _) = times(&server)[0];
    let (before, _) = read(&server, 0, end, 1 << 20);
    let times_before = times(&server);
    assert_eq!(before.len() as i64, end);

    freeze(&server, end, &[]).await;
    // Nothing is in memory, nothing more is converted, and some is warm.
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    server.revive();
    assert_eq!(times(&server), times_before);
    for (from, bytes) in [
        (0, 1 << 20),
        (0, 1),
        (0, 5000),
        (17, 2000),
        (end - 1, 1),
        (end / 2, 1 << 16),
    ] {
        let (cold, codecs) = read(&server, from, end, bytes);
        assert!(
            cold.iter().eq(before.range(from..)),
            "from {from} by {bytes}"
        );
        // As it was produced; of several codecs in a row group, the one that costs least.
        assert!(codecs.contains(&Codec::Lz4) || bytes < 1 << 20);
        assert!(!codecs.contains(&Codec::Snappy), "{codecs:?}");
    }
    assert!(server.metric("frazil_cache_cold_reads_total") > 0);
    append(&server, &batches()[..3]);
    let (_, last, _) = times(&server)[0];
    let (both, _) = read(&server, 5, last, 1 << 20);
    assert!(both.iter().take(before.len() - 5).eq(before.range(5..)));
    assert_eq!(both.len() as i64, last - 5);
    // As the topic says.
    configure(
        &server,
        &[("compression.type", "zstd"), ("frazil.table.mode", "off")],
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let (cold, codecs) = read(&server, 0, end, 1 << 20);
    assert!(cold.iter().eq(before.iter()));
    assert!(
        codecs.iter().all(|codec| *codec == Codec::Zstd),
        "{codecs:?}"
    );
}

/// A million records of some bytes, and one of many megabytes between them, which is a page by
/// itself.
#[tokio::test]
async fn the_smallest_and_the_largest_records_freeze_and_come_back() {
    const TINY: usize = 1_000_000;
    const LARGE: usize = 44 << 20;
    let mut server = Server::start();
    let large = ("max.message.bytes", "50000000");
    server
        .create_topic(TOPIC, 1, &[large, ("frazil.table.mode", "off")])
        .await;
    let tiny = |from: usize| {
        let mut builder = BatchBuilder::new().codec(Codec::Lz4);
        for n in from..from + TINY / 20 {
            builder.push(NOW + n as i64, None, Some(&n.to_le_bytes()), &[]);
        }
        builder.build()
    };
    // No codec makes it smaller.
    let noise = || {
        let mut state = 1_u64;
        let bytes = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (state >> 56) as u8
        });
        bytes.take(LARGE).collect::<Vec<u8>>()
    };
    let mut batches: Vec<Bytes> = (0..20).map(|n| tiny(n * (TINY / 20))).collect();
    let mut builder = BatchBuilder::new();
    builder.push(NOW, Some(b"large"), Some(&noise()), &[]);
    batches.insert(10, builder.build());
    append(&server, &batches);
    drop(batches);

    let end = TINY as i64 + 1;
    freeze(&server, end, &[large]).await;
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    server.revive();
    let (cold, _) = read(&server, 0, end, 8 << 20);
    assert_eq!(cold.len() as i64, end);
    let mut tiny = 0_usize;
    for record in cold.into_values() {
        let value = record.value.unwrap();
        if record.key.is_some() {
            assert!(value == noise());
            continue;
        }
        assert_eq!(value[..], tiny.to_le_bytes());
        assert_eq!(record.timestamp, NOW + tiny as i64);
        tiny += 1;
    }
    assert!(server.metric("frazil_cache_cold_reads_total") > 0);
}

/// Has everything of the topic converted, up to `end`, and nothing after that.
async fn freeze(server: &Server, end: i64, settings: &[(&str, &str)]) {
    let mut on = settings.to_vec();
    on.extend([
        ("frazil.table.mode", "shared"),
        ("frazil.table.freshness.ms", "100"),
    ]);
    configure(server, &on).await;
    let start = Instant::now();
    while (server.metric("frazil_table_converted_rows_total") as i64) < end {
        assert!(start.elapsed() < PATIENCE, "{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut off = settings.to_vec();
    off.push(("frazil.table.mode", "off"));
    configure(server, &off).await;
}

/// Sets what a topic is set to: these and nothing else.
async fn configure(server: &Server, settings: &[(&str, &str)]) {
    use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
    let resource = ResourceSpecifier::Topic(TOPIC);
    let mut change = AlterConfig::new(resource);
    for (name, value) in settings {
        change = change.set(name, value);
    }
    // A client that is gone before the answer has come never gives it.
    let admin = server.admin();
    let results = admin.alter_configs([&change], &AdminOptions::new());
    for result in results.await.unwrap() {
        result.unwrap();
    }
}
