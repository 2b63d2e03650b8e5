//! Record batches (version 2, KIP-98) that are built once and sent again and again.
//!
//! ```text
//! base offset 8 | length 4 | leader epoch 4 | magic 1 | crc32c 4 | attributes 2 | last delta 4 |
//! timestamps 8 + 8 | producer id 8, epoch 2, sequence 4: none | count 4 | records, compressed
//! ```
//!
//! Nothing in a batch depends on topic or partition, so one serves them all; without a producer id
//! the broker does not recognise repetition.

use std::io::Write as _;

use anyhow::Result;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Bytes before the records.
const HEADER: usize = 61;
/// What the checksum covers begins here.
const CHECKED: usize = 21;
/// Some moment in 2026, in milliseconds: a batch is the same in every run.
const TIMESTAMP: i64 = 1_790_000_000_000;

/// Bytes that do not compress, the same in each run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

/// Text as of a log of events, which compresses about as such logs do; the same in each run.
fn events(length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 200);
    // No line is shorter than 64 bytes.
    for (n, word) in noise((length / 64 + 1) * 4).chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let line = format!(
            "{{\"id\":{n},\"user\":\"u{:08x}\",\"action\":\"page_view\",\"path\":\"/items/{}\",\"ms\":{}}}\n",
            word,
            word % 5000,
            word % 977
        );
        text.extend_from_slice(line.as_bytes());
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text
}

fn varint(into: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn compressed(codec: Codec, records: &[u8]) -> Result<Vec<u8>> {
    Ok(match codec {
        Codec::None => records.to_vec(),
        Codec::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Codec::Snappy => {
            // The framing of snappy-java, which is what Kafka's clients write.
            let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for chunk in records.chunks(32 * 1024) {
                let block = snap::raw::Encoder::new().compress_vec(chunk)?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            out
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Codec::Zstd => zstd::encode_all(records, 3)?,
    })
}

/// A batch of `count` records with values of `size` bytes and no keys.
pub(crate) fn batch(count: usize, size: usize, codec: Codec) -> Result<Vec<u8>> {
    let values = match codec {
        Codec::None => noise(count * size),
        _ => events(count * size),
    };
    let mut records = Vec::with_capacity(count * (size + 16));
    let mut head = Vec::new();
    for (delta, value) in values.chunks_exact(size.max(1)).enumerate() {
        head.clear();
        head.push(0);
        varint(&mut head, 0);
        varint(&mut head, delta as i64);
        varint(&mut head, -1);
        varint(&mut head, value.len() as i64);
        varint(&mut records, (head.len() + value.len() + 1) as i64);
        records.extend_from_slice(&head);
        records.extend_from_slice(value);
        varint(&mut records, 0);
    }
    let records = compressed(codec, &records)?;
    let mut batch = Vec::with_capacity(HEADER + records.len());
    batch.extend_from_slice(&0i64.to_be_bytes());
    batch.extend_from_slice(&((HEADER - 12 + records.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&(codec as i16).to_be_bytes());
    batch.extend_from_slice(&(count as i32 - 1).to_be_bytes());
    batch.extend_from_slice(&TIMESTAMP.to_be_bytes());
    batch.extend_from_slice(&TIMESTAMP.to_be_bytes());
    batch.extend_from_slice(&(-1i64).to_be_bytes());
    batch.extend_from_slice(&(-1i16).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.extend_from_slice(&(count as i32).to_be_bytes());
    batch.extend_from_slice(&records);
    let checksum = crc32c::crc32c(&batch[CHECKED..]);
    batch[CHECKED - 4..CHECKED].copy_from_slice(&checksum.to_be_bytes());
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn another_implementation_reads_the_batches() {
        let mut bytes = Bytes::from(batch(37, 100, Codec::None).unwrap());
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(set.records.len(), 37);
        assert!(bytes.is_empty());
        for (n, record) in set.records.iter().enumerate() {
            assert_eq!(record.offset, n as i64);
            assert_eq!(record.key, None);
            assert_eq!(record.value.as_ref().unwrap().len(), 100);
            assert_eq!(record.timestamp, TIMESTAMP);
        }
    }

    #[test]
    fn there_are_as_many_events_as_a_batch_says() {
        for length in [1, 100, 1600, 16 << 10, 1 << 20] {
            assert_eq!(events(length).len(), length);
        }
    }

    #[test]
    fn codecs_have_the_numbers_of_the_protocol_and_make_batches_smaller() {
        let plain = batch(64, 1024, Codec::None).unwrap().len();
        for (number, codec) in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            .into_iter()
            .enumerate()
        {
            let batch = batch(64, 1024, codec).unwrap();
            assert_eq!(batch[22], number as u8 + 1);
            assert!(batch.len() < plain * 2 / 3, "{codec:?}: {}", batch.len());
        }
    }
}
