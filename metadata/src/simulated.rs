//! A quorum for simulations of what stands around it: the real [`State`], behind voters that fail.
//!
//! ```text
//!   ports ◄─ Client (the real one) ──call──► voters: one log, one truth ──entries, late──► Image
//! ```
//!
//! Everything of a node is what runs in production, the client with its sessions, retries and
//! barriers included; only the voters and the way to them are simulated. Requests are turned away,
//! get lost, are executed without an answer, much later, or twice; leaders change; each node's image
//! lags behind by a time of its own. A node can be paused at any request and go on later, or never.
//!
//! Time is tokio's; with a seed and a paused clock, a run can be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::command::{Command, Envelope, LEVEL, Outcome};
use crate::config::ClientConfig;
use crate::directory::Directory;
use crate::image::Image;
use crate::liveness::Heard;
use crate::metrics::Metrics;
use crate::peer::{CallError, Introduce};
use crate::state::State;
use crate::wire::{Reply, Request};

const VOTERS: u64 = 3;
/// How long a new leader believes that gateways live, and how often it looks.
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);
/// The state's time at the start.
const START_MS: i64 = 1_700_000_000_000;

/// What happens to requests, in percent of them, and how long things take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Not sent at all.
    pub refused: u64,
    /// Lost on their way.
    pub lost: u64,
    /// Executed, and the answer lost.
    pub unanswered: u64,
    /// Executed after up to [`Self::delay`], when nobody waits any more.
    pub late: u64,
    /// Executed, and after up to [`Self::delay`] once more.
    pub repeated: u64,
    /// Another voter leads from then on.
    pub elections: u64,
    /// The longest way to a voter, or back.
    pub latency: Duration,
    /// How far an image can be behind.
    pub lag: Duration,
    /// How long a request can be under way.
    pub delay: Duration,
    /// How far the clocks of leaders can be from the true time, to either side.
    pub skew: Duration,
}

/// An entry that has been applied: the state behind it, the command, the outcome.
pub type Applied<'a> = (&'a State, &'a Envelope, &'a Outcome);

/// Who looks at every entry when it is applied.
type Watcher = Box<dyn FnMut(Applied<'_>) + Send>;

/// The quorum. Clones share it.
#[derive(Clone)]
pub struct Quorum(Arc<Shared>);

struct Shared {
    log: Mutex<Log>,
    weather: Mutex<Weather>,
    random: SeededIds,
    leader: AtomicU64,
    length: watch::Sender<u64>,
    heard: Heard,
    began: Instant,
}

#[derive(Default)]
struct Log {
    truth: State,
    entries: Vec<(u64, Option<Envelope>)>,
    watchers: Vec<Watcher>,
}

impl Quorum {
    /// A quorum whose cluster has its id. Needs a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let quorum = Self(Arc::new(Shared {
            log: Mutex::default(),
            weather: Mutex::default(),
            random: SeededIds::new(seed),
            leader: AtomicU64::new(1),
            length: watch::Sender::new(0),
            heard: Heard::default(),
            began: Instant::now(),
        }));
        let level = 1 + (quorum.0.random.random() % u64::from(LEVEL)) as u8;
        quorum.0.deliver(Envelope::by_leader(Command::InitCluster {
            cluster_id: "simulated".to_owned(),
            level: Some(level),
        }));
        if level >= 2 {
            tokio::spawn(watch_gateways(Arc::clone(&quorum.0)));
        }
        quorum
    }

    /// Changes what happens to requests from now on.
    pub fn set(&self, weather: Weather) {
        *self.0.weather.lock() = weather;
    }

    /// Has every entry shown to `watcher` when it is applied.
    pub fn watch(&self, watcher: impl FnMut(Applied<'_>) + Send + 'static) {
        self.0.log.lock().watchers.push(Box::new(watcher));
    }

    /// Reads the truth, which no node has before it has heard of it.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.log.lock().truth)
    }

    /// The true time, milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    /// A process that follows the quorum. Its image is as it would be after a start.
    pub fn node(&self, seed: u64, config: ClientConfig) -> Node {
        let image = Arc::new(Image::new(LEVEL, Metrics::default()));
        {
            let log = self.0.log.lock();
            let applied = log.entries.last().map_or(0, |(index, _)| *index);
            image.install(log.truth.clone(), applied);
        }
        let link = Arc::new(Link {
            quorum: Arc::clone(&self.0),
            open: watch::Sender::new(true),
        });
        let voters = (1..=VOTERS).map(|id| (id, format!("voter-{id}:1")));
        let us = Arc::new(Us(Arc::clone(&link)));
        let directory = Arc::new(Directory::new(us, voters.collect()));
        let ids = SeededIds::new(seed);
        let (image_, metrics) = (Arc::clone(&image), Metrics::default());
        let client = Client::new(image_, None, directory, config, &ids, metrics);
        let follower = tokio::spawn(follow(Arc::clone(&link), image)).abort_handle();
        Node {
            client,
            link,
            follower,
        }
    }
}

/// A process: its client of the quorum, and the switch that stops it.
pub struct Node {
    client: Client,
    link: Arc<Link>,
    follower: AbortHandle,
}

impl Node {
    /// The process's client, which implements all ports.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        *self.link.open.borrow()
    }

    /// Stops the process: its requests go no further, answers do not arrive, its image stands still.
    pub fn pause(&self) {
        self.link.open.send_replace(false);
    }

    /// Lets the process go on where it stopped.
    pub fn resume(&self) {
        self.link.open.send_replace(true);
    }

    /// Waits while the process is stopped: for what the process does besides asking the quorum.
    pub async fn running(&self) {
        self.link.running().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

struct Us(Arc<Link>);

impl Introduce for Us {
    fn cluster(&self) -> Option<String> {
        None
    }

    fn voter(&self) -> Option<u64> {
        None
    }

    fn knows(&self) -> u8 {
        LEVEL
    }

    fn level(&self) -> u8 {
        self.0.quorum.log.lock().truth.level()
    }

    fn link(&self) -> Option<Arc<Link>> {
        Some(Arc::clone(&self.0))
    }
}

/// A node's way to the voters.
pub(crate) struct Link {
    quorum: Arc<Shared>,
    open: watch::Sender<bool>,
}

impl Link {
    async fn running(&self) {
        // The sender is in `self`.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    pub(crate) async fn call(
        &self,
        voter: u64,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let reply = tokio::time::timeout_at(deadline, self.ask(voter, request));
        let reply = reply.await.unwrap_or_else(|_| lost());
        // A process that was stopped hears nothing until it goes on.
        self.running().await;
        reply
    }

    async fn ask(&self, voter: u64, request: &Request) -> Result<Reply, CallError> {
        self.running().await;
        let quorum = &self.quorum;
        let weather = *quorum.weather.lock();
        quorum.pass(weather.latency).await;
        if quorum.chance(weather.refused) {
            return Err(CallError::NotSent("a broken line".to_owned()));
        }
        if quorum.chance(weather.elections) {
            let leader = 1 + quorum.random.random() % VOTERS;
            quorum.leader.store(leader, Ordering::Relaxed);
        }
        let leader = quorum.leader.load(Ordering::Relaxed);
        let reply = match request {
            Request::Propose(_) | Request::ReadIndex if voter != leader => Reply::NotLeader {
                leader: Some(leader),
            },
            Request::Propose(bytes) | Request::ProposeAnywhere(bytes) => {
                let envelope = Envelope::decode(&bytes.0)
                    .map_err(|error| CallError::NotSent(error.to_string()))?;
                quorum.propose(envelope, weather).await?
            }
            Request::ReadIndex | Request::ReadIndexAnywhere => {
                if quorum.chance(weather.lost) {
                    std::future::pending::<()>().await;
                }
                Reply::ReadIndex(*quorum.length.borrow())
            }
            _ => Reply::Refused("not simulated".to_owned()),
        };
        quorum.pass(weather.latency).await;
        Ok(reply)
    }
}

fn lost() -> Result<Reply, CallError> {
    Err(CallError::Lost("no reply in time".to_owned()))
}

impl Shared {
    fn now_ms(&self) -> i64 {
        START_MS + self.began.elapsed().as_millis() as i64
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.random.random() % 100 < percent
    }

    fn up_to(&self, most: Duration) -> Duration {
        let micros = most.as_micros() as u64;
        Duration::from_micros(self.random.random() % (micros + 1))
    }

    async fn pass(&self, most: Duration) {
        if !most.is_zero() {
            tokio::time::sleep(self.up_to(most)).await;
        }
    }

    async fn propose(
        self: &Arc<Self>,
        envelope: Envelope,
        weather: Weather,
    ) -> Result<Reply, CallError> {
        if self.chance(weather.lost) {
            std::future::pending::<()>().await;
        }
        let late = self.chance(weather.late);
        if late || self.chance(weather.repeated) {
            let (quorum, delay) = (Arc::clone(self), self.up_to(weather.delay));
            let again = envelope.clone();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                quorum.deliver(again);
            });
        }
        if late {
            std::future::pending::<()>().await;
        }
        let (index, outcome) = match self.hear(&envelope.command) {
            Some(index) => (index, Outcome::Done),
            None => self.deliver(envelope),
        };
        if self.chance(weather.unanswered) {
            std::future::pending::<()>().await;
        }
        let outcome = outcome.encode().into();
        Ok(Reply::Proposed { index, outcome })
    }

    /// A heartbeat that is heard and needs no entry, as `Node::hear` has it: the index to wait for.
    fn hear(&self, command: &Command) -> Option<u64> {
        let Command::Heartbeat {
            broker,
            epoch,
            lease_ms,
        } = command
        else {
            return None;
        };
        let lease = Duration::from_millis(u64::from(*lease_ms));
        let log = self.log.lock();
        if log.truth.level() >= 2 {
            self.heard.beat(*epoch, lease, Instant::now());
        }
        let known = log.truth.registration(*broker)?;
        let leased = known.broker.epoch == *epoch
            && known.lease_until_ms == i64::MAX
            && log.truth.is_current(&known.broker);
        leased.then(|| log.entries.last().map_or(0, |(index, _)| *index))
    }

    /// Puts a command into the log, with a leader's time, and applies it.
    fn deliver(&self, mut envelope: Envelope) -> (u64, Outcome) {
        let skew = self.weather.lock().skew;
        let skew_ms = 2 * self.up_to(skew).as_millis() as i64 - skew.as_millis() as i64;
        envelope.time_ms = self.now_ms() + skew_ms;
        let mut log = self.log.lock();
        let last = log.entries.last().map_or(0, |(index, _)| *index);
        // Entries that are no commands lie between.
        let index = last + 1 + u64::from(self.chance(5));
        let Log {
            truth,
            entries,
            watchers,
        } = &mut *log;
        let (outcome, _) = truth.apply(index, &envelope);
        for watcher in watchers {
            watcher((truth, &envelope, &outcome));
        }
        entries.push((index, Some(envelope)));
        drop(log);
        self.length.send_replace(index);
        (index, outcome)
    }

    fn behind(&self, applied: u64) -> Vec<(u64, Option<Envelope>)> {
        let entries = &self.log.lock().entries;
        let from = entries.partition_point(|(index, _)| *index <= applied);
        entries[from..].to_vec()
    }
}

/// Applies the log to a node's image, late.
async fn follow(link: Arc<Link>, image: Arc<Image>) {
    let quorum = &link.quorum;
    let mut length = quorum.length.subscribe();
    loop {
        let applied = image.applied();
        // The sender is in `quorum`.
        let _ = length.wait_for(|length| *length > applied).await;
        // What is there now arrives then.
        let entries = quorum.behind(applied);
        let lag = quorum.weather.lock().lag;
        quorum.pass(lag).await;
        link.running().await;
        image.apply(&entries);
    }
}

/// Ends the leases of gateways that are silent, as the leader does.
async fn watch_gateways(quorum: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let live: Vec<_> = {
            let log = quorum.log.lock();
            let live = log.truth.brokers();
            live.iter().map(|known| (known.id, known.epoch)).collect()
        };
        // Another leader begins anew.
        let term = quorum.leader.load(Ordering::Relaxed);
        for (broker, epoch) in quorum.heard.silent(term, &live, GRACE, Instant::now()) {
            let lapse = Command::Lapse { broker, epoch };
            quorum.deliver(Envelope::by_leader(lapse));
        }
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::seeds;
    use frazil_core::ports::{Catalog, LogIndex};

    use super::*;

    /// Commands of one client after the other, in bad weather: what was answered happened once, in
    /// order, and is read by whoever asks behind a barrier.
    async fn history(seed: u64) {
        let quorum = Quorum::new(seed);
        let random = SeededIds::new(seed ^ 1);
        quorum.set(Weather {
            refused: 10,
            lost: 5,
            unanswered: 10,
            late: 5,
            repeated: 10,
            elections: 5,
            latency: Duration::from_millis(20),
            lag: Duration::from_millis(300),
            delay: Duration::from_secs(5),
            skew: Duration::from_secs(1),
        });
        let config = ClientConfig {
            deadline: Duration::from_secs(2),
            attempt: Duration::from_millis(300),
            ..ClientConfig::default()
        };
        let nodes: Vec<Node> = (0..3)
            .map(|n| quorum.node(seed * 10 + n, config.clone()))
            .collect();
        let mut largest = -1;
        let mut given = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let node = &nodes[random.random() as usize % nodes.len()];
            // Every client takes ranges, so a repetition that is applied again shows as an overlap
            // only through what is given out: take many.
            for _ in 0..50 {
                if let Ok(id) = node.client().new_producer_id().await {
                    assert!(given.insert(id), "{id} again");
                    largest = largest.max(id.0);
                }
            }
            let before = *quorum.0.length.borrow();
            if node.client().barrier().await.is_ok() {
                let seen = node.client().image().applied();
                assert!(seen >= before, "{seen} of {before}");
            }
        }
        quorum.read(State::check).expect("a possible state");
        assert!(largest > 0);
    }

    #[test]
    fn histories() {
        seeds(
            "frazil-metadata",
            "simulated::tests::histories",
            1_000,
            |seed| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build()
                    .expect("a runtime");
                runtime.block_on(history(seed));
            },
        );
    }
}
