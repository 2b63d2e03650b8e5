//! The Iceberg REST catalog: through it, table engines find the topics.
//!
//! ```text
//! GET /iceberg/v1/… ─► route ─► barrier ─► topics, pointers (image) ─► metadata object (cache, store)
//! ```
//!
//! It is for reading. The namespace is `frazil`, a table's name is its topic's, letter for letter. A
//! topic is a table unless `frazil.table.mode` is `off` and nothing of it has been converted; before
//! the first conversion the table is empty, and its metadata, which is then in no object, is made
//! for the answer. A table's uuid is its topic's id, so a topic that is deleted and created again is
//! another table.
//!
//! # What an answer promises
//! Each answer is made of an image that contains everything the quorum had acknowledged when the
//! request arrived ([`Source::barrier`]). So what one node's catalog has shown, every node's shows
//! from then on, and a table never goes back. Without the quorum there is no answer: 503.
//!
//! Metadata is given out byte for byte as the object in the store holds it, after its length and
//! checksum were found to be those the quorum knows. An object that is damaged or missing is an
//! error (500), never an older snapshot.
//!
//! # Limits
//! At most [`REQUESTS`] requests are being answered, at most [`FETCH_BYTES`] of metadata are being
//! fetched, and `catalog.cache.bytes` of it are kept. Bodies of requests are read and dropped, and
//! [`BODY_MAX`] is the most that is read. Every request ends within [`DEADLINE`].
//!
//! Names in requests are compared with topics' names and are never part of a key or path.
//!
//! Source: Apache Iceberg, REST catalog specification (`rest-catalog-open-api.yaml`).

mod answer;
mod error;
mod list;
mod load;
mod metadata;
mod metrics;
pub(crate) mod percent;
mod route;
mod settings;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use axum::response::{IntoResponse as _, Response};
use frazil_core::Topic;
use frazil_core::topic_config::{TableMode, TopicConfig};
use frazil_objects::Retries;
use futures_util::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

pub use self::metrics::Metrics;
pub use self::settings::Readers;
pub use self::source::Source;

use self::error::Refusal;
use self::metadata::Cache;
use self::route::{Query, Resource};

/// The one namespace.
pub const NAMESPACE: &str = "frazil";
/// How many requests are answered at the same time.
pub const REQUESTS: usize = 64;
/// How much metadata may be on its way from the store.
pub const FETCH_BYTES: u32 = 64 << 20;
/// The longest body that is read.
pub const BODY_MAX: usize = 1 << 20;
/// How long a request may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What the catalog needs of the rest of the node.
pub struct Parts {
    /// What the quorum knows.
    pub source: Arc<dyn Source>,
    /// Where the objects are.
    pub store: Arc<dyn ObjectStore>,
    /// The store's retry budget.
    pub retries: Retries,
    /// The cluster's prefix in the store.
    pub prefix: Path,
    /// The same as a URL that readers understand, without a slash at the end.
    pub location: String,
    /// What readers are told about the store.
    pub readers: Readers,
    /// Settings that topics fall back to, by the brokers' names.
    pub broker_defaults: BTreeMap<String, String>,
    /// Memory for metadata.
    pub cache_bytes: usize,
    /// What it counts.
    pub metrics: Metrics,
}

/// The catalog of one cluster.
pub struct Catalog {
    parts: Parts,
    requests: Semaphore,
    cache: Cache,
}

impl Catalog {
    /// A catalog over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self {
            cache: Cache::new(parts.cache_bytes),
            requests: Semaphore::new(REQUESTS),
            parts,
        }
    }

    /// Answers a request whose path is below `/iceberg`.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub async fn answer(&self, request: Request<Body>) -> Response {
        let metrics = &self.parts.metrics;
        metrics.requests.inc();
        let answered = timeout(DEADLINE, self.try_answer(request)).await;
        let late = || Err(Refusal::unavailable("the request has taken too long"));
        match answered.unwrap_or_else(|_| late()) {
            Ok(response) => response,
            Err(refusal) => {
                if refusal.is_ours() {
                    metrics.failures.inc();
                    warn!(%refusal, "the catalog cannot answer");
                } else {
                    metrics.refusals.inc();
                }
                refusal.into_response()
            }
        }
    }

    async fn try_answer(&self, request: Request<Body>) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let resource = Resource::parse(head.uri.path())?;
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        // First, so that a client that is slow to send takes nobody's place.
        drain(body).await?;
        let _permit = self.requests.acquire().await;
        let read = matches!(head.method, Method::GET | Method::HEAD);
        match (&resource, read) {
            (Resource::Config, true) => return self.config(&query),
            (Resource::Token, _) if head.method == Method::POST => {
                return Ok(answer::no_tokens());
            }
            (Resource::Metrics(..), _) if head.method == Method::POST => {}
            (Resource::Config | Resource::Token | Resource::Metrics(..), _)
            | (Resource::Change, true) => return Err(Refusal::method(&head.method)),
            (_, true) => {}
            _ => return Err(Refusal::read_only(&head.method)),
        }
        self.barrier().await?;
        match resource {
            Resource::Namespaces => self.namespaces(&query),
            Resource::Namespace(namespace) => answer::namespace(&namespace, &head.method),
            Resource::Tables(namespace) => self.tables(&namespace, &query),
            Resource::Table(namespace, name) => {
                let topic = self.table(&namespace, &name)?;
                if head.method == Method::HEAD {
                    return Ok(answer::no_content());
                }
                self.load(&topic, &query, &head.headers).await
            }
            Resource::Metrics(namespace, name) => {
                self.table(&namespace, &name)?;
                Ok(answer::no_content())
            }
            Resource::Views(namespace) => answer::views(&namespace),
            Resource::View(namespace, name) => Err(Refusal::no_view(&namespace, &name)),
            Resource::Config | Resource::Token | Resource::Change => {
                Err(Refusal::method(&head.method))
            }
        }
    }

    /// Waits until the image contains what was acknowledged anywhere before this call.
    async fn barrier(&self) -> Result<(), Refusal> {
        const PATIENCE: Duration = Duration::from_secs(10);
        match timeout(PATIENCE, self.parts.source.barrier()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::unavailable(format_args!("the quorum: {error}"))),
            Err(_) => Err(Refusal::unavailable("the quorum does not answer")),
        }
    }

    /// Whether a topic is a table, given the settings that topics fall back to.
    fn is_table(&self, topic: &Topic, broker: &BTreeMap<String, String>) -> bool {
        TopicConfig::resolve(&topic.config, broker).table.mode != TableMode::Off
            || self
                .parts
                .source
                .table(topic.id)
                .is_some_and(|table| table.pointer.is_some())
    }

    fn broker_settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.parts.broker_defaults.clone();
        settings.extend(self.parts.source.broker_config());
        settings
    }

    /// The topic that a request names as a table.
    fn table(&self, namespace: &route::Namespace, name: &str) -> Result<Arc<Topic>, Refusal> {
        let topic = namespace
            .is_ours()
            .then(|| self.parts.source.topic(name))
            .flatten()
            .filter(|topic| self.is_table(topic, &self.broker_settings()));
        // Also if it is the namespace that does not exist: engines ask for a table's metadata tables
        // as if the table were a namespace, and go on only if this is what they hear.
        topic.ok_or_else(|| Refusal::no_table(namespace, name))
    }
}

/// The answer of a node that does not follow the quorum yet.
pub fn not_yet() -> Response {
    Refusal::unavailable("the node is starting").into_response()
}

/// Reads what a client sends, so that it is ready to read the answer, and keeps nothing of it.
async fn drain(body: Body) -> Result<(), Refusal> {
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::bad_request("the body of the request is broken"))?;
        length += chunk.len();
        if length > BODY_MAX {
            return Err(Refusal::too_large());
        }
    }
    Ok(())
}

/// Whether a header, which may be given several times and hold a list, contains `wanted`.
fn header_lists(headers: &HeaderMap, name: &str, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    let mut items = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    items.any(|item| item.trim() == wanted)
}
