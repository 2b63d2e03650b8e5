//! The fault suite: real processes and stock clients, one fault at a time.
//!
//! Each scenario has a fleet of its own (three voters, three gateways, a compactor) over an S3
//! server as slow as a real one, with a proxy in every link; three idempotent producers at a fixed
//! rate and a group of two. A while of undisturbed work, the fault, its end, a while to recover;
//! then everything is read back and the history is judged.

mod disk;
pub(crate) mod fleet;
mod group;
mod judge;
mod load;
mod measure;
pub(crate) mod node;
mod replay;
mod scenarios;
mod stage;
mod store;
mod table;

use std::path::PathBuf;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::runtime::Runtime;

use fleet::{Fleet, Plan};
use group::Members;
use load::{Load, PARTITIONS};
use measure::{Figures, Marks};
use node::Role;
use scenarios::{SCENARIOS, Scenario};
use stage::Stage;

const TOPIC: &str = "reliability";
const GATEWAYS: u32 = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only these scenarios, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Shorter: for trying out, not for figures
    #[arg(long)]
    quick: bool,
    /// Records per second
    #[arg(long, default_value_t = 600)]
    rate: u32,
    /// A document whose table gets the rows of this run; others stay
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep the data and logs of scenarios in which a promise was broken, or that failed
    #[arg(long)]
    keep: bool,
    /// Print the names of all scenarios
    #[arg(long)]
    list: bool,
}

/// What one scenario showed.
pub(crate) struct Outcome {
    pub violations: Vec<String>,
    /// Records whose delivery the application was told to have failed, by error.
    pub delivery_errors: Vec<String>,
    pub consumer_errors: Vec<String>,
    pub figures: Figures,
    pub records: usize,
    pub gateway_mib: f64,
    pub voter_mib: f64,
    pub notes: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for scenario in SCENARIOS {
            println!("{:<24} {}", scenario.name, scenario.fault);
        }
        return Ok(());
    }
    let known = |name: &String| SCENARIOS.iter().any(|scenario| scenario.name == *name);
    if let Some(unknown) = options.only.iter().find(|name| !known(name)) {
        bail!("no scenario is called {unknown}; --list names them");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let chosen = SCENARIOS.iter().filter(|scenario| {
        options.only.is_empty() || options.only.iter().any(|name| name == scenario.name)
    });
    let mut broken = 0;
    for scenario in chosen {
        println!("== {}: {}", scenario.name, scenario.fault);
        let row = match play(scenario, options, &runtime) {
            Ok(outcome) => {
                broken += usize::from(!outcome.violations.is_empty());
                for violation in outcome.violations.iter().take(10) {
                    println!("VIOLATION {violation}");
                }
                for errors in [&outcome.delivery_errors, &outcome.consumer_errors] {
                    for (error, count) in table::counted(errors) {
                        println!("told to the application {count} times: {error}");
                    }
                }
                table::row(scenario, &outcome)
            }
            Err(error) => {
                let reason = format!("{error:#}");
                broken += usize::from(!reason.starts_with("skipped"));
                println!("{reason}");
                table::failed(scenario, &reason)
            }
        };
        println!("{row}");
        if let Some(out) = &options.out {
            table::update(out, scenario.name, &row)?;
        }
    }
    if broken > 0 {
        bail!("{broken} scenarios failed");
    }
    Ok(())
}

fn play(scenario: &Scenario, options: &Options, runtime: &Runtime) -> Result<Outcome> {
    let binary = match &options.frazil {
        Some(binary) => binary.clone(),
        None => crate::broker::sibling()?,
    };
    let dir = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let fleet = Fleet::start(&Plan {
        binary: &binary,
        dir: &dir,
        runtime: runtime.handle(),
        gateways: GATEWAYS,
        settings: scenario.settings,
    })?;
    let bootstrap = fleet.bootstrap();
    let level = [("frazil.durability", scenario.level)];
    crate::workload::create_topics(&bootstrap, &[TOPIC.to_owned()], PARTITIONS, &level)?;
    let load = Load::start(&bootstrap, TOPIC, options.rate)?;
    let members = Members::start(&bootstrap, TOPIC, load.timer)?;
    let mut stage = Stage::new(fleet, &load, runtime.handle(), TOPIC, options.quick);
    stage.seconds(if options.quick { 3 } else { 5 });
    let steady = load.timer.now();
    stage.seconds(if options.quick { 5 } else { 10 });
    let acted = (scenario.run)(&mut stage).and_then(|()| settle(&mut stage));
    let end = load.timer.now();
    let Stage {
        mut fleet,
        injected,
        healed,
        mut notes,
        replay,
        ..
    } = stage;
    if let Err(error) = acted {
        keep(&mut fleet, options);
        return Err(error);
    }
    let marks = Marks {
        steady,
        injected: injected.context("the scenario injected nothing")?,
        healed: healed.context("the scenario healed nothing")?,
        end,
    };
    let (rate, timer) = (load.rate, load.timer);
    let judged = (|| {
        let sent = load.finish()?;
        let (mut events, ends) = group::sweep(&fleet.bootstrap(), TOPIC, timer)?;
        let consumed = members.finish(&ends)?;
        let mut consumer_errors = consumed.errors.clone();
        if let Some(replay) = replay {
            let seen = replay.finish()?;
            notes.push(format!("{} records read again", seen.records));
            consumer_errors.extend(seen.errors);
            events.extend(seen.events);
        }
        let history = judge::history(&sent, &consumed, events);
        fleet.look_at_memory();
        notes.extend(crowd());
        notes.extend(
            options
                .quick
                .then(|| "lasting faults half as long".to_owned()),
        );
        let errors = sent.iter().filter_map(|sent| sent.outcome.err());
        let outcome = Outcome {
            violations: judge::violations(&history, &sent, &consumed, &ends),
            delivery_errors: errors.map(|error| error.to_string()).collect(),
            consumer_errors,
            figures: measure::figures(&sent, rate, &marks),
            records: sent.len(),
            gateway_mib: fleet.peak_mib(Role::Gateway),
            voter_mib: fleet.peak_mib(Role::Voter),
            notes,
        };
        if !outcome.violations.is_empty() && options.keep {
            let path = fleet.keep().join("history.jsonl");
            let file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(&path)?;
            history.write(std::io::BufWriter::new(file))?;
        }
        Ok(outcome)
    })();
    match judged {
        Ok(mut outcome) => {
            if !outcome.violations.is_empty() {
                keep(&mut fleet, options);
            }
            outcome.notes.extend(fleet.stop());
            Ok(outcome)
        }
        Err(error) => {
            keep(&mut fleet, options);
            Err(error)
        }
    }
}

/// Who else used the processors, if they were too few.
fn crowd() -> Option<String> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = load.split(' ').next()?.parse().ok()?;
    let cores = std::thread::available_parallelism().ok()?.get();
    (load > cores as f64 * 1.5).then(|| format!("load average {load:.0} on {cores} cores"))
}

fn keep(fleet: &mut Fleet, options: &Options) {
    if options.keep {
        println!("data and logs: {}", fleet.keep().display());
    }
}

/// Waits until as much is acknowledged as is sent, or for a minute.
fn settle(stage: &mut Stage<'_>) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(3);
    stage.rest(LOOK);
    let start = Instant::now();
    let wanted = f64::from(stage.load.rate) * LOOK.as_secs_f64() * 0.9;
    while start.elapsed() < Duration::from_secs(60) {
        stage.fleet.look_at_memory();
        let since = stage
            .load
            .timer
            .now()
            .saturating_sub(LOOK.as_nanos() as u64);
        if stage.load.acked_since(since) as f64 >= wanted {
            break;
        }
        park_timeout(Duration::from_millis(250));
    }
    stage.rest(LOOK);
    Ok(())
}
