//! What a port answers when it could not do what was asked.

/// The result of a call through a port. A *refusal* by the state machine is part of `T`; this
/// error is about the way there.
pub type PortResult<T> = Result<T, PortError>;

/// Why a call through a port failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It did not happen, and may be tried again.
    #[error("the metadata quorum is unavailable: {0}")]
    Unavailable(String),
    /// It may have happened. Only the caller knows whether asking again is safe.
    #[error("the outcome is unknown: {0}")]
    Indeterminate(String),
    /// It did not happen and never will: this node's registration has been superseded.
    #[error("this node's registration is no longer valid: {0}")]
    Fenced(String),
    /// It did not happen and never will, however often it is tried: the quorum does not take such a
    /// command. Only a bug, or a node that is too old or too new, leads to this.
    #[error("the metadata quorum does not take the command: {0}")]
    Impossible(String),
}
