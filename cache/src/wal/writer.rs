//! Writes the log: the one place that touches its files.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use frazil_core::BrokerEpoch;
use frazil_core::env::{Disk, DiskFile, Ids};
use frazil_core::frame::{FILE_HEADER_LENGTH, FileHeader, Salt};
use frazil_core::sabotage::{self, Bug};
use tokio::time::Instant;
use tracing::warn;

use super::file::{self, FILE_KIND};
use super::{Job, WalEvent};
use crate::Error;
use crate::config::WalConfig;
use crate::flush::upload::Batches;
use crate::metrics::Metrics;

/// Bytes that are written as zeros at once, ahead of small groups. Reserved space alone is not enough: a
/// file system notes for each block that it has been written, and a sync then waits for its journal,
/// behind whatever others sync, instead of for these bytes alone.
const ZEROED: u64 = 1 << 20;
/// Groups from this length on are not worth writing twice.
const SMALL: usize = 128 << 10;

/// How long a full disk is left alone. Finding out that it still is costs creating a file.
const FULL_PAUSE: Duration = Duration::from_secs(1);

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Owns the files of one registration. All calls block.
pub(crate) struct Writer {
    config: WalConfig,
    epoch: BrokerEpoch,
    disk: Arc<dyn Disk>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    /// The position of the next frame.
    position: u64,
    /// The sequence of the next frame. All before are durable, or not in the present file.
    sequence: u64,
    /// The file that is written to.
    open: Option<Open>,
    /// The first positions of all files, the open one included.
    files: VecDeque<u64>,
    /// A write or sync has failed for good.
    failed: bool,
    /// The disk was found full; until then it is not asked again.
    full_until: Option<Instant>,
}

struct Open {
    file: Arc<dyn DiskFile>,
    salt: Salt,
    /// Where the next frame goes.
    end: u64,
    capacity: u64,
    /// Up to where it has been written, be it with zeros.
    zeroed: u64,
}

impl Open {
    /// Keeps written space ahead of small groups, to be synced with the group that was just written and
    /// ends at `end`.
    fn zero_ahead(&mut self, end: u64) -> io::Result<()> {
        self.zeroed = self.zeroed.max(end);
        if self.zeroed < self.capacity && self.zeroed - end < ZEROED / 4 {
            let until = (self.zeroed + ZEROED).min(self.capacity);
            let zeros = vec![0; (until - self.zeroed) as usize];
            match self.file.write_all_at(&zeros, self.zeroed) {
                // It was for speed only. Whether there is room the groups will find.
                Err(error) if is_full(&error) => {}
                written => written?,
            }
            self.zeroed = until;
        }
        Ok(())
    }
}

impl Writer {
    pub(crate) fn new(
        config: WalConfig,
        epoch: BrokerEpoch,
        position: u64,
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            epoch,
            disk,
            ids,
            metrics,
            position,
            sequence: 0,
            open: None,
            files: VecDeque::new(),
            failed: false,
            full_until: None,
        }
    }

    pub(super) fn perform(&mut self, job: Job) -> Option<WalEvent> {
        let event = job.write.map(|batches| self.write(&batches));
        if let Some(below) = job.truncate {
            self.truncate(below);
        }
        for path in job.remove {
            self.remove(&path);
        }
        event
    }

    fn write(&mut self, batches: &Batches) -> WalEvent {
        let failed = |what: &str, source: io::Error, for_good| WalEvent::Failed {
            error: Error::Wal {
                what: what.to_owned(),
                source,
            },
            for_good,
        };
        if self.failed {
            let source = io::Error::other("it has failed before");
            return failed("be used", source, true);
        }
        let began = Instant::now();
        if self.full_until.is_some_and(|until| began < until) {
            let source = io::ErrorKind::StorageFull.into();
            return failed("be used for a moment", source, false);
        }
        let bytes: u64 = batches.iter().map(|(_, bytes, _)| bytes.len() as u64).sum();
        // More than any number of frames can add.
        let room = bytes + 64 * batches.len() as u64;
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.end + room > open.capacity)
            && let Err(source) = self.create(room)
        {
            // Nothing was written, so a full disk does no harm; anything else shows a disk that
            // cannot be trusted.
            self.failed = !is_full(&source);
            self.full_until = Some(began + FULL_PAUSE);
            return failed("create a file", source, self.failed);
        }
        let open = self.open.as_mut().expect("there is a file now");
        let encoded = file::encode(batches, &open.salt, self.sequence, self.sequence);
        let at = open.end;
        let written = open.file.write_all_at(&encoded.frames, at);
        let end = at + encoded.frames.len() as u64;
        let small = encoded.frames.len() < SMALL;
        let written = match small {
            true => written.and_then(|()| open.zero_ahead(end)),
            false => written,
        };
        let result = written
            .map_err(|source| {
                let full = is_full(&source);
                ("write", source, !full)
            })
            .and_then(|()| {
                if sabotage::on(Bug::AckBeforeSync) {
                    return Ok(());
                }
                let synced = open.file.sync_data();
                synced.map_err(|source| ("sync what it wrote", source, true))
            });
        let start = self.position;
        let length = encoded.frames.len() as u64;
        // Also after a failure: these positions and sequences may be in the file.
        open.end += length;
        self.position += length;
        self.sequence += encoded.count;
        if let Err((what, source, for_good)) = result {
            self.open = None;
            self.failed = for_good;
            self.full_until = Some(began + FULL_PAUSE);
            return failed(what, source, for_good);
        }
        self.metrics.wal_syncs.inc();
        self.metrics.wal_bytes.inc_by(length);
        self.metrics
            .wal_sync_seconds
            .observe(began.elapsed().as_secs_f64());
        WalEvent::Synced {
            start,
            frames: encoded.frames.freeze(),
            positions: encoded.starts.iter().map(|at| start + at).collect(),
        }
    }

    /// Begins a file with room for so many bytes.
    fn create(&mut self, room: u64) -> io::Result<()> {
        self.open = None;
        self.disk.create_dir_all(&self.config.dir)?;
        let path = self.path(self.position);
        match self.fill(&path, room) {
            Ok(open) => {
                self.open = Some(open);
                self.files.push_back(self.position);
                Ok(())
            }
            Err(error) => {
                // So that it does not keep space, or the name from the next attempt.
                self.remove(&path);
                Err(error)
            }
        }
    }

    fn fill(&self, path: &Path, room: u64) -> io::Result<Open> {
        let header = FileHeader {
            kind: FILE_KIND,
            salt: self.ids.uuid().into_bytes(),
            first_sequence: self.sequence,
        };
        let end = FILE_HEADER_LENGTH as u64;
        let capacity = self.config.file_bytes.max(end + room);
        let file = self.disk.create(path)?;
        file.preallocate(capacity)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        // Without its name the file's content is lost with the power, however often it is synced.
        if !sabotage::on(Bug::NoDirectorySync) {
            self.disk.sync_dir(&self.config.dir)?;
        }
        Ok(Open {
            file,
            salt: header.salt,
            end,
            capacity,
            zeroed: end,
        })
    }

    /// Removes the files that end at or below a position.
    fn truncate(&mut self, below: u64) {
        while let Some(&first) = self.files.front() {
            let end = self.files.get(1).copied();
            // The file that is written to stays, and is used on.
            let end = end.or_else(|| self.open.is_none().then_some(self.position));
            if end.is_none_or(|end| end > below) {
                break;
            }
            self.remove(&self.path(first));
            self.files.pop_front();
        }
    }

    /// Removes all files.
    pub(super) fn clear(mut self) {
        self.open = None;
        self.truncate(u64::MAX);
    }

    fn remove(&self, path: &Path) {
        match self.disk.remove(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It takes space, and nothing else: the next start removes it.
            Err(error) => {
                warn!(%error, path = %path.display(), "a file of the write-ahead log stays");
            }
        }
    }

    fn path(&self, position: u64) -> PathBuf {
        self.config.dir.join(file::name(self.epoch, position))
    }
}
