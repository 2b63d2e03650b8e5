//! Bytes of commands, outcomes and snapshots.
//!
//! ```text
//! envelope   version u8: the feature level it needs | CBOR item
//! outcome    version u8 = 1 | CBOR item
//! snapshot   "FZMETA" | version u16 LE: the feature level in use | CBOR item
//!            | CRC-32C of all before, u32 LE
//! ```
//!
//! CBOR as `minicbor` derives it: structs are arrays indexed by field number, enums arrays of
//! variant number and fields. What follows the item is an error, so that no two byte strings of
//! different length mean the same. Envelopes and outcomes carry no checksum: they travel inside
//! frames that have one.
//!
//! Decoding never panics and allocates in proportion to the bytes that are there, never to a
//! claimed count.

use minicbor::{Decode, Encode};

use crate::command::{Envelope, LEVEL, Outcome};

/// The version of outcomes that this program writes.
const OUTCOME_VERSION: u8 = 1;

const SNAPSHOT_MAGIC: &[u8; 6] = b"FZMETA";
const SNAPSHOT_HEADER: usize = SNAPSHOT_MAGIC.len() + 2;
const SNAPSHOT_TRAILER: usize = 4;

/// The bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Nothing there, or less than the fixed parts take.
    #[error("{what} is cut short at {length} bytes")]
    Short {
        /// What was to be decoded.
        what: &'static str,
        /// How many bytes there were.
        length: usize,
    },
    /// Written by another program, or a later version of this one.
    #[error("{what} has version {version}, which is not known here")]
    Version {
        /// What was to be decoded.
        what: &'static str,
        /// Its version.
        version: u16,
    },
    /// Written at a feature level that is not known here.
    #[error(
        "{what} is of feature level {level}, and this program knows levels up to {knows}: install a \
         newer frazil on this node"
    )]
    Level {
        /// What was to be decoded.
        what: &'static str,
        /// The level it needs.
        level: u16,
        /// The highest that is known.
        knows: u8,
    },
    /// Not a snapshot at all.
    #[error("not a metadata snapshot")]
    Magic,
    /// Damaged.
    #[error("the snapshot's checksum is {stored:08x}, its content's {computed:08x}")]
    Checksum {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// Not the CBOR that was expected.
    #[error("{what}: {source}")]
    Cbor {
        /// What was to be decoded.
        what: &'static str,
        /// The decoder's complaint.
        source: minicbor::decode::Error,
    },
    /// More bytes than the item takes.
    #[error("{what} is followed by {length} stray bytes")]
    Stray {
        /// What was to be decoded.
        what: &'static str,
        /// How many bytes follow.
        length: usize,
    },
    /// Well-formed, but not a state that any sequence of commands leads to.
    #[error("the snapshot contradicts itself: {0}")]
    Inconsistent(String),
}

impl Envelope {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        versioned(self.command.level(), self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode_knowing(LEVEL, bytes)
    }

    /// Reads as a program does that knows levels up to `knows`.
    pub(crate) fn decode_knowing(knows: u8, bytes: &[u8]) -> Result<Self, CodecError> {
        let what = "command";
        let (level, body) = split_version(what, bytes)?;
        known(what, level.into(), knows)?;
        let envelope: Self = decode_cbor(what, body)?;
        // An older program would have read it.
        known(what, envelope.command.level().into(), level)?;
        Ok(envelope)
    }
}

impl Outcome {
    /// The bytes that go to whoever asked.
    pub fn encode(&self) -> Vec<u8> {
        versioned(OUTCOME_VERSION, self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let what = "outcome";
        match split_version(what, bytes)? {
            (OUTCOME_VERSION, body) => decode_cbor(what, body),
            (version, _) => Err(CodecError::Version {
                what,
                version: version.into(),
            }),
        }
    }
}

fn versioned<T: Encode<()>>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    append_cbor(value, &mut bytes);
    bytes
}

fn split_version<'b>(what: &'static str, bytes: &'b [u8]) -> Result<(u8, &'b [u8]), CodecError> {
    let (&version, body) = bytes
        .split_first()
        .ok_or(CodecError::Short { what, length: 0 })?;
    Ok((version, body))
}

fn known(what: &'static str, level: u16, knows: u8) -> Result<(), CodecError> {
    match level {
        0 => Err(CodecError::Version { what, version: 0 }),
        level if level > knows.into() => Err(CodecError::Level { what, level, knows }),
        _ => Ok(()),
    }
}

/// Wraps a state's CBOR in magic, version and checksum.
pub(crate) fn encode_snapshot<T: Encode<()>>(level: u8, state: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    bytes.extend_from_slice(SNAPSHOT_MAGIC);
    bytes.extend_from_slice(&u16::from(level).to_le_bytes());
    append_cbor(state, &mut bytes);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads what [`encode_snapshot`] wrote, as a program does that knows levels up to `knows`. Answers
/// the level too.
pub(crate) fn decode_snapshot<'b, T: Decode<'b, ()>>(
    knows: u8,
    bytes: &'b [u8],
) -> Result<(u8, T), CodecError> {
    const WHAT: &str = "snapshot";
    if bytes.len() < SNAPSHOT_HEADER + SNAPSHOT_TRAILER {
        return Err(CodecError::Short {
            what: WHAT,
            length: bytes.len(),
        });
    }
    if !bytes.starts_with(SNAPSHOT_MAGIC) {
        return Err(CodecError::Magic);
    }
    let level = u16::from_le_bytes([bytes[6], bytes[7]]);
    known(WHAT, level, knows)?;
    let (content, trailer) = bytes.split_at(bytes.len() - SNAPSHOT_TRAILER);
    let mut stored = [0; SNAPSHOT_TRAILER];
    stored.copy_from_slice(trailer);
    let stored = u32::from_le_bytes(stored);
    let computed = crc32c::crc32c(content);
    if stored != computed {
        return Err(CodecError::Checksum { stored, computed });
    }
    // Not above what is known, which is a byte.
    Ok((level as u8, decode_cbor(WHAT, &content[SNAPSHOT_HEADER..])?))
}

fn append_cbor<T: Encode<()>>(value: &T, to: &mut Vec<u8>) {
    match minicbor::encode(value, to) {
        Ok(()) => {}
        // The writer is a vector and no encoder of ours raises errors of its own.
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

fn decode_cbor<'b, T: Decode<'b, ()>>(
    what: &'static str,
    bytes: &'b [u8],
) -> Result<T, CodecError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder
        .decode()
        .map_err(|source| CodecError::Cbor { what, source })?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        length => Err(CodecError::Stray { what, length }),
    }
}

/// A UUID as 16 bytes.
pub(crate) mod uuid {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};
    use uuid::Uuid;

    /// For `#[cbor(with)]`.
    pub(crate) fn encode<C, W: Write>(
        id: &Uuid,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(id.as_bytes())?.ok()
    }

    /// For `#[cbor(with)]`.
    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Uuid, DecodeError> {
        Uuid::from_slice(d.bytes()?).map_err(|_| DecodeError::message("a UUID has 16 bytes"))
    }
}

/// A topic behind an `Arc`, as if it stood there itself.
pub(crate) mod shared {
    use std::sync::Arc;

    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decode, Decoder, Encode, Encoder};

    /// For `#[cbor(with)]`.
    pub(crate) fn encode<C, T: Encode<C>, W: Write>(
        value: &Arc<T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        T::encode(value, e, ctx)
    }

    /// For `#[cbor(with)]`.
    pub(crate) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Arc<T>, DecodeError> {
        T::decode(d, ctx).map(Arc::new)
    }
}
