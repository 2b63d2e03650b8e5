//! The whole cluster in one thread, under faults, from a seed.
//!
//! ```text
//! frazil-sim [--seeds A..B] [--jobs N] [--twice] [--faults-ms MS] [--keep DIR]
//! frazil-sim --seed N [--trace FILE] [--verbose] [--faults-ms MS] [--keep DIR]
//! frazil-sim --sabotage all|BUG,BUG [--seeds A..B] [--jobs N]      (built with --features sabotage)
//! ```
//!
//! Each seed has a process of its own: what is random in it (ids, hash maps, which branch of a
//! select is looked at first) comes from the seed, and a process that has run one seed is no longer
//! as it was. `--twice` runs each seed twice and compares what happened, event by event.
//!
//! What is simulated: `run.rs`. How: docs/reliability.md, "Simulation", and ADR 0026.

mod client;
mod entropy;
#[cfg(test)]
mod far;
mod fleet;
mod frozen;
mod judge;
mod node;
mod plan;
mod run;
mod store;
mod tables;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::run::Options;

/// How long faults happen by default.
const FAULTS_MS: u64 = 12_000;

fn main() -> Result<ExitCode> {
    let mut seeds = 0..20;
    let mut jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut seed, mut twice, mut verbose) = (None, false, false);
    let mut bugs = None;
    let (mut faults_ms, mut trace, mut keep) = (FAULTS_MS, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--seeds" => {
                let value = value()?;
                let (first, end) = value.split_once("..").context("--seeds FIRST..END")?;
                seeds = first.parse()?..end.parse()?;
            }
            "--jobs" => jobs = value()?.parse()?,
            "--seed" => seed = Some(value()?.parse()?),
            "--sabotage" => bugs = Some(value()?),
            "--twice" => twice = true,
            "--verbose" => verbose = true,
            "--faults-ms" => faults_ms = value()?.parse()?,
            "--trace" => trace = Some(PathBuf::from(value()?)),
            "--keep" => keep = Some(PathBuf::from(value()?)),
            _ => bail!("what is {name}? See src/main.rs"),
        }
    }
    let Some(seed) = seed else {
        let many = fleet::Many {
            seeds,
            jobs: jobs.max(1),
            faults_ms,
            keep: keep.unwrap_or_else(|| PathBuf::from("failed")),
        };
        return match bugs {
            Some(bugs) => many.hunt(&bugs),
            None => many.run(twice),
        };
    };
    trace::install(trace.as_deref(), verbose)?;
    let verdict = run::run(&Options {
        seed,
        faults_ms,
        keep,
    });
    println!(
        "seed {seed}: {} events, {} batches acknowledged, {} reads of cold offsets and {} across, {} \
         scans, {} virtual ms, digest {:016x}",
        verdict.events,
        verdict.acknowledged,
        verdict.cold.0,
        verdict.cold.1,
        verdict.scans,
        verdict.virtual_ms,
        verdict.digest
    );
    for broken in &verdict.broken {
        println!("seed {seed}: {broken}");
    }
    Ok(if verdict.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
