//! The quorum's client: reads on the local image, commands through the leader.
//!
//! A command keeps its request number while it is sent again, to this leader or the next, until its
//! outcome is known or its deadline has passed; the state answers every copy alike. When its
//! outcome returns, the local image has applied it: whoever asked reads what they wrote.
//!
//! | what happened until the deadline | answer |
//! |---|---|
//! | an outcome, applied here | the outcome |
//! | every attempt failed before it was sent, or was turned away | `Unavailable` |
//! | the quorum says that it will never take such a command | `Impossible`, at once |
//! | anything else | `Indeterminate` |
//!
//! # Cancel safety
//! Dropping a command's future leaves its outcome unknown, and its request number is declared done.

mod barrier;
mod lost;
mod ports;
mod requests;
mod route;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::{
    BrokerEpoch, BrokerId, Offset, PortError, PortResult, ProducerId, TopicPartition,
};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::command::{Command, Envelope, GatewayRefusal, Outcome};
use crate::config::ClientConfig;
use crate::directory::{Directory, Peers};
use crate::image::Image;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peer::{CallError, Peer};
use crate::wire::{COMMAND_MAX, Reply, Request, Status, too_large};

use barrier::Barrier;
use lost::Lost;
use requests::{Requests, Ticket};
use route::{Route, Way};

/// Commands that are under way at once; the state remembers several times as many outcomes.
const IN_FLIGHT_MAX: usize = 1024;
/// Producer ids that are taken from the quorum at once.
const PRODUCER_IDS: u32 = 100;
/// Gateways that come without an id get one from here on. Lower ones are for people to choose, so
/// that a gateway to which somebody gives an id does not supersede one that was given it.
pub const FIRST_GIVEN_ID: BrokerId = BrokerId(1001);
/// Ranges of offsets that one command gives up; far fewer bytes than a command may have.
const GIVEN_UP_AT_ONCE: usize = 100_000;
/// After so long an entry that has been applied elsewhere should be here.
const LATE: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// A client of the quorum. Cheap to clone; the clones share their sessions.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    /// Commits of batches have a session of their own. They come one after the other, so each
    /// declares all before it done, whatever other requests are still under way: that settles a
    /// commit whose outcome is unknown.
    commits: Session,
    others: Session,
    in_flight: Semaphore,
    barrier: Barrier,
    registration: RwLock<Option<(BrokerId, BrokerEpoch)>>,
    /// Producer ids that were taken and not given out.
    producer_ids: tokio::sync::Mutex<std::ops::Range<i64>>,
    lost: Lost,
}

/// One client as the state knows it.
struct Session {
    client: Uuid,
    requests: Requests,
}

impl Session {
    fn new(ids: &dyn Ids) -> Self {
        Self {
            client: ids.uuid(),
            requests: Requests::default(),
        }
    }

    /// The command as the session's next request.
    fn begin(&self, command: Command) -> (Ticket<'_>, Envelope) {
        let ticket = self.requests.begin();
        let envelope = Envelope {
            client: self.client,
            request: ticket.number,
            done_below: ticket.done_below,
            time_ms: 0,
            command,
        };
        (ticket, envelope)
    }
}

/// The ways to the quorum.
struct Link {
    image: Arc<Image>,
    local: Option<Arc<Node>>,
    directory: Arc<Directory>,
    route: Route,
    /// Which voter to try when any will do.
    turn: AtomicU64,
    config: ClientConfig,
    metrics: Metrics,
}

/// A gateway that registers.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The id that its disk remembers; `None` at its first start.
    pub id: Option<BrokerId>,
    /// Chosen afresh whenever the process starts.
    pub incarnation: Uuid,
    /// The host that Kafka clients connect to.
    pub host: String,
    /// The port that Kafka clients connect to.
    pub port: u16,
    /// Its zone.
    pub rack: Option<String>,
    /// `host:port` where other nodes reach it.
    pub peer: String,
    /// How long it counts as live without a heartbeat.
    pub lease: Duration,
}

impl Client {
    pub(crate) fn new(
        image: Arc<Image>,
        local: Option<Arc<Node>>,
        directory: Arc<Directory>,
        config: ClientConfig,
        ids: &dyn Ids,
        metrics: Metrics,
    ) -> Self {
        let link = Arc::new(Link {
            image,
            local,
            directory,
            route: Route::new(),
            turn: AtomicU64::new(ids.random()),
            config,
            metrics,
        });
        Self {
            inner: Arc::new(Inner {
                barrier: Barrier::start(Arc::clone(&link)),
                link,
                commits: Session::new(ids),
                others: Session::new(ids),
                in_flight: Semaphore::new(IN_FLIGHT_MAX),
                registration: RwLock::new(None),
                producer_ids: tokio::sync::Mutex::new(0..0),
                lost: Lost::default(),
            }),
        }
    }

    /// The image that is read.
    pub fn image(&self) -> &Arc<Image> {
        &self.inner.link.image
    }

    /// Registers this gateway, superseding its earlier registration; group claims are made under
    /// the newest registration. One without an id gets one from [`FIRST_GIVEN_ID`] on that nobody
    /// has or had.
    pub async fn register(&self, broker: Registration) -> PortResult<(BrokerId, BrokerEpoch)> {
        let reserved = self.image().read(|state| state.next_broker_id()) >= FIRST_GIVEN_ID;
        if broker.id.is_none() && !reserved {
            let below = FIRST_GIVEN_ID.0;
            self.done(Command::ReserveBrokerIds { below }).await?;
        }
        let outcome = self
            .execute(Command::RegisterBroker {
                id: broker.id,
                incarnation: broker.incarnation,
                host: broker.host,
                port: broker.port,
                rack: broker.rack,
                peer: broker.peer,
                lease_ms: lease_ms(broker.lease),
                knows: Some(self.image().knows()),
            })
            .await?;
        let Outcome::Registered { id, epoch } = outcome else {
            return Err(unexpected(&outcome));
        };
        *self.inner.registration.write() = Some((id, epoch));
        Ok((id, epoch))
    }

    /// Prolongs the registration's lease. `Fenced` once it was superseded.
    pub async fn heartbeat(&self, lease: Duration) -> PortResult<()> {
        let (broker, epoch) = self.registration()?;
        let lease_ms = lease_ms(lease);
        self.done(Command::Heartbeat {
            broker,
            epoch,
            lease_ms,
        })
        .await
    }

    /// Takes this gateway out of the set of live brokers; it may go on committing.
    pub async fn drain(&self) -> PortResult<()> {
        let (broker, epoch) = self.registration()?;
        self.done(Command::Drain { broker, epoch }).await
    }

    /// Ends the registration: nothing is committed under it any more.
    pub async fn leave(&self) -> PortResult<()> {
        let (broker, epoch) = self.registration()?;
        self.done(Command::Leave { broker, epoch }).await
    }

    /// Seals a gateway's registration, and gives up what is only in its write-ahead log if
    /// `accept_loss`. The image has it when this returns.
    pub async fn forget_gateway(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        accept_loss: bool,
    ) -> PortResult<Result<(), GatewayRefusal>> {
        let command = Command::ForgetGateway {
            broker,
            epoch,
            accept_loss,
        };
        match self.execute(command).await? {
            Outcome::Gateway(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives up ranges of offsets (partition, first, one past the last) that this gateway has lost
    /// from its write-ahead log.
    pub async fn give_up_wal(&self, lost: Vec<(TopicPartition, Offset, Offset)>) -> PortResult<()> {
        let (broker, epoch) = self.registration()?;
        for part in lost.chunks(GIVEN_UP_AT_ONCE) {
            let lost = part.to_vec();
            self.done(Command::GiveUpWal {
                broker,
                epoch,
                lost,
            })
            .await?;
        }
        Ok(())
    }

    /// How the quorum is, as the leader or, if there is none, some voter sees it.
    pub async fn status(&self) -> PortResult<Status> {
        let link = &self.inner.link;
        let mut best: Option<Status> = link.local.as_ref().map(|node| node.status());
        let deadline = Instant::now() + link.config.attempt;
        for peer in link.directory.peers().values() {
            if best.as_ref().is_some_and(|s| s.leader == Some(s.voter)) {
                break;
            }
            if let Ok(Reply::Status(status)) = peer.call(&Request::Status, deadline).await
                && best.as_ref().is_none_or(|best| {
                    let rank = |s: &Status| (s.term, s.leader == Some(s.voter), s.leader.is_some());
                    rank(&status) > rank(best)
                })
            {
                best = Some(status);
            }
        }
        best.ok_or_else(|| PortError::Unavailable("no voter answers".to_owned()))
    }

    /// Waits until the quorum has a leader, the cluster has its id, and the local image contains
    /// everything acknowledged so far.
    pub async fn ready(&self, within: Duration) -> PortResult<()> {
        let deadline = Instant::now() + within;
        loop {
            let result = self.inner.barrier_until(deadline).await;
            let named = self.image().read(|state| state.cluster_id().is_some());
            match result {
                Ok(()) if named => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                _ if Instant::now() >= deadline => {
                    return Err(PortError::Unavailable("the cluster has no id".to_owned()));
                }
                _ => tokio::time::sleep(BACKOFF_MIN).await,
            }
        }
    }

    /// Executes a command that answers with nothing.
    async fn done(&self, command: Command) -> PortResult<()> {
        match self.execute(command).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn registration(&self) -> PortResult<(BrokerId, BrokerEpoch)> {
        let unregistered = || PortError::Unavailable("this node is not registered".to_owned());
        (*self.inner.registration.read()).ok_or_else(unregistered)
    }

    /// A producer id of those that were taken at once.
    async fn next_producer_id(&self) -> PortResult<ProducerId> {
        let mut range = self.inner.producer_ids.lock().await;
        if range.is_empty() {
            let count = PRODUCER_IDS;
            let outcome = self.execute(Command::AllocateProducerIds { count }).await?;
            let Outcome::ProducerIds { first } = outcome else {
                return Err(unexpected(&outcome));
            };
            *range = first.0..first.0 + i64::from(count);
        }
        let id = range.start;
        range.start += 1;
        Ok(ProducerId(id))
    }

    /// Executes a command: see the module.
    pub(crate) async fn execute(&self, command: Command) -> PortResult<Outcome> {
        let inner = &self.inner;
        let started = Instant::now();
        let deadline = started + inner.link.config.deadline;
        let crowded = || PortError::Unavailable("too many commands are under way".to_owned());
        let _permit = tokio::time::timeout_at(deadline, inner.in_flight.acquire())
            .await
            .map_err(|_| crowded())?
            .map_err(|_| crowded())?;
        let (_ticket, envelope) = inner.session(&command).begin(command);
        let outcome = inner.link.commit(&envelope, deadline).await?;
        inner.link.metrics.commits.inc();
        inner
            .link
            .metrics
            .commit_seconds
            .observe(started.elapsed().as_secs_f64());
        Ok(outcome)
    }
}

impl Inner {
    fn session(&self, command: &Command) -> &Session {
        match command {
            Command::Commit(_) => &self.commits,
            _ => &self.others,
        }
    }

    async fn barrier_until(&self, deadline: Instant) -> PortResult<()> {
        self.barrier.pass(&self.link, deadline).await
    }
}

impl Link {
    /// The voter that stands at the end of the way.
    fn choose<'a>(&self, peers: &'a Peers, way: Way) -> Option<&'a Arc<Peer>> {
        let named = match way {
            Way::Leader(id) | Way::Through(Some(id)) => peers.get(&id),
            Way::Ask | Way::Through(None) => None,
        };
        named.or_else(|| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
            peers.values().nth(turn % peers.len().max(1))
        })
    }

    /// One attempt, until `deadline` at the latest. `request` gets whether the voter that is asked
    /// is to hand it on.
    async fn attempt(
        &self,
        request: impl Fn(bool) -> Request,
        local: impl AsyncFnOnce(Arc<Node>) -> Reply,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let deadline = deadline.min(Instant::now() + self.config.attempt);
        let peers = self.directory.peers();
        let known = self.local.as_ref().and_then(|node| node.leader());
        if let Some(node) = &self.local
            && (known == Some(node.id) || peers.is_empty())
        {
            return tokio::time::timeout_at(deadline, local(Arc::clone(node)))
                .await
                .map_err(|_| CallError::Lost("the local voter did not answer".to_owned()));
        }
        let way = self.route.way(known, Instant::now());
        let Some(peer) = self.choose(&peers, way) else {
            return Err(CallError::NotSent("no voter is known".to_owned()));
        };
        let relayed = matches!(way, Way::Through(_));
        let reply = peer.call(&request(relayed), deadline).await;
        match &reply {
            Ok(Reply::Proposed { .. } | Reply::ReadIndex(_)) => self.route.arrived(way, peer.id()),
            Ok(Reply::NotLeader { leader }) => {
                self.route.told(peer.id(), *leader);
                leader.inspect(|id| self.directory.heard_of(*id));
            }
            Ok(_) => self.route.failed(way, false, Instant::now()),
            Err(_) => self.route.failed(way, true, Instant::now()),
        }
        reply
    }

    async fn commit(&self, envelope: &Envelope, deadline: Instant) -> PortResult<Outcome> {
        let mut uncertain = false;
        let mut backoff = BACKOFF_MIN;
        let bytes: crate::raft::Blob = envelope.encode().into();
        // A frame that is too large ends the connection, so it is not even sent.
        if bytes.0.len() > COMMAND_MAX {
            return Err(PortError::Impossible(too_large(bytes.0.len())));
        }
        loop {
            let request = |relayed| match relayed {
                true => Request::ProposeAnywhere(bytes.clone()),
                false => Request::Propose(bytes.clone()),
            };
            let local = async |node: Arc<Node>| node.propose(envelope.clone()).await;
            let problem = match self.attempt(request, local, deadline).await {
                Ok(Reply::Proposed { index, outcome }) => {
                    return self.applied(index, outcome, deadline).await;
                }
                Ok(Reply::NotLeader { leader }) => {
                    format!("voter {leader:?} is said to lead")
                }
                Ok(Reply::Refused(why)) => why,
                // An attempt before this one may have been taken, and this one not by chance.
                Ok(Reply::Impossible(why)) if uncertain => {
                    return Err(PortError::Indeterminate(why));
                }
                Ok(Reply::Impossible(why)) => return Err(PortError::Impossible(why)),
                Ok(Reply::Unknown(why)) => {
                    uncertain = true;
                    why
                }
                Ok(_) => {
                    uncertain = true;
                    "a reply of another kind".to_owned()
                }
                Err(CallError::NotSent(why)) => why,
                Err(CallError::Lost(why)) => {
                    uncertain = true;
                    why
                }
            };
            if Instant::now() + backoff >= deadline {
                return Err(if uncertain {
                    PortError::Indeterminate(problem)
                } else {
                    PortError::Unavailable(problem)
                });
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits until the outcome is in the local image.
    async fn applied(
        &self,
        index: u64,
        outcome: crate::raft::Blob,
        deadline: Instant,
    ) -> PortResult<Outcome> {
        let outcome = outcome
            .outcome()
            .map_err(|error| PortError::Indeterminate(error.to_string()))?;
        tokio::time::timeout_at(deadline, self.arrived(index))
            .await
            .map_err(|_| {
                PortError::Indeterminate(format!("done, but entry {index} has not arrived here"))
            })?;
        match outcome {
            Outcome::Fenced => Err(PortError::Fenced("superseded or sealed".to_owned())),
            Outcome::Stale => Err(PortError::Indeterminate(
                "the session has declared the request done".to_owned(),
            )),
            other => Ok(other),
        }
    }

    /// Waits until the local image has applied an entry that the leader has. If that takes long, the
    /// leader is followed from then on, instead of a voter that is behind itself or far away.
    async fn arrived(&self, index: u64) {
        let mut arriving = pin!(self.image.wait_applied(index));
        if tokio::time::timeout(LATE, &mut arriving).await.is_ok() {
            return;
        }
        if let Way::Leader(leader) = self.route.way(None, Instant::now()) {
            self.directory.prefer(leader);
        }
        arriving.await;
    }

    /// The leader's read index.
    async fn read_index(&self, deadline: Instant) -> PortResult<u64> {
        let mut backoff = BACKOFF_MIN;
        loop {
            self.metrics.barriers.inc();
            let local = async |node: Arc<Node>| node.read_index().await;
            let request = |relayed| match relayed {
                true => Request::ReadIndexAnywhere,
                false => Request::ReadIndex,
            };
            let problem = match self.attempt(request, local, deadline).await {
                Ok(Reply::ReadIndex(index)) => return Ok(index),
                Ok(Reply::NotLeader { leader }) => format!("voter {leader:?} is said to lead"),
                Ok(Reply::Refused(why) | Reply::Unknown(why)) => why,
                Ok(_) => "a reply of another kind".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() + backoff >= deadline {
                return Err(PortError::Unavailable(problem));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn lease_ms(lease: Duration) -> u32 {
    u32::try_from(lease.as_millis()).unwrap_or(u32::MAX)
}

/// What no command of that kind can come to, or what only a bug leads to.
fn unexpected(outcome: &Outcome) -> PortError {
    tracing::error!(?outcome, "the metadata state refused a command as invalid");
    match outcome {
        Outcome::Invalid(why) => PortError::Impossible(why.clone()),
        other => PortError::Indeterminate(format!("an outcome of another kind: {other:?}")),
    }
}
