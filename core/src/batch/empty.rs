//! Batches without records.
//!
//! Kafka's compaction leaves one where it has removed every record of a batch, so that a consumer
//! that asks for those offsets gets behind them. Every client therefore takes them.

use bytes::{BufMut, Bytes};

use super::header::write_crc;
use super::{HEADER_LENGTH, LENGTH_PREFIX, MAGIC};

/// A batch without records that takes so many offsets: at least one, at most `i32::MAX`. Its base
/// offset is 0 and its leader epoch -1, to be stamped as those of any batch.
pub fn empty_batch(offsets: u32) -> Bytes {
    let last_offset_delta = offsets.clamp(1, i32::MAX.unsigned_abs()) - 1;
    let mut out = Vec::with_capacity(HEADER_LENGTH);
    out.put_i64(0);
    out.put_i32((HEADER_LENGTH - LENGTH_PREFIX) as i32);
    out.put_i32(-1);
    out.put_i8(MAGIC);
    out.put_u32(0);
    out.put_i16(0);
    out.put_i32(last_offset_delta as i32);
    // No timestamps, no producer, no records.
    out.put_i64(-1);
    out.put_i64(-1);
    out.put_i64(-1);
    out.put_i16(-1);
    out.put_i32(-1);
    out.put_i32(0);
    write_crc(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchHeader, Records};

    #[test]
    fn it_takes_offsets_and_has_no_records() {
        for (offsets, taken) in [(0, 1), (1, 1), (7, 7), (u32::MAX, i32::MAX.unsigned_abs())] {
            let batch = empty_batch(offsets);
            let header = BatchHeader::parse(&batch).unwrap();
            header.check_crc(&batch).unwrap();
            assert_eq!(header.offsets(), taken);
            assert_eq!(header.length as usize, batch.len());
            assert_eq!(Records::of(&header, &batch).unwrap().count(), 0);
        }
    }
}
