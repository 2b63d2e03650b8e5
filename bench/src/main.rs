//! Frazil's bench. `figures` prints what one broker on this machine does, with stock clients.

mod broker;
mod figures;
mod workload;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures Frazil on this machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, latency, start-up time, memory and cost of one broker on a local directory
    Figures(figures::Options),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Figures(options) => figures::run(&options),
    }
}
