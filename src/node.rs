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

mod gateway;
mod part;
mod quorum;
mod settings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use frazil_cache::net::Connections;
use frazil_compactor::publish::{PublishParts, Publisher};
use frazil_core::ports::Catalog as _;
use frazil_metadata::Client;
use frazil_objects::Retries;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::gateway::Gateway;
use self::part::{Broken, Part};
use self::quorum::Quorum;
pub(crate) use self::quorum::{lone_voter, quorum_dir};
use self::settings::{catalog_parts, compactor_config, copy_config, freeze_config};
use crate::archive::StoreArchive;
use crate::catalog::{self, Catalog};
use crate::config::Config;
use crate::env::{DirLock, Env};
use crate::external::Rest;
use crate::host;
use crate::http::{self, CatalogSlot, Readiness};
use crate::peers;
use crate::store::{self, Kind, Store};

/// How long a node that starts waits for the quorum.
const QUORUM_PATIENCE: Duration = Duration::from_secs(120);
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
        let broken = Broken::new();
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

        let mut quorum = Quorum::start(&config, &env, peers.metadata, metadata_metrics).await?;
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
            let around = gateway::Around {
                config: &config,
                env: &env,
                client: &node.client,
                store: &store,
                retries: &retries,
                prefix: &prefix,
                broken: &node.broken,
            };
            let metrics = (cache_metrics, gateway_metrics);
            let started = Gateway::start(around, listener, (peers.address, peers.gateway), metrics);
            node.gateway = Some(started.await?);
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
        tokio::select! {
            reason = self.broken.reported() => anyhow!(reason),
            reason = self.quorum.failed() => anyhow!("the metadata: {reason}"),
        }
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
        self.quorum.stop().await;
        if let Some(sorting) = self.sorting {
            sorting.stop().await;
        }
        self.web.stop().await;
        info!("stopped");
    }
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
