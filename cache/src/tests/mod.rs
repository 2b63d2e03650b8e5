//! Tests of the whole data plane, with a quorum, a store and a disk in memory.

mod cold;
mod local;
mod object;
mod peer;
mod read;
mod simulation;
mod zone;
