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

/// Bytes that are written as zeros at once when a file is made.
const ZEROES: usize = 1 << 20;
/// Files that are kept to be used again.
const SPARE_MAX: usize = 4;

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
    /// All files that may be needed, the open one included.
    files: VecDeque<Kept>,
    /// The positions in the names of files that nothing needs any more and that can be used again.
    spare: Vec<u64>,
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
    /// All of it has been written, be it with zeros.
    written: bool,
}

struct Kept {
    /// The position of its first frame, which is in its name.
    first: u64,
    /// It can be used again: it has the usual length, has been written throughout, and nothing went
    /// wrong with it.
    good: bool,
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
            spare: Vec::new(),
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
            if let Some(file) = self.files.back_mut() {
                file.good = false;
            }
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

    /// Begins a file with room for so many bytes: one that was used before, if there is one.
    fn create(&mut self, room: u64) -> io::Result<()> {
        self.open = None;
        self.disk.create_dir_all(&self.config.dir)?;
        let usual = self.config.file_bytes;
        let capacity = usual.max(FILE_HEADER_LENGTH as u64 + room);
        let path = self.path(self.position);
        let spare = match capacity == usual {
            true => self.spare.pop().map(|first| self.path(first)),
            false => None,
        };
        let begun = match &spare {
            Some(spare) => self.take_over(spare, &path),
            None => self.fill(&path, capacity),
        };
        match begun {
            Ok(open) => {
                self.files.push_back(Kept {
                    first: self.position,
                    good: open.written && capacity == usual,
                });
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                // So that it does not keep space, or the name from the next attempt.
                spare.iter().for_each(|spare| self.remove(spare));
                self.remove(&path);
                Err(error)
            }
        }
    }

    /// Makes a file. It is written throughout, so that a sync later on waits for the bytes of a group
    /// alone: in space that is only reserved, a file system notes for each block that it has been
    /// written, and the sync waits for its journal, behind whatever others sync.
    fn fill(&self, path: &Path, capacity: u64) -> io::Result<Open> {
        let file = self.disk.create(path)?;
        file.preallocate(capacity)?;
        let zeros = vec![0; ZEROES.min(capacity as usize)];
        let mut at = 0;
        while at < capacity {
            let piece = zeros.len().min((capacity - at) as usize);
            match file.write_all_at(&zeros[..piece], at) {
                // It was for speed only. Whether there is room the groups will find.
                Err(error) if is_full(&error) => break,
                written => written?,
            }
            at += piece as u64;
        }
        let (salt, end) = self.begin(&*file)?;
        self.sync_names()?;
        Ok(Open {
            file,
            salt,
            end,
            capacity,
            written: at == capacity,
        })
    }

    /// Makes a file of one that was used before. What it held does not parse under the new salt.
    fn take_over(&self, spare: &Path, path: &Path) -> io::Result<Open> {
        let file = self.disk.open(spare)?;
        let (salt, end) = self.begin(&*file)?;
        self.disk.rename(spare, path)?;
        self.sync_names()?;
        Ok(Open {
            file,
            salt,
            end,
            capacity: self.config.file_bytes,
            written: true,
        })
    }

    /// Writes a file's header, durably. Answers where the frames begin.
    fn begin(&self, file: &dyn DiskFile) -> io::Result<(Salt, u64)> {
        let header = FileHeader {
            kind: FILE_KIND,
            salt: self.ids.uuid().into_bytes(),
            first_sequence: self.sequence,
        };
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        Ok((header.salt, FILE_HEADER_LENGTH as u64))
    }

    /// Without its name the file's content is lost with the power, however often it is synced.
    fn sync_names(&self) -> io::Result<()> {
        if sabotage::on(Bug::NoDirectorySync) {
            return Ok(());
        }
        self.disk.sync_dir(&self.config.dir)
    }

    /// Gives up the files that end at or below a position.
    fn truncate(&mut self, below: u64) {
        while let Some(&Kept { first, good }) = self.files.front() {
            let end = self.files.get(1).map(|next| next.first);
            // The file that is written to stays, and is used on.
            let end = end.or_else(|| self.open.is_none().then_some(self.position));
            if end.is_none_or(|end| end > below) {
                break;
            }
            if good && self.spare.len() < SPARE_MAX {
                self.spare.push(first);
            } else {
                self.remove(&self.path(first));
            }
            self.files.pop_front();
        }
    }

    /// Removes all files.
    pub(super) fn clear(mut self) {
        self.open = None;
        self.truncate(u64::MAX);
        for first in std::mem::take(&mut self.spare) {
            self.remove(&self.path(first));
        }
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
