//! The wire form of batches: base offset and leader epoch stamped into their first 16 bytes, which
//! the CRC does not cover.

use bytes::{BufMut, Bytes, BytesMut};
use frazil_core::batch::header::stamp;
use frazil_core::{LEADER_EPOCH, Offset};

/// Larger batches are not copied: their stamp and the rest are two pieces.
const COPY_MAX: usize = 8 * 1024;
/// Bytes of the stamp.
const STAMP: usize = 16;

/// Collects stamped batches as pieces that are to be sent back to back.
#[derive(Debug, Default)]
pub(crate) struct Stamper {
    pieces: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Stamper {
    /// Adds a whole batch.
    pub(crate) fn push(&mut self, base: Offset, batch: &Bytes) {
        self.bytes += batch.len();
        self.small
            .put_slice(&stamp(base, batch.len() as u32, LEADER_EPOCH));
        if batch.len() <= COPY_MAX {
            self.small.put_slice(&batch[STAMP..]);
        } else {
            self.pieces.push(self.small.split().freeze());
            self.pieces.push(batch.slice(STAMP..));
        }
    }

    /// Bytes of the batches so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The pieces.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.pieces.push(self.small.freeze());
        }
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::batch::BatchHeader;

    use super::*;
    use crate::testing::batch;

    #[test]
    fn pieces_are_the_batches_with_their_offsets() {
        let batches = [batch(1, 10), batch(2, 20_000), batch(3, 9_000), batch(1, 5)];
        let mut stamper = Stamper::default();
        let mut base = Offset(40);
        for (_, batch) in &batches {
            stamper.push(base, batch);
            base = base + 10;
        }
        let total: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
        assert_eq!(stamper.bytes(), total);
        let pieces = stamper.finish();
        assert_eq!(pieces.len(), 5, "large batches are not copied");
        let sent = pieces.concat();
        assert_eq!(sent.len(), total);
        let mut at = 0;
        for (n, (info, original)) in batches.iter().enumerate() {
            let header = BatchHeader::parse(&sent[at..]).unwrap();
            header.check_crc(&sent[at..]).unwrap();
            assert_eq!(header.base_offset, 40 + 10 * n as i64);
            assert_eq!(header.leader_epoch, LEADER_EPOCH);
            assert_eq!(header.record_count as u32, info.records);
            assert_eq!(sent[at + STAMP..at + original.len()], original[STAMP..]);
            at += original.len();
        }
    }
}
