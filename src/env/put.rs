//! Files that get their names when they are durable, or are written under them.
//!
//! ```text
//! New, Replace   NAME#N created ─ written ─ synced ─ linked or renamed to NAME ─ directory synced
//! InPlace        NAME created ─ written ─ synced ─ directory synced
//! ```
//!
//! A crash leaves `NAME#N`, or of [`Publish::InPlace`] a part of NAME, of which any bytes can be zero.
//! A sync that fails is not repeated: what it was to make durable can then be lost and yet be read, and the
//! next sync would say nothing of it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::calls::Calls;
use super::direct::Direct;
use super::long_read::Sync;

/// How a file gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// Only if there is none.
    New,
    /// In place of the one that may be there.
    Replace,
    /// Only if there is none, and under its name from the beginning: a crash may leave a part of it
    /// there. One sync of a journal then has both the file and its name.
    InPlace,
}

/// What became of a file that was put.
#[derive(Debug)]
pub(crate) enum Published {
    /// It is there, durably.
    Done,
    /// There is one already.
    Exists(io::Error),
    /// There is no directory for it.
    NoDirectory,
}

/// Puts a file under its name, durably. Unless it is put in place, it is there whole or not at all, and
/// `NAME#N` until then. Blocks.
///
/// # Errors
/// Those of the file system. The file may then be there or not, durable or not; a part of one that was to
/// be put in place is removed.
pub(crate) fn put_file<'a>(
    calls: &impl Calls,
    path: &Path,
    content: impl IntoIterator<Item = &'a bytes::Bytes>,
    publish: Publish,
) -> io::Result<Published> {
    put_with(calls, path, publish, |file| {
        let mut offset = 0;
        for bytes in content {
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    })
}

/// The same of what `write` writes.
fn put_with<C: Calls>(
    calls: &C,
    path: &Path,
    publish: Publish,
    write: impl FnOnce(&Direct<C>) -> io::Result<()>,
) -> io::Result<Published> {
    let (file, staged) = match publish {
        Publish::InPlace => match create_new(path) {
            Ok(file) => (file, path.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Published::Exists(error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Published::NoDirectory);
            }
            Err(error) => return Err(error),
        },
        Publish::New | Publish::Replace => match stage(path)? {
            Some(staged) => staged,
            None => return Ok(Published::NoDirectory),
        },
    };
    let mut written = false;
    let put = || {
        let file = Direct::with(file, calls.clone());
        write(&file)?;
        written = true;
        let sync = Sync::begin();
        calls.sync(file.file())?;
        drop(sync);
        match publish {
            Publish::InPlace => {}
            Publish::Replace => fs::rename(&staged, path)?,
            Publish::New => match fs::hard_link(&staged, path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(Published::Exists(error));
                }
                Err(error) => return Err(error),
            },
        }
        let _sync = Sync::begin();
        calls.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Published::Done)
    };
    let result = put();
    let needless = match publish {
        Publish::New => true,
        Publish::Replace => !matches!(result, Ok(Published::Done)),
        // Once it is whole, another attempt may have found it and put it again: it is not ours to remove.
        Publish::InPlace => !written,
    };
    if needless {
        // If it stays, nobody sees it, or it is taken for somebody else's.
        let _ = fs::remove_file(&staged);
    }
    result
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).open(path)
}

/// Creates the file that is written first; `None`: there is no directory for it.
fn stage(path: &Path) -> io::Result<Option<(File, PathBuf)>> {
    let mut number = 1_u32;
    loop {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        let staged = PathBuf::from(staged);
        match create_new(&staged) {
            Ok(file) => return Ok(Some((file, staged))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::System;

    /// Neither a part of the file nor what it was staged in stays, and an older one stays as it was.
    #[test]
    fn a_put_that_fails_half_way_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let half = |file: &Direct<System>| {
            file.write_all_at(&[7; 200_000], 0)?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        for publish in [Publish::New, Publish::Replace, Publish::InPlace] {
            let error = put_with(&System, &path, publish, half).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(files(), 0, "{publish:?}");
        }
        let whole = [bytes::Bytes::from_static(b"whole")];
        put_file(&System, &path, &whole, Publish::InPlace).unwrap();
        for publish in [Publish::New, Publish::Replace, Publish::InPlace] {
            // In place it is not even tried.
            let put = put_with(&System, &path, publish, half);
            assert!(!matches!(put, Ok(Published::Done)), "{publish:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "whole", "{publish:?}");
            assert_eq!(files(), 1, "{publish:?}");
        }
    }
}
