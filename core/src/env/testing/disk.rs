//! A disk in memory that loses power, fills up and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{GAMMA, mix};
use crate::env::{Disk, DiskFile};

/// Bytes that a disk writes all or none of.
pub const SECTOR: usize = 512;
/// The error number of a full disk.
pub const ENOSPC: i32 = 28;
/// The error number of a broken one.
pub const EIO: i32 = 5;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `read_at`.
    Read,
    /// `write_all_at`. Half of the bytes are written nevertheless.
    Write,
    /// `sync_data`. What was to be synced is in the file but never becomes durable, not even by a
    /// later sync that succeeds, as on Linux.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// `create`.
    Create,
    /// `open`.
    Open,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `preallocate` and `set_len`.
    Resize,
}

/// Operations that fail.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    operation: Operation,
    /// How many operations of the kind succeed before.
    after: u64,
    /// How many fail then.
    times: u64,
    errno: i32,
}

impl Fault {
    /// One operation fails, after `after` more of its kind have succeeded.
    pub fn once(operation: Operation, after: u64, errno: i32) -> Self {
        Self {
            operation,
            after,
            times: 1,
            errno,
        }
    }

    /// All operations of the kind fail, after `after` more of them have succeeded.
    pub fn forever(operation: Operation, after: u64, errno: i32) -> Self {
        Self {
            times: u64::MAX,
            ..Self::once(operation, after, errno)
        }
    }
}

/// A disk in memory with the durability of a real one, shared by its clones.
///
/// - What was written to a file is durable after `sync_data`. Before, a crash may keep any of its
///   sectors, and any of the lengths that the file had since.
/// - That a file was created, renamed or removed is durable after `sync_dir` of its directory. A
///   crash undoes all such changes from some point on, in reverse order: file systems journal.
/// - Directories are durable at once.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Counts crashes: handles of files opened before one are dead.
    generation: u64,
    files: BTreeMap<u64, File>,
    next_file: u64,
    names: BTreeMap<PathBuf, u64>,
    /// The names of which a crash leaves at least these, changed by a prefix of `pending`.
    durable_names: BTreeMap<PathBuf, u64>,
    pending: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    counts: BTreeMap<Operation, u64>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Remove(path) => parent(path) == dir,
            Self::Rename(from, to) => parent(from) == dir || parent(to) == dir,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, file) => {
                names.insert(path, file);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

#[derive(Clone, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// Whether the length was changed since the last sync.
    length_dirty: bool,
}

impl File {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if end > self.live.len() {
            self.live.resize(end, 0);
            self.length_dirty = true;
        }
        self.live[at..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(at / SECTOR..=(end - 1) / SECTOR);
        }
    }

    fn resize(&mut self, length: usize) {
        if length < self.live.len() {
            // What is cut off does not come back by a later extension and a sync of that.
            self.dirty
                .extend(length / SECTOR..self.live.len().div_ceil(SECTOR));
        }
        self.live.resize(length, 0);
        self.length_dirty = true;
    }

    /// Makes some dirty sectors durable.
    fn persist(&mut self, keep_length: bool, mut keep: impl FnMut(usize) -> bool) {
        if keep_length {
            self.durable.resize(self.live.len(), 0);
        }
        let dirty = std::mem::take(&mut self.dirty);
        for sector in dirty {
            let start = sector * SECTOR;
            let end = (start + SECTOR)
                .min(self.live.len())
                .min(self.durable.len());
            if start < end && keep(sector) {
                self.durable[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
        self.length_dirty = false;
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Inner {
    /// Counts an operation and fails it if it is to fail.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        *self.counts.entry(operation).or_default() += 1;
        let mut failed = None;
        for fault in &mut self.faults {
            if fault.operation != operation {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 && failed.is_none() {
                fault.times -= 1;
                failed = Some(fault.errno);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        failed.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn change_name(&mut self, change: NameChange) {
        self.pending.push(change.clone());
        change.apply(&mut self.names);
    }
}

impl MemDisk {
    /// An empty disk, with only the directory `""` and the root.
    pub fn new() -> Self {
        let disk = Self::default();
        disk.lock()
            .dirs
            .extend([PathBuf::new(), PathBuf::from("/")]);
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked elsewhere has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds operations that fail.
    pub fn fail(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// How many operations of a kind there have been, failed ones included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.lock().counts.get(&operation).copied().unwrap_or(0)
    }

    /// The power fails and comes back. `seed` chooses what survives of that which was not durable;
    /// 0: nothing does. Faults end, and files that are open now fail for ever.
    pub fn crash(&self, seed: u64) {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_add(GAMMA);
            mix(state)
        };
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.generation += 1;
        inner.faults.clear();
        let pending = std::mem::take(&mut inner.pending);
        let kept = match seed {
            0 => 0,
            _ => random() as usize % (pending.len() + 1),
        };
        for change in pending.into_iter().take(kept) {
            change.apply(&mut inner.durable_names);
        }
        inner.names = inner.durable_names.clone();
        for file in inner.files.values_mut() {
            if seed != 0 {
                let keep_length = file.length_dirty && random() & 1 == 0;
                // Some crashes keep nearly all, some nearly nothing.
                let share = random() % 5;
                file.persist(keep_length, |_| random() % 4 < share);
            }
            file.live = file.durable.clone();
            file.dirty.clear();
            file.length_dirty = false;
        }
        let named: BTreeSet<u64> = inner.names.values().copied().collect();
        inner.files.retain(|id, _| named.contains(id));
    }

    /// A file's bytes as a reader would see them now.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let id = inner.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(inner.files[id].live.clone())
    }

    /// Flips bits of a byte of a file, durably: the disk rots.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn rot(&self, path: &Path, at: usize, bits: u8) {
        let mut inner = self.lock();
        let id = inner.names[path];
        let file = inner.files.get_mut(&id).expect("a named file exists");
        file.live[at] ^= bits;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= bits;
        }
    }

    fn handle(&self, inner: &Inner, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(Handle {
            disk: self.clone(),
            generation: inner.generation,
            id,
        })
    }
}

impl Disk for MemDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let dirs = path.ancestors().map(Path::to_path_buf);
        self.lock().dirs.extend(dirs);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        if !inner.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let children = inner.names.keys().chain(&inner.dirs);
        let names = children
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.begin(Operation::Open)?;
        let id = *inner.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(self.handle(&inner, id))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.begin(Operation::Create)?;
        if !inner.dirs.contains(parent(path)) {
            return Err(not_found(parent(path)));
        }
        if inner.names.contains_key(path) || inner.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = inner.next_file;
        inner.next_file += 1;
        inner.files.insert(id, File::default());
        inner.change_name(NameChange::Link(path.to_path_buf(), id));
        Ok(self.handle(&inner, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.begin(Operation::Rename)?;
        if !inner.names.contains_key(from) {
            return Err(not_found(from));
        }
        if !inner.dirs.contains(parent(to)) {
            return Err(not_found(parent(to)));
        }
        inner.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.begin(Operation::Remove)?;
        if !inner.names.contains_key(path) {
            return Err(not_found(path));
        }
        inner.change_name(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.begin(Operation::SyncDir)?;
        if !inner.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let (synced, pending): (Vec<_>, _) = std::mem::take(&mut inner.pending)
            .into_iter()
            .partition(|change| change.is_in(dir));
        inner.pending = pending;
        for change in synced {
            change.apply(&mut inner.durable_names);
        }
        Ok(())
    }
}

struct Handle {
    disk: MemDisk,
    generation: u64,
    id: u64,
}

impl Handle {
    fn with<T>(
        &self,
        operation: Option<Operation>,
        act: impl FnOnce(&mut File, io::Result<()>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.disk.lock();
        if inner.generation != self.generation {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let allowed = operation.map_or(Ok(()), |operation| inner.begin(operation));
        let file = inner.files.get_mut(&self.id);
        act(file.expect("an open file exists"), allowed)
    }
}

impl DiskFile for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(None, |file, _| Ok(file.live.len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(Some(Operation::Read), |file, allowed| {
            allowed?;
            let start = (offset.min(file.live.len() as u64)) as usize;
            let count = buf.len().min(file.live.len() - start);
            buf[..count].copy_from_slice(&file.live[start..start + count]);
            Ok(count)
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |file, allowed| {
            let written = match &allowed {
                Ok(()) => buf,
                Err(_) => &buf[..buf.len() / 2],
            };
            file.write(written, offset as usize);
            allowed
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Some(Operation::Sync), |file, allowed| {
            if allowed.is_ok() {
                file.persist(true, |_| true);
            } else {
                file.dirty.clear();
            }
            allowed
        })
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.with(Some(Operation::Resize), |file, allowed| {
            allowed?;
            if length as usize > file.live.len() {
                file.resize(length as usize);
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(Some(Operation::Resize), |file, allowed| {
            allowed?;
            file.resize(length as usize);
            Ok(())
        })
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
