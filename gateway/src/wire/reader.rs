//! Bounds-safe reading of Kafka's primitive types from a slice. Nothing here allocates.
//!
//! Lengths: a classic string has an `i16` in front, classic bytes and arrays an `i32`, with -1
//! for null; the compact forms (KIP-482) have an unsigned varint of length + 1, with 0 for null.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a field, or a length points past their end.
    #[error("it ends within a field")]
    Truncated,
    /// A varint of more than 32 bits.
    #[error("a varint has more than 32 bits")]
    Varint,
    /// A negative length other than that of null.
    #[error("a length is negative")]
    Negative,
    /// Null where null is not allowed.
    #[error("null stands where it is not allowed")]
    Null,
    /// More elements than the bytes left can hold.
    #[error("an array claims more elements than there are bytes")]
    Count,
    /// Tags that are not strictly ascending.
    #[error("tagged fields are not in order")]
    TagOrder,
    /// A known tagged field whose length differs from that of its value.
    #[error("a tagged field has another length than its value")]
    TagLength,
    /// Text that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Decoding it would take too much memory.
    #[error("it is small for what it takes to decode it")]
    Budget,
    /// Larger than requests of this API may be.
    #[error("it is larger than requests of this kind may be")]
    TooLarge,
}

/// A position in a slice.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or(Malformed::Truncated)?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, _) = self.bytes[self.at..]
            .split_first_chunk::<N>()
            .ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(*array)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// An unsigned varint of at most 32 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        // Nearly all are one byte long.
        if let Some(&byte @ ..0x80) = self.bytes.get(self.at) {
            self.at += 1;
            return Ok(u32::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Malformed::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// The length in front of a string; `None` is null.
    fn string_length(&mut self, compact: bool) -> Result<Option<usize>, Malformed> {
        if compact {
            return self.compact_length();
        }
        match self.i16()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| Malformed::Negative),
        }
    }

    /// The length in front of bytes or an array; `None` is null.
    pub(crate) fn length(&mut self, compact: bool) -> Result<Option<usize>, Malformed> {
        if compact {
            return self.compact_length();
        }
        match self.i32()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| Malformed::Negative),
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    /// The number of elements of an array, not more than there are bytes left.
    pub(crate) fn count(&mut self, compact: bool) -> Result<Option<usize>, Malformed> {
        let count = self.length(compact)?;
        if count.is_some_and(|count| count > self.remaining()) {
            return Err(Malformed::Count);
        }
        Ok(count)
    }

    /// A string's bytes, unchecked; `None` is null.
    pub(crate) fn string(&mut self, compact: bool) -> Result<Option<&'a [u8]>, Malformed> {
        match self.string_length(compact)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Bytes; `None` is null.
    pub(crate) fn bytes(&mut self, compact: bool) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(compact)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Walks a section of tagged fields, handing each tag with its value to `each`. Answers how
    /// many there were.
    pub(crate) fn tagged(
        &mut self,
        mut each: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<u32, Malformed> {
        let count = self.varint()?;
        let mut before = None;
        for _ in 0..count {
            let tag = self.varint()?;
            if before.is_some_and(|before| tag <= before) {
                return Err(Malformed::TagOrder);
            }
            before = Some(tag);
            let length = self.varint()? as usize;
            each(tag, self.take(length)?)?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints() {
        for (bytes, expected) in [
            (&[0u8][..], Ok(0)),
            (&[0x7f], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(Malformed::Varint)),
            (&[0x80; 9], Err(Malformed::Varint)),
            (&[0x80, 0x80], Err(Malformed::Truncated)),
            (&[], Err(Malformed::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).varint(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let string = |bytes: &'static [u8], compact| Reader::new(bytes).string(compact);
        assert_eq!(string(&[0, 2, b'a', b'b'], false), Ok(Some(&b"ab"[..])));
        assert_eq!(string(&[0xff, 0xff], false), Ok(None));
        assert_eq!(string(&[0xff, 0xfe], false), Err(Malformed::Negative));
        assert_eq!(
            string(&[0x7f, 0xff, b'a'], false),
            Err(Malformed::Truncated)
        );
        assert_eq!(string(&[3, b'a', b'b'], true), Ok(Some(&b"ab"[..])));
        assert_eq!(string(&[0], true), Ok(None));
        assert_eq!(string(&[9, b'a'], true), Err(Malformed::Truncated));
        let count = |bytes: &'static [u8], compact| Reader::new(bytes).count(compact);
        assert_eq!(
            count(&[0x7f, 0xff, 0xff, 0xff, 1], false),
            Err(Malformed::Count)
        );
        assert_eq!(count(&[0x80, 0, 0, 0], false), Err(Malformed::Negative));
        assert_eq!(count(&[2, 7], true), Ok(Some(1)));
        assert_eq!(
            count(&[0xff, 0xff, 0xff, 0xff, 0x0f], true),
            Err(Malformed::Count)
        );
    }

    #[test]
    fn tags_must_ascend() {
        let walk = |bytes: &'static [u8]| {
            let mut seen = Vec::new();
            Reader::new(bytes).tagged(|tag, value| {
                seen.push((tag, value.to_vec()));
                Ok(())
            })?;
            Ok(seen)
        };
        assert_eq!(walk(&[0]), Ok(vec![]));
        assert_eq!(
            walk(&[2, 1, 1, 9, 5, 0]),
            Ok(vec![(1, vec![9]), (5, vec![])])
        );
        assert_eq!(walk(&[2, 1, 0, 1, 0]), Err(Malformed::TagOrder));
        assert_eq!(walk(&[1, 0, 3, 1]), Err(Malformed::Truncated));
    }
}
