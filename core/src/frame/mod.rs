//! Framing of an append-only file on a local disk: the gateway's write-ahead log and the
//! quorum's Raft log are written in it.
//!
//! A file is a header followed by frames, and after the last one anything: nothing, the zeros of
//! preallocated space, or what a crash left of unsynced writes. All numbers are big-endian.
//!
//! ```text
//! file header, 40 bytes
//!   0 magic "FRZLLOG\0" | 8 version u8 = 1 | 9 kind u8 | 10 reserved u16 = 0
//!  12 salt, 16 random bytes | 28 first sequence u64 | 36 crc u32: CRC-32C of bytes 0..36
//!
//! frame, 30 bytes and the payload
//!   0 magic u8 = 0xF7 | 1 kind u8 | 2 length u32: bytes of payload | 6 sequence u64
//!  14 synced below u64: frames with a lower sequence were durable when this one was written
//!  22 header crc u32: CRC-32C of the salt and bytes 0..22
//!  26 frame crc u32: the header crc's CRC-32C continued over the payload | 30 payload
//! ```
//!
//! The first frame has the file's first sequence, every further one the sequence before it plus
//! one. The salt is new for every file, so the remains of another file in recycled blocks do not
//! parse, and neither does anything that a client puts into a payload.
//!
//! # What a crash leaves
//!
//! Writes that were not synced may be there in part and in any order, so behind a torn frame
//! later ones of the same unsynced group may be whole. That is a torn tail: nothing of it was
//! ever promised, and it is cut. But a frame that says "synced below" *above* the torn one's
//! sequence proves that the torn one had been durable and was damaged afterwards. That is
//! corruption: [`Scanner`] reports it and does not offer the rest as a shorter log. The header's
//! own CRC lets the search for such a frame judge each candidate in constant time.
//!
//! A file with a torn tail must not be appended to as it is: an old frame behind the cut could
//! continue the new ones. Begin a new file, or cut this one at [`LogEnd::position`] and sync it.
//! The scan looks at one file. Where a log has several, its owner checks that each begins at the
//! sequence at which the one before ended, given that it synced each before it created the next.
//!
//! Invariant: nothing here allocates more than the bytes that are there, or panics on any bytes.

mod scan;

pub use scan::{Frame, LogEnd, ScanError, Scanner};

use bytes::BufMut;

/// Bytes of a file before its first frame.
pub const FILE_HEADER_LENGTH: usize = 40;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_LENGTH: usize = 30;
/// The largest payload, in bytes (128 MiB): more than the largest Kafka request.
pub const PAYLOAD_MAX: usize = 128 << 20;

const FILE_MAGIC: [u8; 8] = *b"FRZLLOG\0";
const VERSION: u8 = 1;
const FRAME_MAGIC: u8 = 0xF7;

/// The random bytes that tie frames to their file.
pub type Salt = [u8; 16];

/// The beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file is a log of; the log's owner numbers its kinds.
    pub kind: u8,
    /// Random, new for every file.
    pub salt: Salt,
    /// The sequence of the first frame.
    pub first_sequence: u64,
}

/// Why bytes are not the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileHeaderError {
    /// Nothing but zeros, or nothing: the file was created but its header never synced. It holds
    /// nothing and may be removed.
    #[error("the log file is blank")]
    Blank,
    /// The header is not whole.
    #[error("the log file's header is cut off after {0} bytes")]
    Truncated(usize),
    /// Not such a file.
    #[error("the file is not a log file")]
    Magic,
    /// Written by a later version of this program.
    #[error("log file version {0} is not supported, only {VERSION}")]
    Version(u8),
    /// The checksum does not match.
    #[error("the log file's header is damaged")]
    Crc,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FILE_HEADER_LENGTH] {
        let mut out = [0; FILE_HEADER_LENGTH];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8] = VERSION;
        out[9] = self.kind;
        out[12..28].copy_from_slice(&self.salt);
        out[28..36].copy_from_slice(&self.first_sequence.to_be_bytes());
        let crc = crc32c::crc32c(&out[..36]);
        out[36..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FileHeaderError> {
        let have = bytes.len().min(FILE_HEADER_LENGTH);
        if bytes[..have].iter().all(|b| *b == 0) {
            return Err(FileHeaderError::Blank);
        }
        let Some(header) = bytes.first_chunk::<FILE_HEADER_LENGTH>() else {
            return Err(FileHeaderError::Truncated(have));
        };
        if header[..8] != FILE_MAGIC {
            return Err(FileHeaderError::Magic);
        }
        // The checksum comes first: a damaged version is damage, not a later version.
        if crc32c::crc32c(&header[..36]) != u32::from_be_bytes(array(header, 36)) {
            return Err(FileHeaderError::Crc);
        }
        if header[8] != VERSION {
            return Err(FileHeaderError::Version(header[8]));
        }
        Ok(Self {
            kind: header[9],
            salt: array(header, 12),
            first_sequence: u64::from_be_bytes(array(header, 28)),
        })
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) synced_below: u64,
    /// CRC of salt and header, from which that of the frame goes on.
    pub(crate) header_crc: u32,
    pub(crate) frame_crc: u32,
}

impl FrameHeader {
    /// Reads the header of a frame if its magic, its CRC and its length allow.
    pub(crate) fn decode(salt: &Salt, bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<FRAME_HEADER_LENGTH>()?;
        if header[0] != FRAME_MAGIC {
            return None;
        }
        let header_crc = u32::from_be_bytes(array(header, 22));
        if crc32c::crc32c_append(crc32c::crc32c(salt), &header[..22]) != header_crc {
            return None;
        }
        let length = u32::from_be_bytes(array(header, 2));
        if length as usize > PAYLOAD_MAX {
            return None;
        }
        Some(Self {
            kind: header[1],
            length,
            sequence: u64::from_be_bytes(array(header, 6)),
            synced_below: u64::from_be_bytes(array(header, 14)),
            header_crc,
            frame_crc: u32::from_be_bytes(array(header, 26)),
        })
    }
}

/// What a frame is, its payload apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// What the payload is; the log's owner numbers its kinds.
    pub kind: u8,
    /// The sequence of the frame before plus one, or the file's first.
    pub sequence: u64,
    /// Every frame of this log with a lower sequence is known to be durable: a sync that began
    /// after it was written has returned. At most `sequence`. The file's first sequence is always
    /// true of a file that is new.
    pub synced_below: u64,
}

/// The bytes that precede a payload, given in `parts`, for writers that do not copy it.
///
/// # Panics
/// If the payload exceeds [`PAYLOAD_MAX`], or `synced_below` exceeds `sequence`: the writer is
/// wrong.
pub fn frame_header(salt: &Salt, meta: FrameMeta, parts: &[&[u8]]) -> [u8; FRAME_HEADER_LENGTH] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    assert!(length <= PAYLOAD_MAX, "a payload of {length} bytes");
    assert!(meta.synced_below <= meta.sequence, "{meta:?}");
    let mut out = [0; FRAME_HEADER_LENGTH];
    out[0] = FRAME_MAGIC;
    out[1] = meta.kind;
    out[2..6].copy_from_slice(&(length as u32).to_be_bytes());
    out[6..14].copy_from_slice(&meta.sequence.to_be_bytes());
    out[14..22].copy_from_slice(&meta.synced_below.to_be_bytes());
    let header_crc = crc32c::crc32c_append(crc32c::crc32c(salt), &out[..22]);
    out[22..26].copy_from_slice(&header_crc.to_be_bytes());
    let frame_crc = parts
        .iter()
        .fold(header_crc, |crc, part| crc32c::crc32c_append(crc, part));
    out[26..].copy_from_slice(&frame_crc.to_be_bytes());
    out
}

/// Appends a frame to `out`. The payload is the concatenation of `parts`.
///
/// # Panics
/// As [`frame_header`].
pub fn encode_frame(out: &mut impl BufMut, salt: &Salt, meta: FrameMeta, parts: &[&[u8]]) {
    out.put_slice(&frame_header(salt, meta, parts));
    for part in parts {
        out.put_slice(part);
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests;
