//! The command line: one program for the node and for the people around it.
//!
//! `frazil config` and `frazil serve` concern a node, `frazil table` is a client of Iceberg REST
//! catalogs. Everything else is a Kafka client that works against any broker, Frazil or not.
//!
//! Results go to standard output, everything else to standard error. Where scripts read, `--json`
//! gives one JSON document. A command that did not do all that it was asked ends with one line on
//! standard error and exit code 1; one that was not understood ends with 2.

mod client;
mod cluster;
mod config;
mod consume;
mod feature;
mod files;
mod gateway;
mod group;
mod incremental;
mod output;
mod produce;
mod recover;
mod rest;
mod serve;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod topic;
mod voter;

use clap::{Parser, Subcommand};

pub use client::ClientArgs;
pub use config::ConfigArgs;

/// Frazil: a stateless Kafka broker over object storage.
#[derive(Debug, Parser)]
#[command(name = "frazil", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: by default all roles in this process, data in ./frazil-data
    Serve(serve::Serve),
    /// Print the settings of a node as a commented file, with what file, environment and flags say
    Config(config::Show),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Command),
    /// Send records: the lines of standard input, or files
    Produce(Box<produce::Produce>),
    /// Receive records
    Consume(Box<consume::Consume>),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand)]
    Group(group::Command),
    /// List and describe the tables that topics have become, their snapshots and files
    #[command(subcommand)]
    Table(table::Command),
    /// Describe the cluster: its id, brokers, controller, topics; its quorum; its gateways
    Cluster(cluster::Cluster),
    /// Make a new quorum of one voter from what is in the object store, when the old one is lost
    /// for good
    Recover(recover::Recover),
}

/// Does what was asked.
///
/// # Errors
/// What could not be done, for one line on standard error. [`is_broken_pipe`] tells the case in
/// which nobody reads the output any more.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Config(show) => show.run(),
        Command::Topic(command) => topic::run(command),
        Command::Produce(produce) => produce.run(),
        Command::Consume(consume) => consume.run(),
        Command::Group(command) => group::run(command),
        Command::Table(command) => table::run(&command),
        Command::Cluster(cluster) => cluster.run(),
        Command::Recover(recover) => recover.run(),
    }
}

/// Whether the command ended because the reader of its output did, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Reads `NAME=VALUE` (the value may contain more `=`).
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
