//! The programs that hosts run: the parts of a node, put together as `src/node.rs` of the root
//! package does, without HTTP, command line and files of the real machine.
//!
//! A program that ends asks to be started again, as a supervisor would; what must not happen to it
//! ends the simulation.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use frazil_cache::net::Tcp;
use frazil_cache::{Cache, Neighbours, PutBudget, WalConfig};
use frazil_compactor::FreezeConfig;
use frazil_core::env::testing::{MemDisk, SeededIds};
use frazil_core::env::{Clock, Ids};
use frazil_core::ports::Catalog as _;
use frazil_core::{BrokerId, PortError};
use frazil_gateway::{Ctx, Parts, Server};
use frazil_metadata::{
    Client, ClientConfig, Config, Image, Metrics, Observer, Registration, Voter,
};
use frazil_objects::Retries;
use object_store::path::Path;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

use crate::judge::Needed;
use crate::store::World;
use crate::{entropy, trace};

/// Where voters listen.
const PEER_PORT: u16 = 9093;
/// Where gateways listen.
pub const KAFKA_PORT: u16 = 9092;
/// How long a gateway counts as live without a heartbeat, and how often it sends one: a fifth of
/// what real ones do, since virtual seconds cost real ones.
const LEASE: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_millis(600);
/// How long after its lease a gateway is given up.
const SEAL_AFTER: Duration = Duration::from_secs(3);
/// How long an object stays that nothing refers to any more.
pub const GRACE: Duration = Duration::from_secs(4);
/// Between two rounds of each of the compactor's chores.
pub const CHORES: Duration = Duration::from_millis(1500);
/// How long a program that starts waits for the quorum.
const PATIENCE: Duration = Duration::from_secs(120);
/// Midnight of some day.
const EPOCH_MS: i64 = 1_790_000_000_000;

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// With this id.
    Voter(u64),
    /// With this broker id, which is also its place in the list of gateways, from 1.
    Gateway(i32),
    /// Conversion into tables, retention and collection.
    Compactor,
}

/// A machine.
pub struct Host {
    /// Its name in the network.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its disk.
    pub disk: Mutex<MemDisk>,
    /// How many milliseconds its clock is off.
    pub clock_off_ms: Arc<AtomicI64>,
    /// Times it was started.
    starts: AtomicU64,
    /// Times its program has ended by itself.
    pub ended: AtomicU64,
    /// Which life of a gateway this is, for those who read from it.
    pub life: AtomicU32,
    /// Told to leave.
    pub drain: Mutex<CancellationToken>,
}

impl Host {
    /// A machine that has never been started.
    pub fn new(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            disk: Mutex::new(MemDisk::new()),
            clock_off_ms: Arc::default(),
            starts: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            life: AtomicU32::new(match role {
                Role::Gateway(place) => place as u32 - 1,
                _ => 0,
            }),
            drain: Mutex::default(),
        }
    }

    fn clock(&self) -> Arc<HostClock> {
        Arc::new(HostClock(Arc::clone(&self.clock_off_ms)))
    }
}

struct HostClock(Arc<AtomicI64>);

impl Clock for HostClock {
    fn now_ms(&self) -> i64 {
        EPOCH_MS + trace::now_ms() as i64 + self.0.load(Ordering::Relaxed)
    }
}

/// What the hosts share, and nobody in the cluster knows.
pub struct Shared {
    /// The store.
    pub store: World,
    /// Addresses of the voters.
    pub voters: BTreeMap<u64, String>,
    /// The newest image of each host.
    pub images: Mutex<BTreeMap<String, Arc<Image>>>,
    /// Entries after which voters make a snapshot.
    pub snapshot_entries: u64,
    /// Whether gateways have a write-ahead log.
    pub wal: bool,
    /// How many bytes go past that log; the store is a directory on its disk then.
    pub past_log_bytes: Option<usize>,
    /// What is known of the objects of tables.
    pub needed: Needed,
    /// How compactors convert topics, if they do.
    pub freezing: Option<FreezeConfig>,
}

impl Shared {
    /// The image that has applied the most.
    pub fn newest(&self) -> Option<Arc<Image>> {
        let images = self.images.lock();
        images.values().max_by_key(|image| image.applied()).cloned()
    }

    fn learned(&self, host: &Host, image: &Arc<Image>) {
        self.images
            .lock()
            .insert(host.name.clone(), Arc::clone(image));
    }
}

/// Runs a host's program to its end.
///
/// # Errors
/// What must not happen to a program.
pub async fn run(host: Arc<Host>, shared: Arc<Shared>) -> turmoil::Result {
    let start = host.starts.fetch_add(1, Ordering::Relaxed);
    if start > 0 {
        // Numbers of lives of different gateways never meet.
        host.life.fetch_add(1000, Ordering::Relaxed);
    }
    trace::note(format_args!("start {start}"));
    let ids = Arc::new(SeededIds::new(entropy::next()));
    let ended = match host.role {
        Role::Voter(id) => voter(&host, &shared, ids, id).await,
        Role::Gateway(id) => gateway(&host, &shared, ids, id).await,
        Role::Compactor => compactor(&host, &shared, ids).await,
    };
    match ended {
        Ok(why) => trace::note(format_args!("ended: {why}")),
        Err(error) => {
            trace::note(format_args!("failed: {error:#}"));
            return Err(format!("{}: {error:#}", host.name).into());
        }
    }
    host.ended.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn voter(host: &Host, shared: &Shared, ids: Arc<SeededIds>, id: u64) -> Result<String> {
    let listener = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
    let config = Config {
        log_file_bytes: 128 << 10,
        log_cache_bytes: 32 << 10,
        snapshot_entries: shared.snapshot_entries,
        kept_entries: shared.snapshot_entries / 4,
        ..Config::new(id, shared.voters.clone(), "/quorum")
    };
    let disk = Arc::new(host.disk.lock().clone());
    let metrics = Metrics::default();
    let voter = Voter::start(
        config,
        Some(listener.into()),
        disk,
        host.clock(),
        ids,
        metrics,
    )
    .await?;
    shared.learned(host, voter.image());
    bail!("raft: {}", voter.failed().await)
}

fn observer(host: &Host, shared: &Shared, ids: &Arc<SeededIds>) -> Result<(Observer, Arc<Client>)> {
    let observer = Observer::start(shared.voters.clone(), ids.clone(), Metrics::default())?;
    shared.learned(host, observer.image());
    let client = observer.client(ClientConfig {
        deadline: Duration::from_secs(10),
        attempt: Duration::from_secs(2),
        seal_after: SEAL_AFTER,
    });
    Ok((observer, Arc::new(client)))
}

fn retries(ids: &Arc<SeededIds>) -> Retries {
    Retries::new(ids.clone(), frazil_objects::Metrics::default())
}

async fn compactor(host: &Host, shared: &Shared, ids: Arc<SeededIds>) -> Result<String> {
    let (observer, client) = observer(host, shared, &ids)?;
    if let Err(error) = client.ready(PATIENCE).await {
        return Ok(format!("no quorum: {error}"));
    }
    let config = frazil_compactor::Config {
        retention_interval: CHORES,
        reclaim_interval: CHORES,
        sweep_interval: CHORES,
        grace: GRACE,
        ..frazil_compactor::Config::default()
    };
    let prefix = Path::from(client.cluster_id());
    let store = Arc::new(shared.store.of(&host.name));
    let metrics = frazil_compactor::Metrics::default();
    let service = frazil_compactor::Service::new(
        config,
        client.clone(),
        client.clone(),
        store,
        retries(&ids),
        prefix,
        metrics,
    );
    let service = match &shared.freezing {
        Some(config) => service.with_tables(config.clone(), client.clone(), ids.uuid()),
        None => service,
    };
    tokio::select! {
        () = service.run(CancellationToken::new()) => bail!("the compactor ended by itself"),
        why = observer.failed() => bail!("the metadata: {why}"),
    }
}

/// A task that the gateway cannot do without.
struct Part {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Part {
    fn run<E, F>(
        what: &'static str,
        broken: &watch::Sender<Option<String>>,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (running, stopped, broken) = (run(stop.clone()), stop.clone(), broken.clone());
        let task = tokio::spawn(async move {
            let reason = match running.await {
                Err(error) => error.to_string(),
                Ok(()) if stopped.is_cancelled() => return,
                Ok(()) => "ended by itself".to_owned(),
            };
            broken.send_replace(Some(format!("{what}: {reason}")));
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        // A task that panics ends the simulation.
        let _ = self.task.await;
    }
}

async fn gateway(host: &Host, shared: &Shared, ids: Arc<SeededIds>, id: i32) -> Result<String> {
    let drain = CancellationToken::new();
    *host.drain.lock() = drain.clone();
    let listener = TcpListener::bind(("0.0.0.0", KAFKA_PORT)).await?;
    let peers = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
    let (observer, client) = observer(host, shared, &ids)?;
    if let Err(error) = client.ready(PATIENCE).await {
        return Ok(format!("no quorum: {error}"));
    }
    let registration = Registration {
        id: Some(BrokerId(id)),
        incarnation: ids.uuid(),
        host: host.name.clone(),
        port: KAFKA_PORT,
        rack: None,
        peer: format!("{}:{PEER_PORT}", host.name),
        lease: LEASE,
    };
    let (broker, epoch) = match client.register(registration).await {
        Ok(registered) => registered,
        Err(error) => return Ok(format!("not registered: {error}")),
    };
    let parts = frazil_cache::Parts {
        broker,
        epoch,
        cluster: client.cluster_id(),
        store: Arc::new(shared.store.of(&host.name)),
        retries: retries(&ids),
        prefix: Path::from(client.cluster_id()),
        sequencer: client.clone(),
        index: client.clone(),
        neighbours: Some(Neighbours {
            gateways: client.clone(),
            zone: None,
            dial: Arc::new(Tcp),
        }),
        disk: Arc::new(host.disk.lock().clone()),
        ids: ids.clone(),
        metrics: frazil_cache::Metrics::default(),
    };
    let (cache, service) = match Cache::start(cache_config(shared), parts).await {
        Ok(started) => started,
        // To be started again when the quorum answers, or under a registration of its own.
        Err(error @ (frazil_cache::Error::Metadata(_) | frazil_cache::Error::Fenced(_))) => {
            return Ok(format!("not started: {error}"));
        }
        Err(error) => return Err(anyhow!(error).context("the gateway cannot start")),
    };
    let (broken, mut breaks) = watch::channel(None);
    let flusher = Part::run("the flush pipeline", &broken, |stop| service.run(stop));
    let answering = cache.peer_server();
    let peers = Part::run("the listener for gateways", &broken, |stop| async move {
        answering.run(peers.into(), stop).await;
        Ok::<(), Infallible>(())
    });
    let parts = Parts {
        broker,
        log: client.clone(),
        catalog: client.clone(),
        group_store: client.clone(),
        cache: cache.clone(),
        clock: host.clock(),
        ids,
    };
    let config = frazil_gateway::Config {
        auto_create_topics: false,
        drain_timeout: Duration::from_secs(2),
        ..frazil_gateway::Config::default()
    };
    let ctx = Ctx::new(
        parts,
        config,
        frazil_gateway::Metrics::register(&mut Registry::default()),
    );
    let ctx = Arc::new(ctx);
    let server = Server::new(Arc::clone(&ctx), listener);
    let server = Part::run("the listener", &broken, |stop| async move {
        server.run(stop).await;
        Ok::<(), Infallible>(())
    });
    let heart = Part::run("the registration", &broken, {
        let client = client.clone();
        move |stop| keep_registered(client, stop)
    });
    trace::note(format_args!("registered as {broker} under {epoch}"));
    let why = tokio::select! {
        why = breaks.wait_for(Option::is_some) => why?.clone().unwrap_or_default(),
        why = observer.failed() => bail!("the metadata: {why}"),
        () = drain.cancelled() => {
            let leaving = async {
                // A courtesy to clients, and their time to find others.
                let told = tokio::time::timeout(Duration::from_secs(2), client.drain()).await;
                if matches!(told, Ok(Ok(()))) && !client.brokers().is_empty() {
                    ctx.drain.begin();
                    let quiet = tokio::time::timeout(Duration::from_secs(2), ctx.drain.quiet());
                    // Some clients stay until they are disconnected.
                    let _ = tokio::join!(quiet, cache.drain());
                }
                server.stop().await;
                cache.drain().await;
                flusher.stop().await;
                peers.stop().await;
                heart.stop().await;
                client.leave().await
            };
            match tokio::time::timeout(Duration::from_secs(8), leaving).await {
                Ok(Ok(())) => "left".to_owned(),
                Ok(Err(error)) => format!("left without a word: {error}"),
                Err(_) => "left unfinished".to_owned(),
            }
        }
    };
    Ok(why)
}

async fn keep_registered(client: Arc<Client>, stop: CancellationToken) -> Result<()> {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let beaten = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            beaten = client.heartbeat(LEASE) => beaten,
        };
        if let Err(PortError::Fenced(why)) = beaten {
            bail!("superseded or given up: {why}");
        }
    }
}

fn cache_config(shared: &Shared) -> frazil_cache::Config {
    frazil_cache::Config {
        local_store: shared.past_log_bytes.is_some(),
        past_log_bytes: shared.past_log_bytes,
        buffer_bytes: 1 << 20,
        segment_bytes: 16 << 10,
        put_budget: Some(PutBudget {
            per_second: 20.0,
            burst: 4,
        }),
        linger: Duration::from_millis(300),
        uploads_max: 3,
        append_timeout: Duration::from_secs(10),
        wal: shared.wal.then(|| WalConfig {
            bytes: 1 << 20,
            file_bytes: 64 << 10,
            ..WalConfig::new(PathBuf::from("/gateway/wal"))
        }),
        // Little enough that most reads go to the store.
        tail_bytes: 8 << 10,
        block_memory_bytes: 256 << 10,
        read_timeout: Duration::from_secs(4),
        ..frazil_cache::Config::remote()
    }
}
