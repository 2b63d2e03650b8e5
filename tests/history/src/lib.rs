//! Histories: what clients asked, when, and what they were told; and a checker that finds in a
//! history every promise of the broker that was broken.
//!
//! A test that injects faults cannot know what *should* happen to an operation during a fault. It
//! can record what the clients saw and ask afterwards whether any correct broker could have
//! answered like that. So:
//!
//! 1. A harness makes one [`Recorder`] and gives a clone to every client. Each operation is an
//!    [`Event`] with the interval in which it ran and an [`Outcome`]: `Ok`, `Fail` (definitely did
//!    not happen) or `Info` (may have happened, may still happen, for ever).
//! 2. After the faults the harness heals everything, records [`Op::Healed`], and reads every
//!    partition from its log start to its high watermark. Only with that sweep can it be decided
//!    that something acknowledged is missing.
//! 3. [`check`] answers the [`Violation`]s. A failing run is kept with [`History::write`] and
//!    checked again with [`History::read`].
//!
//! What the checker relies on, and a harness must hold:
//!
//! - Every record that is produced has a value of its own; only retries repeat one.
//! - An outcome is `Fail` only if *no* attempt can have happened. A client library that retries by
//!   itself reports the last error, so its failures are `Info` unless nothing was ever sent.
//!   [`Outcome::error`] sorts Kafka's error codes of a single attempt.
//! - Times come from one clock. Equal times count as concurrent, and only what is strictly before
//!   in time is ever held against a broker, so a coarse clock weakens the checks and never makes
//!   them wrong.
//! - Topics are numbered by creation: a topic that is deleted and created again is another
//!   [`Topic`] with the same name. Groups, clients and gateways are numbered as the harness likes;
//!   a gateway that restarts may be given a new number, and must be if its reads may be older than
//!   before.
//!
//! The checker is sound as far as these hold: it reports only what no correct broker answers. It
//! is a handful of sorts and sweeps, near-linear in the number of events and records.

mod check;
mod history;
#[cfg(feature = "kafka")]
pub mod kafka;
mod recorder;
mod rng;
pub mod workload;

pub use check::{Invariant, Violation, check, cold_reads};
pub use history::{
    Answer, Client, Event, Gateway, Group, History, Isolation, List, NotAHistory, Op, Outcome,
    Producer, Record, Time, Topic, TopicPartition,
};
pub use recorder::{Pending, Recorder};
pub use rng::Rng;
