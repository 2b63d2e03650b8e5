//! A catalog that can be written.

use async_trait::async_trait;
use serde_json::Value;

/// Why the other catalog did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalError {
    /// It may have been done.
    #[error("the catalog: {0}")]
    Unknown(String),
    /// It was not done: the table is not as it was when it was read.
    #[error("the table has changed meanwhile: {0}")]
    Conflict(String),
    /// It was not done.
    #[error("the catalog refuses it ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
}

/// Another catalog. Every call ends within a minute or so.
#[async_trait]
pub trait External: Send + Sync + 'static {
    /// A table's metadata; `None`: there is no such table.
    async fn load(&self, table: &str) -> Result<Option<Value>, ExternalError>;
    /// Makes sure that the namespace exists.
    async fn create_namespace(&self) -> Result<(), ExternalError>;
    /// Commits to a table, or makes it: `requirements` and `updates` of the specification's
    /// `updateTable`. Answers its metadata then.
    ///
    /// # Cancel safety
    /// If it is dropped, the commit may be made all the same.
    async fn commit(&self, table: &str, body: &Value) -> Result<Value, ExternalError>;
}
