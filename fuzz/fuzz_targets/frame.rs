//! Recovery of a local log.
//!
//! Input: a program that writes a log and damages it. What is read must be a beginning of what was
//! written, and all that was synced unless the damage is reported.
#![no_main]

use bytes::Bytes;
use frazil_core::frame::{
    FILE_HEADER_LENGTH, FileHeader, FrameMeta, ScanError, Scanner, encode_frame,
};
use libfuzzer_sys::fuzz_target;

/// A salt that the input cannot foretell: a payload that is a frame of the same file, with the right
/// checksum, is what the salt is there to rule out, and a fuzzer that sees comparisons finds one for
/// a salt that stays.
fn salt(data: &[u8]) -> [u8; 16] {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in data {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    hash.to_be_bytes()
}

fuzz_target!(|data: &[u8]| {
    // As they are, the bytes are hardly ever a log; they must not matter.
    if let Ok(scanner) = Scanner::of_bytes(data) {
        scanner.for_each(drop);
    }

    let salt = salt(data);
    let header = FileHeader {
        kind: 1,
        salt,
        first_sequence: 10,
    };
    let mut log = header.encode().to_vec();
    let mut written: Vec<Bytes> = Vec::new();
    let mut synced = 0;
    let mut synced_bytes = log.len();
    let mut damage = Vec::new();
    let mut program = data;
    while let Some((&[operation, argument], rest)) = program.split_first_chunk() {
        program = rest;
        match operation % 8 {
            0..=2 => {
                let (payload, rest) = program.split_at(program.len().min(usize::from(argument)));
                program = rest;
                let meta = FrameMeta {
                    kind: operation,
                    sequence: 10 + written.len() as u64,
                    synced_below: 10 + synced as u64,
                };
                encode_frame(&mut log, &salt, meta, &[payload]);
                written.push(Bytes::copy_from_slice(payload));
            }
            3 => {
                synced = written.len();
                synced_bytes = log.len();
            }
            _ => damage.push((operation, argument)),
        }
    }
    let whole = log.len();
    let mut synced_is_damaged = false;
    for (operation, argument) in damage {
        let span = log.len() - FILE_HEADER_LENGTH;
        let at = FILE_HEADER_LENGTH + span * usize::from(argument) / 256;
        match operation % 8 {
            4 if at < log.len() => {
                log[at] ^= operation | 1;
                synced_is_damaged |= at < synced_bytes;
            }
            5 => {
                log.truncate(at);
                synced_is_damaged |= at < synced_bytes;
            }
            6 => {
                let end = log.len().min(at + usize::from(operation));
                log[at..end].fill(0);
                synced_is_damaged |= at < synced_bytes;
            }
            _ => {
                let length = log.len() + usize::from(argument) * 16;
                log.resize(length, 0);
            }
        }
    }
    let untouched = log.len() >= whole && !synced_is_damaged;

    let mut scanner = Scanner::of_bytes(&log).expect("the header is whole");
    let mut read = Vec::new();
    let mut error = None;
    for frame in &mut scanner {
        match frame {
            Ok(frame) => {
                assert_eq!(frame.sequence, 10 + read.len() as u64);
                read.push(frame.payload);
            }
            Err(ScanError::Corrupt { sequence, .. }) => {
                assert_eq!(sequence, 10 + read.len() as u64);
                error = Some(sequence);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(read.len() <= written.len());
    assert_eq!(read, written[..read.len()]);
    if error.is_some() {
        assert!(
            synced_is_damaged,
            "what was not synced looks like corruption"
        );
    } else {
        assert_eq!(scanner.end().next_sequence, 10 + read.len() as u64);
        assert!(!untouched || read.len() >= synced, "a synced frame is lost");
    }
});
