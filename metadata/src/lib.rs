//! Frazil's control plane: the replicated state machine, its quorum, the image
pub mod codec;
pub mod command;
pub mod state;
