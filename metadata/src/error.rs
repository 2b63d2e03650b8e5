//! What can go wrong in the control plane, apart from what the ports answer.

use std::io;

/// Why a voter or an observer could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("metadata configuration: {0}")]
    Config(String),
    /// Reading or writing the data directory failed.
    #[error("metadata storage: {0}")]
    Storage(#[source] io::Error),
    /// The data directory belongs to something else, or has lost a part.
    #[error("metadata directory: {0}")]
    Directory(String),
    /// What is archived cannot be used.
    #[error("metadata archive: {0}")]
    Archive(String),
    /// Raft has stopped, or never started.
    #[error("raft: {0}")]
    Raft(String),
    /// The quorum will not do what was asked.
    #[error("{0}")]
    Refused(String),
    /// The quorum did not answer in time.
    #[error("metadata quorum: {0}")]
    Unavailable(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Storage(error)
    }
}

/// Bytes from disk or from a peer are not what they must be.
#[derive(Debug, thiserror::Error)]
#[error("corrupt: {0}")]
pub(crate) struct Corrupt(String);

impl Corrupt {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<Corrupt> for io::Error {
    fn from(corrupt: Corrupt) -> Self {
        Self::new(io::ErrorKind::InvalidData, corrupt)
    }
}
