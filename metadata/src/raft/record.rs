//! What stands in the Raft log's frames: entries, truncations, purges, in the order in which they
//! happened. CBOR; persisted: never reuse a number.
//!
//! ```text
//! Record     = [0, [entry]] | [1, [truncate]] | [2, [purge]]
//! entry      = [log id, payload]
//! payload    = [0, []] blank | [1, [bytes]] command | [2, [membership]]
//! membership = [configs: [[voter id]], nodes: {id: address}]
//! log id     = [term, node, index]
//! ```
//!
//! Replaying the records from the first file's first to the last one's last good one gives the log
//! as it was: an entry follows its predecessor, a truncation drops what is behind it, a purge what
//! is before it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use openraft::entry::RaftEntry as _;
use openraft::vote::{RaftLeaderId as _, RaftVote as _};
use openraft::{BasicNode, EntryPayload, Membership};

use super::{Blob, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::error::Corrupt;

type LeaderId = <TypeConfig as openraft::RaftTypeConfig>::LeaderId;

/// One record of the log. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Record {
    /// An entry was appended.
    #[n(0)]
    Entry {
        /// Its id.
        #[n(0)]
        id: Id,
        /// Its content.
        #[n(1)]
        payload: Payload,
    },
    /// The entries after this one were dropped; `None`: all of them.
    #[n(1)]
    Truncate {
        /// The last entry that stays.
        #[n(0)]
        after: Option<Id>,
    },
    /// The entries up to this one, inclusive, are in a snapshot and may go. `None` (at the
    /// beginning of a file): nothing has been purged so far.
    #[n(2)]
    Purge {
        /// The last entry that goes.
        #[n(0)]
        upto: Option<Id>,
    },
}

/// A log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Id {
    #[n(0)]
    term: u64,
    #[n(1)]
    node: u64,
    #[n(2)]
    index: u64,
}

/// The content of an entry. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Payload {
    /// Nothing: a new leader's first entry.
    #[n(0)]
    Blank,
    /// An encoded envelope.
    #[n(1)]
    Command(#[n(0)] Blob),
    /// A change of membership.
    #[n(2)]
    Membership(#[n(0)] Members),
}

/// A membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Members {
    /// One set of voters, or two while it changes.
    #[n(0)]
    configs: Vec<Vec<u64>>,
    /// Addresses of voters and learners.
    #[n(1)]
    nodes: BTreeMap<u64, String>,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct VoteRecord {
    #[n(0)]
    term: u64,
    #[n(1)]
    node: u64,
    #[n(2)]
    committed: bool,
}

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Coverage {
    #[n(0)]
    last: Option<Id>,
    #[n(1)]
    membership_id: Option<Id>,
    #[n(2)]
    membership: Members,
}

impl Record {
    /// The record of an appended entry.
    pub(crate) fn entry(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(command) => Payload::Command(command.clone()),
            EntryPayload::Membership(membership) => Payload::Membership(membership.into()),
        };
        Self::Entry {
            id: (&entry.log_id).into(),
            payload,
        }
    }

    /// The record's bytes.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        encode_onto(self, into);
    }

    /// The record in `bytes`, which it must fill.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        decode_all(bytes, "log record")
    }

    /// The entry, if the record is one.
    pub(crate) fn into_entry(self) -> Result<Entry, Corrupt> {
        match self {
            Self::Entry { id, payload } => entry(id, payload),
            Self::Truncate { .. } | Self::Purge { .. } => {
                Err(Corrupt::new("the log record is not an entry"))
            }
        }
    }
}

/// Appends a value's bytes.
pub(crate) fn encode_onto<T: Encode<()>>(value: &T, into: &mut Vec<u8>) {
    match minicbor::encode(value, into) {
        Ok(()) => {}
        // A vector takes everything, and none of our encoders has errors of its own.
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

/// Decodes a value that must fill `bytes`.
pub(crate) fn decode_all<'b, T: Decode<'b, ()>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<T, Corrupt> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder
        .decode()
        .map_err(|error| Corrupt::new(format!("{what}: {error}")))?;
    if decoder.position() != bytes.len() {
        return Err(Corrupt::new(format!("{what}: bytes behind its end")));
    }
    Ok(value)
}

/// Builds the entry of a record.
pub(crate) fn entry(id: Id, payload: Payload) -> Result<Entry, Corrupt> {
    let payload = match payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(command),
        Payload::Membership(members) => EntryPayload::Membership(members.try_into()?),
    };
    Ok(Entry::new(id.into(), payload))
}

impl From<&LogId> for Id {
    fn from(id: &LogId) -> Self {
        Self {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<Id> for LogId {
    fn from(id: Id) -> Self {
        Self {
            leader_id: LeaderId::new(id.term, id.node),
            index: id.index,
        }
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(vote: VoteRecord) -> Self {
        Self::from_leader_id(LeaderId::new(vote.term, vote.node), vote.committed)
    }
}

impl From<&Membership<u64, BasicNode>> for Members {
    fn from(membership: &Membership<u64, BasicNode>) -> Self {
        Self {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|config| config.iter().copied().collect())
                .collect(),
            nodes: membership
                .nodes()
                .map(|(id, node)| (*id, node.addr.clone()))
                .collect(),
        }
    }
}

impl TryFrom<Members> for Membership<u64, BasicNode> {
    type Error = Corrupt;

    fn try_from(members: Members) -> Result<Self, Corrupt> {
        if members == Members::default() {
            return Ok(Self::default());
        }
        let configs: Vec<BTreeSet<u64>> = members
            .configs
            .into_iter()
            .map(|config| config.into_iter().collect())
            .collect();
        let nodes: BTreeMap<u64, BasicNode> = members
            .nodes
            .into_iter()
            .map(|(id, addr)| (id, BasicNode { addr }))
            .collect();
        Self::new(configs, nodes).map_err(|error| Corrupt::new(format!("membership: {error}")))
    }
}

impl From<&SnapshotMeta> for Coverage {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.as_ref().map(Into::into),
            membership_id: meta.last_membership.log_id().as_ref().map(Into::into),
            membership: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<Coverage> for SnapshotMeta {
    type Error = Corrupt;

    fn try_from(coverage: Coverage) -> Result<Self, Corrupt> {
        Ok(Self {
            last_log_id: coverage.last.map(Into::into),
            last_membership: StoredMembership::new(
                coverage.membership_id.map(Into::into),
                coverage.membership.try_into()?,
            ),
        })
    }
}
