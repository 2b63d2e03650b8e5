//! One process with all roles, whose disk is kept.

use std::thread::park_timeout;
use std::time::Duration;

use frazil_history::workload::Role;
use frazil_history::{Group, Rng};

use crate::harness::{Harness, Place, rounds, seeds};
use crate::server::Server;

/// Members of a group, besides.
const MEMBERS: u32 = 2;

const ROLES: [Role; 8] = [
    Role::Idempotent,
    Role::Idempotent,
    Role::Plain(-1),
    Role::Plain(1),
    Role::Reader,
    Role::Reader,
    Role::Committer(Group(0)),
    Role::Deleter,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_a_broker_that_is_killed_and_keeps_its_disk() {
    for seed in seeds(1) {
        let mut server = Server::start();
        // All its lives are one: with its own quorum, it must not go back in time.
        let place = Place::new(server.kafka, 0);
        let mut harness = Harness::new(vec![place], &["object", "local"]);
        harness.create_topics(&server).await;
        harness.work(&ROLES, seed);
        harness.consume(Group(1), MEMBERS, seed);
        let mut rng = Rng::new(seed);
        for round in 0..rounds() {
            park_timeout(Duration::from_millis(200 + rng.below(600)));
            if rng.chance(80) {
                server.kill();
            } else {
                server.terminate();
            }
            server.revive();
            harness.progress(&format!("seed {seed}, after kill {round}"));
        }
        harness.judge("lone", seed);
    }
}
