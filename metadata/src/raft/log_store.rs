//! The Raft log and vote, as openraft wants them: readable at once, answered for when durable.
//!
//! The index and recent entries are in memory ([`log_index`](super::log_index)); one thread writes
//! ([`log_writer`](super::log_writer)) to files ([`log_file`](super::log_file)).
//!
//! Invariant: the memory changes in the same order as the files, because openraft issues one
//! operation after the other.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;

use frazil_core::env::{Disk, Ids};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::log_file::recover;
use super::log_index::Found;
use super::log_writer::{JOBS_MAX, Job, Shared, VOTE_FILE, VOTE_MAGIC, Writer, WriterConfig};
use super::record::{Record, VoteRecord, decode_all};
use super::room::Room;
use super::{Entry, LogId, TypeConfig, Vote, durable};
use crate::blocking::{spawn_blocking, spawn_worker};
use crate::error::Corrupt;
use crate::metrics::Metrics;

/// Jobs that may wait for the writer.
const JOBS_WAITING_MAX: usize = 1024;
/// Bytes after which a read of unlimited length is cut short.
const READ_BYTES: u64 = 4 << 20;

/// Settings of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// The directory, which exists.
    pub(crate) dir: PathBuf,
    /// Bytes after which a new file is begun; as much is preallocated.
    pub(crate) file_bytes: u64,
    /// Bytes of written entries that stay in memory.
    pub(crate) cache_bytes: u64,
}

/// The log and the vote. Dropping it ends the writing thread once everything is written, or at once
/// if that waits for room on the disk.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

/// Reads the log; cheap to clone.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

/// A log that has been opened.
pub(crate) struct Opened {
    pub(crate) store: LogStore,
    /// Whether there were files of a log before.
    pub(crate) existed: bool,
    /// Ends when the writing thread has.
    pub(crate) stopped: oneshot::Receiver<()>,
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shared.room.close();
    }
}

impl LogStore {
    /// Opens the log in a directory, or begins a new one. Blocks.
    pub(crate) fn open(
        config: LogConfig,
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> io::Result<Opened> {
        let vote = durable::read(&*disk, &config.dir, VOTE_FILE, VOTE_MAGIC)?
            .map(|bytes| decode_all::<VoteRecord>(&bytes, "vote"))
            .transpose()?
            .map(Vote::from);
        let recovered = recover(&*disk, &config.dir, config.cache_bytes)?;
        let existed = !recovered.files.is_empty();
        let infos = recovered
            .files
            .iter()
            .map(|file| (file.file.first_sequence, file.last_index))
            .collect();
        let files = recovered
            .files
            .into_iter()
            .map(|file| (file.file.first_sequence, Arc::new(file.file)))
            .collect();
        let shared = Arc::new(Shared {
            log: Mutex::new(recovered.log),
            vote: Mutex::new(vote),
            files: Mutex::new(files),
            failure: std::sync::OnceLock::new(),
            room: Room::default(),
            bytes: watch::Sender::new(0),
        });
        let mut writer = Writer::new(
            WriterConfig {
                dir: config.dir,
                file_bytes: config.file_bytes,
            },
            disk,
            ids,
            metrics,
            Arc::clone(&shared),
            infos,
            recovered.next_sequence,
        )?;
        let (jobs, receiver) = mpsc::channel(JOBS_WAITING_MAX);
        let (stopping, stopped) = oneshot::channel::<()>();
        spawn_worker("raft-log", receiver, JOBS_MAX, move |batch| {
            writer.work(batch);
            // Dropped with the writer.
            let _ = &stopping;
        })?;
        Ok(Opened {
            store: Self { shared, jobs },
            existed,
            stopped,
        })
    }

    /// A reader.
    pub(crate) fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Bytes of records in files that have not been removed, as far as this process wrote them.
    pub(crate) fn bytes(&self) -> watch::Receiver<u64> {
        self.shared.bytes.subscribe()
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.log.lock().purged()
    }

    /// Whether the log has never held anything.
    pub(crate) fn is_new(&self) -> bool {
        self.shared.log.lock().last().is_none() && self.shared.vote.lock().is_none()
    }

    async fn submit(&self, job: Job) -> io::Result<()> {
        if let Some(error) = self.shared.refusal() {
            return Err(error);
        }
        let ended = |_| io::Error::other("the raft log's thread has ended");
        self.jobs.send(job).await.map_err(ended)
    }

    async fn perform(
        &self,
        job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (done, receiver) = oneshot::channel();
        self.submit(job(done)).await?;
        let ended = |_| io::Error::other("the raft log's thread has ended");
        receiver.await.map_err(ended)?
    }
}

impl LogReader {
    /// The entries from `start` to `end`, exclusive, as far as they are there; fewer once they
    /// exceed `bytes_max`, but at least one.
    pub(crate) async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: u64,
    ) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut from_files = Vec::new();
        {
            let log = self.shared.log.lock();
            let range = log.range();
            let mut bytes = 0;
            for index in start.max(range.start)..end.min(range.end) {
                bytes += u64::from(log.bytes(index));
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                match log.get(index) {
                    Some(Found::Memory(entry)) => entries.push(Some(entry)),
                    Some(Found::File(id, place)) => {
                        from_files.push((entries.len(), id, place));
                        entries.push(None);
                    }
                    None => break,
                }
            }
        }
        if !from_files.is_empty() {
            let files = self.shared.files.lock().clone();
            let read = move || -> io::Result<Vec<Option<Entry>>> {
                for (position, id, place) in from_files {
                    let file = files
                        .get(&place.file)
                        .ok_or_else(|| Corrupt::new(format!("the file of entry {id} is gone")))?;
                    let entry = file.read(place)?.into_entry()?;
                    if entry.log_id != id {
                        let found = entry.log_id;
                        return Err(Corrupt::new(format!("{found} stands for {id}")).into());
                    }
                    entries[position] = Some(entry);
                }
                Ok(entries)
            };
            entries = spawn_blocking(read).await.map_err(io::Error::other)??;
        }
        Ok(entries.into_iter().flatten().collect())
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, u64::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.shared.vote.lock())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.shared.log.lock();
        Ok(LogState {
            last_purged_log_id: log.purged(),
            last_log_id: log.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.perform(|done| Job::Vote { vote, done }).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        {
            let mut log = self.shared.log.lock();
            for entry in entries {
                let mut bytes = Vec::new();
                Record::entry(&entry).encode(&mut bytes);
                let id = entry.log_id;
                log.append(entry, bytes.len() as u32, None)?;
                encoded.push((id, bytes));
            }
        }
        let job = Job::Append {
            entries: encoded,
            done: callback,
        };
        self.submit(job).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.shared.log.lock().truncate(last_log_id.as_ref());
        let after = last_log_id;
        self.perform(|done| Job::Truncate { after, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.shared.log.lock().purge(log_id);
        self.submit(Job::Purge { upto: log_id }).await
    }
}
