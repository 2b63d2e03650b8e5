//! Random histories of a consumer group: members that come, leave, fall silent and come back too
//! late; coordinators that die, are cut off, and go on as if nothing had happened; a quorum that
//! loses answers and does things late.
//!
//! State and client of the quorum are the real ones ([`frazil_metadata::simulated`]). What must hold:
//!
//! - a committed offset never goes back, and one that was acknowledged is read back by whoever asks,
//!   through any coordinator (I25);
//! - in a generation a partition has one owner, and nobody commits under one that has ended (I27);
//! - whoever asks a coordinator that runs is answered;
//! - when everything works again, all members are in one generation that covers all partitions, and
//!   they make progress (I28, I29).

mod member;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::testing::seeds;
use tokio::task::JoinSet;

use member::Member;
use world::{GATEWAYS, GROUP, MEMBERS, PARTITIONS, World};

async fn history(seed: u64) {
    let world = World::new(seed).await;
    let mut tasks = JoinSet::new();
    for n in 0..MEMBERS {
        tasks.spawn(Member::new(Arc::clone(&world), n).run());
    }
    tasks.spawn(member::audit(Arc::clone(&world)));
    world.storm();
    for _ in 0..20 + world.below(20) {
        tokio::time::sleep(Duration::from_millis(1_000 + world.below(9_000))).await;
        let which = world.below(GATEWAYS) as usize;
        match world.below(10) {
            0 | 1 => world.storm(),
            2..4 => world.gateway(which).pause(),
            4..6 => world.resume(),
            6 => world.replace(which).await,
            _ => {}
        }
        assert!(tasks.try_join_next().is_none(), "members go on for ever");
    }

    world.calm();
    world.resume();
    tokio::time::sleep(Duration::from_secs(150)).await;
    let before = world.committed();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(tasks.try_join_next().is_none(), "members go on for ever");
    for (partition, after) in world.committed() {
        let before = before.get(&partition).copied().unwrap_or_default();
        assert!(after > before, "no progress in {partition}");
    }
    assert_eq!(world.committed().len(), PARTITIONS as usize);
    let seats = world.seats();
    let (group, _) = world.quorum.read(|s| s.group(GROUP)).expect("a group");
    let seated: BTreeSet<String> = seats.iter().map(|seat| seat.member_id.clone()).collect();
    let members: BTreeSet<String> = group.members.keys().cloned().collect();
    assert_eq!(seated, members, "who thinks to be in the group, and who is");
    assert_eq!(seats.len() as u64, MEMBERS);
    let mut covered = BTreeSet::new();
    for seat in &seats {
        assert_eq!(seat.generation, group.generation);
        for partition in &seat.partitions {
            assert!(covered.insert(*partition), "{partition} twice");
        }
    }
    assert_eq!(covered.len(), PARTITIONS as usize);
    tasks.shutdown().await;
    assert!(world.oracle.lock().acknowledged > 20, "commits");
}

#[test]
fn histories() {
    seeds(
        "frazil-gateway",
        "group::simulation::histories",
        300,
        |seed| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(history(seed));
        },
    );
}
