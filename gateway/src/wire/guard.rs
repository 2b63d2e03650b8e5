//! Refuses requests that the decoders of `kafka-protocol` must not see.
//!
//! Those decoders allocate for whatever count an array claims (`Vec::with_capacity`): a body of
//! five bytes can ask for gigabytes. The guard walks a request by its layout without allocating,
//! checks every count, length, varint and tag against the bytes that are there, and adds up what
//! decoding would allocate.
//!
//! Invariant: decoding what passed allocates at most
//! [`ALLOCATION_FREE`]` + `[`ALLOCATION_FACTOR`]` × length` bytes. (Strings and bytes are slices
//! of the request.) Produce is not decoded by that crate; its records make requests large, so it
//! alone may be larger than [`OTHER_REQUEST_BYTES_MAX`].
//!
//! What remains to the decoder: whether strings are UTF-8. It answers an error where they are not.

use kafka_protocol::messages::ApiKey;

use super::layout::{self, Field, Kind, Layout};
pub use super::reader::Malformed;
use super::reader::Reader;
use crate::versions;

/// Bytes that decoding may allocate per byte of a request.
pub const ALLOCATION_FACTOR: usize = 16;

/// Bytes that decoding may allocate besides: small requests of many tiny elements are legal.
pub const ALLOCATION_FREE: usize = 1 << 20;

/// The largest body of a request other than Produce.
pub const OTHER_REQUEST_BYTES_MAX: usize = 16 << 20;

/// What an unknown tagged field costs: the codec keeps a map of them in every struct, whose first
/// node is allocated whole.
const UNKNOWN_TAG_BYTES: usize = 512;

/// A request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at field {field}: {why}")]
pub struct Refused {
    /// The last field that was begun, by its name in Kafka's schema.
    pub field: &'static str,
    /// What is wrong.
    pub why: Malformed,
}

/// Walks the body of a request of an API and version that is served, and answers how many bytes
/// it takes; what stands behind them is ignored, as Kafka does.
pub fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<usize, Refused> {
    debug_assert!(versions::is_served(key, version));
    let Some(layout) = layout::of(key) else {
        // Dispatch serves only what has a layout; nothing to decode is nothing to refuse.
        return Ok(0);
    };
    if key != ApiKey::Produce && body.len() > OTHER_REQUEST_BYTES_MAX {
        return Err(Refused {
            field: "",
            why: Malformed::TooLarge,
        });
    }
    walk(layout, version, body).map(|cost| cost.bytes)
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Bytes of the body.
    bytes: usize,
    /// Bytes that decoding them allocates at most.
    allocated: usize,
}

fn walk(layout: &Layout, version: i16, body: &[u8]) -> Result<Cost, Refused> {
    let budget = ALLOCATION_FREE + ALLOCATION_FACTOR * body.len();
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible: layout.is_flexible(version),
        budget,
        field: "",
    };
    match walk.fields(layout.fields) {
        Ok(()) => Ok(Cost {
            bytes: walk.reader.position(),
            allocated: budget - walk.budget,
        }),
        Err(why) => Err(Refused {
            field: walk.field,
            why,
        }),
    }
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    /// Bytes that decoding may still allocate.
    budget: usize,
    /// The field begun last.
    field: &'static str,
}

impl Walk<'_> {
    fn charge(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Malformed::Budget)?;
        Ok(())
    }

    /// A struct: its fields, then its tagged fields.
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(field)?;
            }
        }
        if self.flexible {
            self.tagged_fields(fields)?;
        }
        Ok(())
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        let mut section = self.reader.clone();
        section.tagged(|tag, value| {
            let known = fields
                .iter()
                .find(|field| field.tag == Some(tag) && field.is_in(self.version));
            let Some(field) = known else {
                return self.charge(UNKNOWN_TAG_BYTES);
            };
            let mut walk = Walk {
                reader: Reader::new(value),
                ..*self
            };
            let value = walk.value(field);
            self.field = walk.field;
            value?;
            self.budget = walk.budget;
            if walk.reader.remaining() == 0 {
                Ok(())
            } else {
                Err(Malformed::TagLength)
            }
        })?;
        self.reader = section;
        Ok(())
    }

    fn value(&mut self, field: &'static Field) -> Result<(), Malformed> {
        self.field = field.name;
        let compact = self.flexible;
        let present = match field.kind {
            Kind::Fixed(bytes) => {
                self.reader.take(bytes)?;
                true
            }
            Kind::Struct(fields) => {
                self.fields(fields)?;
                true
            }
            Kind::Str => self.reader.string(compact)?.is_some(),
            Kind::Bytes => self.reader.bytes(compact)?.is_some(),
            Kind::FixedArray(bytes) => self.elements(bytes, |walk, count| {
                let all = count.checked_mul(bytes).ok_or(Malformed::Count)?;
                walk.reader.take(all).map(drop)
            })?,
            Kind::StrArray => self.elements(Kind::Str.decoded_bytes(), |walk, count| {
                for _ in 0..count {
                    walk.reader.string(compact)?.ok_or(Malformed::Null)?;
                }
                Ok(())
            })?,
            Kind::StructArray(fields) => {
                self.elements(layout::struct_bytes(fields), |walk, count| {
                    for _ in 0..count {
                        walk.fields(fields)?;
                    }
                    Ok(())
                })?
            }
        };
        if present || field.nullable {
            Ok(())
        } else {
            Err(Malformed::Null)
        }
    }

    /// An array whose elements take `decoded_bytes` each; answers whether it is not null.
    fn elements(
        &mut self,
        decoded_bytes: usize,
        walk_elements: impl FnOnce(&mut Self, usize) -> Result<(), Malformed>,
    ) -> Result<bool, Malformed> {
        let Some(count) = self.reader.count(self.flexible)? else {
            return Ok(false);
        };
        // Before the elements are looked at, since the decoder allocates for them all first.
        self.charge(count.saturating_mul(decoded_bytes))?;
        walk_elements(self, count)?;
        Ok(true)
    }
}

#[cfg(test)]
pub(super) mod tests;
