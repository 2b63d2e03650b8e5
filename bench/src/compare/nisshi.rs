//! Nisshi (which was Tansu) beside Frazil, both on the same kind of store: an S3 server in this
//! process without latency, which keeps objects in memory. Nisshi in memory only, which keeps
//! nothing, and on SQLite, if it was built with it, stand beside Frazil's `local`, which syncs. Frazil gathers what it puts into such a store, so
//! producers are more than in other passes, and requests are counted.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use frazil_store::{Operation, Options, Store};
use tokio::runtime::Runtime;

use super::passes::{PARTITIONS, READ_MAX, RECORD, Run};
use super::systems::{Bench, Server, Side};
use crate::broker::{Broker, free_address};
use crate::load::{Flood, flood, steady};
use crate::process::Process;

const BUCKET: &str = "compare";
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 16;
const GIB: f64 = (1u64 << 30) as f64;

/// An S3 server in this process.
struct S3 {
    store: Store,
    /// It runs on this one.
    _runtime: Runtime,
}

impl S3 {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            store: runtime.block_on(Store::start(Options::default()))?,
            _runtime: runtime,
        })
    }

    fn url(&self) -> String {
        format!("s3://{BUCKET}/frazil")
    }

    /// Settings of a Frazil on it.
    fn settings(&self) -> Vec<String> {
        let mut settings = vec![format!("store.url={}", self.url())];
        for (name, value) in self.store.settings() {
            settings.push(format!("store.options.{name}={value}"));
        }
        settings
    }

    /// What the environment of a Nisshi on it has.
    fn environment(&self) -> BTreeMap<String, String> {
        let settings = self.store.settings();
        let settings = settings.map(|(name, value)| (name.to_ascii_uppercase(), value));
        settings.into_iter().collect()
    }
}

/// A running broker. Dropping it kills the process.
pub(crate) struct Nisshi {
    child: Child,
    pub address: SocketAddr,
    /// What it keeps on this disk.
    data: Option<PathBuf>,
}

impl Nisshi {
    /// Starts `binary` on an engine, `s3://…` and the like; it listens when this returns.
    fn start(
        binary: &Path,
        log: &Path,
        engine: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let address = free_address()?;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)?;
        let child = Command::new(binary)
            .arg("broker")
            .args(["--listener-url", &format!("tcp://{address}")])
            .args(["--advertised-listener-url", &format!("tcp://{address}")])
            .args(["--storage-engine", engine])
            .args(["--cluster-id", "compare"])
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut nisshi = Self {
            child,
            address,
            data: None,
        };
        let started = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = nisshi.child.try_wait()? {
                bail!("Nisshi ended with {status}; see {}", log.display());
            }
            ensure!(started.elapsed() < PATIENCE, "Nisshi does not listen");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(nisshi)
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Kills it and removes what it had.
    pub(crate) fn discard(mut self) -> Result<()> {
        let data = self.data.take();
        drop(self);
        data.map_or(Ok(()), |data| Ok(std::fs::remove_dir_all(data)?))
    }
}

impl Drop for Nisshi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether it was built with SQLite; the end of its help lists what it was built with.
fn has_sqlite(binary: &Path) -> Result<bool> {
    let output = Command::new(binary)
        .arg("--help")
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(lists_sqlite(&String::from_utf8_lossy(&output.stdout)))
}

fn lists_sqlite(help: &str) -> bool {
    let engines = help
        .lines()
        .find_map(|line| line.strip_prefix("Storage engines: "));
    engines.is_some_and(|engines| engines.split(", ").any(|engine| engine == "libsql"))
}

/// Starts one of the sides.
fn start(bench: &Bench, binary: &Path, side: Side, s3: &S3) -> Result<Server> {
    let data = bench.fresh("nisshi");
    let log = data.with_extension("log");
    Ok(match side {
        Side::NisshiS3 => {
            let engine = format!("s3://{BUCKET}/");
            let nisshi = Nisshi::start(binary, &log, &engine, &s3.environment())?;
            Server::Nisshi(nisshi)
        }
        Side::NisshiMemory => {
            let nisshi = Nisshi::start(binary, &log, "memory://compare/", &BTreeMap::new())?;
            Server::Nisshi(nisshi)
        }
        Side::NisshiSqlite => {
            std::fs::create_dir_all(&data)?;
            let engine = format!("sqlite:///{}/nisshi.db", data.display());
            let mut nisshi = Nisshi::start(binary, &log, &engine, &BTreeMap::new())?;
            nisshi.data = Some(data);
            Server::Nisshi(nisshi)
        }
        Side::ObjectS3 => {
            let broker = Broker::with(&bench.frazil, &data, &s3.settings())?;
            Server::Frazil(broker, data)
        }
        side => bench.start(side)?,
    })
}

/// Throughput, processor time, memory and latency of both.
pub(crate) fn measure(run: &mut Run<'_>, binary: &Path, reversed: bool) -> Result<()> {
    let mut sides = vec![
        Side::ObjectS3,
        Side::NisshiS3,
        Side::Local,
        Side::NisshiMemory,
    ];
    if has_sqlite(binary)? {
        sides.push(Side::NisshiSqlite);
    }
    if reversed {
        sides.reverse();
    }
    for side in sides {
        run.note("nisshi", side);
        // What one has stored is gone before the next begins.
        let s3 = S3::start()?;
        let server = start(run.bench, binary, side, &s3)?;
        run.bench.pin(server.process())?;
        one(run, &server, side, &s3.store).with_context(|| format!("nisshi: {}", side.name()))?;
        server.discard()?;
        rustix::fs::sync();
    }
    Ok(())
}

fn one(run: &mut Run<'_>, server: &Server, side: Side, store: &Store) -> Result<()> {
    let topic = run.topic(server, side, PARTITIONS)?;
    let cpu = server.process().cpu()?;
    store.reset_counters();
    let flow = flood(&Flood {
        connections: CONNECTIONS,
        ..run.flood(server, &topic, PARTITIONS)
    })?;
    let gib = flow.records as f64 * RECORD as f64 / GIB;
    if side.is_on_s3() {
        let puts = store.counters().of(Operation::Put) as f64;
        run.samples.add("nisshi puts", side, puts / gib);
    }
    let cpu = (server.process().cpu()? - cpu).as_secs_f64();
    run.samples.add("nisshi in", side, flow.rate(RECORD));
    run.samples.add("nisshi cpu in", side, cpu / gib);
    let cpu = server.process().cpu()?;
    let records = flow.records.min(READ_MAX);
    run.read("nisshi out", (server, side), &topic, (records, RECORD))?;
    let gib = records as f64 * RECORD as f64 / GIB;
    let cpu = (server.process().cpu()? - cpu).as_secs_f64();
    run.samples.add("nisshi cpu out", side, cpu / gib);
    let topic = run.topic(server, side, PARTITIONS)?;
    let mut load = run.steady(server, &topic);
    load.duration /= 2;
    let acks = steady(&load)?;
    for (metric, quantile) in [("nisshi p50", 0.5), ("nisshi p99", 0.99)] {
        let value = acks.latency.value_at_quantile(quantile) as f64 / 1e3;
        run.samples.add(metric, side, value);
    }
    let rss = server.process().peak_rss_mib()?;
    run.samples.add("nisshi rss", side, rss);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_tells_what_it_was_built_with() {
        let help = |engines| format!("Usage: nisshi\n\nStorage engines: {engines}\nData lakes:\n");
        assert!(lists_sqlite(&help("dynostore, libsql")));
        assert!(lists_sqlite(&help("libsql")));
        assert!(!lists_sqlite(&help("dynostore")));
        assert!(!lists_sqlite("libsql"));
    }
}
