//! Topics as the quorum knows them.

use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Encode};

use crate::TopicId;

/// The longest topic name, in bytes.
pub const TOPIC_NAME_MAX: usize = 249;

/// A valid topic name: 1-249 characters of `[a-zA-Z0-9._-]`, not `.` or `..`.
///
/// It is never part of an object's key or a path: those use [`TopicId`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct TopicName(#[n(0)] Box<str>);

/// The text is not a topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATopicName {
    /// Nothing there.
    #[error("a topic name cannot be empty")]
    Empty,
    /// `.` or `..`.
    #[error("a topic cannot be named {0:?}")]
    Dots(String),
    /// Over [`TOPIC_NAME_MAX`].
    #[error("a topic name has at most {TOPIC_NAME_MAX} characters, not {0}")]
    TooLong(usize),
    /// Something outside `[a-zA-Z0-9._-]`.
    #[error("a topic name consists of ASCII letters and digits, '.', '_' and '-', unlike {0:?}")]
    Characters(String),
}

impl TopicName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, NotATopicName> {
        if name.is_empty() {
            return Err(NotATopicName::Empty);
        }
        if name.len() > TOPIC_NAME_MAX {
            return Err(NotATopicName::TooLong(name.len()));
        }
        if name == "." || name == ".." {
            return Err(NotATopicName::Dots(name.to_owned()));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !name.bytes().all(legal) {
            return Err(NotATopicName::Characters(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `.` replaced by `_`: two topics with the same one would share metric names,
    /// and Kafka refuses to create the second.
    pub fn collision_key(&self) -> String {
        self.0.replace('.', "_")
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'b, C> Decode<'b, C> for TopicName {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topic {
    /// Its id.
    #[n(0)]
    pub id: TopicId,
    /// Its name.
    #[n(1)]
    pub name: TopicName,
    /// How many partitions it has; their indexes are `0 .. partitions`.
    #[n(2)]
    pub partitions: i32,
    /// The replication factor its creator asked for. It is reported, and means nothing here: the
    /// object store replicates.
    #[n(3)]
    pub replication_factor: i16,
    /// Settings that differ from the defaults, by Kafka's names, as text.
    #[n(4)]
    pub config: BTreeMap<String, String>,
    /// The leader's time at creation, milliseconds since the epoch.
    #[n(5)]
    pub created_ms: i64,
}
