//! Many seeds, each in a process of its own, some at a time.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

/// Runs seeds and prints those that failed, and how fast it went.
pub fn run(
    seeds: Range<u64>,
    jobs: usize,
    twice: bool,
    faults_ms: u64,
    keep: Option<PathBuf>,
) -> Result<ExitCode> {
    let program = std::env::current_exe().context("this program's file")?;
    let keep = keep.unwrap_or_else(|| PathBuf::from("failed"));
    let once = |seed: u64| {
        let mut command = Command::new(&program);
        command.args(["--seed", &seed.to_string()]);
        command.args(["--faults-ms", &faults_ms.to_string()]);
        command.arg("--keep").arg(&keep);
        command.output().context("a seed's process")
    };
    let start = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let (events, virtual_ms) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let output = once(seed)?;
            let mut text = said(&output);
            let mut ok = output.status.success();
            let line = first_line(&output);
            let mut numbers = line.split(|c: char| !c.is_ascii_digit());
            let mut number = || numbers.find_map(|text| text.parse::<u64>().ok());
            let _ = number();
            events.fetch_add(number().unwrap_or(0), Ordering::Relaxed);
            let _ = number();
            virtual_ms.fetch_add(number().unwrap_or(0), Ordering::Relaxed);
            if ok && twice {
                let again = first_line(&once(seed)?);
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
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        });
        ended.collect::<Result<()>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let count = seeds.end.saturating_sub(seeds.start);
    let mut failed = failed.into_inner();
    failed.sort_unstable();
    println!(
        "{count} seeds in {seconds:.1} s, {:.0} a minute; {} events in {} virtual seconds; {} failed{}",
        count as f64 * 60.0 / seconds,
        events.into_inner(),
        virtual_ms.into_inner() / 1000,
        failed.len(),
        if failed.is_empty() {
            String::new()
        } else {
            format!(": {failed:?}")
        }
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
