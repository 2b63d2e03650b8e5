//! The real clock, entropy and file system.
//!
//! Invariant: this module and its own are the only ones of the workspace that may use the calls which
//! `clippy.toml` bans; everybody else takes the traits of [`frazil_core::env`], so that tests and simulation can
//! replace the world.
#![allow(
    clippy::disallowed_methods,
    reason = "the implementations behind frazil_core::env end here"
)]

mod aligned;
mod calls;
mod direct;
#[cfg(test)]
pub(crate) mod faults;
mod long_read;
mod put;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use frazil_core::env::{Clock, Disk, DiskFile, Ids};
use rustix::fs::FallocateFlags;
use uuid::Uuid;

use self::direct::Direct;
use self::long_read::Sync;

/// The outside world, as a node is given it.
#[derive(Clone)]
pub struct Env {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Identities and randomness.
    pub ids: Arc<dyn Ids>,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

impl Env {
    /// The real one.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 reads as its distance below zero, not as a panic.
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }
}

/// The operating system's entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn random(&self) -> u64 {
        // The fixed version and variant bits of the two halves do not overlap, so that every bit
        // of the result has at least one random operand.
        let (high, low) = Uuid::new_v4().as_u64_pair();
        high ^ low
    }
}

/// The local file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
            .collect();
        fs::create_dir_all(path)?;
        // A directory is there for good when the one above it has been synced.
        for dir in missing.iter().rev() {
            let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
            self.sync_dir(above.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is nobody's of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(SystemFile(Direct::new(file))))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(Arc::new(SystemFile(Direct::new(file))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let _sync = Sync::begin();
        File::open(dir)?.sync_all()
    }
}

struct SystemFile(Direct);

impl DiskFile for SystemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file().metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self
                .0
                .file()
                .read_at(&mut buf[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _sync = Sync::begin();
        self.0.file().sync_data()
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        if length <= self.len()? {
            return Ok(());
        }
        match rustix::fs::fallocate(self.0.file(), FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve. The promise that is left is the length; space is
            // then found, or not, by each write.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.0.file().set_len(length)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.file().set_len(length)
    }
}

/// A disk on which files are only begun while others have room left: reserving space
/// ([`DiskFile::preallocate`]) finds the disk full before it is.
///
/// The write-ahead log of a gateway gets this one. Its files can be given up only after commits, and
/// a voter on the same file system needs room for those.
pub struct LeavingRoom {
    disk: Arc<dyn Disk>,
    bytes: u64,
}

/// What others need, in bytes; on small file systems a twentieth.
const ROOM: u64 = 256 << 20;

impl LeavingRoom {
    /// Leaves 256 MiB, or a twentieth of the file system if that is less.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, bytes: ROOM }
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FrugalFile {
            file,
            path: path.to_path_buf(),
            room: self.bytes,
        })
    }
}

impl Disk for LeavingRoom {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

struct FrugalFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    room: u64,
}

impl DiskFile for FrugalFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let space = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        let room = self.room.min(bytes(space.f_blocks) / 20);
        let more = length.saturating_sub(self.len()?);
        if bytes(space.f_bavail) < more.saturating_add(room) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "what is left of the file system is left to others",
            ));
        }
        self.file.preallocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

/// A directory that this process has for itself, until dropped or ended in any way.
#[derive(Debug)]
pub struct DirLock {
    /// Closing it releases the lock.
    _file: File,
}

impl DirLock {
    /// Creates the directory if need be and locks the file `lock` in it; `None`: another has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(dir)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Reads a file of text of at most `max` bytes.
///
/// # Errors
/// Those of the file system; `InvalidData` if the file is longer or not UTF-8.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8 text"))
}

/// Puts a file in place of whatever `path` names, creating its directories. Others see the old
/// content or the new one. Not synced: for results that can be made again.
///
/// # Errors
/// Those of the file system.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", SystemIds.random()));
    let part = path.with_file_name(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Whether two paths, which exist, are on one file system.
pub(crate) fn same_file_system(one: &Path, other: &Path) -> bool {
    let device = |path| fs::metadata(path).map(|metadata| metadata.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

pub(crate) use self::calls::{Calls, System};
pub(crate) use self::long_read::read as read_long;
pub(crate) use self::put::{Publish, Published, put_file};

/// A file of this length or longer is written past the page cache.
pub(crate) const LONG_WRITE: usize = direct::WORTH;

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// Those of the file system; `InvalidData` if the file is longer.
pub fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let reason = format!("the file has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_before_it_is_for_those_who_leave_room() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LeavingRoom::new(Arc::new(SystemDisk));
        let path = dir.path().join("a");
        let file = disk.create(&path).unwrap();
        file.preallocate(4096).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        let space = rustix::fs::statvfs(dir.path()).unwrap();
        let rest = space.f_bavail * space.f_frsize;
        let error = file.preallocate(rest).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 4096);
    }

    #[test]
    fn a_file_reads_back_what_was_written_and_stops_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = SystemDisk.create(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        let mut buf = [0xff; 16];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8);
        assert_eq!(&buf[..8], b"\0\0\0hello");
        assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
        assert_eq!(
            SystemDisk.create(&path).err().map(|e| e.kind()),
            Some(io::ErrorKind::AlreadyExists)
        );
    }

    #[test]
    fn preallocation_gives_zeroes_and_never_shortens() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk.create(&dir.path().join("a")).unwrap();
        file.preallocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        let mut buf = [1; 8192];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8192);
        assert!(buf.iter().all(|b| *b == 0));
        file.preallocate(4096).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
    }

    #[test]
    fn names_are_listed_in_order_after_renames_and_removals() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("x/y");
        SystemDisk.create_dir_all(&sub).unwrap();
        for name in ["c", "a", "b"] {
            SystemDisk.create(&sub.join(name)).unwrap();
        }
        SystemDisk.rename(&sub.join("c"), &sub.join("d")).unwrap();
        SystemDisk.remove(&sub.join("a")).unwrap();
        SystemDisk.sync_dir(&sub).unwrap();
        assert_eq!(SystemDisk.list(&sub).unwrap(), ["b", "d"]);
        assert_eq!(
            SystemDisk.open(&sub.join("a")).err().map(|e| e.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn random_numbers_use_all_bits() {
        let (mut ones, mut zeroes) = (0, 0);
        for _ in 0..256 {
            let r = SystemIds.random();
            ones |= r;
            zeroes |= !r;
        }
        assert_eq!((ones, zeroes), (u64::MAX, u64::MAX));
    }
}
