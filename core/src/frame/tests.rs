use proptest::prelude::*;

use super::*;
use crate::env::testing::{EIO, Fault, MemDisk, Operation, check_golden, golden};
use crate::env::{Disk, DiskFile};
use std::path::Path;

const SALT: Salt = [7; 16];

fn header() -> FileHeader {
    FileHeader {
        kind: 3,
        salt: SALT,
        first_sequence: 100,
    }
}

fn meta(sequence: u64, synced_below: u64) -> FrameMeta {
    FrameMeta {
        kind: (sequence % 5) as u8,
        sequence,
        synced_below,
    }
}

/// A file of the given payloads in which each frame says that `group` frames before it may not
/// have been synced, and the position of each frame.
fn file(payloads: &[Vec<u8>], group: u64) -> (Vec<u8>, Vec<usize>) {
    let mut out = header().encode().to_vec();
    let mut positions = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        positions.push(out.len());
        let sequence = 100 + i as u64;
        let synced = sequence.saturating_sub(group).max(100);
        let (a, b) = payload.split_at(payload.len() / 2);
        encode_frame(&mut out, &SALT, meta(sequence, synced), &[a, b]);
    }
    (out, positions)
}

fn scan(bytes: &[u8]) -> (Vec<Frame>, Result<LogEnd, ScanError>) {
    let mut scanner = match Scanner::of_bytes(bytes) {
        Ok(scanner) => scanner,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut frames = Vec::new();
    for frame in &mut scanner {
        match frame {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, Err(error)),
        }
    }
    (frames, Ok(scanner.end()))
}

fn payloads() -> Vec<Vec<u8>> {
    (0..6u8).map(|i| vec![i; usize::from(i) * 40]).collect()
}

#[test]
fn file_headers_survive() {
    assert_eq!(FileHeader::decode(&header().encode()), Ok(header()));
}

#[test]
fn what_is_not_a_file_header_is_refused() {
    let good = header().encode();
    assert_eq!(FileHeader::decode(&[]), Err(FileHeaderError::Blank));
    assert_eq!(FileHeader::decode(&[0; 4096]), Err(FileHeaderError::Blank));
    assert_eq!(
        FileHeader::decode(&good[..39]),
        Err(FileHeaderError::Truncated(39))
    );
    assert_eq!(FileHeader::decode(&[1; 64]), Err(FileHeaderError::Magic));
    for byte in 8..FILE_HEADER_LENGTH {
        let mut bad = good;
        bad[byte] ^= 1;
        assert_eq!(FileHeader::decode(&bad), Err(FileHeaderError::Crc));
    }
    let mut later = good;
    later[8] = 2;
    let crc = crc32c::crc32c(&later[..36]);
    later[36..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(FileHeader::decode(&later), Err(FileHeaderError::Version(2)));
}

#[test]
fn preallocated_space_ends_a_log_cleanly() {
    let (mut bytes, _) = file(&payloads(), 1);
    let length = bytes.len() as u64;
    for extra in [0, 1, 29, 30, 4096, 3 << 20] {
        bytes.resize(length as usize + extra, 0);
        let (frames, end) = scan(&bytes);
        assert_eq!(frames.len(), 6);
        let end = end.unwrap();
        assert_eq!((end.position, end.next_sequence), (length, 106));
        assert!(!end.torn);
    }
}

#[test]
fn a_damaged_frame_is_corruption_only_if_it_had_been_synced() {
    let (bytes, positions) = file(&payloads(), 2);
    for (i, position) in positions.iter().enumerate() {
        let mut bad = bytes.clone();
        bad[position + 6] ^= 0x40;
        let (frames, end) = scan(&bad);
        assert_eq!(frames.len(), i);
        // A frame says that all before the two in front of it are synced.
        if i + 3 < positions.len() {
            let Err(ScanError::Corrupt {
                position: at,
                sequence,
                later_sequence,
                later_position,
            }) = end
            else {
                panic!("{end:?}");
            };
            assert_eq!(at, *position as u64);
            assert_eq!(sequence, 100 + i as u64);
            assert_eq!(later_sequence, 100 + i as u64 + 3);
            assert_eq!(later_position, positions[i + 3] as u64);
        } else {
            let end = end.unwrap();
            assert_eq!(end.position, *position as u64);
            assert!(end.torn);
        }
    }
}

#[test]
fn a_synced_frame_that_was_zeroed_is_corruption() {
    let (mut bytes, positions) = file(&payloads(), 0);
    bytes[positions[2]..positions[3]].fill(0);
    assert!(matches!(scan(&bytes).1, Err(ScanError::Corrupt { .. })));
}

#[test]
fn frames_of_another_file_do_not_parse() {
    let (mut bytes, positions) = file(&payloads(), 0);
    let mut recycled = Vec::new();
    encode_frame(&mut recycled, &[8; 16], meta(102, 102), &[b"other"]);
    bytes.truncate(positions[2]);
    bytes.extend_from_slice(&recycled);
    let (frames, end) = scan(&bytes);
    assert_eq!(frames.len(), 2);
    assert!(end.unwrap().torn);
}

#[test]
fn a_proof_that_straddles_two_reads_is_found() {
    // The last frame's header moves over the boundary between two pieces of the search.
    for shift in 0..40usize {
        let (mut bytes, positions) = file(&[vec![1; 10], vec![2; 10]], 0);
        bytes[positions[1]] = 0xFF;
        let target = positions[1] + (1 << 20) - shift;
        bytes.resize(target, 0x55);
        encode_frame(&mut bytes, &SALT, meta(102, 102), &[b"later"]);
        let disk = MemDisk::new();
        let on_disk = write(&disk, &bytes);
        let mut scanner = Scanner::of_file(&*on_disk).unwrap();
        assert!(scanner.next().unwrap().is_ok());
        let error = scanner.next().unwrap().unwrap_err();
        assert!(
            matches!(error, ScanError::Corrupt { later_position, .. } if later_position == target as u64),
            "{error}"
        );
        assert!(scanner.next().is_none());
    }
}

fn write(disk: &MemDisk, bytes: &[u8]) -> std::sync::Arc<dyn DiskFile> {
    let file = disk.create(Path::new("log")).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

#[test]
fn a_frame_larger_than_the_buffer_is_read() {
    let payloads = vec![vec![1; 3 << 20], vec![2; 5], vec![3; 1 << 20]];
    let (bytes, _) = file(&payloads, 1);
    let disk = MemDisk::new();
    let on_disk = write(&disk, &bytes);
    let frames: Vec<Frame> = Scanner::of_file(&*on_disk)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let read: Vec<&[u8]> = frames.iter().map(|f| &f.payload[..]).collect();
    assert_eq!(read, payloads);
}

#[test]
fn a_failing_disk_is_not_the_end_of_a_log() {
    let (bytes, _) = file(&payloads(), 1);
    let disk = MemDisk::new();
    let on_disk = write(&disk, &bytes);
    disk.fail(Fault::once(Operation::Read, 0, EIO));
    assert!(matches!(
        Scanner::of_file(&*on_disk).err(),
        Some(ScanError::Io(_))
    ));
}

#[test]
fn golden_bytes_stay() {
    let (bytes, _) = file(&payloads(), 2);
    check_golden("frame-v1.bin", &bytes);
    let (frames, end) = scan(&golden("frame-v1.bin"));
    let read: Vec<&[u8]> = frames.iter().map(|f| &f.payload[..]).collect();
    assert_eq!(read, payloads());
    assert!(!end.unwrap().torn);
}

fn arbitrary_payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)
}

proptest! {
    #[test]
    fn frames_survive(payloads in arbitrary_payloads(), group in 0u64..4) {
        let (bytes, positions) = file(&payloads, group);
        let (frames, end) = scan(&bytes);
        prop_assert_eq!(frames.len(), payloads.len());
        for (i, frame) in frames.iter().enumerate() {
            prop_assert_eq!(&frame.payload[..], &payloads[i][..]);
            prop_assert_eq!(frame.sequence, 100 + i as u64);
            prop_assert_eq!(frame.position, positions[i] as u64);
        }
        let end = end.unwrap();
        prop_assert_eq!(end.position, bytes.len() as u64);
        prop_assert!(!end.torn);
    }

    #[test]
    fn a_log_cut_anywhere_keeps_the_frames_before_the_cut(
        payloads in arbitrary_payloads(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, positions) = file(&payloads, 0);
        let cut = FILE_HEADER_LENGTH + cut.index(bytes.len() - FILE_HEADER_LENGTH + 1);
        let (frames, end) = scan(&bytes[..cut]);
        let whole = positions.iter().skip(1).chain([&bytes.len()]).filter(|end| **end <= cut).count();
        prop_assert_eq!(frames.len(), whole.min(payloads.len()));
        prop_assert!(end.is_ok());
    }

    #[test]
    fn a_changed_byte_never_yields_a_changed_frame(
        payloads in arbitrary_payloads(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        group in 0u64..4,
    ) {
        let (mut bytes, _) = file(&payloads, group);
        let original = scan(&bytes).0;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let (frames, _) = scan(&bytes);
        prop_assert!(frames.len() <= original.len());
        prop_assert_eq!(&frames[..], &original[..frames.len()]);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(junk in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut bytes = header().encode().to_vec();
        bytes.extend_from_slice(&junk);
        prop_assert!(scan(&junk).0.is_empty());
        prop_assert!(scan(&bytes).0.is_empty());
    }

    /// Whatever a crash leaves of a group of unsynced frames, what was synced before is read and
    /// the rest is cut without complaint.
    #[test]
    fn a_crash_never_looks_like_corruption(
        payloads in arbitrary_payloads(),
        synced in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let synced = synced.index(payloads.len() + 1);
        let disk = MemDisk::new();
        let log = disk.create(Path::new("log")).unwrap();
        log.preallocate(16384).unwrap();
        let mut position = FILE_HEADER_LENGTH as u64;
        log.write_all_at(&header().encode(), 0).unwrap();
        log.sync_data().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        for (i, payload) in payloads.iter().enumerate() {
            let sequence = 100 + i as u64;
            let synced_below = sequence.min(if i < synced { sequence } else { 100 + synced as u64 });
            let mut out = Vec::new();
            encode_frame(&mut out, &SALT, meta(sequence, synced_below), &[payload]);
            log.write_all_at(&out, position).unwrap();
            position += out.len() as u64;
            if i < synced {
                log.sync_data().unwrap();
            }
        }
        disk.crash(seed);
        let log = disk.open(Path::new("log")).unwrap();
        let mut scanner = Scanner::of_file(&*log).unwrap();
        let frames: Vec<Frame> = (&mut scanner).map(Result::unwrap).collect();
        prop_assert!(frames.len() >= synced);
        for (i, frame) in frames.iter().enumerate() {
            prop_assert_eq!(&frame.payload[..], &payloads[i][..]);
        }
    }
}
