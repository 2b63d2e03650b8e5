//! What Frazil knows of object stores: which errors mean what, and how often it asks again.
//!
//! Every part that talks to a store (uploads, reads, the collector, the quorum's archive) asks here
//! what an error means ([`Failure`]) and waits here before it tries again ([`Retries`]), so that one
//! budget bounds what a struggling store is asked on top of its load.
//!
//! Invariant: nothing here gives up. Whoever has a deadline keeps it itself
//! ([`Attempts::again_before`]); everybody else waits.

mod backoff;
mod failure;
mod metrics;
mod retries;

pub use backoff::Backoff;
pub use failure::Failure;
pub use metrics::Metrics;
pub use retries::{Attempts, Retries};
