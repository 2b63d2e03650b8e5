//! Frazil's protocol edge: connections, one file per Kafka API, group coordinator.
//!
//! ```text
//! socket ─► connection ─► wire::guard ─► dispatch ─► api/<name> ─► ports, cache, group
//! ```
//!
//! - Bytes from a client are walked by `wire` before anything else decodes them; claimed sizes
//!   never allocate.
//! - Responses leave a connection in the order of its requests. Produce requests of one
//!   connection are staged in order and may be in flight together.
//! - Only `error` knows Kafka's error codes.

mod api;
mod blocking;
mod config;
mod configs;
mod connection;
mod context;
pub mod dispatch;
mod drain;
pub mod error;
mod frames;
pub mod group;
mod lookup;
mod metrics;
mod net;
pub mod placement;
mod server;
#[cfg(test)]
mod testing;
mod topic_configs;
pub mod versions;
pub mod wire;
mod zones;

pub use config::Config;
pub use context::{ConnInfo, Ctx, Header, Parts};
pub use drain::Drain;
pub use group::Config as GroupConfig;
pub use metrics::Metrics;
pub use server::Server;
