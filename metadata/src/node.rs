//! What a voter can be asked, from this process or through [`server`](crate::server).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frazil_core::env::Clock;
use frazil_core::{BrokerEpoch, BrokerId};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use tokio::time::Instant;

use crate::clock::LeaderClock;
use crate::command::{Command, Envelope, Outcome};
use crate::directory::Directory;
use crate::history::History;
use crate::image::Image;
use crate::liveness::Heard;
use crate::peer::{CallError, Introduce, Peer};
use crate::raft::log_store::LogReader;
use crate::raft::snapshot::SnapshotStore;
use crate::raft::{Raft, StoredMembership};
use crate::wire::{COMMAND_MAX, Reply, Request, Status, too_large};

/// A running voter.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) image: Arc<Image>,
    pub(crate) log: LogReader,
    pub(crate) snapshots: Arc<SnapshotStore>,
    clock: Arc<dyn Clock>,
    leader_clock: LeaderClock,
    /// What it has heard of gateways as the leader.
    pub(crate) heard: Heard,
    /// There is no other voter.
    pub(crate) sole: AtomicBool,
    /// Whether other nodes can reach this one.
    pub(crate) listens: bool,
    /// The other voters.
    pub(crate) directory: Arc<Directory>,
    /// Held while the members are changed.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The image has everything that was acknowledged before this process started.
    recovered: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        raft: Raft,
        image: Arc<Image>,
        (log, snapshots): (LogReader, Arc<SnapshotStore>),
        clock: Arc<dyn Clock>,
        directory: Arc<Directory>,
        sole: bool,
        listens: bool,
    ) -> Self {
        let id = raft.metrics().borrow_watched().id;
        Self {
            id,
            raft,
            image,
            log,
            snapshots,
            clock,
            leader_clock: LeaderClock::default(),
            heard: Heard::default(),
            sole: AtomicBool::new(sole),
            listens,
            directory,
            changing: tokio::sync::Mutex::default(),
            recovered: AtomicBool::new(false),
        }
    }

    /// The leader that this voter knows of.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// The leader that this voter knows of, and its term.
    pub(crate) fn leader_and_term(&self) -> (Option<u64>, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader, metrics.current_term)
    }

    /// Whether nothing can have been acknowledged that the image does not have: no other voter
    /// exists, this one acknowledges what its image has applied, and it has caught up with what it
    /// acknowledged before it started.
    pub(crate) fn is_authority(&self) -> bool {
        self.sole.load(Ordering::Acquire) && self.recovered.load(Ordering::Acquire)
    }

    /// A way to another node.
    pub(crate) fn peer(&self, id: u64, address: &str) -> Peer {
        let us = Us {
            image: Arc::clone(&self.image),
            voter: Some(self.id),
        };
        Peer::new(id, address.to_owned(), Arc::new(us))
    }

    /// A heartbeat of a gateway that is live: it is heard, and nothing has to be written. `None`: it
    /// has to.
    async fn hear(&self, broker: BrokerId, epoch: BrokerEpoch, lease_ms: u32) -> Option<Reply> {
        if self.image.read(|state| state.level()) < 2 {
            return None;
        }
        match self.read_index().await {
            Reply::ReadIndex(index) => self.image.wait_applied(index).await,
            other => return Some(other),
        }
        let lease = Duration::from_millis(lease_ms.into());
        self.heard.beat(epoch, lease, Instant::now());
        let leased = self.image.read(|state| {
            let known = state.registration(broker);
            known.is_some_and(|known| {
                known.broker.epoch == epoch
                    && known.lease_until_ms == i64::MAX
                    && state.is_current(&known.broker)
            })
        });
        leased.then(|| Reply::Proposed {
            index: self.image.applied(),
            outcome: Outcome::Done.encode().into(),
        })
    }

    /// Puts a command into the log, with the leader's time, and answers its outcome.
    pub(crate) async fn propose(&self, mut envelope: Envelope) -> Reply {
        if let Command::Heartbeat {
            broker,
            epoch,
            lease_ms,
        } = envelope.command
            && let Some(reply) = self.hear(broker, epoch, lease_ms).await
        {
            return reply;
        }
        let needs = envelope.command.level();
        let level = self.image.read(|state| state.level());
        if needs > level && !envelope.command.sets_level() {
            return Reply::Impossible(format!(
                "it needs feature level {needs}, and {level} is in use: when every node has the \
                 new program, frazil cluster upgrade"
            ));
        }
        let (seen, wall_ms) = (self.image.time(), self.clock.now_ms());
        envelope.time_ms = self.leader_clock.stamp(seen, wall_ms, Instant::now());
        let bytes = envelope.encode();
        if bytes.len() > COMMAND_MAX {
            return Reply::Impossible(too_large(bytes.len()));
        }
        match self.raft.client_write(bytes.into()).await {
            Ok(written) => Reply::Proposed {
                index: written.log_id.index,
                outcome: written.data,
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Reply::NotLeader {
                    leader: forward.leader_id,
                }
            }
            Err(error) => Reply::Unknown(error.to_string()),
        }
    }

    /// The index up to which an image must be applied to have everything acknowledged so far.
    pub(crate) async fn read_index(&self) -> Reply {
        if self.is_authority() {
            return Reply::ReadIndex(self.image.applied());
        }
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => {
                if self.sole.load(Ordering::Acquire) {
                    self.image.wait_applied(read.index()).await;
                    self.recovered.store(true, Ordering::Release);
                }
                Reply::ReadIndex(read.index())
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Reply::NotLeader {
                    leader: forward.leader_id,
                }
            }
            Err(error) => Reply::Refused(error.to_string()),
        }
    }

    /// The reply of this voter, or the leader's to `request` if this one does not lead.
    pub(crate) async fn or_leader(
        &self,
        reply: Reply,
        request: &Request,
        within: Duration,
    ) -> Reply {
        let Reply::NotLeader {
            leader: Some(leader),
        } = reply
        else {
            return reply;
        };
        let Some(peer) = self.directory.peers().get(&leader).cloned() else {
            return reply;
        };
        match peer.call(request, Instant::now() + within).await {
            Ok(reply) => reply,
            Err(CallError::NotSent(why)) => Reply::Refused(why),
            Err(CallError::Lost(why)) => Reply::Unknown(why),
        }
    }

    /// How this voter is.
    pub(crate) fn status(&self) -> Status {
        // Before the metrics are borrowed: to borrow them twice is a deadlock as soon as Raft wants
        // to write them in between.
        let acknowledged = self.acknowledged();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let membership: &StoredMembership = &metrics.membership_config;
        Status {
            voter: self.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied: self.image.applied(),
            voters: membership.voter_ids().collect(),
            cluster_id: self
                .image
                .read(|state| state.cluster_id().map(str::to_owned)),
            acknowledged,
        }
    }
}

/// A node's greeting.
pub(crate) struct Us {
    pub(crate) image: Arc<Image>,
    pub(crate) voter: Option<u64>,
}

impl Introduce for Us {
    fn cluster(&self) -> Option<String> {
        self.image
            .read(|state| state.cluster_id().map(str::to_owned))
    }

    fn voter(&self) -> Option<u64> {
        self.voter
    }

    fn knows(&self) -> u8 {
        self.image.knows()
    }

    fn level(&self) -> u8 {
        self.image.read(|state| state.level())
    }

    fn history(&self) -> Option<History> {
        self.image.read(|state| state.history())
    }

    fn excluded(&self, why: &str) {
        self.image.end(|| why.to_owned());
    }
}
