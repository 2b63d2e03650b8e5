//! The write-ahead log: what makes [`Durability::Local`](crate::Durability) true.
//!
//! It holds batches from their acknowledgement until their segment is committed, and nothing of it
//! is ever replayed that was not acknowledged: after a crash, the state says which of its bytes
//! are still expected, and exactly those are uploaded.
//!
//! ```text
//! wal-<epoch, 16 hex digits>-<first position, 16 hex digits>.log
//!   a log file (frazil_core::frame) of kind 'W'; its frames, of kind 1, have as payload
//!     0 topic id, 16 bytes | 16 partition i32, big-endian | 20 record batches, back to back
//!
//! position   counts the bytes of one registration's log behind the file headers: a file's first
//!            frame is at the position in its name. A location in the state points to the batches
//!            in a payload. Between two files there may be positions that nothing is written at.
//! ```
//!
//! A file is written from its beginning on, in space that has been written before: with zeros when it is
//! made, or because nothing of it is needed any more and it is used again, under another name and salt
//! (docs/adr/0046-a-logs-files-are-used-again.md). So a sync waits for the bytes of a group, and not for
//! the file system's journal. One group of batches is
//! one write and one sync, and one frame per partition, so that a partition's batches of a group
//! lie back to back.
//!
//! # What a crash leaves
//!
//! | crash | on the disk | at the next start |
//! |---|---|---|
//! | while a file is created | none, a blank one, or one without frames | removed |
//! | while a file is used again | one without frames, under the old name or the new one | removed |
//! | before a sync ends | any part of the group | not expected: removed |
//! | before the commit of a group | the group | not expected: removed |
//! | after the commit | the group | expected: uploaded and moved, then removed |
//! | after the move | the group, or the file under another name | not expected: removed |
//!
//! Expected bytes that are missing or damaged end the start with an error that names them. The
//! files are left as they are.
//!
//! # When the disk fails
//! A full disk sends batches past the log, into the object store, until there is room again; it is asked
//! at most once a second. Any
//! other failed write or sync ends the log for good: after a failed sync a second one may lie.

pub(crate) mod file;
mod recovery;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::BrokerEpoch;
use frazil_core::env::{Disk, Ids};
use tokio::task::JoinHandle;

pub(crate) use recovery::{Recovery, recover};

use crate::Error;
use crate::config::WalConfig;
use crate::flush::upload::Batches;
use crate::metrics::Metrics;
use writer::Writer;

/// The write-ahead log, for the task that owns it. The disk is used beside that task, one job at
/// a time.
pub(crate) struct Wal {
    /// At rest, or with the job that is under way.
    writer: Option<Writer>,
    running: Option<JoinHandle<(Writer, Option<WalEvent>)>>,
    next: Job,
}

/// What is to be done with the disk.
#[derive(Default)]
struct Job {
    write: Option<Batches>,
    truncate: Option<u64>,
    remove: Vec<PathBuf>,
}

/// What the log has to say.
pub(crate) enum WalEvent {
    /// The batches of a write are durable.
    Synced {
        /// The position of `frames`.
        start: u64,
        /// What was written.
        frames: Bytes,
        /// Where each batch begins.
        positions: Vec<u64>,
    },
    /// The batches of a write are not in the log.
    Failed {
        error: Error,
        /// Nor will any others be.
        for_good: bool,
    },
}

impl Wal {
    /// The log of a registration. Files are created when they are needed. `position`: everything
    /// is written at or behind it.
    pub(crate) fn new(
        config: WalConfig,
        epoch: BrokerEpoch,
        position: u64,
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> Self {
        Self {
            writer: Some(Writer::new(config, epoch, position, disk, ids, metrics)),
            running: None,
            next: Job::default(),
        }
    }

    /// Writes and syncs batches. There must not be another write under way.
    pub(crate) fn write(&mut self, batches: Batches) {
        let before = self.next.write.replace(batches);
        assert!(before.is_none(), "one write at a time");
        self.start();
    }

    /// Gives up what is below a position.
    pub(crate) fn truncate(&mut self, below: u64) {
        self.next.truncate = Some(below);
        self.start();
    }

    /// Removes files of earlier registrations.
    pub(crate) fn remove(&mut self, files: Vec<PathBuf>) {
        self.next.remove.extend(files);
        self.start();
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn event(&mut self) -> WalEvent {
        loop {
            let Some(running) = &mut self.running else {
                // The task that could give the log something to do is the one that waits here.
                return std::future::pending().await;
            };
            let (writer, event) = match running.await {
                Ok(done) => done,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is going down, and this task with it.
                Err(_) => return std::future::pending().await,
            };
            self.running = None;
            self.writer = Some(writer);
            self.start();
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Ends what is under way. With `settled`, nothing in the log is needed any more, and its last
    /// file goes too.
    pub(crate) async fn close(mut self, settled: bool) {
        loop {
            if let Some(running) = self.running.take()
                && let Ok((writer, _)) = running.await
            {
                self.writer = Some(writer);
            }
            self.start();
            if self.running.is_none() {
                break;
            }
        }
        if let Some(writer) = self.writer.filter(|_| settled) {
            // A file that stays is removed by the next start.
            drop(crate::blocking::spawn_blocking(move || writer.clear()).await);
        }
    }

    fn start(&mut self) {
        let job = &self.next;
        if job.write.is_none() && job.truncate.is_none() && job.remove.is_empty() {
            return;
        }
        // On a thread where it may block. That takes as long as waking a thread of its own, and
        // time does not go on meanwhile in tests that control it.
        if let Some(mut writer) = self.writer.take() {
            let job = std::mem::take(&mut self.next);
            self.running = Some(crate::blocking::spawn_blocking(move || {
                let event = writer.perform(job);
                (writer, event)
            }));
        }
    }
}
