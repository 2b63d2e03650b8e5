use super::*;

pub(super) const LIMITS: Limits = Limits {
    initial_delay_ms: 3_000,
    session_timeout_ms: (6_000, 1_800_000),
    members: 3,
    bytes: 1_000,
};

fn machine(initial_delay_ms: u64) -> Machine {
    let limits = Limits {
        initial_delay_ms,
        ..LIMITS
    };
    Machine::load(limits, &Group::default(), 0)
}

pub(super) fn join(id: &str) -> Join {
    Join {
        member_id: id.into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
        id_required: false,
        can_skip_assignment: true,
        fresh: "fresh".into(),
    }
}

fn join_new(fresh: &str) -> Join {
    Join {
        fresh: fresh.into(),
        ..join("")
    }
}

fn join_static(instance: &str, fresh: &str) -> Join {
    Join {
        instance_id: Some(instance.into()),
        ..join_new(fresh)
    }
}

pub(super) fn sync(id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Sync {
    Sync {
        member_id: id.into(),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes())))
            .collect(),
    }
}

fn beat(machine: &mut Machine, id: &str, generation: i32, now: Millis) -> Result<(), GroupError> {
    let event = Event::Heartbeat {
        token: 0,
        member_id: id.into(),
        instance_id: None,
        generation,
    };
    match machine.on(event, now).pop() {
        Some(Effect::Heartbeat(_, result)) => result,
        other => panic!("{other:?}"),
    }
}

fn joined(effects: &[Effect]) -> Vec<(Token, Result<Joined, GroupError>)> {
    let pick = |effect: &Effect| match effect {
        Effect::Joined(token, result) => Some((*token, result.clone())),
        _ => None,
    };
    effects.iter().filter_map(pick).collect()
}

fn synced(effects: &[Effect]) -> Vec<(Token, Result<Bytes, GroupError>)> {
    let pick = |effect: &Effect| match effect {
        Effect::Synced(token, result) => {
            Some((*token, result.clone().map(|synced| synced.assignment)))
        }
        _ => None,
    };
    effects.iter().filter_map(pick).collect()
}

fn the_error(effects: &[Effect]) -> GroupError {
    match joined(effects).as_slice() {
        [(_, Err(error))] => error.clone(),
        other => panic!("{other:?}"),
    }
}

/// A stable group of `c-a` (the leader) and `c-b` in generation 2, at time 0.
fn stable() -> Machine {
    let mut m = machine(0);
    assert_eq!(joined(&m.on(Event::Join(1, join_new("a")), 0)).len(), 1);
    assert_eq!(m.on(Event::Join(2, join_new("b")), 0), []);
    assert_eq!(joined(&m.on(Event::Join(3, join("c-a")), 0)).len(), 2);
    assert_eq!(m.on(Event::Sync(4, sync("c-b", 2, &[])), 0), []);
    let effects = m.on(
        Event::Sync(5, sync("c-a", 2, &[("c-a", "A"), ("c-b", "B")])),
        0,
    );
    assert!(matches!(effects[0], Effect::Persist(_)), "{effects:?}");
    assert_eq!(synced(&effects).len(), 2);
    assert_eq!(m.state(), State::Stable);
    m
}

#[test]
fn the_first_generation_waits_for_the_initial_delay_and_longer_for_more_members() {
    let mut m = machine(3_000);
    assert_eq!(m.on(Event::Join(1, join_new("a")), 0), []);
    assert_eq!(m.on(Event::Tick, 2_999), []);
    assert_eq!(m.on(Event::Join(2, join_new("b")), 2_999), []);
    assert_eq!(m.wake_at(), Some(3_000));
    assert_eq!(m.on(Event::Tick, 3_000), []);
    let answers = joined(&m.on(Event::Tick, 6_000));
    assert_eq!(answers.len(), 2);
    let leader = answers[0].1.clone().unwrap();
    assert_eq!((leader.generation, leader.members.len()), (1, 2));
    assert_eq!(
        (leader.leader.as_str(), leader.member_id.as_str()),
        ("c-a", "c-a")
    );
    let follower = answers[1].1.clone().unwrap();
    assert_eq!(
        (follower.leader.as_str(), follower.members.len()),
        ("c-a", 0)
    );
    assert_eq!(m.state(), State::CompletingRebalance);
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut m = machine(3_000);
    let quick = |fresh| Join {
        rebalance_timeout_ms: 5_000,
        ..join_new(fresh)
    };
    m.on(Event::Join(1, quick("a")), 0);
    m.on(Event::Join(2, quick("b")), 1_000);
    assert_eq!(m.on(Event::Tick, 3_000), []);
    m.on(Event::Join(3, quick("c")), 4_000);
    assert_eq!(m.wake_at(), Some(5_000));
    assert_eq!(joined(&m.on(Event::Tick, 5_000)).len(), 3);
}

#[test]
fn a_new_dynamic_member_must_come_back_with_its_id_if_it_can() {
    let mut m = machine(0);
    let modern = Join {
        id_required: true,
        ..join_new("x")
    };
    let error = the_error(&m.on(Event::Join(1, modern.clone()), 0));
    assert_eq!(error, GroupError::MemberIdRequired("c-x".into()));
    assert_eq!(m.state(), State::Empty);
    assert!(!m.is_idle());
    let known = Join {
        id_required: true,
        ..join("c-x")
    };
    assert_eq!(
        joined(&m.on(Event::Join(2, known.clone()), 5))[0]
            .1
            .as_ref()
            .unwrap()
            .generation,
        1
    );
    assert!(!m.is_idle());

    // Who does not come back in time is forgotten.
    let mut m = machine(0);
    m.on(Event::Join(1, modern), 0);
    assert_eq!(m.wake_at(), Some(10_000));
    m.on(Event::Tick, 10_000);
    assert!(m.is_idle());
    assert_eq!(
        the_error(&m.on(Event::Join(2, known), 10_001)),
        GroupError::UnknownMember
    );
}

#[test]
fn a_pending_member_holds_a_rebalance_until_it_joins_or_leaves() {
    let mut m = stable();
    let modern = Join {
        id_required: true,
        ..join_new("x")
    };
    m.on(Event::Join(6, modern), 0);
    assert_eq!(m.on(Event::Join(7, join("c-a")), 1), []);
    assert_eq!(m.on(Event::Join(8, join("c-b")), 1), []);
    let effects = m.on(Event::Leave(9, vec![("c-x".into(), None)]), 2);
    assert_eq!(joined(&effects).len(), 2);
    assert_eq!(effects.last(), Some(&Effect::Left(9, vec![Ok(())])));
}

#[test]
fn what_a_join_is_refused_for() {
    for (change, expected) in [
        (
            Box::new(|j: &mut Join| j.session_timeout_ms = 5_999) as Box<dyn Fn(&mut Join)>,
            GroupError::InvalidSessionTimeout,
        ),
        (
            Box::new(|j| j.session_timeout_ms = 1_800_001),
            GroupError::InvalidSessionTimeout,
        ),
        (
            Box::new(|j| j.member_id = "c-z".into()),
            GroupError::UnknownMember,
        ),
        (
            Box::new(|j| j.protocol_type = "connect".into()),
            GroupError::InconsistentProtocol,
        ),
        (
            Box::new(|j| j.protocol_type = String::new()),
            GroupError::InconsistentProtocol,
        ),
        (
            Box::new(|j| j.protocols[0].0 = "sticky".into()),
            GroupError::InconsistentProtocol,
        ),
        (
            Box::new(|j| j.protocols.clear()),
            GroupError::InconsistentProtocol,
        ),
        (
            Box::new(|j| j.protocols = vec![j.protocols[0].clone(); 65]),
            GroupError::InconsistentProtocol,
        ),
        (
            Box::new(|j| j.protocols[0].1 = Bytes::from(vec![0; 1_000])),
            GroupError::GroupFull,
        ),
    ] {
        let mut m = stable();
        let mut request = join_new("c");
        change(&mut request);
        assert_eq!(
            the_error(&m.on(Event::Join(9, request.clone()), 0)),
            expected,
            "{request:?}"
        );
        assert_eq!(m.state(), State::Stable);
    }
}

#[test]
fn a_full_group_takes_no_more() {
    let mut m = stable();
    assert_eq!(m.on(Event::Join(6, join_new("c")), 0), []);
    m.on(Event::Join(7, join("c-a")), 0);
    assert_eq!(joined(&m.on(Event::Join(8, join("c-b")), 0)).len(), 3);
    assert_eq!(
        the_error(&m.on(Event::Join(9, join_new("d")), 0)),
        GroupError::GroupFull
    );
    assert_eq!(beat(&mut m, "c-a", 3, 0), Ok(()));
}

#[test]
fn members_that_do_not_rejoin_in_time_are_dropped_and_the_leader_stays() {
    let mut m = stable();
    m.on(Event::Join(6, join_new("c")), 0);
    assert_eq!(
        beat(&mut m, "c-a", 2, 5_000),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(m.on(Event::Join(7, join("c-a")), 5_000), []);
    // `c-b` only heartbeats, and is alive by that until the rebalance timeout.
    for now in [9_000, 18_000] {
        assert_eq!(
            beat(&mut m, "c-b", 2, now),
            Err(GroupError::RebalanceInProgress)
        );
        assert_eq!(m.on(Event::Tick, now), []);
    }
    let answers = joined(&m.on(Event::Tick, 20_000));
    let leader = answers
        .iter()
        .find(|(token, _)| *token == 7)
        .unwrap()
        .1
        .clone()
        .unwrap();
    let members: Vec<_> = leader
        .members
        .iter()
        .map(|m| m.member_id.as_str())
        .collect();
    assert_eq!(members, ["c-a", "c-c"]);
    assert_eq!((leader.leader.as_str(), leader.generation), ("c-a", 3));
    assert_eq!(
        beat(&mut m, "c-b", 2, 20_000),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn lost_answers_are_repeated_and_changes_rebalance() {
    let mut m = stable();
    let again = joined(&m.on(Event::Join(6, join("c-b")), 0));
    assert_eq!(again[0].1.as_ref().unwrap().generation, 2);
    assert_eq!(m.state(), State::Stable);
    let mut changed = join("c-b");
    changed.protocols[0].1 = Bytes::from_static(b"other");
    assert_eq!(m.on(Event::Join(7, changed.clone()), 0), []);
    assert_eq!(m.state(), State::PreparingRebalance);
    assert_eq!(joined(&m.on(Event::Join(8, join("c-a")), 0)).len(), 2);
    // While completing: the same again is answered again, with everybody for the leader.
    let again = joined(&m.on(Event::Join(9, join("c-a")), 0));
    assert_eq!(again[0].1.as_ref().unwrap().members.len(), 2);
    assert_eq!(m.state(), State::CompletingRebalance);
    // A parked sync is answered when the rebalance begins anew.
    assert_eq!(m.on(Event::Sync(10, sync("c-a", 9, &[])), 0).len(), 1);
    assert_eq!(m.on(Event::Sync(11, sync("c-b", 3, &[])), 0), []);
    let effects = m.on(Event::Join(12, join("c-b")), 0);
    assert_eq!(
        synced(&effects),
        [(11, Err(GroupError::RebalanceInProgress))]
    );
}

#[test]
fn a_leader_that_rejoins_a_stable_group_rebalances_it() {
    let mut m = stable();
    assert_eq!(m.on(Event::Join(6, join("c-a")), 0), []);
    assert_eq!(m.state(), State::PreparingRebalance);
}

#[test]
fn a_join_that_is_repeated_while_parked_answers_the_first() {
    let mut m = stable();
    m.on(Event::Join(6, join("c-a")), 0);
    let effects = m.on(Event::Join(7, join("c-a")), 0);
    assert_eq!(
        joined(&effects),
        [(6, Err(GroupError::RebalanceInProgress))]
    );
}

#[test]
fn syncs() {
    let check = |change: fn(&mut Sync), expected: Result<&str, GroupError>| {
        let mut m = stable();
        let mut request = sync("c-b", 2, &[]);
        change(&mut request);
        let answers = synced(&m.on(Event::Sync(9, request), 0));
        let expected = expected.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(answers, [(9, expected)]);
    };
    check(|_| (), Ok("B"));
    check(|s| s.protocol = Some("range".into()), Ok("B"));
    check(|s| s.protocol_type = Some("consumer".into()), Ok("B"));
    check(
        |s| s.protocol = Some("x".into()),
        Err(GroupError::InconsistentProtocol),
    );
    check(
        |s| s.protocol_type = Some("x".into()),
        Err(GroupError::InconsistentProtocol),
    );
    check(|s| s.generation = 1, Err(GroupError::IllegalGeneration));
    check(
        |s| s.member_id = "c-x".into(),
        Err(GroupError::UnknownMember),
    );
    check(
        |s| s.instance_id = Some("i".into()),
        Err(GroupError::UnknownMember),
    );

    let mut m = stable();
    m.on(Event::Join(6, join("c-a")), 0);
    let answers = synced(&m.on(Event::Sync(7, sync("c-b", 2, &[])), 0));
    assert_eq!(answers, [(7, Err(GroupError::RebalanceInProgress))]);
}

#[test]
fn whom_the_leader_leaves_out_gets_nothing_and_strangers_are_ignored() {
    let mut m = stable();
    m.on(Event::Join(6, join("c-a")), 0);
    m.on(Event::Join(7, join("c-b")), 0);
    m.on(Event::Sync(8, sync("c-b", 3, &[])), 0);
    let effects = m.on(
        Event::Sync(9, sync("c-a", 3, &[("c-a", "AA"), ("c-z", "Z")])),
        0,
    );
    let expected = [(9, Ok(Bytes::from_static(b"AA"))), (8, Ok(Bytes::new()))];
    assert_eq!(synced(&effects), expected);
}

#[test]
fn members_that_never_sync_are_evicted() {
    let mut m = stable();
    m.on(Event::Join(6, join("c-a")), 0);
    m.on(Event::Join(7, join("c-b")), 0);
    m.on(Event::Sync(8, sync("c-a", 3, &[])), 0);
    assert_eq!(m.state(), State::Stable);
    for now in [9_000, 18_000] {
        assert_eq!(beat(&mut m, "c-a", 3, now), Ok(()));
        assert_eq!(beat(&mut m, "c-b", 3, now), Ok(()));
    }
    m.on(Event::Tick, 20_000);
    assert_eq!(m.state(), State::PreparingRebalance);
    assert_eq!(
        beat(&mut m, "c-b", 3, 20_000),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        beat(&mut m, "c-a", 3, 20_000),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn silence_ends_a_session() {
    let mut m = stable();
    assert_eq!(beat(&mut m, "c-a", 2, 9_999), Ok(()));
    assert_eq!(m.on(Event::Tick, 9_999), []);
    m.on(Event::Tick, 10_000);
    assert_eq!(m.state(), State::PreparingRebalance);
    assert_eq!(
        beat(&mut m, "c-b", 2, 10_000),
        Err(GroupError::UnknownMember)
    );
    // The last one goes too: the group is stored as empty.
    let effects = m.on(Event::Tick, 19_999);
    assert_eq!(m.state(), State::Empty);
    match effects.as_slice() {
        [Effect::Persist(group)] => {
            assert_eq!((group.generation, group.members.len()), (3, 0));
            assert_eq!((&group.leader, &group.protocol), (&None, &None));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(m.wake_at(), None);
}

#[test]
fn time_in_which_nothing_could_be_handled_ends_no_session() {
    let mut m = stable();
    m.defer(60_000);
    assert_eq!(m.on(Event::Tick, 69_999), []);
    assert_eq!(m.wake_at(), Some(70_000));
}

#[test]
fn heartbeats() {
    let mut m = stable();
    assert_eq!(beat(&mut m, "c-a", 2, 0), Ok(()));
    assert_eq!(
        beat(&mut m, "c-a", 1, 0),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(beat(&mut m, "c-x", 2, 0), Err(GroupError::UnknownMember));
    m.on(Event::Join(6, join("c-a")), 0);
    assert_eq!(
        beat(&mut m, "c-a", 2, 0),
        Err(GroupError::RebalanceInProgress)
    );
    m.on(Event::Join(7, join("c-b")), 0);
    assert_eq!(beat(&mut m, "c-a", 3, 0), Ok(()));
    assert_eq!(
        beat(&mut machine(0), "c-a", 0, 0),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn leaving() {
    let mut m = stable();
    let members = vec![("c-x".into(), None), ("c-b".into(), None)];
    let effects = m.on(Event::Leave(6, members), 0);
    assert_eq!(
        effects,
        [Effect::Left(
            6,
            vec![Err(GroupError::UnknownMember), Ok(())]
        )]
    );
    assert_eq!(m.state(), State::PreparingRebalance);
    // The answer to the last one that leaves waits until the group is stored as empty.
    let effects = m.on(Event::Leave(7, vec![("c-a".into(), None)]), 0);
    assert!(matches!(effects[0], Effect::Persist(_)), "{effects:?}");
    assert_eq!(effects[1], Effect::Left(7, vec![Ok(())]));
}

/// A stable group of the static members `i` (leader, id `i-a`) and `j` (id `j-b`), generation 2.
fn stable_static() -> Machine {
    let mut m = machine(0);
    m.on(Event::Join(1, join_static("i", "a")), 0);
    m.on(Event::Join(2, join_static("j", "b")), 0);
    let again = Join {
        instance_id: Some("i".into()),
        ..join("i-a")
    };
    assert_eq!(joined(&m.on(Event::Join(3, again), 0)).len(), 2);
    m.on(Event::Sync(4, sync("j-b", 2, &[])), 0);
    m.on(
        Event::Sync(5, sync("i-a", 2, &[("i-a", "A"), ("j-b", "B")])),
        0,
    );
    assert_eq!(m.state(), State::Stable);
    m
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut m = stable_static();
    let effects = m.on(Event::Join(6, join_static("j", "new")), 0);
    let Effect::Persist(group) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert!(group.members.contains_key("j-new") && !group.members.contains_key("j-b"));
    let answer = joined(&effects)[0].1.clone().unwrap();
    assert_eq!((answer.generation, answer.member_id.as_str()), (2, "j-new"));
    assert_eq!(
        (answer.leader.as_str(), answer.skip_assignment),
        ("i-a", false)
    );
    assert_eq!(m.state(), State::Stable);
    let fenced = Event::Heartbeat {
        token: 7,
        member_id: "j-b".into(),
        instance_id: Some("j".into()),
        generation: 2,
    };
    assert_eq!(
        m.on(fenced, 0),
        [Effect::Heartbeat(7, Err(GroupError::FencedInstance))]
    );
    let answers = synced(&m.on(Event::Sync(8, sync("j-new", 2, &[])), 0));
    assert_eq!(answers, [(8, Ok(Bytes::from_static(b"B")))]);
    let old = Join {
        instance_id: Some("j".into()),
        ..join("j-b")
    };
    assert_eq!(
        the_error(&m.on(Event::Join(9, old), 0)),
        GroupError::FencedInstance
    );
}

#[test]
fn a_static_leader_that_comes_back_need_not_assign() {
    let mut m = stable_static();
    let answer = joined(&m.on(Event::Join(6, join_static("i", "new")), 0))[0]
        .1
        .clone()
        .unwrap();
    assert_eq!(
        (answer.leader.as_str(), answer.skip_assignment),
        ("i-new", true)
    );
    assert_eq!(answer.members.len(), 2);

    // A client that cannot skip is not told that it leads.
    let mut m = stable_static();
    let old = Join {
        can_skip_assignment: false,
        ..join_static("i", "new")
    };
    let answer = joined(&m.on(Event::Join(6, old), 0))[0].1.clone().unwrap();
    assert_eq!(
        (answer.leader.as_str(), answer.skip_assignment),
        ("i-a", false)
    );
    assert!(answer.members.is_empty());
    let answers = synced(&m.on(Event::Sync(7, sync("i-new", 2, &[])), 0));
    assert_eq!(answers, [(7, Ok(Bytes::from_static(b"A")))]);
}

#[test]
fn a_static_member_that_takes_the_place_of_one_that_waits_fences_it() {
    let mut m = stable_static();
    let again = Join {
        instance_id: Some("i".into()),
        ..join("i-a")
    };
    m.on(Event::Join(6, again), 0);
    let effects = m.on(Event::Join(7, join_static("i", "new")), 0);
    assert_eq!(joined(&effects), [(6, Err(GroupError::FencedInstance))]);
}

#[test]
fn static_members_stay_through_a_rebalance_they_miss_until_their_session_ends() {
    let mut m = stable_static();
    let again = Join {
        instance_id: Some("i".into()),
        ..join("i-a")
    };
    m.on(Event::Join(6, again), 5_000);
    // The session of `j` is over before the rebalance timeout.
    let answers = joined(&m.on(Event::Tick, 10_000));
    assert_eq!(answers[0].1.as_ref().unwrap().members.len(), 1);

    let mut m = stable_static();
    let heartbeat = |now| {
        let event = Event::Heartbeat {
            token: 0,
            member_id: "j-b".into(),
            instance_id: Some("j".into()),
            generation: 2,
        };
        (event, now)
    };
    let again = Join {
        instance_id: Some("i".into()),
        ..join("i-a")
    };
    m.on(Event::Join(6, again), 0);
    for now in [8_000, 16_000] {
        let (event, now) = heartbeat(now);
        m.on(event, now);
    }
    let answers = joined(&m.on(Event::Tick, 20_000));
    assert_eq!(answers[0].1.as_ref().unwrap().members.len(), 2);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut m = stable_static();
    let members = vec![
        (String::new(), Some("j".into())),
        (String::new(), Some("k".into())),
    ];
    let effects = m.on(Event::Leave(6, members), 0);
    assert_eq!(
        effects,
        [Effect::Left(
            6,
            vec![Ok(()), Err(GroupError::UnknownMember)]
        )]
    );
    assert_eq!(m.state(), State::PreparingRebalance);
}

#[test]
fn a_loaded_group_goes_on_with_fresh_sessions() {
    let image = stable_static().image();
    let mut m = Machine::load(LIMITS, &image, 100_000);
    assert_eq!(m.image(), image);
    assert_eq!(m.state(), State::Stable);
    assert_eq!(m.wake_at(), Some(110_000));
    assert_eq!(beat(&mut m, "i-a", 2, 109_000), Ok(()));
    let answers = synced(&m.on(Event::Sync(1, sync("j-b", 2, &[])), 109_000));
    assert_eq!(answers, [(1, Ok(Bytes::from_static(b"B")))]);
    let answer = joined(&m.on(Event::Join(2, join_static("j", "new")), 109_000))[0]
        .1
        .clone();
    assert_eq!(answer.unwrap().generation, 2);
}

#[test]
fn who_may_commit() {
    let mut m = machine(0);
    assert_eq!(m.check_commit("", None, -1, 0), Ok(None));
    assert_eq!(
        m.check_commit("c-a", None, 3, 0),
        Err(GroupError::UnknownMember)
    );
    let mut m = stable();
    assert_eq!(
        m.check_commit("c-a", None, 2, 0),
        Ok(Some((2, "c-a".into())))
    );
    for (id, instance, generation, expected) in [
        ("", None, -1, GroupError::UnknownMember),
        ("c-a", None, 1, GroupError::IllegalGeneration),
        ("c-a", None, -1, GroupError::IllegalGeneration),
        ("c-x", None, 2, GroupError::UnknownMember),
        ("c-a", Some("i"), 2, GroupError::UnknownMember),
    ] {
        assert_eq!(
            m.check_commit(id, instance, generation, 0),
            Err(expected),
            "{id} {generation}"
        );
    }
    m.on(Event::Join(6, join("c-a")), 0);
    assert_eq!(
        m.check_commit("c-b", None, 2, 0),
        Ok(Some((2, "c-b".into())))
    );
    m.on(Event::Join(7, join("c-b")), 0);
    assert_eq!(
        m.check_commit("c-b", None, 3, 0),
        Err(GroupError::RebalanceInProgress)
    );
    let mut m = stable_static();
    let fenced = m.check_commit("old", Some("i"), 2, 0);
    assert_eq!(fenced, Err(GroupError::FencedInstance));
}

#[test]
fn the_protocol_with_the_most_votes_among_common_ones_wins() {
    let offer = |names: &[&str]| -> Vec<(String, Bytes)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Bytes::new()))
            .collect()
    };
    for (offers, expected) in [
        (
            [
                &["range", "sticky"][..],
                &["sticky", "range"],
                &["sticky", "range"],
            ],
            "sticky",
        ),
        (
            [
                &["only-a", "range", "sticky"],
                &["sticky", "range"],
                &["range", "sticky"],
            ],
            "range",
        ),
        ([&["x", "y", "z"], &["y", "x", "z"], &["z", "x", "y"]], "x"),
    ] {
        let mut m = machine(3_000);
        for (i, names) in offers.iter().enumerate() {
            let request = Join {
                protocols: offer(names),
                ..join_new(&i.to_string())
            };
            assert_eq!(m.on(Event::Join(i as Token, request), 0), []);
        }
        m.on(Event::Tick, 3_000);
        let answers = joined(&m.on(Event::Tick, 6_000));
        assert_eq!(answers.len(), 3);
        for (_, answer) in answers {
            assert_eq!(answer.unwrap().protocol, expected, "{offers:?}");
        }
    }
}
