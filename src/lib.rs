//! Frazil: the composition root.

pub mod env;
