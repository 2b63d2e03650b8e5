//! Where blocks are kept: in memory, and perhaps on disk.
//!
//! ```text
//!               memory                     disk
//! fetched       near │ far                 yes      by the owner, with a GET
//! copied        a quarter of its own       no       from another gateway of the zone
//! ```
//!
//! Of what was fetched, that which readers near the end of the log want has up to three quarters of
//! the memory to itself; the rest has what is left and makes room first. A scan through old records
//! therefore evicts other scans' blocks, and never what everybody reads. Copies evict only copies:
//! they cost no GET to get again, so they shall not take the place of what does. If all gateways
//! kept what each reads, the zone would have room for no more than one of them. Copies are not
//! written to disk: the owner's disk has the block.
//!
//! What is read of tables has a place in the same memory, under the same rules: manifests and indexes
//! as what is near, since a few of them lead to much; row groups and the batches made of them as
//! the reader is. It is not written to disk.
//!
//! A disk that is full or fails costs the blocks on it, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, CacheProperties, Code, DeviceBuilder, FsDeviceBuilder,
    Hint, HybridCache, HybridCacheBuilder, HybridCachePolicy, HybridCacheProperties, Location,
    LruConfig, RecoverMode,
};
use frazil_core::{BrokerEpoch, SegmentId};
use tracing::warn;

use super::Class;
use super::cold::kept::{ColdItem, ColdKey};
use crate::config::{BlockDisk, Config};

/// The share of the memory that blocks near the end may have.
const NEAR_SHARE: f64 = 0.75;
/// The same where the store is in this machine: to read again costs little there, and scans fetch
/// ahead more than a quarter of the memory before they come to it.
const NEAR_SHARE_LOCAL: f64 = 0.25;
/// Which part of the memory is for copies, if there may be any.
const COPIES: usize = 4;
/// Memory that the disk part needs for blocks on their way.
const DISK_MEMORY: usize = 1 << 20;

/// A block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) id: SegmentId,
    pub(crate) block: u32,
}

impl Code for Key {
    fn encode(&self, writer: &mut impl std::io::Write) -> foyer::Result<()> {
        let mut out = [0; 20];
        out[..8].copy_from_slice(&self.id.epoch.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.id.number.to_be_bytes());
        out[16..].copy_from_slice(&self.block.to_be_bytes());
        writer.write_all(&out).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl std::io::Read) -> foyer::Result<Self> {
        let mut bytes = [0; 20];
        reader
            .read_exact(&mut bytes)
            .map_err(foyer::Error::io_error)?;
        let mut numbers = bytes[..16].chunks_exact(8).map(|field| {
            let mut number = [0; 8];
            number.copy_from_slice(field);
            u64::from_be_bytes(number)
        });
        let mut number = || numbers.next().unwrap_or_default();
        let id = SegmentId::new(BrokerEpoch(number()), number());
        let mut block = [0; 4];
        block.copy_from_slice(&bytes[16..]);
        Ok(Self {
            id,
            block: u32::from_be_bytes(block),
        })
    }

    fn estimated_size(&self) -> usize {
        20
    }
}

/// The name of what is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    Block(Key),
    Cold(ColdKey),
}

/// What is in memory.
enum Item {
    Block(Bytes),
    Cold(ColdItem),
}

impl Item {
    fn weight(&self) -> usize {
        match self {
            Self::Block(bytes) => bytes.len(),
            Self::Cold(item) => item.weight(),
        }
    }
}

/// See the module.
pub(crate) struct Shelf {
    memory: Cache<Name, Item>,
    copies: Option<Cache<Key, Bytes>>,
    disk: Option<HybridCache<Key, Bytes>>,
    /// The disk has failed and is not used any more.
    disk_is_off: AtomicBool,
}

impl Shelf {
    /// Opens the cache. If its disk cannot be used it does without, and says so. `shared`: whether
    /// there may be copies.
    pub(crate) async fn open(config: &Config, cluster: &str, shared: bool) -> Self {
        let mut disk = None;
        if let Some(wanted) = &config.block_disk {
            match open_disk(wanted, cluster).await {
                Ok(opened) => disk = Some(opened),
                Err(error) => {
                    let dir = wanted.dir.display();
                    warn!(%error, %dir, "blocks are not cached on disk until the next start");
                }
            }
        }
        let bytes = config.block_memory_bytes - config.ahead_bytes();
        let near = match config.local_store {
            true => NEAR_SHARE_LOCAL,
            false => NEAR_SHARE,
        };
        let for_copies = if shared { bytes / COPIES } else { 0 };
        Self {
            memory: memory("blocks", bytes - for_copies, near, |_, item: &Item| {
                item.weight()
            }),
            copies: shared.then(|| {
                memory("copies of blocks", for_copies, near, |_, block: &Bytes| {
                    block.len()
                })
            }),
            disk,
            disk_is_off: AtomicBool::new(false),
        }
    }

    fn disk(&self) -> Option<&HybridCache<Key, Bytes>> {
        let off = self.disk_is_off.load(Ordering::Relaxed);
        self.disk.as_ref().filter(|_| !off)
    }

    /// A block, if it is at hand. One from disk comes into memory.
    pub(crate) async fn get(&self, key: &Key, class: Class) -> Option<Bytes> {
        if let Some(bytes) = self.in_memory(key) {
            return Some(bytes);
        }
        match self.disk()?.get(key).await {
            Ok(entry) => {
                let bytes = entry?.value().clone();
                self.remember(*key, bytes.clone(), class);
                Some(bytes)
            }
            Err(error) => {
                if !self.disk_is_off.swap(true, Ordering::Relaxed) {
                    warn!(%error, "blocks are not cached on disk any more until the next start");
                }
                None
            }
        }
    }

    /// A block, if it is in memory.
    pub(crate) fn in_memory(&self, key: &Key) -> Option<Bytes> {
        if let Some(entry) = self.memory.get(&Name::Block(*key))
            && let Item::Block(bytes) = entry.value()
        {
            return Some(bytes.clone());
        }
        let entry = self.copies.as_ref()?.get(key);
        entry.map(|entry| entry.value().clone())
    }

    /// Whether a block is in memory; this is no use of it.
    pub(crate) fn has_in_memory(&self, key: &Key) -> bool {
        let copied = || self.copies.as_ref().is_some_and(|all| all.contains(key));
        self.memory.contains(&Name::Block(*key)) || copied()
    }

    /// Keeps a block that was fetched from the store.
    pub(crate) fn fetched(&self, key: Key, bytes: Bytes, class: Class) {
        if let Some(disk) = self.disk() {
            let only = HybridCacheProperties::default().with_location(Location::OnDisk);
            drop(disk.insert_with_properties(key, bytes.clone(), only));
        }
        self.remember(key, bytes, class);
    }

    /// Keeps a copy of a block that another gateway has.
    pub(crate) fn copied(&self, key: Key, bytes: Bytes) {
        if let Some(copies) = &self.copies {
            drop(copies.insert(key, bytes));
        }
    }

    /// Drops a damaged block.
    pub(crate) fn forget(&self, key: &Key) {
        drop(self.memory.remove(&Name::Block(*key)));
        if let Some(copies) = &self.copies {
            drop(copies.remove(key));
        }
        if let Some(disk) = self.disk() {
            disk.remove(key);
        }
    }

    /// Something of a table, if it is in memory.
    pub(crate) fn cold(&self, key: &ColdKey) -> Option<ColdItem> {
        let entry = self.memory.get(&Name::Cold(*key))?;
        match entry.value() {
            Item::Cold(item) => Some(item.clone()),
            Item::Block(_) => None,
        }
    }

    /// Whether something of a table is in memory; this is no use of it.
    pub(crate) fn has_cold(&self, key: &ColdKey) -> bool {
        self.memory.contains(&Name::Cold(*key))
    }

    /// Keeps something of a table.
    pub(crate) fn keep_cold(&self, key: ColdKey, item: ColdItem, class: Class) {
        self.put(Name::Cold(key), Item::Cold(item), class);
    }

    /// Drops something of a table.
    pub(crate) fn forget_cold(&self, key: &ColdKey) {
        drop(self.memory.remove(&Name::Cold(*key)));
    }

    fn remember(&self, key: Key, bytes: Bytes, class: Class) {
        self.put(Name::Block(key), Item::Block(bytes), class);
    }

    fn put(&self, name: Name, item: Item, class: Class) {
        let hint = match class {
            Class::Near => Hint::Normal,
            Class::Far => Hint::Low,
        };
        let properties = CacheProperties::default().with_hint(hint);
        drop(self.memory.insert_with_properties(name, item, properties));
    }
}

fn memory<K, V>(
    name: &'static str,
    bytes: usize,
    near_share: f64,
    weight: impl Fn(&K, &V) -> usize + Send + Sync + 'static,
) -> Cache<K, V>
where
    K: foyer::Key,
    V: foyer::Value,
{
    CacheBuilder::new(bytes)
        .with_name(name)
        // Few large entries: they would not be even, and nobody waits for a lock for long.
        .with_shards(1)
        .with_eviction_config(LruConfig {
            high_priority_pool_ratio: near_share,
        })
        .with_weighter(weight)
        .build()
}

async fn open_disk(disk: &BlockDisk, cluster: &str) -> foyer::Result<HybridCache<Key, Bytes>> {
    // Another cluster gives the same names to other segments, and its blocks are sound.
    let dir = disk.dir.join(cluster);
    // The builder would panic if it could not.
    let created = tokio::fs::create_dir_all(&dir).await;
    created.map_err(foyer::Error::io_error)?;
    let device = FsDeviceBuilder::new(dir)
        .with_capacity(disk.bytes)
        .build()?;
    HybridCacheBuilder::new()
        .with_name("blocks on disk")
        // The default writes what memory evicts, and loses what is in memory at the end.
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(DISK_MEMORY)
        .with_shards(1)
        .with_weighter(|_, block: &Bytes| block.len())
        .storage()
        .with_engine_config(BlockEngineConfig::new(device).with_buffer_pool_size(16 << 20))
        .with_recover_mode(RecoverMode::Quiet)
        .build()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn key(number: u64) -> Key {
        Key {
            id: SegmentId::new(BrokerEpoch(1), number),
            block: 0,
        }
    }

    #[tokio::test]
    async fn a_scan_and_copies_evict_nothing_that_is_near() {
        let config = Config {
            block_memory_bytes: 64 * MIB,
            ..Config::remote()
        };
        let shelf = Shelf::open(&config, "cluster", true).await;
        let block = Bytes::from(vec![0; MIB]);
        for number in 0..24 {
            shelf.fetched(key(number), block.clone(), Class::Near);
        }
        for number in 1000..2000 {
            shelf.fetched(key(number), block.clone(), Class::Far);
            shelf.copied(key(10_000 + number), block.clone());
        }
        let in_memory = |n: &u64| shelf.has_in_memory(&key(*n));
        let there = (0..24).filter(in_memory).count();
        assert_eq!(there, 24);
        let scanned = (1000..2000).filter(in_memory).count();
        assert!(scanned > 4, "what is left is theirs");
        let copied = (11_000..12_000).filter(in_memory).count();
        assert!((10..=16).contains(&copied), "{copied} copies");
        for number in 20_000..21_000 {
            shelf.copied(key(number), block.clone());
        }
        let still = (1000..2000).filter(in_memory).count();
        assert_eq!(still, scanned, "copies evict only copies");
        // What is near makes room for what is near.
        for number in 100..300 {
            shelf.fetched(key(number), block.clone(), Class::Near);
        }
        assert!((0..24).all(|n| !shelf.has_in_memory(&key(n))));
    }
}
