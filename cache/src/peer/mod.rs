//! Other gateways: what they have is asked of them.
//!
//! ```text
//!  reader ─► Peers ─► Link ═══ TCP ═══ Server ─┬─► tail: write-ahead log, newest segments
//!                                             └─► blocks: cache, object store
//! ```
//!
//! Who they are and where is the metadata's knowledge ([`Gateways`]), looked up at every question,
//! so that a gateway that moved is found at once. One that was down when it was asked is *suspect*
//! for a while and not asked meanwhile, so that it costs its waiting time once. Suspicion ends with
//! a new registration.
//!
//! Nothing depends on an answer: whoever gets none looks into the newest index, or asks the store.

pub(crate) mod client;
mod owner;
pub(crate) mod server;
pub(crate) mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use frazil_core::ports::{Gateway, Gateways};
use frazil_core::{BrokerEpoch, BrokerId, SegmentId};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info};

pub use self::server::Server;
pub use self::wire::{PROLOGUE, is_ours};

use self::client::{CallError, Link, Us};
use self::wire::{PAYLOAD_MAX, Reply, Request};
use crate::metrics::Metrics;
use crate::net::Dial;
use crate::read::hedge::Hedge;

/// How long bytes of another gateway's log are waited for.
const WAL_PATIENCE: Duration = Duration::from_secs(3);
/// Parts of one extent that are asked for at once.
const WAL_PARTS: usize = 4;
/// The longest extent that is asked for.
const WAL_EXTENT_MAX: u32 = 64 << 20;
/// How long a block is waited for, including its fetch by the other gateway.
const BLOCK_PATIENCE: Duration = Duration::from_secs(12);
/// When the store is asked too: not before this, and at the latest after that.
const HEDGE_FLOOR: Duration = Duration::from_millis(100);
const HEDGE_CAP: Duration = Duration::from_secs(1);
/// How long a gateway that was down is not asked.
const SUSPICION: Duration = Duration::from_secs(10);

/// Where a gateway finds the others.
#[derive(Clone)]
pub struct Neighbours {
    /// Who they are.
    pub gateways: Arc<dyn Gateways>,
    /// This gateway's zone, if it has one.
    pub zone: Option<String>,
    /// How they are reached.
    pub dial: Arc<dyn Dial>,
}

/// Why another gateway's bytes could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerError {
    /// It says that it does not have them.
    NotHere,
    /// It is unknown, down or slow, or it could not get them either.
    Failed(String),
}

/// See the module.
pub(crate) struct Peers {
    us: Us,
    neighbours: Neighbours,
    links: Mutex<HashMap<BrokerId, Arc<Link>>>,
    suspects: Mutex<HashMap<(BrokerId, BrokerEpoch), Instant>>,
    hedge: Mutex<Hedge>,
    metrics: Metrics,
}

impl Peers {
    pub(crate) fn new(us: Us, neighbours: Neighbours, metrics: Metrics) -> Self {
        Self {
            us,
            neighbours,
            links: Mutex::default(),
            suspects: Mutex::default(),
            hedge: Mutex::new(Hedge::new(HEDGE_FLOOR, HEDGE_CAP)),
            metrics,
        }
    }

    /// Bytes of the write-ahead log that `broker` has. They are not checked.
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub(crate) async fn wal(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        start: u64,
        length: u32,
    ) -> Result<Bytes, PeerError> {
        if length > WAL_EXTENT_MAX {
            return Err(PeerError::Failed(format!("an extent of {length} bytes")));
        }
        let all = self.neighbours.gateways.gateways();
        let Some(gateway) = all.into_iter().find(|gateway| gateway.id == broker) else {
            return Err(PeerError::Failed(format!("broker {broker} is gone")));
        };
        let deadline = Instant::now() + WAL_PATIENCE;
        let part = |at: u32| {
            let gateway = &gateway;
            async move {
                let length = (length - at).min(PAYLOAD_MAX as u32);
                let request = Request::Wal {
                    epoch,
                    start: start + u64::from(at),
                    length,
                };
                let (bytes, _) = self.ask(gateway, &request, deadline).await?;
                if bytes.len() != length as usize {
                    let what = format!("{} bytes instead of {length}", bytes.len());
                    return Err(PeerError::Failed(what));
                }
                Ok(bytes)
            }
        };
        let parts = stream::iter((0..length).step_by(PAYLOAD_MAX).map(part));
        let mut parts = parts.buffered(WAL_PARTS);
        let first = parts.try_next().await?.unwrap_or_default();
        let bytes = if first.len() == length as usize {
            first
        } else {
            let mut joined = BytesMut::from(&first[..]);
            while let Some(part) = parts.try_next().await? {
                joined.extend_from_slice(&part);
            }
            joined.freeze()
        };
        self.metrics.peer_wal_reads.inc();
        Ok(bytes)
    }

    /// The other gateway of the zone that fetches a stripe; `None`: this one does.
    pub(crate) fn owner(&self, id: SegmentId, stripe: u32) -> Option<Gateway> {
        let us = self.us.broker;
        let mut all = self.neighbours.gateways.gateways();
        all.retain(|gateway| {
            gateway.live
                && gateway.zone == self.neighbours.zone
                && (gateway.id == us || !gateway.address.is_empty() && !self.is_suspect(gateway))
        });
        let owner = owner::owner(all.iter().map(|gateway| gateway.id), id, stripe);
        let owner = owner.filter(|owner| *owner != us)?;
        all.into_iter().find(|gateway| gateway.id == owner)
    }

    /// A block of a segment, from its owner. It is not checked.
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub(crate) async fn block(
        &self,
        owner: &Gateway,
        id: SegmentId,
        block: u32,
        scan: bool,
    ) -> Result<Bytes, PeerError> {
        let began = Instant::now();
        let request = Request::Block { id, block, scan };
        let (bytes, fetched) = self.ask(owner, &request, began + BLOCK_PATIENCE).await?;
        if fetched {
            let mut hedge = self.hedge.lock();
            hedge.begin();
            hedge.record(began.elapsed());
        }
        Ok(bytes)
    }

    /// How long to wait for a block before the store is asked too.
    pub(crate) fn patience(&self) -> Duration {
        self.hedge.lock().delay()
    }

    /// Whether the store may be asked too.
    pub(crate) fn may_hedge(&self) -> bool {
        self.hedge.lock().spend()
    }

    async fn ask(
        &self,
        gateway: &Gateway,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Bytes, bool), PeerError> {
        if gateway.address.is_empty() || self.is_suspect(gateway) {
            return Err(PeerError::Failed(format!(
                "broker {} cannot be reached",
                gateway.id
            )));
        }
        let error = match self.link(gateway).call(request, deadline).await {
            Ok((Reply::Bytes(bytes), works)) => {
                self.metrics.peer_bytes.inc_by(bytes.len() as u64);
                return Ok((bytes, works));
            }
            Ok((Reply::NotHere, _)) => return Err(PeerError::NotHere),
            Ok((Reply::Failed(reason), _)) => reason,
            Ok((Reply::Working, _)) => "it is still at work".to_owned(),
            Err(CallError::Slow) => CallError::Slow.to_string(),
            Err(CallError::Down(reason)) => {
                self.suspect(gateway, &reason);
                reason
            }
        };
        self.metrics.peer_failures.inc();
        debug!(broker = %gateway.id, %error, "another gateway did not answer");
        Err(PeerError::Failed(error))
    }

    fn link(&self, gateway: &Gateway) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&gateway.id)
            && link.address() == gateway.address
        {
            return Arc::clone(link);
        }
        let known = self.neighbours.gateways.gateways();
        links.retain(|id, _| known.iter().any(|gateway| gateway.id == *id));
        let link = Arc::new(Link::new(
            self.us.clone(),
            gateway.id,
            gateway.address.clone(),
            Arc::clone(&self.neighbours.dial),
        ));
        links.insert(gateway.id, Arc::clone(&link));
        link
    }

    fn is_suspect(&self, gateway: &Gateway) -> bool {
        let suspects = self.suspects.lock();
        let since = suspects.get(&(gateway.id, gateway.epoch));
        since.is_some_and(|since| since.elapsed() < SUSPICION)
    }

    fn suspect(&self, gateway: &Gateway, reason: &str) {
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, since| since.elapsed() < SUSPICION);
        let key = (gateway.id, gateway.epoch);
        if suspects.insert(key, Instant::now()).is_none() {
            info!(broker = %gateway.id, address = gateway.address, reason, "another gateway is down");
        }
    }
}
