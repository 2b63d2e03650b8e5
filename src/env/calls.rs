//! The calls between an object of a directory and its disk, one by one, so that a test can let each of
//! them fail (`faults.rs`).

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What a file is written and made durable with.
pub(crate) trait Calls: Clone + fmt::Debug + Send + Sync + 'static {
    /// Writes some of `bytes`; how many.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes what was written durable. After an error it may be lost, although it can be read, and although
    /// the next sync succeeds: it is written anew, or given up.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes the names in a directory durable. After an error the same holds.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Calls for System {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Writes all of `bytes`.
pub(super) fn write_all_at(
    calls: &impl Calls,
    file: &File,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match calls.write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
