//! Frazil's cold path: conversion into tables, retention and collection.
//!
//! [`freeze`] moves cold records into tables, [`publish`] copies tables into another catalog. Beside that, three chores, each safe to stop anywhere, to run twice, and to run in two processes at once:
//!
//! | chore | does | a crash leaves |
//! |---|---|---|
//! | [`retention`] | raises log start offsets by age and size | some partitions for the next round |
//! | [`reclaim`] | deletes objects that nothing has referred to for the grace period, then lets the state forget them | objects gone that the state still lists as retired: deleted again, then forgotten |
//! | [`sweep`] | deletes objects that were uploaded, never committed, and never can be | orphans for the next sweep |
//!
//! Invariant: an object is deleted only because the state says that it is retired or an orphan;
//! never because something is absent. Both verdicts are final (the state refuses to commit such a
//! segment), so an image that lags behind can only delay a deletion.
//!
//! Invariant: this crate reads the state through [`frazil_core::ports::Ledger`] and
//! [`frazil_core::ports::Tables`], and the settings through [`frazil_core::ports::Catalog`].

mod blocking;
mod bucket;
mod config;
pub mod freeze;
mod metrics;
pub mod publish;
pub mod reclaim;
pub mod retention;
mod service;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulation;
pub mod sweep;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use freeze::FreezeConfig;
pub use metrics::Metrics;
pub use service::Service;

/// What can stop a chore. The chore is tried again at its next turn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The quorum did not take a command.
    #[error(transparent)]
    Quorum(#[from] frazil_core::PortError),
    /// The object store did not do what was asked.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    /// A chore of tables.
    #[error(transparent)]
    Table(#[from] freeze::JobError),
}
