//! Files as records and records as files.
//!
//! Invariant: a key from the wire never leads out of the directory it is written to, neither by
//! `..`, nor as an absolute path, nor through a symbolic link.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::env;

/// The file that a record's key names below `dir`.
pub(super) fn target(dir: &Path, key: Option<&[u8]>) -> anyhow::Result<PathBuf> {
    let key = key.context("the record has no key to name a file by")?;
    let Ok(key) = std::str::from_utf8(key) else {
        bail!("the key is not text");
    };
    // Judged by its parts as they stand, not by what `Path` makes of them.
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if key.split('/').any(bad) || !Path::new(key).is_relative() {
        bail!("the key {key:?} is not a path below the directory");
    }
    Ok(dir.join(key))
}

/// Writes a file below `dir`, replacing what is there. Readers see all of it or nothing.
pub(super) fn write(dir: &Path, key: Option<&[u8]>, value: &[u8]) -> anyhow::Result<PathBuf> {
    let path = target(dir, key)?;
    let below = path.strip_prefix(dir)?;
    let mut parent = dir.to_owned();
    for part in below.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        if std::fs::symlink_metadata(&parent).is_ok_and(|m| m.file_type().is_symlink()) {
            bail!("{} is a symbolic link", parent.display());
        }
    }
    env::replace_file(&path, value).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A file to send, and the key that names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) key: String,
    pub(super) bytes: u64,
}

/// A file under the path that the user gave, without what leads out of any directory.
pub(super) fn single(path: &Path) -> anyhow::Result<Input> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    input(path, &parts.collect::<PathBuf>())
}

/// All files below a directory, by path. Symbolic links and special files are left out.
pub(super) fn below(dir: &Path) -> anyhow::Result<Vec<Input>> {
    let mut found = Vec::new();
    let mut directories = vec![dir.to_owned()];
    while let Some(next) = directories.pop() {
        let entries = std::fs::read_dir(&next).with_context(|| next.display().to_string())?;
        for entry in entries {
            let entry = entry.with_context(|| next.display().to_string())?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                found.push(input(&path, path.strip_prefix(dir)?)?);
            }
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn input(path: &Path, key: &Path) -> anyhow::Result<Input> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_file() {
        bail!("{}: not a file", path.display());
    }
    let key = key
        .to_str()
        .with_context(|| format!("{}: not UTF-8", path.display()))?;
    Ok(Input {
        path: path.to_owned(),
        key: key.to_owned(),
        bytes: metadata.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_lead_out_of_the_directory_are_refused() {
        let dir = Path::new("/d");
        for key in ["a", "a/b", "a b/ü.txt", "..a", "a..", "..."] {
            assert_eq!(target(dir, Some(key.as_bytes())).unwrap(), dir.join(key));
        }
        for key in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a/..",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
        ] {
            assert!(target(dir, Some(key.as_bytes())).is_err(), "{key:?}");
        }
        assert!(target(dir, None).is_err());
        assert!(target(dir, Some(&[0xff])).is_err());
    }

    #[test]
    fn links_are_not_followed_out_of_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        assert!(write(dir.path(), Some(b"link/a"), b"x").is_err());
        let victim = outside.path().join("victim");
        env::replace_file(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("file")).unwrap();
        write(dir.path(), Some(b"file"), b"new").unwrap();
        assert_eq!(env::read_file(&victim, 100).unwrap(), b"precious");
        assert_eq!(
            env::read_file(&dir.path().join("file"), 100).unwrap(),
            b"new"
        );
    }

    #[test]
    fn a_directory_goes_there_and_back() {
        let from = tempfile::tempdir().unwrap();
        for (name, text) in [("b/c/d", "1"), ("a", "2"), ("b/a", "")] {
            env::replace_file(&from.path().join(name), text.as_bytes()).unwrap();
        }
        let inputs = below(from.path()).unwrap();
        let keys: Vec<(&str, u64)> = inputs.iter().map(|i| (i.key.as_str(), i.bytes)).collect();
        assert_eq!(keys, [("a", 1), ("b/a", 0), ("b/c/d", 1)]);
        let to = tempfile::tempdir().unwrap();
        for input in &inputs {
            let value = env::read_file(&input.path, 100).unwrap();
            write(to.path(), Some(input.key.as_bytes()), &value).unwrap();
        }
        assert_eq!(env::read_file(&to.path().join("b/c/d"), 9).unwrap(), b"1");
        let one = single(&from.path().join("b/../a")).unwrap();
        assert!(
            one.key.ends_with("/b/a") && !one.key.starts_with('/'),
            "{}",
            one.key
        );
        assert!(single(from.path()).is_err());
    }
}
