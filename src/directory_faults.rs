//! What is acknowledged is durable, and what is half written is nothing, whichever call to the disk fails
//! and wherever the process ends: through the whole path of an acknowledgement, from a producer's batch
//! to the commit.

use std::path::PathBuf;
use std::time::Duration;

use frazil_cache::{AppendBatch, Cache, Durability, Parts, Retries};
use frazil_core::batch::HEADER_LENGTH;
use frazil_core::batch::header::with_log_append_time;
use frazil_core::env::testing::{MemDisk, SeededIds};
use frazil_core::ports::{
    AppendOutcome, BatchInfo, BatchOutcome, Bounds, Commit, CommitOutcome, Located, LogIndex,
    Place, Sequencer, Watch,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Extent, Offset, PortResult, TopicId, TopicPartition, segment,
};
use object_store::ObjectStoreExt as _;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::env::faults::{Failure, Faults};

const EIO: Failure = Failure::Error(std::io::ErrorKind::Other);
const ENOSPC: Failure = Failure::Error(std::io::ErrorKind::StorageFull);

/// A quorum that takes every commit.
#[derive(Default)]
struct Quorum(Mutex<Vec<Commit>>);

#[async_trait]
impl Sequencer for Quorum {
    async fn commit(&self, commit: Commit) -> PortResult<CommitOutcome> {
        let appends = commit.appends.iter().map(|append| AppendOutcome {
            log_start: Offset(0),
            batches: vec![BatchOutcome::Appended(Offset(0)); append.batches.len()],
        });
        let outcome = CommitOutcome {
            appends: appends.collect(),
        };
        self.0.lock().push(commit);
        Ok(outcome)
    }
}

/// Nothing is read through it.
#[async_trait]
impl LogIndex for Quorum {
    fn bounds(&self, _: &TopicPartition) -> Option<Bounds> {
        None
    }

    fn locate(&self, _: &TopicPartition, _: Offset, _: u64) -> Located {
        Located::default()
    }

    fn locate_time(&self, _: &TopicPartition, _: Offset, _: i64) -> Option<Place> {
        None
    }

    fn locate_max_timestamp(&self, _: &TopicPartition) -> Option<Place> {
        None
    }

    fn size_bytes(&self, _: &TopicPartition) -> u64 {
        0
    }

    fn wal_extents(&self, _: BrokerId) -> Vec<(TopicPartition, Extent)> {
        Vec::new()
    }

    fn watch(&self, _: &[TopicPartition]) -> Box<dyn Watch> {
        unreachable!("nobody reads")
    }

    async fn barrier(&self) -> PortResult<()> {
        Ok(())
    }
}

fn batch(payload: usize) -> (BatchInfo, Bytes) {
    let length = HEADER_LENGTH + payload;
    let mut bytes: Vec<u8> = (0..length).map(|at| (at >> 7) as u8 | 1).collect();
    bytes[..HEADER_LENGTH].fill(0);
    bytes[8..12].copy_from_slice(&(length as i32 - 12).to_be_bytes());
    bytes[16] = 2;
    bytes[43..57].fill(0xFF);
    bytes[57..61].copy_from_slice(&1_i32.to_be_bytes());
    let info = BatchInfo {
        length: length as u32,
        records: 1,
        max_timestamp: 0,
        producer: None,
    };
    // It computes the checksum, too.
    (info, with_log_append_time(&bytes, 0))
}

/// A gateway whose store is a directory.
struct Gateway {
    dir: TempDir,
    faults: Faults,
    quorum: Arc<Quorum>,
}

const PREFIX: &str = "cluster";

fn store_at<C: Calls>(dir: &TempDir, calls: C) -> Directory<C> {
    let inner = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    Directory::with(inner.with_fsync(true), calls)
}

impl Gateway {
    fn new(faults: Faults) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // No more attempts need another name.
        for number in 0..8 {
            let key = SegmentId::new(BrokerEpoch(1), number).object_key();
            let path = dir.path().join(PREFIX).join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        Self {
            dir,
            faults,
            quorum: Arc::default(),
        }
    }

    /// Produces one batch of such a payload, and waits a while for its acknowledgement.
    async fn produce(&self, payload: usize) -> bool {
        let ids = Arc::new(SeededIds::new(7));
        let parts = Parts {
            broker: BrokerId(1),
            epoch: BrokerEpoch(1),
            cluster: PREFIX.to_owned(),
            store: Arc::new(store_at(&self.dir, self.faults.clone())),
            retries: Retries::new(ids.clone(), Default::default()),
            prefix: Path::from(PREFIX),
            sequencer: self.quorum.clone(),
            index: self.quorum.clone(),
            neighbours: None,
            disk: Arc::new(MemDisk::new()),
            ids,
            metrics: Default::default(),
        };
        let config = frazil_cache::Config::local();
        let (cache, service) = Cache::start(config, parts).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(service.run(stop.clone()));
        let (info, bytes) = batch(payload);
        let append = AppendBatch {
            partition: TopicPartition::new(TopicId::new(Uuid::from_u128(9)), 0),
            info,
            durability: Durability::Object,
            bytes: bytes.clone(),
        };
        let reservation = cache.reserve(bytes.len()).await.unwrap();
        let answer = cache.append(append, reservation);
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
        running.abort();
        // It was told to end.
        drop(running.await);
        matches!(answer, Ok(Ok(_)))
    }

    /// What the next process finds when the power fails now.
    fn crash(&self, more: bool) -> TempDir {
        let after = tempfile::tempdir().unwrap();
        self.faults.crash(self.dir.path(), after.path(), more);
        after
    }

    /// That what was committed is there, and how many parts of something are.
    async fn check(&self, payload: usize, what: &str) -> usize {
        let mut parts = 0;
        for more in [false, true] {
            let after = self.crash(more);
            let store = store_at(&after, System);
            let mut whole = Vec::new();
            let mut objects = store.list(None);
            while let Some(object) = objects.next().await {
                let object = object.unwrap();
                let bytes = store.get(&object.location).await.unwrap();
                let bytes = bytes.bytes().await.unwrap();
                let id = SegmentId::from_object_key(object.location.as_ref()).unwrap();
                match segment::open(&bytes) {
                    Ok((_, extents)) => {
                        assert_eq!(extents, [batch(payload).1], "{what}");
                        whole.push(id);
                    }
                    Err(_) => parts += 1,
                }
            }
            for commit in &*self.quorum.0.lock() {
                for named in &commit.segments {
                    assert!(whole.contains(&named.id), "{what}: {} is lost", named.id);
                }
            }
        }
        parts
    }
}

/// Sizes of batches: written through the page cache, and past it in several pieces.
const PAYLOADS: [usize; 2] = [5_000, 1_200_000];

/// The calls that an upload makes when the first `failed` of its calls have failed.
async fn calls_of(payload: usize, fails: &[(usize, Failure)]) -> Vec<&'static str> {
    let gateway = Gateway::new(Faults::at(fails.iter().copied()));
    gateway.produce(payload).await;
    gateway.faults.calls()
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_what_is_acknowledged_is_durable() {
    for payload in PAYLOADS {
        let calls = calls_of(payload, &[]).await;
        let ends = ["write", "sync", "sync of the directory"];
        assert_eq!(calls[calls.len() - 3..], ends);
        for first in 0..calls.len() {
            for failure in [EIO, ENOSPC, Failure::Short] {
                let fails = [(first, failure)];
                let again = calls_of(payload, &fails).await;
                // Alone, and together with each that comes after it.
                let seconds = if failure == EIO {
                    again.len()
                } else {
                    first + 1
                };
                for second in first..seconds {
                    let fails = [(first, failure), (second, EIO)];
                    let fails = &fails[..1 + usize::from(second > first)];
                    let gateway = Gateway::new(Faults::at(fails.iter().copied()));
                    let what = format!("{payload} bytes, {fails:?} of {again:?}");
                    assert!(gateway.produce(payload).await, "{what}");
                    gateway.check(payload, &what).await;
                }
            }
        }
    }
}

/// The name of a segment is taken, by what the last attempt wrote: it is written anew, into another file.
#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_everything_is_written_and_synced_anew() {
    for payload in PAYLOADS {
        let calls = calls_of(payload, &[]).await;
        for failed in [calls.len() - 2, calls.len() - 1] {
            let again = calls_of(payload, &[(failed, EIO)]).await;
            // The file that the failed sync was of, and one with all that the first one has.
            assert_eq!(again[..=failed], calls[..=failed]);
            assert_eq!(again[failed + 1..], calls, "{:?}", calls[failed]);
        }
    }
}

/// The process ends between any two calls: what is under the name of a segment is whole, or is nothing to
/// anybody.
#[tokio::test(start_paused = true)]
async fn a_part_that_a_crash_leaves_is_neither_committed_nor_taken_for_whole() {
    for payload in PAYLOADS {
        let calls = calls_of(payload, &[]).await.len();
        let mut parts = 0;
        for call in 0..calls {
            let gateway = Gateway::new(Faults::dead_from(call));
            assert!(!gateway.produce(payload).await, "nothing can be durable");
            assert!(gateway.quorum.0.lock().is_empty());
            parts += gateway.check(payload, &format!("dead from {call}")).await;
        }
        assert!(parts > 0, "no crash left a part");
    }
}

/// What is created only once is there for whoever tries again: it has to be durable then, although the
/// first attempt's sync has failed.
#[tokio::test]
async fn what_is_there_already_is_durable_when_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let payload = PutPayload::from(vec![7; 200_000]);
    let key = Path::from("archive");
    let faults = Faults::default();
    let create = || PutOptions::from(PutMode::Create);
    let puts = store_at(&dir, faults.clone());
    puts.put_opts(&key, payload.clone(), create())
        .await
        .unwrap();
    let last = faults.calls().len() - 1;
    let other = Path::from("other");

    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::at([(last, EIO)]);
    let puts = store_at(&dir, faults.clone());
    let put = puts.put_opts(&key, payload.clone(), create()).await;
    assert!(matches!(put, Err(Error::Generic { .. })), "{put:?}");
    let left = |key: &Path| -> Option<PathBuf> {
        let after = tempfile::tempdir().unwrap();
        faults.crash(dir.path(), after.path(), false);
        let path = after.path().join(key.as_ref());
        path.exists().then_some(path)
    };
    puts.put(&other, payload.clone()).await.unwrap();
    assert_eq!(left(&key), None, "its name was lost");
    let put = puts.put_opts(&key, payload, create()).await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    assert!(left(&key).is_some() && left(&other).is_some());
    // Another's stays as it is.
    let others = PutPayload::from(vec![8; 200_000]);
    let put = puts.put_opts(&key, others, create()).await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    let found = puts.get(&key).await.unwrap().bytes().await.unwrap();
    assert!(found.iter().all(|byte| *byte == 7));
}
