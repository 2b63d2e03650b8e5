//! The settings of topics as the data path needs them: resolved once, not for every batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use frazil_core::ports::Catalog;
use frazil_core::topic_config::TopicConfig;
use frazil_core::{BrokerId, Topic, TopicId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a change of the brokers' settings may go unnoticed. A change of the topic's own is
/// noticed at once, since the topic is then another value.
const RESOLVED_FOR: Duration = Duration::from_secs(1);
/// Topics that are remembered; all are forgotten when there are more, as deleted ones are among
/// them.
const TOPICS_MAX: usize = 50_000;

/// Resolved settings by topic.
pub(crate) struct TopicConfigs {
    /// What the broker was started with.
    started_with: BTreeMap<String, String>,
    resolved: Mutex<HashMap<TopicId, Resolved>>,
}

struct Resolved {
    /// The value they were resolved from. Holding it keeps its address from being used again.
    topic: Arc<Topic>,
    config: Arc<TopicConfig>,
    at: Instant,
}

impl TopicConfigs {
    /// Of a broker that was started with these settings.
    pub(crate) fn new(started_with: BTreeMap<String, String>) -> Self {
        Self {
            started_with,
            resolved: Mutex::default(),
        }
    }

    /// The settings of a topic, given those of the brokers and of this one.
    pub(crate) fn of(
        &self,
        topic: &Arc<Topic>,
        catalog: &dyn Catalog,
        broker: BrokerId,
    ) -> Arc<TopicConfig> {
        let now = Instant::now();
        let mut resolved = self.resolved.lock();
        if let Some(known) = resolved.get(&topic.id)
            && Arc::ptr_eq(&known.topic, topic)
            && now.duration_since(known.at) < RESOLVED_FOR
        {
            return Arc::clone(&known.config);
        }
        let mut brokers = self.started_with.clone();
        brokers.extend(catalog.broker_config(None));
        brokers.extend(catalog.broker_config(Some(broker)));
        let config = Arc::new(TopicConfig::resolve(&topic.config, &brokers));
        if resolved.len() >= TOPICS_MAX {
            resolved.clear();
        }
        let entry = Resolved {
            topic: Arc::clone(topic),
            config: Arc::clone(&config),
            at: now,
        };
        resolved.insert(topic.id, entry);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn largest(world: &World, configs: &TopicConfigs) -> u32 {
        let topic = world.topic("t").expect("the topic");
        configs.of(&topic, world, BrokerId(1)).max_message_bytes
    }

    fn set_topic(world: &World, bytes: &str) {
        let mut state = world.state.lock();
        let topic = Arc::make_mut(state.topics.get_mut("t").expect("the topic"));
        topic
            .config
            .insert("max.message.bytes".into(), bytes.into());
    }

    fn set_broker(world: &World, broker: Option<BrokerId>, bytes: &str) {
        let mut state = world.state.lock();
        let config = state.broker_config.entry(broker).or_default();
        config.insert("message.max.bytes".into(), bytes.into());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_the_topic_count_at_once_and_those_of_brokers_soon() {
        let world = World::new();
        world.add_topic("t", 1);
        let configs = TopicConfigs::new(BTreeMap::new());
        assert_eq!(largest(&world, &configs), 1_048_588);
        set_broker(&world, None, "5000");
        assert_eq!(largest(&world, &configs), 1_048_588);
        tokio::time::advance(RESOLVED_FOR).await;
        assert_eq!(largest(&world, &configs), 5000);
        set_broker(&world, Some(BrokerId(1)), "6000");
        set_broker(&world, Some(BrokerId(2)), "7000");
        tokio::time::advance(RESOLVED_FOR).await;
        assert_eq!(largest(&world, &configs), 6000);
        set_topic(&world, "3000");
        assert_eq!(largest(&world, &configs), 3000);
    }
}
