//! The events of a history, and its file format.
//!
//! A history file is JSON lines, one [`Event`] each, in any order. Numbers that every event has are
//! short; a record is `[offset, value, timestamp]`.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

/// A point in time on the recorder's clock: a counter, or nanoseconds.
pub type Time = u64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);
    };
}

number!(
    /// One client: something whose operations follow each other.
    Client
);
number!(
    /// One creation of a topic; the same name created again is another number.
    Topic
);
number!(
    /// A consumer group.
    Group
);
number!(
    /// A gateway, or one life of it.
    Gateway
);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// One partition of one topic.
    pub const fn new(topic: Topic, partition: i32) -> Self {
        Self { topic, partition }
    }
}

/// The identity that an idempotent producer gives a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Producer {
    /// The producer's id. A harness that cannot see it gives every producer a number of its own.
    pub id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// How many records this producer sent to this partition before: the sequence of the first
    /// record, counted on past its wrap. A harness that cannot see it counts.
    pub sequence: i64,
}

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, without aborted records.
    ReadCommitted,
}

/// What ListOffsets is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum List {
    /// The log start.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first offset whose timestamp is at or after this one, in milliseconds.
    Timestamp(i64),
}

/// A record as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, u64, i64)", into = "(i64, u64, i64)")]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its value. Bytes that no producer can have sent are mapped to any number that none sent.
    pub value: u64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
}

impl From<(i64, u64, i64)> for Record {
    fn from((offset, value, timestamp): (i64, u64, i64)) -> Self {
        Self {
            offset,
            value,
            timestamp,
        }
    }
}

impl From<Record> for (i64, u64, i64) {
    fn from(record: Record) -> Self {
        (record.offset, record.value, record.timestamp)
    }
}

/// What a client asked. Each names the [`Answer`] that an `Ok` carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Creates a topic → [`Answer::Done`].
    CreateTopic {
        /// The number of this creation.
        topic: Topic,
        /// The name under which clients address it.
        name: String,
        /// Whether the log start may move without a DeleteRecords.
        retention: bool,
        /// Whether offsets may be without a record: compacted, or written in transactions.
        gaps: bool,
    },
    /// Deletes a topic → [`Answer::Done`].
    DeleteTopic {
        /// The topic.
        topic: Topic,
    },
    /// Asks which topic has a name → [`Answer::Topic`].
    Metadata {
        /// The name.
        name: String,
        /// Who answers.
        gateway: Gateway,
    },
    /// Changes a setting of a topic → [`Answer::Done`].
    AlterConfig {
        /// The topic.
        topic: Topic,
        /// The setting.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Asks for a setting of a topic → [`Answer::Config`].
    DescribeConfig {
        /// The topic.
        topic: Topic,
        /// The setting.
        key: String,
        /// Who answers.
        gateway: Gateway,
    },
    /// Moves the log start → [`Answer::Done`].
    DeleteRecords {
        /// The partition.
        at: TopicPartition,
        /// The new log start; -1 is the high watermark.
        before: i64,
    },
    /// Asks for a producer id → [`Answer::ProducerId`].
    InitProducer,
    /// Appends one batch → [`Answer::Offset`], the first record's.
    Produce {
        /// The partition.
        at: TopicPartition,
        /// The values of the batch's records, in order.
        values: Vec<u64>,
        /// Who sends, if idempotent.
        producer: Option<Producer>,
        /// The acks asked for; with 0 an `Ok` means nothing and is to be recorded as `Info`.
        acks: i16,
        /// Whether the client may have sent the batch more than once within this event.
        resends: bool,
    },
    /// Reads → [`Answer::Records`] or [`Answer::OutOfRange`].
    Fetch {
        /// The partition.
        at: TopicPartition,
        /// The first offset wanted.
        from: i64,
        /// What may be seen.
        isolation: Isolation,
        /// Who answers.
        gateway: Gateway,
    },
    /// Asks for an offset → [`Answer::Position`].
    ListOffsets {
        /// The partition.
        at: TopicPartition,
        /// Which one.
        list: List,
        /// Who answers.
        gateway: Gateway,
    },
    /// A consumer is given partitions → [`Answer::Assignment`]. From the request to join (or, where
    /// a harness cannot see it, the last poll before) until the assignment is known.
    Join {
        /// The group.
        group: Group,
    },
    /// A consumer gives partitions up → [`Answer::Done`].
    Revoke {
        /// The group.
        group: Group,
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// A member of a group is given the next records of one partition → [`Answer::Polled`].
    Poll {
        /// The group.
        group: Group,
        /// The partition.
        at: TopicPartition,
    },
    /// Commits a position → [`Answer::Done`].
    OffsetCommit {
        /// The group.
        group: Group,
        /// The generation named; `None` if unknown, or committed from outside the group.
        generation: Option<i32>,
        /// The partition.
        at: TopicPartition,
        /// The next offset to be read.
        offset: i64,
    },
    /// Asks for a committed position → [`Answer::Position`].
    OffsetFetch {
        /// The group.
        group: Group,
        /// The partition.
        at: TopicPartition,
        /// Who answers.
        gateway: Gateway,
    },
    /// Offsets have become cold: they are in a table's files from here on → [`Answer::Done`]. What
    /// was asked before may have been answered from either.
    Frozen {
        /// The partition.
        at: TopicPartition,
        /// One past the last of them.
        end: i64,
    },
    /// Reads all rows that one snapshot of a topic's table has of a partition → [`Answer::Rows`].
    Scan {
        /// The partition.
        at: TopicPartition,
        /// The snapshot's place among those of the table.
        sequence: i64,
    },
    /// The faults are over. What is fetched from here on is the final sweep → [`Answer::Done`].
    Healed,
}

impl Op {
    /// The same operation, if somebody answers it by name, through another gateway.
    pub const fn through(mut self, other: Gateway) -> Self {
        match &mut self {
            Self::Metadata { gateway, .. }
            | Self::DescribeConfig { gateway, .. }
            | Self::Fetch { gateway, .. }
            | Self::ListOffsets { gateway, .. }
            | Self::OffsetFetch { gateway, .. } => *gateway = other,
            _ => {}
        }
        self
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The offset of the batch's first record.
    Offset(i64),
    /// Records, and the bounds that came with them.
    Records {
        /// In the order received, without those before the offset asked for.
        records: Vec<Record>,
        /// The high watermark.
        high_watermark: i64,
        /// The log start, if told.
        log_start: Option<i64>,
        /// The last stable offset, if told.
        last_stable: Option<i64>,
    },
    /// OFFSET_OUT_OF_RANGE.
    OutOfRange,
    /// Records handed to a member of a group, in order; at least one.
    Polled(Vec<Record>),
    /// An offset; `None` if there is none.
    Position(Option<i64>),
    /// What a member of a group has been given.
    Assignment {
        /// The generation, if the harness can see it.
        generation: Option<i32>,
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// The topic that has the name, if any.
    Topic(Option<Topic>),
    /// The setting, if the topic has it.
    Config(Option<String>),
    /// A new producer.
    ProducerId(i64),
    /// Rows of a table, in the order in which its files have them.
    Rows(Vec<Record>),
}

/// How an operation ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It happened.
    Ok(Answer),
    /// It did not happen and never will; Kafka's error code, or 0.
    Fail(i16),
    /// It may have happened, or may still happen; Kafka's error code, or 0 for a timeout or a lost
    /// connection.
    Info(i16),
}

impl Outcome {
    /// What Kafka's error code, received for the only attempt of an operation, says about it.
    pub const fn error(code: i16) -> Self {
        match code {
            // UNKNOWN_SERVER_ERROR, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
            // REQUEST_TIMED_OUT, NETWORK_EXCEPTION, COORDINATOR_*, NOT_COORDINATOR,
            // NOT_ENOUGH_REPLICAS_AFTER_APPEND, DUPLICATE_SEQUENCE_NUMBER, KAFKA_STORAGE_ERROR.
            -1 | 5 | 6 | 7 | 13 | 14 | 15 | 16 | 20 | 46 | 56 => Self::Info(code),
            _ => Self::Fail(code),
        }
    }

    /// The answer, if it happened.
    pub const fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Ok(answer) => Some(answer),
            Self::Fail(_) | Self::Info(_) => None,
        }
    }
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who asked.
    #[serde(rename = "c")]
    pub client: Client,
    /// Before the request was sent.
    #[serde(rename = "i")]
    pub invoke: Time,
    /// After the outcome was known; not before `invoke`.
    #[serde(rename = "r")]
    pub ret: Time,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    #[serde(rename = "out")]
    pub outcome: Outcome,
}

/// What clients asked and were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In any order; a [`crate::Violation`] names them by index.
    pub events: Vec<Event>,
}

/// The text is not a history.
#[derive(Debug, thiserror::Error)]
pub enum NotAHistory {
    /// It could not be read.
    #[error("cannot read the history: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not an event.
    #[error("line {line} is not an event: {source}")]
    Event {
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl History {
    /// Writes one event per line.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> std::io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    ///
    /// If a line cannot be read or is not an event.
    pub fn read(from: impl BufRead) -> Result<Self, NotAHistory> {
        let mut events = Vec::new();
        for (index, line) in from.lines().enumerate() {
            let event = serde_json::from_str(&line?).map_err(|source| NotAHistory::Event {
                line: index + 1,
                source,
            })?;
            events.push(event);
        }
        Ok(Self { events })
    }
}
