//! DELTA_BINARY_PACKED: blocks of 128 differences in four miniblocks of 32.
//!
//! ```text
//! varint 128 | varint 4 | varint count | zigzag varint first value
//! block  zigzag varint least difference | 4 bit widths, 1 byte each
//!        | miniblocks: 32 differences less the least one, bit-packed; those behind the last
//!          value are left out
//! ```
//!
//! Offsets without gaps and constants take no bits at all.

use super::thrift::{varint, zigzag};
use super::{take, take_varint};

const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;
const MINIBLOCKS: usize = BLOCK / MINIBLOCK;

/// Appends `values`. Those of a 32-bit column must not be more than 2^31 apart, since readers take
/// no wider differences there.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[i64]) {
    varint(out, BLOCK as u64);
    varint(out, MINIBLOCKS as u64);
    varint(out, values.len() as u64);
    varint(out, zigzag(values.first().copied().unwrap_or(0)));
    let mut last = values.first().copied().unwrap_or(0);
    let mut deltas = [0i64; BLOCK];
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            last = *value;
        }
        let deltas = &deltas[..block.len()];
        let least = deltas.iter().copied().min().unwrap_or(0);
        varint(out, zigzag(least));
        let mut widths = [0u8; MINIBLOCKS];
        for (width, mini) in widths.iter_mut().zip(deltas.chunks(MINIBLOCK)) {
            let all = mini
                .iter()
                .fold(0, |all, delta| all | delta.wrapping_sub(least) as u64);
            *width = 64 - all.leading_zeros() as u8;
        }
        out.extend_from_slice(&widths);
        for (width, mini) in widths.into_iter().zip(deltas.chunks(MINIBLOCK)) {
            pack(out, mini, least, width);
        }
    }
}

fn pack(out: &mut Vec<u8>, mini: &[i64], least: i64, width: u8) {
    let mut bits = 0u128;
    let mut have = 0u32;
    for at in 0..MINIBLOCK {
        let value = mini.get(at).map_or(0, |d| d.wrapping_sub(least) as u64);
        bits |= u128::from(value) << have;
        have += u32::from(width);
        while have >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            have -= 8;
        }
    }
}

/// Decodes exactly `count` values, which fill `bytes`. `count` is the caller's, not the page's:
/// as much is allocated.
pub(crate) fn decode(mut bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let bytes = &mut bytes;
    let header = (take_varint(bytes)?, take_varint(bytes)?);
    if header != (BLOCK as u64, MINIBLOCKS as u64) || take_varint(bytes)? != count as u64 {
        return None;
    }
    let mut last = unzigzag(take_varint(bytes)?);
    let mut values = Vec::with_capacity(count);
    if count > 0 {
        values.push(last);
    }
    while values.len() < count {
        let least = unzigzag(take_varint(bytes)?);
        let widths = take(bytes, MINIBLOCKS)?;
        for &width in widths {
            let here = MINIBLOCK.min(count - values.len());
            if here == 0 {
                break;
            }
            if width > 64 {
                return None;
            }
            let packed = take(bytes, MINIBLOCK / 8 * usize::from(width))?;
            if width == 0 {
                for _ in 0..here {
                    last = last.wrapping_add(least);
                    values.push(last);
                }
                continue;
            }
            let mut packed = packed.iter();
            let mask = u64::MAX >> (64 - width);
            let mut bits = 0u128;
            let mut have = 0u32;
            for _ in 0..here {
                while have < u32::from(width) {
                    bits |= u128::from(*packed.next()?) << have;
                    have += 8;
                }
                let delta = bits as u64 & mask;
                bits >>= width;
                have -= u32::from(width);
                last = last.wrapping_add(least).wrapping_add(delta as i64);
                values.push(last);
            }
        }
    }
    bytes.is_empty().then_some(values)
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_grows_evenly_takes_no_bits() {
        let mut out = Vec::new();
        encode(&mut out, &(7..1007).collect::<Vec<i64>>());
        assert_eq!(out.len(), 2 + 1 + 2 + 1 + 8 * 5);
    }

    #[test]
    fn the_example_of_the_format() {
        let mut out = Vec::new();
        encode(&mut out, &[7, 5, 3, 1, 2, 3, 4, 5]);
        // 128, 4, 8, 7 | least difference -2 | width 2: 0 0 0 3 3 3 3, then zeros
        let mut expected = vec![0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0];
        expected.extend([0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out, expected);
    }

    fn values() -> impl Strategy<Value = Vec<i64>> {
        prop_oneof![
            prop::collection::vec(any::<i64>(), 0..400),
            prop::collection::vec(0i64..1000, 0..400),
            prop::collection::vec(
                prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-1), Just(0)],
                0..200
            ),
        ]
    }

    proptest! {
        #[test]
        fn values_survive(values in values()) {
            let mut out = Vec::new();
            encode(&mut out, &values);
            prop_assert_eq!(decode(&out, values.len()), Some(values.clone()));
            prop_assert_eq!(decode(&out, values.len() + 1), None);
            out.push(0);
            prop_assert_eq!(decode(&out, values.len()), None);
        }

        #[test]
        fn any_bytes_decode_or_do_not(mut bytes: Vec<u8>, count in 0u8..127, header: bool) {
            if header {
                bytes.splice(..0, [0x80, 1, 4, count]);
            }
            if let Some(values) = decode(&bytes, usize::from(count)) {
                prop_assert_eq!(values.len(), usize::from(count));
            }
        }
    }
}
