//! The table of topic settings. Source: Kafka 4's documentation, "Topic Configs".

use super::value::{ConfigType, Kind};

/// A setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigKey {
    /// Kafka's name, or Frazil's.
    pub name: &'static str,
    /// What values it can have.
    pub kind: Kind,
    /// Its value if nobody sets it.
    pub default: &'static str,
    /// The broker settings that stand for it where the topic does not set it, first match first.
    pub synonyms: &'static [Synonym],
    /// Whether it does anything.
    pub effect: Effect,
    /// What it means, for people.
    pub doc: &'static str,
}

impl TopicConfigKey {
    /// Its type as clients see it.
    pub fn config_type(&self) -> ConfigType {
        self.kind.config_type()
    }
}

/// Whether a setting does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is obeyed.
    Obeyed,
    /// It is kept and reported, and means nothing without broker-local files.
    Kept,
}

/// A broker setting that stands for a topic setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker's name for it.
    pub name: &'static str,
    /// How many of the topic setting's units make one of this; 0: no number.
    factor: i64,
}

impl Synonym {
    const fn new(name: &'static str) -> Self {
        Self { name, factor: 0 }
    }

    const fn times(name: &'static str, factor: i64) -> Self {
        Self { name, factor }
    }

    /// The broker's value in the topic setting's unit. Negative numbers have no unit.
    pub fn convert(&self, value: &str) -> Option<String> {
        if self.factor == 0 {
            return Some(value.to_owned());
        }
        let number: i64 = value.trim().parse().ok()?;
        let number = if number < 0 {
            number
        } else {
            number.saturating_mul(self.factor)
        };
        Some(number.to_string())
    }
}

/// A setting of that name.
pub fn topic_config(name: &str) -> Option<&'static TopicConfigKey> {
    let found = TOPIC_CONFIGS.binary_search_by(|key| key.name.cmp(name));
    found.ok().map(|index| &TOPIC_CONFIGS[index])
}

const MAX: &str = "9223372036854775807";
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

macro_rules! keys {
    ($($name:literal $kind:expr, $default:expr, [$($synonym:expr),*], $effect:ident, $doc:literal;)*) => {
        &[$(TopicConfigKey {
            name: $name,
            kind: $kind,
            default: $default,
            synonyms: &[$($synonym),*],
            effect: Effect::$effect,
            doc: $doc,
        }),*]
    };
}

/// All settings, by name.
pub const TOPIC_CONFIGS: &[TopicConfigKey] = keys! {
    "cleanup.policy" Kind::Choices(&["compact", "delete"]), "delete",
        [Synonym::new("log.cleanup.policy")], Obeyed,
        "What may be removed. With delete, records beyond the retention limits. With compact alone, \
         nothing at all: every record is kept, which includes the latest of each key, and records \
         need keys. With both, retention applies and records need keys.";
    "compression.gzip.level" Kind::Int(-1, 9), "-1",
        [Synonym::new("compression.gzip.level")], Kept,
        "The level of gzip. Kept, not used: Frazil compresses at the codec's default level.";
    "compression.lz4.level" Kind::Int(1, 17), "9",
        [Synonym::new("compression.lz4.level")], Kept,
        "The level of lz4. Kept, not used: Frazil compresses at the codec's default level.";
    "compression.type"
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer",
        [Synonym::new("compression.type")], Obeyed,
        "How batches are stored: as the producer compressed them (producer), or in one given way, \
         in which case batches of another codec are compressed again by the broker.";
    "compression.zstd.level" Kind::Int(-131_072, 22), "3",
        [Synonym::new("compression.zstd.level")], Kept,
        "The level of zstd. Kept, not used: Frazil compresses at the codec's default level.";
    "delete.retention.ms" Kind::Long(0), "86400000",
        [Synonym::new("log.cleaner.delete.retention.ms")], Kept,
        "How long tombstones of compacted topics stay at least. Kept, not used: they stay.";
    "file.delete.delay.ms" Kind::Long(0), "60000",
        [Synonym::new("log.segment.delete.delay.ms")], Kept,
        "The delay before a file is deleted. Kept, not used: there are no such files.";
    "flush.messages" Kind::Long(1), MAX,
        [Synonym::new("log.flush.interval.messages")], Kept,
        "How many messages to write between syncs. Kept, not used: an acknowledged record is \
         durable as frazil.durability says.";
    "flush.ms" Kind::Long(0), MAX,
        [Synonym::new("log.flush.interval.ms")], Kept,
        "How long to wait between syncs. Kept, not used: an acknowledged record is durable as \
         frazil.durability says.";
    "follower.replication.throttled.replicas" Kind::Replicas, "", [], Kept,
        "Followers whose replication is throttled. Kept, not used: brokers do not replicate.";
    "frazil.durability" Kind::Choice(&["object", "local"]), "object",
        [Synonym::new("frazil.durability")], Obeyed,
        "When a produce request with acks=all is acknowledged. object: when its records are in the \
         object store, so that they survive the loss of every broker. local: when they are synced \
         to the disk of the broker that received them, which is faster and survives a restart of \
         that broker with its disk, but not the loss of the disk before the next upload.";
    "frazil.table.freshness.ms" Kind::Long(0), "60000",
        [Synonym::new("frazil.table.freshness.ms")], Obeyed,
        "How long a record stays out of the topic's table at most, if the compactor keeps up. Each \
         conversion makes files, so small values make small ones, to be merged later.";
    "frazil.table.mode" Kind::Choice(&["shared", "copy", "off"]), "shared",
        [Synonym::new("frazil.table.mode")], Obeyed,
        "What becomes of cold records. shared: they move into the files of the topic's table, which \
         consumers and table engines read both. copy: the same, and the table is also published in \
         another catalog. off: no more records become part of the table; those that did stay.";
    "frazil.table.partition.by" Kind::Choice(&["none", "hour", "day", "month", "year"]), "day",
        [Synonym::new("frazil.table.partition.by")], Obeyed,
        "By which part of the record's time the table's files are partitioned. A change applies to \
         files that are written later.";
    "frazil.table.retention.ms" Kind::Long(-2), "-2",
        [Synonym::new("frazil.table.retention.ms")], Obeyed,
        "How long records stay in the table: milliseconds, -1 for ever, or -2 as long as in the \
         log. Records that have left the log can stay in the table and the other way round.";
    "frazil.table.snapshot.retention.ms" Kind::Long(0), "3600000",
        [Synonym::new("frazil.table.snapshot.retention.ms")], Obeyed,
        "How long a snapshot of the table can be read after a newer one has replaced it. At most \
         500 are kept.";
    "index.interval.bytes" Kind::Int(0, i32::MAX), "4096",
        [Synonym::new("log.index.interval.bytes")], Kept,
        "The distance of entries in the offset index. Kept, not used.";
    "leader.replication.throttled.replicas" Kind::Replicas, "", [], Kept,
        "Leaders whose replication is throttled. Kept, not used: brokers do not replicate.";
    "local.retention.bytes" Kind::Long(-2), "-2",
        [Synonym::new("log.local.retention.bytes")], Kept,
        "How much tiered storage keeps on local disks. Kept, not used: the object store is the \
         only storage.";
    "local.retention.ms" Kind::Long(-2), "-2",
        [Synonym::new("log.local.retention.ms")], Kept,
        "How long tiered storage keeps records on local disks. Kept, not used: the object store is \
         the only storage.";
    "max.compaction.lag.ms" Kind::Long(1), MAX,
        [Synonym::new("log.cleaner.max.compaction.lag.ms")], Kept,
        "How long a record may stay before compaction considers it. Kept, not used.";
    "max.message.bytes" Kind::Int(0, i32::MAX), "1048588",
        [Synonym::new("message.max.bytes")], Obeyed,
        "The longest record batch, compressed. Values above 50331648 (48 MiB) count as that.";
    "message.timestamp.after.max.ms" Kind::Long(0), "3600000",
        [Synonym::new("log.message.timestamp.after.max.ms")], Obeyed,
        "How far a record's timestamp may lie ahead of the broker's clock, if the timestamps are \
         the producer's.";
    "message.timestamp.before.max.ms" Kind::Long(0), MAX,
        [Synonym::new("log.message.timestamp.before.max.ms")], Obeyed,
        "How far a record's timestamp may lie behind the broker's clock, if the timestamps are the \
         producer's.";
    "message.timestamp.type" Kind::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime",
        [Synonym::new("log.message.timestamp.type")], Obeyed,
        "Whether a record's timestamp is the producer's, or the broker's at append.";
    "min.cleanable.dirty.ratio" Kind::Double(0.0, 1.0), "0.5",
        [Synonym::new("log.cleaner.min.cleanable.ratio")], Kept,
        "The share of records not yet compacted that starts a compaction. Kept, not used.";
    "min.compaction.lag.ms" Kind::Long(0), "0",
        [Synonym::new("log.cleaner.min.compaction.lag.ms")], Kept,
        "How long a record stays at least before compaction. Kept, not used: it stays.";
    "min.insync.replicas" Kind::Int(1, i32::MAX), "1",
        [Synonym::new("min.insync.replicas")], Kept,
        "How many replicas must have a record. Kept, not used: the object store replicates.";
    "preallocate" Kind::Boolean, "false",
        [Synonym::new("log.preallocate")], Kept,
        "Whether to reserve space for log files. Kept, not used: there are no such files.";
    "remote.log.copy.disable" Kind::Boolean, "false", [], Kept,
        "Whether tiered storage stops copying. Kept, not used: the object store is the only \
         storage.";
    "remote.log.delete.on.disable" Kind::Boolean, "false", [], Kept,
        "Whether disabling tiered storage deletes what it holds. Kept, not used.";
    "remote.storage.enable"
        Kind::OnlyFalse(
            "there is no tiered storage to enable: every topic is in the object store"
        ),
        "false", [], Kept,
        "Kafka's tiered storage. Always false: every topic is in the object store.";
    "retention.bytes" Kind::Long(-1), "-1",
        [Synonym::new("log.retention.bytes")], Obeyed,
        "Bytes per partition beyond which the oldest records may be removed; -1: no limit. Needs \
         the cleanup policy delete.";
    "retention.ms" Kind::Long(-1), "604800000",
        [
            Synonym::new("log.retention.ms"),
            Synonym::times("log.retention.minutes", MINUTE),
            Synonym::times("log.retention.hours", HOUR)
        ], Obeyed,
        "Milliseconds after which records may be removed; -1: never. Needs the cleanup policy \
         delete.";
    "segment.bytes" Kind::Int(14, i32::MAX), "1073741824",
        [Synonym::new("log.segment.bytes")], Kept,
        "The size of log files. Kept, not used: records of many topics share an object.";
    "segment.index.bytes" Kind::Int(4, i32::MAX), "10485760",
        [Synonym::new("log.index.size.max.bytes")], Kept,
        "The size of offset indexes. Kept, not used.";
    "segment.jitter.ms" Kind::Long(0), "0",
        [
            Synonym::new("log.roll.jitter.ms"),
            Synonym::times("log.roll.jitter.hours", HOUR)
        ], Kept,
        "The random part of segment.ms. Kept, not used.";
    "segment.ms" Kind::Long(1), "604800000",
        [
            Synonym::new("log.roll.ms"),
            Synonym::times("log.roll.hours", HOUR)
        ], Kept,
        "How long a log file is written to. Kept, not used: records of many topics share an object.";
    "unclean.leader.election.enable" Kind::Boolean, "false",
        [Synonym::new("unclean.leader.election.enable")], Kept,
        "Whether a replica that lacks records may lead. Kept, not used: none lacks any.";
};
