//! `frazil-micro`: the cases without Criterion. See the library.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use frazil_micro::counts::{self, Accepted};
use frazil_micro::{cases, run_that_is_counted};

#[derive(Parser)]
#[command(about = "Frazil's inner loops, one by one")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The names of the cases
    List,
    /// Runs a case: once, and then as often as is said. For valgrind and perf
    Run {
        /// Its name
        name: String,
        /// How often
        #[arg(default_value_t = 1)]
        times: u64,
    },
    /// Counts instructions, and fails if a case takes more than was accepted
    Count {
        /// Only cases whose names contain this
        #[arg(default_value = "")]
        only: String,
        /// Make what is counted the accepted figures
        #[arg(long)]
        accept: bool,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::List => {
            for case in cases::all() {
                println!("{}", case.name);
            }
            Ok(())
        }
        Command::Run { name, times } => run(&name, times),
        Command::Count { only, accept } => count(&only, accept),
    }
}

fn run(name: &str, times: u64) -> Result<()> {
    let case = cases::all().into_iter().find(|case| case.name == name);
    let mut work = (case.context("no such case: see `list`")?.prepare)();
    work();
    for _ in 0..times {
        run_that_is_counted(&mut work);
    }
    Ok(())
}

fn count(only: &str, accept: bool) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("of unoptimised code a count says nothing: --release");
    }
    let program = std::env::current_exe()?;
    let mut counted = BTreeMap::new();
    for case in cases::all() {
        if case.name.contains(only) {
            counted.insert(case.name.to_owned(), counts::count(&program, case.name)?);
        }
    }
    let machine = counts::machine();
    let mut accepted = match Accepted::read() {
        Err(_) if accept => Accepted {
            machine: machine.clone(),
            counts: BTreeMap::new(),
        },
        accepted => accepted?,
    };
    let compared = counts::compare(&accepted.counts, &counted);
    print!("{}", compared.table);
    if accept {
        accepted.counts.extend(counted);
        let names: Vec<_> = cases::all().iter().map(|case| case.name).collect();
        accepted.counts.retain(|name, _| names.contains(&&**name));
        accepted.machine = machine;
        return accepted.write();
    }
    if accepted.machine != machine {
        println!(
            "The accepted figures are of {}; this is {machine}. They are not compared.",
            accepted.machine
        );
        return Ok(());
    }
    compared.judge()
}
