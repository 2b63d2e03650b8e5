//! Extents that become cold, roots and tables that replace each other, and everything that may
//! happen between a plan and its replacement.

use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::ports::{
    ClaimStatus, ColdMove, Move, Place, Replacement, SegmentStatus, TableMove, TablePointer,
    TableRefusal,
};

use super::*;

const P: fn() -> TopicPartition = || partition(1, 0);
const CHANGED: Outcome = Outcome::Replaced(Err(TableRefusal::Changed));
const REPLACED: Outcome = Outcome::Replaced(Ok(()));

fn holder(n: u128) -> Uuid {
    Uuid::from_u128(0xC0 + n)
}

fn root(claim: u64, number: u64, base: i64, end: i64) -> NodeRef {
    NodeRef {
        base: Offset(base),
        end: Offset(end),
        id: ObjectId::new(claim, number),
        level: 0,
        length: 100,
        crc: 7,
        records: end.abs_diff(base),
        bytes: 1_000,
        max_timestamp: 50,
    }
}

fn moved(expected: Option<&NodeRef>, base: i64, end: i64, root: Option<NodeRef>) -> ColdMove {
    ColdMove {
        partition: 0,
        expected: expected.map(|root| root.id),
        base: Offset(base),
        end: Offset(end),
        root,
    }
}

fn replacement(claim: u64, moves: Vec<ColdMove>) -> Replacement {
    Replacement {
        topic: topic_id(1),
        claim,
        lease_ms: 1_000,
        moves,
        table: None,
        retired: vec![],
    }
}

fn pointer(claim: u64, number: u64) -> TablePointer {
    TablePointer {
        metadata: ObjectId::new(claim, number),
        length: 10,
        crc: 3,
    }
}

impl World {
    /// One with tables: four segments of three records each at offsets 0 to 12 of one partition,
    /// and a claim on its topic.
    fn with_table() -> (Self, Gateway, u64) {
        let (mut world, gateway) = Self::with_gateway();
        world.apply(Command::RaiseLevel { level: 3 });
        for number in 0..4 {
            let location = gateway.in_segment(number, 0, 30);
            world.append(gateway, P(), location, &[plain(3)]);
        }
        let claim = world.claim_of(0).expect("a claim");
        (world, gateway, claim)
    }

    fn claim_of(&mut self, n: u128) -> Result<u64, TableRefusal> {
        let command = Command::ClaimTable {
            topic: topic_id(1),
            holder: holder(n),
            lease_ms: 1_000,
        };
        match self.apply(command) {
            Outcome::TableClaimed(claimed) => claimed,
            other => panic!("{other:?}"),
        }
    }

    fn replace(&mut self, replacement: &Replacement) -> Outcome {
        let before = self.state.clone();
        let (outcome, changes) = self.apply_with_changes(Command::Replace(replacement.clone()));
        if outcome != REPLACED {
            assert_eq!(changes, Changes::default());
            let after = State {
                applied: before.applied,
                ..self.state.clone()
            };
            assert_eq!(after, before, "what is refused changes nothing");
        }
        outcome
    }

    fn freeze(&mut self, claim: u64, moved: ColdMove) -> Outcome {
        self.replace(&replacement(claim, vec![moved]))
    }

    fn assert_nonsense(&mut self, replacement: &Replacement) {
        let outcome = self.replace(replacement);
        assert!(matches!(outcome, Outcome::Invalid(_)), "{outcome:?}");
    }

    /// Where an offset is: `cold`, an extent's base, or nowhere.
    fn place(&self, offset: i64) -> String {
        let located = self.state.locate(&P(), Offset(offset), 1);
        match (located.cold, located.extents.first()) {
            (Some(root), _) => format!("cold {}", root.id.number),
            (None, Some(extent)) => format!("extent {}", extent.base),
            (None, None) => "nowhere".to_owned(),
        }
    }
}

#[test]
fn extents_become_cold_and_their_segments_retire() {
    let (mut world, gateway, claim) = World::with_table();
    let old = root(claim, 0, 0, 6);
    let (outcome, changes) = world.apply_with_changes(Command::Replace(replacement(
        claim,
        vec![moved(None, 0, 6, Some(old.clone()))],
    )));
    assert_eq!(outcome, REPLACED);
    assert_eq!(changes.partitions, [P()]);
    assert_eq!(world.bounds(P()), (0, 12));
    assert_eq!(world.extents(P()).len(), 2);
    assert_eq!(
        world.state.segment(gateway.segment(1)),
        SegmentStatus::Retired
    );
    assert_eq!(world.state.segment(gateway.segment(2)), SegmentStatus::Live);
    assert_eq!(world.state.size_bytes(&P()), 1_000 + 60);
    assert_eq!(world.state.partitions()[0].bytes, 1_060);
    assert_eq!(
        (world.place(0), world.place(5)),
        ("cold 0".into(), "cold 0".into())
    );
    assert_eq!(world.place(6), "extent 6");
    // What is behind the cold offsets comes along.
    assert_eq!(world.state.locate(&P(), Offset(3), 31).extents.len(), 2);
    assert_eq!(world.state.cold(&P()), Some(old.clone()));

    let new = root(claim, 1, 0, 12);
    assert_eq!(
        world.freeze(claim, moved(Some(&old), 6, 12, Some(new))),
        REPLACED
    );
    assert_eq!(world.extents(P()), [""; 0]);
    assert_eq!(world.place(11), "cold 1");
    assert_eq!(world.place(12), "nowhere");
    // The log goes on behind it.
    let location = gateway.in_segment(9, 0, 10);
    assert_eq!(
        world.append(gateway, P(), location, &[plain(1)]),
        [appended(12)]
    );
    assert_eq!(world.place(12), "extent 12");
}

#[test]
fn times_are_found_in_the_first_place_that_has_them() {
    let (mut world, gateway, claim) = World::with_table();
    world.freeze(claim, moved(None, 0, 6, Some(root(claim, 0, 0, 6))));
    let late = BatchInfo {
        max_timestamp: 80,
        ..plain(1)
    };
    world.append(gateway, P(), gateway.in_segment(9, 0, 10), &[late]);
    let found = |from, time| match world.state.locate_time(&P(), Offset(from), time) {
        Some(Place::Cold(root)) => -root.end.0,
        Some(Place::Extent(extent)) => extent.base.0,
        None => -1,
    };
    assert_eq!([found(0, 50), found(5, 0), found(6, 0)], [-6, -6, 6]);
    assert_eq!([found(0, 51), found(0, 80), found(0, 81)], [12, 12, -1]);
    let most = world.state.locate_max_timestamp(&P());
    assert!(matches!(most, Some(Place::Extent(extent)) if extent.base == Offset(12)));
    // One that has no records has no times.
    let (mut world, _, claim) = World::with_table();
    let empty = NodeRef {
        records: 0,
        max_timestamp: -1,
        ..root(claim, 0, 0, 6)
    };
    world.freeze(claim, moved(None, 0, 6, Some(empty)));
    let first = world.state.locate_time(&P(), Offset(0), -1);
    assert!(matches!(first, Some(Place::Extent(extent)) if extent.base == Offset(6)));
    // The first of several.
    let (mut world, _, claim) = World::with_table();
    let equal = NodeRef {
        max_timestamp: 0,
        ..root(claim, 0, 0, 6)
    };
    world.freeze(claim, moved(None, 0, 6, Some(equal.clone())));
    assert_eq!(
        world.state.locate_max_timestamp(&P()),
        Some(Place::Cold(equal))
    );
}

#[test]
fn a_claim_is_the_newest_and_its_lease_keeps_others_away() {
    let (mut world, _, first) = World::with_table();
    assert_eq!(world.claim_of(1), Err(TableRefusal::Held));
    // Whoever holds it claims anew; what it began under the old claim is refused.
    let again = world.claim_of(0).expect("its own");
    assert!(again > first);
    let freeze = |claim| moved(None, 0, 3, Some(root(claim, 0, 0, 3)));
    assert_eq!(
        world.freeze(first, freeze(first)),
        Outcome::Replaced(Err(TableRefusal::Superseded))
    );
    world.now_ms += 1_000;
    let second = world.claim_of(1).expect("the lease has ended");
    assert_eq!(
        world.freeze(again, freeze(again)),
        Outcome::Replaced(Err(TableRefusal::Superseded))
    );
    // A lease that has ended takes nothing from a claim that is still the newest.
    world.now_ms += 5_000;
    let mut giving_up = replacement(second, vec![freeze(second)]);
    giving_up.lease_ms = 0;
    assert_eq!(world.replace(&giving_up), REPLACED);
    let table = world.state.table(topic_id(1)).expect("a topic");
    assert_eq!((table.claim, table.lease), (second, None));
    let third = world.claim_of(0).expect("given up");
    for (claim, status) in [
        (first, ClaimStatus::Past),
        (second, ClaimStatus::Past),
        (third, ClaimStatus::Current),
        (world.index + 1, ClaimStatus::Current),
    ] {
        assert_eq!(world.state.claim_status(topic_id(1), claim), status);
    }
    let gone = world.state.claim_status(topic_id(9), third);
    assert_eq!(gone, ClaimStatus::Gone);
    // It may have been made a moment ago, with its topic.
    let unknown = world.state.claim_status(topic_id(9), world.index + 1);
    assert_eq!(unknown, ClaimStatus::Current);
    for wrong in [0, world.index + 7] {
        world.assert_nonsense(&replacement(wrong, vec![freeze(1)]));
    }
}

#[test]
fn a_replacement_prolongs_the_lease() {
    let (mut world, _, claim) = World::with_table();
    world.now_ms += 900;
    let replacement = replacement(claim, vec![]);
    assert_eq!(world.replace(&replacement), REPLACED);
    world.now_ms += 900;
    assert_eq!(world.claim_of(1), Err(TableRefusal::Held));
    let lease = world.state.table(topic_id(1)).expect("a topic").lease;
    assert_eq!(lease, Some((holder(0), world.now_ms + 100)));
}

#[test]
fn nobody_claims_what_does_not_exist() {
    let (mut world, _, _) = World::with_table();
    let claim = |topic| Command::ClaimTable {
        topic: topic_id(topic),
        holder: holder(0),
        lease_ms: 1,
    };
    let unknown = Outcome::TableClaimed(Err(TableRefusal::UnknownTopic));
    assert_eq!(world.apply(claim(9)), unknown);
    assert!(matches!(
        world.apply(claim(2)),
        Outcome::TableClaimed(Ok(_))
    ));
    // Not before every node knows of tables.
    let (mut world, _) = World::with_gateway();
    assert!(matches!(world.apply(claim(1)), Outcome::Invalid(_)));
}

#[test]
fn a_repetition_under_another_request_changes_nothing() {
    let (mut world, _, claim) = World::with_table();
    let first = replacement(claim, vec![moved(None, 0, 6, Some(root(claim, 0, 0, 6)))]);
    assert_eq!(world.replace(&first), REPLACED);
    assert_eq!(world.replace(&first), CHANGED);
    let table = Replacement {
        table: Some(TableMove {
            expected: None,
            new: pointer(claim, 1),
        }),
        ..replacement(claim, vec![])
    };
    assert_eq!(world.replace(&table), REPLACED);
    assert_eq!(world.replace(&table), CHANGED);
    let known = world.state.table(topic_id(1)).expect("a topic");
    assert_eq!(known.pointer, Some(pointer(claim, 1)));
}

#[test]
fn all_of_a_replacement_happens_or_nothing() {
    let (mut world, gateway, claim) = World::with_table();
    let other = partition(1, 1);
    world.append(gateway, other, gateway.in_segment(9, 0, 10), &[plain(1)]);
    let mut both = replacement(
        claim,
        vec![
            moved(None, 0, 6, Some(root(claim, 0, 0, 6))),
            ColdMove {
                partition: 1,
                ..moved(
                    Some(&root(claim, 9, 0, 1)),
                    0,
                    1,
                    Some(root(claim, 1, 0, 1)),
                )
            },
        ],
    );
    both.table = Some(TableMove {
        expected: None,
        new: pointer(claim, 2),
    });
    assert_eq!(world.replace(&both), CHANGED);
    both.moves[1].expected = None;
    both.table = both.table.map(|table| TableMove {
        expected: Some(ObjectId::new(claim, 7)),
        ..table
    });
    assert_eq!(world.replace(&both), CHANGED);
    both.table = both.table.map(|table| TableMove {
        expected: None,
        ..table
    });
    assert_eq!(world.replace(&both), REPLACED);
    assert_eq!(
        world.state.cold(&other).map(|root| root.end),
        Some(Offset(1))
    );
}

#[test]
fn retention_may_pass_a_move_before_it_arrives() {
    // How far the log start comes in between, and where offset 6 and the bounds are afterwards.
    for (to, extents) in [(2, 2), (3, 2), (5, 2), (6, 2), (8, 2), (9, 1), (12, 0)] {
        let (mut world, gateway, claim) = World::with_table();
        let plan = moved(None, 0, 6, Some(root(claim, 0, 0, 6)));
        world.delete_records(P(), to);
        assert_eq!(world.freeze(claim, plan), REPLACED, "{to}");
        assert_eq!(world.bounds(P()), (to, 12));
        assert_eq!(world.extents(P()).len(), extents, "{to}");
        let readable = to < 6;
        assert_eq!(world.place(2) == "cold 0", readable, "{to}");
        let extents = 12 - to.max(6);
        assert!(world.state.size_bytes(&P()) >= if readable { 1_060 } else { 0 });
        assert_eq!(world.state.size_bytes(&P()) == 0, extents == 0, "{to}");
        // The root is known until it is replaced.
        let old = world.state.cold(&P()).expect("a root");
        assert_eq!(
            world.state.segment(gateway.segment(0)),
            SegmentStatus::Retired
        );
        if !readable {
            // All of it is below the log start.
            let drop_it = moved(Some(&old), 6, 6, None);
            assert_eq!(world.freeze(claim, drop_it), REPLACED, "{to}");
            assert_eq!(world.state.cold(&P()), None);
        }
    }
}

#[test]
fn a_log_start_past_the_root_lets_the_next_root_begin_later() {
    let (mut world, _, claim) = World::with_table();
    let old = root(claim, 0, 0, 3);
    world.freeze(claim, moved(None, 0, 3, Some(old.clone())));
    world.delete_records(P(), 7);
    assert_eq!(world.extents(P())[0], "6..9 segment 2: 0+30");
    // With the first extent, and not before it.
    let wrong = root(claim, 1, 3, 9);
    world.assert_nonsense(&replacement(
        claim,
        vec![moved(Some(&old), 6, 9, Some(wrong))],
    ));
    let new = root(claim, 1, 6, 9);
    // Meanwhile the log start rises again: the first extent is another one.
    world.delete_records(P(), 9);
    assert_eq!(
        world.freeze(claim, moved(Some(&old), 6, 9, Some(new))),
        REPLACED
    );
    assert_eq!(world.bounds(P()), (9, 12));
    assert_eq!(world.place(9), "extent 9");
}

#[test]
fn a_root_may_shed_what_is_below_the_log_start_only() {
    let (mut world, _, claim) = World::with_table();
    let old = root(claim, 0, 0, 9);
    world.freeze(claim, moved(None, 0, 9, Some(old.clone())));
    world.delete_records(P(), 4);
    let merged = |base| {
        let new = root(claim, 1, base, 9);
        replacement(claim, vec![moved(Some(&old), 9, 9, Some(new))])
    };
    world.assert_nonsense(&merged(5));
    world.assert_nonsense(&replacement(claim, vec![moved(Some(&old), 9, 9, None)]));
    // Planned on a log start of 3, that is 4 by now.
    assert_eq!(world.replace(&merged(3)), REPLACED);
    // It never comes back.
    let back = root(claim, 2, 0, 9);
    let new = root(claim, 1, 3, 9);
    world.assert_nonsense(&replacement(
        claim,
        vec![moved(Some(&new), 9, 9, Some(back))],
    ));
}

#[test]
fn extents_that_have_been_joined_meanwhile_are_planned_again() {
    let (mut world, gateway, claim) = World::with_table();
    // The last one grows: its segment has more of the same partition.
    let plan = moved(None, 0, 12, Some(root(claim, 0, 0, 12)));
    world.append(gateway, P(), gateway.in_segment(3, 30, 10), &[plain(1)]);
    assert_eq!(world.extents(P())[3], "9..13 segment 3: 0+40");
    assert_eq!(world.freeze(claim, plan), CHANGED);
    let again = moved(None, 0, 13, Some(root(claim, 0, 0, 13)));
    assert_eq!(world.freeze(claim, again), REPLACED);
}

#[test]
fn moves_out_of_a_log_and_lost_extents_may_come_between() {
    let (mut world, gateway, claim) = World::with_table();
    let holder = gateway.id;
    for start in [0, 100, 200] {
        world.append(gateway, P(), gateway.in_wal(start, 10), &[plain(1)]);
    }
    let plan = moved(None, 0, 12, Some(root(claim, 0, 0, 12)));
    // Nothing in a write-ahead log becomes cold.
    let early = moved(None, 0, 13, Some(root(claim, 0, 0, 13)));
    world.assert_nonsense(&replacement(claim, vec![early]));
    // What reaches a segment meanwhile is joined only with its like.
    let relocated = Commit {
        segments: vec![SegmentInfo {
            id: gateway.segment(10),
            bytes: 10,
        }],
        moves: vec![Move {
            partition: P(),
            base: Offset(12),
            end: Offset(13),
            to: gateway.in_segment(10, 0, 10),
        }],
        ..gateway.commit(vec![])
    };
    world.commit(relocated);
    let lose = |base, end| Command::GiveUpWal {
        broker: holder,
        epoch: gateway.epoch,
        lost: vec![(P(), Offset(base), Offset(end))],
    };
    world.apply(lose(13, 14));
    assert_eq!(world.freeze(claim, plan), REPLACED);
    assert_eq!(
        world.extents(P()),
        [
            "12..13 segment 10: 0+10",
            "13..14 lost",
            "14..15 wal: 200+10"
        ]
    );
    // The lost ones become cold like others; but they may be more by now.
    let old = world.state.cold(&P()).expect("a root");
    let hole = |end| NodeRef {
        records: 13,
        ..root(claim, 1, 0, end)
    };
    let plan = |end| moved(Some(&old), 12, end, Some(hole(end)));
    world.apply(lose(14, 15));
    assert_eq!(world.extents(P())[1], "13..15 lost");
    assert_eq!(world.freeze(claim, plan(14)), CHANGED);
    assert_eq!(world.freeze(claim, plan(15)), REPLACED);
    assert_eq!(world.place(14), "cold 1");
    // Offsets that nobody has yet are not planned on.
    let cold = world.state.cold(&P()).expect("a root");
    let beyond = moved(Some(&cold), 15, 16, Some(root(claim, 2, 0, 16)));
    world.assert_nonsense(&replacement(claim, vec![beyond]));
}

#[test]
fn partitions_may_become_more_and_the_topic_go_away() {
    let (mut world, _, claim) = World::with_table();
    let plan = replacement(claim, vec![moved(None, 0, 6, Some(root(claim, 0, 0, 6)))]);
    world.apply(Command::CreatePartitions {
        id: topic_id(1),
        partitions: 4,
    });
    let mut elsewhere = plan.clone();
    elsewhere.moves[0].partition = 4;
    world.assert_nonsense(&elsewhere);
    elsewhere.moves[0].partition = -1;
    world.assert_nonsense(&elsewhere);
    let mut gone = world.clone();
    assert_eq!(world.replace(&plan), REPLACED);
    gone.apply(Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(
        gone.replace(&plan),
        Outcome::Replaced(Err(TableRefusal::UnknownTopic))
    );
    assert_eq!(gone.state.table(topic_id(1)), None);
    assert_eq!(
        gone.state.claim_status(topic_id(1), claim),
        ClaimStatus::Gone
    );
}

#[test]
fn nonsense_is_refused_as_such() {
    let (mut world, _, claim) = World::with_table();
    let good = || moved(None, 0, 6, Some(root(claim, 0, 0, 6)));
    let with = |change: &dyn Fn(&mut ColdMove)| {
        let mut moved = good();
        change(&mut moved);
        replacement(claim, vec![moved])
    };
    let with_root =
        |change: &dyn Fn(&mut NodeRef)| with(&|moved| change(moved.root.as_mut().expect("a root")));
    for wrong in [
        with(&|moved| moved.base = Offset(-1)),
        with(&|moved| moved.base = Offset(7)),
        // Extents are left out.
        with(&|moved| moved.base = Offset(3)),
        with(&|moved| moved.root = None),
        with(&|moved| {
            moved.root = None;
            moved.end = Offset(0);
        }),
        with_root(&|root| root.end = Offset(5)),
        with_root(&|root| root.end = Offset(9)),
        with_root(&|root| root.base = Offset(6)),
        with_root(&|root| root.base = Offset(1)),
        with_root(&|root| root.base = Offset(-1)),
        with_root(&|root| root.records = 7),
        with_root(&|root| root.id.claim = 0),
        with_root(&|root| root.id.claim = claim + 1),
        replacement(claim, vec![good(), good()]),
        Replacement {
            retired: vec![TableObject::Manifest(0, ObjectId::new(claim, 0))],
            ..replacement(claim, vec![good()])
        },
        Replacement {
            retired: vec![TableObject::Data(ObjectId::new(claim + 1, 0))],
            ..replacement(claim, vec![good()])
        },
        Replacement {
            table: Some(TableMove {
                expected: None,
                new: pointer(claim + 1, 0),
            }),
            ..replacement(claim, vec![good()])
        },
        Replacement {
            table: Some(TableMove {
                expected: None,
                new: pointer(claim, 5),
            }),
            retired: vec![TableObject::Metadata(ObjectId::new(claim, 5))],
            ..replacement(claim, vec![good()])
        },
    ] {
        world.assert_nonsense(&wrong);
    }
    assert_eq!(world.freeze(claim, good()), REPLACED);
    let old = root(claim, 0, 0, 6);
    let after = |base, end, root| replacement(claim, vec![moved(Some(&old), base, end, root)]);
    for wrong in [
        // What is cold stays so.
        after(3, 9, Some(root(claim, 1, 0, 9))),
        after(3, 3, Some(root(claim, 1, 0, 3))),
        after(
            6,
            9,
            Some(NodeRef {
                end: Offset(9),
                ..old.clone()
            }),
        ),
        Replacement {
            retired: vec![TableObject::Manifest(0, old.id)],
            ..replacement(claim, vec![])
        },
    ] {
        world.assert_nonsense(&wrong);
    }
}

#[test]
fn what_is_retired_is_forgotten_by_the_newest_collector_and_never_named_again() {
    let (mut world, _, claim) = World::with_table();
    let old = root(claim, 0, 0, 6);
    world.freeze(claim, moved(None, 0, 6, Some(old.clone())));
    let data = TableObject::Data(ObjectId::new(claim, 8));
    let manifest = TableObject::Manifest(0, old.id);
    let new = root(claim, 1, 0, 9);
    let replaced = Replacement {
        retired: vec![manifest, data],
        ..replacement(claim, vec![moved(Some(&old), 6, 9, Some(new.clone()))])
    };
    assert_eq!(world.replace(&replaced), REPLACED);
    let since = world.now_ms;
    world.now_ms += 10;
    let list = TableObject::List(ObjectId::new(claim, 9));
    let more = Replacement {
        retired: vec![list, data],
        ..replacement(claim, vec![])
    };
    assert_eq!(world.replace(&more), REPLACED);
    let topic = topic_id(1);
    let queue = [
        (topic, data, since),
        (topic, manifest, since),
        (topic, list, since + 10),
    ];
    assert_eq!(world.state.retired_objects(9), queue);
    assert_eq!(world.state.retired_objects(1), queue[..1]);
    assert_eq!(world.state.counts().retired_objects, 3);
    // It waits for its deletion.
    world.assert_nonsense(&replacement(
        claim,
        vec![moved(
            Some(&new),
            9,
            9,
            Some(NodeRef {
                id: old.id,
                ..new.clone()
            }),
        )],
    ));

    let Outcome::CollectorClaimed(collector) = world.apply(Command::ClaimCollector) else {
        panic!("a claim");
    };
    let forget = |collector| Command::ForgetTableObjects {
        collector,
        topic,
        objects: vec![data, TableObject::Files(ObjectId::new(1, 1)), list],
    };
    for wrong in [0, collector - 1, collector + 1] {
        assert_eq!(world.apply(forget(wrong)), Outcome::Forgotten(false));
    }
    assert_eq!(world.apply(forget(collector)), Outcome::Forgotten(true));
    assert_eq!(world.state.retired_objects(9), queue[1..2]);
}

#[test]
fn a_deleted_topic_leaves_a_dead_table_until_that_is_forgotten() {
    let (mut world, _, claim) = World::with_table();
    let old = root(claim, 0, 0, 6);
    world.freeze(claim, moved(None, 0, 6, Some(old)));
    let retiring = Replacement {
        retired: vec![TableObject::Data(ObjectId::new(claim, 8))],
        ..replacement(claim, vec![])
    };
    world.replace(&retiring);
    world.apply(Command::DeleteTopic { id: topic_id(1) });
    // Nobody has ever claimed this one.
    world.apply(Command::DeleteTopic { id: topic_id(2) });
    assert_eq!(world.state.dead_tables(), [(topic_id(1), world.now_ms)]);
    assert_eq!(world.state.retired_objects(9), []);
    assert_eq!(world.state.cold(&P()), None);
    let counts = world.state.counts();
    assert_eq!((counts.tables, counts.dead_tables), (0, 1));
    // Everything under its id is about to be deleted.
    let again = world.apply(Command::CreateTopic(new_topic(1, "one", 1)));
    assert!(matches!(again, Outcome::Invalid(_)), "{again:?}");
    assert_eq!(world.claim_of(0), Err(TableRefusal::UnknownTopic));

    let Outcome::CollectorClaimed(collector) = world.apply(Command::ClaimCollector) else {
        panic!("a claim");
    };
    let forget = |collector| Command::ForgetTables {
        collector,
        topics: vec![topic_id(1), topic_id(2), topic_id(3)],
    };
    assert_eq!(world.apply(forget(0)), Outcome::Forgotten(false));
    assert_eq!(world.state.dead_tables().len(), 1);
    assert_eq!(world.apply(forget(collector)), Outcome::Forgotten(true));
    assert_eq!(world.state.dead_tables(), []);
}

#[test]
fn a_state_with_tables_survives_a_snapshot_and_a_wrong_one_is_refused() {
    let (mut world, _, claim) = World::with_table();
    world.replace(&Replacement {
        table: Some(TableMove {
            expected: None,
            new: pointer(claim, 1),
        }),
        retired: vec![TableObject::Data(ObjectId::new(claim, 8))],
        ..replacement(claim, vec![moved(None, 0, 6, Some(root(claim, 0, 0, 6)))])
    });
    world.apply(Command::ClaimTable {
        topic: topic_id(2),
        holder: holder(4),
        lease_ms: 5,
    });
    world.apply(Command::DeleteTopic { id: topic_id(2) });
    let state = world.state;
    let restored = State::restore(&state.snapshot()).expect("restores");
    assert_eq!(restored, state);
    assert_eq!(restored.retired_objects(9).len(), 1);

    let wrong = |change: &dyn Fn(&mut NodeRef)| {
        let mut state = state.clone();
        let log = state.topics.log_mut(&P()).expect("a log");
        change(log.cold_mut());
        let restored = State::restore(&state.snapshot());
        assert!(restored.is_err(), "{restored:?}");
    };
    wrong(&|root| root.end = Offset(5));
    wrong(&|root| root.end = Offset(7));
    wrong(&|root| root.base = Offset(1));
    wrong(&|root| root.base = Offset(-1));
    wrong(&|root| root.records = 7);
    wrong(&|root| root.id.claim = 0);
    wrong(&|root| root.id.claim = claim + 1);
    let orphaned = State {
        tables: None,
        ..state
    };
    assert!(State::restore(&orphaned.snapshot()).is_err());
}
