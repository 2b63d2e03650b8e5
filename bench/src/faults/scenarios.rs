//! The faults: what is done to a fleet under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use frazil_proxy::{Flow, Then, Way};
use frazil_store::{Fault, Faults, Latency, Operation, Outage, Rule};

use super::fleet::{COMPACTOR, GATEWAY, VOTERS};
use super::node::Role;
use super::stage::Stage;
use super::store::Store;

/// What a scenario is to stay within, besides no broken promise and the limit of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// The longest gap, in seconds.
    Gap(f64),
    /// How long until 90 % of throughput is back, in seconds.
    Back(f64),
    /// p99 while it lasts, as a multiple of that before.
    Ratio(f64),
    /// No error reaches the application.
    NoErrors,
}

/// A fault.
pub(crate) struct Scenario {
    pub name: &'static str,
    /// What happens.
    pub fault: &'static str,
    /// How it is made to happen.
    pub how: &'static str,
    pub aims: &'static [Aim],
    /// `frazil.durability` of the topic.
    pub level: &'static str,
    /// Further settings of all nodes.
    pub settings: &'static [&'static str],
    pub run: fn(&mut Stage<'_>) -> Result<()>,
}

const OBJECT: &str = "object";
const LOCAL: &str = "local";
const RESUME: &[Aim] = &[Aim::Gap(10.0), Aim::NoErrors];
const NO_ERRORS: &[Aim] = &[Aim::NoErrors];
/// Objects become collectable, and gateways that are silent dead, within seconds.
const IMPATIENT: &[&str] = &[
    "gateway.seal.after.ms=5000",
    "collector.grace.ms=2000",
    "log.retention.check.interval.ms=1000",
];
/// Readers of what is old find nothing in memory.
const COLD: &[&str] = &["cache.tail.bytes=1MiB", "cache.memory.bytes=1MiB"];

/// Why some faults of the plan are not among these.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[(
    "clock-step",
    "A process cannot be given a wrong clock of its own without a hook in production code; see \
     `metadata/src/tests/clock.rs::a_leaders_clock_that_leaps_fences_nobody_and_lets_nothing_expire`.",
)];

/// All of them, in the order of the table.
pub(crate) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        fault: "none",
        how: "15 s of nothing",
        aims: &[Aim::NoErrors],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            stage.heal();
            stage.seconds(15);
            Ok(())
        },
    },
    Scenario {
        name: "gateway-killed",
        fault: "a gateway is killed and comes back after 20 s with its disk; topic `local`",
        how: "kill -9",
        aims: RESUME,
        level: LOCAL,
        settings: &[],
        run: |stage| stage.kill_and_restart(stage.victim(), false, 20),
    },
    Scenario {
        name: "gateway-lost",
        fault: "a gateway is lost with its disk; an empty one takes its place after 20 s",
        how: "kill -9, data directory deleted",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| stage.kill_and_restart(stage.victim(), true, 20),
    },
    Scenario {
        name: "crash-before-put",
        fault: "a gateway is lost before its PUTs reach the store",
        how: "its requests to the store held for 1.5 s, kill -9, disk deleted, what was held dropped",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.hold_store(stage.victim(), Way::Up, Duration::from_millis(1500))?;
            stage.kill_and_restart(stage.victim(), true, 15)
        },
    },
    Scenario {
        name: "crash-half-put",
        fault: "a gateway is lost in the middle of the body of a PUT",
        how: "its link to the store holds after 4 KiB, kill -9 at that byte, disk deleted",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let victim = stage.victim();
            let node = stage.fleet.node(victim)?;
            let link = node.links.store.as_ref().context("a link to the store")?;
            let tripped = link.trip(Way::Up, 4096, Then::Hold);
            stage.tripped(tripped)?;
            stage.kill_and_restart(victim, true, 15)
        },
    },
    Scenario {
        name: "crash-after-put",
        fault: "a gateway is lost after its PUTs are done, before it learns so",
        how: "the store's answers to it held for 1.5 s, kill -9, disk deleted; orphans counted after",
        aims: RESUME,
        level: OBJECT,
        settings: IMPATIENT,
        run: |stage| {
            stage.hold_store(stage.victim(), Way::Down, Duration::from_millis(1500))?;
            stage.kill_and_restart(stage.victim(), true, 15)?;
            stage.collect_orphans()
        },
    },
    Scenario {
        name: "crash-before-ack",
        fault: "a gateway is lost after its commits, before clients learn so",
        how: "its answers to clients held for 1.5 s, kill -9, disk deleted, what was held dropped",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let victim = stage.victim();
            let node = stage.fleet.node(victim)?;
            let link = node.links.clients.as_ref().context("a link to clients")?;
            link.hold(Way::Down);
            stage.inject();
            stage.rest(Duration::from_millis(1500));
            stage.kill_and_restart(victim, true, 15)
        },
    },
    Scenario {
        name: "crash-mid-flush",
        fault: "gateways are lost while flushing, one after the other",
        how: "every PUT takes 500 ms longer; each gateway in turn kill -9 at a random moment, disk \
              deleted, restarted",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage
                .fleet
                .store
                .faults()
                .add(Rule::new(&[Operation::Put], Fault::Delay { ms: 500 }));
            stage.inject();
            for id in stage.gateways() {
                let moment = Duration::from_millis(1000 + stage.random(1000));
                stage.rest(moment);
                stage.kill(id, true)?;
                stage.seconds(1);
                stage.start(id)?;
                stage.seconds(8);
            }
            stage.fleet.store.faults().set(Store::usual());
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "crash-mid-drain",
        fault: "a gateway that was asked to stop is killed while it flushes",
        how: "every PUT takes 1 s longer; SIGTERM, kill -9 150 ms later; restarted with its disk",
        aims: RESUME,
        level: LOCAL,
        settings: &[],
        run: |stage| {
            let victim = stage.victim();
            stage.inject();
            stage
                .fleet
                .store
                .faults()
                .add(Rule::new(&[Operation::Put], Fault::Delay { ms: 1000 }));
            stage.seconds(2);
            stage.fleet.node(victim)?.signal("TERM")?;
            stage.rest(Duration::from_millis(150));
            stage.kill(victim, false)?;
            stage.fleet.store.faults().set(Store::usual());
            stage.heal();
            stage.seconds(15);
            stage.start(victim)?;
            stage.seconds(10);
            Ok(())
        },
    },
    Scenario {
        name: "crash-mid-recovery",
        fault: "a gateway is killed again and again while it recovers its log; topic `local`",
        how: "kill -9; started and killed after 50 to 500 ms, five times; then left alone",
        aims: RESUME,
        level: LOCAL,
        settings: &[],
        run: |stage| {
            let victim = stage.victim();
            stage.inject();
            stage.kill(victim, false)?;
            stage.heal();
            for _ in 0..5 {
                let moment = Duration::from_millis(50 + stage.random(450));
                stage.fleet.node(victim)?.begin()?;
                stage.rest(moment);
                stage.kill(victim, false)?;
            }
            stage.start(victim)?;
            stage.seconds(15);
            Ok(())
        },
    },
    Scenario {
        name: "crash-mid-collection",
        fault: "the compactor is killed while it deletes, and the deletion happens after its death",
        how: "orphans made as in `crash-after-put` while it is away; it is started, its deletion is \
              held by the store, kill -9, released; it is started again",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: IMPATIENT,
        run: |stage| {
            let victim = stage.victim();
            stage.fleet.node(COMPACTOR)?.terminate()?;
            stage.hold_store(victim, Way::Down, Duration::from_millis(1500))?;
            stage.kill_and_restart(victim, true, 5)?;
            let delete = [Operation::Delete, Operation::DeleteMany];
            let hold = Fault::Hold { applied: false };
            stage
                .fleet
                .store
                .faults()
                .add(Rule::new(&delete, hold).key("*.seg").named("delete"));
            stage.start(COMPACTOR)?;
            let orphan = stage.held("delete")?;
            stage.fleet.node(COMPACTOR)?.kill()?;
            stage.fleet.store.faults().heal();
            stage.fleet.store.faults().set(Store::usual());
            stage.start(COMPACTOR)?;
            stage.seconds(5);
            ensure!(!stage.fleet.store.has(&orphan), "{orphan} is still there");
            Ok(())
        },
    },
    Scenario {
        name: "all-gateways-killed",
        fault: "all gateways are killed at once and come back with their disks; topic `local`",
        how: "kill -9, restarted after 1 s",
        aims: NO_ERRORS,
        level: LOCAL,
        settings: &[],
        run: |stage| all_gateways(stage, false),
    },
    Scenario {
        name: "all-gateways-lost",
        fault: "all gateways are lost with their disks; empty ones take their places",
        how: "kill -9, data directories deleted, restarted after 1 s",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| all_gateways(stage, true),
    },
    Scenario {
        name: "gateway-paused",
        fault: "a gateway stops for longer than the collector's grace, is declared dead, and wakes",
        how: "SIGSTOP 20 s with gateway.seal.after.ms=5000 and collector.grace.ms=2000; it ends by \
              itself and is restarted",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: IMPATIENT,
        run: |stage| {
            let victim = stage.victim();
            stage.inject();
            stage.fleet.node(victim)?.signal("STOP")?;
            stage.seconds(20);
            stage.fleet.node(victim)?.signal("CONT")?;
            stage.heal();
            let status = stage.fleet.node(victim)?.wait()?;
            ensure!(!status.success(), "a gateway that was given up ended well");
            stage.start(victim)?;
            stage.seconds(10);
            Ok(())
        },
    },
    Scenario {
        name: "gateway-silent",
        fault: "clients and one gateway do not hear each other",
        how: "their link holds both ways for 20 s",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            let victim = stage.victim();
            let node = stage.fleet.node(victim)?;
            Stage::silence(&node.links.clients);
            stage.lasting(20);
            Stage::restore(&stage.fleet.node(victim)?.links.clients);
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "gateway-without-quorum",
        fault: "a gateway that clients reach does not reach the quorum",
        how: "its links to all voters reset and refuse for 20 s",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            let victim = stage.victim();
            for link in stage.fleet.node(victim)?.links.voters.values() {
                link.cut();
            }
            stage.lasting(20);
            Stage::restore(stage.fleet.node(victim)?.links.voters.values());
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "gateway-without-store",
        fault: "a gateway that clients reach does not reach the store",
        how: "its link to the store resets and refuses for 20 s",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            let victim = stage.victim();
            if let Some(link) = &stage.fleet.node(victim)?.links.store {
                link.cut();
            }
            stage.lasting(20);
            Stage::restore(&stage.fleet.node(victim)?.links.store);
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "slow-network",
        fault: "every link of clients and voters is slow and uneven",
        how: "20 ms and up to 40 ms more each way, for 20 s",
        aims: NO_ERRORS,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            let slow = Flow::delayed(Duration::from_millis(20), Duration::from_millis(40));
            let links = |stage: &Stage<'_>, what: &dyn Fn(&frazil_proxy::Proxy)| {
                for node in stage.fleet.nodes.values() {
                    node.links.clients.iter().for_each(what);
                    node.links.voters.values().for_each(what);
                }
            };
            links(stage, &|link| link.set_both(slow));
            stage.lasting(20);
            links(stage, &|link| link.heal());
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "drain",
        fault: "a gateway is asked to stop, and comes back after 10 s",
        how: "SIGTERM",
        aims: &[Aim::NoErrors, Aim::Ratio(2.0)],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let victim = stage.victim();
            stage.inject();
            let status = stage.fleet.node(victim)?.terminate()?;
            ensure!(status.success(), "the gateway ended with {status}");
            stage.heal();
            stage.seconds(10);
            stage.start(victim)?;
            stage.seconds(10);
            Ok(())
        },
    },
    Scenario {
        name: "churn",
        fault: "the fleet grows from three gateways to nine, and shrinks to three, none of them old",
        how: "one more every 2 s; then SIGTERM to one every 2 s, the oldest first",
        aims: &[Aim::NoErrors],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            for id in (GATEWAY + 3)..(GATEWAY + 9) {
                stage.fleet.add(id, Role::Gateway)?;
                stage.start(id)?;
                stage.seconds(2);
            }
            for id in GATEWAY..(GATEWAY + 6) {
                let status = stage.fleet.node(id)?.terminate()?;
                ensure!(status.success(), "gateway {id} ended with {status}");
                stage.seconds(2);
            }
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "disk-full",
        fault: "the disk of a gateway is full for 15 s; topic `local`",
        how: "its data directory on a tmpfs that another file fills",
        aims: &[],
        level: LOCAL,
        settings: &["wal.bytes=24MiB"],
        run: super::disk::full,
    },
    Scenario {
        name: "leader-killed",
        fault: "the leader of the quorum is killed, and comes back after 20 s",
        how: "kill -9",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            stage.kill_and_restart(leader, false, 20)
        },
    },
    Scenario {
        name: "leader-paused",
        fault: "the leader of the quorum stops for 60 s, and wakes",
        how: "SIGSTOP, SIGCONT",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            stage.inject();
            stage.fleet.node(leader)?.signal("STOP")?;
            stage.lasting(60);
            stage.fleet.node(leader)?.signal("CONT")?;
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "leader-cut",
        fault: "the leader of the quorum is cut off, and its connections break",
        how: "all its links reset and refuse for 20 s",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            stage.inject();
            for link in stage.fleet.around(leader) {
                link.cut();
            }
            stage.lasting(20);
            Stage::restore(stage.fleet.around(leader));
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "leader-silent",
        fault: "the leader of the quorum is cut off, and packets are swallowed",
        how: "all its links hold both ways for 20 s; then everything held arrives",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            stage.inject();
            Stage::silence(stage.fleet.around(leader));
            stage.lasting(20);
            Stage::restore(stage.fleet.around(leader));
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "leader-deaf",
        fault: "the leader of the quorum speaks and does not hear",
        how: "what is sent to it is held for 20 s: requests, and the answers to its own",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            stage.inject();
            for node in stage.fleet.nodes.values() {
                for (to, link) in &node.links.voters {
                    if *to == leader {
                        link.hold(Way::Up);
                    } else if node.id == leader {
                        link.hold(Way::Down);
                    }
                }
            }
            stage.lasting(20);
            Stage::restore(stage.fleet.around(leader));
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "leader-bridged",
        fault: "the leader and one voter do not see each other; the third sees both",
        how: "the links between the two reset and refuse for 20 s",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let leader = stage.fleet.leader()?;
            let other = VOTERS.into_iter().find(|id| *id != leader);
            let other = other.context("another voter")?;
            stage.inject();
            for link in stage.fleet.between(leader, other)? {
                link.cut();
            }
            stage.lasting(20);
            Stage::restore(stage.fleet.between(leader, other)?);
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "all-voters-killed",
        fault: "all voters are killed at once, and come back with their disks",
        how: "kill -9, restarted after 1 s",
        aims: RESUME,
        level: OBJECT,
        settings: &[],
        run: |stage| {
            stage.inject();
            for id in VOTERS {
                stage.kill(id, false)?;
            }
            stage.seconds(1);
            for id in VOTERS {
                stage.fleet.node(id)?.begin()?;
            }
            for id in VOTERS {
                stage.fleet.node(id)?.wait_until_ready()?;
            }
            stage.heal();
            stage.seconds(10);
            Ok(())
        },
    },
    Scenario {
        name: "store-down",
        fault: "the store is not there for 60 s",
        how: "every connection is reset",
        aims: &[Aim::NoErrors, Aim::Back(30.0)],
        level: OBJECT,
        settings: &[],
        run: |stage| outage(stage, Outage::Reset),
    },
    Scenario {
        name: "store-hangs",
        fault: "the store answers nothing for 60 s",
        how: "requests wait, and are reset at the end",
        aims: &[Aim::NoErrors, Aim::Back(30.0)],
        level: OBJECT,
        settings: &[],
        run: |stage| outage(stage, Outage::Hang),
    },
    Scenario {
        name: "store-503",
        fault: "the store refuses half of all requests for 30 s",
        how: "503 SlowDown, drawn",
        aims: &[Aim::NoErrors, Aim::Back(30.0)],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let slow_down = Fault::Status {
                status: 503,
                code: Some("SlowDown".to_owned()),
                applied: false,
            };
            stage.store_does(vec![Rule::new(&[], slow_down).probability(0.5)], 30);
            Ok(())
        },
    },
    Scenario {
        name: "store-slow",
        fault: "PUTs take 400 ms and 2 s at p99, for 30 s",
        how: "latency drawn",
        aims: &[Aim::NoErrors],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let mut slow = Store::usual();
            slow.latency
                .insert(Operation::Put, Latency::new(400.0, 2000.0));
            stage.inject();
            stage.fleet.store.faults().set(slow);
            stage.lasting(30);
            stage.fleet.store.faults().set(Store::usual());
            stage.heal();
            Ok(())
        },
    },
    Scenario {
        name: "store-ambiguous",
        fault: "one PUT in five is done and its connection breaks, one in ten is done much later",
        how: "reset after it is done; reset at once and done 3 s later; 30 s; orphans counted after",
        aims: &[Aim::NoErrors, Aim::Ratio(3.0)],
        level: OBJECT,
        settings: IMPATIENT,
        run: |stage| {
            let put = [Operation::Put];
            let rules = vec![
                Rule::new(&put, Fault::Reset { applied: true }).probability(0.2),
                Rule::new(&put, Fault::Late { after_ms: 3000 }).probability(0.1),
            ];
            stage.store_does(rules, 30);
            stage.collect_orphans()
        },
    },
    Scenario {
        name: "store-conflicts",
        fault: "own PUTs come back as conflicts, done and not done",
        how: "one in ten each: 409 done, 412 done, 409 not done; 30 s",
        aims: &[Aim::NoErrors, Aim::Ratio(3.0)],
        level: OBJECT,
        settings: &[],
        run: |stage| {
            let put = [Operation::Put];
            let rules = vec![
                Rule::new(&put, Fault::status_applied(409)).probability(0.1),
                Rule::new(&put, Fault::status_applied(412)).probability(0.1),
                Rule::new(&put, Fault::status(409)).probability(0.1),
            ];
            stage.store_does(rules, 30);
            Ok(())
        },
    },
    Scenario {
        name: "store-lies",
        fault: "GETs are truncated or have a wrong byte, while everything is read from the start \
                again and again",
        how: "one in five each, 30 s; small caches; a reader without a group",
        aims: &[Aim::NoErrors],
        level: OBJECT,
        settings: COLD,
        run: |stage| {
            stage.replay()?;
            let get = [Operation::Get];
            let rules = vec![
                Rule::new(&get, Fault::Truncate { keep: 0.5 }).probability(0.2),
                Rule::new(&get, Fault::Flip).probability(0.2),
            ];
            stage.store_does(rules, 30);
            Ok(())
        },
    },
    Scenario {
        name: "store-404",
        fault: "GETs do not find what is there, while everything is read from the start again and \
                again",
        how: "404 for one in three, 30 s; small caches; a reader without a group",
        aims: &[Aim::NoErrors],
        level: OBJECT,
        settings: COLD,
        run: |stage| {
            stage.replay()?;
            let lost = Rule::new(&[Operation::Get], Fault::status(404)).probability(0.33);
            stage.store_does(vec![lost], 30);
            Ok(())
        },
    },
];

fn all_gateways(stage: &mut Stage<'_>, wipe: bool) -> Result<()> {
    stage.inject();
    for id in stage.gateways() {
        stage.kill(id, wipe)?;
    }
    stage.seconds(1);
    for id in stage.gateways() {
        stage.fleet.node(id)?.begin()?;
    }
    for id in stage.gateways() {
        stage.fleet.node(id)?.wait_until_ready()?;
    }
    stage.heal();
    stage.seconds(10);
    Ok(())
}

fn outage(stage: &mut Stage<'_>, outage: Outage) -> Result<()> {
    let faults = Faults {
        outage: Some(outage),
        ..Store::usual()
    };
    stage.inject();
    stage.fleet.store.faults().set(faults);
    stage.lasting(60);
    stage.fleet.store.faults().set(Store::usual());
    stage.heal();
    Ok(())
}
