//! Settings as clients see them: every known one with its value, where that comes from, and what
//! stands behind it.
//!
//! ```text
//! a topic's setting:  the topic │ this broker, while it runs │ all brokers │ at its start │ default
//! a broker's setting:             this broker, while it runs │ all brokers │ at its start │ default
//! ```
//! The first that is there counts; all of them in order are the setting's synonyms.

use std::collections::BTreeMap;

use frazil_core::topic_config::{
    self, BROKER_CONFIGS, BrokerConfigKey, ConfigType, Source, TOPIC_CONFIGS, TopicConfig,
    TopicConfigKey, broker_config,
};

use crate::Ctx;

/// Set on the topic.
pub(crate) const TOPIC: i8 = 1;
/// Set on this broker while it runs.
pub(crate) const DYNAMIC_BROKER: i8 = 2;
/// Set on all brokers while they run.
pub(crate) const DYNAMIC_DEFAULT_BROKER: i8 = 3;
/// The broker was started with it.
pub(crate) const STATIC_BROKER: i8 = 4;
/// Nobody set it.
pub(crate) const DEFAULT: i8 = 5;

/// A setting with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) value: Option<String>,
    pub(crate) source: i8,
    pub(crate) read_only: bool,
    pub(crate) kind: ConfigType,
    pub(crate) doc: &'static str,
    /// What is set where, first that which counts.
    pub(crate) synonyms: Vec<Synonym>,
}

/// A value that is set somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub(crate) name: &'static str,
    pub(crate) value: Option<String>,
    pub(crate) source: i8,
}

/// What is set on brokers.
pub(crate) struct Brokers {
    own: BTreeMap<String, String>,
    shared: BTreeMap<String, String>,
    started: BTreeMap<String, String>,
    merged: BTreeMap<String, String>,
}

impl Brokers {
    /// What is set for this broker.
    pub(crate) fn of(ctx: &Ctx) -> Self {
        let own = ctx.catalog.broker_config(Some(ctx.broker));
        let shared = ctx.catalog.broker_config(None);
        let mut merged = ctx.config.broker_settings.clone();
        merged.extend(shared.clone());
        merged.extend(own.clone());
        Self {
            own,
            shared,
            started: started_with(ctx),
            merged,
        }
    }

    /// What is set for all brokers while they run.
    pub(crate) fn shared(&self) -> &BTreeMap<String, String> {
        &self.shared
    }

    /// The settings of a topic that have an effect.
    pub(crate) fn resolve(&self, topic: &BTreeMap<String, String>) -> TopicConfig {
        TopicConfig::resolve(topic, &self.merged)
    }

    /// Where a setting is set, first that which counts.
    fn set(&self, name: &'static str) -> impl Iterator<Item = Synonym> {
        let maps = [
            (&self.own, DYNAMIC_BROKER),
            (&self.shared, DYNAMIC_DEFAULT_BROKER),
            (&self.started, STATIC_BROKER),
        ];
        maps.into_iter().filter_map(move |(map, source)| {
            let value = Some(map.get(name)?.clone());
            Some(Synonym {
                name,
                value,
                source,
            })
        })
    }
}

/// Of what a broker was started with, what says anything: a value that is the default anyway does
/// not stand before what is set later in another unit (`log.retention.ms` before
/// `log.retention.hours`).
pub(crate) fn deviating(settings: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_default = |name: &str, value: &str| {
        let of_topic = TOPIC_CONFIGS.iter().any(|key| {
            let synonym = key.synonyms.iter().find(|synonym| synonym.name == name);
            synonym.is_some_and(|s| s.convert(value).as_deref() == Some(key.default))
        });
        of_topic || broker_config(name).is_some_and(|key| key.default == Some(value))
    };
    let mut settings = settings;
    settings.retain(|name, value| !is_default(name, value));
    settings
}

/// All settings of a topic on which `topic` is set.
pub(crate) fn of_topic(topic: &BTreeMap<String, String>, brokers: &Brokers) -> Vec<Entry> {
    let entries = TOPIC_CONFIGS.iter();
    entries
        .map(|key| topic_entry(key, topic, brokers))
        .collect()
}

fn topic_entry(key: &TopicConfigKey, topic: &BTreeMap<String, String>, brokers: &Brokers) -> Entry {
    let own = topic.get(key.name).map(|value| Synonym {
        name: key.name,
        value: Some(value.clone()),
        source: TOPIC,
    });
    let mut synonyms: Vec<_> = own.into_iter().collect();
    for synonym in key.synonyms {
        synonyms.extend(brokers.set(synonym.name));
    }
    // Of the broker's settings for it, the last is the one with a default.
    let (name, default) = key
        .synonyms
        .last()
        .and_then(|synonym| Some((synonym.name, broker_config(synonym.name)?.default?)))
        .unwrap_or((key.name, key.default));
    synonyms.push(Synonym {
        name,
        value: Some(default.to_owned()),
        source: DEFAULT,
    });
    let (value, source) = topic_config::effective(key.name, topic, &brokers.merged)
        .unwrap_or_else(|| (key.default.to_owned(), Source::Default));
    let source = match source {
        Source::Topic => TOPIC,
        Source::Broker(name) => brokers
            .set(name)
            .next()
            .map_or(DEFAULT, |first| first.source),
        Source::Default => DEFAULT,
    };
    Entry {
        name: key.name,
        value: Some(value),
        source,
        read_only: false,
        kind: key.config_type(),
        doc: key.doc,
        synonyms,
    }
}

/// All settings of this broker.
pub(crate) fn of_broker(brokers: &Brokers) -> Vec<Entry> {
    let entry = |key: &BrokerConfigKey| {
        let mut synonyms: Vec<_> = brokers.set(key.name).collect();
        synonyms.extend(key.default.map(|value| Synonym {
            name: key.name,
            value: Some(value.to_owned()),
            source: DEFAULT,
        }));
        let first = synonyms.first();
        Entry {
            name: key.name,
            value: first.and_then(|synonym| synonym.value.clone()),
            source: first.map_or(DEFAULT, |synonym| synonym.source),
            read_only: !key.dynamic,
            kind: key.config_type(),
            doc: key.doc,
            synonyms,
        }
    };
    BROKER_CONFIGS.iter().map(entry).collect()
}

/// The settings that all brokers share and that are set while they run: what a broker resource
/// without a name stands for.
pub(crate) fn of_all_brokers(brokers: &Brokers) -> Vec<Entry> {
    let keys = BROKER_CONFIGS.iter();
    let set = keys.filter_map(|key| {
        let value = brokers.shared.get(key.name)?.clone();
        let synonym = Synonym {
            name: key.name,
            value: Some(value.clone()),
            source: DYNAMIC_DEFAULT_BROKER,
        };
        Some(Entry {
            name: key.name,
            value: Some(value),
            source: DYNAMIC_DEFAULT_BROKER,
            read_only: false,
            kind: key.config_type(),
            doc: key.doc,
            synonyms: vec![synonym],
        })
    });
    set.collect()
}

/// What this gateway was started with, by Kafka's names.
fn started_with(ctx: &Ctx) -> BTreeMap<String, String> {
    let config = &ctx.config;
    let groups = &config.groups;
    let fields = [
        (
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
        ),
        ("broker.id", ctx.broker.to_string()),
        (
            "connections.max.idle.ms",
            config.idle_timeout.as_millis().to_string(),
        ),
        (
            "default.replication.factor",
            config.default_replication_factor.to_string(),
        ),
        ("fetch.max.bytes", config.fetch_bytes_max.to_string()),
        (
            "group.initial.rebalance.delay.ms",
            groups.initial_rebalance_delay.as_millis().to_string(),
        ),
        (
            "group.max.session.timeout.ms",
            groups.session_timeout_max.as_millis().to_string(),
        ),
        ("group.max.size", groups.members_max.to_string()),
        (
            "group.min.session.timeout.ms",
            groups.session_timeout_min.as_millis().to_string(),
        ),
        ("max.connections", config.connections_max.to_string()),
        ("num.partitions", config.num_partitions.to_string()),
        (
            "socket.request.max.bytes",
            config.request_bytes_max.to_string(),
        ),
    ];
    let fields = fields.into_iter();
    let mut own: BTreeMap<_, _> = fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let brokers = ctx.catalog.brokers();
    if let Some(broker) = brokers.into_iter().find(|broker| broker.id == ctx.broker) {
        let address = format!("PLAINTEXT://{}:{}", broker.host, broker.port);
        own.insert("advertised.listeners".to_owned(), address.clone());
        own.insert("listeners".to_owned(), address);
        if let Some(rack) = broker.rack {
            own.insert("broker.rack".to_owned(), rack);
        }
    }
    own.extend(config.broker_settings.clone());
    deviating(own)
}
