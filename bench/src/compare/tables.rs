//! What records cost that are produced *and* made into a table: conversion begins behind the load
//! (docs/adr/0051-tables-are-made-after-the-load.md), so the figures of the load alone do not have it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::passes::{PARTITIONS, RECORD, Run};
use super::systems::{Server, Side};
use crate::broker::Broker;
use crate::load::consume::readable;
use crate::load::{Flood, flood};
use crate::workload;

const GIB: f64 = (1u64 << 30) as f64;
/// After the load, and not a minute after it.
const FRESHNESS: (&str, &str) = ("frazil.table.freshness.ms", "5000");
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Processor time, and memory at the peak, until all that was produced is in the table.
pub(crate) fn measure(run: &mut Run<'_>, server: &Server, side: Side) -> Result<()> {
    let Server::Frazil(broker, _) = server else {
        bail!("only Frazil makes tables");
    };
    let topic = "to-be-a-table";
    let settings: Vec<_> = side.topic().iter().copied().chain([FRESHNESS]).collect();
    workload::create_topics(server.address(), &[topic.to_owned()], PARTITIONS, &settings)?;
    readable(server.address(), topic, PARTITIONS)?;
    let process = server.process();
    let cpu = process.cpu()?;
    let flow = flood(&Flood {
        duration: run.times.shape,
        ..run.flood(server, topic, PARTITIONS)
    })?;
    let produced = flow.records * RECORD as u64;
    converted(broker, flow.records)?;
    let cpu = (process.cpu()? - cpu).as_secs_f64();
    let gib = produced as f64 / GIB;
    run.samples.add("cpu in, as a table", side, cpu / gib);
    let rss = process.peak_rss_mib()?;
    run.samples.add("rss, as a table", side, rss);
    Ok(())
}

/// Waits until so many rows are in tables.
fn converted(broker: &Broker, records: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let metrics = broker.metrics()?;
        let rows = metrics.get("frazil_table_converted_rows_total");
        if *rows.context("a metric of tables")? >= records as f64 {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the conversion does not end");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
