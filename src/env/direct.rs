//! Long writes past the page cache (`O_DIRECT`).
//!
//! What a broker writes is read again from its own memory or not for long, so copying it into the
//! page cache costs more than it gives: about one second of processor time per GiB on a virtual
//! machine, three times what the disk needs (docs/performance.md). A long write is cut in three:
//!
//! ```text
//! offset          ┌ multiple of BLOCK       multiple of BLOCK ┐         end
//!   ├── buffered ─┼── direct, through an aligned buffer ──────┼ buffered ─┤
//! ```
//!
//! The pieces do not share a page, so nobody sees old bytes: Linux writes back and drops cached
//! pages of a range before a direct write to it. Durability is the same as before: it takes a sync.
//! Where a file system does not do this, everything is written as usual.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

use rustix::fs::OFlags;

use super::aligned::{Aligned, BLOCK, PIECE};
use super::calls::{Calls, System, write_all_at};

/// Shorter writes are not worth it.
pub(crate) const WORTH: usize = 128 << 10;

/// A file whose long writes go past the page cache.
#[derive(Debug)]
pub(crate) struct Direct<C = System> {
    file: File,
    calls: C,
    /// The same file, opened for direct writes when the first long one comes; `None`: it cannot be.
    direct: OnceLock<Option<File>>,
}

impl Direct {
    pub(crate) fn new(file: File) -> Self {
        Self::with(file, System)
    }
}

impl<C: Calls> Direct<C> {
    /// The same with these calls.
    pub(crate) fn with(file: File, calls: C) -> Self {
        Self {
            file,
            calls,
            direct: OnceLock::new(),
        }
    }

    /// The file, for everything else.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let head = (offset.next_multiple_of(BLOCK as u64) - offset) as usize;
        if bytes.len() < WORTH.max(head) {
            return self.write_buffered(bytes, offset);
        }
        let Some(direct) = self.direct() else {
            return self.write_buffered(bytes, offset);
        };
        let (head, rest) = bytes.split_at(head);
        let (middle, tail) = rest.split_at(rest.len() / BLOCK * BLOCK);
        let at = offset + head.len() as u64;
        self.write_buffered(head, offset)?;
        let written = write_direct(&self.calls, direct, middle, at)?;
        // What the kernel did not take this way, and the last bytes.
        self.write_buffered(&middle[written..], at + written as u64)?;
        self.write_buffered(tail, at + middle.len() as u64)
    }

    fn write_buffered(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all_at(&self.calls, &self.file, bytes, offset)
    }

    fn direct(&self) -> Option<&File> {
        let open = || {
            // By descriptor, since the name may have changed. It is another description of the
            // same file: reads and short writes go on as usual.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::DIRECT.bits() as i32;
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(flags).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }
}

/// Writes as much as the kernel takes; answers how much.
fn write_direct(calls: &impl Calls, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let mut buffer = Aligned::take();
    let mut written = 0;
    let mut result = Ok(());
    for piece in bytes.chunks(PIECE) {
        let copy = buffer.get_mut(0..piece.len());
        copy.copy_from_slice(piece);
        match calls.write_at(file, copy, offset + written as u64) {
            Ok(n) => {
                written += n;
                if n < piece.len() {
                    break;
                }
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    match result {
        // Not this way, not here: the caller writes it as usual.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(written)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(written),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Every way in which the ends of a write can lie, each over what the one before left.
    #[test]
    fn what_was_written_is_there_however_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = Direct::new(file.unwrap());
        let mut expected = vec![0; 6 << 20];
        let mut end = 0;
        let offsets = [0, 1, 4095, 4096, 4097, 10_000, 1 << 20, (1 << 20) + 3];
        let lengths = [
            0,
            1,
            4096,
            WORTH - 1,
            WORTH,
            WORTH + 1,
            PIECE,
            2 * PIECE + 5000,
        ];
        let mut byte = 0_u8;
        for offset in offsets {
            for length in lengths {
                byte = byte.wrapping_add(1);
                let bytes: Vec<u8> = (0..length).map(|n| byte ^ (n >> 8) as u8).collect();
                file.write_all_at(&bytes, offset as u64).unwrap();
                expected[offset..offset + length].copy_from_slice(&bytes);
                if length > 0 {
                    end = end.max(offset + length);
                }
            }
        }
        file.file().sync_data().unwrap();
        let mut found = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == expected[..end], "{} of {end} bytes", found.len());
    }
}
