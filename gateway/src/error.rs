//! The one place that knows Kafka's error codes: what every crate can refuse or fail with, and
//! what clients are told.
//!
//! Rules. What may have happened is answered as ambiguous (`REQUEST_TIMED_OUT`, or on a
//! coordinator the retriable coordinator errors), never as a definite failure. What did not
//! happen but may be tried again gets a retriable code. `UNKNOWN_SERVER_ERROR` is never answered:
//! it is fatal for many clients.

use frazil_cache::{AppendError, ReadError};
use frazil_core::PortError;
use frazil_core::batch::{BatchError, BatchErrorKind};
use frazil_core::ports::{BatchRefusal, CatalogRefusal};
use frazil_core::topic::NotATopicName;
use frazil_core::topic_config::ConfigError;
pub use kafka_protocol::error::ResponseError as Code;

use crate::group::GroupError;

/// The code of success.
pub const NONE: i16 = 0;

/// A command or barrier on behalf of a data path request (Produce, Fetch, ListOffsets) failed.
pub fn data_path(error: &PortError) -> Code {
    match error {
        PortError::Unavailable(_) => Code::LeaderNotAvailable,
        PortError::Indeterminate(_) => Code::RequestTimedOut,
        PortError::Fenced(_) => Code::NotLeaderOrFollower,
        PortError::Impossible(_) => Code::UnknownServerError,
    }
}

/// A command or barrier on behalf of a group or transaction coordinator failed.
pub fn coordinator(error: &PortError) -> Code {
    match error {
        PortError::Unavailable(_) | PortError::Indeterminate(_) => Code::CoordinatorNotAvailable,
        PortError::Fenced(_) => Code::NotCoordinator,
        PortError::Impossible(_) => Code::UnknownServerError,
    }
}

/// A producer id could not be had. Whatever became of the command, another id costs nothing.
pub fn producer_id(error: &PortError) -> Code {
    match error {
        // The code at which the Java producer just asks again; at the other coordinator errors it
        // looks for the coordinator of a transactional id that it does not have.
        PortError::Unavailable(_) | PortError::Indeterminate(_) | PortError::Fenced(_) => {
            Code::CoordinatorLoadInProgress
        }
        PortError::Impossible(_) => Code::UnknownServerError,
    }
}

/// A command on behalf of an admin request failed.
pub fn admin(error: &PortError) -> Code {
    match error {
        PortError::Unavailable(_) | PortError::Indeterminate(_) => Code::RequestTimedOut,
        PortError::Fenced(_) => Code::NotController,
        PortError::Impossible(_) => Code::UnknownServerError,
    }
}

/// The catalog refused.
pub fn catalog(refusal: &CatalogRefusal) -> Code {
    match refusal {
        CatalogRefusal::UnknownTopic => Code::UnknownTopicOrPartition,
        CatalogRefusal::TopicExists => Code::TopicAlreadyExists,
        CatalogRefusal::NameCollision(_) => Code::InvalidTopicException,
        CatalogRefusal::PartitionCount(_) => Code::InvalidPartitions,
        CatalogRefusal::OffsetOutOfRange => Code::OffsetOutOfRange,
    }
}

/// A group's coordinator refused.
pub(crate) fn group(error: &GroupError) -> Code {
    match error {
        GroupError::InvalidGroupId => Code::InvalidGroupId,
        GroupError::InvalidSessionTimeout => Code::InvalidSessionTimeout,
        GroupError::UnknownMember => Code::UnknownMemberId,
        GroupError::IllegalGeneration => Code::IllegalGeneration,
        GroupError::RebalanceInProgress => Code::RebalanceInProgress,
        GroupError::InconsistentProtocol => Code::InconsistentGroupProtocol,
        GroupError::MemberIdRequired(_) => Code::MemberIdRequired,
        GroupError::FencedInstance => Code::FencedInstanceId,
        GroupError::GroupFull => Code::GroupMaxSizeReached,
        GroupError::NotCoordinator => Code::NotCoordinator,
        GroupError::Unavailable => Code::CoordinatorNotAvailable,
        GroupError::Impossible => Code::UnknownServerError,
        GroupError::NotEmpty => Code::NonEmptyGroup,
        GroupError::UnknownGroup => Code::GroupIdNotFound,
    }
}

/// The state machine refused a batch.
pub fn batch_refusal(refusal: BatchRefusal) -> Code {
    match refusal {
        BatchRefusal::UnknownPartition => Code::UnknownTopicOrPartition,
        BatchRefusal::OutOfOrderSequence => Code::OutOfOrderSequenceNumber,
        BatchRefusal::InvalidProducerEpoch => Code::InvalidProducerEpoch,
        // The segment was given up while its commit was under way: nothing was appended, and
        // another attempt goes into another segment. Not NOT_LEADER: the batch was staged.
        BatchRefusal::SealedSegment => Code::NotEnoughReplicas,
    }
}

/// An append was not acknowledged.
pub fn append(error: &AppendError) -> Code {
    match error {
        AppendError::Refused(refusal) => batch_refusal(*refusal),
        // It was staged, so not NOT_LEADER; but it did not happen, and may be tried again.
        AppendError::Unavailable(_) => Code::NotEnoughReplicas,
        AppendError::Indeterminate(_) => Code::RequestTimedOut,
        // This gateway can append nothing any more: the client shall look for another one.
        AppendError::Fenced(_) => Code::NotLeaderOrFollower,
    }
}

/// Records cannot be read, for Fetch or ListOffsets.
pub fn read(error: &ReadError) -> Code {
    match error {
        ReadError::UnknownPartition(_) => Code::UnknownTopicOrPartition,
        // They will be in the store in a moment.
        ReadError::ElsewhereInWal { .. } => Code::LeaderNotAvailable,
        // Of the retriable codes the one that every client knows in a Fetch response: at
        // LEADER_NOT_AVAILABLE or REQUEST_TIMED_OUT there the Java consumer dies.
        ReadError::NotFound { .. }
        | ReadError::Corrupt { .. }
        | ReadError::Store(_)
        | ReadError::Metadata(_) => Code::KafkaStorageError,
    }
}

/// A batch is not acceptable.
pub fn batch(error: &BatchError) -> Code {
    match error.kind() {
        BatchErrorKind::Corrupt => Code::CorruptMessage,
        BatchErrorKind::InvalidRecord => Code::InvalidRecord,
        BatchErrorKind::TooLarge => Code::MessageTooLarge,
        BatchErrorKind::UnsupportedCodec => Code::UnsupportedCompressionType,
        BatchErrorKind::InvalidTimestamp => Code::InvalidTimestamp,
        // See `api::find_coordinator` for why this code.
        BatchErrorKind::Transactional => Code::TransactionalIdAuthorizationFailed,
    }
}

/// A name is not a topic name.
pub fn topic_name(error: &NotATopicName) -> Code {
    match error {
        NotATopicName::Empty
        | NotATopicName::Dots(_)
        | NotATopicName::TooLong(_)
        | NotATopicName::Characters(_) => Code::InvalidTopicException,
    }
}

/// A setting was refused.
pub fn config(error: &ConfigError) -> Code {
    match error {
        ConfigError::Unknown { .. } | ConfigError::Invalid { .. } | ConfigError::Conflict(_) => {
            Code::InvalidConfig
        }
    }
}

/// A code with the reason in words, for the responses that have room for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Explained {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Of an admin command or its barrier.
impl From<&PortError> for Explained {
    fn from(error: &PortError) -> Self {
        Self::new(admin(error), error.to_string())
    }
}

/// Of an admin command.
impl From<PortError> for Explained {
    fn from(error: PortError) -> Self {
        Self::from(&error)
    }
}

impl From<CatalogRefusal> for Explained {
    fn from(refusal: CatalogRefusal) -> Self {
        Self::new(catalog(&refusal), refusal.to_string())
    }
}

impl From<ConfigError> for Explained {
    fn from(error: ConfigError) -> Self {
        Self::new(config(&error), error.to_string())
    }
}
