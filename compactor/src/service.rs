//! Runs the chores, each at its interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::Topic;
use frazil_core::ports::{Catalog, Ledger, Tables};
use frazil_core::topic_config::TopicConfig;
use frazil_objects::Retries;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::bucket::Bucket;
use crate::freeze::collect::{self, Orphans};
use crate::freeze::{Ctx, FreezeConfig, Freezer};
use crate::retention::Limits;
use crate::{Config, Error, Metrics, reclaim, retention, sweep};

/// The cold path's task.
pub struct Service {
    config: Config,
    ledger: Arc<dyn Ledger>,
    catalog: Arc<dyn Catalog>,
    store: Arc<dyn ObjectStore>,
    retries: Retries,
    prefix: Path,
    metrics: Metrics,
    collector: Option<u64>,
    freezer: Option<Freezer>,
    tables: Option<Arc<Ctx>>,
    orphans: Orphans,
}

impl Service {
    /// `prefix` is the cluster's in the store.
    pub fn new(
        config: Config,
        ledger: Arc<dyn Ledger>,
        catalog: Arc<dyn Catalog>,
        store: Arc<dyn ObjectStore>,
        retries: Retries,
        prefix: Path,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            ledger,
            catalog,
            store,
            retries,
            prefix,
            metrics,
            collector: None,
            freezer: None,
            tables: None,
            orphans: Orphans::default(),
        }
    }

    /// Has it convert topics into tables too. `holder` is drawn for this process.
    pub fn with_tables(
        mut self,
        config: FreezeConfig,
        tables: Arc<dyn Tables>,
        holder: Uuid,
    ) -> Self {
        let (store, retries) = (Arc::clone(&self.store), self.retries.clone());
        let ctx = Ctx {
            config,
            bucket: Bucket::new(store, retries, self.prefix.clone()),
            ledger: Arc::clone(&self.ledger),
            tables,
            metrics: self.metrics.clone(),
            holder,
        };
        let (catalog, defaults) = (Arc::clone(&self.catalog), &self.config.broker_defaults);
        let ctx = Arc::new(ctx);
        self.tables = Some(Arc::clone(&ctx));
        self.freezer = Some(Freezer::new(ctx, catalog, defaults.clone()));
        self
    }

    /// Runs until `shutdown`. A failed round is logged and tried again at its next turn.
    ///
    /// # Cancel safety
    /// May be dropped at any point: every chore is safe to stop anywhere.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let freezer = self.freezer.take();
        let freezing = async {
            match freezer {
                Some(freezer) => freezer.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.chores(shutdown) => {}
            () = freezing => {}
        }
    }

    async fn chores(mut self, shutdown: CancellationToken) {
        let (reclaim, sweep) = (self.config.reclaim_interval, self.config.sweep_interval);
        let mut retention = ticks(
            self.config.retention_interval,
            self.config.retention_interval,
        );
        // The first search comes soon: a process that is started afresh more often than it
        // searches would otherwise never do.
        let mut sweep = ticks(reclaim.min(sweep), sweep);
        let mut reclaim = ticks(reclaim, reclaim);
        loop {
            let chore = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = retention.tick() => Chore::Retention,
                _ = reclaim.tick() => Chore::Reclaim,
                _ = sweep.tick() => Chore::Sweep,
            };
            let done = tokio::select! {
                () = shutdown.cancelled() => return,
                done = self.perform(chore) => done,
            };
            match done {
                Ok(0) => debug!(?chore, "nothing to do"),
                Ok(count) => info!(?chore, count, "done"),
                Err(error) => {
                    self.metrics.failures.inc();
                    warn!(?chore, %error, "will be tried again");
                }
            }
        }
    }

    async fn perform(&mut self, chore: Chore) -> Result<u64, Error> {
        match chore {
            Chore::Retention => {
                let mut broker = self.config.broker_defaults.clone();
                broker.extend(self.catalog.broker_config(None));
                let limits = |topic: &Topic| limits(topic, &broker);
                let tables = self.tables.as_deref();
                let expired =
                    retention::round(&*self.ledger, limits, tables, &self.metrics).await?;
                let now_ms = self.ledger.now_ms();
                self.ledger
                    .expire(
                        now_ms.saturating_sub(millis(self.config.producer_expiration)),
                        now_ms.saturating_sub(millis(self.config.offsets_retention)),
                    )
                    .await?;
                Ok(expired)
            }
            Chore::Reclaim => {
                let tables = self.tables.as_deref();
                let nothing = tables.is_none_or(|ctx| {
                    ctx.tables.retired_objects(1).is_empty() && ctx.tables.dead_tables().is_empty()
                });
                if nothing && self.ledger.retired_segments(1).is_empty() {
                    return Ok(0);
                }
                let collector = match self.collector {
                    Some(collector) => collector,
                    None => *self.collector.insert(self.ledger.claim_collector().await?),
                };
                let gone = self.reclaim(collector).await?;
                if gone.is_none() {
                    info!("another process has become the collector");
                    self.collector = None;
                }
                Ok(gone.unwrap_or(0))
            }
            Chore::Sweep => {
                let (store, retries, metrics) = (&*self.store, &self.retries, &self.metrics);
                let segments =
                    sweep::round(&*self.ledger, store, retries, &self.prefix, metrics).await?;
                let objects = match self.tables.clone() {
                    Some(ctx) if ctx.tables.enabled() => {
                        self.orphans.round(&ctx, self.config.grace).await?
                    }
                    _ => 0,
                };
                Ok(segments + objects)
            }
        }
    }

    /// Deletes what is retired. `None`: another process has become the collector.
    async fn reclaim(&self, collector: u64) -> Result<Option<u64>, Error> {
        let (store, prefix, grace) = (&*self.store, &self.prefix, self.config.grace);
        let (ledger, retries, metrics) = (&*self.ledger, &self.retries, &self.metrics);
        let round = reclaim::round(ledger, store, retries, prefix, grace, collector, metrics);
        let Some(mut total) = round.await? else {
            return Ok(None);
        };
        if let Some(ctx) = &self.tables {
            let Some(objects) = collect::retired(ctx, grace, collector).await? else {
                return Ok(None);
            };
            let Some(dead) = collect::dead(ctx, grace, collector).await? else {
                return Ok(None);
            };
            total += objects + dead;
        }
        Ok(Some(total))
    }
}

#[derive(Clone, Copy, Debug)]
enum Chore {
    Retention,
    Reclaim,
    Sweep,
}

fn ticks(first: Duration, every: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What retention may take from a topic. One that is only compacted keeps everything.
fn limits(topic: &Topic, broker: &BTreeMap<String, String>) -> Limits {
    let config = TopicConfig::resolve(&topic.config, broker);
    if !config.delete {
        return Limits::default();
    }
    Limits {
        age_ms: config.retention_ms,
        bytes: config.retention_bytes.map(i64::unsigned_abs),
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::{TopicId, TopicName};

    use super::*;

    #[test]
    fn a_topic_that_is_only_compacted_keeps_everything() {
        let with = |settings: &[(&str, &str)]| {
            let config = settings
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect();
            let topic = Topic {
                id: TopicId::new(uuid::Uuid::nil()),
                name: TopicName::new("t").expect("a name"),
                partitions: 1,
                replication_factor: 1,
                config,
                created_ms: 0,
            };
            let broker = BTreeMap::from([("log.retention.bytes".to_owned(), "77".to_owned())]);
            limits(&topic, &broker)
        };
        let week = Some(7 * 24 * 3600 * 1000);
        assert_eq!(
            with(&[]),
            Limits {
                age_ms: week,
                bytes: Some(77)
            }
        );
        assert_eq!(
            with(&[("retention.ms", "-1"), ("retention.bytes", "5")]).age_ms,
            None
        );
        assert_eq!(with(&[("retention.bytes", "5")]).bytes, Some(5));
        assert_eq!(with(&[("cleanup.policy", "compact")]), Limits::default());
        assert_eq!(with(&[("cleanup.policy", "compact,delete")]).age_ms, week);
    }
}
