//! Snapshots of the state, as files. The last two are kept: should the newest be unreadable, the
//! one before and the log behind it may still give the state.
//!
//! ```text
//! snapshot-<index, 16 hex digits>-<term, 16 hex digits>-<node, 16 hex digits>.snap
//!
//! magic "FRZSNAP\x01" | meta length u32 LE | state length u64 LE
//! meta: CBOR, last entry and membership | state: crate::codec | crc u32 LE: CRC-32C of all before
//! ```
//!
//! A snapshot is written under a temporary name, synced, renamed, and the directory synced: a crash
//! leaves it whole or not at all; the temporary file of a crash is removed with the next snapshot.
//! Only then are older ones removed, and only then may openraft purge
//! the log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::env::Disk;
use parking_lot::Mutex;

use super::record::{Coverage, decode_all, encode_onto};
use super::{SnapshotMeta, durable};
use crate::error::Corrupt;

const MAGIC: [u8; 8] = *b"FRZSNAP\x01";
const HEADER: usize = 20;
const TRAILER: usize = 4;
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".snap";
/// The end of the name of a snapshot that is being written.
const TEMPORARY: &str = ".snap.tmp";
const KEPT: usize = 2;

/// The snapshots in a directory. All calls block.
pub(crate) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// One is written at a time: a snapshot may be installed while another is built, and what one
    /// of them removes the other must not miss.
    saving: Mutex<()>,
}

fn name(meta: &SnapshotMeta) -> String {
    let (index, term, node) = meta.last_log_id.map_or((0, 0, 0), |id| {
        (id.index, id.leader_id.term, id.leader_id.node_id)
    });
    format!("{PREFIX}{index:016x}-{term:016x}-{node:016x}{SUFFIX}")
}

/// What stands before and behind the state in a snapshot file.
fn around(meta: &SnapshotMeta, state: &[u8]) -> (Vec<u8>, [u8; TRAILER]) {
    let mut head = MAGIC.to_vec();
    let mut coverage = Vec::new();
    encode_onto(&Coverage::from(meta), &mut coverage);
    head.extend_from_slice(&(coverage.len() as u32).to_le_bytes());
    head.extend_from_slice(&(state.len() as u64).to_le_bytes());
    head.extend_from_slice(&coverage);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), state);
    (head, crc.to_le_bytes())
}

/// The bytes of a snapshot file.
pub(crate) fn file_bytes(meta: &SnapshotMeta, state: &[u8]) -> Vec<u8> {
    let (mut bytes, crc) = around(meta, state);
    bytes.extend_from_slice(state);
    bytes.extend_from_slice(&crc);
    bytes
}

impl SnapshotStore {
    /// Those in `dir`.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self {
            disk,
            dir,
            saving: Mutex::new(()),
        }
    }

    /// The names of the snapshots, oldest first.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.disk.list(&self.dir)? {
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The index of the newest snapshot, readable or not.
    #[cfg(test)]
    pub(crate) fn newest_index(&self) -> Option<u64> {
        let newest = self.names().ok()?.pop()?;
        let digits = newest.strip_prefix(PREFIX)?.get(..16)?;
        u64::from_str_radix(digits, 16).ok()
    }

    /// Writes a snapshot, durably, and removes those that are no longer kept.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let _alone = self.saving.lock();
        let name = name(meta);
        if self.names()?.contains(&name) {
            // The same entry applied: the same state.
            return Ok(());
        }
        let (head, crc) = around(meta, state);
        durable::publish(&*self.disk, &self.dir, &name, &[&head, state, &crc])?;

        self.tidy()
    }

    /// Removes the snapshots that are no longer kept, and what crashes have left of others.
    fn tidy(&self) -> io::Result<()> {
        let mut excess = self.names()?;
        excess.truncate(excess.len().saturating_sub(KEPT));
        let files = self.disk.list(&self.dir)?;
        excess.extend(
            files
                .into_iter()
                .filter(|name| name.starts_with(PREFIX) && name.ends_with(TEMPORARY)),
        );
        for old in &excess {
            self.disk.remove(&self.dir.join(old))?;
        }
        if !excess.is_empty() {
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// The newest readable snapshot.
    pub(crate) fn newest(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let mut failure = None;
        for name in self.names()?.iter().rev() {
            match self.load(name) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) => {
                    tracing::error!(%name, %error, "a metadata snapshot cannot be read");
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn load(&self, name: &str) -> io::Result<(SnapshotMeta, Bytes)> {
        let file = self.disk.open(&self.dir.join(name))?;
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(parse(&bytes.into())?)
    }
}

/// The content of a snapshot file.
pub(crate) fn parse(bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), Corrupt> {
    let wrong = |what: &str| Corrupt::new(format!("snapshot: {what}"));
    if bytes.len() < HEADER + TRAILER || bytes[..8] != MAGIC {
        return Err(wrong("no header"));
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let coverage_length = number(8, 12);
    let state_length = number(12, 20);
    let content = bytes.len() - TRAILER;
    if coverage_length.checked_add(state_length) != Some((content - HEADER) as u64) {
        return Err(wrong("its lengths do not add up"));
    }
    if bytes[content..] != crc32c::crc32c(&bytes[..content]).to_le_bytes() {
        return Err(wrong("checksum"));
    }
    let state_start = HEADER + coverage_length as usize;
    let coverage: Coverage = decode_all(&bytes[HEADER..state_start], "snapshot coverage")?;
    Ok((coverage.try_into()?, bytes.slice(state_start..content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{StoredMembership, TypeConfig};
    use frazil_core::env::testing::MemDisk;
    use openraft::testing::log_id;
    use std::path::Path;

    fn store(disk: &MemDisk) -> SnapshotStore {
        SnapshotStore::new(Arc::new(disk.clone()), PathBuf::from("/"))
    }

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(log_id::<TypeConfig>(3, 1, index)),
            last_membership: StoredMembership::default(),
        }
    }

    #[test]
    fn the_last_two_are_kept_and_the_newest_is_read_after_a_crash() {
        let disk = MemDisk::new();
        for index in [5, 300, 70_000] {
            store(&disk)
                .save(&meta(index), format!("state {index}").as_bytes())
                .unwrap();
        }
        disk.crash(0);
        assert_eq!(store(&disk).names().unwrap().len(), KEPT);
        let (found, state) = store(&disk).newest().unwrap().unwrap();
        assert_eq!(found, meta(70_000));
        assert_eq!(&state[..], b"state 70000");
    }

    #[test]
    fn what_a_crash_has_left_of_a_snapshot_goes_with_the_next() {
        let disk = MemDisk::new();
        let left = Path::new("/").join(format!("{}.tmp", name(&meta(4))));
        let file = disk.create(&left).unwrap();
        file.write_all_at(b"half a snap", 0).unwrap();
        store(&disk).save(&meta(5), b"five").unwrap();
        assert_eq!(disk.list(Path::new("/")).unwrap(), [name(&meta(5))]);
    }

    #[test]
    fn a_rotten_snapshot_gives_way_to_the_one_before() {
        let disk = MemDisk::new();
        store(&disk).save(&meta(1), b"one").unwrap();
        store(&disk).save(&meta(2), b"two").unwrap();
        let newest = name(&meta(2));
        let length = disk.contents(&Path::new("/").join(&newest)).unwrap().len();
        for at in 0..length {
            disk.rot(&Path::new("/").join(&newest), at, 0x10);
            let (found, state) = store(&disk).newest().unwrap().unwrap();
            assert_eq!((found, &state[..]), (meta(1), &b"one"[..]), "byte {at}");
            disk.rot(&Path::new("/").join(&newest), at, 0x10);
        }
        assert_eq!(store(&disk).newest().unwrap().unwrap().0, meta(2));
    }
}
