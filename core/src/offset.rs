//! Offsets of one partition's log.

use std::fmt;
use std::ops::{Add, Sub};

use minicbor::{Decode, Encode};

/// The leader epoch of every partition, for ever.
///
/// Any gateway serves any partition, so there is no leadership to count; a constant epoch keeps
/// clients from truncating or refreshing (see `docs/adr`).
pub const LEADER_EPOCH: i32 = 0;

/// The position of a record in its partition's log, from 0. Ranges are half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Offset(#[n(0)] pub i64);

impl Offset {
    /// The first offset of a log.
    pub const ZERO: Self = Self(0);
}

impl Add<u32> for Offset {
    type Output = Self;

    /// The offset `records` further on.
    fn add(self, records: u32) -> Self {
        Self(self.0 + i64::from(records))
    }
}

impl Sub for Offset {
    type Output = i64;

    /// How many offsets lie between the two.
    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
