//! Repetition and definition levels: RLE and bit-packed runs, behind their length as u32 LE.
//!
//! ```text
//! run         header varint: count << 1      | the level, 1 byte
//! bit-packed  header varint: groups << 1 | 1 | 8 levels a group, least significant bit first
//! ```

use super::thrift::varint;
use super::{take, take_u32, take_varint};

/// Bits of a level of at most `max`.
fn width(max: u8) -> usize {
    8 - max.leading_zeros() as usize
}

/// Levels under construction. They are packed as they come: 32 million of them, which one record
/// can have, take some megabytes.
#[derive(Debug)]
pub(crate) struct Levels {
    max: u8,
    /// Finished runs.
    out: Vec<u8>,
    /// Groups of eight for a bit-packed run. Empty while `run` is something.
    packed: Vec<u8>,
    run: Option<(u8, u64)>,
    /// The levels behind those, fewer than eight.
    open: [u8; 8],
    open_count: usize,
    counts: [usize; 3],
}

impl Levels {
    /// None, of at most `max`, which is at most 2.
    pub(crate) fn new(max: u8) -> Self {
        Self {
            max,
            out: Vec::new(),
            packed: Vec::new(),
            run: None,
            open: [0; 8],
            open_count: 0,
            counts: [0; 3],
        }
    }

    pub(crate) fn push(&mut self, level: u8) {
        self.counts[usize::from(level)] += 1;
        if let Some((of, count)) = &mut self.run {
            if *of == level {
                *count += 1;
                return;
            }
            self.end_run();
        }
        self.open[self.open_count] = level;
        self.open_count += 1;
        if self.open_count == 8 {
            if self.open == [level; 8] {
                self.end_packed();
                self.run = Some((level, 8));
            } else {
                self.pack();
            }
            self.open_count = 0;
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.counts.iter().sum()
    }

    /// How many are below `level`.
    pub(crate) fn below(&self, level: u8) -> usize {
        self.counts[..usize::from(level)].iter().sum()
    }

    /// Appends them to `out` and forgets them.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let open = &self.open[..self.open_count];
        match open.first() {
            None => {}
            Some(first) if open.iter().all(|level| level == first) => {
                let run = (*first, self.open_count as u64);
                self.end_packed();
                self.run = Some(run);
            }
            Some(_) => {
                self.open[self.open_count..].fill(0);
                self.pack();
            }
        }
        self.end_packed();
        self.end_run();
        out.extend_from_slice(&(self.out.len() as u32).to_le_bytes());
        out.append(&mut self.out);
        *self = Self::new(self.max);
    }

    fn pack(&mut self) {
        let width = width(self.max);
        let packed = self
            .open
            .iter()
            .rev()
            .fold(0u16, |bits, level| bits << width | u16::from(*level));
        self.packed
            .extend_from_slice(&packed.to_le_bytes()[..width]);
    }

    fn end_packed(&mut self) {
        if !self.packed.is_empty() {
            let groups = self.packed.len() / width(self.max);
            varint(&mut self.out, (groups as u64) << 1 | 1);
            self.out.append(&mut self.packed);
        }
    }

    fn end_run(&mut self) {
        if let Some((level, count)) = self.run.take() {
            varint(&mut self.out, count << 1);
            self.out.push(level);
        }
    }
}

/// Takes `count` levels off the front of `bytes`, none above `max`. `count` is the caller's, not
/// the page's: as much is allocated.
pub(crate) fn decode(bytes: &mut &[u8], count: usize, max: u8) -> Option<Vec<u8>> {
    let length = take_u32(bytes)? as usize;
    let mut runs = take(bytes, length)?;
    let width = width(max);
    let mask = (1u64 << width) - 1;
    let mut levels = Vec::with_capacity(count);
    while levels.len() < count {
        let left = count - levels.len();
        let header = take_varint(&mut runs)?;
        if header & 1 == 0 {
            let run = usize::try_from(header >> 1).ok()?;
            let level = take(&mut runs, 1)?[0];
            if run == 0 || run > left || level > max {
                return None;
            }
            levels.resize(levels.len() + run, level);
        } else {
            let groups = usize::try_from(header >> 1).ok()?;
            if groups == 0 || groups > left.div_ceil(8) {
                return None;
            }
            for group in take(&mut runs, groups * width)?.chunks_exact(width) {
                let mut bits = [0; 8];
                bits[..width].copy_from_slice(group);
                let bits = u64::from_le_bytes(bits);
                for at in 0..8.min(count - levels.len()) {
                    let level = (bits >> (at * width) & mask) as u8;
                    if level > max {
                        return None;
                    }
                    levels.push(level);
                }
            }
        }
    }
    runs.is_empty().then_some(levels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(levels: &[u8], max: u8) -> Vec<u8> {
        let mut encoder = Levels::new(max);
        for level in levels {
            encoder.push(*level);
        }
        assert_eq!(encoder.count(), levels.len());
        let mut out = Vec::new();
        encoder.finish(&mut out);
        out
    }

    #[test]
    fn encodings_are_those_of_the_format() {
        let check = |levels: &[u8], max, expected: &[u8]| {
            let out = encode(levels, max);
            assert_eq!(out[..4], (expected.len() as u32).to_le_bytes());
            assert_eq!(out[4..], *expected, "{levels:?}");
        };
        check(&[1; 1000], 1, &[0xD0, 0x0F, 1]);
        check(&[1], 1, &[2, 1]);
        check(&[1, 0, 1, 1], 1, &[3, 0b1101]);
        check(&[0, 1, 2, 0, 1, 2, 0, 1], 2, &[3, 0b0010_0100, 0b0100_1001]);
        check(&[], 1, &[]);
    }

    proptest! {
        #[test]
        fn levels_survive(
            runs in prop::collection::vec((0u8..3, 1usize..20), 0..40),
            more in 0usize..3,
        ) {
            let levels: Vec<u8> = runs
                .into_iter()
                .flat_map(|(level, count)| std::iter::repeat_n(level, count))
                .collect();
            let mut out = encode(&levels, 2);
            out.extend_from_slice(b"behind");
            let mut rest = &out[..];
            prop_assert_eq!(decode(&mut rest, levels.len(), 2), Some(levels.clone()));
            prop_assert_eq!(rest, b"behind");
            if more > 0 {
                let mut rest = &out[..];
                prop_assert_eq!(decode(&mut rest, levels.len() + 8 * more, 2), None);
            }
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes: Vec<u8>, count in 0usize..100) {
            if let Some(levels) = decode(&mut &bytes[..], count, 2) {
                prop_assert_eq!(levels.len(), count);
                prop_assert!(levels.iter().all(|level| *level <= 2));
            }
        }
    }
}
