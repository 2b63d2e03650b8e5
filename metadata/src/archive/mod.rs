//! The quorum's memory in the bucket: what a new quorum is made of if every voter's disk is lost.
//!
//! ```text
//! quorum/snapshot/<index>-<term>.snap        a snapshot file, as on disk
//! quorum/log/<first>-<last>-<term>.log       the entries from first to last, committed
//! ```
//! Numbers are 16 hex digits; the term is that of the last entry. Every `every` the leader puts what
//! it has applied since; a snapshot as soon as it has a newer one. Objects are never changed. When a
//! snapshot is there that is newer by two, and some time has passed, what it makes superfluous goes.
//!
//! Invariant: only committed entries are put, so two objects that hold the same index hold the same
//! entry, whoever put them: a leader that has been deposed without knowing it does no harm.
//!
//! Invariant: what is deleted is covered by each of two snapshots that are there.
//!
//! The archive is behind by what was committed since the last put; it is no substitute for a
//! majority. [`recover`](crate::recover) reads it.

pub(crate) mod part;
pub(crate) mod ship;

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Where the archive is kept: the part of an object store that belongs to this cluster. Keys are
/// relative to it.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Puts a new object, durable on return. One of that key that is there already has the same
    /// content: that is a success.
    ///
    /// # Cancel safety
    /// The object may be there or not.
    async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()>;
    /// The keys of all objects below `prefix`, in any order.
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
    /// An object's content.
    async fn get(&self, key: &str) -> io::Result<Bytes>;
    /// Deletes an object; one that is not there is a success.
    async fn delete(&self, key: &str) -> io::Result<()>;
}

/// How the archive is kept.
#[derive(Clone, Debug)]
pub struct ArchiveConfig {
    /// How often new entries are put.
    pub every: Duration,
    /// How long what a newer snapshot makes superfluous stays.
    pub grace: Duration,
    /// Objects of entries after which a snapshot is asked for.
    pub parts_max: usize,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            grace: Duration::from_secs(600),
            parts_max: 1000,
        }
    }
}

pub(crate) const SNAPSHOTS: &str = "quorum/snapshot/";
pub(crate) const PARTS: &str = "quorum/log/";

/// The name of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SnapshotKey {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// The name of a run of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartKey {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) term: u64,
}

/// `<hex>-<hex>…<suffix>` at the end of a key.
fn numbers<const N: usize>(key: &str, prefix: &str, suffix: &str) -> Option<[u64; N]> {
    let name = key.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let mut numbers = [0; N];
    let mut parts = name.split('-');
    for number in &mut numbers {
        let digits = parts.next().filter(|digits| digits.len() == 16)?;
        *number = u64::from_str_radix(digits, 16).ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

impl SnapshotKey {
    pub(crate) fn key(self) -> String {
        format!("{SNAPSHOTS}{:016x}-{:016x}.snap", self.index, self.term)
    }

    pub(crate) fn parse(key: &str) -> Option<Self> {
        let [index, term] = numbers(key, SNAPSHOTS, ".snap")?;
        Some(Self { index, term })
    }
}

impl PartKey {
    pub(crate) fn key(self) -> String {
        let Self { first, last, term } = self;
        format!("{PARTS}{first:016x}-{last:016x}-{term:016x}.log")
    }

    pub(crate) fn parse(key: &str) -> Option<Self> {
        let [first, last, term] = numbers(key, PARTS, ".log")?;
        (first <= last).then_some(Self { first, last, term })
    }
}

/// What is in the archive, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Oldest first.
    pub(crate) snapshots: Vec<SnapshotKey>,
    /// By first entry, then by last.
    pub(crate) parts: Vec<PartKey>,
}

impl Listing {
    pub(crate) async fn of(archive: &dyn Archive) -> io::Result<Self> {
        let snapshots = archive.list(SNAPSHOTS).await?;
        let parts = archive.list(PARTS).await?;
        let mut listing = Self {
            snapshots: snapshots
                .iter()
                .filter_map(|k| SnapshotKey::parse(k))
                .collect(),
            parts: parts.iter().filter_map(|k| PartKey::parse(k)).collect(),
        };
        listing.snapshots.sort_unstable();
        listing.parts.sort_unstable();
        Ok(listing)
    }

    /// The last index up to which the archive reaches without a gap from `index`.
    pub(crate) fn reach(&self, index: u64) -> u64 {
        self.parts
            .iter()
            .fold(index, |reach, part| match part.first <= reach + 1 {
                true => reach.max(part.last),
                false => reach,
            })
    }

    /// What the second newest snapshot makes superfluous.
    pub(crate) fn superfluous(&self) -> Vec<String> {
        let Some(kept) = self.snapshots.len().checked_sub(2) else {
            return Vec::new();
        };
        let covered = self.snapshots[kept].index;
        let snapshots = self.snapshots[..kept].iter().map(|key| key.key());
        let parts = self.parts.iter().filter(|part| part.last <= covered);
        snapshots.chain(parts.map(|part| part.key())).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;

    /// An archive in memory.
    #[derive(Default)]
    pub(crate) struct MemArchive {
        pub(crate) objects: Mutex<BTreeMap<String, Bytes>>,
    }

    #[async_trait]
    impl Archive for MemArchive {
        async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
            let mut objects = self.objects.lock();
            let there = objects.entry(key.to_owned()).or_insert(bytes.clone());
            assert_eq!(*there, bytes, "the same name for other bytes");
            Ok(())
        }
        async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
            let objects = self.objects.lock();
            Ok(objects
                .keys()
                .filter(|k| k.starts_with(prefix))
                .cloned()
                .collect())
        }
        async fn get(&self, key: &str) -> io::Result<Bytes> {
            let found = self.objects.lock().get(key).cloned();
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        async fn delete(&self, key: &str) -> io::Result<()> {
            self.objects.lock().remove(key);
            Ok(())
        }
    }

    fn part(first: u64, last: u64) -> PartKey {
        PartKey {
            first,
            last,
            term: 2,
        }
    }

    #[test]
    fn names_survive_and_others_are_not_ours() {
        let snapshot = SnapshotKey {
            index: 300,
            term: 2,
        };
        assert_eq!(
            snapshot.key(),
            "quorum/snapshot/000000000000012c-0000000000000002.snap"
        );
        assert_eq!(SnapshotKey::parse(&snapshot.key()), Some(snapshot));
        let key = part(1, 16).key();
        assert_eq!(
            key,
            "quorum/log/0000000000000001-0000000000000010-0000000000000002.log"
        );
        assert_eq!(PartKey::parse(&key), Some(part(1, 16)));
        assert_eq!(PartKey::parse(&part(5, 4).key()), None);
        for key in ["quorum/log/1-2-3.log", "quorum/log/x.log", "else/where"] {
            assert_eq!(PartKey::parse(key), None, "{key}");
        }
    }

    #[test]
    fn the_archive_reaches_to_its_first_gap() {
        let listing = Listing {
            snapshots: Vec::new(),
            parts: vec![
                part(1, 5),
                part(3, 9),
                part(4, 6),
                part(10, 12),
                part(14, 20),
            ],
        };
        assert_eq!(listing.reach(0), 12);
        assert_eq!(listing.reach(13), 20);
        assert_eq!(listing.reach(30), 30);
    }

    #[test]
    fn what_two_snapshots_cover_is_superfluous() {
        let snapshot = |index| SnapshotKey { index, term: 2 };
        let mut listing = Listing {
            snapshots: vec![snapshot(10)],
            parts: vec![part(1, 10), part(11, 20), part(21, 30)],
        };
        assert_eq!(listing.superfluous(), [""; 0]);
        listing.snapshots.push(snapshot(25));
        assert_eq!(listing.superfluous(), [part(1, 10).key()]);
        listing.snapshots.push(snapshot(40));
        assert_eq!(
            listing.superfluous(),
            [snapshot(10).key(), part(1, 10).key(), part(11, 20).key()]
        );
    }
}
