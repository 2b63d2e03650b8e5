//! Gateways that are lost at every point of what they do, a quorum that is split in every way, and
//! a store that lies: nothing that was promised is broken.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use frazil_history::workload::Role;
use frazil_history::{Group, Rng};
use frazil_proxy::{Flow, Way};
use frazil_store::{Fault, Faults, Operation, Outage, Rule};

use crate::cluster::{Cluster, GATEWAYS, Point, VOTERS, metric};
use crate::harness::{Harness, seeds};
use crate::server::PATIENCE;

/// Members of a group, besides.
const MEMBERS: u32 = 2;

const ROLES: [Role; 6] = [
    Role::Idempotent,
    Role::Idempotent,
    Role::Plain(-1),
    Role::Reader,
    Role::Reader,
    Role::Committer(Group(0)),
];

async fn begin(cluster: &Cluster, seed: u64) -> Harness {
    let mut harness = Harness::new(cluster.places(), &["object"]);
    harness.create_topics(&cluster.gateways[0]).await;
    harness.work(&ROLES, seed);
    harness.consume(Group(1), MEMBERS, seed);
    harness
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_gateways_that_are_lost_at_any_point_of_a_flush() {
    for seed in seeds(1) {
        let mut cluster = Cluster::start().await;
        let mut harness = begin(&cluster, seed).await;
        let mut rng = Rng::new(seed);
        for point in [
            Point::AfterPut,
            Point::BeforeAck,
            Point::HalfPut,
            Point::LatePut,
            Point::BeforePut,
        ] {
            harness.progress(&format!("seed {seed}, before {point:?}"));
            let gateway = rng.below(GATEWAYS as u64) as usize;
            cluster.lose(gateway, point, &harness).await;
            harness.progress(&format!("seed {seed}, after {point:?}"));
        }
        // What was uploaded in vain is found and deleted.
        let start = Instant::now();
        let orphans = "frazil_compactor_orphaned_objects_total";
        while metric(&cluster.compactor, orphans) < Some(1.0) {
            assert!(start.elapsed() < PATIENCE, "orphans stay");
            park_timeout(Duration::from_millis(50));
        }
        harness.judge("crash-points", seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_a_leader_that_is_cut_off_in_part_or_as_a_whole() {
    for seed in seeds(1) {
        let cluster = Cluster::start().await;
        let mut harness = begin(&cluster, seed).await;
        let mut rng = Rng::new(seed);
        for split in ["cut", "silent", "deaf", "bridged"] {
            harness.progress(&format!("seed {seed}, before it is {split}"));
            let leader = cluster.leader();
            match split {
                "cut" => cluster.around(leader).for_each(|link| link.cut()),
                "silent" => cluster
                    .around(leader)
                    .for_each(|link| link.set_both(Flow::HELD)),
                "deaf" => {
                    for ((from, to), link) in &cluster.quorum {
                        if *to == leader {
                            link.hold(Way::Up);
                        } else if *from == leader {
                            link.hold(Way::Down);
                        }
                    }
                }
                _ => {
                    let other = leader % VOTERS + 1;
                    cluster.quorum[&(leader, other)].cut();
                    cluster.quorum[&(other, leader)].cut();
                }
            }
            park_timeout(Duration::from_millis(1000 + rng.below(2000)));
            cluster.quorum.values().for_each(|link| link.heal());
            harness.progress(&format!("seed {seed}, after it was {split}"));
        }
        harness.judge("leader-cut", seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_a_store_that_fails_and_lies() {
    let (put, get) = ([Operation::Put], [Operation::Get]);
    for seed in seeds(1) {
        let cluster = Cluster::start().await;
        let mut harness = begin(&cluster, seed).await;
        let storms: [Vec<Rule>; 4] = [
            vec![Rule::new(&[], Fault::status(503)).probability(0.5)],
            vec![
                Rule::new(&put, Fault::Reset { applied: true }).probability(0.2),
                Rule::new(&put, Fault::Late { after_ms: 500 }).probability(0.2),
            ],
            vec![
                Rule::new(&put, Fault::status_applied(409)).probability(0.2),
                Rule::new(&put, Fault::status_applied(412)).probability(0.2),
                Rule::new(&put, Fault::status(409)).probability(0.2),
            ],
            vec![
                Rule::new(&get, Fault::Truncate { keep: 0.5 }).probability(0.3),
                Rule::new(&get, Fault::Flip).probability(0.3),
                Rule::new(&get, Fault::status(404)).probability(0.2),
            ],
        ];
        for (number, rules) in storms.into_iter().enumerate() {
            cluster.store.faults().set(Faults {
                seed,
                rules,
                ..Faults::default()
            });
            park_timeout(Duration::from_millis(1500));
            cluster.store.faults().heal();
            harness.progress(&format!("seed {seed}, after storm {number}"));
        }
        for outage in [Outage::Reset, Outage::Hang] {
            cluster.store.faults().outage(Some(outage));
            park_timeout(Duration::from_millis(1500));
            cluster.store.faults().outage(None);
            harness.progress(&format!("seed {seed}, after {outage:?}"));
        }
        harness.judge("store", seed);
    }
}
