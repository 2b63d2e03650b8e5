//! Log starts that rise, segments that retire, objects that may go.

use frazil_core::ports::{BatchOutcome, BatchRefusal, CatalogRefusal, SegmentStatus};

use super::*;

const P: fn() -> TopicPartition = || partition(1, 0);

fn claim(world: &mut World) -> u64 {
    match world.apply(Command::ClaimCollector) {
        Outcome::CollectorClaimed(epoch) => epoch,
        other => panic!("{other:?}"),
    }
}

/// Two segments of three records each, both at log offsets 0..6 of one partition.
fn two_segments() -> (World, Gateway) {
    let (mut world, gateway) = World::with_gateway();
    world.append(gateway, P(), gateway.in_segment(0, 0, 30), &[plain(3)]);
    world.append(gateway, P(), gateway.in_segment(1, 0, 30), &[plain(3)]);
    (world, gateway)
}

#[test]
fn whole_extents_below_the_log_start_go() {
    let (mut world, gateway) = two_segments();
    let deleted = |offset| Outcome::RecordsDeleted(Ok(Offset(offset)));
    assert_eq!(world.delete_records(P(), 2), deleted(2));
    assert_eq!(world.bounds(P()), (2, 6));
    assert_eq!(world.extents(P()).len(), 2);
    world.now_ms += 5;
    assert_eq!(world.delete_records(P(), 3), deleted(3));
    assert_eq!(world.extents(P()), ["3..6 segment 1: 0+30"]);
    assert_eq!(
        world.state.retired_segments(9),
        [(gateway.segment(0), world.now_ms)]
    );
    assert_eq!(world.delete_records(P(), 1), deleted(3));
    assert_eq!(
        world.apply(Command::DeleteRecords {
            partition: P(),
            to: None
        }),
        deleted(6)
    );
    assert_eq!(world.bounds(P()), (6, 6));
    assert_eq!(world.state.size_bytes(&P()), 0);
    assert_eq!(
        world.append(gateway, P(), gateway.in_segment(2, 0, 10), &[plain(1)]),
        [appended(6)]
    );
}

#[test]
fn offsets_outside_the_log_are_refused() {
    let (mut world, _) = two_segments();
    let refused = |refusal| Outcome::RecordsDeleted(Err(refusal));
    assert_eq!(
        world.delete_records(P(), 7),
        refused(CatalogRefusal::OffsetOutOfRange)
    );
    assert_eq!(
        world.delete_records(P(), -2),
        refused(CatalogRefusal::OffsetOutOfRange)
    );
    assert_eq!(
        world.delete_records(partition(1, 7), 0),
        refused(CatalogRefusal::UnknownTopic)
    );
}

#[test]
fn retention_raises_many_log_starts_and_cuts_what_is_too_high() {
    let (mut world, _) = two_segments();
    let (outcome, changes) = world.apply_with_changes(Command::RaiseLogStarts {
        to: vec![
            (partition(9, 0), Offset(5)),
            (P(), Offset(100)),
            (P(), Offset(2)),
            (partition(1, 1), Offset(3)),
        ],
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(changes.partitions, [P()]);
    assert_eq!(world.bounds(P()), (6, 6));
    assert_eq!(world.bounds(partition(1, 1)), (0, 0));
    assert_eq!(world.state.counts().retired_segments, 2);
}

#[test]
fn a_segment_shared_by_partitions_lives_as_long_as_the_last() {
    let (mut world, gateway) = World::with_gateway();
    for (index, start) in [(0, 0), (1, 10)] {
        let location = gateway.in_segment(0, start, 10);
        world.append(gateway, partition(1, index), location, &[plain(1)]);
    }
    world.append(
        gateway,
        partition(2, 0),
        gateway.in_segment(0, 20, 10),
        &[plain(1)],
    );
    world.delete_records(partition(1, 0), 1);
    assert_eq!(world.state.segment(gateway.segment(0)), SegmentStatus::Live);
    let (_, changes) = world.apply_with_changes(Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(changes.partitions, [partition(1, 0), partition(1, 1)]);
    assert!(changes.catalog);
    assert_eq!(world.state.segment(gateway.segment(0)), SegmentStatus::Live);
    world.delete_records(partition(2, 0), 1);
    assert_eq!(
        world.state.segment(gateway.segment(0)),
        SegmentStatus::Retired
    );
}

#[test]
fn only_the_newest_collector_forgets_and_only_what_is_retired() {
    let (mut world, gateway) = two_segments();
    world.delete_records(P(), 3);
    let old = claim(&mut world);
    let new = claim(&mut world);
    let forget = |collector| Command::ForgetSegments {
        collector,
        ids: vec![gateway.segment(0), gateway.segment(1), gateway.segment(9)],
    };
    for wrong in [0, old, new + 1] {
        assert_eq!(world.apply(forget(wrong)), Outcome::Forgotten(false));
        assert_eq!(world.state.retired_segments(9).len(), 1);
    }
    assert_eq!(world.apply(forget(new)), Outcome::Forgotten(true));
    assert_eq!(world.state.retired_segments(9), []);
    assert_eq!(
        world.state.segment(gateway.segment(0)),
        SegmentStatus::Orphan
    );
    assert_eq!(world.state.segment(gateway.segment(1)), SegmentStatus::Live);
    assert_eq!(
        world.state.segment(gateway.segment(9)),
        SegmentStatus::Pending
    );
}

#[test]
fn a_collected_segment_cannot_come_back() {
    let (mut world, gateway) = two_segments();
    world.delete_records(P(), 3);
    let sealed = [BatchOutcome::Refused(BatchRefusal::SealedSegment)];
    let location = gateway.in_segment(0, 0, 10);
    assert_eq!(
        world.append(gateway, P(), location, &[plain(1)]),
        sealed,
        "retired"
    );
    let collector = claim(&mut world);
    world.apply(Command::ForgetSegments {
        collector,
        ids: vec![gateway.segment(0)],
    });
    assert_eq!(
        world.append(gateway, P(), location, &[plain(1)]),
        sealed,
        "forgotten before its bound"
    );
    world.commit(Commit {
        sealed_below: 1,
        ..gateway.commit(vec![])
    });
    assert_eq!(
        world.append(gateway, P(), location, &[plain(1)]),
        sealed,
        "below its bound"
    );
    assert_eq!(world.bounds(P()), (3, 6));
}

#[test]
fn the_bound_makes_orphans_of_what_was_not_committed() {
    let (mut world, gateway) = World::with_gateway();
    let status = |world: &World, number| world.state.segment(gateway.segment(number));
    // The commit's own segments may lie below its bound.
    world.commit(Commit {
        sealed_below: 3,
        ..gateway.commit(vec![Append {
            partition: P(),
            location: gateway.in_segment(1, 0, 10),
            batches: vec![plain(1)],
        }])
    });
    assert_eq!(status(&world, 0), SegmentStatus::Orphan);
    assert_eq!(status(&world, 1), SegmentStatus::Live);
    assert_eq!(status(&world, 2), SegmentStatus::Orphan);
    assert_eq!(status(&world, 3), SegmentStatus::Pending);
    // It never goes back.
    world.commit(Commit {
        sealed_below: 2,
        ..gateway.commit(vec![])
    });
    assert_eq!(
        world.append(gateway, P(), gateway.in_segment(2, 0, 10), &[plain(1)]),
        [BatchOutcome::Refused(BatchRefusal::SealedSegment)]
    );
    assert_eq!(status(&world, 2), SegmentStatus::Orphan);
    // A duplicate is a duplicate even in a finished segment.
    world.append(
        gateway,
        P(),
        gateway.in_segment(3, 0, 10),
        &[sequenced(0, 0, 1)],
    );
    assert_eq!(
        world.append(
            gateway,
            P(),
            gateway.in_segment(0, 0, 10),
            &[sequenced(0, 0, 1)]
        ),
        [duplicate(1)]
    );
}

#[test]
fn a_sealed_epoch_has_no_pending_segments_an_unknown_one_has() {
    let (mut world, gateway) = World::with_gateway();
    let pending = gateway.segment(5);
    assert_eq!(world.state.segment(pending), SegmentStatus::Pending);
    world.apply(Command::SealEpoch {
        epoch: gateway.epoch,
    });
    assert_eq!(world.state.segment(pending), SegmentStatus::Orphan);
    let unknown = SegmentId::new(BrokerEpoch(world.index + 10), 0);
    assert_eq!(world.state.segment(unknown), SegmentStatus::Pending);
}

#[test]
fn a_segment_of_which_nothing_was_used_is_retired_at_once() {
    let (mut world, gateway) = World::with_gateway();
    let id = gateway.segment(0);
    world.append(
        gateway,
        partition(9, 0),
        gateway.in_segment(0, 0, 10),
        &[plain(1)],
    );
    assert_eq!(world.state.segment(id), SegmentStatus::Retired);
    assert_eq!(world.state.retired_segments(9), [(id, world.now_ms)]);
}

#[test]
fn retired_segments_come_oldest_first() {
    let (mut world, gateway) = World::with_gateway();
    for number in [3, 1, 2] {
        world.append(
            gateway,
            partition(9, 0),
            gateway.in_segment(number, 0, 10),
            &[plain(1)],
        );
        world.now_ms += 1;
    }
    let numbers = |limit| -> Vec<u64> {
        let retired = world.state.retired_segments(limit);
        retired.iter().map(|(id, _)| id.number).collect()
    };
    assert_eq!(numbers(9), [3, 1, 2]);
    assert_eq!(numbers(2), [3, 1]);
}
