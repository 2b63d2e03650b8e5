//! A run of entries as an object.
//!
//! ```text
//! magic "FRZQLOG\x01" | count u32 LE | count × (length u32 LE | record) | crc u32 LE
//! ```
//! Records are those of the log's frames ([`record`](crate::raft::record)), all of them entries;
//! the crc is CRC-32C of all before.

use crate::error::Corrupt;
use crate::raft::Entry;
use crate::raft::record::Record;

const MAGIC: [u8; 8] = *b"FRZQLOG\x01";
const HEADER: usize = 12;
const TRAILER: usize = 4;

/// The object's bytes.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Record::entry(entry).encode(&mut bytes);
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The entries in an object.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Corrupt> {
    let wrong = |what: &str| Corrupt::new(format!("archived entries: {what}"));
    if bytes.len() < HEADER + TRAILER || bytes[..8] != MAGIC {
        return Err(wrong("no header"));
    }
    let (content, crc) = bytes.split_at(bytes.len() - TRAILER);
    if crc != crc32c::crc32c(content).to_le_bytes() {
        return Err(wrong("checksum"));
    }
    let number = |bytes: [u8; 4]| u32::from_le_bytes(bytes) as usize;
    let (count, mut rest) = content[8..]
        .split_first_chunk()
        .ok_or_else(|| wrong("count"))?;
    let mut entries = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (record, behind) = behind
            .split_at_checked(number(*length))
            .ok_or_else(|| wrong("a record is cut short"))?;
        entries.push(Record::decode(record)?.into_entry()?);
        rest = behind;
    }
    if !rest.is_empty() || entries.len() != number(*count) {
        return Err(wrong("its lengths do not add up"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::check_golden;
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;
    use openraft::testing::log_id;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::TypeConfig;

    fn entries() -> Vec<Entry> {
        let id = |index| log_id::<TypeConfig>(3, 1, index);
        vec![
            Entry::new(id(299), EntryPayload::Blank),
            Entry::new(id(300), EntryPayload::Normal(vec![7; 5].into())),
        ]
    }

    #[test]
    fn archived_entries_are_written_as_ever() {
        let bytes = encode(&entries());
        check_golden("archive-log-v1.bin", &bytes);
        assert_eq!(decode(&bytes).unwrap(), entries());
    }

    #[test]
    fn no_bit_can_change_unnoticed_and_no_byte_be_missing() {
        let whole = encode(&entries());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_err(), "{at}");
            assert!(decode(&whole[..at]).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_with_a_checksum_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            bytes.splice(0..0, MAGIC);
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            let _ = decode(&bytes);
        }
    }
}
