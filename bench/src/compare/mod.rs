//! The same load on Frazil and on Apache Kafka, one after the other, again and again, on one machine
//! in one run: what is told are ratios, with the durability of both sides in the table.

mod clients;
mod cloud;
mod document;
mod groups;
mod kafka;
mod limits;
mod load;
mod nisshi;
mod passes;
mod prices;
mod rows;
mod samples;
mod shapes;
mod systems;
mod tables;
mod topics;
mod zones;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::broker::sibling;
use crate::report;
use crate::wire::allow_sockets;
use kafka::Kit;
use passes::{Run, Times};
use systems::Bench;

/// What can be measured by itself, in the order in which it is.
const PASSES: [&str; 15] = [
    "limits",
    "throughput",
    "tables",
    "shapes",
    "tail",
    "latency",
    "load",
    "small",
    "clients",
    "cloud",
    "nisshi",
    "partitions",
    "groups",
    "first",
    "topics",
];

/// Who stands beside Frazil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Other {
    /// Apache Kafka; needs java and mvn
    Kafka,
    /// Nisshi, of which a binary is needed: cargo install --locked nisshi
    Nisshi,
    /// Nobody: Frazil and the machine's limits only
    None,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Who stands beside Frazil
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kafka")]
    against: Vec<Other>,
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// The `nisshi` binary; by default the one in the path
    #[arg(long, default_value = "nisshi")]
    nisshi: PathBuf,
    /// Where temporary data goes, some 10 GB of it; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Two rounds and short passes: what it comes to, not what is quoted
    #[arg(long)]
    quick: bool,
    /// Rounds; by default 3, with --quick 2
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these passes
    #[arg(long, value_delimiter = ',', value_parser = PASSES)]
    only: Vec<String>,
    /// Print JSON, with every sample
    #[arg(long)]
    json: bool,
    /// A document whose table is replaced by this run's
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let dir = match &options.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            tempfile::tempdir_in(dir)?
        }
        None => tempfile::tempdir()?,
    };
    allow_sockets(2000)?;
    let against = |other| options.against.contains(&other);
    let kit = match against(Other::Kafka) {
        true => Some(Kit::fetch(&dir.path().join("kit"))?),
        false => None,
    };
    let bench = Bench {
        frazil: options.frazil.clone().map_or_else(sibling, Ok)?,
        kit,
        nisshi: against(Other::Nisshi).then(|| options.nisshi.clone()),
        dir: dir.path().to_owned(),
        pins: pins(),
        count: std::cell::Cell::default(),
    };
    if let Some((_, clients)) = &bench.pins {
        let id = std::process::id().to_string();
        std::process::Command::new("taskset")
            .args(["-acp", clients, &id])
            .stdout(std::process::Stdio::null())
            .status()
            .context("cannot start taskset")?;
    }
    let times = match options.quick {
        true => Times {
            flood: Duration::from_secs(2),
            shape: Duration::from_secs(1),
            steady: Duration::from_secs(3),
            limit: Duration::from_millis(500),
            records: 200_000,
        },
        false => Times {
            flood: Duration::from_secs(4),
            shape: Duration::from_millis(1500),
            steady: Duration::from_secs(6),
            limit: Duration::from_secs(1),
            records: 500_000,
        },
    };
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 3 });
    let mut run = Run::new(&bench, times, options.only.clone(), options.quick)?;
    for round in 0..rounds {
        eprintln!(
            "round {} of {rounds}, {:.0} s",
            round + 1,
            started.elapsed().as_secs_f64()
        );
        run.round(round)?;
    }
    let about = document::About::of(&bench, rounds, options.quick, started.elapsed());
    let table = document::table(&about, &run.samples);
    if options.json {
        println!("{}", document::json(&about, &run.samples)?);
    } else {
        println!("{table}");
    }
    if let Some(out) = &options.out {
        report::update(out, document::PLACE, &table)?;
    }
    Ok(())
}

/// With four processors or more, the clients get a quarter of them, and the broker the others.
fn pins() -> Option<(String, String)> {
    let cores = std::thread::available_parallelism().ok()?.get();
    let brokers = cores - cores / 4;
    (cores >= 4).then(|| {
        (
            format!("0-{}", brokers - 1),
            format!("{brokers}-{}", cores - 1),
        )
    })
}
