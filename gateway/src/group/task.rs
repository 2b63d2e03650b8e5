//! One group's coordinator: the task that owns its [`Machine`] and does what it says.
//!
//! The task claims the group first; nothing is decided before. It handles one request at a time
//! and awaits what it stores before it looks at the next, so that every answer is given on durable
//! state. Offset commits alone run beside it, because they are many: those of one member one after
//! the other, and all of them before the next generation is stored.
//!
//! # On a crash, or if a command's outcome is unknown
//! The task ends and answers all that wait with a retriable error. The next request starts
//! another, whose claim fences what this one may have under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::ports::{GroupClaim, GroupRefusal};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{PortError, PortResult, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::machine::{Effect, Event, Join, Joined, Machine, Sync, Synced, Token};
use super::{Commit, Description, GroupError, Shared, subscription};

/// Offset commits of one group that may be under way.
const COMMITS_MAX: usize = 256;

/// How often a coordinator with parked requests looks whether it still is the one.
const OWNER_CHECK: Duration = Duration::from_secs(1);

/// How long a group without members stays loaded without requests.
const IDLE: Duration = Duration::from_secs(60);

/// How far timers may be late because of requests.
const TIMERS_LATE_MS_MAX: u64 = 1_000;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, GroupError>>;

/// What a coordinator is asked.
pub(super) enum Request {
    Join(Join, Reply<Joined>),
    Sync(Sync, Reply<Synced>),
    Heartbeat {
        member_id: String,
        instance_id: Option<String>,
        generation: i32,
        reply: Reply<()>,
    },
    Leave(
        Vec<(String, Option<String>)>,
        Reply<Vec<Result<(), GroupError>>>,
    ),
    Commit(Commit, Reply<()>),
    DeleteOffsets(Vec<(String, Vec<TopicPartition>)>, Reply<Vec<String>>),
    Delete(Reply<()>),
    Describe(Reply<Description>),
}

impl Request {
    fn fail(self, error: GroupError) {
        match self {
            Self::Join(_, reply) => drop(reply.send(Err(error))),
            Self::Sync(_, reply) => drop(reply.send(Err(error))),
            Self::Heartbeat { reply, .. } => drop(reply.send(Err(error))),
            Self::Leave(_, reply) => drop(reply.send(Err(error))),
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::DeleteOffsets(_, reply) => drop(reply.send(Err(error))),
            Self::Delete(reply) => drop(reply.send(Err(error))),
            Self::Describe(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A request that the machine has not answered yet.
enum Waiting {
    Join(Reply<Joined>),
    Sync(Reply<Synced>),
    Heartbeat(Reply<()>),
    Leave(Reply<Vec<Result<(), GroupError>>>),
}

impl Waiting {
    fn fail(self, error: GroupError) {
        match self {
            Self::Join(reply) => drop(reply.send(Err(error))),
            Self::Sync(reply) => drop(reply.send(Err(error))),
            Self::Heartbeat(reply) => drop(reply.send(Err(error))),
            Self::Leave(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// Why a task ends.
enum End {
    /// Everybody who waits is told so.
    Lost(GroupError),
    /// Nobody waits, and the group is forgotten already.
    Idle,
}

impl From<GroupError> for End {
    fn from(error: GroupError) -> Self {
        Self::Lost(error)
    }
}

/// Claims the group and coordinates it until it is lost or idle.
pub(super) async fn run(
    shared: Arc<Shared>,
    name: String,
    load: u64,
    mut requests: mpsc::Receiver<Request>,
) {
    let error = match Coordinator::load(&shared, &name).await {
        Ok(mut coordinator) => {
            let end = coordinator.serve(load, &mut requests).await;
            coordinator.finish_commits().await;
            let error = match end {
                End::Lost(error) => error,
                End::Idle => return,
            };
            for (_, waiting) in coordinator.waiting.drain() {
                waiting.fail(error.clone());
            }
            error
        }
        Err(error) => error,
    };
    tracing::debug!(group = %name, %error, "no longer coordinating");
    shared.forget(&name, load, false);
    requests.close();
    while let Some(request) = requests.recv().await {
        request.fail(error.clone());
    }
}

struct Coordinator {
    shared: Arc<Shared>,
    claim: GroupClaim,
    machine: Machine,
    next_token: Token,
    waiting: HashMap<Token, Waiting>,
    /// Each answers whether the group is still ours.
    commits: JoinSet<Result<(), GroupError>>,
    /// The end of each member's newest commit.
    newest_commit: HashMap<String, oneshot::Receiver<()>>,
    used: Instant,
}

impl Coordinator {
    async fn load(shared: &Arc<Shared>, name: &str) -> Result<Self, GroupError> {
        let (coordinator, group) = tokio::select! {
            () = shared.stop.cancelled() => return Err(GroupError::NotCoordinator),
            claimed = shared.store.claim(name) => claimed?,
        };
        tracing::debug!(group = name, epoch = coordinator.epoch, "coordinating");
        Ok(Self {
            shared: Arc::clone(shared),
            claim: GroupClaim {
                group: name.to_owned(),
                coordinator,
            },
            machine: Machine::load(shared.limits(), &group, shared.now()),
            next_token: 0,
            waiting: HashMap::new(),
            commits: JoinSet::new(),
            newest_commit: HashMap::new(),
            used: Instant::now(),
        })
    }

    async fn serve(&mut self, load: u64, requests: &mut mpsc::Receiver<Request>) -> End {
        loop {
            let late = self.shared.now().saturating_sub(TIMERS_LATE_MS_MAX);
            let overdue = self.machine.wake_at().is_some_and(|at| at <= late);
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return GroupError::NotCoordinator.into(),
                Some(done) = self.commits.join_next() => {
                    if let Ok(Err(error)) = done {
                        return error.into();
                    }
                    if self.commits.is_empty() {
                        self.newest_commit.clear();
                    }
                }
                // Requests that are here go before timers: they may be what keeps a member in.
                Some(request) = requests.recv(), if !overdue => {
                    self.used = Instant::now();
                    if let Err(error) = self.handle(request).await {
                        return error.into();
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if let Err(error) = self.tick().await {
                        return error.into();
                    }
                    let idle = self.used.elapsed() >= IDLE
                        && self.machine.is_idle()
                        && self.commits.is_empty();
                    let name = &self.claim.group;
                    if idle && requests.is_empty() && self.shared.forget(name, load, true) {
                        return End::Idle;
                    }
                }
            }
        }
    }

    /// When to look at timers, at the latest.
    fn wake_at(&self) -> Instant {
        let mut wake = Instant::now() + IDLE;
        if let Some(at) = self.machine.wake_at() {
            wake = wake.min(self.shared.started + Duration::from_millis(at));
        }
        if !self.waiting.is_empty() {
            wake = wake.min(Instant::now() + OWNER_CHECK);
        }
        wake
    }

    async fn tick(&mut self) -> Result<(), GroupError> {
        // Members that went on to another coordinator have not fallen silent.
        self.shared.check_owner(&self.claim.group)?;
        let effects = self.machine.on(Event::Tick, self.shared.now());
        self.perform(effects).await
    }

    /// Handles one request. An error ends this coordinator.
    async fn handle(&mut self, request: Request) -> Result<(), GroupError> {
        let event = match request {
            Request::Join(join, reply) => Event::Join(self.wait(Waiting::Join(reply)), join),
            Request::Sync(sync, reply) => Event::Sync(self.wait(Waiting::Sync(reply)), sync),
            Request::Heartbeat {
                member_id,
                instance_id,
                generation,
                reply,
            } => Event::Heartbeat {
                token: self.wait(Waiting::Heartbeat(reply)),
                member_id,
                instance_id,
                generation,
            },
            Request::Leave(members, reply) => {
                Event::Leave(self.wait(Waiting::Leave(reply)), members)
            }
            Request::Commit(commit, reply) => return self.commit(commit, reply).await,
            Request::DeleteOffsets(topics, reply) => {
                return self.delete_offsets(topics, reply).await;
            }
            Request::Delete(reply) => return self.delete(reply).await,
            Request::Describe(reply) => {
                let description = Description {
                    state: self.machine.state(),
                    group: self.machine.image(),
                    new: self.machine.is_new(),
                };
                drop(reply.send(Ok(description)));
                return Ok(());
            }
        };
        let effects = self.machine.on(event, self.shared.now());
        self.perform(effects).await
    }

    fn wait(&mut self, waiting: Waiting) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        token
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), GroupError> {
        for effect in effects {
            match effect {
                Effect::Persist(_) if sabotage::on(Bug::AssignmentIsNotStored) => {}
                Effect::Persist(group) => {
                    let since = self.shared.now();
                    // A commit that was accepted under the old generation is not to find the new.
                    self.finish_commits().await;
                    match self.shared.store.save(&self.claim, group).await? {
                        Ok(()) => self.machine.defer(self.shared.now() - since),
                        // Whatever the reason: the state's group is not the one we know.
                        Err(_) => return Err(GroupError::NotCoordinator),
                    }
                }
                Effect::Joined(token, result) => {
                    if let Some(Waiting::Join(reply)) = self.waiting.remove(&token) {
                        drop(reply.send(result));
                    }
                }
                Effect::Synced(token, result) => {
                    if let Some(Waiting::Sync(reply)) = self.waiting.remove(&token) {
                        drop(reply.send(result));
                    }
                }
                Effect::Heartbeat(token, result) => {
                    if let Some(Waiting::Heartbeat(reply)) = self.waiting.remove(&token) {
                        drop(reply.send(result));
                    }
                }
                Effect::Left(token, results) => {
                    if let Some(Waiting::Leave(reply)) = self.waiting.remove(&token) {
                        drop(reply.send(Ok(results)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn commit(&mut self, commit: Commit, reply: Reply<()>) -> Result<(), GroupError> {
        let Commit {
            member_id,
            instance_id,
            generation,
            offsets,
        } = commit;
        let now = self.shared.now();
        let checked =
            self.machine
                .check_commit(&member_id, instance_id.as_deref(), generation, now);
        let member = match checked {
            Ok(member) => member,
            Err(error) => {
                drop(reply.send(Err(error)));
                return Ok(());
            }
        };
        if self.commits.len() >= COMMITS_MAX
            && let Some(Ok(done)) = self.commits.join_next().await
        {
            done?;
        }
        let (done, newest) = oneshot::channel::<()>();
        let before = self.newest_commit.insert(member_id, newest);
        let shared = Arc::clone(&self.shared);
        let claim = self.claim.clone();
        self.commits.spawn(async move {
            if let Some(before) = before {
                // Resolves, with an error, when that commit's `done` is dropped.
                let _ = before.await;
            }
            let committed = shared.store.commit_offsets(&claim, member, offsets).await;
            drop(done);
            let unknown = matches!(committed, Err(PortError::Indeterminate(_)));
            let result = match committed {
                Ok(committed) => committed.map_err(GroupError::from),
                Err(error) => Err(error.into()),
            };
            let (result, ours) = match result {
                Err(error @ GroupError::NotCoordinator) => (Err(error.clone()), Err(error)),
                // It may yet be applied, and must not be after a later one: only another claim
                // makes sure of that.
                Err(error) if unknown => (Err(error.clone()), Err(error)),
                // Members have come since: a client outside of the group may not commit now.
                Err(GroupError::NotEmpty) => (Err(GroupError::UnknownMember), Ok(())),
                result => (result, Ok(())),
            };
            drop(reply.send(result));
            ours
        });
        Ok(())
    }

    /// Waits for the commits under way. One that finds the group lost is not looked at: what
    /// follows will find it too.
    async fn finish_commits(&mut self) {
        while self.commits.join_next().await.is_some() {}
        self.newest_commit.clear();
    }

    async fn delete_offsets(
        &mut self,
        topics: Vec<(String, Vec<TopicPartition>)>,
        reply: Reply<Vec<String>>,
    ) -> Result<(), GroupError> {
        let subscribed = subscription::Subscribed::of(&self.machine.image());
        if subscribed == subscription::Subscribed::Unknowable {
            drop(reply.send(Err(GroupError::NotEmpty)));
            return Ok(());
        }
        let (refused, free): (Vec<_>, Vec<_>) = topics
            .into_iter()
            .partition(|(name, _)| subscribed.contains(name));
        let free: Vec<_> = free
            .into_iter()
            .flat_map(|(_, partitions)| partitions)
            .collect();
        let since = self.shared.now();
        self.finish_commits().await;
        let deleted = if free.is_empty() {
            Ok(Ok(()))
        } else {
            self.shared.store.delete_offsets(&self.claim, free).await
        };
        self.machine.defer(self.shared.now() - since);
        let refused = refused.into_iter().map(|(name, _)| name).collect();
        self.conclude(deleted.map(|deleted| deleted.map(|()| refused)), reply)
    }

    async fn delete(&mut self, reply: Reply<()>) -> Result<(), GroupError> {
        let since = self.shared.now();
        self.finish_commits().await;
        let store = &self.shared.store;
        let refused = if !self.machine.is_idle() {
            Some(GroupError::NotEmpty)
        } else if self.machine.is_new() && store.offsets(&self.claim.group).is_empty() {
            Some(GroupError::UnknownGroup)
        } else {
            None
        };
        if let Some(error) = refused {
            drop(reply.send(Err(error)));
            return Ok(());
        }
        let deleted = store.delete_group(&self.claim).await;
        self.machine.defer(self.shared.now() - since);
        self.conclude(deleted, reply)?;
        // The claim went with the group.
        Err(GroupError::NotCoordinator)
    }

    /// Answers a command's outcome, and ends this coordinator if it may have lost the group.
    fn conclude<T>(
        &self,
        outcome: PortResult<Result<T, GroupRefusal>>,
        reply: Reply<T>,
    ) -> Result<(), GroupError> {
        let unknown = matches!(outcome, Err(PortError::Indeterminate(_)));
        let result = outcome
            .map_err(GroupError::from)
            .and_then(|r| r.map_err(GroupError::from));
        let lost = match &result {
            Err(error @ GroupError::NotCoordinator) => Err(error.clone()),
            Err(error) if unknown => Err(error.clone()),
            _ => Ok(()),
        };
        drop(reply.send(result));
        lost
    }
}
