//! One round: every load on every side, in turns.
//!
//! Frazil begins each pass as a new process on a new directory. Kafka is started once and warmed up,
//! so that its compiler does not count; where memory is measured it is new as well. Between passes
//! everything is synced, so that nobody pays for another's dirty pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::samples::{Samples, Sources};
use super::systems::{Bench, Server, Side, create};
use super::{clients, cloud, groups, limits, load, nisshi, shapes, tables, topics};
use crate::load::batch::Codec;
use crate::load::produce::{Acks, Steady};
use crate::load::{Consumer, Consumers, Flood, flood, histogram, steady};
use crate::process::disk_bytes;
use crate::workload;

pub(crate) const PARTITIONS: i32 = 12;
pub(crate) const RECORD: usize = 1024;
/// Records of a batch: 16 KiB, the default of Kafka's producer.
pub(crate) const RECORDS: usize = 16;
/// The levels of Frazil.
const FRAZIL: [Side; 2] = [Side::Local, Side::Object];
const CONNECTIONS: usize = 4;
/// The default of Kafka's producer.
const IN_FLIGHT: usize = 5;
const GIB: f64 = (1u64 << 30) as f64;
/// Records a second where latency is measured at a low rate.
const RATE: f64 = 1000.0;
/// Windows with and without a consumer beside.
const TURNS: usize = 3;
/// What a consumer reads at most in one pass.
pub(crate) const READ_MAX: u64 = 1 << 20;

/// How long things last.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub flood: Duration,
    /// A flood where many are needed.
    pub shape: Duration,
    pub steady: Duration,
    pub limit: Duration,
    /// Records of the passes with other clients.
    pub records: u64,
}

/// Everything of one run.
pub(crate) struct Run<'a> {
    pub bench: &'a Bench,
    pub times: Times,
    pub samples: Samples,
    pub kafka: Option<Server>,
    pub only: Vec<String>,
    quick: bool,
    topics: u32,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        bench: &'a Bench,
        times: Times,
        only: Vec<String>,
        quick: bool,
    ) -> Result<Self> {
        let mut run = Self {
            bench,
            times,
            samples: Samples::default(),
            kafka: None,
            only,
            quick,
            topics: 0,
        };
        if bench.kit.is_some() {
            let kafka = bench.start(Side::Kafka)?;
            for _ in 0..2 {
                let topic = run.topic(&kafka, Side::Kafka, PARTITIONS)?;
                let load = run.flood(&kafka, &topic, PARTITIONS);
                let flow = flood(&load)?;
                let records = flow.records.min(READ_MAX);
                Consumers::start(1, &run.consumer(&kafka, &topic, records)).join()?;
                workload::delete_topic(kafka.address(), &topic)?;
            }
            run.kafka = Some(kafka);
        }
        Ok(run)
    }

    /// Every pass once; in every second round with the sides in the other order.
    pub(crate) fn round(&mut self, round: usize) -> Result<()> {
        let mut sides = vec![Side::Local, Side::Object];
        if self.kafka.is_some() {
            sides.extend([Side::Kafka, Side::KafkaSynced]);
        }
        if round % 2 == 1 {
            sides.reverse();
        }
        let unsynced: Vec<Side> = sides
            .iter()
            .copied()
            .filter(|side| *side != Side::KafkaSynced)
            .collect();
        if self.wants("limits") {
            self.limits()?;
        }
        self.each("throughput", &sides, Self::throughput)?;
        self.each("tables", &FRAZIL, tables::measure)?;
        if round == 0 || !self.quick {
            self.each("shapes", &unsynced, shapes::measure)?;
        }
        self.each("tail", &unsynced, Self::tails)?;
        self.each("latency", &sides, Self::latency)?;
        // A process of its own: of a directory's reserve of uploads each second of it uses a tenth.
        self.each("latency", &unsynced, Self::backfill)?;
        if self.wants("load") {
            self.each("load", &unsynced, load::capacity)?;
            let least = load::least(self, &unsynced)?;
            self.each("load", &unsynced, |run, server, side| {
                load::latencies(run, server, side, least)
            })?;
        }
        self.each("small", &sides, Self::small)?;
        self.each("clients", &unsynced, clients::measure)?;
        if self.wants("cloud") {
            self.note("cloud", Side::Object);
            cloud::measure(self.bench, self.times.steady, &mut self.samples).context("cloud")?;
        }
        if let Some(binary) = &self.bench.nisshi
            && self.wants("nisshi")
        {
            nisshi::measure(self, binary, round % 2 == 1)?;
        }
        if self.wants("partitions") {
            for side in &unsynced {
                self.note("partitions", *side);
                self.partitions(*side)?;
            }
        }
        let local: Vec<Side> = unsynced
            .iter()
            .copied()
            .filter(|side| *side != Side::Object)
            .collect();
        self.each("groups", &local, Self::groups)?;
        if self.wants("first") {
            for side in &local {
                self.note("first", *side);
                let value = self.bench.first_produce(*side)?;
                self.samples.add("first", *side, value);
            }
        }
        // It takes minutes; its figures are large enough to be seen once.
        if round == 0 && self.wants("topics") {
            let count = match self.quick {
                true => topics::TOPICS.1,
                false => topics::TOPICS.0,
            };
            for side in &local {
                self.note("topics", *side);
                topics::measure(self.bench, *side, count, &mut self.samples)
                    .with_context(|| format!("topics of {}", side.name()))?;
                rustix::fs::sync();
            }
        }
        Ok(())
    }

    fn wants(&self, pass: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == pass)
    }

    pub(crate) fn note(&self, pass: &str, side: Side) {
        eprintln!("{pass}: {}", side.name());
    }

    fn each(
        &mut self,
        pass: &str,
        sides: &[Side],
        measure: impl Fn(&mut Self, &Server, Side) -> Result<()>,
    ) -> Result<()> {
        if !self.wants(pass) {
            return Ok(());
        }
        for side in sides {
            self.note(pass, *side);
            let shared = matches!(side, Side::Kafka | Side::KafkaSynced);
            let server = match shared {
                true => self.kafka.take().context("Kafka runs")?,
                false => self.bench.start(*side)?,
            };
            measure(self, &server, *side).with_context(|| format!("{pass} of {}", side.name()))?;
            match shared {
                true => self.kafka = Some(server),
                false => server.discard()?,
            }
            rustix::fs::sync();
        }
        Ok(())
    }

    pub(crate) fn topic(&mut self, server: &Server, side: Side, partitions: i32) -> Result<String> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        create(server, side, &topic, partitions)?;
        Ok(topic)
    }

    pub(crate) fn flood(&self, server: &Server, topic: &str, partitions: i32) -> Flood {
        Flood {
            broker: server.address(),
            topic: topic.to_owned(),
            partitions,
            acks: -1,
            codec: Codec::None,
            size: RECORD,
            records: RECORDS,
            spread: partitions.min(PARTITIONS),
            connections: CONNECTIONS,
            in_flight: IN_FLIGHT,
            duration: self.times.flood,
            bytes: u64::MAX,
        }
    }

    fn consumer(&self, server: &Server, topic: &str, until: u64) -> Consumer {
        Consumer {
            broker: server.address(),
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            until,
            arrivals: false,
        }
    }

    /// Reads so many records of this size from offset 0, for a metric in MB/s.
    pub(crate) fn read(
        &mut self,
        metric: &'static str,
        (server, side): (&Server, Side),
        topic: &str,
        (records, size): (u64, usize),
    ) -> Result<()> {
        let before = server.counters()?;
        let read = Consumers::start(1, &self.consumer(server, topic, records)).join()?;
        let read = read.first().context("one consumer")?;
        let bytes = read.records as f64 * size as f64;
        self.samples.add(metric, side, bytes / 1e6 / read.seconds);
        self.sources(metric, (server, side), before, bytes)
    }

    /// Notes where so many bytes came from that were consumed since.
    fn sources(
        &mut self,
        metric: &'static str,
        (server, side): (&Server, Side),
        before: Option<BTreeMap<String, f64>>,
        bytes: f64,
    ) -> Result<()> {
        if let (Some(before), Some(after)) = (before, server.counters()?) {
            let sources = Sources::of(&before, &after, bytes);
            self.samples.add_sources(metric, side, sources);
        }
        Ok(())
    }

    fn throughput(&mut self, server: &Server, side: Side) -> Result<()> {
        let topic = self.topic(server, side, PARTITIONS)?;
        let process = server.process();
        let (cpu, disk) = (process.cpu()?, disk_bytes(&self.bench.dir));
        let flow = flood(&self.flood(server, &topic, PARTITIONS))?;
        let gib = flow.records as f64 * RECORD as f64 / GIB;
        self.samples.add("produce", side, flow.rate(RECORD));
        let cpu = process.cpu()? - cpu;
        self.samples.add("cpu in", side, cpu.as_secs_f64() / gib);
        // What was acknowledged and is on its way to the disk belongs to it.
        rustix::fs::sync();
        if let (Ok(before), Ok(after)) = (disk, disk_bytes(&self.bench.dir)) {
            let written = (after - before) as f64;
            self.samples.add("disk", side, written / (gib * GIB));
        }
        if side != Side::KafkaSynced {
            let records = flow.records.min(READ_MAX);
            let cpu = process.cpu()?;
            self.read("catch-up", (server, side), &topic, (records, RECORD))?;
            let cpu = (process.cpu()? - cpu).as_secs_f64();
            let gib = records as f64 * RECORD as f64 / GIB;
            self.samples.add("cpu out", side, cpu / gib);
        }
        workload::delete_topic(server.address(), &topic)
    }

    fn tails(&mut self, server: &Server, side: Side) -> Result<()> {
        for (metric, produced, count) in [("tail", "tail in", 1), ("fan-out", "fan-out in", 4)] {
            let topic = self.topic(server, side, PARTITIONS)?;
            let before = server.counters()?;
            let consumers = Consumers::start(count, &self.consumer(server, &topic, u64::MAX));
            let flow = flood(&self.flood(server, &topic, PARTITIONS))?;
            self.samples.add(produced, side, flow.rate(RECORD));
            let records = consumers.records();
            consumers.stop();
            consumers.join()?;
            let seconds = self.times.flood.as_secs_f64();
            let rate = records as f64 * RECORD as f64 / 1e6 / seconds;
            self.samples.add(metric, side, rate);
            self.sources(
                metric,
                (server, side),
                before,
                records as f64 * RECORD as f64,
            )?;
            workload::delete_topic(server.address(), &topic)?;
        }
        Ok(())
    }

    pub(crate) fn steady(&self, server: &Server, topic: &str) -> Steady {
        Steady {
            broker: server.address(),
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            acks: -1,
            size: RECORD,
            rate: RATE,
            in_flight: IN_FLIGHT,
            duration: self.times.steady,
        }
    }

    /// Latency of a lone producer, and of a consumer at its heels.
    fn latency(&mut self, server: &Server, side: Side) -> Result<()> {
        let topic = self.topic(server, side, PARTITIONS)?;
        let load = self.steady(server, &topic);
        let mut consumer = self.consumer(server, &topic, u64::MAX);
        consumer.arrivals = true;
        let consumers = Consumers::start(1, &consumer);
        let acks = steady(&load)?;
        // The last records are still to come: a long poll at most.
        std::thread::park_timeout(Duration::from_millis(600));
        consumers.stop();
        let arrivals = consumers.join()?.remove(0).arrivals;
        self.quantiles(("ack p50", "ack p99"), side, &acks.latency);
        let mut latency = histogram()?;
        for batch in &acks.batches {
            let stored = batch.stored;
            let arrival = arrivals
                .iter()
                .find(|a| a.partition == stored.partition && a.next > stored.base)
                .context("a record that did not arrive")?;
            for record in batch.first..batch.first + batch.count {
                let due = acks.due(record, load.rate);
                let late = arrival.at.saturating_duration_since(due);
                latency.saturating_record(late.as_micros() as u64);
            }
        }
        self.quantiles(("end to end p50", "end to end p99"), side, &latency);
        workload::delete_topic(server.address(), &topic)
    }

    /// Latency of a producer beside a consumer that reads other data from its beginning, and without one, in turns:
    /// the p99 of a single window says more of the disk's mood than of the consumer.
    fn backfill(&mut self, server: &Server, side: Side) -> Result<()> {
        let old = self.topic(server, side, PARTITIONS)?;
        let flow = flood(&Flood {
            // More than is kept in memory, and twice what is read.
            bytes: READ_MAX / 2 * RECORD as u64,
            ..self.flood(server, &old, PARTITIONS)
        })?;
        rustix::fs::sync();
        let topic = self.topic(server, side, PARTITIONS)?;
        let consumer = self.consumer(server, &old, flow.records.min(READ_MAX / 4));
        let load = Steady {
            duration: self.times.steady / 4,
            ..self.steady(server, &topic)
        };
        let (mut alone, mut beside) = (histogram()?, histogram()?);
        for _ in 0..TURNS {
            alone.add(&steady(&load)?.latency)?;
            beside.add(&steady_beside(&load, &consumer)?.latency)?;
        }
        for (metric, latency) in [("alone p99", alone), ("backfill p99", beside)] {
            let p99 = latency.value_at_quantile(0.99) as f64 / 1e3;
            self.samples.add(metric, side, p99);
        }
        workload::delete_topic(server.address(), &old)?;
        workload::delete_topic(server.address(), &topic)
    }

    fn quantiles(
        &mut self,
        (p50, p99): (&'static str, &'static str),
        side: Side,
        latency: &hdrhistogram::Histogram<u64>,
    ) {
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        self.samples.add(p50, side, at(0.5));
        self.samples.add(p99, side, at(0.99));
    }

    /// Many connections with one record of 1 KiB on the way each.
    fn small(&mut self, server: &Server, side: Side) -> Result<()> {
        let topic = self.topic(server, side, PARTITIONS)?;
        let load = Flood {
            records: 1,
            spread: 1,
            connections: 200,
            in_flight: 1,
            ..self.flood(server, &topic, PARTITIONS)
        };
        let flow = flood(&load)?;
        self.samples
            .add("small", side, flow.requests as f64 / flow.seconds);
        workload::delete_topic(server.address(), &topic)
    }

    /// Rebalances of a group; the broker is under no other load.
    fn groups(&mut self, server: &Server, side: Side) -> Result<()> {
        let took = groups::measure(server.address())?;
        self.samples.add("group join", side, took.join);
        self.samples.add("group leave", side, took.leave);
        Ok(())
    }

    /// 1 000 partitions, then 10, of a process that has done nothing else.
    fn partitions(&mut self, side: Side) -> Result<()> {
        let server = self.bench.start(side)?;
        for (metric, partitions) in [("many", 1000), ("few", 10)] {
            let topic = self.topic(&server, side, partitions)?;
            let mut load = self.flood(&server, &topic, partitions);
            load.spread = 10;
            let flow = flood(&load)?;
            self.samples.add(metric, side, flow.rate(RECORD));
            if metric == "many" {
                let rss = server.process().peak_rss_mib()?;
                self.samples.add("rss", side, rss);
            }
        }
        server.discard()?;
        rustix::fs::sync();
        Ok(())
    }

    fn limits(&mut self) -> Result<()> {
        let window = self.times.limit;
        let frame = (RECORD + 10) * RECORDS * PARTITIONS as usize;
        let dir = &self.bench.dir;
        let (p50, p99) = limits::two_syncs(dir, window)?;
        let (_, paced) = limits::paced_syncs(dir, RATE, self.times.steady / 2, false)?;
        let (_, beside) = limits::paced_syncs(dir, RATE, self.times.steady / 2, true)?;
        for (metric, value) in [
            ("loopback echo", limits::loopback(frame, true, window)?),
            ("loopback", limits::loopback(frame, false, window)?),
            (
                "sequential write",
                limits::sequential_write(dir, 10.0, window)?,
            ),
            ("two syncs p50", p50),
            ("two syncs p99", p99),
            ("paced syncs p99", paced),
            ("paced syncs beside p99", beside),
            ("direct write", limits::direct_write(dir, 2, window)?),
            ("files", limits::files(dir, 4, window)?),
            ("crc-32c", limits::checksum(window)),
            ("memcpy", limits::copy(window)),
        ] {
            self.samples.add(metric, Side::Machine, value);
        }
        rustix::fs::sync();
        Ok(())
    }
}

/// A producer beside a consumer that reads the same again and again.
fn steady_beside(load: &Steady, consumer: &Consumer) -> Result<Acks> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let backfill = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                let consumers = Consumers::start(1, consumer);
                while !done.load(Ordering::Relaxed) && consumers.run() {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                consumers.stop();
                consumers.join()?;
            }
            Ok(())
        });
        let acks = steady(load);
        done.store(true, Ordering::Relaxed);
        let ended = backfill.join();
        ensure!(matches!(ended, Ok(Ok(()))), "the consumer failed");
        acks
    })
}
