//! Gateways come, go, and come back.

use super::*;
use crate::command::GatewayRefusal;

fn live(world: &World) -> Vec<i32> {
    world
        .state
        .brokers()
        .iter()
        .map(|broker| broker.id.0)
        .collect()
}

#[test]
fn ids_are_fresh_unless_the_disk_remembers_one() {
    let mut world = World::new();
    assert_eq!(world.register(None, 1).id, BrokerId(1));
    assert_eq!(world.register(None, 2).id, BrokerId(2));
    assert_eq!(world.register(Some(BrokerId(7)), 3).id, BrokerId(7));
    assert_eq!(world.register(None, 4).id, BrokerId(8));
    assert_eq!(world.register(Some(BrokerId(-3)), 5).id, BrokerId(9));
    assert_eq!(world.register(Some(BrokerId(i32::MAX)), 6).id, BrokerId(10));
    assert_eq!(live(&world), [1, 2, 7, 8, 9, 10]);
}

#[test]
fn reserved_ids_are_not_given_out_and_may_be_asked_for() {
    let mut world = World::new();
    assert_eq!(world.register(Some(BrokerId(3)), 1).id, BrokerId(3));
    let reserve = |below| Command::ReserveBrokerIds { below };
    assert_eq!(world.apply(reserve(1001)), Outcome::Done);
    assert_eq!(world.register(None, 2).id, BrokerId(1001));
    // It is not taken back.
    world.apply(reserve(5));
    assert_eq!(world.register(None, 3).id, BrokerId(1002));
    assert_eq!(world.register(Some(BrokerId(4)), 4).id, BrokerId(4));
    // Nor can it use them up.
    world.apply(reserve(i32::MAX));
    assert_eq!(world.register(None, 5).id, BrokerId(1 << 16));
    world.state.check().unwrap();
}

#[test]
fn a_process_that_asks_again_gets_the_same_answer() {
    let mut world = World::new();
    let first = world.register(None, 1);
    assert_eq!(world.register(None, 1), first);
    assert_eq!(world.register(Some(first.id), 1), first);
    let restarted = world.register(Some(first.id), 2);
    assert_eq!(restarted.id, first.id);
    assert!(restarted.epoch > first.epoch);
    world.apply(Command::SealEpoch {
        epoch: restarted.epoch,
    });
    let again = world.register(Some(first.id), 2);
    assert!(again.epoch > restarted.epoch);
}

#[test]
fn leases_run_out_by_the_states_time() {
    let mut world = World::new();
    let first = world.register(None, 1);
    world.now_ms += 4_000;
    let second = world.register(None, 2);
    world.now_ms += 5_999;
    let heartbeat = |gateway: Gateway| Command::Heartbeat {
        broker: gateway.id,
        epoch: gateway.epoch,
        lease_ms: 10_000,
    };
    let (_, changes) = world.apply_with_changes(heartbeat(second));
    assert!(!changes.catalog);
    assert_eq!(live(&world), [1, 2]);
    world.now_ms += 1;
    let (_, changes) = world.apply_with_changes(heartbeat(second));
    assert!(changes.catalog, "the first one's lease ran out");
    assert_eq!(live(&world), [2]);
    // It is not fenced: it commits, and is live again with its next heartbeat.
    assert_eq!(world.commit(first.commit(vec![])), []);
    let (outcome, changes) = world.apply_with_changes(heartbeat(first));
    assert_eq!(outcome, Outcome::Done);
    assert!(changes.catalog);
    assert_eq!(live(&world), [1, 2]);
}

#[test]
fn a_clock_that_goes_back_is_not_followed() {
    let mut world = World::new();
    world.register(None, 1);
    world.now_ms += 60_000;
    world.apply(Command::ClaimCollector);
    world.now_ms -= 55_000;
    world.apply(Command::ClaimCollector);
    assert_eq!(world.state.now_ms(), 61_000);
    assert_eq!(live(&world), [0; 0]);
}

#[test]
fn a_draining_gateway_may_commit_one_that_left_may_not() {
    let mut world = World::new();
    let gateway = world.register(None, 1);
    let Gateway { id: broker, epoch } = gateway;
    assert_eq!(world.apply(Command::Drain { broker, epoch }), Outcome::Done);
    assert_eq!(live(&world), [0; 0]);
    assert_eq!(world.commit(gateway.commit(vec![])), []);
    assert_eq!(world.apply(Command::Leave { broker, epoch }), Outcome::Done);
    let commit = Command::Commit(gateway.commit(vec![]));
    assert_eq!(world.apply(commit), Outcome::Fenced);
    for late in [
        Command::Heartbeat {
            broker,
            epoch,
            lease_ms: 1,
        },
        Command::Drain { broker, epoch },
        Command::Leave { broker, epoch },
    ] {
        assert_eq!(world.apply(late), Outcome::Fenced);
    }
}

#[test]
fn the_departed_are_forgotten_unless_they_hold_data() {
    let (mut world, gateway) = World::with_gateway();
    let other = world.register(None, 2);
    world.append(gateway, partition(1, 0), gateway.in_wal(0, 10), &[plain(1)]);
    for Gateway { id: broker, epoch } in [gateway, other] {
        world.apply(Command::Leave { broker, epoch });
    }
    let expire = |producers_before_ms| Command::Expire {
        producers_before_ms,
        offsets_before_ms: 0,
    };
    let lease_end = world.now_ms + 10_000;
    world.apply(expire(lease_end));
    assert!(world.state.registration(other.id).is_some());
    world.apply(expire(lease_end + 1));
    assert!(world.state.registration(other.id).is_none());
    assert!(world.state.registration(gateway.id).is_some());
    // The id stays used, and the epoch sealed.
    assert_eq!(world.register(None, 3).id, BrokerId(3));
    let commit = Command::Commit(other.commit(vec![]));
    assert_eq!(world.apply(commit), Outcome::Fenced);
}

#[test]
fn a_lapsed_gateway_whose_write_ahead_log_is_needed_is_not_given_up() {
    let (mut world, gateway) = World::with_gateway();
    let lease_end = world.now_ms + 10_000;
    let location = gateway.in_wal(0, 20);
    world.append(gateway, partition(1, 0), location, &[plain(2)]);
    assert_eq!(world.state.lapsed_epochs(lease_end + 1), []);
    world.apply(Command::DeleteTopic {
        id: partition(1, 0).topic,
    });
    assert_eq!(
        world.state.lapsed_epochs(lease_end + 1),
        [(gateway.epoch, lease_end)]
    );
}

#[test]
fn epochs_that_lapsed_can_be_found_and_sealed() {
    let mut world = World::new();
    let lost = world.register(None, 1);
    let lease_end = world.now_ms + 10_000;
    world.now_ms += 5_000;
    world.register(None, 2);
    assert_eq!(world.state.lapsed_epochs(lease_end), []);
    assert_eq!(
        world.state.lapsed_epochs(lease_end + 1),
        [(lost.epoch, lease_end)]
    );
    world.apply(Command::SealEpoch { epoch: lost.epoch });
    assert_eq!(world.state.lapsed_epochs(lease_end + 1), []);
}

#[test]
fn gateways_reach_each_other_until_their_registration_ends() {
    let mut world = World::new();
    let [staying, draining, leaving] = [1, 2, 3].map(|n| world.register(None, n));
    let of = |gateway: &Gateway| (gateway.id, gateway.epoch);
    world.apply(Command::Drain {
        broker: draining.id,
        epoch: draining.epoch,
    });
    world.apply(Command::Leave {
        broker: leaving.id,
        epoch: leaving.epoch,
    });
    let seen = |world: &World| -> Vec<_> {
        let all = world.state.gateways();
        all.iter().map(|g| ((g.id, g.epoch), g.live)).collect()
    };
    // One that drains still has what only its log has.
    let expected = [(of(&staying), true), (of(&draining), false)];
    assert_eq!(seen(&world), expected);
    assert!(!world.state.gateways()[0].address.is_empty());
    let again = world.register(Some(draining.id), 4);
    assert_eq!(seen(&world)[1], (of(&again), true), "one registration each");
}

#[test]
fn what_a_lost_log_held_is_given_up_only_when_that_is_accepted() {
    let (mut world, gateway) = World::with_gateway();
    world.apply(Command::RaiseLevel { level: 2 });
    let other = world.register(None, 2);
    let p = partition(1, 0);
    world.append(gateway, p, gateway.in_wal(0, 20), &[plain(2)]);
    world.append(other, p, other.in_wal(0, 10), &[plain(1)]);
    world.append(gateway, p, gateway.in_wal(20, 10), &[plain(1)]);
    world.append(gateway, p, gateway.in_wal(50, 10), &[plain(1)]);
    let forget = |epoch, accept_loss| Command::ForgetGateway {
        broker: gateway.id,
        epoch,
        accept_loss,
    };
    let refused = |why| Outcome::Gateway(Err(why));
    assert_eq!(
        world.apply(forget(gateway.epoch, true)),
        refused(GatewayRefusal::Live)
    );
    world.apply(Command::Lapse {
        broker: gateway.id,
        epoch: gateway.epoch,
    });
    assert_eq!(
        world.apply(forget(other.epoch, true)),
        refused(GatewayRefusal::Superseded)
    );
    let stranger = Command::ForgetGateway {
        broker: BrokerId(99),
        epoch: gateway.epoch,
        accept_loss: true,
    };
    assert_eq!(world.apply(stranger), refused(GatewayRefusal::Unknown));
    // Sealed, and everything is still expected of it.
    assert_eq!(
        world.apply(forget(gateway.epoch, false)),
        Outcome::Gateway(Ok(()))
    );
    assert_eq!(
        world.apply(Command::Commit(gateway.commit(vec![]))),
        Outcome::Fenced
    );
    assert_eq!(world.state.wal_extents(gateway.id).len(), 3);
    let (outcome, changes) = world.apply_with_changes(forget(gateway.epoch, true));
    assert_eq!(outcome, Outcome::Gateway(Ok(())));
    assert_eq!(changes.partitions, [p]);
    assert_eq!(
        world.extents(p),
        ["0..2 lost", "2..3 wal: 0+10", "3..5 lost"]
    );
    assert_eq!((world.bounds(p), world.state.size_bytes(&p)), ((0, 5), 10));
    world.state.check().unwrap();
    // No time and no record is found in what is lost.
    assert_eq!(base(world.state.locate_time(&p, Offset(0), 0)), Some(2));
    assert_eq!(base(world.state.locate_max_timestamp(&p)), Some(2));
    // Nothing is expected any more: it can be forgotten.
    world.apply(Command::Expire {
        producers_before_ms: world.now_ms + 1,
        offsets_before_ms: 0,
    });
    assert!(world.state.registration(gateway.id).is_none());
    assert!(world.state.registration(other.id).is_some());
    // What comes behind is appended as ever, and retention passes over the lost.
    world.apply(Command::RaiseLogStarts {
        to: vec![(p, Offset(4))],
    });
    assert_eq!(world.extents(p), ["3..5 lost"]);
    assert_eq!((world.bounds(p), world.state.size_bytes(&p)), ((4, 5), 0));
}

#[test]
fn a_gateway_gives_up_what_it_has_not_found_and_keeps_the_rest() {
    let (mut world, gateway) = World::with_gateway();
    world.apply(Command::RaiseLevel { level: 2 });
    let p = partition(1, 0);
    for start in [0, 20, 40] {
        world.append(gateway, p, gateway.in_wal(start, 20), &[plain(2)]);
    }
    let restarted = world.register(Some(gateway.id), 9);
    let give_up = |gateway: Gateway, base, end| Command::GiveUpWal {
        broker: gateway.id,
        epoch: gateway.epoch,
        lost: vec![
            (p, Offset(base), Offset(end)),
            (partition(9, 9), Offset(0), Offset(9)),
        ],
    };
    assert_eq!(world.apply(give_up(gateway, 0, 6)), Outcome::Fenced);
    // Never a part of an extent.
    assert_eq!(world.apply(give_up(restarted, 1, 5)), Outcome::Done);
    assert_eq!(
        world.extents(p),
        ["0..2 wal: 0+20", "2..4 lost", "4..6 wal: 40+20"]
    );
    assert_eq!(world.apply(give_up(restarted, 4, 6)), Outcome::Done);
    assert_eq!(world.extents(p), ["0..2 wal: 0+20", "2..6 lost"]);
    assert_eq!(world.state.wal_extents(gateway.id).len(), 1);
    world.state.check().unwrap();
}
