//! Frazil's bench: what a broker on this machine does, needs and bears. Every command starts the
//! brokers it measures.

mod broker;
mod compare;
mod faults;
mod figures;
mod growth;
mod hostile;
mod load;
mod process;
mod report;
mod scale;
mod sheet;
mod tables;
mod wire;
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
    /// The same load on Frazil and on Apache Kafka in turns, as ratios, beside the machine's limits
    Compare(compare::Options),
    /// What things cost when there is more and more of them, as curves
    Growth(growth::Options),
    /// The load generator by itself, against any broker
    Load(load::command::Options),
    /// What a fleet of processes promises and delivers under one fault after the other
    Reliability(faults::Options),
    /// What connections, partitions and groups cost: memory of each, answers and starts with many
    Scale(scale::Options),
    /// What topics cost and give as tables: conversion, cold reads, freshness, bytes
    Tables(tables::Options),
    /// Garbage from a thousand connections a second, beside ordinary load
    Hostile(hostile::Options),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Figures(options) => figures::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Growth(options) => growth::run(&options),
        Command::Load(options) => load::command::run(&options),
        Command::Reliability(options) => faults::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Tables(options) => tables::run(&options),
        Command::Hostile(options) => hostile::run(&options),
    }
}
