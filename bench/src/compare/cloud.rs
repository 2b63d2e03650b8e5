//! Frazil over a store as slow as Amazon S3 usually is: PUTs of 30 ms at the median and 120 ms at p99,
//! GETs of 15 ms and 80 ms, drawn by a server in this process: one node alone, then a fleet, for what
//! it would cost. No Kafka stands beside it but in figures that are calculated.

use std::time::Duration;

use anyhow::{Context as _, Result};
use frazil_store::{Faults, Operation, Options, Store};
use hdrhistogram::Histogram;

use super::prices::PerGib;
use super::samples::Samples;
use super::systems::{Bench, Side};
use super::zones;
use crate::broker::Broker;
use crate::load::consume::readable;
use crate::load::produce::Steady;
use crate::load::steady;
use crate::workload;

/// What the store is told, in milliseconds.
const PUT: (f64, f64) = (30.0, 120.0);
/// A lone producer, slow enough to find a PUT in the budget each time.
const LONE: f64 = 3.0;
/// 50 MiB/s in records of 1 KiB, and half of it.
const FULL: f64 = 51_200.0;
const RECORD: usize = 1024;
/// The rate at which latency is measured elsewhere.
const LOW: f64 = 1000.0;
/// How long a load lasts before it counts.
pub(crate) const SETTLING: Duration = Duration::from_secs(3);
const PARTITIONS: i32 = 12;

/// Adds acknowledgements of a lone producer and under load, requests, bytes between zones, and what
/// they cost.
pub(crate) fn measure(bench: &Bench, window: Duration, samples: &mut Samples) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let options = Options {
        faults: Faults::default().s3_latency(),
        ..Options::default()
    };
    let store = runtime.block_on(Store::start(options))?;
    let mut settings = vec!["store.url=s3://bench/compare".to_owned()];
    for (name, value) in store.settings() {
        settings.push(format!("store.options.{name}={value}"));
    }
    let data = bench.fresh("cloud");
    let broker = Broker::with(&bench.frazil, &data, &settings)?;
    let topic = "cloud";
    let level = [("retention.ms", "-1"), ("frazil.durability", "object")];
    workload::create_topics(broker.kafka, &[topic.to_owned()], PARTITIONS, &level)?;
    readable(broker.kafka, topic, PARTITIONS)?;
    let load = |rate, duration| Steady {
        broker: broker.kafka,
        topic: topic.to_owned(),
        partitions: PARTITIONS,
        acks: -1,
        size: RECORD,
        rate,
        in_flight: 64,
        duration,
    };
    // A gateway that was idle has PUTs saved up, and has yet to see what comes: that is over before
    // anything is counted.
    let settled = |rate| -> Result<(Histogram<u64>, f64)> {
        steady(&load(rate, SETTLING))?;
        store.reset_counters();
        let latency = steady(&load(rate, window))?.latency;
        let puts = store.counters().of(Operation::Put) as f64;
        let gib = latency.len() as f64 * RECORD as f64 / f64::from(1 << 30);
        Ok((latency, puts / gib))
    };
    let milliseconds =
        |latency: &Histogram<u64>, quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let lone = steady(&load(LONE, window))
        .context("a lone producer")?
        .latency;
    let low = Steady {
        in_flight: 5,
        ..load(LOW, window)
    };
    let low = steady(&low).context("1 000 records/s")?.latency;
    let (half, half_puts) = settled(FULL / 2.0).context("half the load")?;
    let (full, puts) = settled(FULL).context("50 MiB/s")?;
    for (metric, side, value) in [
        ("lone p50", Side::Object, milliseconds(&lone, 0.5)),
        ("low p50", Side::Object, milliseconds(&low, 0.5)),
        ("low p99", Side::Object, milliseconds(&low, 0.99)),
        ("half p99", Side::Object, milliseconds(&half, 0.99)),
        ("half puts", Side::Object, half_puts),
        ("full p99", Side::Object, milliseconds(&full, 0.99)),
        ("puts", Side::Object, puts),
        ("put p50", Side::Machine, PUT.0),
        ("put p99", Side::Machine, PUT.1),
    ] {
        samples.add(metric, side, value);
    }
    broker.kill()?;
    std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    let fleet = zones::measure(bench, PARTITIONS, (RECORD, FULL), window)?;
    for (side, counted) in [(Side::Object, fleet), (Side::KafkaZones, PerGib::kafka())] {
        let bill = counted.bill();
        for (metric, value) in [
            ("fleet puts", counted.puts),
            ("fleet gets", counted.gets),
            ("crossing", counted.bytes / f64::from(1 << 20)),
            ("put dollars", bill.puts),
            ("get dollars", bill.gets),
            ("zone dollars", bill.zones),
            ("dollars", bill.total()),
        ] {
            samples.add(metric, side, value);
        }
    }
    Ok(())
}
