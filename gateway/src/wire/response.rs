//! A response as pieces that are written one after the other without being joined.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

/// An encoded response: header and body, without the length in front.
#[derive(Debug, Default)]
pub struct Response {
    pieces: VecDeque<Bytes>,
    length: usize,
    /// Memory accounted to the response until it is written.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Response {
    /// A response of these pieces.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        let length = pieces.iter().map(Bytes::len).sum();
        Self {
            pieces,
            length,
            _permit: None,
        }
    }

    /// Holds `permit` until the response is dropped.
    pub(crate) fn holding(mut self, permit: Option<OwnedSemaphorePermit>) -> Self {
        self._permit = permit;
        self
    }

    /// The response with its length in front, as it goes to the socket. Fails if the length does
    /// not fit.
    pub(crate) fn framed(mut self) -> Result<Self, std::num::TryFromIntError> {
        let length = i32::try_from(self.length)?;
        self.pieces
            .push_front(Bytes::copy_from_slice(&length.to_be_bytes()));
        self.length += 4;
        Ok(self)
    }

    /// The bytes in one piece.
    pub fn to_bytes(mut self) -> Bytes {
        self.copy_to_bytes(self.length)
    }
}

impl From<Bytes> for Response {
    fn from(bytes: Bytes) -> Self {
        Self::new([bytes])
    }
}

impl Buf for Response {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[..])
    }

    fn advance(&mut self, mut count: usize) {
        assert!(
            count <= self.length,
            "advanced by {count} of {}",
            self.length
        );
        self.length -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> Response {
        Response::new([&b"abc"[..], b"", b"de", b"f"].map(Bytes::from_static))
    }

    #[test]
    fn any_way_of_advancing_reads_the_same() {
        for step in 1..=10 {
            let mut framed = response().framed().unwrap();
            let mut read = Vec::new();
            while framed.has_remaining() {
                let take = step.min(framed.remaining());
                read.extend_from_slice(&framed.copy_to_bytes(take));
            }
            assert_eq!(read, b"\0\0\0\x06abcdef");
        }
    }

    #[test]
    fn all_pieces_are_offered_at_once() {
        let mut framed = response().framed().unwrap();
        framed.advance(5);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = framed.chunks_vectored(&mut slices);
        let joined: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(joined, b"bcdef");
    }
}
