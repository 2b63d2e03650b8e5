//! The settings of topics, by Kafka's names.
//!
//! [`TOPIC_CONFIGS`] lists every topic setting of Kafka 4 and Frazil's own; clients may set and
//! read all of them. Which ones have an effect is part of the table: a setting that only makes
//! sense for files on a broker's disk is *kept*, so that tools which write and compare whole
//! configurations work, and does nothing. A value that would promise something Frazil does not do
//! is refused.
//!
//! A setting is stored as text, and only where it differs from the default. Its value is the
//! topic's, else that of the first broker setting that stands for it (its synonyms), else the
//! default: [`effective`]. [`TopicConfig`] is the typed view of those that have an effect.
//!
//! Invariant: what [`validate`] accepted once is understood for ever; a stored value that is not
//! understood, by a version that is older than it, counts as the default.

mod broker;
mod freeze;
mod table;
mod value;

pub use broker::{BROKER_CONFIGS, BrokerConfigKey, broker_config};
pub use freeze::{PartitionBy, TableConfig, TableMode, TableRetention};
pub use table::{Effect, Synonym, TOPIC_CONFIGS, TopicConfigKey, topic_config};
pub use value::{ConfigType, Kind};

use std::collections::BTreeMap;

use crate::batch::{Codec, Limits, TimestampType};
use crate::segment::BATCH_MAX;

/// When a produce request with `acks=all` is acknowledged: `frazil.durability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the records are in the object store and committed. Survives the loss of every gateway
    /// and every gateway's disk.
    #[default]
    Object,
    /// When the records are synced to the gateway's disk and committed. Survives a restart of the
    /// gateway with its disk.
    Local,
}

/// Why a setting is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such setting.
    #[error("unknown topic config {name:?}{}", did_you_mean(.nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The setting that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// Not a value that the setting can have.
    #[error("invalid value {value:?} for {name}: {why}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// What was asked for, shortened.
        value: String,
        /// What is expected.
        why: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Conflict(String),
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map_or(String::new(), |name| format!("; did you mean {name:?}?"))
}

/// Where an effective value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's own settings.
    Topic,
    /// The broker's setting of this name.
    Broker(&'static str),
    /// Nobody set it.
    Default,
}

/// Checks one setting of a topic.
pub fn validate(name: &str, value: &str) -> Result<(), ConfigError> {
    let key = topic_config(name).ok_or_else(|| ConfigError::Unknown {
        name: shortened(name),
        nearest: nearest(name),
    })?;
    key.kind.check(value).map_err(|why| ConfigError::Invalid {
        name: key.name,
        value: shortened(value),
        why,
    })
}

/// Checks all settings of a topic, each alone and then together.
pub fn validate_all(topic: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in topic {
        validate(name, value)?;
    }
    let lag = |name| integer(name, topic, &BTreeMap::new());
    let (min, max) = (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms"));
    if min > max {
        return Err(ConfigError::Conflict(format!(
            "min.compaction.lag.ms ({min}) exceeds max.compaction.lag.ms ({max})"
        )));
    }
    Ok(())
}

/// The value of a setting and where it comes from; `None` if there is no such setting.
///
/// `broker` holds what is set on the brokers, by the brokers' names for it.
pub fn effective(
    name: &str,
    topic: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> Option<(String, Source)> {
    let key = topic_config(name)?;
    if let Some(value) = topic.get(name) {
        return Some((value.clone(), Source::Topic));
    }
    for synonym in key.synonyms {
        if let Some(value) = broker.get(synonym.name)
            && let Some(value) = synonym.convert(value)
        {
            return Some((value, Source::Broker(synonym.name)));
        }
    }
    Some((key.default.to_owned(), Source::Default))
}

/// The settings of a topic that have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Milliseconds after which records may be deleted, counted from the largest timestamp of
    /// their extent. `None`: never; always so without [`Self::delete`].
    pub retention_ms: Option<i64>,
    /// Bytes per partition beyond which the oldest may be deleted. `None`: no limit; always so
    /// without [`Self::delete`].
    pub retention_bytes: Option<i64>,
    /// The longest batch, at most [`BATCH_MAX`].
    pub max_message_bytes: u32,
    /// Who gives timestamps.
    pub timestamp_type: TimestampType,
    /// How far a record's timestamp may lie behind the broker's clock.
    pub timestamp_before_max_ms: i64,
    /// How far it may lie ahead.
    pub timestamp_after_max_ms: i64,
    /// How batches are stored; `None`: as the producer compressed them.
    pub compression: Option<Codec>,
    /// When to acknowledge.
    pub durability: Durability,
    /// Whether only the last record of each key needs to be kept. All are kept at present, but
    /// each record must have a key.
    pub compact: bool,
    /// Whether retention applies.
    pub delete: bool,
    /// How the topic becomes a table.
    pub table: TableConfig,
}

impl TopicConfig {
    /// The settings of a topic, given what is set on it and on the brokers.
    pub fn resolve(topic: &BTreeMap<String, String>, broker: &BTreeMap<String, String>) -> Self {
        let integer = |name| integer(name, topic, broker);
        let text = |name| understood(name, topic, broker);
        let policy = text("cleanup.policy");
        let policy = |wanted| policy.split(',').any(|item| item.trim() == wanted);
        let delete = policy("delete");
        let limited = |value: i64| (delete && value >= 0).then_some(value);
        Self {
            retention_ms: limited(integer("retention.ms")),
            retention_bytes: limited(integer("retention.bytes")),
            max_message_bytes: integer("max.message.bytes").clamp(0, BATCH_MAX as i64) as u32,
            timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: integer("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: integer("message.timestamp.after.max.ms"),
            compression: match text("compression.type").as_str() {
                "uncompressed" => Some(Codec::None),
                "gzip" => Some(Codec::Gzip),
                "snappy" => Some(Codec::Snappy),
                "lz4" => Some(Codec::Lz4),
                "zstd" => Some(Codec::Zstd),
                _ => None,
            },
            durability: match text("frazil.durability").as_str() {
                "local" => Durability::Local,
                _ => Durability::Object,
            },
            compact: policy("compact"),
            delete,
            table: TableConfig::resolve(integer, text),
        }
    }

    /// What [`crate::batch::validate()`] needs to know of the topic, at the broker's time
    /// `now_ms`.
    pub fn limits(&self, now_ms: i64) -> Limits {
        Limits {
            max_message_bytes: self.max_message_bytes,
            now_ms,
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            compression: self.compression,
            compacted: self.compact,
            deep: true,
        }
    }
}

impl Default for TopicConfig {
    /// Nothing is set anywhere.
    fn default() -> Self {
        Self::resolve(&BTreeMap::new(), &BTreeMap::new())
    }
}

/// The effective value, or the default where that is not understood.
fn understood(
    name: &str,
    topic: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> String {
    let key = topic_config(name).expect("the typed view asks for settings of the table");
    effective(name, topic, broker)
        .map(|(value, _)| value)
        .filter(|value| key.kind.check(value).is_ok())
        .unwrap_or_else(|| key.default.to_owned())
}

fn integer(name: &str, topic: &BTreeMap<String, String>, broker: &BTreeMap<String, String>) -> i64 {
    let value = understood(name, topic, broker);
    value
        .trim()
        .parse()
        .expect("a checked integer, or the default of one")
}

/// The known name nearest to one that is not, if it is near.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 100 {
        return None;
    }
    TOPIC_CONFIGS
        .iter()
        .map(|key| (distance(name, key.name), key.name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name)
}

/// How many characters to insert, remove or replace to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
