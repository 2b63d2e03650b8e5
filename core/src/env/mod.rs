//! The outside world as the rest of the program sees it: clock, ids, disk.
//!
//! The real ones are in the root package's `env.rs`. Tests use those of `testing`, which other
//! crates get by the feature of that name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

/// The wall clock. Nothing is decided by it; it stamps records and metrics.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// The source of identities and of jitter.
pub trait Ids: Send + Sync + 'static {
    /// A fresh random (version 4) UUID.
    fn uuid(&self) -> Uuid;
    /// 64 random bits.
    fn random(&self) -> u64;
}

/// A local file system. All calls block: call them from a thread of their own.
///
/// Durability is as POSIX gives it: a write is durable after [`DiskFile::sync_data`], a name
/// (create, rename, remove) after [`Disk::sync_dir`] of its directory.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its parents, durably: each new directory's parent is synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync + 'static {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves zeroed space up to `length` bytes, so that later writes need no allocation.
    fn preallocate(&self, length: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
}
