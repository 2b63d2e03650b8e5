//! Topics as tables: what conversion costs, what cold reads cost beside reads of segments and beside
//! plain Parquet, how soon rows are seen, and how many bytes it all takes.
//!
//! ```text
//! gateway and metadata ──┐
//!                        ├── a directory as the store
//! compactor, by itself ──┘        so that its processor time and memory are known
//! ```
//!
//! Rates are of keys and values before compression, per second of processor time of the process
//! that does the work, user and system. Everything is served from the page cache.

mod decode;
mod input;
mod reads;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use self::input::{Numbers, PARTITIONS, Produced};
use crate::broker::{Broker, free_address, sibling};
use crate::load::frames::{self, Link};
use crate::workload;

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// MB of records of 1 KiB
    #[arg(long, default_value_t = 500)]
    megabytes: u64,
    /// Reads at random offsets
    #[arg(long, default_value_t = 300)]
    reads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const MIB: f64 = (1 << 20) as f64;
const RECORDS: u64 = 1000;
const COLD: &str = "cold";
const SEGMENTS: &str = "segments";
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    /// What it should be.
    aim: Option<String>,
    met: Option<bool>,
}

struct Table {
    rows: Vec<Row>,
    json: bool,
}

/// Which values are good enough.
#[derive(Clone, Copy)]
enum Aim {
    None,
    AtLeast(f64),
    AtMost(f64),
}

impl Table {
    fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, aim: Aim) {
        let (text, met) = match aim {
            Aim::None => (None, None),
            Aim::AtLeast(least) => (Some(format!("≥ {least}")), Some(value >= least)),
            Aim::AtMost(most) => (Some(format!("≤ {most}")), Some(value <= most)),
        };
        let figure = figure.into();
        if !self.json {
            let verdict = match met {
                None => "",
                Some(true) => "met",
                Some(false) => "missed",
            };
            let aim = text.as_deref().unwrap_or("");
            println!("{figure:<62} {value:>10.3} {unit:<8} {aim:<8} {verdict}");
        }
        self.rows.push(Row {
            figure,
            value,
            unit,
            aim: text,
            met,
        });
    }
}

/// A gateway that is its own quorum, and a place for a compactor beside it.
struct Site {
    binary: PathBuf,
    dir: PathBuf,
    voters: String,
    peer: String,
}

impl Site {
    fn new(binary: PathBuf, dir: &Path) -> Result<Self> {
        let peer = free_address()?.to_string();
        Ok(Self {
            binary,
            dir: dir.to_owned(),
            voters: format!("1@{peer}"),
            peer,
        })
    }

    fn settings(&self, id: u32, roles: &str, peer: &str) -> Vec<String> {
        vec![
            format!("node.id={id}"),
            format!("roles={roles}"),
            format!("controller.quorum.voters={}", self.voters),
            format!("peer.listen={peer}"),
            format!("store.url=file:{}", self.dir.join("store").display()),
        ]
    }

    fn gateway(&self) -> Result<Broker> {
        let settings = self.settings(1, "gateway,metadata", &self.peer);
        Broker::with(&self.binary, &self.dir.join("gateway"), &settings)
    }

    fn compactor(&self) -> Result<Broker> {
        let peer = free_address()?.to_string();
        let settings = self.settings(2, "compactor", &peer);
        Broker::with(&self.binary, &self.dir.join("compactor"), &settings)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = options.frazil.clone().map_or_else(sibling, Ok)?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut table = Table {
        rows: Vec::new(),
        json: options.json,
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if !options.json {
        println!("load before: {}", load.trim());
    }
    let site = Site::new(binary, dir.path())?;
    let gateway = site.gateway()?;
    let topics = [COLD.to_owned(), SEGMENTS.to_owned()];
    workload::create_topics(gateway.kafka, &topics[1..], PARTITIONS, &[])?;
    let shared = [
        ("frazil.table.mode", "shared"),
        ("frazil.table.freshness.ms", "1000"),
    ];
    workload::create_topics(gateway.kafka, &topics[..1], PARTITIONS, &shared)?;
    let produced = input::produce(gateway.kafka, &[COLD, SEGMENTS], options.megabytes)?;

    convert(&site, &gateway, produced, &mut table)?;
    gateway.stop()?;
    scans(&site, produced, &mut table)?;
    random_reads(&site, produced, options.reads, &mut table)?;
    freshness(&site, &mut table)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&table.rows)?);
    }
    Ok(())
}

fn metric(broker: &Broker, name: &str) -> Result<f64> {
    let metrics = broker.metrics()?;
    metrics
        .get(name)
        .copied()
        .with_context(|| format!("the node has no metric {name}"))
}

fn convert(site: &Site, gateway: &Broker, produced: Produced, table: &mut Table) -> Result<()> {
    let compactor = site.compactor()?;
    let start = Instant::now();
    while rows_seen(gateway, COLD)? < i64::try_from(produced.records)? {
        ensure!(start.elapsed() < PATIENCE, "the conversion does not end");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let took = start.elapsed().as_secs_f64();
    let spent = compactor.cpu()?.as_secs_f64();
    let mib = produced.bytes as f64 / MIB;
    let stored = metric(&compactor, "frazil_table_written_bytes_total")?;
    let read = metric(&compactor, "frazil_table_converted_bytes_total")?;
    let jobs = metric(&compactor, "frazil_table_jobs_total")?;
    table.add(
        "conversion, of records, per core",
        mib / spent,
        "MiB/s",
        Aim::AtLeast(150.0),
    );
    table.add(
        "conversion, of segments compressed with lz4, per core",
        read / MIB / spent,
        "MiB/s",
        Aim::None,
    );
    table.add("conversions", jobs, "", Aim::None);
    table.add("conversion, on the clock", mib / took, "MiB/s", Aim::None);
    table.add(
        "peak memory of the compactor",
        compactor.peak_rss_mib()?,
        "MiB",
        Aim::AtMost(256.0),
    );
    let ratio = stored / produced.bytes as f64;
    table.add(
        "bytes stored per byte produced",
        ratio,
        "",
        Aim::AtMost(0.4),
    );
    compactor.stop()?;
    Ok(())
}

fn scans(site: &Site, produced: Produced, table: &mut Table) -> Result<()> {
    let mib = produced.bytes as f64 / MIB;
    for (topic, aim) in [(COLD, Aim::AtLeast(200.0)), (SEGMENTS, Aim::None)] {
        // Nothing of it is in the memory of a new process.
        let gateway = site.gateway()?;
        let (cpu, gets) = (gateway.cpu()?, metric(&gateway, "frazil_cache_gets_total")?);
        let took = reads::scan(gateway.kafka, topic, produced.records)?;
        let spent = (gateway.cpu()? - cpu).as_secs_f64();
        let gets = metric(&gateway, "frazil_cache_gets_total")? - gets;
        table.add(
            format!("scan of {topic}, per core of the gateway"),
            mib / spent,
            "MiB/s",
            aim,
        );
        table.add(
            format!("scan of {topic}, one consumer, on the clock"),
            mib / took.as_secs_f64(),
            "MiB/s",
            Aim::None,
        );
        table.add(
            format!("GETs per GiB of records, {topic}"),
            gets / (mib / 1024.0),
            "",
            Aim::None,
        );
        table.add(
            format!("peak memory of the gateway, scan of {topic}"),
            gateway.peak_rss_mib()?,
            "MiB",
            Aim::None,
        );
        gateway.stop()?;
    }
    let files = decode::files(&site.dir.join("store"))?;
    let (rows, spent) = decode::read_all(&files)?;
    ensure!(
        rows >= produced.records,
        "{rows} rows in the files of {} records",
        produced.records
    );
    // Files that a merge has replaced are there too, until the collector takes them.
    let share = rows as f64 / produced.records as f64;
    table.add(
        "the parquet crate decodes the same files",
        mib * share / spent.as_secs_f64(),
        "MiB/s",
        Aim::None,
    );
    Ok(())
}

fn random_reads(site: &Site, produced: Produced, reads: usize, table: &mut Table) -> Result<()> {
    let per_partition = produced.records / PARTITIONS as u64;
    let wanted = (per_partition, RECORDS);
    let mut numbers = Numbers(0x1234_5678_9ABC_DEF1);
    // Nothing in memory at all: the first read of a process.
    let mut first = Vec::new();
    for _ in 0..5 {
        let gateway = site.gateway()?;
        let took = reads::random(gateway.kafka, COLD, wanted, 1, &mut numbers)?;
        let gets = metric(&gateway, "frazil_cache_cold_gets_total")?;
        first.push((took.max(), gets));
        gateway.stop()?;
    }
    let most = first.iter().map(|(_, gets)| *gets).fold(0.0, f64::max);
    table.add(
        "GETs of a process's first read of 1 000 records, at most",
        most,
        "",
        Aim::AtMost(3.0),
    );
    let slowest = first.iter().map(|(took, _)| *took).max().unwrap_or(0);
    table.add(
        "a process's first read of 1 000 records, slowest of 5",
        slowest as f64 / 1e3,
        "ms",
        Aim::None,
    );
    let gateway = site.gateway()?;
    for (what, aim) in [("row groups unknown", 3.0), ("indexes known", 1.0)] {
        let before = metric(&gateway, "frazil_cache_cold_gets_total")?;
        let took = reads::random(gateway.kafka, COLD, wanted, reads, &mut numbers)?;
        let gets = metric(&gateway, "frazil_cache_cold_gets_total")? - before;
        for (name, quantile, aim) in [("p50", 0.5, Aim::None), ("p99", 0.99, Aim::AtMost(20.0))] {
            table.add(
                format!("1 000 records at random offsets, {what}, {name}"),
                took.value_at_quantile(quantile) as f64 / 1e3,
                "ms",
                aim,
            );
        }
        table.add(
            format!("GETs per read, {what}"),
            gets / reads as f64,
            "",
            Aim::AtMost(aim),
        );
    }
    gateway.stop()?;
    Ok(())
}

/// How soon an acknowledged record is in the table that the catalog shows.
fn freshness(site: &Site, table: &mut Table) -> Result<()> {
    let gateway = site.gateway()?;
    let compactor = site.compactor()?;
    for (topic, ms, most) in [
        ("fresh-soon", "5000", 10.0),
        ("fresh-default", "60000", 90.0),
    ] {
        let settings = [
            ("frazil.table.mode", "shared"),
            ("frazil.table.freshness.ms", ms),
        ];
        workload::create_topics(gateway.kafka, &[topic.to_owned()], 1, &settings)?;
        // One in front, so that the table exists.
        let mut slowest = 0.0f64;
        for rows in 1..=2 {
            let mut link = Link::to(gateway.kafka)?;
            let batch = crate::load::batch::batch(1, 100, crate::load::batch::Codec::None)?;
            let mut frame = frames::produce(topic, -1, &[(0, &batch)]);
            link.send(&mut frame, rows)?;
            frames::produced(link.receive(rows)?, |_| ())?;
            let acknowledged = Instant::now();
            while rows_seen(&gateway, topic)? < i64::from(rows) {
                ensure!(
                    acknowledged.elapsed() < PATIENCE,
                    "the row does not appear in the catalog"
                );
                std::thread::park_timeout(Duration::from_millis(50));
            }
            slowest = slowest.max(acknowledged.elapsed().as_secs_f64());
        }
        table.add(
            format!("acknowledged to visible in the catalog, freshness {ms} ms"),
            slowest,
            "s",
            Aim::AtMost(most),
        );
    }
    compactor.stop()?;
    gateway.stop()?;
    Ok(())
}

/// Rows of a topic's table, by the summary of the snapshot that the catalog names.
fn rows_seen(gateway: &Broker, topic: &str) -> Result<i64> {
    let path = format!("/iceberg/v1/namespaces/frazil/tables/{topic}");
    let (status, body) = gateway.get(&path)?;
    if status == 404 {
        return Ok(0);
    }
    ensure!(status == 200, "the catalog answers {status}: {body}");
    let body: serde_json::Value = serde_json::from_str(&body)?;
    let metadata = &body["metadata"];
    let current = &metadata["current-snapshot-id"];
    let snapshots = metadata["snapshots"].as_array();
    let snapshot = snapshots
        .into_iter()
        .flatten()
        .find(|snapshot| snapshot["snapshot-id"] == *current);
    let Some(snapshot) = snapshot else {
        return Ok(0);
    };
    match snapshot["summary"]["total-records"].as_str() {
        Some(rows) => Ok(rows.parse()?),
        None => bail!("a snapshot without a number of records: {snapshot}"),
    }
}
