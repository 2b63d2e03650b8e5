//! Consumer groups: which of them this gateway coordinates, and the way to their coordinators.
//!
//! ```text
//! api/join_group … ─► Groups ──mailbox──► task (one per group) ─► Machine (pure)
//!                       │                    │ claim, save, commit
//!                       └── placement        └──────────────────► GroupStore (quorum)
//! ```
//!
//! # Who coordinates
//! The live broker that [`crate::placement`] chooses. Each request is checked against the live
//! brokers of the image; views may differ for a moment, and nothing depends on them: what a
//! coordinator writes carries its *claim*, and the quorum accepts only the newest claim of a
//! group. One that finds its claim superseded answers NOT_COORDINATOR to all that wait and forgets
//! the group.
//!
//! # What survives
//! Each completed generation with its members and assignments is stored before anybody is told of
//! it, so a coordinator that dies or moves is replaced by loading the group: members keep their
//! ids and generation and notice nothing but NOT_COORDINATOR or a lost connection. Timers start
//! afresh; silence towards a coordinator that could not listen counts for nobody. Groups with
//! members that no client asks for are adopted by [`Groups::run`], so that their sessions end.
//!
//! # Freshness
//! Committed offsets are read after a barrier, so a commit acknowledged by any gateway is seen.
//! Commits of one member are applied in the order in which they came.
//!
//! # Bounds
//! Loaded groups, members, and bytes per group are bounded by [`Config`], a group's mailbox and
//! its commits in flight by constants. A group without members is forgotten after a minute
//! without requests (its state stays in the quorum).

mod machine;
mod member;
#[cfg(test)]
mod simulation;
mod subscription;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::group::{CommittedOffset, Group};
use frazil_core::ports::{Catalog, GroupRefusal, GroupStore, LogIndex};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerId, PortError, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use machine::{Join, Joined, State, Sync, Synced};
use machine::{Limits, Millis};
use task::{Reply, Request};

use crate::placement;

/// Requests that may wait for one group's task.
const MAILBOX: usize = 256;

/// How often groups with members that nobody asks for are looked for.
const ADOPTION_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long an empty group waits for more members after a first one
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// The shortest session timeout that members may ask for (`group.min.session.timeout.ms`).
    pub session_timeout_min: Duration,
    /// The longest session timeout that members may ask for (`group.max.session.timeout.ms`).
    pub session_timeout_max: Duration,
    /// Members that a group may have (`group.max.size`).
    pub members_max: usize,
    /// Bytes of all members' metadata, and of all assignments, that a group may have.
    pub bytes_max: usize,
    /// Groups that this gateway may have loaded.
    pub groups_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_secs(3),
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            members_max: 2_000,
            bytes_max: 4 << 20,
            groups_max: 10_000,
        }
    }
}

/// Why a group's coordinator does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("the group id is empty")]
    InvalidGroupId,
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    #[error("the member is not in the group")]
    UnknownMember,
    #[error("the generation is not the current one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the member shares no protocol with the group")]
    InconsistentProtocol,
    #[error("join again, as {0}")]
    MemberIdRequired(String),
    #[error("another member has this instance id now")]
    FencedInstance,
    #[error("the group has no room")]
    GroupFull,
    #[error("another gateway coordinates the group")]
    NotCoordinator,
    #[error("the group's coordinator cannot reach the quorum, or has too many groups")]
    Unavailable,
    #[error("the metadata does not take what the group would store")]
    Impossible,
    #[error("the group has members")]
    NotEmpty,
    #[error("there is no such group")]
    UnknownGroup,
}

impl From<PortError> for GroupError {
    fn from(error: PortError) -> Self {
        match error {
            // What may have happened is fenced by the next claim, and asked for again.
            PortError::Unavailable(_) | PortError::Indeterminate(_) => Self::Unavailable,
            PortError::Fenced(_) => Self::NotCoordinator,
            PortError::Impossible(_) => Self::Impossible,
        }
    }
}

impl From<GroupRefusal> for GroupError {
    fn from(refusal: GroupRefusal) -> Self {
        match refusal {
            GroupRefusal::NotCoordinator => Self::NotCoordinator,
            GroupRefusal::StaleGeneration => Self::IllegalGeneration,
            GroupRefusal::UnknownMember => Self::UnknownMember,
            GroupRefusal::NotEmpty => Self::NotEmpty,
            GroupRefusal::UnknownGroup => Self::UnknownGroup,
        }
    }
}

/// An offset commit.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Empty: not a member.
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    /// Negative: not a member.
    pub(crate) generation: i32,
    pub(crate) offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// A group as it is described.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) state: State,
    pub(crate) group: Group,
    /// Neither was there ever a generation, nor is anybody about to join.
    pub(crate) new: bool,
}

/// A group as it is listed.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) protocol_type: String,
}

/// The groups that this gateway coordinates. Clones share everything.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

struct Shared {
    me: BrokerId,
    store: Arc<dyn GroupStore>,
    catalog: Arc<dyn Catalog>,
    log: Arc<dyn LogIndex>,
    ids: Arc<dyn Ids>,
    config: Config,
    started: Instant,
    next_load: AtomicU64,
    loaded: Mutex<HashMap<String, Loaded>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A group's task.
struct Loaded {
    /// Tells this load of the group from another.
    load: u64,
    mailbox: mpsc::Sender<Request>,
}

impl Groups {
    /// Coordinates groups as broker `me`.
    pub fn new(
        me: BrokerId,
        store: Arc<dyn GroupStore>,
        catalog: Arc<dyn Catalog>,
        log: Arc<dyn LogIndex>,
        ids: Arc<dyn Ids>,
        config: Config,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                me,
                store,
                catalog,
                log,
                ids,
                config,
                started: Instant::now(),
                next_load: AtomicU64::new(0),
                loaded: Mutex::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Adopts, until [`Self::stop`], groups of this coordinator that have members but that nobody
    /// has asked for since their last coordinator went: their members' sessions must end.
    ///
    /// # Cancel safety
    /// May be dropped at any time; no group is adopted afterwards.
    pub async fn run(&self) {
        let shared = &self.shared;
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(ADOPTION_INTERVAL) => {}
            }
            let brokers = shared.catalog.brokers();
            for name in shared.store.groups(None) {
                let mine = placement::coordinator(&brokers, &name)
                    .is_some_and(|broker| broker.id == shared.me);
                let has_members = || {
                    shared
                        .store
                        .group(&name)
                        .is_some_and(|(g, _)| !g.members.is_empty())
                };
                if mine && !shared.loaded.lock().contains_key(&name) && has_members() {
                    tracing::debug!(group = %name, "adopting a group with members");
                    // Too many groups are loaded: another round will come.
                    let _ = self.mailbox(&name);
                }
            }
        }
    }

    /// Ends all coordination: whoever waits is answered NOT_COORDINATOR. Waits until the last
    /// command to the quorum is through.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Joins a group; waits for the generation.
    pub(crate) async fn join(&self, group: &str, mut join: Join) -> Result<Joined, GroupError> {
        check_name(group)?;
        join.fresh = self.shared.ids.uuid().to_string();
        let may_create = join.member_id.is_empty();
        match self
            .ask(group, may_create, |reply| Request::Join(join, reply))
            .await
        {
            Err(GroupError::UnknownGroup) => Err(GroupError::UnknownMember),
            result => result,
        }
    }

    /// Waits for the assignment of the current generation, and as leader gives it.
    pub(crate) async fn sync(&self, group: &str, sync: Sync) -> Result<Synced, GroupError> {
        check_name(group)?;
        match self
            .ask(group, false, |reply| Request::Sync(sync, reply))
            .await
        {
            Err(GroupError::UnknownGroup) => Err(GroupError::UnknownMember),
            result => result,
        }
    }

    /// Shows that a member lives.
    pub(crate) async fn heartbeat(
        &self,
        group: &str,
        member_id: String,
        instance_id: Option<String>,
        generation: i32,
    ) -> Result<(), GroupError> {
        check_name(group)?;
        let request = |reply| Request::Heartbeat {
            member_id,
            instance_id,
            generation,
            reply,
        };
        match self.ask(group, false, request).await {
            Err(GroupError::UnknownGroup) => Err(GroupError::UnknownMember),
            result => result,
        }
    }

    /// Takes members (member id, instance id) out of a group. One result per member.
    pub(crate) async fn leave(
        &self,
        group: &str,
        members: Vec<(String, Option<String>)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_name(group)?;
        let count = members.len();
        match self
            .ask(group, false, |reply| Request::Leave(members, reply))
            .await
        {
            Err(GroupError::UnknownGroup) => Ok(vec![Err(GroupError::UnknownMember); count]),
            result => result,
        }
    }

    /// Commits offsets. [`GroupError::UnknownGroup`] only for one who says to be a member.
    pub(crate) async fn commit(&self, group: &str, commit: Commit) -> Result<(), GroupError> {
        let may_create = commit.generation < 0;
        self.ask(group, may_create, |reply| Request::Commit(commit, reply))
            .await
    }

    /// All committed offsets of a group; none if there is no such group.
    pub(crate) async fn offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError> {
        self.shared.check_owner(group)?;
        if !sabotage::on(Bug::OffsetsWithoutBarrier) {
            self.shared.log.barrier().await?;
        }
        Ok(self.shared.store.offsets(group))
    }

    /// Forgets committed offsets, by topic name; answers the names that are refused because
    /// members subscribe to them.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        topics: Vec<(String, Vec<TopicPartition>)>,
    ) -> Result<Vec<String>, GroupError> {
        check_name(group)?;
        self.ask(group, false, |reply| Request::DeleteOffsets(topics, reply))
            .await
    }

    /// Deletes a group without members, with its offsets.
    pub(crate) async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.ask(group, false, Request::Delete).await
    }

    /// Describes a group.
    pub(crate) async fn describe(&self, group: &str) -> Result<Description, GroupError> {
        self.shared.check_owner(group)?;
        self.shared.log.barrier().await?;
        self.describe_fresh(group).await
    }

    /// The groups that exist and that this gateway coordinates.
    pub(crate) async fn list(&self) -> Result<Vec<Listing>, GroupError> {
        let shared = &self.shared;
        shared.log.barrier().await?;
        let mut names: Vec<String> = shared.loaded.lock().keys().cloned().collect();
        names.extend(shared.store.groups(None));
        names.sort();
        names.dedup();
        let mut listings = Vec::new();
        for name in names {
            if shared.check_owner(&name).is_err() {
                continue;
            }
            match self.describe_fresh(&name).await {
                Ok(Description { state, group, .. }) => listings.push(Listing {
                    name,
                    state,
                    protocol_type: group.protocol_type,
                }),
                // Gone, or gone elsewhere, meanwhile.
                Err(GroupError::UnknownGroup | GroupError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listings)
    }

    /// As [`Self::describe`], without the barrier. A group that is not loaded is not loaded for
    /// this: what the quorum knows of it is all there is.
    async fn describe_fresh(&self, group: &str) -> Result<Description, GroupError> {
        let shared = &self.shared;
        let description = if shared.loaded.lock().contains_key(group) {
            self.ask(group, true, Request::Describe).await?
        } else {
            let (group, _) = shared.store.group(group).unwrap_or_default();
            let state = if group.members.is_empty() {
                State::Empty
            } else {
                State::Stable
            };
            let new = group.generation == 0;
            Description { state, group, new }
        };
        if description.new && shared.store.offsets(group).is_empty() {
            return Err(GroupError::UnknownGroup);
        }
        Ok(description)
    }

    /// Asks a group's task. Unless `may_create`, a group that does not exist is not claimed:
    /// otherwise anybody could fill the quorum with names.
    async fn ask<T>(
        &self,
        group: &str,
        may_create: bool,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, GroupError> {
        self.shared.check_owner(group)?;
        if !may_create && !self.shared.knows(group) {
            self.shared.log.barrier().await?;
            if !self.shared.knows(group) {
                return Err(GroupError::UnknownGroup);
            }
        }
        let (reply, answer) = oneshot::channel();
        let mut request = request(reply);
        // A task that is just ending does not take the request; the next one does.
        for _ in 0..3 {
            match self.mailbox(group)?.send(request).await {
                Ok(()) => return answer.await.unwrap_or(Err(GroupError::Unavailable)),
                Err(mpsc::error::SendError(back)) => request = back,
            }
        }
        Err(GroupError::Unavailable)
    }

    /// The way to a group's task, which is started if there is none.
    fn mailbox(&self, group: &str) -> Result<mpsc::Sender<Request>, GroupError> {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            return Err(GroupError::NotCoordinator);
        }
        let mut loaded = shared.loaded.lock();
        let full = loaded.len() >= shared.config.groups_max;
        match loaded.get(group) {
            Some(task) if !task.mailbox.is_closed() => return Ok(task.mailbox.clone()),
            None if full => return Err(GroupError::Unavailable),
            Some(_) | None => {}
        }
        let load = shared.next_load.fetch_add(1, Ordering::Relaxed);
        let (mailbox, requests) = mpsc::channel(MAILBOX);
        let task = Loaded {
            load,
            mailbox: mailbox.clone(),
        };
        loaded.insert(group.to_owned(), task);
        let run = task::run(Arc::clone(shared), group.to_owned(), load, requests);
        shared.tasks.spawn(run);
        Ok(mailbox)
    }
}

impl Shared {
    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    fn limits(&self) -> Limits {
        let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        let Config {
            session_timeout_min,
            session_timeout_max,
            ..
        } = self.config;
        Limits {
            initial_delay_ms: self.config.initial_rebalance_delay.as_millis() as u64,
            session_timeout_ms: (millis(session_timeout_min), millis(session_timeout_max)),
            members: self.config.members_max,
            bytes: self.config.bytes_max,
        }
    }

    /// Whether this gateway is the one to coordinate the group. As long as no broker is live in
    /// the image, there is no other.
    fn check_owner(&self, group: &str) -> Result<(), GroupError> {
        match placement::coordinator(&self.catalog.brokers(), group) {
            Some(broker) if broker.id != self.me => Err(GroupError::NotCoordinator),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the group is loaded or in the image.
    fn knows(&self, group: &str) -> bool {
        self.loaded.lock().contains_key(group) || self.store.group(group).is_some()
    }

    /// Forgets a group's task: if `only_if_unused`, not if anybody may still send to it. Whether
    /// it is forgotten.
    fn forget(&self, group: &str, load: u64, only_if_unused: bool) -> bool {
        let mut loaded = self.loaded.lock();
        let Some(task) = loaded.get(group).filter(|task| task.load == load) else {
            return true;
        };
        // The map's sender is one; new clones are made under its lock.
        if only_if_unused && task.mailbox.strong_count() > 1 {
            return false;
        }
        loaded.remove(group);
        true
    }
}

/// Members, and who deletes offsets, need a group with a name. Offsets can be committed under an empty one, by old simple
/// consumers.
fn check_name(group: &str) -> Result<(), GroupError> {
    if group.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
