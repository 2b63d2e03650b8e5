//! Who the members are, and how they are changed while the quorum works.
//!
//! ```text
//! add      ask the node who it is ─► note its id ─► learner, until it has caught up ─► voter
//! remove   note its id ─► no voter (a leader first hands over and lets the next one do it)
//! ```
//!
//! Every step may be repeated: a change that was interrupted is finished by asking for it again. A
//! change of voters that a leader left half done (joint consensus) is finished by the next leader.
//!
//! **Ids are never used twice.** A voter's log is what it answered for; a node that came with
//! another log, or none, under the same id would take that back. The state therefore notes every id
//! whose voter has had the log ([`Command::NoteVoters`]), for ever, and a node without a log whose
//! id is noted is refused: when it starts, if anyone reachable knows, and when it is to be added.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::Instant;

use crate::command::{Command, Envelope};
use crate::node::Node;
use crate::raft::{StoredMembership, TypeConfig};
use crate::wire::{Members, Reply, Request, VoterChange};

/// How long a new voter may take to answer who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// How often a voter looks whether it was removed, and how long others may take to say so.
const LOOK: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(2);
/// How long a new voter may take to catch up with the log.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Done, or the reply that says why not.
type Done = Result<(), Box<Reply>>;
type Written<T> = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// Members with their addresses in a membership: voters, and those that only learn.
fn split(membership: &StoredMembership) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let nodes = membership
        .nodes()
        .map(|(id, node)| (*id, node.addr.clone()));
    nodes.partition(|(id, _)| voters.contains(id))
}

impl Node {
    fn membership(&self) -> Arc<StoredMembership> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Arc::clone(&metrics.membership_config)
    }

    /// The members by this voter's log.
    pub(crate) fn members(&self) -> Members {
        let membership = self.membership();
        let (mut voters, mut learners) = split(&membership);
        for (id, address) in voters.iter_mut().chain(&mut learners) {
            *address = self.directory.address(*id, address).to_owned();
        }
        let acknowledged = self.acknowledged();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let set_by = membership.log_id().as_ref();
        Members {
            voter: self.id,
            leader: metrics.current_leader,
            set_by: set_by.map(|id| (id.leader_id.term, id.index)),
            last_index: metrics.last_log_index,
            voters,
            learners,
            acknowledged,
            seen: self.image.read(|state| state.voters()),
            knows: self.image.knows(),
            heard_ms: self.heard_ms(),
        }
    }

    /// If it leads: how many milliseconds ago each other member was heard of.
    fn heard_ms(&self) -> BTreeMap<u64, u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.iter().flatten();
        heard
            .filter(|(id, _)| **id != self.id)
            .filter_map(|(id, at)| Some((*id, openraft::Instant::elapsed(&*(*at)?))))
            .map(|(id, ago)| (id, u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
            .collect()
    }

    /// Whether this voter was one and is none any more, as it knows itself, or as a leader says that
    /// knows of later members.
    async fn was_removed(&self) -> bool {
        let own = self.members();
        let removed = |members: &Members| {
            members.seen.contains(&self.id)
                && !members.voters.contains_key(&self.id)
                && !members.learners.contains_key(&self.id)
        };
        if removed(&own) {
            return true;
        }
        // Nobody says to one that is left out that its leader is another's now, so all are asked.
        if own.leader == Some(self.id) || own.set_by.is_none() {
            return false;
        }
        for peer in self.directory.peers().values() {
            let asked = peer.call(&Request::Members, Instant::now() + ANSWER).await;
            if let Ok(Reply::Members(theirs)) = asked
                && theirs.leader == Some(theirs.voter)
                && theirs.set_by > own.set_by
            {
                return removed(&theirs);
            }
        }
        false
    }

    /// If it leads: up to which index each other member has acknowledged the log to it.
    pub(crate) fn acknowledged(&self) -> BTreeMap<u64, u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let progress = metrics.replication.iter().flatten();
        progress
            .filter(|(id, _)| **id != self.id)
            .filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index)))
            .collect()
    }

    /// Tells the directory of the members.
    pub(crate) fn publish_members(&self) {
        let membership = self.membership();
        if let Some(id) = membership.log_id() {
            let (voters, _) = split(&membership);
            self.directory.adopt((id.leader_id.term, id.index), &voters);
        }
    }

    /// As the leader: notes the ids of voters that have had the log, and finishes a change that
    /// another leader has left half done. Whether nothing is left to do.
    pub(crate) async fn mind_members(&self) -> bool {
        let membership = self.membership();
        if membership.get_joint_config().len() > 1 {
            let Ok(_alone) = self.changing.try_lock() else {
                return false;
            };
            let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
            if let Err(error) = self.raft.change_membership(nobody, false).await {
                tracing::debug!(%error, "a change of voters is not finished yet");
            }
            return false;
        }
        let acknowledged = self.acknowledged();
        let has_log = |id: &u64| *id == self.id || acknowledged.contains_key(id);
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let seen = self.image.read(|state| state.voters());
        let new: Vec<u64> = voters.difference(&seen).copied().filter(has_log).collect();
        let all = voters.iter().all(|id| seen.contains(id) || has_log(id));
        (new.is_empty() || self.note(new).await.is_ok()) && all
    }

    async fn note(&self, ids: Vec<u64>) -> Done {
        let command = Command::NoteVoters { ids };
        match self.propose(Envelope::by_leader(command)).await {
            Reply::Proposed { index, .. } => {
                self.image.wait_applied(index).await;
                Ok(())
            }
            other => Err(Box::new(other)),
        }
    }

    /// Changes the voters, as the leader. Takes a minute at most.
    ///
    /// # Cancel safety
    /// What has begun goes on.
    pub(crate) async fn change_voters(self: Arc<Self>, change: VoterChange) -> Reply {
        let changing = tokio::spawn(async move {
            let Ok(_alone) = self.changing.try_lock() else {
                return Reply::Refused("another change of the voters is under way".to_owned());
            };
            let changed = match change {
                VoterChange::Add { id, address } => self.add_voter(id, address).await,
                VoterChange::Remove { id } => self.remove_voter(id).await,
            };
            changed.map_or_else(|reply| *reply, |()| Reply::Members(self.members()))
        });
        changing
            .await
            .unwrap_or_else(|error| Reply::Unknown(error.to_string()))
    }

    /// Waits until this leader has applied everything, so that what it knows is what there is.
    async fn catch_up(&self) -> Done {
        match self.read_index().await {
            Reply::ReadIndex(index) => {
                self.image.wait_applied(index).await;
                Ok(())
            }
            other => Err(Box::new(other)),
        }
    }

    async fn add_voter(&self, id: u64, address: String) -> Done {
        let refused = |why: String| Err(Box::new(Reply::Refused(why)));
        self.catch_up().await?;
        if !self.listens {
            return refused(
                "this voter is alone and listens to nobody: list it in controller.quorum.voters \
                 and start it again"
                    .to_owned(),
            );
        }
        let members = self.members();
        if let Some(known) = members.voters.get(&id) {
            return match *known == address {
                true => Ok(()),
                false => refused(format!("voter {id} is a member, at {known}")),
            };
        }
        let is_learner = members.learners.contains_key(&id);
        if !is_learner && members.remembers(id) {
            return refused(format!(
                "id {id} has been a voter's, and a voter's id is never used again; give the node \
                 another node.id"
            ));
        }
        self.ask_candidate(id, &address, is_learner).await?;

        if self.sole.swap(false, Ordering::AcqRel) {
            self.raft.runtime_config().tick(true);
        }
        let adding = self.raft.add_learner(id, BasicNode::new(&address), true);
        match tokio::time::timeout(CATCH_UP, adding).await {
            Ok(added) => written(added)?,
            Err(_) => {
                return refused(format!(
                    "voter {id} learns from now on, but has not caught up within {} s; ask again",
                    CATCH_UP.as_secs()
                ));
            }
        };
        self.note(vec![id]).await?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        written(self.raft.change_membership(change, true).await)?;
        tracing::info!(id, address, "a voter was added");
        Ok(())
    }

    /// Makes sure that a node is there, is who it should be, and belongs to nobody else.
    async fn ask_candidate(&self, id: u64, address: &str, is_learner: bool) -> Done {
        let peer = self.peer(id, address);
        let asked = peer.call(&Request::Members, Instant::now() + INTRODUCTION);
        let refused = |why: String| Err(Box::new(Reply::Refused(why)));
        let theirs = match asked.await {
            Ok(Reply::Members(members)) => members,
            Ok(_) => return refused(format!("{address} answers something else")),
            Err(error) => {
                return refused(format!(
                    "no voter {id} answers there, and one that does not run cannot be added: \
                     {error}"
                ));
            }
        };
        let level = self.image.read(|state| state.level());
        if theirs.knows < level {
            return refused(format!(
                "feature level {level} is in use, and voter {id} knows levels up to {}: install a \
                 newer frazil on it first",
                theirs.knows
            ));
        }
        if !is_learner && theirs.last_index.is_some() {
            return refused(format!(
                "voter {id} at {address} already has a log; a new voter begins with an empty one"
            ));
        }
        Ok(())
    }

    async fn remove_voter(&self, id: u64) -> Done {
        let refused = |why: String| Err(Box::new(Reply::Refused(why)));
        self.catch_up().await?;
        let members = self.members();
        let ids = BTreeSet::from([id]);
        if members.learners.contains_key(&id) {
            let change = ChangeMembers::RemoveNodes(ids);
            return written(self.raft.change_membership(change, false).await);
        }
        if !members.voters.contains_key(&id) {
            return match members.remembers(id) {
                // It was removed before.
                true => Ok(()),
                false => refused(format!("there is no voter {id}")),
            };
        }
        if members.voters.len() == 1 {
            return refused(format!("voter {id} is the last one"));
        }
        if id == self.id {
            let progress = members.acknowledged.iter();
            let voting = progress.filter(|(id, _)| members.voters.contains_key(id));
            let best = voting.max_by_key(|(_, index)| **index);
            if let Some((&successor, _)) = best {
                let handing = self.raft.trigger().transfer_leader(successor).await;
                handing.map_err(|error| Box::new(Reply::Unknown(error.to_string())))?;
            }
            return Err(Box::new(Reply::NotLeader { leader: None }));
        }
        self.note(vec![id]).await?;
        let change = ChangeMembers::RemoveVoters(ids);
        written(self.raft.change_membership(change, false).await)?;
        tracing::info!(id, "a voter was removed");
        Ok(())
    }
}

/// Ends a voter that has been removed: nobody tells it anything any more.
pub(crate) async fn notice_removal(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if node.was_removed().await {
            node.image.end(|| {
                format!(
                    "voter {} has been removed from the quorum: take metadata out of this node's \
                     roles, or stop it for good; as a voter it can only return under a new node.id",
                    node.id
                )
            });
            return;
        }
    }
}

fn written<T>(result: Written<T>) -> Done {
    let reply = match result {
        Ok(_) => return Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Reply::NotLeader {
            leader: forward.leader_id,
        },
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            Reply::Refused(error.to_string())
        }
        Err(error) => Reply::Unknown(error.to_string()),
    };
    Err(Box::new(reply))
}
