//! A node: the roles it was given, assembled, run, and stopped in reverse.
//!
//! ```text
//! ports bound ─► store probed ─► directory claimed ─► HTTP ─► quorum ─► gateway ─► compactor
//! ```
//! Everything that a mistake in the configuration can break is tried before anything is written.
//!
//! # Stopping
//! SIGTERM, `POST /drain` and `drain.notice.file` begin the same. A gateway first asks the quorum to
//! leave it out of the live set; if there is another, it sends its clients there until none asks for
//! anything any more (`frazil_gateway::Drain`). Then it answers what it has received, flushes, and
//! gives up its registration, and answers other gateways until then; the quorum's voter goes last, in
//! the last quarter of the time at the latest, so that it can hand over. What does not fit into
//! `shutdown.deadline.ms` is left as a crash would leave it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use frazil_cache::net::{Connections, Tcp};
use frazil_cache::{BlockDisk, Cache, Neighbours, WalConfig};
use frazil_compactor::publish::{PublishParts, Publisher};
use frazil_core::ports::{Catalog as _, LogIndex as _};
use frazil_core::{BrokerId, PortError};
use frazil_gateway::{Ctx, Parts, Server};
use frazil_metadata::{ArchiveConfig, Client, ClientConfig, Observer, Registration, Voter};
use frazil_objects::Retries;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::archive::StoreArchive;
use crate::catalog::{self, Catalog};
use crate::config::{CatalogCredentials, Config};
use crate::env::{DirLock, Env, LeavingRoom};
use crate::external::{Access, Rest, RestConfig};
use crate::host;
use crate::http::{self, CatalogSlot, Readiness};
use crate::identity::{self, Identity};
use crate::peers;
use crate::store::{self, Kind, Store};

/// How long a gateway stays in the live set without being heard of. Clients of one that is lost go
/// on when its lease has ended; one that is merely slow loses nothing but them.
const LEASE: Duration = Duration::from_secs(6);
/// How long a node that starts waits for the quorum.
const QUORUM_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is heard of.
const HEARTBEAT: Duration = Duration::from_millis(1500);

/// Serves as `config` says until `stop`, then stops in order.
///
/// # Errors
/// What kept the node from starting, or what ended it.
pub async fn run(config: Config, env: Env, stop: CancellationToken) -> Result<()> {
    let deadline = config.shutdown_deadline;
    let notice = config.drain_notice_file.clone().map(PathBuf::from);
    let noticed = async move {
        match notice {
            Some(file) => host::appears(&file).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(noticed);
    let starting = Node::start(config, env);
    let node = tokio::select! {
        node = starting => node?,
        // Nothing has been promised to anyone yet.
        () = stop.cancelled() => return Ok(()),
        () = &mut noticed => return Ok(()),
    };
    let broken = tokio::select! {
        () = stop.cancelled() => None,
        () = node.drain.cancelled() => {
            info!("stopping, as POST /drain asks");
            None
        }
        () = &mut noticed => {
            info!("stopping, as drain.notice.file has appeared");
            None
        }
        error = node.broken() => Some(error),
    };
    let stopped = tokio::time::timeout(deadline, node.stop()).await;
    if stopped.is_err() {
        warn!(?deadline, "not everything was finished in time");
    }
    match broken {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// A running node.
pub struct Node {
    kafka: Option<SocketAddr>,
    http: SocketAddr,
    quorum: Quorum,
    client: Arc<Client>,
    gateway: Option<Gateway>,
    compactor: Option<Part>,
    publisher: Option<Part>,
    web: Part,
    sorting: Option<Part>,
    readiness: Readiness,
    /// Cancelled when somebody wants the node to stop, by HTTP.
    drain: CancellationToken,
    /// Cancelled when a part has ended that should not have.
    broken: Broken,
    /// How long stopping may take.
    patience: Duration,
    _lock: Option<DirLock>,
}

/// A task with its own way to be stopped.
struct Part {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Part {
    /// Runs a part that the node cannot do without: its end, if nobody wanted it, is the node's.
    fn supervised<E, F>(
        what: &'static str,
        broken: &Broken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let running = run(stop.clone());
        Self::with(what, broken, stop, running)
    }

    /// The same of what runs until `stop`.
    fn with<E, F>(what: &'static str, broken: &Broken, stop: CancellationToken, running: F) -> Self
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stopped, broken) = (stop.clone(), broken.clone());
        // In a task of its own: a node of which a part has panicked would accept what it can
        // never answer.
        let running = tokio::spawn(running);
        let task = tokio::spawn(async move {
            match running.await {
                Err(error) if error.is_panic() => broken.report(what, "panicked"),
                // The runtime is going down.
                Err(_) => {}
                Ok(Err(error)) => broken.report(what, error),
                Ok(Ok(())) if !stopped.is_cancelled() => broken.report(what, "ended by itself"),
                Ok(Ok(())) => {}
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        // A panic of the task has been reported where it happened.
        let _ = self.task.await;
    }
}

/// The first reason why the node cannot go on.
#[derive(Clone)]
struct Broken(tokio::sync::watch::Sender<Option<String>>);

impl Broken {
    fn report(&self, what: &str, reason: impl std::fmt::Display) {
        let reason = format!("{what}: {reason}");
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(reason);
            is_first
        });
    }
}

/// Where other nodes' connections come in.
struct Ports {
    /// What other gateways are told; empty: nothing.
    address: String,
    metadata: Option<frazil_metadata::Connections>,
    gateway: Option<Connections>,
    sorting: Option<Part>,
}

impl Ports {
    fn open(config: &Config, listener: Option<TcpListener>, broken: &Broken) -> Result<Self> {
        let mut ports = Self {
            address: String::new(),
            metadata: None,
            gateway: None,
            sorting: None,
        };
        let Some(listener) = listener else {
            return Ok(ports);
        };
        ports.address = peers::address(config, listener.local_addr()?.port());
        match (config.roles.metadata, config.roles.gateway) {
            (true, true) => {
                let stop = CancellationToken::new();
                let (sorting, sorted) = peers::sort(listener, stop.clone());
                ports.metadata = Some(frazil_metadata::Connections::Handed(sorted.metadata));
                ports.gateway = Some(Connections::Handed(sorted.gateway));
                ports.sorting = Some(Part::with("the listener for nodes", broken, stop, sorting));
            }
            (true, false) => ports.metadata = Some(listener.into()),
            (false, _) => ports.gateway = Some(listener.into()),
        }
        Ok(ports)
    }
}

/// A node that is alone with every role has no peers, and a compactor nothing that they want.
async fn bind_peers(config: &Config) -> Result<Option<TcpListener>> {
    let asked = config.roles.metadata || config.roles.gateway;
    if config.voters.is_empty() || !asked {
        return Ok(None);
    }
    Ok(Some(host::bind("peer.listen", &config.peer_listen).await?))
}

enum Quorum {
    Voter(Voter),
    Observer(Observer),
}

struct Gateway {
    ctx: Arc<Ctx>,
    server: Part,
    cache: Cache,
    flusher: Part,
    /// Answers other gateways.
    peers: Option<Part>,
    heart: Part,
}

impl Node {
    /// Starts every role of `config`; they serve when this returns.
    ///
    /// # Errors
    /// One line that names the setting, or the part that could not start.
    pub async fn start(mut config: Config, env: Env) -> Result<Self> {
        let started_ms = env.clock.now_ms();
        let kafka = match config.roles.gateway {
            true => Some(host::bind("listeners", &config.listeners).await?),
            false => None,
        };
        let web = host::bind("http.listen", &config.http_listen).await?;
        let peers = bind_peers(&config).await?;
        let (store, lock) = open_store(&config, &env).await?;
        if store.kind == Kind::Memory {
            // Metadata that outlived the records would promise what nobody can read.
            config.data_dir = host::emptied(&config.data_dir.join("memory"))?;
        }

        let mut registry = Registry::default();
        http::register_process_metrics(&mut registry, started_ms);
        let metadata_metrics = frazil_metadata::Metrics::register(&mut registry);
        let cache_metrics = frazil_cache::Metrics::default();
        cache_metrics.register(&mut registry);
        let gateway_metrics = frazil_gateway::Metrics::register(&mut registry);
        let store_metrics = frazil_objects::Metrics::default();
        store_metrics.register(&mut registry);
        let retries = Retries::new(Arc::clone(&env.ids), store_metrics);
        let compactor_metrics = frazil_compactor::Metrics::default();
        compactor_metrics.register(&mut registry);
        let catalog_metrics = catalog::Metrics::default();
        catalog_metrics.register(&mut registry);

        let mut parts = vec!["quorum"];
        parts.extend(config.roles.gateway.then_some("gateway"));
        let readiness = Readiness::waiting_for(&parts);
        let broken = Broken(tokio::sync::watch::Sender::new(None));
        let peers = Ports::open(&config, peers, &broken)?;
        let http_address = web.local_addr()?;
        let drain = CancellationToken::new();
        let catalog = config.catalog_enable.then(CatalogSlot::default);
        let web = serve_http(
            web,
            registry,
            readiness.clone(),
            drain.clone(),
            catalog.clone(),
            broken.clone(),
        );

        let mut quorum = start_quorum(&config, &env, peers.metadata, metadata_metrics).await?;
        let client = Arc::new(quorum.client(&config));
        tokio::select! {
            () = quorum.added(&config) => {}
            reason = quorum.failed() => bail!("the metadata: {reason}"),
        }
        tokio::select! {
            ready = client.ready(QUORUM_PATIENCE) => {
                ready.context("the metadata quorum does not answer")?;
            }
            reason = quorum.failed() => bail!("the metadata: {reason}"),
        }
        readiness.ready("quorum");
        let cluster = client.cluster_id();
        let prefix = object_store::path::Path::from(cluster.as_str());
        if store.kind != Kind::Memory {
            let archive =
                StoreArchive::new(Arc::clone(&store.client), retries.clone(), prefix.clone());
            frazil_metadata::check_history(&archive, client.image()).await?;
        }
        quorum.archive(&config, &store, &retries, &prefix);
        if let Some(slot) = catalog {
            let source = client.clone();
            let parts = catalog_parts(&config, &store, &retries, &prefix, source, catalog_metrics);
            // Nobody else fills it.
            let _ = slot.set(Catalog::new(parts));
        }

        let mut node = Self {
            kafka: None,
            http: http_address,
            quorum,
            client,
            gateway: None,
            compactor: None,
            publisher: None,
            web,
            sorting: peers.sorting,
            readiness,
            drain,
            broken,
            patience: config.shutdown_deadline,
            _lock: lock,
        };
        if let Some(listener) = kafka {
            node.kafka = Some(listener.local_addr()?);
            let metrics = (cache_metrics, gateway_metrics);
            let peers = (peers.address, peers.gateway);
            let store = (&store, &retries);
            node.start_gateway(&config, &env, store, &prefix, (listener, peers), metrics)
                .await?;
            node.readiness.ready("gateway");
        }
        if config.roles.compactor {
            if let Some(to) = copy_config(&config) {
                let parts = PublishParts {
                    image: node.client.clone(),
                    store: Arc::clone(&store.client),
                    retries: retries.clone(),
                    prefix: prefix.clone(),
                    broker_defaults: config.broker_settings(),
                    interval: config.copy_interval,
                    metrics: compactor_metrics.clone(),
                };
                let publisher = Publisher::new(parts, Arc::new(Rest::new(to)));
                let run = |stop| async move {
                    publisher.run(stop).await;
                    Ok::<(), Infallible>(())
                };
                node.publisher = Some(Part::supervised("the publisher", &node.broken, run));
            }
            let compactor = frazil_compactor::Service::new(
                compactor_config(&config),
                node.client.clone(),
                node.client.clone(),
                Arc::clone(&store.client),
                retries,
                prefix.clone(),
                compactor_metrics,
            );
            let tables = freeze_config(&config, store.location(&prefix));
            let compactor = compactor.with_tables(tables, node.client.clone(), env.ids.uuid());
            let run = |stop| async move {
                compactor.run(stop).await;
                Ok::<(), Infallible>(())
            };
            node.compactor = Some(Part::supervised("the compactor", &node.broken, run));
        }
        info!(
            cluster,
            kafka = node.kafka.map(tracing::field::display),
            http = %node.http,
            store = store.url(),
            "ready"
        );
        Ok(node)
    }

    /// Where Kafka clients connect to, if this node is a gateway.
    pub fn kafka(&self) -> Option<SocketAddr> {
        self.kafka
    }

    /// Where health and metrics are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Waits until a part of the node has failed for good, and says which and why.
    pub async fn broken(&self) -> anyhow::Error {
        let mut reported = self.broken.0.subscribe();
        let reported = async move {
            match reported.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "nobody is left to report a failure".to_owned(),
            }
        };
        tokio::select! {
            reason = reported => anyhow!(reason),
            reason = self.quorum.failed() => anyhow!("the metadata: {reason}"),
        }
    }

    async fn start_gateway(
        &mut self,
        config: &Config,
        env: &Env,
        (store, retries): (&Store, &Retries),
        prefix: &object_store::path::Path,
        (listener, (peer_address, peers)): (TcpListener, (String, Option<Connections>)),
        metrics: (frazil_cache::Metrics, frazil_gateway::Metrics),
    ) -> Result<()> {
        let advertised = config.advertised(listener.local_addr()?.port());
        let client = &self.client;
        let cluster = client.cluster_id();
        let remembered = identity::read(&*env.disk, &config.data_dir)?;
        let registration = Registration {
            id: identity::choose(config.id(), remembered.as_ref(), &cluster, |broker| {
                !client.wal_extents(broker).is_empty()
            })?,
            incarnation: env.ids.uuid(),
            host: advertised.host,
            port: advertised.port,
            rack: config.rack.clone(),
            peer: peer_address,
            lease: LEASE,
        };
        let (broker, epoch) = client
            .register(registration)
            .await
            .context("the gateway cannot register")?;
        let identity = Identity {
            cluster: cluster.clone(),
            broker,
        };
        if remembered.as_ref() != Some(&identity) {
            identity::write(&*env.disk, &config.data_dir, &identity)?;
        }
        store
            .prepare(&*env.disk, prefix)
            .context("the store's directories cannot be created")?;
        let start = || {
            let parts = frazil_cache::Parts {
                broker,
                epoch,
                cluster: cluster.clone(),
                store: Arc::clone(&store.client),
                retries: retries.clone(),
                prefix: prefix.clone(),
                sequencer: client.clone(),
                index: client.clone(),
                neighbours: peers.is_some().then(|| Neighbours {
                    gateways: client.clone(),
                    zone: config.rack.clone(),
                    dial: Arc::new(Tcp),
                }),
                disk: Arc::new(LeavingRoom::new(Arc::clone(&env.disk))),
                ids: Arc::clone(&env.ids),
                metrics: metrics.0.clone(),
            };
            Cache::start(cache_config(config, store), parts)
        };
        let started = match start().await {
            Err(frazil_cache::Error::WalLost(lost)) if config.wal_accept_loss => {
                accept_loss(client, lost).await?;
                start().await
            }
            started => started,
        };
        let (cache, service) = started.map_err(unrecoverable)?;
        let broken = &self.broken;
        let flusher = Part::supervised("the flush pipeline", broken, |stop| service.run(stop));
        let peers = peers.map(|incoming| {
            let server = cache.peer_server();
            Part::supervised("the listener for gateways", broken, |stop| async move {
                server.run(incoming, stop).await;
                Ok::<(), Infallible>(())
            })
        });

        let parts = Parts {
            broker,
            log: client.clone(),
            catalog: client.clone(),
            group_store: client.clone(),
            cache: cache.clone(),
            clock: Arc::clone(&env.clock),
            ids: Arc::clone(&env.ids),
        };
        let ctx = Ctx::new(parts, gateway_config(config, broker), metrics.1);
        let ctx = Arc::new(ctx);
        let server = Server::new(Arc::clone(&ctx), listener);
        let server = Part::supervised("the Kafka listener", broken, |stop| async move {
            server.run(stop).await;
            Ok::<(), Infallible>(())
        });
        let heart = Part::supervised("the registration", broken, {
            let client = client.clone();
            move |stop| keep_registered(client, stop)
        });
        info!(%broker, %epoch, "registered");
        self.gateway = Some(Gateway {
            ctx,
            server,
            cache,
            flusher,
            peers,
            heart,
        });
        Ok(())
    }

    /// Stops every part, in reverse.
    ///
    /// # Cancel safety
    /// Dropping it leaves what a crash would leave.
    pub async fn stop(self) {
        self.readiness.not_ready("node", "draining");
        let compactor = async {
            for part in [self.publisher, self.compactor].into_iter().flatten() {
                part.stop().await;
            }
        };
        let gateway = async {
            let Some(gateway) = self.gateway else { return };
            let stopping = gateway.stop(&self.client, self.patience / 4);
            if tokio::time::timeout(self.patience * 3 / 4, stopping)
                .await
                .is_err()
            {
                warn!("what is not in the object store is left in the write-ahead log");
            }
        };
        tokio::join!(compactor, gateway);
        match self.quorum {
            Quorum::Voter(voter) => voter.shutdown().await,
            Quorum::Observer(observer) => observer.shutdown().await,
        }
        if let Some(sorting) = self.sorting {
            sorting.stop().await;
        }
        self.web.stop().await;
        info!("stopped");
    }
}

impl Gateway {
    /// Sends clients elsewhere, stops taking, answers, flushes, and leaves. The quorum is given
    /// `patience` to note that the gateway is leaving, and clients as much again to find others.
    async fn stop(self, client: &Client, patience: Duration) {
        match tokio::time::timeout(patience, client.drain()).await {
            Ok(Ok(())) if !client.brokers().is_empty() => {
                self.ctx.drain.begin();
                let quiet = tokio::time::timeout(patience, self.ctx.drain.quiet());
                // What is flushed now is not waited for by those who are answered last.
                let (quiet, ()) = tokio::join!(quiet, self.cache.drain());
                if quiet.is_err() {
                    info!("some clients are still here, and are disconnected");
                }
            }
            Ok(Ok(())) => info!("there is no other gateway that clients could go to"),
            Ok(Err(error)) => warn!(%error, "the quorum does not know that this gateway leaves"),
            Err(_) => warn!("the quorum does not know in time that this gateway leaves"),
        }
        self.server.stop().await;
        self.cache.drain().await;
        self.flusher.stop().await;
        if let Some(peers) = self.peers {
            peers.stop().await;
        }
        self.heart.stop().await;
        if let Err(error) = client.leave().await {
            warn!(%error, "the registration stays until its lease ends");
        }
    }
}

impl Quorum {
    /// Has a voter keep the archive, unless it would end with the process.
    fn archive(
        &mut self,
        config: &Config,
        store: &Store,
        retries: &Retries,
        prefix: &object_store::path::Path,
    ) {
        let wanted = !config.archive_interval.is_zero() && store.kind != Kind::Memory;
        if let Self::Voter(voter) = self
            && wanted
        {
            let to = StoreArchive::new(Arc::clone(&store.client), retries.clone(), prefix.clone());
            let settings = ArchiveConfig {
                every: config.archive_interval,
                ..ArchiveConfig::default()
            };
            voter.archive(Arc::new(to), settings);
        }
    }

    fn client(&self, config: &Config) -> Client {
        let config = ClientConfig {
            seal_after: config.gateway_seal_after,
            ..ClientConfig::default()
        };
        match self {
            Self::Voter(voter) => voter.client(config),
            Self::Observer(observer) => observer.client(config),
        }
    }
}

impl Quorum {
    /// Waits until a voter that is not a member of the quorum is added to it, for however long.
    async fn added(&self, config: &Config) {
        if let Self::Voter(voter) = self
            && voter.joins()
        {
            let own = config.own_voter();
            let own = own.map_or_else(String::new, |own| format!("{}@{}", own.id, own.address));
            info!("waiting to become a voter: frazil cluster voter add {own}");
            voter.added().await;
        }
    }

    /// Waits until this node can follow the metadata no longer, and says why.
    async fn failed(&self) -> String {
        match self {
            Self::Voter(voter) => voter.failed().await,
            Self::Observer(observer) => observer.failed().await,
        }
    }
}

/// Where this node's voter keeps its log.
pub(crate) fn quorum_dir(config: &Config) -> PathBuf {
    config.data_dir.join("quorum")
}

/// This node's voter, if it is the only one.
pub(crate) fn lone_voter(config: &Config) -> frazil_metadata::Config {
    let own = config.own_voter().map(|voter| &voter.address);
    let address = own.unwrap_or(&config.peer_listen).to_string();
    let id = config.voter_id() as u64;
    frazil_metadata::Config::new(id, BTreeMap::from([(id, address)]), quorum_dir(config))
}

async fn start_quorum(
    config: &Config,
    env: &Env,
    peers: Option<frazil_metadata::Connections>,
    metrics: frazil_metadata::Metrics,
) -> Result<Quorum> {
    let voters: BTreeMap<u64, String> = config
        .voters
        .iter()
        .map(|voter| (voter.id as u64, voter.address.to_string()))
        .collect();
    if !config.roles.metadata {
        let observer = Observer::start(voters, Arc::clone(&env.ids), metrics)?;
        return Ok(Quorum::Observer(observer));
    }
    let mut quorum = lone_voter(config);
    if !voters.is_empty() {
        quorum.voters = voters;
    }
    let voter = Voter::start(
        quorum,
        peers,
        Arc::clone(&env.disk),
        Arc::clone(&env.clock),
        Arc::clone(&env.ids),
        metrics,
    )
    .await
    .context("the metadata voter cannot start")?;
    Ok(Quorum::Voter(voter))
}

/// Opens and probes the store, and claims the data directory if any role writes there. A store
/// elsewhere is tried first, so that one that refuses leaves no directory behind.
async fn open_store(config: &Config, env: &Env) -> Result<(Store, Option<DirLock>)> {
    let claim = || -> Result<Option<DirLock>> {
        let writes = config.roles.metadata || config.roles.gateway;
        Ok(writes
            .then(|| host::claim_data_dir(&config.data_dir))
            .transpose()?)
    };
    let is_directory = config.store_url().starts_with("file:");
    let claimed = if is_directory { claim()? } else { None };
    let store = store::open(config, &*env.disk)?;
    store.probe(&*env.ids).await?;
    let lock = if is_directory { claimed } else { claim()? };
    if store.kind == Kind::Memory && (!config.roles.metadata || !config.voters.is_empty()) {
        bail!("store.url = memory: a store in memory cannot be shared between nodes");
    }
    Ok((store, lock))
}

fn serve_http(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    drain: CancellationToken,
    catalog: Option<CatalogSlot>,
    broken: Broken,
) -> Part {
    let stop = CancellationToken::new();
    let serving = http::serve(
        listener,
        Arc::new(registry),
        readiness,
        drain,
        catalog,
        stop.clone(),
    );
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            broken.report("the HTTP listener", error);
        }
    });
    Part { stop, task }
}

/// Gives up what is missing in the write-ahead log, as the operator wants it, and says what.
async fn accept_loss(client: &Client, lost: Vec<frazil_cache::Lost>) -> Result<()> {
    let mut ranges = Vec::with_capacity(lost.len());
    for frazil_cache::Lost {
        partition,
        base,
        end,
        reason,
    } in lost
    {
        let topic = client.topic_by_id(partition.topic);
        warn!(
            topic = topic.map(|topic| topic.name.to_string()),
            partition = partition.partition,
            from = %base,
            to = %end,
            reason,
            "acknowledged records are lost and given up (wal.accept.loss)"
        );
        ranges.push((partition, base, end));
    }
    client
        .give_up_wal(ranges)
        .await
        .context("the quorum does not note what is lost")
}

/// Why the cache does not start, and what can be done about it.
fn unrecoverable(error: frazil_cache::Error) -> anyhow::Error {
    let what = match &error {
        frazil_cache::Error::WalLost(_) => {
            "the write-ahead log cannot be recovered; started once with wal.accept.loss=true, the \
             gateway gives up what is lost"
        }
        _ => "the write-ahead log cannot be recovered",
    };
    anyhow::Error::from(error).context(what)
}

/// Renews the lease until `stop`; ends with an error when the registration is no longer valid.
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
        match beaten {
            Ok(()) => {}
            Err(PortError::Fenced(_)) => bail!(
                "another process has registered with this node.id, or this one has not been heard \
                 of for so long that it was declared dead (gateway.seal.after.ms); started again, \
                 it registers anew"
            ),
            Err(error) => warn!(%error, "the lease was not renewed"),
        }
    }
}

/// So many bytes gather only while more comes than the log takes at once; writing them to a segment takes
/// longer than the two syncs that a segment needs more.
const PAST_LOG_BYTES: usize = 1 << 20;

fn cache_config(config: &Config, store: &Store) -> frazil_cache::Config {
    let kind = store.kind;
    let cloud = kind == Kind::Cloud;
    let defaults = match cloud {
        true => frazil_cache::Config::remote(),
        false => frazil_cache::Config::local(),
    };
    let put_budget =
        config
            .flush_put_budget
            .of(kind)
            .map(|(per_second, burst)| frazil_cache::PutBudget {
                per_second: f64::from(per_second),
                burst,
            });
    let dir = config.data_dir.join("gateway");
    frazil_cache::Config {
        buffer_bytes: config.flush_buffer_bytes as usize,
        segment_bytes: config.flush_segment_bytes as usize,
        past_log_bytes: store
            .shares_disk_with(&config.data_dir)
            .then_some(PAST_LOG_BYTES),
        put_budget,
        uploads_max: config.flush_uploads as usize,
        wal: Some(WalConfig {
            bytes: config.wal_bytes,
            ..WalConfig::new(dir.join("wal"))
        }),
        tail_bytes: config.cache_tail_bytes as usize,
        block_memory_bytes: config.cache_memory_bytes as usize,
        block_disk: (config.cache_disk_bytes > 0).then(|| BlockDisk {
            dir: dir.join("blocks"),
            bytes: config.cache_disk_bytes as usize,
        }),
        ..defaults
    }
}

fn gateway_config(config: &Config, broker: BrokerId) -> frazil_gateway::Config {
    // As clients see it, also if nobody has set it.
    let node_id = ("node.id".to_owned(), broker.to_string());
    let settings = config.broker_settings();
    frazil_gateway::Config {
        request_bytes_max: config.socket_request_max_bytes as usize,
        requests_in_flight_bytes_max: config.queued_max_request_bytes as usize,
        connections_max: config.max_connections as usize,
        idle_timeout: config.connections_max_idle,
        fetch_bytes_max: config.fetch_max_bytes as usize,
        fetches_in_flight_bytes_max: config.fetch_memory_bytes as usize,
        auto_create_topics: config.auto_create_topics,
        num_partitions: config.num_partitions,
        default_replication_factor: config.default_replication_factor,
        groups: frazil_gateway::GroupConfig {
            initial_rebalance_delay: config.group_initial_rebalance_delay,
            session_timeout_min: config.group_min_session_timeout,
            session_timeout_max: config.group_max_session_timeout,
            members_max: config.group_max_size as usize,
            ..frazil_gateway::GroupConfig::default()
        },
        broker_settings: settings.into_iter().chain([node_id]).collect(),
        drain_timeout: config.shutdown_deadline / 4,
        ..frazil_gateway::Config::default()
    }
}

fn catalog_parts(
    config: &Config,
    store: &Store,
    retries: &Retries,
    prefix: &object_store::path::Path,
    source: Arc<Client>,
    metrics: catalog::Metrics,
) -> catalog::Parts {
    let (endpoint, region) = store.s3_place();
    let secret = config.catalog_secret_access_key.as_ref();
    let credentials = config.catalog_access_key_id.as_ref().zip(secret);
    let given = config.catalog_credentials == CatalogCredentials::Static;
    catalog::Parts {
        source,
        store: Arc::clone(&store.client),
        retries: retries.clone(),
        prefix: prefix.clone(),
        location: store.location(prefix),
        readers: catalog::Readers {
            endpoint: config.catalog_store_endpoint.clone().or(endpoint),
            region: config.catalog_store_region.clone().or(region),
            path_style: config.catalog_store_path_style,
            credentials: credentials
                .filter(|_| given)
                .map(|(id, secret)| (id.clone(), secret.reveal().to_owned())),
        },
        broker_defaults: config.broker_settings(),
        cache_bytes: config.catalog_cache_bytes as usize,
        metrics,
    }
}

/// Where tables are published; `None`: nowhere.
fn copy_config(config: &Config) -> Option<RestConfig> {
    let credential = config.copy_credential.as_ref();
    let credential = credential.and_then(|secret| secret.reveal().split_once(':'));
    let access = match (&config.copy_token, credential) {
        (Some(token), _) => Access::Token(token.reveal().to_owned()),
        (None, Some((id, secret))) => Access::Credential {
            id: id.to_owned(),
            secret: secret.to_owned(),
            server: config.copy_oauth_uri.clone(),
            scope: config.copy_scope.clone(),
        },
        (None, None) => Access::Open,
    };
    Some(RestConfig {
        uri: config.copy_uri.clone()?,
        warehouse: config.copy_warehouse.clone(),
        namespace: config
            .copy_namespace
            .split('.')
            .map(str::to_owned)
            .collect(),
        access,
    })
}

fn compactor_config(config: &Config) -> frazil_compactor::Config {
    frazil_compactor::Config {
        retention_interval: config.retention_check_interval,
        reclaim_interval: config.retention_check_interval.min(Duration::from_secs(60)),
        // It lists the store: an hour, by default.
        sweep_interval: config.retention_check_interval * 12,
        grace: config.collector_grace,
        producer_expiration: config.producer_id_expiration,
        offsets_retention: config.offsets_retention,
        broker_defaults: config.broker_settings(),
    }
}

fn freeze_config(config: &Config, location: String) -> frazil_compactor::FreezeConfig {
    frazil_compactor::FreezeConfig {
        jobs: config.compactor_jobs as usize,
        memory: config.compactor_memory_bytes as usize,
        ..frazil_compactor::FreezeConfig::new(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_unasked_breaks_the_node_however_it_ends() {
        async fn end(how: &'static str) -> Result<(), &'static str> {
            match how {
                "panic" => panic!("as the test wants it"),
                "error" => Err("as the test wants it"),
                _ => Ok(()),
            }
        }
        for (how, expected) in [
            ("panic", "it: panicked"),
            ("error", "it: as the test wants it"),
            ("end", "it: ended by itself"),
        ] {
            let broken = Broken(tokio::sync::watch::Sender::new(None));
            let part = Part::supervised("it", &broken, |_| end(how));
            part.task.await.unwrap();
            assert_eq!(broken.0.borrow().as_deref(), Some(expected));
        }
        let broken = Broken(tokio::sync::watch::Sender::new(None));
        let part = Part::supervised("it", &broken, |stop| async move {
            stop.cancelled().await;
            end("end").await
        });
        part.stop().await;
        assert_eq!(*broken.0.borrow(), None);
    }
}
