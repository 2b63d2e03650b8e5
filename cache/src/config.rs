//! Settings of the data plane. Plain data; `Config::validate` holds the limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

const MIB: usize = 1024 * 1024;

/// Settings of a [`Cache`](crate::Cache).
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of batches that may wait for their acknowledgement at once. When they are used up,
    /// [`Cache::reserve`](crate::Cache::reserve) waits.
    pub buffer_bytes: usize,
    /// A segment is sealed at the latest when it has this many bytes. Where PUTs are paid, what comes within
    /// [`gather`](Self::gather) of the last of them goes with it, up to twice as many.
    pub segment_bytes: usize,
    /// The store is a directory of this machine. It syncs what it writes
    /// (`LocalFileSystem::with_fsync`); see [`crate::local_store`].
    pub local_store: bool,
    /// Batches at [`Durability::Local`](crate::Durability) that have gathered to so many bytes while the
    /// write-ahead log was busy go into the store alone, which is the stronger promise. Only for a store
    /// on the log's disk, which is as fast as the log and fails with it. `None`: all go into the log.
    pub past_log_bytes: Option<usize>,
    /// How many PUTs may be spent, beside those that carry half a segment or more. `None`: they cost nothing
    /// (a local store).
    pub put_budget: Option<PutBudget>,
    /// How long an open segment gathers batches, even when a PUT could be spent at once.
    pub gather: Duration,
    /// How long an open segment gathers batches of which none waits for its upload, since all
    /// have been acknowledged from the write-ahead log.
    pub linger: Duration,
    /// Uploads at a time.
    pub uploads_max: usize,
    /// After this time an append is answered as [`Indeterminate`](crate::AppendError), although
    /// it goes on.
    pub append_timeout: Duration,
    /// The local log. `None`: [`Durability::Local`](crate::Durability) is raised to `Object`.
    pub wal: Option<WalConfig>,
    /// Bytes of recent segments kept in memory for readers at the end of the log; an eighth of it while
    /// there are none.
    pub tail_bytes: usize,
    /// Bytes of blocks kept in memory for readers that lag behind.
    pub block_memory_bytes: usize,
    /// Blocks kept on disk. Only sensible for a remote store.
    pub block_disk: Option<BlockDisk>,
    /// Reads at a time that go beyond the tail.
    pub cold_reads_max: usize,
    /// How long a failing read of the store is tried again.
    pub read_timeout: Duration,
}

/// A sustained rate of PUTs and how far it may be overdrawn at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PutBudget {
    /// Sustained.
    pub per_second: f64,
    /// Saved up while idle, at least 1.
    pub burst: u32,
}

/// Settings of the write-ahead log.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// The directory of its files; it is created if need be.
    pub dir: PathBuf,
    /// Bytes that may wait in it for their upload. Beyond, local appends are refused.
    pub bytes: u64,
    /// The size of a file. A few that are not needed any more are kept to be used again.
    pub file_bytes: u64,
}

/// Where blocks are kept on disk.
#[derive(Clone, Debug)]
pub struct BlockDisk {
    /// The directory; each cluster's blocks are in one of their own in it.
    pub dir: PathBuf,
    /// Its bytes.
    pub bytes: usize,
}

impl WalConfig {
    /// A log in `dir` with the default sizes.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            bytes: 128 * MIB as u64,
            file_bytes: 16 * MIB as u64,
        }
    }
}

impl Config {
    /// Defaults for a store that is paid by the request.
    pub fn remote() -> Self {
        Self {
            buffer_bytes: 64 * MIB,
            segment_bytes: 8 * MIB,
            local_store: false,
            past_log_bytes: None,
            put_budget: Some(PutBudget {
                per_second: 6.0,
                burst: 6,
            }),
            gather: Duration::from_millis(5),
            linger: Duration::from_secs(1),
            uploads_max: 6,
            append_timeout: Duration::from_secs(120),
            wal: None,
            tail_bytes: 64 * MIB,
            block_memory_bytes: 64 * MIB,
            block_disk: None,
            cold_reads_max: 32,
            read_timeout: Duration::from_secs(10),
        }
    }

    /// Defaults for a store in this machine (`file:`, `memory:`).
    pub fn local() -> Self {
        Self {
            local_store: true,
            put_budget: None,
            gather: Duration::from_millis(2),
            uploads_max: 4,
            ..Self::remote()
        }
    }

    /// The part of the memory for blocks that is for what scans of a store in this machine will
    /// want next.
    pub(crate) fn ahead_bytes(&self) -> usize {
        match self.local_store {
            true => self.block_memory_bytes / 4,
            false => 0,
        }
    }

    /// Checks the limits between the settings.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let check = |ok: bool, text: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::Config(text.to_owned()))
            }
        };
        check(self.buffer_bytes >= 1, "buffer bytes cannot be 0")?;
        check(
            u32::try_from(self.buffer_bytes).is_ok(),
            "buffer bytes cannot be 4 GiB or more",
        )?;
        check(
            (1..=16 * MIB).contains(&self.segment_bytes),
            "segment bytes must be between 1 and 16 MiB",
        )?;
        check(self.uploads_max >= 1, "there must be an upload at a time")?;
        check(self.cold_reads_max >= 1, "there must be a read at a time")?;
        if let Some(budget) = self.put_budget {
            check(
                budget.per_second.is_finite() && budget.per_second > 0.0 && budget.burst >= 1,
                "the PUT budget must be positive",
            )?;
        }
        if let Some(wal) = &self.wal {
            check(
                (64 * 1024..=4096 * MIB as u64).contains(&wal.file_bytes),
                "a file of the write-ahead log must have between 64 KiB and 4 GiB",
            )?;
        }
        Ok(())
    }
}
