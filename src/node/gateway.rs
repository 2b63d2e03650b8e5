//! A gateway: the data plane, Kafka's listener, and the registration that keeps both in the cluster.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use frazil_cache::net::{Connections, Tcp};
use frazil_cache::{Cache, Neighbours};
use frazil_core::PortError;
use frazil_core::ports::{Catalog as _, LogIndex as _};
use frazil_gateway::{Ctx, Parts, Server};
use frazil_metadata::{Client, Registration};
use frazil_objects::Retries;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::part::{Broken, Part};
use super::settings::{cache_config, gateway_config};
use crate::config::Config;
use crate::env::{Env, LeavingRoom};
use crate::identity::{self, Identity};
use crate::store::Store;

/// How long a gateway stays in the live set without being heard of. Clients of one that is lost go
/// on when its lease has ended; one that is merely slow loses nothing but them.
const LEASE: Duration = Duration::from_secs(6);
/// How often it is heard of.
const HEARTBEAT: Duration = Duration::from_millis(1500);

pub(super) struct Gateway {
    ctx: Arc<Ctx>,
    server: Part,
    cache: Cache,
    flusher: Part,
    /// Answers other gateways.
    peers: Option<Part>,
    heart: Part,
}

/// What a gateway finds when it starts.
pub(super) struct Around<'a> {
    pub(super) config: &'a Config,
    pub(super) env: &'a Env,
    pub(super) client: &'a Arc<Client>,
    pub(super) store: &'a Store,
    pub(super) retries: &'a Retries,
    /// The cluster's in the store.
    pub(super) prefix: &'a object_store::path::Path,
    pub(super) broken: &'a Broken,
}

impl Gateway {
    /// Registers, recovers the write-ahead log, and serves. `peers` is what other nodes are told,
    /// and where they come in.
    pub(super) async fn start(
        around: Around<'_>,
        listener: TcpListener,
        (peer_address, peers): (String, Option<Connections>),
        metrics: (frazil_cache::Metrics, frazil_gateway::Metrics),
    ) -> Result<Self> {
        let Around {
            config,
            env,
            client,
            store,
            retries,
            prefix,
            broken,
        } = around;
        let advertised = config.advertised(listener.local_addr()?.port());
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
        Ok(Self {
            ctx,
            server,
            cache,
            flusher,
            peers,
            heart,
        })
    }

    /// Sends clients elsewhere, stops taking, answers, flushes, and leaves. The quorum is given
    /// `patience` to note that the gateway is leaving, and clients as much again to find others.
    pub(super) async fn stop(self, client: &Client, patience: Duration) {
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
