//! What makes a directory as durable as an object store.
//!
//! `object_store::local::LocalFileSystem` with `with_fsync(true)` (version 0.14.2) syncs the file
//! it puts and the directory that holds it, and, if it had to create directories for that, those
//! and the one they are in. Two gaps remain, and are closed here and in the upload:
//!
//! - Of two PUTs that need the same new directory, one creates it and syncs its parent, while the
//!   other finds it there and does not: it may return before the parent is synced, and its object
//!   is lost with the directory. [`prepare`] creates all directories that segments will be in, and
//!   syncs them, before anything is put.
//! - A PUT whose sync fails leaves the object under its name, so the next attempt hears "already
//!   exists". The upload then compares the content and, on a local store, puts it once more by
//!   overwriting, which syncs it ([`Config::local_store`](crate::Config::local_store)).

use std::io;
use std::path::Path;

use frazil_core::env::Disk;

/// How many shards object keys of segments have: two hex digits.
const SHARDS: u32 = 256;

/// Creates the directories below `root` that the segments of the cluster with this `prefix` go
/// into, durably. What is there is left as it is. Blocks: a few milliseconds.
pub fn prepare(disk: &dyn Disk, root: &Path, prefix: &object_store::path::Path) -> io::Result<()> {
    let mut segments = root.to_path_buf();
    segments.extend(prefix.parts().map(|part| part.as_ref().to_owned()));
    segments.push("segments");
    for shard in 0..SHARDS {
        disk.create_dir_all(&segments.join(format!("{shard:02x}")))?;
    }
    // From the innermost on: when a directory is synced, all in it is durable.
    let outermost = root.parent().filter(|parent| *parent != Path::new(""));
    for dir in segments.ancestors() {
        disk.sync_dir(dir)?;
        if Some(dir) == outermost || (outermost.is_none() && dir == root) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::{EIO, Fault, MemDisk, Operation};
    use frazil_core::{BrokerEpoch, SegmentId};

    use super::*;
    use crate::flush::upload::object_path;

    #[test]
    fn every_segment_finds_its_directory() {
        let disk = MemDisk::new();
        let prefix = object_store::path::Path::from("some/cluster");
        prepare(&disk, Path::new("/data/store"), &prefix).unwrap();
        prepare(&disk, Path::new("/data/store"), &prefix).unwrap();
        for number in 0..1000 {
            let path = object_path(&prefix, SegmentId::new(BrokerEpoch(4), number));
            let file = Path::new("/data/store").join(path.as_ref());
            let dir = file.parent().unwrap();
            assert!(disk.list(dir).is_ok(), "{}", dir.display());
        }
        // segments, cluster, some, store, data
        assert_eq!(disk.count(Operation::SyncDir), 2 * 5);
        disk.fail(Fault::once(Operation::SyncDir, 3, EIO));
        assert!(prepare(&disk, Path::new("/data/store"), &prefix).is_err());
    }
}
