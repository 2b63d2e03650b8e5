//! What every request handler works with.

use std::net::SocketAddr;
use std::sync::Arc;

use frazil_cache::Cache;
use frazil_core::BrokerId;
use frazil_core::env::{Clock, Ids};
use frazil_core::ports::{Catalog, GroupStore, LogIndex};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::configs;
use crate::drain::Drain;
use crate::frames::Memory;
use crate::group::Groups;
use crate::topic_configs::TopicConfigs;
use crate::zones::Zones;
use crate::{Config, Metrics};

/// What the composition root gives a gateway.
pub struct Parts {
    /// This gateway's id as a broker.
    pub broker: BrokerId,
    /// Where offsets are.
    pub log: Arc<dyn LogIndex>,
    /// Topics, settings, brokers.
    pub catalog: Arc<dyn Catalog>,
    /// What survives a group coordinator.
    pub group_store: Arc<dyn GroupStore>,
    /// Record batches.
    pub cache: Cache,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids.
    pub ids: Arc<dyn Ids>,
}

/// What a gateway is made of; handlers borrow it.
pub struct Ctx {
    /// This gateway's id as a broker.
    pub broker: BrokerId,
    /// Where offsets are.
    pub log: Arc<dyn LogIndex>,
    /// Topics, settings, brokers.
    pub catalog: Arc<dyn Catalog>,
    /// The consumer groups that this gateway coordinates.
    pub groups: Groups,
    /// Record batches.
    pub cache: Cache,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids.
    pub ids: Arc<dyn Ids>,
    /// Settings.
    pub config: Config,
    /// Counters.
    pub metrics: Metrics,
    /// Whether it is leaving.
    pub drain: Drain,
    /// Where clients are.
    pub(crate) zones: Zones,
    /// Settings of topics, resolved.
    pub(crate) topic_configs: TopicConfigs,
    /// Bytes of requests that may be in memory.
    pub(crate) request_memory: Memory,
    /// Bytes of records in Fetch responses that may be in memory.
    pub(crate) fetch_memory: Arc<Semaphore>,
}

impl Ctx {
    /// Puts a gateway together.
    pub fn new(parts: Parts, mut config: Config, metrics: Metrics) -> Self {
        config.broker_settings = configs::deviating(config.broker_settings);
        let groups = Groups::new(
            parts.broker,
            parts.group_store,
            Arc::clone(&parts.catalog),
            Arc::clone(&parts.log),
            Arc::clone(&parts.ids),
            config.groups,
        );
        Self {
            broker: parts.broker,
            log: parts.log,
            catalog: parts.catalog,
            groups,
            cache: parts.cache,
            clock: parts.clock,
            ids: parts.ids,
            metrics,
            drain: Drain::default(),
            zones: Zones::default(),
            topic_configs: TopicConfigs::new(config.broker_settings.clone()),
            request_memory: Memory::new(config.requests_in_flight_bytes_max),
            fetch_memory: Arc::new(Semaphore::new(config.fetches_in_flight_bytes_max)),
            config,
        }
    }

    /// Whether clients are to go to another gateway: this one is leaving, and there is one.
    pub(crate) fn sends_away(&self) -> bool {
        let others = || self.catalog.brokers().iter().any(|b| b.id != self.broker);
        self.drain.has_begun() && others()
    }
}

/// What is known of the connection a request came on.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Cancelled when the gateway drains: what waits for something shall answer now.
    pub drain: CancellationToken,
}

/// A request's header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Which API.
    pub key: ApiKey,
    /// Which version of it; within the range of [`crate::versions`], except for ApiVersions.
    pub version: i16,
    /// Repeated in the response.
    pub correlation_id: i32,
    /// The client's `client.id`.
    pub client_id: Option<StrBytes>,
}
