//! Frazil: the composition root.

pub mod config;
pub mod env;
