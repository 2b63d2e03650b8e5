//! Frazil's shared language: the types and ports through which the other crates meet.
//!
//! | Kafka's term | type | invariant |
//! |---|---|---|
//! | topic id | [`TopicId`] | never reused; a recreated topic has a new one |
//! | topic name | [`TopicName`] | 1-249 characters of `[a-zA-Z0-9._-]`, not `.` or `..` |
//! | partition | [`TopicPartition`] | topic id and index, never a name |
//! | offset | [`Offset`] | assigned once, by the metadata state machine, in log order |
//! | high watermark | [`ports::Bounds`] | log start ≤ last stable ≤ high watermark, each monotone |
//! | record batch | [`batch`] | magic 2; CRC-32C over everything but base offset, length, epoch |
//! | broker | [`BrokerId`], [`BrokerEpoch`] | an epoch is used by one registration only |
//! | producer id | [`ProducerId`] | never reused |
//!
//! | storage's term | type | invariant |
//! |---|---|---|
//! | segment | [`SegmentId`], [`segment`] | immutable object, named before the first PUT |
//! | extent | [`Extent`] | contiguous offsets of one partition at one [`Location`] |
//! | manifest | [`cold::NodeRef`] | which row group holds which cold offsets of one partition |
//!
//! Invariant: this crate does no I/O, knows no runtime, and imports no other member.

pub mod batch;
pub mod cold;
pub mod env;
pub mod error;
pub mod extent;
pub mod frame;
pub mod group;
pub mod ids;
pub mod offset;
pub mod ports;
pub mod sabotage;
pub mod segment;
pub mod topic;
pub mod topic_config;

pub use error::{PortError, PortResult};
pub use extent::{Extent, Location};
pub use ids::{
    BrokerEpoch, BrokerId, ProducerEpoch, ProducerId, SegmentId, TopicId, TopicPartition,
};
pub use offset::{LEADER_EPOCH, Offset};
pub use topic::{Topic, TopicName};
pub use topic_config::{Durability, TopicConfig};
