//! Topics as tables: records in Parquet files that Kafka consumers and table engines both read.
//!
//! A cold segment becomes Parquet, and that Parquet is the only copy: `SELECT * FROM topic` and a
//! consumer from offset 0 read the same objects. This crate is the format: rows in, files out;
//! bytes of files in, record batches out; and the manifests that say which file holds which
//! offsets. It does no I/O and knows no runtime.
//!
//! ```text
//! data file   "PAR1" | row groups | page indexes | footer
//! row group   index | pages of kafka_partition | kafka_offset | … | kafka_value
//! manifest    root ─► leaves ─► row groups          one root per partition
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`schema`] | the columns, in Parquet and in Iceberg |
//! | [`writer`] | record batches or rows to data files, row group by row group |
//! | [`index`] | where the pages of a row group are |
//! | [`read`] | which bytes a read needs, and record batches or rows from them |
//! | [`manifest`] | which row group holds which offsets of a partition |
//! | [`iceberg`] | what makes the files an Iceberg table |
//!
//! Rows are sorted by (partition, offset), and a row group holds one partition only.
//!
//! Invariant: what is read back are the records that were written: offset, timestamp, its type,
//! key, value and headers, byte for byte.
//!
//! Invariant: the batches made of a row group depend on nothing but the row group and the codec
//! asked for. Where a read begins decides which of them are returned, never how they are cut.
//!
//! Invariant: bytes of files and manifests never panic and never allocate from a claimed size.
//! Every byte that matters to a reader is under a checksum; damage is an error, never skipped.

mod column;
#[cfg(any(test, feature = "testing"))]
pub mod forge;
pub mod iceberg;
pub mod index;
pub mod manifest;
mod page;
mod parquet;
pub mod read;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod writer;

use frazil_core::Offset;
use frazil_core::batch::{HeaderError, RecordError, RecordsError};

pub use frazil_core::cold::ObjectId;
pub use index::GroupIndex;
pub use manifest::GroupRef;
pub use read::{Fetched, Read};
pub use writer::{Writer, WriterConfig, Written};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes of a row group are not what was written.
    #[error(
        "data file {file}, row group of partition {partition} from offset {base}: {damage} is wrong"
    )]
    Damaged {
        /// The file.
        file: ObjectId,
        /// The partition.
        partition: i32,
        /// First offset of the row group.
        base: Offset,
        /// What.
        damage: Damage,
    },
    /// Bytes of a manifest are not what was written.
    #[error("manifest {id}: {what} is wrong")]
    DamagedManifest {
        /// The manifest.
        id: ObjectId,
        /// What.
        what: &'static str,
    },
    /// A batch that was to be written cannot be read.
    #[error("the batch at offset {base}: {reason}")]
    Batch {
        /// Its first offset.
        base: Offset,
        /// Why.
        reason: BatchReason,
    },
    /// A codec failed, which it does not in memory.
    #[error("compressing: {0}")]
    Compress(#[from] std::io::Error),
}

/// Which bytes of a row group are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its index.
    #[error("the index ({0})")]
    Index(&'static str),
    /// A page.
    #[error("page {page} of column {column} ({what})")]
    Page {
        /// The column.
        column: &'static str,
        /// The page's number within the row group.
        page: usize,
        /// What of it.
        what: &'static str,
    },
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BatchReason {
    /// Its header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Its compressed records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Control records are no rows.
    #[error("it is a control batch")]
    Control,
    /// An offset that is below the one before it, or outside the batch.
    #[error("its offsets are not in order")]
    Offsets,
}

/// `magic | length u32 LE | CBOR of value | crc u32 LE of everything before`.
fn framed<T: minicbor::Encode<()>>(magic: &[u8; 8], value: &T) -> Vec<u8> {
    let cbor = minicbor::to_vec(value).expect("encoding in memory");
    let mut out = Vec::with_capacity(cbor.len() + 16);
    out.extend_from_slice(magic);
    out.extend_from_slice(&(cbor.len() as u32).to_le_bytes());
    out.extend_from_slice(&cbor);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads what [`framed`] wrote, or says what is wrong.
fn unframed<'b, T: minicbor::Decode<'b, ()>>(
    magic: &[u8; 8],
    bytes: &'b [u8],
) -> Result<T, &'static str> {
    let (start, end) = bytes.split_at_checked(12).ok_or("its length")?;
    if start[..7] != magic[..7] {
        return Err("its magic");
    }
    if start[7] != magic[7] {
        return Err("its version, which is not known here,");
    }
    let (cbor, crc) = end.split_last_chunk::<4>().ok_or("its length")?;
    let length = parquet::take_u32(&mut &start[8..]).ok_or("its length")?;
    if length as usize != cbor.len() {
        return Err("its length");
    }
    if crc32c::crc32c(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*crc) {
        return Err("its checksum");
    }
    let mut decoder = minicbor::Decoder::new(cbor);
    let value = decoder.decode().map_err(|_| "its content")?;
    if decoder.position() == cbor.len() {
        Ok(value)
    } else {
        Err("its end")
    }
}
