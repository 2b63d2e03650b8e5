//! What the catalog asks of the quorum's image.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use frazil_core::ports::{Catalog, LogIndex, Table, Tables};
use frazil_core::{PortResult, Topic, TopicId};

/// The part of the ports that the catalog needs.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The cluster's id.
    fn cluster_id(&self) -> String;
    /// A topic by name.
    fn topic(&self, name: &str) -> Option<Arc<Topic>>;
    /// All topics, by name.
    fn topics(&self) -> Vec<Arc<Topic>>;
    /// The settings of all brokers that were changed while they ran.
    fn broker_config(&self) -> BTreeMap<String, String>;
    /// A topic's table; `None`: there is no such topic.
    fn table(&self, topic: TopicId) -> Option<Table>;
    /// Waits until the image contains everything acknowledged before this call.
    ///
    /// # Errors
    /// The quorum does not answer.
    ///
    /// # Cancel safety
    /// May be dropped.
    async fn barrier(&self) -> PortResult<()>;
}

#[async_trait]
impl<T: Catalog + LogIndex + Tables> Source for T {
    fn cluster_id(&self) -> String {
        Catalog::cluster_id(self)
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        Catalog::topic(self, name)
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        Catalog::topics(self)
    }

    fn broker_config(&self) -> BTreeMap<String, String> {
        Catalog::broker_config(self, None)
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        Tables::table(self, topic)
    }

    async fn barrier(&self) -> PortResult<()> {
        LogIndex::barrier(self).await
    }
}
