//! Frazil: the composition root.

pub mod allocator;
pub mod archive;
pub mod catalog;
pub mod cli;
pub mod config;
mod directory;
pub mod env;
pub mod external;
pub mod host;
pub mod http;
mod identity;
pub mod node;
pub mod peers;
pub mod store;
pub mod telemetry;
