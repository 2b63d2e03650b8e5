//! What goes into a group's machine, and what comes out of it.

use bytes::Bytes;
use frazil_core::group::Group;

use crate::group::GroupError;

/// Milliseconds of a monotonic clock.
pub(crate) type Millis = u64;

/// Names a request that waits for its answer.
pub(crate) type Token = u64;

/// Bounds and delays of groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long an empty group waits for more members after a first one, milliseconds.
    pub(crate) initial_delay_ms: u64,
    /// Session timeouts allowed, milliseconds, inclusive.
    pub(crate) session_timeout_ms: (i32, i32),
    /// Members of a group, and as many that have an id and have not joined with it yet.
    pub(crate) members: usize,
    /// Bytes of all members' metadata, and of all assignments, of a group.
    pub(crate) bytes: usize,
}

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Empty: not known yet.
    pub(crate) member_id: String,
    /// `group.instance.id`.
    pub(crate) instance_id: Option<String>,
    /// The client's `client.id`.
    pub(crate) client_id: String,
    /// The client's address.
    pub(crate) client_host: String,
    /// Milliseconds.
    pub(crate) session_timeout_ms: i32,
    /// Milliseconds; negative: as the session timeout.
    pub(crate) rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, …
    pub(crate) protocol_type: String,
    /// Name and metadata, most preferred first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new dynamic member must come back with the id it is given (KIP-394).
    pub(crate) id_required: bool,
    /// Whether the client understands `skip_assignment` (KIP-814).
    pub(crate) can_skip_assignment: bool,
    /// Makes a new member's id unique.
    pub(crate) fresh: String,
}

/// A request for one's assignment; the leader's carries everybody's.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
    /// `None`: not said.
    pub(crate) protocol_type: Option<String>,
    /// `None`: not said.
    pub(crate) protocol: Option<String>,
    /// By member id.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// What happens to a group.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Join(Token, Join),
    Sync(Token, Sync),
    Heartbeat {
        token: Token,
        member_id: String,
        instance_id: Option<String>,
        generation: i32,
    },
    /// Members by member id and instance id.
    Leave(Token, Vec<(String, Option<String>)>),
    /// Time has passed; due at [`Machine::wake_at`].
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Store the group before anything that follows. If that fails, forget the machine.
    Persist(Group),
    Joined(Token, Result<Joined, GroupError>),
    Synced(Token, Result<Synced, GroupError>),
    Heartbeat(Token, Result<(), GroupError>),
    /// One result per member of the request, in its order.
    Left(Token, Vec<Result<(), GroupError>>),
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// The leader need not assign: the assignment stands.
    pub(crate) skip_assignment: bool,
    /// Everybody with their metadata, for the leader; else empty.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}

/// The phase of a group, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// Kafka's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}
