//! The log and the state machine under openraft's own suite, and the log under crashes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_core::env::Disk;
use frazil_core::env::testing::{
    EIO, ENOSPC, Fault, MemDisk, Operation, SeededIds, check_golden, golden,
};
use openraft::storage::{IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::testing::{blank_ent, log_id, membership_ent};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId as _;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use proptest::prelude::*;
use tempfile::TempDir;

use super::log_store::{LogConfig, LogReader, LogStore, Opened};
use super::log_writer::{VOTE_FILE, VOTE_MAGIC};
use super::record::{Record, VoteRecord, encode_onto};
use super::snapshot::SnapshotStore;
use super::state_machine::StateMachine;
use super::{Blob, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote, durable};
use crate::image::Image;
use crate::metrics::Metrics;
use crate::testing::RealDisk;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let config = LogConfig {
            dir: dir.path().to_owned(),
            file_bytes: 64 << 10,
            // Everything is read back from files.
            cache_bytes: 0,
        };
        let opened = LogStore::open(
            config,
            Arc::new(RealDisk),
            Arc::new(SeededIds::new(1)),
            Metrics::default(),
        )
        .unwrap();
        let snapshots = SnapshotStore::new(Arc::new(RealDisk), dir.path().to_owned());
        let image = Arc::new(Image::new(crate::command::LEVEL, Metrics::default()));
        let machine = StateMachine::new(image, Arc::new(snapshots), None, Metrics::default());
        Ok((dir, opened.store, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

const DIR: &str = "/raft";

fn open(disk: &MemDisk, seed: u64) -> io::Result<Opened> {
    disk.create_dir_all(Path::new(DIR))?;
    let config = LogConfig {
        dir: PathBuf::from(DIR),
        file_bytes: 4096,
        cache_bytes: 256,
    };
    LogStore::open(
        config,
        Arc::new(disk.clone()),
        Arc::new(SeededIds::new(seed)),
        Metrics::default(),
    )
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut entry = blank_ent::<TypeConfig>(term, 1, index);
    entry.payload = EntryPayload::Normal(Blob::from(vec![index as u8; bytes]));
    entry
}

fn id(term: u64, index: u64) -> LogId {
    log_id::<TypeConfig>(term, 1, index)
}

fn vote(term: u64) -> Vote {
    Vote::new(term, 1)
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, receiver) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(sender)).await?;
    receiver.await.unwrap()
}

/// The log as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    purged: Option<LogId>,
    entries: Vec<Entry>,
    vote: Option<Vote>,
}

async fn view(store: &mut LogStore, reader: &mut LogReader) -> View {
    View {
        purged: store.get_log_state().await.unwrap().last_purged_log_id,
        entries: reader.try_get_log_entries(..).await.unwrap(),
        vote: reader.read_vote().await.unwrap(),
    }
}

impl View {
    fn apply(&mut self, operation: &Step) {
        match operation {
            Step::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Step::Truncate(after) => self
                .entries
                .retain(|entry| after.is_some_and(|after| entry.log_id.index <= after.index)),
            Step::Purge(upto) => {
                self.entries.retain(|entry| entry.log_id.index > upto.index);
                self.purged = self.purged.max(Some(*upto));
            }
            Step::Vote(vote) => self.vote = Some(*vote),
        }
    }

    fn next(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.log_id);
        last.or(self.purged).map_or(0, |id| id.index + 1)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Entry>),
    Truncate(Option<LogId>),
    Purge(LogId),
    Vote(Vote),
}

impl Step {
    /// The operation that numbers stand for, given what the log holds.
    fn choose(view: &View, kind: u8, number: u64, term: u64) -> Self {
        let held = view.entries.len() as u64;
        match kind {
            0 if held > 0 => {
                let keep = number % held;
                let after = (keep > 0).then(|| view.entries[keep as usize - 1].log_id);
                Self::Truncate(after.or(view.purged))
            }
            1 if held > 0 => Self::Purge(view.entries[(number % held) as usize].log_id),
            2 => Self::Vote(vote(term)),
            _ => {
                let count = 1 + number % 7;
                let bytes = (number % 700) as usize;
                let next = view.next();
                Self::Append(
                    (next..next + count)
                        .map(|i| entry(term, i, bytes))
                        .collect(),
                )
            }
        }
    }

    async fn perform(&self, store: &mut LogStore) -> io::Result<()> {
        match self {
            Self::Append(entries) => append(store, entries.clone()).await,
            Self::Truncate(after) => store.truncate_after(*after).await,
            Self::Purge(upto) => {
                store.purge(*upto).await?;
                // Purging answers before it is durable; the next durable thing follows it.
                let vote = store.reader().read_vote().await?.unwrap_or(vote(0));
                store.save_vote(&vote).await
            }
            Self::Vote(vote) => store.save_vote(vote).await,
        }
    }
}

/// What a crash during `operation` may leave.
fn possible(before: &View, operation: &Step) -> Vec<View> {
    let mut views = vec![before.clone()];
    if let Step::Append(entries) = operation {
        for count in 1..=entries.len() {
            let mut view = before.clone();
            view.apply(&Step::Append(entries[..count].to_vec()));
            views.push(view);
        }
    } else {
        let mut view = before.clone();
        view.apply(operation);
        views.push(view);
    }
    views
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// After a crash the log is what was answered for, or that and a part of what was under way.
    #[test]
    fn nothing_answered_for_is_lost_by_a_crash(
        rounds in proptest::collection::vec(
            (
                proptest::collection::vec((0_u8..8, any::<u64>()), 0..12),
                (0_u8..8, any::<u64>()),
                any::<u64>(),
            ),
            1..4,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = MemDisk::new();
            let mut expected = View::default();
            for (term, (operations, last, crash)) in rounds.into_iter().enumerate() {
                let term = term as u64 + 1;
                let Opened { mut store, .. } = open(&disk, term * 1000).unwrap();
                let mut reader = store.reader();
                prop_assert_eq!(&view(&mut store, &mut reader).await, &expected);
                for (kind, number) in operations {
                    let operation = Step::choose(&expected, kind, number, term);
                    operation.perform(&mut store).await.unwrap();
                    expected.apply(&operation);
                    if expected.vote.is_none() && matches!(operation, Step::Purge(_)) {
                        expected.vote = Some(vote(0));
                    }
                }
                prop_assert_eq!(&view(&mut store, &mut reader).await, &expected);

                // The power fails while one more is under way.
                let operation = Step::choose(&expected, last.0, last.1, term);
                let under_way = {
                    let operation = operation.clone();
                    tokio::spawn(async move { operation.perform(&mut store).await })
                };
                tokio::task::yield_now().await;
                disk.crash(crash);
                let done = under_way.await.unwrap().is_ok();

                let Opened { mut store, stopped, .. } = open(&disk, term * 1000 + 500).unwrap();
                let mut reader = store.reader();
                let mut found = view(&mut store, &mut reader).await;
                if found.vote == Some(vote(0)) && expected.vote.is_none() {
                    found.vote = None;
                }
                if done {
                    let mut after = expected.clone();
                    after.apply(&operation);
                    prop_assert_eq!(&found, &after);
                } else {
                    prop_assert!(possible(&expected, &operation).contains(&found));
                }
                expected = view(&mut store, &mut reader).await;
                drop(store);
                let _ = stopped.await;
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn old_entries_are_read_from_files_and_purged_files_are_removed() {
    let disk = MemDisk::new();
    let Opened { mut store, .. } = open(&disk, 1).unwrap();
    for index in 0..200 {
        append(&mut store, vec![entry(1, index, 100)])
            .await
            .unwrap();
    }
    let files = |disk: &MemDisk| {
        let names = disk.list(Path::new(DIR)).unwrap();
        names.iter().filter(|name| name.ends_with(".log")).count()
    };
    assert!(files(&disk) > 4, "{}", files(&disk));
    let mut reader = store.reader();
    let read = reader.try_get_log_entries(0..200).await.unwrap();
    assert_eq!(read.len(), 200);
    assert_eq!(read[3], entry(1, 3, 100));
    assert_eq!(reader.limited_get_log_entries(7, 9).await.unwrap().len(), 2);

    store.purge(id(1, 190)).await.unwrap();
    store.save_vote(&vote(1)).await.unwrap();
    append(&mut store, vec![entry(1, 200, 1)]).await.unwrap();
    assert!(files(&disk) <= 2, "{}", files(&disk));
    assert_eq!(reader.try_get_log_entries(..).await.unwrap().len(), 10);
}

#[tokio::test]
async fn after_a_failed_sync_everything_is_refused() {
    let disk = MemDisk::new();
    let Opened { mut store, .. } = open(&disk, 1).unwrap();
    append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
    disk.fail(Fault::once(Operation::Sync, 0, EIO));
    assert!(append(&mut store, vec![entry(1, 1, 10)]).await.is_err());
    assert!(append(&mut store, vec![entry(1, 2, 10)]).await.is_err());
    assert!(store.save_vote(&vote(2)).await.is_err());
    disk.crash(0);
    let Opened { mut store, .. } = open(&disk, 2).unwrap();
    let mut reader = store.reader();
    let found = view(&mut store, &mut reader).await;
    assert_eq!(found.entries, vec![entry(1, 0, 10)]);
    assert_eq!(found.vote, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    for operation in [Operation::Create, Operation::Resize, Operation::Write] {
        let disk = MemDisk::new();
        let Opened { mut store, .. } = open(&disk, 1).unwrap();
        append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
        disk.fail(Fault::forever(operation, 0, ENOSPC));
        let before = disk.count(operation);
        let writing = tokio::spawn(async move {
            for index in 1..4 {
                // Each needs a file of its own.
                append(&mut store, vec![entry(1, index, 5000)])
                    .await
                    .unwrap();
            }
            store.save_vote(&vote(2)).await.unwrap();
        });
        let tried = async {
            while disk.count(operation) < before + 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, tried).await.unwrap();
        assert!(!writing.is_finished(), "nothing is acknowledged");
        disk.heal();
        tokio::time::timeout(PATIENCE, writing)
            .await
            .unwrap()
            .unwrap();
        disk.crash(0);
        let Opened { mut store, .. } = open(&disk, 2).unwrap();
        let mut reader = store.reader();
        let found = view(&mut store, &mut reader).await;
        assert_eq!(found.entries.len(), 4, "{operation:?}");
        assert_eq!(found.vote, Some(vote(2)));
    }
}

#[tokio::test]
async fn a_start_on_a_full_disk_says_what_to_do_and_harms_nothing() {
    let disk = MemDisk::new();
    let Opened {
        mut store, stopped, ..
    } = open(&disk, 1).unwrap();
    append(&mut store, vec![entry(1, 0, 10)]).await.unwrap();
    drop(store);
    let _ = stopped.await;
    disk.fail(Fault::forever(Operation::Resize, 1, ENOSPC));
    let error = open(&disk, 2).map(drop).unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
    disk.heal();
    let Opened { mut store, .. } = open(&disk, 3).unwrap();
    let mut reader = store.reader();
    assert_eq!(view(&mut store, &mut reader).await.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_room_for_a_log_that_is_closed() {
    let disk = MemDisk::new();
    let Opened {
        mut store, stopped, ..
    } = open(&disk, 1).unwrap();
    disk.fail(Fault::forever(Operation::Write, 0, ENOSPC));
    let (done, _receiver) = TypeConfig::oneshot();
    let callback = IOFlushed::signal(done);
    store.append(vec![entry(1, 0, 10)], callback).await.unwrap();
    drop(store);
    // Its end is what the sender's end tells.
    stopped.await.unwrap_err();
}

#[tokio::test]
async fn a_sync_that_fails_for_want_of_room_is_as_bad_as_any() {
    let disk = MemDisk::new();
    let Opened { mut store, .. } = open(&disk, 1).unwrap();
    disk.fail(Fault::once(Operation::Sync, 0, ENOSPC));
    assert!(append(&mut store, vec![entry(1, 0, 10)]).await.is_err());
    assert!(append(&mut store, vec![entry(1, 1, 10)]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_waits_for_room_and_takes_none_meanwhile() {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let snapshots = Arc::new(SnapshotStore::new(
        Arc::new(disk.clone()),
        PathBuf::from(DIR),
    ));
    let image = Arc::new(Image::new(crate::command::LEVEL, Metrics::default()));
    let mut machine = StateMachine::new(image, Arc::clone(&snapshots), None, Metrics::default());
    let mut builder = machine.get_snapshot_builder().await;
    disk.fail(Fault::forever(Operation::Write, 1, ENOSPC));
    let building = tokio::spawn(async move { builder.build_snapshot().await.map(drop) });
    // The head of a snapshot is one write, what follows is another.
    while disk.count(Operation::Remove) < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!building.is_finished());
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), Vec::<String>::new());
    disk.heal();
    building.await.unwrap().unwrap();
    assert!(snapshots.newest().unwrap().is_some());
}

#[tokio::test]
async fn a_missing_file_is_refused_and_not_taken_for_a_shorter_log() {
    let disk = MemDisk::new();
    let Opened {
        mut store, stopped, ..
    } = open(&disk, 1).unwrap();
    for index in 0..100 {
        append(&mut store, vec![entry(1, index, 100)])
            .await
            .unwrap();
    }
    drop(store);
    let _ = stopped.await;
    let names = disk.list(Path::new(DIR)).unwrap();
    let logs: Vec<_> = names.iter().filter(|n| n.ends_with(".log")).collect();
    for gone in [0, 1] {
        disk.remove(&Path::new(DIR).join(logs[gone])).unwrap();
        assert!(open(&disk, 2).is_err());
    }
}

#[test]
fn records_are_written_as_ever() {
    let members = [1, 2, 3].into_iter().collect();
    let records = [
        Record::entry(&blank_ent::<TypeConfig>(1, 2, 3)),
        Record::entry(&entry(1, 4, 5)),
        Record::entry(&membership_ent::<TypeConfig>(1, 2, 5, vec![members])),
        Record::Truncate {
            after: Some((&id(7, 8)).into()),
        },
        Record::Truncate { after: None },
        Record::Purge {
            upto: Some((&id(7, 9)).into()),
        },
    ];
    let mut written = Vec::new();
    for record in &records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        written.extend((bytes.len() as u16).to_be_bytes());
        written.extend(bytes);
    }
    check_golden("raft-records-v1.bin", &written);
    let golden = golden("raft-records-v1.bin");
    let mut rest = &golden[..];
    for record in &records {
        let (length, behind) = rest.split_at(2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (bytes, behind) = behind.split_at(length);
        assert_eq!(Record::decode(bytes).unwrap(), *record);
        rest = behind;
    }
    assert!(rest.is_empty());
}

#[test]
fn votes_and_snapshots_are_written_as_ever() {
    let disk = MemDisk::new();
    let mut payload = Vec::new();
    encode_onto(&VoteRecord::from(&Vote::new_committed(7, 3)), &mut payload);
    durable::replace(&disk, Path::new("/"), VOTE_FILE, VOTE_MAGIC, &payload).unwrap();
    let vote = disk.contents(&Path::new("/").join(VOTE_FILE)).unwrap();
    check_golden("raft-vote-v1.bin", &vote);

    let members = [1, 2, 3].into_iter().collect();
    let EntryPayload::Membership(membership) =
        membership_ent::<TypeConfig>(1, 2, 5, vec![members]).payload
    else {
        panic!("a membership entry has a membership");
    };
    let meta = SnapshotMeta {
        last_log_id: Some(id(3, 300)),
        last_membership: StoredMembership::new(Some(id(1, 5)), membership),
    };
    let store = SnapshotStore::new(Arc::new(disk.clone()), PathBuf::from("/"));
    store.save(&meta, b"the state").unwrap();
    let names = disk.list(Path::new("/")).unwrap();
    let name = names.iter().find(|name| name.ends_with(".snap")).unwrap();
    check_golden(
        "raft-snapshot-v1.bin",
        &disk.contents(&Path::new("/").join(name)).unwrap(),
    );
    let (read, state) = store.newest().unwrap().unwrap();
    assert_eq!((read, &state[..]), (meta, &b"the state"[..]));
}

proptest! {
    #[test]
    fn no_bytes_make_a_record_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(record) = Record::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            prop_assert_eq!(Record::decode(&again).unwrap(), record);
        }
    }
}

#[test]
fn leaders_are_ordered_by_term_then_node() {
    type LeaderId = <TypeConfig as openraft::RaftTypeConfig>::LeaderId;
    assert!(LeaderId::new(2, 1) > LeaderId::new(1, 9));
}
