//! Memory that a disk can write from and read into past the page cache (`O_DIRECT`). It is used again,
//! since new pages cost time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A multiple of the logical block size of any disk.
pub(super) const BLOCK: usize = 4096;
/// Bytes of a buffer.
pub(super) const PIECE: usize = 1 << 20;
/// Buffers that are kept while nobody uses them; more are made when more are wanted.
const KEPT: usize = 8;

static KEEP: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// [`PIECE`] bytes that begin at a multiple of [`BLOCK`].
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// What is in it is anything.
    pub(super) fn take() -> Self {
        let kept = KEEP.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = kept.unwrap_or_else(|| vec![0; PIECE + BLOCK]);
        // `usize::MAX` for "impossible" does not occur for bytes; unaligned memory would only be
        // refused by the kernel.
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { memory, start }
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.memory[self.start..][range]
    }

    pub(super) fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.memory[self.start..][range]
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        let mut kept = KEEP.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}
