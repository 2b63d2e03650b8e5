//! The figures of one broker, one run, on a temporary directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::{Broker, sibling};
use crate::sheet::{Sheet, milliseconds};
use crate::workload;
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// MB of 1 KiB records per throughput figure
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
    /// Seconds per latency and idle figure
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PARTITIONS: i32 = 12;
const RECORD: usize = 1024;

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = options.frazil.clone().map_or_else(sibling, Ok)?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut sheet = Sheet::new(options.json);
    start_and_idle(&binary, dir.path(), options, &mut sheet)?;
    for level in ["object", "local"] {
        throughput(&binary, dir.path(), level, options, &mut sheet)?;
        latency(&binary, dir.path(), level, options, &mut sheet)?;
    }
    sheet.finish()
}

fn start_and_idle(binary: &Path, dir: &Path, options: &Options, sheet: &mut Sheet) -> Result<()> {
    let data = dir.join("start");
    let broker = Broker::start(binary, &data)?;
    sheet.add(
        "exec to ready, empty directory",
        milliseconds(broker.ready_after),
        "ms",
    );
    idle(&broker, "empty", options, sheet)?;
    let names: Vec<String> = (0..100).map(|n| format!("many-{n}")).collect();
    workload::create_topics(broker.kafka, &names, 100, &[])?;
    sheet.add("SIGTERM to exit, idle", milliseconds(broker.stop()?), "ms");
    let broker = Broker::start(binary, &data)?;
    sheet.add(
        "exec to ready, 10 000 partitions",
        milliseconds(broker.ready_after),
        "ms",
    );
    idle(&broker, "10 000 partitions", options, sheet)?;
    broker.stop()?;
    Ok(())
}

fn idle(broker: &Broker, what: &str, options: &Options, sheet: &mut Sheet) -> Result<()> {
    let before = broker.cpu()?;
    let window = Duration::from_secs(options.seconds);
    std::thread::park_timeout(window);
    let used = broker.cpu()? - before;
    let share = used.as_secs_f64() / window.as_secs_f64() * 100.0;
    sheet.add(format!("idle CPU, {what}"), share, "% of a core");
    sheet.add(format!("idle RSS, {what}"), broker.rss_mib()?, "MiB");
    Ok(())
}

fn throughput(
    binary: &Path,
    dir: &Path,
    level: &str,
    options: &Options,
    sheet: &mut Sheet,
) -> Result<()> {
    let broker = Broker::start(binary, &dir.join(format!("throughput-{level}")))?;
    let topic = "throughput";
    let settings = [("frazil.durability", level)];
    workload::create_topics(broker.kafka, &[topic.to_owned()], PARTITIONS, &settings)?;
    let records = options.megabytes * 1_000_000 / RECORD as u64;
    let (metrics, cpu) = (broker.metrics()?, broker.cpu()?);
    let rate = workload::produce(broker.kafka, topic, records, RECORD)?;
    sheet.add(
        format!("produce, 1 KiB, 12 partitions, {level}"),
        rate,
        "MB/s",
    );
    let gib = (records * RECORD as u64) as f64 / f64::from(1u32 << 30);
    let spent = broker.cpu()? - cpu;
    sheet.add(
        format!("broker CPU per GiB produced, {level}"),
        spent.as_secs_f64() / gib,
        "s",
    );
    let after = broker.metrics()?;
    for (name, sample) in [
        ("commits", "frazil_metadata_commits_total"),
        ("PUTs", "frazil_cache_puts_total"),
        ("WAL fsyncs", "frazil_cache_wal_syncs_total"),
        ("Raft log fsyncs", "frazil_metadata_log_syncs_total"),
    ] {
        let of = |metrics: &std::collections::BTreeMap<String, f64>| metrics.get(sample).copied();
        let (Some(before), Some(after)) = (of(&metrics), of(&after)) else {
            anyhow::bail!("the broker has no metric {sample}");
        };
        let per_mib = (after - before) / (gib * 1024.0);
        sheet.add(format!("{name} per MiB produced, {level}"), per_mib, "");
    }
    let cpu = broker.cpu()?;
    let rate = workload::consume(broker.kafka, topic, PARTITIONS, records)?;
    sheet.add(format!("consume from offset 0, {level}"), rate, "MB/s");
    let spent = broker.cpu()? - cpu;
    sheet.add(
        format!("broker CPU per GiB consumed, {level}"),
        spent.as_secs_f64() / gib,
        "s",
    );
    sheet.add(
        format!("peak RSS under load, {level}"),
        broker.peak_rss_mib()?,
        "MiB",
    );
    broker.stop()?;
    Ok(())
}

fn latency(
    binary: &Path,
    dir: &Path,
    level: &str,
    options: &Options,
    sheet: &mut Sheet,
) -> Result<()> {
    let broker = Broker::start(binary, &dir.join(format!("latency-{level}")))?;
    let topic = "latency";
    let settings = [("frazil.durability", level)];
    workload::create_topics(broker.kafka, &[topic.to_owned()], PARTITIONS, &settings)?;
    let window = Duration::from_secs(options.seconds);
    let latency = workload::ack_latency(broker.kafka, topic, 1000, window, RECORD)?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let micros = latency.value_at_quantile(quantile);
        let name = format!("ack {name} at 1 000 records/s, {level}");
        sheet.add(name, micros as f64 / 1e3, "ms");
    }
    broker.stop()?;
    Ok(())
}
