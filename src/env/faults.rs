//! A disk that fails, under a real directory: which bytes and names are durable is kept here, and what a
//! crash leaves is written into another directory.
//!
//! After a sync that fails, what was written before can be read as ever, and no later sync makes it durable
//! ([`Calls::sync`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::aligned::BLOCK;
use super::calls::{Calls, System};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It fails.
    Error(io::ErrorKind),
    /// A write is cut in the middle; anything else is done.
    Short,
}

/// The calls of a process, and what the disk has of them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Model>>);

#[derive(Debug, Default)]
struct Model {
    /// By the number of the call.
    fails: BTreeMap<usize, Failure>,
    /// From this call on all fail: the process is as good as killed.
    dead_from: Option<usize>,
    calls: Vec<&'static str>,
    files: HashMap<u64, Kept>,
    /// Durable names, by directory.
    names: BTreeMap<PathBuf, BTreeMap<OsString, u64>>,
    /// Names that a failed sync should have made durable.
    lost: HashSet<(PathBuf, u64)>,
}

#[derive(Debug)]
struct Kept {
    /// Open, so that its number is not used again.
    file: File,
    durable: Vec<u8>,
    /// What was written since the last sync: offset and length.
    dirty: Vec<(u64, usize)>,
}

impl Faults {
    /// A disk on which the calls with these numbers fail.
    pub(crate) fn at(fails: impl IntoIterator<Item = (usize, Failure)>) -> Self {
        let faults = Self::default();
        faults.0.lock().fails = fails.into_iter().collect();
        faults
    }

    /// A disk that does nothing any more from a call on.
    pub(crate) fn dead_from(call: usize) -> Self {
        let faults = Self::default();
        faults.0.lock().dead_from = Some(call);
        faults
    }

    /// What was called so far.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.0.lock().calls.clone()
    }

    /// What is left when the power fails now, of the directories below `from`, in `to`. Names that are not
    /// durable are gone, or with `more` all there; bytes that are not durable are zeroes or missing.
    pub(crate) fn crash(&self, from: &Path, to: &Path, more: bool) {
        let model = self.0.lock();
        let mut dirs = vec![from.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            let into = to.join(dir.strip_prefix(from).unwrap());
            fs::create_dir_all(&into).unwrap();
            let mut names = model.names.get(&dir).cloned().unwrap_or_default();
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    dirs.push(entry.path());
                } else if more {
                    names.insert(entry.file_name(), metadata.ino());
                }
            }
            for (name, inode) in names {
                let mut bytes = Vec::new();
                if let Some(kept) = model.files.get(&inode) {
                    bytes.clone_from(&kept.durable);
                    let length = kept.file.metadata().unwrap().len() as usize;
                    if more && bytes.len() < length {
                        bytes.resize(length, 0);
                    }
                }
                fs::write(into.join(name), bytes).unwrap();
            }
        }
    }
}

impl Model {
    /// Counts a call, and says what happens to it.
    fn call(&mut self, what: &'static str) -> Option<Failure> {
        let number = self.calls.len();
        self.calls.push(what);
        let dead = self.dead_from.is_some_and(|from| number >= from);
        let dead = dead.then_some(Failure::Error(io::ErrorKind::Other));
        dead.or(self.fails.get(&number).copied())
    }

    fn kept(&mut self, file: &File) -> io::Result<&mut Kept> {
        let inode = file.metadata()?.ino();
        Ok(match self.files.entry(inode) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Kept {
                file: File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?,
                durable: Vec::new(),
                dirty: Vec::new(),
            }),
        })
    }
}

impl Calls for Faults {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut model = self.0.lock();
        let length = match model.call("write") {
            Some(Failure::Error(kind)) => return Err(kind.into()),
            // Past the page cache only whole blocks can be written.
            Some(Failure::Short) if bytes.len() >= 2 * BLOCK => bytes.len() / 2 / BLOCK * BLOCK,
            Some(Failure::Short) | None => bytes.len(),
        };
        let written = System.write_at(file, &bytes[..length], offset)?;
        model.kept(file)?.dirty.push((offset, written));
        Ok(written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut model = self.0.lock();
        let failure = model.call("sync");
        let kept = model.kept(file)?;
        let dirty = std::mem::take(&mut kept.dirty);
        if let Some(Failure::Error(kind)) = failure {
            return Err(kind.into());
        }
        for (offset, length) in dirty {
            let (start, end) = (offset as usize, offset as usize + length);
            if kept.durable.len() < end {
                kept.durable.resize(end, 0);
            }
            kept.file
                .read_exact_at(&mut kept.durable[start..end], offset)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut model = self.0.lock();
        let failure = model.call("sync of the directory");
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            names.insert(entry.file_name(), entry.metadata()?.ino());
        }
        let known = model.names.get(dir).cloned().unwrap_or_default();
        if let Some(Failure::Error(kind)) = failure {
            for (name, inode) in names {
                if known.get(&name) != Some(&inode) {
                    model.lost.insert((dir.join(name), inode));
                }
            }
            return Err(kind.into());
        }
        let lost = |name: &OsString, inode: u64| model.lost.contains(&(dir.join(name), inode));
        let mut durable = BTreeMap::new();
        for (name, inode) in names {
            if !lost(&name, inode) {
                durable.insert(name, inode);
            } else if let Some(before) = known.get(&name) {
                durable.insert(name, *before);
            }
        }
        model.names.insert(dir.to_path_buf(), durable);
        Ok(())
    }
}
