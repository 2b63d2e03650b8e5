//! The Raft host: openraft with our log, our snapshots and our network.
//!
//! ```text
//!   Client ──propose──► openraft ──append──► log_store ──► raft-*.log, vote   (one thread)
//!                          │  ▲
//!                          │  └── network ──► other voters                   (wire.rs)
//!                          ▼ committed
//!                    state_machine ──► Image (shared with every reader)
//!                          │
//!                          └──► snapshot ──► snapshot-*.snap
//! ```
//!
//! Raft sees commands and outcomes as opaque bytes ([`Blob`]): an encoded
//! [`Envelope`](crate::command::Envelope) goes in, an encoded outcome comes out.
//!
//! Invariant: a voter answers for a log entry or a vote only after it has been synced.
//!
//! Invariant: the state machine is not persisted as it changes. After a restart it is the newest
//! snapshot plus the log up to what a leader has since committed; restoring leadership without an
//! election is therefore switched off.

pub(crate) mod blob;
pub mod durable;
pub(crate) mod log_file;
pub(crate) mod log_index;
pub(crate) mod log_store;
pub(crate) mod log_writer;
pub(crate) mod network;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod room;
pub(crate) mod snapshot;
pub(crate) mod state_machine;

#[cfg(test)]
mod tests;

pub(crate) use blob::Blob;

openraft::declare_raft_types!(
    /// The types that Raft works with.
    pub(crate) TypeConfig:
        D = Blob,
        R = Blob,
        NodeId = u64,
        Node = openraft::BasicNode,
);

/// A Raft log id: term, node and index.
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A Raft vote.
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A Raft log entry.
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A membership with the id of the entry that set it.
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// The running Raft node.
pub(crate) type Raft = openraft::Raft<TypeConfig, state_machine::StateMachine>;
