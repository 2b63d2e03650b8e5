//! The bytes of an extent as far as they are at hand.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use frazil_core::{BrokerId, SegmentId};

use super::plan::{BLOCK_BYTES, blocks};

/// Where an extent's bytes come from. Positions count in the object, or in the log.
pub(crate) enum Source {
    /// From memory: all of them, and the position of the first byte.
    Memory(u64, Bytes),
    /// From another gateway's log: all of them, not checked yet, and the position of the first
    /// byte.
    Peer(BrokerId, u64, Bytes),
    /// From blocks of the object, by their number.
    Blocks(SegmentId, BTreeMap<u32, Bytes>),
}

impl Source {
    /// Bytes `from .. to`, not empty, without copying unless they cross blocks. `None`: not all of
    /// them are at hand.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        match self {
            Self::Memory(start, bytes) | Self::Peer(_, start, bytes) => {
                let from = usize::try_from(from.checked_sub(*start)?).ok()?;
                let to = usize::try_from(to.checked_sub(*start)?).ok()?;
                (to <= bytes.len()).then(|| bytes.slice(from..to))
            }
            Self::Blocks(_, have) => {
                let (first, last) = blocks(from, to);
                let part = |block: u32| {
                    let bytes = have.get(&block)?;
                    let start = u64::from(block) * BLOCK_BYTES;
                    let from = from.saturating_sub(start) as usize;
                    let to = (to - start).min(BLOCK_BYTES) as usize;
                    (to <= bytes.len()).then(|| bytes.slice(from..to))
                };
                if first == last {
                    return part(first);
                }
                let parts: Option<Vec<Bytes>> = (first..=last).map(part).collect();
                let parts = parts?;
                let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                for part in parts {
                    joined.extend_from_slice(&part);
                }
                Some(joined.freeze())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::BrokerEpoch;

    use super::*;

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
        let blocks = Source::Blocks(id, have);
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
        let log = Source::Memory(1000, Bytes::from_static(b"0123456789"));
        assert_eq!(log.slice(1002, 1004).unwrap(), "23");
        assert_eq!(log.slice(999, 1004), None);
        assert_eq!(log.slice(1002, 1011), None);
    }
}
