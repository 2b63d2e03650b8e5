//! Many seeds, each in a process of its own, some at a time.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use frazil_core::sabotage::{self, Bug};
use parking_lot::Mutex;

/// Which seeds, and how.
pub struct Many {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How many at a time.
    pub jobs: usize,
    /// How long faults happen, in virtual milliseconds.
    pub faults_ms: u64,
    /// Where the histories of seeds that fail are kept.
    pub keep: PathBuf,
}

impl Many {
    fn once(&self, seed: u64, bug: Option<Bug>) -> Result<Output> {
        let program = std::env::current_exe().context("this program's file")?;
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string()]);
        command.args(["--faults-ms", &self.faults_ms.to_string()]);
        match bug {
            Some(bug) => command.env("SABOTAGE", bug.name()),
            None => command.arg("--keep").arg(&self.keep),
        };
        command.output().context("a seed's process")
    }

    /// Does the work on so many threads.
    fn at_once(&self, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..self.jobs).map(|_| scope.spawn(&work)).collect();
            let ended = running.into_iter().map(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
            });
            ended.collect()
        })
    }

    /// Runs the seeds and prints those that failed, and how fast it went.
    pub fn run(&self, twice: bool) -> Result<ExitCode> {
        let start = Instant::now();
        let next = AtomicU64::new(self.seeds.start);
        let failed = Mutex::new(Vec::new());
        let (events, virtual_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        self.at_once(|| {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return Ok(());
                }
                let output = self.once(seed, None)?;
                let mut text = said(&output);
                let mut ok = output.status.success();
                let line = first_line(&output);
                let mut numbers = line.split(|c: char| !c.is_ascii_digit());
                let mut number = || numbers.find_map(|text| text.parse::<u64>().ok());
                let _seed = number();
                events.fetch_add(number().unwrap_or(0), Ordering::Relaxed);
                let (_acknowledged, _cold, _across, _scans) =
                    (number(), number(), number(), number());
                virtual_ms.fetch_add(number().unwrap_or(0), Ordering::Relaxed);
                if ok && twice {
                    let again = first_line(&self.once(seed, None)?);
                    if again != line {
                        ok = false;
                        text = format!("the same seed, twice:\n{line}\n{again}\n");
                    }
                }
                if !ok {
                    println!("seed {seed} FAILED (sim/run --seed {seed})\n{text}");
                    failed.lock().push(seed);
                }
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let count = self.seeds.end.saturating_sub(self.seeds.start);
        let mut failed = failed.into_inner();
        failed.sort_unstable();
        println!(
            "{count} seeds in {seconds:.1} s, {:.0} a minute; {} events in {} virtual seconds; \
             {} failed: {failed:?}",
            count as f64 * 60.0 / seconds,
            events.into_inner(),
            virtual_ms.into_inner() / 1000,
            failed.len(),
        );
        Ok(code(failed.is_empty()))
    }

    /// Switches on one bug after the other and runs seeds until one fails. Fails if a bug escapes.
    pub fn hunt(&self, bugs: &str) -> Result<ExitCode> {
        if !sabotage::AVAILABLE {
            bail!("there are no bugs in this build: cargo run --features sabotage");
        }
        let wanted = |bug: &&Bug| bugs == "all" || bugs.split(',').any(|name| name == bug.name());
        let bugs: Vec<&Bug> = Bug::ALL.iter().filter(wanted).collect();
        let next = AtomicU64::new(0);
        let escaped = AtomicU64::new(0);
        self.at_once(|| {
            while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                let mut caught = None;
                for seed in self.seeds.clone() {
                    let output = self.once(seed, Some(**bug))?;
                    if !output.status.success() {
                        caught = Some(said(&output));
                        break;
                    }
                }
                let Some(text) = caught else {
                    escaped.fetch_add(1, Ordering::Relaxed);
                    println!("{:<28} escaped seeds {:?}", bug.name(), self.seeds);
                    continue;
                };
                let why = text.lines().nth(1).unwrap_or_default();
                let why: String = why.chars().take(120).collect();
                println!("{:<28} {why}", bug.name());
            }
            Ok(())
        })?;
        let escaped = escaped.into_inner();
        println!("{} bugs, {escaped} escaped", bugs.len());
        Ok(code(escaped == 0))
    }
}

fn code(ok: bool) -> ExitCode {
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn first_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    let error: Vec<&str> = error.lines().collect();
    let last = error[error.len().saturating_sub(20)..].join("\n");
    format!("{}{last}", String::from_utf8_lossy(&output.stdout))
}
