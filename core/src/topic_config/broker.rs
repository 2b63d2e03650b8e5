//! The table of broker settings that DescribeConfigs reports.
//!
//! Those that stand for a topic setting come from the topics' table. The others are what clients
//! and consoles are known to look at, with Kafka's defaults. A gateway reports its own values
//! instead where it has some.

use std::sync::LazyLock;

use super::table::TOPIC_CONFIGS;
use super::value::{ConfigType, Kind};

/// A setting of a broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfigKey {
    /// Kafka's name, or Frazil's.
    pub name: &'static str,
    /// What values it can have.
    pub kind: Kind,
    /// Its value if nobody sets it; `None`: it has none.
    pub default: Option<&'static str>,
    /// Whether it can be altered while the broker runs: those that stand for a topic setting.
    pub dynamic: bool,
    /// What it means, for people.
    pub doc: &'static str,
}

impl BrokerConfigKey {
    /// Its type as clients see it.
    pub fn config_type(&self) -> ConfigType {
        self.kind.config_type()
    }
}

/// A setting of that name.
pub fn broker_config(name: &str) -> Option<&'static BrokerConfigKey> {
    let found = BROKER_CONFIGS.binary_search_by(|key| key.name.cmp(name));
    found.ok().map(|index| &BROKER_CONFIGS[index])
}

/// All settings, by name.
pub static BROKER_CONFIGS: LazyLock<Vec<BrokerConfigKey>> = LazyLock::new(|| {
    let mut keys = STATIC.to_vec();
    for topic in TOPIC_CONFIGS {
        for (i, synonym) in topic.synonyms.iter().enumerate() {
            // Of several, the coarsest unit has the default, as in Kafka.
            let last = i + 1 == topic.synonyms.len();
            let default = match synonym.name {
                "log.retention.hours" | "log.roll.hours" => "168",
                "log.roll.jitter.hours" => "0",
                _ => topic.default,
            };
            keys.push(BrokerConfigKey {
                name: synonym.name,
                kind: match topic.kind {
                    _ if topic.synonyms.len() == 1 => topic.kind,
                    _ if i == 0 => topic.kind,
                    _ => Kind::Int(-1, i32::MAX),
                },
                default: last.then_some(default),
                dynamic: true,
                doc: topic.doc,
            });
        }
    }
    keys.sort_by_key(|key| key.name);
    keys
});

const fn fixed(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> BrokerConfigKey {
    BrokerConfigKey {
        name,
        kind,
        default: Some(default),
        dynamic: false,
        doc,
    }
}

const INT: Kind = Kind::Int(0, i32::MAX);

const STATIC: &[BrokerConfigKey] = &[
    BrokerConfigKey {
        name: "advertised.listeners",
        kind: Kind::Text,
        default: None,
        dynamic: false,
        doc: "The addresses that clients are told to connect to.",
    },
    fixed(
        "authorizer.class.name",
        Kind::Text,
        "",
        "What decides about access; empty: everybody may do everything.",
    ),
    fixed(
        "auto.create.topics.enable",
        Kind::Boolean,
        "true",
        "Whether asking for a topic that does not exist creates it.",
    ),
    fixed(
        "auto.leader.rebalance.enable",
        Kind::Boolean,
        "true",
        "Whether leadership returns to preferred brokers. It is always computed.",
    ),
    fixed(
        "broker.id",
        Kind::Int(-1, i32::MAX),
        "-1",
        "The broker's id.",
    ),
    BrokerConfigKey {
        name: "broker.rack",
        kind: Kind::Text,
        default: None,
        dynamic: false,
        doc: "The zone that the broker runs in.",
    },
    fixed(
        "connections.max.idle.ms",
        Kind::Long(-1),
        "600000",
        "Milliseconds after which an idle connection is closed.",
    ),
    fixed(
        "default.replication.factor",
        INT,
        "1",
        "What a new topic reports as its replication factor.",
    ),
    fixed(
        "delete.topic.enable",
        Kind::Boolean,
        "true",
        "Whether topics can be deleted.",
    ),
    fixed(
        "fetch.max.bytes",
        INT,
        "57671680",
        "The longest answer to a fetch.",
    ),
    fixed(
        "group.initial.rebalance.delay.ms",
        INT,
        "3000",
        "How long an empty group waits for more members before its first rebalance.",
    ),
    fixed(
        "group.max.session.timeout.ms",
        INT,
        "1800000",
        "The longest session timeout that a group member may ask for.",
    ),
    fixed(
        "group.max.size",
        INT,
        "2147483647",
        "How many members a group may have.",
    ),
    fixed(
        "group.min.session.timeout.ms",
        INT,
        "6000",
        "The shortest session timeout that a group member may ask for.",
    ),
    // Consoles read it to learn what the cluster can do.
    fixed(
        "inter.broker.protocol.version",
        Kind::Text,
        "4.1",
        "The version of Kafka whose protocol is spoken.",
    ),
    BrokerConfigKey {
        name: "listeners",
        kind: Kind::Text,
        default: None,
        dynamic: false,
        doc: "The addresses that the broker listens on.",
    },
    fixed(
        "max.connections",
        INT,
        "2147483647",
        "How many connections the broker accepts.",
    ),
    fixed(
        "num.partitions",
        Kind::Int(1, i32::MAX),
        "1",
        "How many partitions a topic gets whose creator does not say.",
    ),
    fixed(
        "offset.metadata.max.bytes",
        INT,
        "4096",
        "The longest note with a committed offset.",
    ),
    fixed(
        "offsets.retention.minutes",
        Kind::Int(1, i32::MAX),
        "10080",
        "How long the committed offsets of an empty group are kept.",
    ),
    fixed(
        "socket.request.max.bytes",
        Kind::Int(1, i32::MAX),
        "104857600",
        "The longest request.",
    ),
    fixed(
        "transactional.id.expiration.ms",
        Kind::Int(1, i32::MAX),
        "604800000",
        "How long an idle transactional id is remembered.",
    ),
];
