//! The configuration of a node.
//!
//! One flat set of keys, declared once in `keys.rs`: a name (Kafka's, where Kafka has the setting),
//! a type, a default, one line of meaning. Everything else follows from that table: the typed
//! [`Config`], the flags of `frazil serve`, the environment variables, and what `frazil config`
//! prints.
//!
//! Where values come from, each stronger than the one before:
//!
//! | source | form of `log.retention.ms` |
//! |---|---|
//! | default | |
//! | file: `--config FILE`, else `./frazil.toml` if it exists | `log.retention.ms = 1`, `"log.retention.ms" = 1`, or in tables |
//! | environment | `FRAZIL_LOG_RETENTION_MS` |
//! | `--set` | `--set log.retention.ms=1` |
//! | flag | `--log-retention-ms 1` |
//!
//! Invariants: a key that does not exist is an error wherever it stands, and so is a value that
//! does not fit; all problems are reported at once, and before anything is written or bound.

mod codec;
mod keys;
mod load;
mod render;
#[cfg(test)]
mod tests;
mod validate;

pub use codec::{
    Address, CatalogCredentials, Durability, LogFormat, PutBudget, Roles, Secret, TableMode, Voter,
};
pub use keys::{Config, KEYS, Key, StoreOptions};
pub use load::{DEFAULT_FILE, Loaded, Source, Sources, load};
pub use render::{to_json, to_toml};

use std::fmt;

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct Error(pub Vec<Problem>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read, or is not TOML.
    #[error("configuration file {path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such key.
    #[error("{key} ({from}): there is no such setting{}", hint(.nearest.as_deref()))]
    Unknown {
        /// The key as it was written.
        key: String,
        /// Where it was written.
        from: Source,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A value does not fit its key.
    #[error("{key} = {value} ({from}): expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value as it was written.
        value: String,
        /// Where it was written.
        from: Source,
        /// What the key takes.
        expected: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; 'frazil config' lists them all".to_owned(),
        |name| format!("; did you mean {name}?"),
    )
}
