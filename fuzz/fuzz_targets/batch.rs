//! Record batches as a client sends them: validation, decompression, records.
//!
//! Input: flags, then a batch. The flags ask for repairs (length, magic, CRC and so on), so that
//! what lies behind a check is reached, and choose the topic's settings.
#![no_main]

use bytes::Bytes;
use frazil_core::batch::codec::{CodecError, decompress};
use frazil_core::batch::{
    Codec, HEADER_LENGTH, Limits, Records, TimestampType, batches, decompressed_max, validate,
};
use libfuzzer_sys::fuzz_target;

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

fn repair(batch: &mut [u8], flags: u8) {
    if batch.len() < HEADER_LENGTH {
        return;
    }
    if flags & 1 != 0 {
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[..8].fill(0);
        batch[16] = 2;
    }
    if flags & 2 != 0 {
        let count = i32::from_be_bytes([batch[57], batch[58], batch[59], batch[60]]);
        batch[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    }
    if flags & 4 != 0 {
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, topic], batch)) = data.split_first_chunk() else {
        return;
    };
    let mut batch = batch.to_vec();
    repair(&mut batch, flags);
    let batch = Bytes::from(batch);
    assert!(batches(&batch).count() <= batch.len() / HEADER_LENGTH + 1);

    let limits = Limits {
        now_ms: 1_700_000_000_000,
        timestamp_type: match topic & 1 {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        timestamp_after_max_ms: if topic & 2 == 0 { i64::MAX } else { 1000 },
        compacted: topic & 4 != 0,
        compression: CODECS.get(usize::from(topic >> 3 & 7)).copied(),
        deep: flags & 8 == 0,
        ..Limits::default()
    };
    if let Ok(valid) = validate(&batch, &limits) {
        valid.header.check_crc(&valid.batch).unwrap();
        assert_eq!(valid.info.length as usize, valid.batch.len());
        let records = Records::of(&valid.header, &valid.batch);
        if limits.deep {
            let mut count = 0;
            for record in records.unwrap() {
                let record = record.unwrap();
                assert_eq!(record.offset_delta, count);
                assert!(!limits.compacted || record.key.is_some());
                assert!(record.timestamp <= valid.info.max_timestamp);
                count += 1;
            }
            assert_eq!(count as u32, valid.info.records);
        } else if let Ok(records) = records {
            records.for_each(drop);
        }
    }

    let cap = decompressed_max(batch.len() as u32, 1 << 20);
    for codec in CODECS {
        match decompress(codec, &batch, cap) {
            Ok(out) => assert!(out.len() <= cap),
            Err(CodecError::TooLarge { cap: told }) => assert_eq!(told, cap),
            Err(CodecError::Malformed(_)) => {}
        }
    }
});
