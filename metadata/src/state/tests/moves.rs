//! Extents that move from a write-ahead log to a segment.

use frazil_core::ports::{Move, SegmentStatus};

use super::*;

const P: fn() -> TopicPartition = || partition(1, 0);

fn relocation(gateway: Gateway, base: i64, end: i64, to: Location) -> Commit {
    let Location::Segment { id, .. } = to else {
        panic!("not a segment: {to:?}");
    };
    Commit {
        segments: vec![SegmentInfo { id, bytes: 1_000 }],
        moves: vec![Move {
            partition: P(),
            base: Offset(base),
            end: Offset(end),
            to,
        }],
        ..gateway.commit(vec![])
    }
}

/// Three appends of the gateway to its write-ahead log: 0..2, 2..3, 3..6.
fn three_appends() -> (World, Gateway) {
    let (mut world, gateway) = World::with_gateway();
    world.append(gateway, P(), gateway.in_wal(0, 20), &[plain(2)]);
    world.append(gateway, P(), gateway.in_wal(100, 10), &[plain(1)]);
    world.append(gateway, P(), gateway.in_wal(200, 30), &[plain(3)]);
    (world, gateway)
}

#[test]
fn moved_extents_become_one_and_join_their_neighbours() {
    let (mut world, gateway) = three_appends();
    world.commit(relocation(gateway, 0, 2, gateway.in_segment(0, 8, 20)));
    assert_eq!(
        world.extents(P()),
        [
            "0..2 segment 0: 8+20",
            "2..3 wal: 100+10",
            "3..6 wal: 200+30"
        ]
    );
    let (_, changes) = world.apply_with_changes(Command::Commit(relocation(
        gateway,
        2,
        6,
        gateway.in_segment(0, 28, 40),
    )));
    assert_eq!(changes.partitions, [P()]);
    assert_eq!(world.extents(P()), ["0..6 segment 0: 8+60"]);
    assert_eq!(world.state.wal_extents(gateway.id), []);
    assert_eq!(world.bounds(P()), (0, 6));
}

#[test]
fn a_repeated_move_changes_nothing_and_its_segment_is_collected() {
    let (mut world, gateway) = three_appends();
    let first = relocation(gateway, 0, 6, gateway.in_segment(0, 0, 60));
    world.commit(first.clone());
    let again = relocation(gateway, 0, 6, gateway.in_segment(1, 0, 60));
    for commit in [first, again] {
        let (outcome, changes) = world.apply_with_changes(Command::Commit(commit));
        assert!(matches!(outcome, Outcome::Committed(_)));
        assert_eq!(changes, Changes::default());
        assert_eq!(world.extents(P()), ["0..6 segment 0: 0+60"]);
    }
    assert_eq!(world.state.segment(gateway.segment(0)), SegmentStatus::Live);
    assert_eq!(
        world.state.segment(gateway.segment(1)),
        SegmentStatus::Retired
    );
}

#[test]
fn what_lies_below_the_log_start_is_dropped() {
    let (mut world, gateway) = three_appends();
    world.delete_records(P(), 2);
    world.commit(relocation(gateway, 0, 6, gateway.in_segment(0, 1_000, 60)));
    assert_eq!(world.extents(P()), ["2..6 segment 0: 1020+40"]);

    let (mut world, gateway) = three_appends();
    world.delete_records(P(), 6);
    world.commit(relocation(gateway, 0, 6, gateway.in_segment(0, 0, 60)));
    assert_eq!(world.extents(P()), [""; 0]);
    assert_eq!(
        world.state.segment(gateway.segment(0)),
        SegmentStatus::Retired
    );
}

#[test]
fn a_deleted_topic_is_no_reason_to_refuse() {
    let (mut world, gateway) = three_appends();
    world.apply(Command::DeleteTopic { id: topic_id(1) });
    let outcomes = world.commit(relocation(gateway, 0, 6, gateway.in_segment(0, 0, 60)));
    assert_eq!(outcomes, []);
    assert_eq!(
        world.state.segment(gateway.segment(0)),
        SegmentStatus::Retired
    );
}

#[test]
fn a_restarted_gateway_moves_what_it_wrote_before() {
    let (mut world, old) = three_appends();
    let new = world.register(Some(old.id), 2);
    let expected = world.state.wal_extents(new.id);
    assert_eq!(expected.len(), 3);
    world.commit(relocation(new, 0, 6, new.in_segment(0, 0, 60)));
    assert_eq!(world.extents(P()), ["0..6 segment 0: 0+60"]);
}

#[test]
fn a_move_that_cannot_be_right_changes_nothing() {
    let (mut world, gateway) = three_appends();
    let other = world.register(None, 2);
    world.append(other, P(), other.in_wal(0, 10), &[plain(1)]);
    let sealed = Commit {
        sealed_below: 5,
        ..gateway.commit(vec![])
    };
    world.commit(sealed);
    let before = world.extents(P());
    for commit in [
        // Cuts the last, the first extent.
        relocation(gateway, 0, 4, gateway.in_segment(9, 0, 40)),
        relocation(gateway, 1, 6, gateway.in_segment(9, 0, 50)),
        // Other numbers of bytes.
        relocation(gateway, 0, 6, gateway.in_segment(9, 0, 59)),
        relocation(gateway, 0, 6, gateway.in_segment(9, 0, 61)),
        // Beyond the end; into another gateway's extent; nothing at all.
        relocation(gateway, 3, 7, gateway.in_segment(9, 0, 40)),
        relocation(other, 3, 7, other.in_segment(9, 0, 40)),
        relocation(gateway, 2, 2, gateway.in_segment(9, 0, 10)),
        relocation(gateway, -1, 2, gateway.in_segment(9, 0, 20)),
        // A segment that is finished, or of another registration.
        relocation(gateway, 0, 2, gateway.in_segment(4, 0, 20)),
        relocation(gateway, 0, 2, other.in_segment(9, 0, 20)),
    ] {
        let outcome = world.apply(Command::Commit(commit.clone()));
        assert!(
            matches!(outcome, Outcome::Invalid(_)),
            "{commit:?}: {outcome:?}"
        );
        assert_eq!(world.extents(P()), before);
        assert_eq!(world.state.counts().segments, 0);
    }
    let mut to_wal = relocation(gateway, 0, 2, gateway.in_segment(9, 0, 20));
    to_wal.moves[0].to = gateway.in_wal(0, 20);
    assert!(matches!(
        world.apply(Command::Commit(to_wal)),
        Outcome::Invalid(_)
    ));
}

#[test]
fn another_gateways_extents_stay_where_they_are() {
    let (mut world, gateway) = three_appends();
    let other = world.register(None, 2);
    let (outcome, changes) = world.apply_with_changes(Command::Commit(relocation(
        other,
        0,
        6,
        other.in_segment(0, 0, 60),
    )));
    assert!(matches!(outcome, Outcome::Committed(_)));
    assert_eq!(changes.partitions, []);
    assert_eq!(world.state.wal_extents(gateway.id).len(), 3);
}
