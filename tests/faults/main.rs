//! Black box under faults: clients record what they see of brokers that are killed again and
//! again, and the history must show no broken promise.
//!
//! Which seeds and how many faults each: `FAULTS_SEEDS=1000..1100 FAULTS_ROUNDS=20 cargo test
//! --test faults -- --nocapture`. A failure prints its seed and keeps its history in a file, which
//! `cargo run -p frazil-history < file` checks again; `FAULTS_KEEP=1` keeps all. The seed fixes
//! what clients ask and when faults are due; what else happens is up to the machine.

mod client;
mod cluster;
mod fleet;
mod harness;
mod links;
mod lone;
mod member;
mod sabotage;
#[path = "../kafka/server.rs"]
#[allow(dead_code, reason = "tests/kafka uses the rest of it")]
mod server;
