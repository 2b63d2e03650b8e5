//! Long reads past the page cache, which let syncs go first.
//!
//! What was written past the page cache ([`super::direct`]) is in none, and a disk gives a long read
//! its whole speed: whoever waits for a sync meanwhile, which is every producer, waits for all reads
//! that were asked for before, and most schedulers serve reads first anyway. So a range is read in
//! pieces, one after the other, and before each piece a sync that is under way is waited for:
//!
//! ```text
//! range     ├── piece ──┼── piece ──┼ …     each of PIECE bytes from the last multiple of BLOCK on
//! syncs           ├──────────┤
//! reads     ├──┤              ├──┤          at most PATIENCE later, so that no reader starves
//! ```
//!
//! Pieces are memory of their own, which is used again.

use std::fs::{Metadata, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::OFlags;

use super::aligned::{Aligned, BLOCK, PIECE};

/// For so long a piece waits for syncs.
const PATIENCE: Duration = Duration::from_millis(2);

/// Syncs that are under way.
static SYNCS: Mutex<usize> = Mutex::new(0);
static NO_SYNC: Condvar = Condvar::new();

/// A sync, until dropped.
pub(super) struct Sync(());

impl Sync {
    pub(super) fn begin() -> Self {
        *SYNCS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        let mut syncs = SYNCS.lock().unwrap_or_else(PoisonError::into_inner);
        *syncs -= 1;
        if *syncs == 0 {
            NO_SYNC.notify_all();
        }
    }
}

/// Waits until no sync is under way, for a while.
fn let_syncs_pass() {
    let syncs = SYNCS.lock().unwrap_or_else(PoisonError::into_inner);
    // However it ends, the piece is read.
    drop(NO_SYNC.wait_timeout_while(syncs, PATIENCE, |syncs| *syncs > 0));
}

/// What has been read, and where it is in its memory.
struct Piece {
    memory: Aligned,
    used: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(self.used.clone())
    }
}

/// Reads `range` of a file, cut at the end of the file; with what the system says of the file. The
/// pieces have up to 1 MiB each. `None`: it cannot be read so, or there is nothing to read. Blocks.
pub(crate) fn read(path: &Path, range: &Range<u64>) -> Option<(Vec<Bytes>, Metadata)> {
    let flags = OFlags::DIRECT.bits() as i32;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let end = range.end.min(metadata.len());
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < end {
        let next = (at / BLOCK as u64 * BLOCK as u64 + PIECE as u64).min(end);
        let_syncs_pass();
        pieces.push(read_piece(&file, at..next)?);
        at = next;
    }
    (!pieces.is_empty()).then_some((pieces, metadata))
}

/// Reads a range that, from the last multiple of [`BLOCK`] on, has at most [`PIECE`] bytes, and ends with
/// the file at the latest.
fn read_piece(file: &std::fs::File, range: Range<u64>) -> Option<Bytes> {
    let first = range.start / BLOCK as u64 * BLOCK as u64;
    let wanted = (range.end - first) as usize;
    let mut memory = Aligned::take();
    let target = memory.get_mut(0..wanted.next_multiple_of(BLOCK));
    let mut filled = 0;
    // The last read ends with the file; others are of whole blocks.
    while filled < wanted {
        match file.read_at(&mut target[filled..], first + filled as u64) {
            Ok(n) if n > 0 && (filled + n >= wanted || n % BLOCK == 0) => filled += n,
            _ => return None,
        }
    }
    let used = (range.start - first) as usize..wanted;
    Some(Bytes::from_owner(Piece { memory, used }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_never_ends_starves_no_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7; 2 * PIECE + 1]).unwrap();
        let _syncs = (Sync::begin(), Sync::begin());
        let (pieces, _) = read(&path, &(0..u64::MAX)).unwrap();
        assert_eq!(
            pieces.iter().map(Bytes::len).collect::<Vec<_>>(),
            [PIECE, PIECE, 1]
        );
    }

    #[test]
    fn a_range_is_read_wherever_it_lies_and_cut_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n >> 3) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let end = content.len() as u64;
        for start in [0, 1, 4096, 5000, 2_999_999] {
            for stop in [
                start + 1,
                2_000_000,
                end - 1,
                end,
                end + 1,
                end + 10_000_000,
            ] {
                if stop <= start {
                    continue;
                }
                let (pieces, metadata) = read(&path, &(start..stop)).unwrap();
                let bytes = pieces.concat();
                assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
                assert!(bytes == content[start as usize..stop.min(end) as usize]);
                assert_eq!(metadata.len(), end);
            }
        }
        assert!(read(&path, &(end..end + 1)).is_none());
        assert!(read(&dir.path().join("b"), &(0..1)).is_none());
    }
}
