//! Restoring what was damaged, or never was a state.

use frazil_core::ports::ProducerBatch;
use proptest::prelude::*;

use super::*;
use crate::codec::CodecError;

/// A state with something of everything.
fn full() -> State {
    let (mut world, gateway) = World::with_gateway();
    let log = partition(1, 0);
    world.append(gateway, log, gateway.in_segment(0, 0, 30), &[plain(3)]);
    world.append(gateway, log, gateway.in_wal(0, 10), &[sequenced(0, 0, 1)]);
    world.append(
        gateway,
        partition(2, 0),
        gateway.in_segment(1, 0, 10),
        &[plain(1)],
    );
    world.delete_records(partition(2, 0), 1);
    world.apply(Command::ClaimGroup {
        group: "g".to_owned(),
        broker: gateway.id,
        epoch: gateway.epoch,
    });
    world.send(&Envelope {
        client: Uuid::from_u128(5),
        request: 3,
        done_below: 2,
        time_ms: 2_000,
        command: Command::AllocateProducerIds { count: 3 },
    });
    world.state
}

/// The snapshot with the checksum that its content asks for.
fn sealed(mut snapshot: Vec<u8>) -> Vec<u8> {
    let end = snapshot.len() - 4;
    let crc = crc32c::crc32c(&snapshot[..end]);
    snapshot[end..].copy_from_slice(&crc.to_le_bytes());
    snapshot
}

fn inconsistent(change: impl FnOnce(&mut State)) {
    let mut state = full();
    change(&mut state);
    let restored = State::restore(&state.snapshot());
    assert!(
        matches!(restored, Err(CodecError::Inconsistent(_))),
        "{restored:?}"
    );
}

#[test]
fn what_no_commands_lead_to_is_refused() {
    let log = partition(1, 0);
    inconsistent(|state| state.applied = 0);
    inconsistent(|state| state.next_producer = -1);
    inconsistent(|state| state.next_producer = i64::MAX);
    inconsistent(|state| state.segments = Default::default());
    inconsistent(|state| state.brokers = Default::default());
    inconsistent(|state| state.topics = Default::default());
    inconsistent(|state| {
        let segments = &mut state.segments;
        segments.refer(SegmentId::new(BrokerEpoch(3), 0));
    });
    inconsistent(|state| {
        let batch = ProducerBatch {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
            base_sequence: 0,
        };
        let log = state.topics.log_mut(&log).expect("a log");
        log.producers_mut().remember(&batch, 1, Offset(99), 0);
    });
}

#[test]
fn damage_is_noticed() {
    let snapshot = full().snapshot();
    let damaged = |at: usize, by: u8| {
        let mut bytes = snapshot.clone();
        bytes[at] ^= by;
        State::restore(&bytes)
    };
    assert!(matches!(damaged(0, 1), Err(CodecError::Magic)));
    assert!(matches!(
        damaged(6, 0x11),
        Err(CodecError::Level { level: 16, .. })
    ));
    for at in 8..snapshot.len() {
        assert!(matches!(
            damaged(at, 0x10),
            Err(CodecError::Checksum { .. })
        ));
    }
    for length in 0..snapshot.len() {
        assert!(State::restore(&snapshot[..length]).is_err());
    }
    let mut longer = snapshot.clone();
    longer.insert(snapshot.len() - 4, 0);
    assert!(matches!(
        State::restore(&sealed(longer)),
        Err(CodecError::Stray { length: 1, .. })
    ));
}

#[test]
fn an_unknown_version_of_a_command_is_refused() {
    let of_command = |bytes: &[u8]| {
        Envelope::decode(bytes)
            .expect_err("not a command")
            .to_string()
    };
    let of_outcome = |bytes: &[u8]| {
        Outcome::decode(bytes)
            .expect_err("not an outcome")
            .to_string()
    };
    assert!(of_command(&[]).contains("cut short"));
    assert!(of_outcome(&[]).contains("cut short"));
    assert!(of_command(&[0, 0x80]).contains("version 0"));
    let later = crate::command::LEVEL + 1;
    let refused = of_command(&[later, 0x80]);
    assert!(
        refused.contains(&format!("feature level {later}")),
        "{refused}"
    );
    assert!(of_outcome(&[2, 0x80]).contains("version 2"));
}

#[test]
fn a_command_does_not_hide_below_its_level() {
    let mut bytes = Envelope::by_leader(Command::RaiseLevel { level: 2 }).encode();
    assert_eq!(bytes[0], 2);
    bytes[0] = 1;
    let error = Envelope::decode(&bytes).expect_err("an older program would not know it");
    assert!(
        matches!(
            error,
            CodecError::Level {
                level: 2,
                knows: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_claimed_count_is_not_believed() {
    // An array of 2^60 elements where the session's outcomes, the segments, the topics stand.
    for lead in [&[][..], &[0x8A], &[0x8A, 0, 0, 0xF6, 0x83]] {
        let mut bytes = b"FZMETA\x01\x00".to_vec();
        bytes.extend_from_slice(lead);
        bytes.extend_from_slice(&[0x9B, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0; 4]);
        assert!(matches!(
            State::restore(&sealed(bytes)),
            Err(CodecError::Cbor { .. })
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage under a valid checksum gives an error or a state that works.
    #[test]
    fn a_forged_snapshot_does_no_harm(
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = full().snapshot();
        let content = bytes.len() - 4;
        for (at, byte) in forgeries {
            bytes[8 + at.index(content - 8)] = byte;
        }
        if let Ok(state) = State::restore(&sealed(bytes)) {
            let mut world = World { index: state.applied(), now_ms: state.now_ms(), state };
            world.apply(Command::AllocateProducerIds { count: u32::MAX });
            let gateway = world.register(None, 77);
            world.append(gateway, partition(1, 0), gateway.in_wal(0, 10), &[plain(1)]);
            world.apply(Command::DeleteTopic { id: topic_id(1) });
            world.apply(Command::Expire { producers_before_ms: 0, offsets_before_ms: 0 });
        }
    }

    #[test]
    fn random_bytes_are_not_a_command(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut versioned = vec![1];
        versioned.extend_from_slice(&bytes);
        for bytes in [&bytes, &versioned] {
            // Whatever it is, it is what its own bytes say.
            if let Ok(outcome) = Outcome::decode(bytes) {
                prop_assert_eq!(Outcome::decode(&outcome.encode()).expect("decodes"), outcome);
            }
            prop_assert!(Envelope::decode(bytes).is_err());
        }
    }
}
