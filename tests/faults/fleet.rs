//! Three voters and two gateways as processes over one bucket, which is a directory.
//!
//! What is acknowledged at level `object` survives a gateway with its disk, so there disks are
//! wiped; at level `local` it survives a gateway that comes back with its disk. Voters keep theirs.

use std::thread::park_timeout;
use std::time::Duration;

use frazil_history::workload::Role;
use frazil_history::{Group, Rng};
use tempfile::TempDir;

use crate::harness::{Harness, Place, rounds, seeds};
use crate::server::{Server, free_address};

const VOTERS: usize = 3;
const GATEWAYS: usize = 2;

/// Members of a group, besides.
const MEMBERS: u32 = 2;

const ROLES: [Role; 7] = [
    Role::Idempotent,
    Role::Idempotent,
    Role::Plain(-1),
    Role::Reader,
    Role::Reader,
    Role::Committer(Group(0)),
    Role::Deleter,
];

struct Fleet {
    voters: Vec<Server>,
    gateways: Vec<Server>,
    /// Removed when all processes that use it have ended: fields drop in this order.
    _bucket: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let bucket = tempfile::tempdir().unwrap();
        let peers: Vec<_> = (0..VOTERS + GATEWAYS).map(|_| free_address()).collect();
        let quorum: Vec<String> = (1..=VOTERS)
            .map(|id| format!("{id}@{}", peers[id - 1]))
            .collect();
        let begin = |id: usize| {
            let role = if id <= VOTERS { "metadata" } else { "gateway" };
            Server::begin(vec![
                format!("node.id={id}"),
                format!("roles={role}"),
                format!("peer.listen={}", peers[id - 1]),
                format!("controller.quorum.voters={}", quorum.join(",")),
                format!("store.url=file:{}", bucket.path().display()),
            ])
        };
        let mut fleet = Self {
            voters: (1..=VOTERS).map(begin).collect(),
            gateways: (VOTERS + 1..=VOTERS + GATEWAYS).map(begin).collect(),
            _bucket: bucket,
        };
        let nodes = fleet.voters.iter_mut().chain(&mut fleet.gateways);
        nodes.for_each(Server::wait_until_ready);
        fleet
    }

    fn places(&self) -> Vec<Place> {
        let gateways = (0..).zip(&self.gateways);
        gateways
            .map(|(n, server)| Place::new(server.kafka, n))
            .collect()
    }

    /// One fault, and its end.
    fn fault(&mut self, harness: &Harness, wipe: bool, rng: &mut Rng) {
        let voter = rng.below(VOTERS as u64) as usize;
        let gateway = rng.below(GATEWAYS as u64) as usize;
        let wait = Duration::from_millis(rng.below(1500));
        let kind = rng.below(10);
        if matches!(kind, 0..3 | 9) {
            self.voters[voter].kill();
        }
        match kind {
            0..3 => park_timeout(wait),
            3 => {
                self.gateways[gateway].signal("STOP");
                park_timeout(wait * 2);
                self.gateways[gateway].signal("CONT");
            }
            4 => {
                self.voters[voter].signal("STOP");
                park_timeout(wait * 2);
                self.voters[voter].signal("CONT");
            }
            _ => {
                let server = &mut self.gateways[gateway];
                server.kill();
                if wipe {
                    std::fs::remove_dir_all(server.data()).unwrap();
                }
                park_timeout(wait);
                harness.places()[gateway].reborn();
                server.revive();
            }
        }
        if matches!(kind, 0..3 | 9) {
            self.voters[voter].revive();
        }
    }
}

async fn run(test: &str, topics: &'static [&'static str], wipe: bool) {
    for seed in seeds(1) {
        let mut fleet = Fleet::start();
        let mut harness = Harness::new(fleet.places(), topics);
        harness.create_topics(&fleet.gateways[0]).await;
        harness.work(&ROLES, seed);
        harness.consume(Group(1), MEMBERS, seed);
        let mut rng = Rng::new(seed);
        for round in 0..rounds() {
            park_timeout(Duration::from_millis(rng.below(800)));
            fleet.fault(&harness, wipe, &mut rng);
            harness.progress(&format!("{test}, seed {seed}, after fault {round}"));
        }
        harness.judge(test, seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_gateways_that_are_lost_with_their_disks() {
    run("fleet-wiped", &["object"], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_gateways_that_come_back_with_their_disks() {
    run("fleet-kept", &["object", "local"], false).await;
}
