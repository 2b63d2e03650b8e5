//! What a voter can be asked, from this process or through [`server`](crate::server).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil_core::env::Clock;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};

use crate::command::Envelope;
use crate::image::Image;
use crate::peer::Introduce;
use crate::raft::log_store::LogReader;
use crate::raft::{Raft, StoredMembership};
use crate::wire::{COMMAND_MAX, Reply, Status};

/// A running voter.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) image: Arc<Image>,
    pub(crate) log: LogReader,
    clock: Arc<dyn Clock>,
    /// There is no other voter.
    sole: bool,
    /// The image has everything that was acknowledged before this process started.
    recovered: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        id: u64,
        raft: Raft,
        image: Arc<Image>,
        log: LogReader,
        clock: Arc<dyn Clock>,
        sole: bool,
    ) -> Self {
        Self {
            id,
            raft,
            image,
            log,
            clock,
            sole,
            recovered: AtomicBool::new(false),
        }
    }

    /// The leader that this voter knows of.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Whether nothing can have been acknowledged that the image does not have: no other voter
    /// exists, this one acknowledges what its image has applied, and it has caught up with what it
    /// acknowledged before it started.
    pub(crate) fn is_authority(&self) -> bool {
        self.sole && self.recovered.load(Ordering::Acquire)
    }

    /// Puts a command into the log, with this clock's time, and answers its outcome.
    pub(crate) async fn propose(&self, mut envelope: Envelope) -> Reply {
        envelope.time_ms = self.clock.now_ms();
        let bytes = envelope.encode();
        if bytes.len() > COMMAND_MAX {
            return Reply::Refused(format!("a command of {} bytes", bytes.len()));
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
                if self.sole {
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

    /// How this voter is.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership: &StoredMembership = &metrics.membership_config;
        let progress = metrics.replication.iter().flatten();
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
            acknowledged: progress
                .filter(|(id, _)| **id != self.id)
                .filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index)))
                .collect(),
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
}
