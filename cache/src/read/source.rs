//! The bytes of an extent as far as they are at hand.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use frazil_core::batch::{BatchHeader, HEADER_LENGTH, HeaderError};
use frazil_core::{BrokerId, SegmentId};

use super::plan::BLOCK_BYTES;

/// Where an extent's bytes come from. Positions count in the object, or in the log.
pub(crate) enum Source {
    /// From memory: all of them, and the position of the first byte.
    Memory(u64, Bytes),
    /// From another gateway's log: all of them, not checked yet, and the position of the first
    /// byte.
    Peer(BrokerId, u64, Bytes),
    /// From parts of the object.
    Object(Parts),
}

/// Parts of a segment.
pub(crate) struct Parts {
    pub(crate) id: SegmentId,
    /// Whether they are what a reader wants, instead of blocks.
    pub(crate) exact: bool,
    /// By the position of their first byte. They may overlap.
    have: BTreeMap<u64, Bytes>,
}

impl Parts {
    /// Of this segment, none so far.
    pub(crate) fn new(id: SegmentId, exact: bool) -> Self {
        Self {
            id,
            exact,
            have: BTreeMap::new(),
        }
    }

    /// Adds pieces that follow each other.
    pub(crate) fn add(&mut self, mut start: u64, pieces: impl IntoIterator<Item = Bytes>) {
        for piece in pieces {
            let length = piece.len() as u64;
            if length > 0 {
                self.have.insert(start, piece);
            }
            start += length;
        }
    }

    /// Adds blocks.
    pub(crate) fn add_blocks(&mut self, blocks: impl IntoIterator<Item = (u32, Bytes)>) {
        for (number, block) in blocks {
            self.add(u64::from(number) * BLOCK_BYTES, [block]);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.have.clear();
    }

    /// Forgets parts that end at or below a position.
    pub(crate) fn done_below(&mut self, position: u64) {
        self.have
            .retain(|start, part| start + part.len() as u64 > position);
    }

    /// The bytes from `from` on in one part, at most up to `to`.
    fn part(&self, from: u64, to: u64) -> Option<Bytes> {
        self.have.range(..=from).rev().find_map(|(start, part)| {
            let skip = (from - start) as usize;
            let end = ((to - start) as usize).min(part.len());
            (skip < end).then(|| part.slice(skip..end))
        })
    }

    /// Bytes `from .. to`, not empty, if they are here.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        let first = self.part(from, to)?;
        let length = (to - from) as usize;
        if first.len() == length {
            return Some(first);
        }
        // What is not there is found out before anything is copied.
        let mut parts = vec![first];
        let mut filled = parts[0].len();
        while filled < length {
            let next = self.part(from + filled as u64, to)?;
            filled += next.len();
            parts.push(next);
        }
        let mut joined = BytesMut::with_capacity(length);
        for part in parts {
            joined.extend_from_slice(&part);
        }
        Some(joined.freeze())
    }
}

impl Source {
    /// Whether the batch at `at` has more bytes than `left`, by its own account, and not all of them
    /// are here.
    pub(crate) fn ends_before(&self, at: u64, left: u64) -> bool {
        let Self::Object(parts) = self else {
            return false;
        };
        if !parts.exact {
            return false;
        }
        let header = HEADER_LENGTH as u64;
        if left < header {
            return true;
        }
        let Some(bytes) = parts.slice(at, at + header) else {
            return false;
        };
        match BatchHeader::parse(&bytes) {
            Err(HeaderError::Truncated { need, .. }) => {
                let need = need as u64;
                need > left && parts.slice(at, at + need).is_none()
            }
            _ => false,
        }
    }

    /// Bytes `from .. to`, not empty, without copying unless they cross parts. `None`: not all of
    /// them are at hand.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        match self {
            Self::Memory(start, bytes) | Self::Peer(_, start, bytes) => {
                let from = usize::try_from(from.checked_sub(*start)?).ok()?;
                let to = usize::try_from(to.checked_sub(*start)?).ok()?;
                (to <= bytes.len()).then(|| bytes.slice(from..to))
            }
            Self::Object(parts) => parts.slice(from, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::BrokerEpoch;

    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_is_known_by_its_header() {
        let (_, batch) = crate::testing::batch(1, 1000);
        let whole = batch.len() as u64;
        let part = |length: usize, exact| {
            let mut parts = Parts::new(SegmentId::new(BrokerEpoch(1), 1), exact);
            parts.add(50, [batch.slice(..length)]);
            Source::Object(parts)
        };
        for (length, left, known) in [
            (100, whole - 1, true),
            (100, whole, false),
            (61, 100, true),
            // Not even the header would fit, or it is not there.
            (60, 60, true),
            (60, whole, false),
            // What is here is looked at.
            (batch.len(), whole - 1, false),
        ] {
            let seen = part(length, true).ends_before(50, left);
            assert_eq!(seen, known, "{length} of {whole}, {left}");
            assert!(!part(length, false).ends_before(50, left));
        }
        assert!(!Source::Memory(0, batch.clone()).ends_before(0, 1));
    }

    #[test]
    fn slices_are_found_where_they_are() {
        let object: Vec<u8> = (0..3 * BLOCK_BYTES + 100)
            .map(|n| (n % 251) as u8)
            .collect();
        let mut have: BTreeMap<u32, Bytes> = object
            .chunks(BLOCK_BYTES as usize)
            .map(Bytes::copy_from_slice)
            .enumerate()
            .map(|(n, block)| (n as u32, block))
            .collect();
        have.remove(&1);
        let id = SegmentId::new(BrokerEpoch(1), 1);
        let mut parts = Parts::new(id, false);
        parts.add_blocks(have);
        let blocks = Source::Object(parts);
        let memory = Source::Memory(0, Bytes::from(object.clone()));
        let block = BLOCK_BYTES;
        for (from, to, there) in [
            (0, 1, true),
            (0, block, true),
            (5, block + 1, false),
            (block, block + 1, false),
            (2 * block + 7, 3 * block, true),
            (2 * block + 7, 3 * block + 1, true),
            (2 * block + 7, 3 * block + 100, true),
            (2 * block + 7, 3 * block + 101, false),
            (3 * block + 100, 3 * block + 101, false),
            (9 * block, 10 * block, false),
        ] {
            let expected = object.get(from as usize..to as usize);
            let found = blocks.slice(from, to);
            assert_eq!(found.is_some(), there, "{from}..{to}");
            if let Some(found) = found {
                assert_eq!(Some(&found[..]), expected);
            }
            assert_eq!(memory.slice(from, to).as_deref(), expected, "{from}..{to}");
        }
        // Parts of any length, one within another.
        let mut parts = Parts::new(id, true);
        let part = |from: usize, to: usize| Bytes::copy_from_slice(&object[from..to]);
        parts.add(100, [part(100, 150), Bytes::new(), part(150, 1000)]);
        parts.add(140, [part(140, 160)]);
        parts.add(2000, [part(2000, 2010)]);
        let exact = Source::Object(parts);
        for (from, to, there) in [
            (100, 1000, true),
            (100, 145, true),
            (145, 1000, true),
            (155, 900, true),
            (2000, 2010, true),
            (99, 101, false),
            (100, 1001, false),
            (999, 2001, false),
            (1500, 1501, false),
            (2005, 2011, false),
        ] {
            let expected = object.get(from as usize..to as usize);
            let found = exact.slice(from, to);
            assert_eq!(found.is_some(), there, "{from}..{to}");
            if let Some(found) = found {
                assert_eq!(Some(&found[..]), expected);
            }
        }
        let Source::Object(mut parts) = exact else {
            unreachable!()
        };
        parts.done_below(1000);
        assert_eq!(parts.slice(999, 1000), None);
        assert!(parts.slice(2000, 2010).is_some());
        let log = Source::Memory(1000, Bytes::from_static(b"0123456789"));
        assert_eq!(log.slice(1002, 1004).unwrap(), "23");
        assert_eq!(log.slice(999, 1004), None);
        assert_eq!(log.slice(1002, 1011), None);
    }
}
