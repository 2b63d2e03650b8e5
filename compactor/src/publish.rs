//! Publishes tables in another Iceberg catalog: `frazil.table.mode = copy`.
//!
//! ```text
//! pointer (image) ─► metadata (store) ─┐
//!                                      ├─► plan ─► one commit, if the other table is as was read
//! other catalog's table ───────────────┘
//! ```
//!
//! What is copied is the knowledge of which files make a snapshot; the files stay where they are.
//! The publisher looks at the image every few seconds and compares each table's pointer with the one
//! it published last. So nothing has to be told to it, and nothing is lost when it ends: the next
//! publisher asks the other catalog what it has.
//!
//! Invariant: publishing holds up nothing. It runs beside the log and the conversion, and what fails
//! is tried again, later each time.
//!
//! Invariant: what the other catalog has and this cluster did not write is never changed. A table of
//! the same name with another uuid, or with a newest snapshot of somebody else's, is left alone and
//! reported.
//!
//! Invariant: a commit names what it was made for: the table's uuid and its newest snapshot. Of two
//! publishers one is refused, and so is a repetition of a commit whose answer was lost.
//!
//! # A crash
//! anywhere leaves the other catalog with an older snapshot or the newest one.
//!
//! Source: Apache Iceberg, REST catalog specification, `updateTable`.

mod external;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::ports::{Catalog, TablePointer, Tables};
use frazil_core::topic_config::{TableMode, TopicConfig};
use frazil_core::{Topic, TopicId};
use frazil_objects::Retries;
use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::external::{External, ExternalError};

use self::plan::Plan;
use crate::Metrics;
use crate::bucket::Bucket;

/// How long one table may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a table that could not be published rests at most.
const REST_MAX: Duration = Duration::from_secs(60);

/// What the publisher asks of the quorum's image.
pub trait Image: Send + Sync + 'static {
    /// All topics.
    fn topics(&self) -> Vec<Arc<Topic>>;
    /// The settings of all brokers that were changed while they ran.
    fn broker_config(&self) -> BTreeMap<String, String>;
    /// Which object is a topic's table; `None`: there is none yet.
    fn pointer(&self, topic: TopicId) -> Option<TablePointer>;
}

impl<T: Catalog + Tables> Image for T {
    fn topics(&self) -> Vec<Arc<Topic>> {
        Catalog::topics(self)
    }

    fn broker_config(&self) -> BTreeMap<String, String> {
        Catalog::broker_config(self, None)
    }

    fn pointer(&self, topic: TopicId) -> Option<TablePointer> {
        self.table(topic)?.pointer
    }
}

/// What the publisher needs of the node.
pub struct PublishParts {
    /// Topics and their tables.
    pub image: Arc<dyn Image>,
    /// Where the objects are.
    pub store: Arc<dyn ObjectStore>,
    /// The store's retry budget.
    pub retries: Retries,
    /// The cluster's prefix in the store.
    pub prefix: Path,
    /// The settings that topics fall back to, by the brokers' names.
    pub broker_defaults: BTreeMap<String, String>,
    /// How often the image is looked at.
    pub interval: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

/// Publishes the tables of topics whose mode is `copy`.
pub struct Publisher {
    image: Arc<dyn Image>,
    broker_defaults: BTreeMap<String, String>,
    interval: Duration,
    metrics: Metrics,
    bucket: Bucket,
    external: Arc<dyn External>,
    /// What the other catalog has, as far as this process knows.
    published: HashMap<TopicId, ObjectId>,
    resting: HashMap<TopicId, Resting>,
}

/// A table that could not be published.
struct Resting {
    until: Instant,
    last: Duration,
    reason: String,
}

/// Why a table was not published. It will be tried again.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    External(#[from] ExternalError),
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    #[error("object {key}: {what} is wrong")]
    Damaged { key: String, what: &'static str },
    #[error("the table in the other catalog is not this one: {0}")]
    Foreign(&'static str),
    #[error("it takes too long")]
    Late,
}

impl Publisher {
    /// A publisher to `external`.
    pub fn new(parts: PublishParts, external: Arc<dyn External>) -> Self {
        Self {
            image: parts.image,
            broker_defaults: parts.broker_defaults,
            interval: parts.interval,
            metrics: parts.metrics,
            bucket: Bucket::new(parts.store, parts.retries, parts.prefix),
            external,
            published: HashMap::new(),
            resting: HashMap::new(),
        }
    }

    /// Runs until `shutdown`.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    /// Publishes what has changed since the last round.
    async fn round(&mut self) {
        let mut broker = self.broker_defaults.clone();
        broker.extend(self.image.broker_config());
        let topics = self.image.topics();
        let copied = topics
            .iter()
            .filter(|t| TopicConfig::resolve(&t.config, &broker).table.mode == TableMode::Copy)
            .filter_map(|topic| Some((topic, self.image.pointer(topic.id)?)));
        let copied: Vec<(&Arc<Topic>, TablePointer)> = copied.collect();
        let known: HashSet<TopicId> = copied.iter().map(|(topic, _)| topic.id).collect();
        self.published.retain(|topic, _| known.contains(topic));
        self.resting.retain(|topic, _| known.contains(topic));
        let mut behind = 0;
        for (topic, pointer) in copied {
            if self.published.get(&topic.id) == Some(&pointer.metadata) {
                continue;
            }
            let resting = self.resting.get(&topic.id);
            if resting.is_some_and(|resting| Instant::now() < resting.until) {
                behind += 1;
                continue;
            }
            let published = timeout(PATIENCE, self.publish(topic, pointer)).await;
            match published.unwrap_or(Err(PublishError::Late)) {
                Ok(changed) => {
                    if changed {
                        self.metrics.published.inc();
                    }
                    if self.resting.remove(&topic.id).is_some() {
                        info!(topic = %topic.name, "the table is published again");
                    }
                    self.published.insert(topic.id, pointer.metadata);
                }
                Err(error) => {
                    behind += 1;
                    self.metrics.publish_failures.inc();
                    self.rest(topic, &error);
                }
            }
        }
        self.metrics.unpublished.set(behind);
    }

    /// Leaves a table alone for a while, and says why unless it has been said.
    fn rest(&mut self, topic: &Topic, error: &PublishError) {
        let reason = error.to_string();
        let before = self.resting.get(&topic.id);
        if before.is_none_or(|before| before.reason != reason) {
            warn!(topic = %topic.name, reason, "the table is not published; it will be tried again");
        }
        let last = before.map_or(self.interval, |before| before.last * 2);
        let last = last.min(REST_MAX);
        let resting = Resting {
            until: Instant::now() + last,
            last,
            reason,
        };
        self.resting.insert(topic.id, resting);
    }

    /// Brings one table to where its pointer is; answers whether anything had to be changed.
    async fn publish(&self, topic: &Topic, pointer: TablePointer) -> Result<bool, PublishError> {
        let ours = self.metadata(topic.id, pointer).await?;
        let name = topic.name.as_str();
        let theirs = self.external.load(name).await?;
        let body = match plan::plan(&ours, theirs.as_ref()) {
            Plan::Done => return Ok(false),
            Plan::Foreign(reason) => return Err(PublishError::Foreign(reason)),
            Plan::Create(body) => {
                self.external.create_namespace().await?;
                body
            }
            Plan::Update(body) => body,
        };
        let committed = self.external.commit(name, &body).await?;
        // A catalog that numbers specs by itself could give ours other numbers than the files have.
        plan::same_numbers(&ours, &committed).map_err(PublishError::Foreign)?;
        Ok(true)
    }

    /// The object that a pointer names, checked.
    async fn metadata(&self, topic: TopicId, pointer: TablePointer) -> Result<Value, PublishError> {
        let object = TableObject::Metadata(pointer.metadata);
        // If it is missing, it has perhaps been replaced: the next round sees by what.
        let bytes = self.bucket.get(&self.bucket.table(topic, object)).await?;
        let damaged = |what| PublishError::Damaged {
            key: object.key(topic),
            what,
        };
        if bytes.len() != pointer.length as usize {
            return Err(damaged("its length"));
        }
        if crc32c::crc32c(&bytes) != pointer.crc {
            return Err(damaged("its checksum"));
        }
        serde_json::from_slice(&bytes).map_err(|_| damaged("its content"))
    }
}
