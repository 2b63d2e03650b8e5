//! Appending: offsets, holes in the bytes, joined extents, fencing.

use frazil_core::ports::{BatchOutcome, BatchRefusal, Located};

use super::*;

const P: fn() -> TopicPartition = || partition(1, 0);

fn refused(refusal: BatchRefusal) -> BatchOutcome {
    BatchOutcome::Refused(refusal)
}

#[test]
fn batches_get_offsets_in_order_and_one_extent() {
    let (mut world, gateway) = World::with_gateway();
    let outcomes = world.append(
        gateway,
        P(),
        gateway.in_segment(0, 8, 60),
        &[plain(1), plain(2), plain(3)],
    );
    assert_eq!(outcomes, [appended(0), appended(1), appended(3)]);
    assert_eq!(world.extents(P()), ["0..6 segment 0: 8+60"]);
    assert_eq!(world.bounds(P()), (0, 6));
    assert_eq!(world.state.size_bytes(&P()), 60);
}

#[test]
fn a_hole_in_the_bytes_splits_the_extent() {
    let (mut world, gateway) = World::with_gateway();
    let outcomes = world.append(
        gateway,
        P(),
        gateway.in_segment(0, 0, 60),
        &[
            sequenced(0, 0, 1),
            sequenced(0, 0, 1),
            sequenced(0, 1, 1),
            sequenced(0, 9, 2),
            sequenced(0, 2, 1),
        ],
    );
    assert_eq!(
        outcomes,
        [
            appended(0),
            duplicate(0),
            appended(1),
            refused(BatchRefusal::OutOfOrderSequence),
            appended(2)
        ]
    );
    assert_eq!(
        world.extents(P()),
        [
            "0..1 segment 0: 0+10",
            "1..2 segment 0: 20+10",
            "2..3 segment 0: 50+10"
        ]
    );
}

#[test]
fn neighbours_in_a_segment_are_joined_across_commits_those_in_a_wal_are_not() {
    let (mut world, gateway) = World::with_gateway();
    world.append(gateway, P(), gateway.in_segment(0, 0, 10), &[plain(1)]);
    world.append(gateway, P(), gateway.in_segment(0, 10, 20), &[plain(2)]);
    world.append(gateway, P(), gateway.in_segment(1, 30, 10), &[plain(1)]);
    world.append(gateway, P(), gateway.in_wal(0, 20), &[plain(1), plain(1)]);
    world.append(gateway, P(), gateway.in_wal(20, 10), &[plain(1)]);
    assert_eq!(
        world.extents(P()),
        [
            "0..3 segment 0: 0+30",
            "3..4 segment 1: 30+10",
            "4..6 wal: 0+20",
            "6..7 wal: 20+10"
        ]
    );
    assert_eq!(world.state.wal_extents(gateway.id).len(), 2);
}

#[test]
fn one_commit_spans_partitions_and_a_missing_one_fails_alone() {
    let (mut world, gateway) = World::with_gateway();
    let run = |partition, start| Append {
        partition,
        location: gateway.in_segment(0, start, 10),
        batches: vec![plain(1)],
    };
    let outcomes = world.commit(gateway.commit(vec![
        run(partition(1, 1), 0),
        run(partition(1, 2), 10),
        run(partition(9, 0), 20),
        run(partition(1, -1), 30),
        run(partition(2, 0), 40),
    ]));
    let unknown = refused(BatchRefusal::UnknownPartition);
    let firsts: Vec<_> = outcomes.iter().map(|outcome| outcome.batches[0]).collect();
    assert_eq!(
        firsts,
        [appended(0), unknown, unknown, unknown, appended(0)]
    );
    assert_eq!(outcomes[0].log_start, Offset(0));
    assert_eq!(outcomes[1].log_start, Offset(-1));
}

#[test]
fn a_retry_through_another_gateway_gets_the_first_offset() {
    let (mut world, first) = World::with_gateway();
    let second = world.register(None, 2);
    let batch = [sequenced(0, 0, 5)];
    assert_eq!(
        world.append(first, P(), first.in_segment(0, 0, 50), &batch),
        [appended(0)]
    );
    assert_eq!(
        world.append(second, P(), second.in_segment(0, 0, 50), &batch),
        [duplicate(0)]
    );
    assert_eq!(world.bounds(P()), (0, 5));
    assert_eq!(
        world.state.retired_segments(9),
        [(second.segment(0), world.now_ms)]
    );
}

#[test]
fn a_producer_is_known_per_partition_until_it_expires() {
    let (mut world, gateway) = World::with_gateway();
    let wal = gateway.in_wal(0, 10);
    world.append(gateway, P(), wal, &[sequenced(0, 0, 1)]);
    let other = world.append(gateway, partition(1, 1), wal, &[sequenced(0, 50, 1)]);
    assert_eq!(other, [appended(0)]);
    world.apply(Command::Expire {
        producers_before_ms: world.now_ms,
        offsets_before_ms: 0,
    });
    assert_eq!(
        world.append(gateway, P(), wal, &[sequenced(0, 7, 1)]),
        [refused(BatchRefusal::OutOfOrderSequence)]
    );
    world.apply(Command::Expire {
        producers_before_ms: world.now_ms + 1,
        offsets_before_ms: 0,
    });
    assert_eq!(world.state.counts().producers, 0);
    assert_eq!(
        world.append(gateway, P(), wal, &[sequenced(0, 7, 1)]),
        [appended(1)]
    );
}

#[test]
fn a_sealed_epoch_commits_nothing() {
    let (mut world, old) = World::with_gateway();
    let new = world.register(Some(old.id), 2);
    assert_eq!(new.id, old.id);
    let append = |gateway: Gateway| {
        Command::Commit(gateway.commit(vec![Append {
            partition: P(),
            location: gateway.in_segment(0, 0, 10),
            batches: vec![plain(1)],
        }]))
    };
    assert_eq!(world.apply(append(old)), Outcome::Fenced);
    assert_eq!(world.bounds(P()), (0, 0));
    assert!(matches!(world.apply(append(new)), Outcome::Committed(_)));
    world.apply(Command::SealEpoch { epoch: new.epoch });
    assert_eq!(world.apply(append(new)), Outcome::Fenced);
    let liar = Gateway {
        id: BrokerId(99),
        ..new
    };
    assert_eq!(world.apply(append(liar)), Outcome::Fenced);
}

#[test]
fn what_contradicts_itself_changes_nothing() {
    let (mut world, gateway) = World::with_gateway();
    let other = world.register(None, 2);
    let run = |location, batches: &[BatchInfo]| {
        gateway.commit(vec![Append {
            partition: P(),
            location,
            batches: batches.to_vec(),
        }])
    };
    let empty = BatchInfo {
        length: 0,
        ..plain(1)
    };
    let recordless = BatchInfo {
        records: 0,
        ..plain(1)
    };
    for commit in [
        run(gateway.in_segment(0, 0, 11), &[plain(1)]),
        run(gateway.in_segment(0, 0, 0), &[]),
        run(gateway.in_segment(0, 0, 10), &[plain(1), empty]),
        run(gateway.in_segment(0, 0, 10), &[recordless]),
        run(gateway.in_segment(0, u32::MAX, 10), &[plain(1)]),
        run(gateway.in_wal(u64::MAX, 10), &[plain(1)]),
        run(other.in_wal(0, 10), &[plain(1)]),
        run(gateway.in_segment(0, 0, 10), &[sequenced(-1, 0, 1)]),
        run(gateway.in_segment(0, 0, 10), &[sequenced(0, -1, 1)]),
    ] {
        let before = world.state.bounds(&P());
        let outcome = world.apply(Command::Commit(commit.clone()));
        assert!(
            matches!(outcome, Outcome::Invalid(_)),
            "{commit:?}: {outcome:?}"
        );
        assert_eq!(world.state.bounds(&P()), before);
        assert_eq!(world.state.counts().segments, 0);
    }
}

#[test]
fn changes_name_the_partitions_that_grew() {
    let (mut world, gateway) = World::with_gateway();
    let run = |index, batches: &[BatchInfo]| Append {
        partition: partition(1, index),
        location: gateway.in_wal(0, batches.iter().map(|batch| batch.length).sum()),
        batches: batches.to_vec(),
    };
    let commit = gateway.commit(vec![run(0, &[plain(1)]), run(1, &[sequenced(0, 0, 1)])]);
    let (_, changes) = world.apply_with_changes(Command::Commit(commit.clone()));
    assert_eq!(changes.partitions, [partition(1, 0), partition(1, 1)]);
    assert!(!changes.catalog);
    let (_, changes) = world.apply_with_changes(Command::Commit(commit));
    assert_eq!(changes.partitions, [partition(1, 0)]);
}

#[test]
fn extents_are_found_by_offset_bytes_and_time() {
    let (mut world, gateway) = World::with_gateway();
    for (number, max_timestamp) in [(0, 50), (1, 90), (2, 20), (3, 90)] {
        let batch = BatchInfo {
            max_timestamp,
            ..plain(2)
        };
        world.append(gateway, P(), gateway.in_segment(number, 0, 20), &[batch]);
    }
    let state = &world.state;
    let locate = |from, bytes| -> Vec<i64> {
        let located = state.locate(&P(), Offset(from), bytes);
        assert_eq!(located.cold, None);
        located.extents.iter().map(|extent| extent.base.0).collect()
    };
    assert_eq!(locate(0, 0), [0]);
    assert_eq!(locate(3, 20), [2]);
    assert_eq!(locate(3, 21), [2, 4]);
    assert_eq!(locate(0, u64::MAX), [0, 2, 4, 6]);
    assert_eq!(locate(8, 100), [0; 0]);
    assert_eq!(
        state.locate(&partition(9, 0), Offset(0), 1),
        Located::default()
    );
    let at = |from, time| base(state.locate_time(&P(), Offset(from), time));
    assert_eq!(at(0, 0), Some(0));
    assert_eq!(at(0, 51), Some(2));
    assert_eq!(at(4, 51), Some(6));
    assert_eq!(at(5, 20), Some(4));
    assert_eq!(at(0, 91), None);
    assert_eq!(base(state.locate_max_timestamp(&P())), Some(2));
    assert_eq!(state.locate_max_timestamp(&partition(1, 1)), None);
}

/// The sizes that the module's documentation states.
#[cfg(target_pointer_width = "64")]
#[test]
fn memory_is_as_documented() {
    assert_eq!(size_of::<frazil_core::Extent>(), 56);
    assert_eq!(size_of::<crate::state::log::Log>(), 88);
    assert_eq!(crate::state::producers::Producers::UNIT, 112);
}
