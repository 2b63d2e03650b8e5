//! The one thread that writes: log records, the vote, and the removal of purged files.
//!
//! ```text
//!   log_store ──jobs (bounded)──► take all that wait ──► one write ──► one sync ──► callbacks
//! ```
//!
//! Everything is done in the order in which it was asked for, and answered for after it is durable.
//!
//! Invariant: after the first error nothing is written any more, and everything is refused. After
//! a failed sync a second one may lie. Only a full disk is waited for ([`room`](super::room)).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use frazil_core::env::{Disk, Ids};
use frazil_core::frame::Salt;
use frazil_core::sabotage::{self, Bug};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::log_file::{self, LogFile, ZEROED};
use super::log_index::{LogIndex, Place};
use super::record::{Record, VoteRecord, encode_onto};
use super::room::{self, Room, is_full, synced};
use super::{LogId, TypeConfig, Vote, durable};
use crate::metrics::Metrics;

/// The name of the file with the vote.
pub(crate) const VOTE_FILE: &str = "vote";
/// The beginning of the file with the vote.
pub(crate) const VOTE_MAGIC: [u8; 8] = *b"FRZVOTE\x01";
/// Jobs that are taken at once.
pub(crate) const JOBS_MAX: usize = 1024;
/// Bytes that are gathered before a write.
const WRITE_BYTES: usize = 4 << 20;

/// Something to be made durable.
pub(crate) enum Job {
    /// Entries, with the bytes of their records.
    Append {
        entries: Vec<(LogId, Vec<u8>)>,
        done: IOFlushed<TypeConfig>,
    },
    /// The entries after this one go.
    Truncate {
        after: Option<LogId>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// The entries up to this one go.
    Purge { upto: LogId },
    /// A vote.
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// What readers and the writer share.
pub(crate) struct Shared {
    pub(crate) log: Mutex<LogIndex>,
    pub(crate) vote: Mutex<Option<Vote>>,
    pub(crate) files: Mutex<BTreeMap<u64, Arc<LogFile>>>,
    /// Why nothing is written any more.
    pub(crate) failure: OnceLock<String>,
    /// Where the writer waits while the disk is full.
    pub(crate) room: Room,
    /// Bytes of records since the last purge or truncation that freed a file.
    pub(crate) bytes: watch::Sender<u64>,
}

impl Shared {
    /// The error with which everything is refused after the first one.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        self.failure
            .get()
            .map(|why| io::Error::other(format!("the raft log has failed before: {why}")))
    }
}

struct FileInfo {
    /// The largest index of an entry in the file.
    last_index: Option<u64>,
    /// Bytes of records written to it.
    bytes: u64,
}

/// Settings of the writer.
pub(crate) struct WriterConfig {
    pub(crate) dir: PathBuf,
    /// Bytes after which a new file is begun.
    pub(crate) file_bytes: u64,
}

pub(crate) struct Writer {
    config: WriterConfig,
    disk: Arc<dyn Disk>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    shared: Arc<Shared>,
    infos: BTreeMap<u64, FileInfo>,
    active: Arc<LogFile>,
    /// Where the next write goes in the active file.
    position: u64,
    /// Up to where the active file has been written, be it with zeros.
    zeroed: u64,
    next_sequence: u64,
    /// Frames with a lower sequence are durable.
    synced_below: u64,
    buffer: Vec<u8>,
    placed: Vec<(LogId, Place)>,
    waiting: Vec<Waiting>,
    purged: Option<LogId>,
    /// Whether files may have become removable.
    purge_due: bool,
}

enum Waiting {
    Flushed(IOFlushed<TypeConfig>),
    Sender(oneshot::Sender<io::Result<()>>),
}

impl Waiting {
    fn answer(self, result: io::Result<()>) {
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            Self::Sender(sender) => {
                // Nobody waits any more if the caller was dropped; it is durable all the same.
                let _ = sender.send(result);
            }
        }
    }
}

impl Writer {
    /// Begins a new file behind what was recovered. Blocks.
    pub(crate) fn new(
        config: WriterConfig,
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
        shared: Arc<Shared>,
        recovered: Vec<(u64, Option<u64>)>,
        next_sequence: u64,
    ) -> io::Result<Self> {
        let purged = shared.log.lock().purged();
        let begun = begin(&config, &*disk, &*ids, next_sequence, purged);
        let (active, position) = begun.map_err(|error| room::at_start(&config.dir, error))?;
        let active = Arc::new(active);
        shared
            .files
            .lock()
            .insert(active.first_sequence, Arc::clone(&active));
        let mut infos: BTreeMap<u64, FileInfo> = recovered
            .into_iter()
            .map(|(sequence, last_index)| {
                let info = FileInfo {
                    last_index,
                    bytes: 0,
                };
                (sequence, info)
            })
            .collect();
        infos.insert(
            active.first_sequence,
            FileInfo {
                last_index: None,
                bytes: 0,
            },
        );
        Ok(Self {
            config,
            disk,
            ids,
            metrics,
            shared,
            infos,
            active,
            position,
            zeroed: ZEROED,
            next_sequence: next_sequence + 1,
            synced_below: next_sequence + 1,
            buffer: Vec::new(),
            placed: Vec::new(),
            waiting: Vec::new(),
            purged,
            purge_due: true,
        })
    }

    /// Does some jobs. Blocks.
    pub(crate) fn work(&mut self, batch: &mut Vec<Job>) {
        if let Some(error) = self.shared.refusal() {
            self.refuse(batch.drain(..), &error);
            return;
        }
        let mut rest = batch.drain(..);
        let mut result = Ok(());
        for job in rest.by_ref() {
            result = self.stage(job);
            if result.is_err() {
                break;
            }
        }
        let result = result
            .and_then(|()| self.flush())
            .and_then(|()| self.remove_purged());
        if let Err(error) = result {
            tracing::error!(%error, "the raft log has failed; this voter stops");
            // The first error is the one to report.
            let _ = self.shared.failure.set(error.to_string());
            self.refuse(rest, &error);
        }
    }

    /// Refuses what was staged and what was not yet.
    fn refuse(&mut self, jobs: impl Iterator<Item = Job>, error: &io::Error) {
        let error = || io::Error::new(error.kind(), error.to_string());
        for waiting in self.waiting.drain(..) {
            waiting.answer(Err(error()));
        }
        for job in jobs {
            match job {
                Job::Append { done, .. } => Waiting::Flushed(done).answer(Err(error())),
                Job::Truncate { done, .. } | Job::Vote { done, .. } => {
                    Waiting::Sender(done).answer(Err(error()));
                }
                Job::Purge { .. } => {}
            }
        }
    }

    fn stage(&mut self, job: Job) -> io::Result<()> {
        match job {
            Job::Append { entries, done } => {
                self.waiting.push(Waiting::Flushed(done));
                for (id, record) in entries {
                    self.stage_record(&record, Some(id))?;
                }
            }
            Job::Truncate { after, done } => {
                let record = Record::Truncate {
                    after: after.as_ref().map(Into::into),
                };
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                self.waiting.push(Waiting::Sender(done));
                self.stage_record(&bytes, None)?;
            }
            Job::Purge { upto } => {
                self.purged = self.purged.max(Some(upto));
                let mut bytes = Vec::new();
                purge_record(self.purged).encode(&mut bytes);
                self.stage_record(&bytes, None)?;
                self.purge_due = true;
            }
            Job::Vote { vote, done } => {
                // In the order asked for: what precedes the vote is durable before it.
                let result = self.flush().and_then(|()| self.replace_vote(vote));
                self.waiting.push(Waiting::Sender(done));
                result?;
            }
        }
        Ok(())
    }

    fn replace_vote(&mut self, vote: Vote) -> io::Result<()> {
        let mut payload = Vec::new();
        encode_onto(&VoteRecord::from(&vote), &mut payload);
        self.shared
            .room
            .wait_for("the vote", &self.metrics.disk_full, || {
                durable::replace(
                    &*self.disk,
                    &self.config.dir,
                    VOTE_FILE,
                    VOTE_MAGIC,
                    &payload,
                )
            })?;
        self.metrics.syncs.inc();
        *self.shared.vote.lock() = Some(vote);
        Ok(())
    }

    fn stage_record(&mut self, record: &[u8], id: Option<LogId>) -> io::Result<()> {
        if self.position + self.buffer.len() as u64 >= self.config.file_bytes {
            self.write()?;
            self.sync()?;
            self.rotate()?;
        } else if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        let start = self.buffer.len();
        let sequence = self.next_sequence;
        log_file::encode(
            &mut self.buffer,
            &self.active.salt,
            sequence,
            self.synced_below,
            record,
        );
        self.next_sequence += 1;
        let length = (self.buffer.len() - start) as u32;
        let file = self.active.first_sequence;
        if let Some(info) = self.infos.get_mut(&file) {
            info.bytes += u64::from(length);
            if let Some(id) = &id {
                info.last_index = info.last_index.max(Some(id.index));
            }
        }
        if let Some(id) = id {
            let place = Place {
                file,
                offset: self.position + start as u64,
                length,
                sequence,
            };
            self.placed.push((id, place));
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.shared
                .room
                .wait_for("the metadata log", &self.metrics.disk_full, || {
                    self.active.file.write_all_at(&self.buffer, self.position)
                })?;
            self.position += self.buffer.len() as u64;
            self.buffer.clear();
            self.zero_ahead()?;
        }
        Ok(())
    }

    /// Keeps written space ahead of the frames, to be synced with them.
    fn zero_ahead(&mut self) -> io::Result<()> {
        if self.zeroed < self.position + ZEROED / 4 && self.zeroed < self.config.file_bytes {
            let start = self.zeroed.max(self.position);
            let end = (start + ZEROED).min(self.config.file_bytes);
            if start < end {
                let zeros = vec![0; (end - start) as usize];
                match self.active.file.write_all_at(&zeros, start) {
                    // It was for speed only. Whether there is room the frames will find.
                    Err(error) if is_full(&error) => return Ok(()),
                    written => written?,
                }
            }
            self.zeroed = end.max(start);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.synced_below < self.next_sequence {
            if !sabotage::on(Bug::VoterDoesNotSync) {
                synced(self.active.file.sync_data())?;
            }
            self.synced_below = self.next_sequence;
            self.metrics.syncs.inc();
        }
        Ok(())
    }

    /// Writes and syncs what is staged, and answers for it.
    fn flush(&mut self) -> io::Result<()> {
        let started = tokio::time::Instant::now();
        let due = self.synced_below < self.next_sequence;
        self.write()?;
        self.sync()?;
        if due {
            self.metrics
                .sync_seconds
                .observe(started.elapsed().as_secs_f64());
            let mut log = self.shared.log.lock();
            for (id, place) in self.placed.drain(..) {
                log.placed(&id, place);
            }
            log.evict();
        }
        for waiting in self.waiting.drain(..) {
            waiting.answer(Ok(()));
        }
        self.publish_bytes();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (file, position) = self.shared.room.wait_for(
            "a file of the metadata log",
            &self.metrics.disk_full,
            || {
                begin(
                    &self.config,
                    &*self.disk,
                    &*self.ids,
                    self.next_sequence,
                    self.purged,
                )
            },
        )?;
        self.active = Arc::new(file);
        self.position = position;
        self.zeroed = ZEROED;
        self.next_sequence += 1;
        self.synced_below = self.next_sequence;
        let info = FileInfo {
            last_index: None,
            bytes: 0,
        };
        self.infos.insert(self.active.first_sequence, info);
        self.shared
            .files
            .lock()
            .insert(self.active.first_sequence, Arc::clone(&self.active));
        Ok(())
    }

    /// Removes the oldest files as far as all their entries are purged. The purge is durable.
    fn remove_purged(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.purge_due) {
            return Ok(());
        }
        let purged = self.purged.map(|id| id.index);
        let mut removed = false;
        while let Some(oldest) = self.infos.first_entry()
            && *oldest.key() != self.active.first_sequence
            && oldest.get().last_index <= purged
        {
            let sequence = *oldest.key();
            self.disk
                .remove(&self.config.dir.join(log_file::name(sequence)))?;
            oldest.remove();
            self.shared.files.lock().remove(&sequence);
            removed = true;
        }
        if removed {
            synced(self.disk.sync_dir(&self.config.dir))?;
            self.publish_bytes();
        }
        Ok(())
    }

    fn publish_bytes(&self) {
        let bytes = self.infos.values().map(|info| info.bytes).sum();
        self.shared.bytes.send_if_modified(|known| {
            let changed = *known != bytes;
            *known = bytes;
            changed
        });
    }
}

fn purge_record(purged: Option<LogId>) -> Record {
    Record::Purge {
        upto: purged.as_ref().map(Into::into),
    }
}

fn begin(
    config: &WriterConfig,
    disk: &dyn Disk,
    ids: &dyn Ids,
    sequence: u64,
    purged: Option<LogId>,
) -> io::Result<(LogFile, u64)> {
    let salt: Salt = *ids.uuid().as_bytes();
    LogFile::create(
        disk,
        &config.dir,
        sequence,
        salt,
        config.file_bytes,
        &purge_record(purged),
    )
}
