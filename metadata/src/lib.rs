//! Frazil's control plane: the replicated state machine, its quorum, and the image of it that every
//! node reads.
//!
//! ```text
//!             commands (Client)                        reads (Client)
//!                   │                                        │
//!                   ▼                                        ▼
//!   Voter: Raft log, fsynced by a majority ──committed──► Image = State ◄──log── Observer
//! ```
//!
//! - [`state::State`] is the truth, as a pure state machine; [`command`] is what can be asked of it.
//! - [`Voter`] hosts it with Raft: log, vote, snapshots, peers. One to five nodes are voters.
//! - [`Observer`] follows a voter; every other node is one.
//! - [`Image`] is either one's copy of the state. [`Client`] implements the ports of
//!   [`frazil_core::ports`] over it.
//!
//! Invariant: what the quorum holds is metadata. Record bytes, and indexes that grow with the age of
//! the data, are in the object store.
//!
//! Invariant: a command was committed by a majority, on disk, and is in the caller's image when its
//! outcome returns.
//!
//! # Crash
//! A voter that crashes comes back with the log and vote that it answered for, and its image is
//! complete once a leader has committed something in its term; [`Client::ready`] waits for that.
//! An observer keeps nothing and starts from a snapshot.

mod admin;
mod archive;
mod blocking;
mod client;
mod clock;
pub mod codec;
pub mod command;
mod config;
mod connections;
mod directory;
mod error;
mod features;
mod history;
mod image;
mod liveness;
mod membership;
mod metrics;
mod net;
mod node;
mod observer;
mod peer;
mod raft;
mod recover;
#[cfg(test)]
mod recover_tests;
mod server;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
pub mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod voter;
mod wire;

pub use admin::Admin;
pub use archive::{Archive, ArchiveConfig};
pub use client::{Client, FIRST_GIVEN_ID, Registration};
pub use config::{ClientConfig, Config};
pub use connections::Connections;
pub use error::Error;
pub use history::{History, check_history};
pub use image::Image;
pub use metrics::Metrics;
pub use observer::Observer;
pub use raft::durable as small_file;
pub use recover::{GAP, Recovery};
pub use voter::Voter;
pub use wire::{Features, GatewayFeatures, Members, Status};
