//! What the quorum keeps of a consumer group.
//!
//! Only what must outlive a coordinator: the last completed generation with its members and
//! assignments. Who is rejoining right now, and every timer, lives in the coordinator.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::{BrokerEpoch, BrokerId, Offset};

/// A group as of its last completed rebalance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Group {
    /// `consumer`, `connect`, `sr`, …; empty for a group that only commits offsets.
    #[n(0)]
    pub protocol_type: String,
    /// Counts completed rebalances; 0 before the first.
    #[n(1)]
    pub generation: i32,
    /// The chosen protocol (assignor), if there are members.
    #[n(2)]
    pub protocol: Option<String>,
    /// The member id of the leader, if there are members.
    #[n(3)]
    pub leader: Option<String>,
    /// Members by member id. Empty: the group is `Empty`, else `Stable`.
    #[n(4)]
    pub members: BTreeMap<String, Member>,
}

/// A member of a completed generation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// `group.instance.id` of a static member (KIP-345).
    #[n(0)]
    pub instance_id: Option<String>,
    /// The client's `client.id`.
    #[n(1)]
    pub client_id: String,
    /// The client's address.
    #[n(2)]
    pub client_host: String,
    /// Milliseconds without a heartbeat after which the member is gone.
    #[n(3)]
    pub session_timeout_ms: i32,
    /// Milliseconds the member is given to rejoin.
    #[n(4)]
    pub rebalance_timeout_ms: i32,
    /// The protocols it offers, in its order of preference, with its metadata for each.
    #[n(5)]
    pub protocols: Vec<(String, ByteVec)>,
    /// What the leader assigned to it.
    #[n(6)]
    pub assignment: ByteVec,
}

/// Who coordinates a group, and since which claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Coordinator {
    /// The gateway.
    #[n(0)]
    pub broker: BrokerId,
    /// Its registration when it claimed the group.
    #[n(1)]
    pub broker_epoch: BrokerEpoch,
    /// Counts claims of this group; every write by a coordinator carries it.
    #[n(2)]
    pub epoch: u64,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommittedOffset {
    /// The next offset to be consumed.
    #[n(0)]
    pub offset: Offset,
    /// The leader epoch the client gave, or -1.
    #[n(1)]
    pub leader_epoch: i32,
    /// The client's own note.
    #[n(2)]
    pub metadata: String,
    /// The leader's time of the commit, milliseconds since the epoch.
    #[n(3)]
    pub committed_ms: i64,
}
