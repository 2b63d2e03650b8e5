//! The object store goes away and comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use frazil_store::{Fault, Operation, Options, Outage, Rule, Store};
use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use rdkafka::Offset;
use rdkafka::message::Message;

use crate::produce::{next, reader};
use crate::raw::{Connection, batch, fetch, fetched, outcome, produce};
use crate::server::{PATIENCE, Server};

const OK: i16 = 0;
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_ENOUGH_REPLICAS: i16 = 19;

/// A store, and a broker on it with little memory and a small log.
async fn start() -> (Store, Server) {
    let store = Store::start(Options::default()).await.unwrap();
    let mut settings = vec![
        "store.url=s3://bucket/some/where".to_owned(),
        "message.max.bytes=200000".to_owned(),
        "socket.request.max.bytes=300000".to_owned(),
        "flush.segment.bytes=1MiB".to_owned(),
        "flush.buffer.bytes=4MiB".to_owned(),
        "wal.bytes=4MiB".to_owned(),
    ];
    for (name, value) in store.settings() {
        settings.push(format!("store.options.{name}={value}"));
    }
    let server = tokio::task::spawn_blocking(move || {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Server::with(&settings)
    });
    let server = server.await.unwrap();
    for level in ["object", "local"] {
        server
            .create_topic(level, 1, &[("frazil.durability", level)])
            .await;
    }
    (store, server)
}

/// A value of 64 KiB that begins with a number.
fn value(number: usize) -> String {
    format!("{number:08} {}", "x".repeat(65_000))
}

fn send(connection: &mut Connection, topic: &str, number: usize) -> i16 {
    let mut request = produce(topic, 0, batch(&[&value(number)], None), -1);
    request.timeout_ms = 2_000;
    outcome(&connection.ask::<ProduceRequest>(&request, 9)).0
}

/// The numbers of all records of a topic, by offset.
fn numbers(server: &Server, topic: &str, count: usize) -> Vec<usize> {
    let consumer = reader(server, topic, 0, Offset::Beginning);
    (0..count)
        .map(|n| {
            let record = next(&consumer);
            assert_eq!(record.offset(), n as i64);
            let text = std::str::from_utf8(&record.payload().unwrap()[..8]).unwrap();
            text.parse().unwrap()
        })
        .collect()
}

fn end(server: &Server, topic: &str) -> usize {
    use rdkafka::consumer::Consumer as _;
    let consumer = reader(server, topic, 0, Offset::Beginning);
    let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    assert_eq!(low, 0);
    high as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_goes_on_until_its_log_is_full_and_then_by_itself() {
    let (store, mut server) = start().await;
    let mut connection = Connection::to(&server);
    store.faults().outage(Some(Outage::Reset));
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let number = acknowledged.len();
        assert!(number < 200, "the log has no end");
        match send(&mut connection, "local", number) {
            OK => acknowledged.push(number),
            refusal => break refusal,
        }
    };
    assert_eq!(refusal, NOT_ENOUGH_REPLICAS);
    assert!(acknowledged.len() > 50, "{} fit", acknowledged.len());
    // Whoever reads what is in memory goes on.
    let answer = connection.ask::<FetchRequest>(&fetch("local", 0, 40, 1 << 20), 11);
    let (code, records) = fetched(&answer);
    assert_eq!(code, OK);
    assert!(records.len() > 65_000);

    store.reset_counters();
    store.faults().outage(None);
    let begun = Instant::now();
    while send(&mut connection, "local", acknowledged.len()) != OK {
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    acknowledged.push(acknowledged.len());
    // Six uploads at a time, and what others ask: everybody who waited does not come at once.
    let peak = store.counters().in_flight_peak;
    assert!((1..=10).contains(&peak), "{peak} requests at once");
    assert_eq!(end(&server, "local"), acknowledged.len());
    server.kill();
    server.revive();
    assert_eq!(numbers(&server, "local", acknowledged.len()), acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_is_held_back_and_what_was_refused_is_never_there() {
    let (store, server) = start().await;
    let before = memory(&server);
    for outage in [Outage::Reset, Outage::Hang] {
        store.faults().outage(Some(outage));
        // Ten times what the broker may hold.
        let producers: Vec<_> = (0..16)
            .map(|producer| {
                let mut connection = Connection::to(&server);
                tokio::task::spawn_blocking(move || {
                    (0..3)
                        .map(|n| {
                            let number = producer * 100 + n;
                            (number, send(&mut connection, "object", number))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for producer in producers {
            for (number, code) in producer.await.unwrap() {
                let retriable = [REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS];
                assert!(retriable.contains(&code), "{number}: {code}");
            }
        }
        let grown = memory(&server).saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more than before");
        store.faults().outage(None);
    }
    let mut connection = Connection::to(&server);
    let begun = Instant::now();
    let mut last = 10_000;
    while send(&mut connection, "object", last) != OK {
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
        last += 1;
    }
    // What timed out may be there; each of it once in each round, and nothing in between is lost.
    let found = numbers(&server, "object", end(&server, "object"));
    assert!(found.contains(&last));
    let once: BTreeSet<_> = found.iter().collect();
    assert!(found.len() <= 2 * once.len());
}

/// The broker's resident memory in bytes.
fn memory(server: &Server) -> u64 {
    let (_, metrics) = server.get("/metrics").unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("process_resident_memory_bytes "));
    let value = line.unwrap().split(' ').nth(1).unwrap();
    value.parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_503_costs_time_and_few_requests() {
    let (store, server) = start().await;
    let storm = Rule::new(&[Operation::Put], Fault::status(503)).probability(0.5);
    store.faults().add(storm.named("storm"));
    store.reset_counters();
    let mut connection = Connection::to(&server);
    for number in 0..60 {
        let begun = Instant::now();
        while send(&mut connection, "local", number) != OK {
            assert!(begun.elapsed() < PATIENCE, "nothing gets through");
        }
    }
    store.faults().remove("storm");
    let begun = Instant::now();
    while metric(&server, "frazil_cache_wal_held_bytes") > 0 {
        assert!(begun.elapsed() < PATIENCE, "the log does not get empty");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let counters = store.counters();
    let done = counters.with_status(Operation::Put, 200);
    let refused = counters.with_status(Operation::Put, 503);
    let seconds = begun.elapsed().as_secs() + 60;
    assert!(done > 0);
    assert!(
        refused <= 20 + done / 5 + 5 * seconds,
        "{refused} refused, {done} done"
    );
    assert_eq!(numbers(&server, "local", 60), Vec::from_iter(0..60));
    assert!(metric(&server, "frazil_store_failures_total") >= refused);
}

fn metric(server: &Server, name: &str) -> u64 {
    let (_, metrics) = server.get("/metrics").unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("no metric {name} in {metrics}"));
    line.split(' ').nth(1).unwrap().parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_told_with_what_to_do_and_tried_on() {
    let (store, server) = start().await;
    let denied = Rule::new(&[Operation::Put], Fault::status(403)).named("denied");
    store.faults().add(denied);
    let mut connection = Connection::to(&server);
    assert_eq!(send(&mut connection, "local", 0), OK);
    let begun = Instant::now();
    while metric(&server, "frazil_store_permanent_failures_total") == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing was tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = server.log();
    assert!(log.contains("check the credentials"), "{log}");
    store.faults().remove("denied");
    let begun = Instant::now();
    while metric(&server, "frazil_cache_wal_held_bytes") > 0 {
        assert!(begun.elapsed() < PATIENCE, "it is not tried any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(server.log().contains("the object store works again"));
}
