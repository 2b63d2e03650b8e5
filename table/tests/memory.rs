//! Converting takes bounded memory, whatever the topic holds. A program of its own, since it looks
//! at the memory of the whole process.
#![cfg(target_os = "linux")]

use bytes::{BufMut, Bytes};
use frazil_core::Offset;
use frazil_core::batch::codec::compress;
use frazil_core::batch::{Codec, HEADER_LENGTH, LENGTH_PREFIX};
use frazil_table::{ObjectId, Writer, WriterConfig};

const MIB: usize = 1 << 20;
/// What a job may take, besides the batch that it is given.
const LIMIT: usize = 256 * MIB;

/// The largest resident size since the last call.
#[expect(clippy::disallowed_methods, reason = "it asks the kernel")]
fn peak() -> usize {
    let status = std::fs::read("/proc/self/status").expect("a status");
    let status = String::from_utf8(status).expect("text");
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is forgotten");
    kib.expect("a peak").parse::<usize>().expect("a number") * 1024
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A record with this value and so many headers with empty keys and values.
fn record(out: &mut Vec<u8>, delta: usize, value: &[u8], headers: usize) {
    let mut head = vec![0, 0];
    varint(&mut head, delta);
    head.push(1);
    varint(&mut head, value.len());
    let mut count = Vec::new();
    varint(&mut count, headers);
    varint(out, head.len() + value.len() + count.len() + 2 * headers);
    out.extend_from_slice(&head);
    out.extend_from_slice(value);
    out.extend_from_slice(&count);
    out.resize(out.len() + 2 * headers, 0);
}

fn batch(codec: Codec, count: usize, records: &[u8]) -> Bytes {
    let records = compress(codec, records).expect("in memory");
    let mut out = Vec::with_capacity(HEADER_LENGTH + records.len());
    out.put_i64(0);
    out.put_i32((HEADER_LENGTH + records.len() - LENGTH_PREFIX) as i32);
    out.put_i32(0);
    out.put_i8(2);
    out.put_u32(0);
    out.put_i16(if codec == Codec::None { 0 } else { 4 });
    out.put_i32(count as i32 - 1);
    out.put_i64(0);
    out.put_i64(0);
    out.put_i64(-1);
    out.put_i16(-1);
    out.put_i32(-1);
    out.put_i32(count as i32);
    out.put_slice(&records);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut out = vec![0; length];
    for chunk in out.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    out
}

/// Converts the batch several times over, as a job does that uploads what is ready, and answers
/// how much memory that took besides the batch.
fn convert(batch: &Bytes, count: usize, times: usize) -> usize {
    peak();
    let before = peak();
    let mut writer = Writer::new(ObjectId::new(1, 1), WriterConfig::default()).unwrap();
    writer.begin(0, Offset(0));
    let mut base = Offset(0);
    for _ in 0..times {
        writer.push_batch(base, batch).unwrap();
        base = base + count as u32;
        drop(writer.take_parts());
    }
    writer.end(base).unwrap();
    drop(writer.finish());
    peak().saturating_sub(before)
}

#[test]
fn memory_is_bounded_whatever_the_topic_holds() {
    let value = |length, codec| {
        let mut records = Vec::new();
        record(&mut records, 0, &noise(length), 0);
        batch(codec, 1, &records)
    };
    let mut tiny = Vec::new();
    for delta in 0..300_000 {
        record(&mut tiny, delta, b"tiny", 0);
    }
    let mut constant = Vec::new();
    record(&mut constant, 0, &vec![7; 60 * MIB], 0);
    let mut headers = Vec::new();
    record(&mut headers, 0, b"", 2_000_000);
    let cases = [
        ("a value of 47 MiB", value(47 * MIB, Codec::None), 1, 3),
        (
            "a value of 47 MiB, compressed in vain",
            value(47 * MIB, Codec::Zstd),
            1,
            3,
        ),
        ("60 MiB of one byte", batch(Codec::Zstd, 1, &constant), 1, 3),
        (
            "tiny records",
            batch(Codec::Zstd, 300_000, &tiny),
            300_000,
            3,
        ),
        (
            "two million headers of one record",
            batch(Codec::Zstd, 1, &headers),
            1,
            1,
        ),
    ];
    drop((tiny, constant, headers));
    for (name, batch, count, times) in cases {
        let taken = convert(&batch, count, times);
        println!("{name}: {} MiB", taken / MIB);
        assert!(taken < LIMIT, "{name}: {} MiB", taken / MIB);
    }
}
