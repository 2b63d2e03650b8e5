//! The gateways of a zone share what they fetch.

use std::sync::Arc;
use std::time::Instant;

use frazil_core::batch::BatchHeader;
use frazil_store::{Operation, Options, Store};
use kafka_protocol::messages::ProduceRequest;

use crate::raw::{Connection, batch, fetch, fetched, outcome, produce};
use crate::server::{PATIENCE, Server, free_address};

const PARTITIONS: i32 = 4;

/// Records of half a MiB in each partition. More of them give a better figure.
fn records() -> i64 {
    match std::env::var("ZONE_RECORDS") {
        Ok(records) => records.parse().expect("a number of records"),
        Err(_) => 24,
    }
}

/// Reads every partition from its beginning to its end, a bit of each in turn.
fn read_all(server: &Server) {
    let end = records();
    let mut connection = Connection::to(server);
    let mut next = [0; PARTITIONS as usize];
    let start = Instant::now();
    while next.iter().any(|next| *next < end) {
        assert!(start.elapsed() < PATIENCE, "{next:?}:\n{}", server.log());
        for (partition, next) in (0..).zip(&mut next) {
            if *next == end {
                continue;
            }
            let answer = connection.ask(&fetch("old", partition, *next, 1 << 20), 12);
            let (error, bytes) = fetched(&answer);
            assert_eq!(error, 0, "{}", server.log());
            let mut at = 0;
            while at < bytes.len() {
                let header = BatchHeader::parse(&bytes[at..]).unwrap();
                header.check_crc(&bytes[at..]).unwrap();
                assert_eq!(header.base_offset, *next);
                *next += 1;
                at += header.length as usize;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_fetch_what_four_readers_want_once() {
    let store = Store::start(Options::default()).await.unwrap();
    let peers = free_address();
    let mut common = vec![
        "store.url=s3://bucket/some/where".to_owned(),
        format!("controller.quorum.voters=1@{peers}"),
        "broker.rack=a".to_owned(),
        // Nobody has it because it wrote it.
        "cache.tail.bytes=0".to_owned(),
        "metadata.archive.interval.ms=0".to_owned(),
    ];
    for (name, value) in store.settings() {
        common.push(format!("store.options.{name}={value}"));
    }
    let start = move |mut settings: Vec<String>| {
        settings.extend(common.clone());
        tokio::task::spawn_blocking(move || {
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            Server::with(&settings)
        })
    };
    // One of them is the voter too.
    let mut gateways = Vec::new();
    for id in [1, 11, 12] {
        let (roles, listen) = match id {
            1 => ("gateway,metadata,compactor", peers),
            _ => ("gateway", free_address()),
        };
        let settings = [
            format!("node.id={id}"),
            format!("roles={roles}"),
            format!("peer.listen={listen}"),
        ];
        gateways.push(start(settings.to_vec()).await.unwrap());
    }
    // The compactor reads too, which is not counted here.
    let settings = [("frazil.table.mode", "off")];
    gateways[0].create_topic("old", PARTITIONS, &settings).await;
    let gateways = Arc::new(gateways);
    let writer = Arc::clone(&gateways);
    let write = move || {
        let count = records();
        let records = batch(&[&"x".repeat(1 << 19)], None);
        let mut connection = Connection::to(&writer[0]);
        // Many at a time, so that segments become large.
        for first in (0..count).step_by(12) {
            let offsets = first..(first + 12).min(count);
            let mut sent = Vec::new();
            for offset in offsets {
                for partition in 0..PARTITIONS {
                    let request = produce("old", partition, records.clone(), -1);
                    sent.push((connection.send(&request, 9), offset));
                }
            }
            for (correlation, offset) in sent {
                let answer = connection.receive::<ProduceRequest>(correlation, 9);
                assert_eq!(outcome(&answer), (0, offset));
            }
        }
    };
    tokio::task::spawn_blocking(write).await.unwrap();
    let keys = store.keys("bucket").await;
    let segments = keys.iter().filter(|key| key.contains("/segments/"));
    let segments = segments.count() as u64;
    store.reset_counters();

    let readers = [0, 1, 2, 0].map(|n| {
        let gateways = Arc::clone(&gateways);
        tokio::task::spawn_blocking(move || read_all(&gateways[n]))
    });
    for reader in readers {
        reader.await.unwrap();
    }
    let gets = store.counters().of(Operation::Get);
    let mib = records() as u64 * PARTITIONS as u64 / 2;
    println!(
        "{gets} GETs for {mib} MiB in {segments} segments, {} per GiB",
        gets * 1024 / mib
    );
    for name in [
        "gets",
        "gets_hedged",
        "peer_blocks",
        "peer_hedges",
        "peer_failures",
    ] {
        let name = format!("frazil_cache_{name}_total");
        println!(
            "{name} {:?}",
            gateways.iter().map(|g| g.metric(&name)).collect::<Vec<_>>()
        );
    }
    // Each on its own would fetch three times as much. On a busy machine one may be too slow to
    // answer at times, and the store is asked instead.
    let stripes = mib / 5 + segments;
    assert!(2 * gets <= 3 * stripes, "{gets} GETs for {stripes} stripes");
    for gateway in gateways.iter() {
        assert!(gateway.metric("frazil_cache_peer_blocks_total") > 0);
        assert!(gateway.metric("frazil_cache_gets_total") > 0);
    }
}
