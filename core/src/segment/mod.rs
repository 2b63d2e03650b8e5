//! Segments: the objects that flushes put into the store. One holds record batches of many
//! partitions, each partition's batches back to back, and describes itself at its end, so that
//! the log can be rebuilt from the bucket alone.
//!
//! ```text
//! object        header, extents, footer, tail. All numbers are big-endian.
//!
//! header        16 bytes
//!    0 magic "FRZLSEG\0" | 8 version u8 = 1 | 9 seven zeros
//!
//! extents       from byte 16 on, without gaps: for each partition its record batches (magic 2, as
//!               the producer sent them, base offsets not stamped), in the order of their offsets
//!
//! footer        directly behind the last extent
//!    0 segment id: epoch u64, 8 number u64 | 16 put id, 16 bytes | 32 extent count u32
//!   36 length u8 of the cluster's id | 37 the cluster's id, UTF-8
//!      then for each extent, in the order in which they lie in the object, 64 bytes:
//!       0 topic id, 16 bytes | 16 partition i32
//!      20 start u32: its first byte in the object | 24 length u32, at least 1
//!      28 batch count u32, at least 1 | 32 record count u64, at least 1
//!      40 first timestamp i64: baseTimestamp of the first batch
//!      48 max timestamp i64: the largest maxTimestamp
//!      56 crc u32: CRC-32C of its bytes | 60 four zeros
//!
//! tail          16 bytes, the end of the object
//!    0 footer length u32, the tail not counted | 4 footer crc u32: CRC-32C of the footer
//!    8 magic "FRZLSEGF"
//! ```
//!
//! A reader that knows the object's length reads its last [`TAIL_READ`] bytes, which in all but
//! extreme cases hold the whole footer, and gives them to [`Footer::parse`].
//!
//! Invariants: an object is at most [`SEGMENT_MAX`] bytes long, is never changed, and holds a
//! partition at most once. The *put id* is drawn for one flush: it tells whether an object found
//! under a segment's name after an ambiguous PUT is the one that was put. Offsets are not in it:
//! they are assigned when the segment is committed, after it was written.
//!
//! A crash between PUT and commit leaves an object that nobody refers to, which the collector
//! removes once the epoch in its name can no longer commit it.

mod builder;
mod footer;

pub use builder::{BuiltSegment, PlacedBatch, SegmentBuilder, SegmentExtent, SegmentFull};
pub use footer::{Footer, FooterError, FooterExtent};

use bytes::Bytes;

/// The longest segment, in bytes, everything included (64 MiB).
pub const SEGMENT_MAX: usize = 64 << 20;
/// The longest record batch (48 MiB). It fits into a segment of its own, whatever else that says;
/// topics cannot allow longer ones.
pub const BATCH_MAX: usize = 48 << 20;
/// Bytes before the first extent.
pub const HEADER_LENGTH: usize = 16;
/// Bytes behind the footer.
pub const TAIL_LENGTH: usize = 16;
/// How much of an object's end to read in search of its footer: room for a thousand extents.
pub const TAIL_READ: usize = 64 << 10;

const HEADER_MAGIC: [u8; 8] = *b"FRZLSEG\0";
const TAIL_MAGIC: [u8; 8] = *b"FRZLSEGF";
const VERSION: u8 = 1;
const FOOTER_FIXED: usize = 37;
const FOOTER_ENTRY: usize = 64;

/// Why an object's beginning is not that of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// Too short, or something else.
    #[error("the object is not a segment")]
    Magic,
    /// Written by a later version of this program.
    #[error("segment version {0} is not supported, only {VERSION}")]
    Version(u8),
}

fn header() -> [u8; HEADER_LENGTH] {
    let mut out = [0; HEADER_LENGTH];
    out[..8].copy_from_slice(&HEADER_MAGIC);
    out[8] = VERSION;
    out
}

/// Checks the header at the start of an object.
pub fn check_header(bytes: &[u8]) -> Result<(), SegmentHeaderError> {
    match bytes.first_chunk::<HEADER_LENGTH>() {
        Some(found) if found[..8] == HEADER_MAGIC && found[8] != VERSION => {
            Err(SegmentHeaderError::Version(found[8]))
        }
        Some(found) if *found == header() => Ok(()),
        _ => Err(SegmentHeaderError::Magic),
    }
}

/// Everything in a whole segment that is in memory: its footer and the bytes of each extent, all
/// checked.
pub fn open(object: &Bytes) -> Result<(Footer, Vec<Bytes>), OpenError> {
    check_header(object)?;
    let footer = Footer::parse(object, object.len() as u64)?;
    let mut extents = Vec::with_capacity(footer.extents.len());
    for extent in &footer.extents {
        let start = extent.start as usize;
        let bytes = object.slice(start..start + extent.length as usize);
        extent.check(&bytes)?;
        extents.push(bytes);
    }
    Ok((footer, extents))
}

/// Why bytes are not a whole segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its beginning.
    #[error(transparent)]
    Header(#[from] SegmentHeaderError),
    /// Its end, or one of its extents.
    #[error(transparent)]
    Footer(#[from] FooterError),
}

#[cfg(test)]
mod tests;
