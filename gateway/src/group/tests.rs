//! The service around the machine, over a quorum in memory.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::group::Coordinator;

use super::*;
use crate::testing::{World, broker};

fn config() -> crate::Config {
    let groups = Config {
        initial_rebalance_delay: Duration::ZERO,
        ..Config::default()
    };
    crate::Config {
        groups,
        ..crate::Config::default()
    }
}

async fn groups(world: &Arc<World>) -> Groups {
    world.ctx(1, config()).await.groups
}

fn join(member_id: &str) -> Join {
    Join {
        member_id: member_id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"))],
        id_required: false,
        can_skip_assignment: true,
        fresh: String::new(),
    }
}

fn sync(joined: &Joined) -> Sync {
    let assignments = joined.members.iter().map(|m| {
        let assignment = format!("for {}", m.member_id);
        (m.member_id.clone(), Bytes::from(assignment))
    });
    Sync {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.collect(),
    }
}

/// Joins and syncs as the only member.
async fn enter(groups: &Groups, group: &str) -> Joined {
    let joined = groups.join(group, join("")).await.unwrap();
    let synced = groups.sync(group, sync(&joined)).await.unwrap();
    assert_eq!(synced.assignment, format!("for {}", joined.member_id));
    joined
}

async fn beat(groups: &Groups, group: &str, joined: &Joined) -> Result<(), GroupError> {
    groups
        .heartbeat(group, joined.member_id.clone(), None, joined.generation)
        .await
}

fn commit(member: Option<&Joined>, partition: TopicPartition, offset: i64) -> Commit {
    let committed = CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
        committed_ms: 0,
    };
    Commit {
        member_id: member
            .map(|joined| joined.member_id.clone())
            .unwrap_or_default(),
        instance_id: None,
        generation: member.map_or(-1, |joined| joined.generation),
        offsets: vec![(partition, committed)],
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_survives_its_coordinator() {
    let world = World::new();
    let first = groups(&world).await;
    let joined = enter(&first, "g").await;
    first.stop().await;
    assert_eq!(
        beat(&first, "g", &joined).await,
        Err(GroupError::NotCoordinator)
    );
    let second = groups(&world).await;
    assert_eq!(beat(&second, "g", &joined).await, Ok(()));
    let again = second
        .sync(
            "g",
            Sync {
                assignments: vec![],
                ..sync(&joined)
            },
        )
        .await
        .unwrap();
    assert_eq!(again.assignment, format!("for {}", joined.member_id));
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_given_out_only_once_it_is_stored() {
    let world = World::new();
    let groups = groups(&world).await;
    let joined = groups.join("g", join("")).await.unwrap();
    let held = world.saves.forget_permits(usize::MAX);
    let mut syncing = tokio::spawn({
        let (groups, sync) = (groups.clone(), sync(&joined));
        async move { groups.sync("g", sync).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(50), &mut syncing).await;
    assert!(early.is_err(), "answered before it was stored");
    assert!(world.state.lock().groups["g"].group.members.is_empty());
    world.saves.add_permits(held);
    assert!(syncing.await.unwrap().is_ok());
    assert_eq!(world.state.lock().groups["g"].group.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_at_a_coordinator_that_has_lost_the_group_is_told_so() {
    let world = World::new();
    let groups = groups(&world).await;
    let first = enter(&groups, "g").await;
    let parked = tokio::spawn({
        let groups = groups.clone();
        async move { groups.join("g", join("")).await }
    });
    while beat(&groups, "g", &first).await == Ok(()) {
        tokio::task::yield_now().await;
    }
    // Another gateway claims the group; this one finds out when it stores something.
    let claim = Coordinator {
        broker: BrokerId(2),
        broker_epoch: frazil_core::BrokerEpoch(2),
        epoch: 1_000,
    };
    world.state.lock().groups.get_mut("g").unwrap().coordinator = Some(claim);
    let again = groups.join("g", join(&first.member_id)).await.unwrap();
    let second = parked.await.unwrap().unwrap();
    let leader = if again.members.is_empty() {
        &second
    } else {
        &again
    };
    let follower = if again.members.is_empty() {
        &again
    } else {
        &second
    };
    let waiting = tokio::spawn({
        let (groups, sync) = (groups.clone(), sync(follower));
        async move { groups.sync("g", sync).await }
    });
    let refused = groups.sync("g", sync(leader)).await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));
    let waited = waiting.await.unwrap();
    // Depending on who came first: parked with the leader's, or asked of the group loaded anew.
    assert!(
        matches!(
            waited,
            Err(GroupError::NotCoordinator
                | GroupError::IllegalGeneration
                | GroupError::UnknownMember)
        ),
        "{waited:?}"
    );
    assert_eq!(
        world.state.lock().groups["g"].group.generation,
        first.generation
    );
}

#[tokio::test(start_paused = true)]
async fn parked_joins_are_answered_when_another_broker_becomes_the_coordinator() {
    let world = World::new();
    let ctx = world.ctx(1, crate::Config::default()).await;
    let group = (0..)
        .map(|i| format!("g{i}"))
        .find(|name| {
            placement::coordinator(&[broker(1), broker(2)], name)
                .unwrap()
                .id
                == BrokerId(2)
        })
        .unwrap();
    let parked = tokio::spawn({
        let (groups, group) = (ctx.groups.clone(), group.clone());
        async move { groups.join(&group, join("")).await }
    });
    while world.state.lock().groups.is_empty() {
        tokio::task::yield_now().await;
    }
    world.state.lock().brokers.push(broker(2));
    assert_eq!(parked.await.unwrap(), Err(GroupError::NotCoordinator));
    assert_eq!(
        ctx.groups.join(&group, join("")).await,
        Err(GroupError::NotCoordinator)
    );
    assert_eq!(
        ctx.groups.offsets(&group).await,
        Err(GroupError::NotCoordinator)
    );
    assert!(ctx.groups.list().await.unwrap().is_empty());
    let second = world.ctx(2, config()).await;
    enter(&second.groups, &group).await;
}

#[tokio::test(start_paused = true)]
async fn asking_for_a_group_that_does_not_exist_does_not_make_it() {
    let world = World::new();
    let groups = groups(&world).await;
    let topic = TopicPartition::new(world.add_topic("t", 1), 0);
    let stranger = Joined {
        generation: 3,
        member_id: "m".into(),
        protocol_type: String::new(),
        protocol: String::new(),
        leader: String::new(),
        skip_assignment: false,
        members: vec![],
    };
    assert_eq!(
        beat(&groups, "g", &stranger).await,
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        groups.sync("g", sync(&stranger)).await,
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        groups.join("g", join("m")).await,
        Err(GroupError::UnknownMember)
    );
    let left = groups.leave("g", vec![("m".into(), None)]).await;
    assert_eq!(left, Ok(vec![Err(GroupError::UnknownMember)]));
    let refused = groups.commit("g", commit(Some(&stranger), topic, 1)).await;
    assert_eq!(refused, Err(GroupError::UnknownGroup));
    assert_eq!(groups.delete("g").await, Err(GroupError::UnknownGroup));
    assert_eq!(
        groups.delete_offsets("g", vec![]).await,
        Err(GroupError::UnknownGroup)
    );
    assert_eq!(
        groups.describe("g").await.unwrap_err(),
        GroupError::UnknownGroup
    );
    assert!(groups.offsets("g").await.unwrap().is_empty());
    assert!(groups.list().await.unwrap().is_empty());
    assert!(world.state.lock().groups.is_empty());
    assert_eq!(
        beat(&groups, "", &stranger).await,
        Err(GroupError::InvalidGroupId)
    );
}

#[tokio::test(start_paused = true)]
async fn commits_of_members_and_of_simple_consumers() {
    let world = World::new();
    let groups = groups(&world).await;
    let partition = TopicPartition::new(world.add_topic("t", 1), 0);
    assert_eq!(groups.commit("g", commit(None, partition, 5)).await, Ok(()));
    assert_eq!(
        groups.offsets("g").await.unwrap()[&partition].offset,
        Offset(5)
    );
    let member = enter(&groups, "g").await;
    let simple = groups.commit("g", commit(None, partition, 6)).await;
    assert_eq!(simple, Err(GroupError::UnknownMember));
    assert_eq!(
        groups
            .commit("g", commit(Some(&member), partition, 7))
            .await,
        Ok(())
    );
    let old = Joined {
        generation: member.generation - 1,
        ..member.clone()
    };
    let stale = groups.commit("g", commit(Some(&old), partition, 8)).await;
    assert_eq!(stale, Err(GroupError::IllegalGeneration));
    assert_eq!(
        groups.offsets("g").await.unwrap()[&partition].offset,
        Offset(7)
    );
}

#[tokio::test(start_paused = true)]
async fn commits_of_one_member_are_applied_in_order() {
    let world = World::new();
    let groups = groups(&world).await;
    let partition = TopicPartition::new(world.add_topic("t", 1), 0);
    let member = enter(&groups, "g").await;
    for round in 0..20 {
        let commits =
            (0..20).map(|i| groups.commit("g", commit(Some(&member), partition, round * 20 + i)));
        for result in futures_util::future::join_all(commits).await {
            assert_eq!(result, Ok(()));
        }
        let last = groups.offsets("g").await.unwrap()[&partition].offset;
        assert_eq!(last, Offset(round * 20 + 19));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_never_overwrites_a_later_one() {
    let world = World::new();
    let groups = groups(&world).await;
    let partition = TopicPartition::new(world.add_topic("t", 1), 0);
    let member = enter(&groups, "g").await;
    world.late.store(true, Ordering::SeqCst);
    let unknown = groups.commit("g", commit(Some(&member), partition, 5));
    assert_eq!(unknown.await, Err(GroupError::Unavailable));
    world.late.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let later = groups.commit("g", commit(Some(&member), partition, 9));
    assert_eq!(later.await, Ok(()));
    world.happen_late().await;
    let committed = groups.offsets("g").await.unwrap()[&partition].offset;
    assert_eq!(committed, Offset(9));
    assert_eq!(beat(&groups, "g", &member).await, Ok(()), "it stays in");
}

#[tokio::test(start_paused = true)]
async fn a_quorum_that_cannot_be_reached_is_a_retriable_error_and_no_loss() {
    let world = World::new();
    let groups = groups(&world).await;
    let joined = enter(&groups, "g").await;
    world.unavailable.store(true, Ordering::SeqCst);
    let left = groups
        .leave("g", vec![(joined.member_id.clone(), None)])
        .await;
    assert_eq!(left, Err(GroupError::Unavailable));
    assert_eq!(groups.offsets("g").await, Err(GroupError::Unavailable));
    assert_eq!(groups.list().await.unwrap_err(), GroupError::Unavailable);
    world.unavailable.store(false, Ordering::SeqCst);
    assert_eq!(beat(&groups, "g", &joined).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn deleting_groups_and_offsets() {
    let world = World::new();
    let groups = groups(&world).await;
    let used = TopicPartition::new(world.add_topic("t", 1), 0);
    let free = TopicPartition::new(world.add_topic("u", 1), 0);
    groups.commit("g", commit(None, used, 1)).await.unwrap();
    groups.commit("g", commit(None, free, 2)).await.unwrap();
    let joined = enter(&groups, "g").await;
    assert_eq!(groups.delete("g").await, Err(GroupError::NotEmpty));
    let topics = vec![("t".to_owned(), vec![used]), ("u".to_owned(), vec![free])];
    assert_eq!(
        groups.delete_offsets("g", topics.clone()).await,
        Ok(vec!["t".to_owned()])
    );
    assert_eq!(
        groups
            .offsets("g")
            .await
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        [&used]
    );
    groups
        .leave("g", vec![(joined.member_id.clone(), None)])
        .await
        .unwrap();
    assert_eq!(groups.delete_offsets("g", topics).await, Ok(vec![]));
    assert!(groups.offsets("g").await.unwrap().is_empty());
    assert_eq!(groups.describe("g").await.unwrap().state, State::Empty);
    assert_eq!(groups.delete("g").await, Ok(()));
    assert_eq!(groups.delete("g").await, Err(GroupError::UnknownGroup));
    assert_eq!(
        groups.describe("g").await.unwrap_err(),
        GroupError::UnknownGroup
    );

    let connect = Join {
        protocol_type: "connect".into(),
        ..join("")
    };
    let joined = groups.join("c", connect).await.unwrap();
    groups.sync("c", sync(&joined)).await.unwrap();
    assert_eq!(
        groups.delete_offsets("c", vec![]).await,
        Err(GroupError::NotEmpty)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_group_that_is_not_stored_yet_does_not_disturb_it() {
    let world = World::new();
    let groups = groups(&world).await;
    let joined = groups.join("g", join("")).await.unwrap();
    let topic = TopicPartition::new(world.add_topic("u", 1), 0);
    let topics = vec![("u".to_owned(), vec![topic])];
    let deleted = groups.delete_offsets("g", topics).await;
    assert_eq!(deleted, Err(GroupError::UnknownGroup));
    assert_eq!(groups.delete("g").await, Err(GroupError::NotEmpty));
    let description = groups.describe("g").await.unwrap();
    assert_eq!(description.state, State::CompletingRebalance);
    assert!(groups.sync("g", sync(&joined)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn members_that_no_client_asks_for_are_adopted_and_dropped() {
    let world = World::new();
    let first = groups(&world).await;
    let short = Join {
        session_timeout_ms: 6_000,
        ..join("")
    };
    let joined = first.join("g", short).await.unwrap();
    first.sync("g", sync(&joined)).await.unwrap();
    first.stop().await;
    let second = groups(&world).await;
    let emptied = async {
        while !world.state.lock().groups["g"].group.members.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = second.run() => panic!("it runs until it is stopped"),
        done = tokio::time::timeout(Duration::from_secs(60), emptied) => {
            done.expect("adopted, and its session ended");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_falls_silent_is_dropped_and_the_group_listed_as_empty() {
    let world = World::new();
    let groups = groups(&world).await;
    let short = Join {
        session_timeout_ms: 6_000,
        ..join("")
    };
    let joined = groups.join("g", short).await.unwrap();
    groups.sync("g", sync(&joined)).await.unwrap();
    let listed = groups.list().await.unwrap();
    assert_eq!(
        (listed[0].name.as_str(), listed[0].protocol_type.as_str()),
        ("g", "consumer")
    );
    // Asking does not keep it alive.
    let emptied = async {
        while groups.list().await.unwrap()[0].state != State::Empty {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), emptied)
        .await
        .expect("the session ends");
    assert!(world.state.lock().groups["g"].group.members.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_without_members_and_requests_is_forgotten_but_not_lost() {
    let world = World::new();
    let groups = groups(&world).await;
    let partition = TopicPartition::new(world.add_topic("t", 1), 0);
    let stays = enter(&groups, "stays").await;
    for offset in 1..3 {
        let committed = groups.commit("goes", commit(None, partition, offset)).await;
        assert_eq!(committed, Ok(()));
        for _ in 0..10 {
            assert_eq!(beat(&groups, "stays", &stays).await, Ok(()));
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        let loaded: Vec<_> = groups.shared.loaded.lock().keys().cloned().collect();
        assert_eq!(loaded, ["stays"]);
        let read = groups.offsets("goes").await.unwrap();
        assert_eq!(read[&partition].offset, Offset(offset));
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_loaded_groups_is_bounded() {
    let world = World::new();
    let mut config = config();
    config.groups.groups_max = 2;
    let groups = world.ctx(1, config).await.groups;
    enter(&groups, "a").await;
    enter(&groups, "b").await;
    assert_eq!(
        groups.join("c", join("")).await,
        Err(GroupError::Unavailable)
    );
    assert_eq!(groups.list().await.unwrap().len(), 2);
}
