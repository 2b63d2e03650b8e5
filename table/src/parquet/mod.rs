//! The part of Parquet that tables are written in.
//!
//! Data pages of version 1, compressed with zstd, without dictionaries: PLAIN for bytes,
//! DELTA_BINARY_PACKED for numbers, RLE for levels. Every page has a CRC; every number column has
//! statistics and a column index; every column has an offset index.
//!
//! Decoding trusts nothing: a page says how many values it has only to be checked, and what it
//! decodes to is bounded by what is really there.
//!
//! Source: Apache Parquet format 2.12, `Encodings.md`, `parquet.thrift`, `PageIndex.md`.

pub(crate) mod delta;
pub(crate) mod footer;
pub(crate) mod levels;
pub(crate) mod thrift;

/// Takes `count` bytes off the front of `bytes`.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

/// An unsigned LEB128 number of at most 64 bits.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        let part = u64::from(byte & 0x7F);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A little-endian u32.
pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let bytes = take(bytes, 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
