//! Files of a voter that are not what was written.

use frazil_core::env::Disk;
use frazil_core::env::testing::MemDisk;

use super::*;
use crate::raft::snapshot::SnapshotStore;
use crate::voter::open;

const DIR: &str = "/quorum";

fn on_disk() -> Config {
    Config {
        log_file_bytes: 4096,
        kept_entries: 4,
        ..Config::new(1, BTreeMap::from([(1, "nowhere:0".to_owned())]), DIR)
    }
}

fn files(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let read = |name: &String| disk.contents(&Path::new(DIR).join(name)).unwrap();
    names
        .iter()
        .map(|name| (name.clone(), read(name)))
        .collect()
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for (name, bytes) in files {
        let file = disk.create(&Path::new(DIR).join(name)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk
}

/// What a start finds: the vote, the entries, the newest snapshot.
#[derive(Debug, PartialEq)]
struct Found {
    vote: String,
    entries: Vec<crate::raft::Entry>,
    snapshot: Option<u64>,
}

async fn found(files: &BTreeMap<String, Vec<u8>>) -> Result<Found, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk_of(files));
    let ids: Arc<dyn frazil_core::env::Ids> = Arc::new(SeededIds::new(9));
    let mut opened = open(&on_disk(), &disk, &ids, &Metrics::default())()?;
    use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
    let mut reader = opened.store.get_log_reader().await;
    let vote = format!("{:?}", reader.read_vote().await.unwrap());
    let entries = opened.store.reader().read(0, u64::MAX, u64::MAX).await?;
    let snapshots = SnapshotStore::new(disk, Path::new(DIR).to_owned());
    let newest = snapshots.newest()?;
    Ok(Found {
        vote,
        entries,
        snapshot: newest.and_then(|(meta, _)| Some(meta.last_log_id?.index)),
    })
}

/// Of a bit that has flipped, a start either notices and says what to do, or nothing is missing that
/// a crash could not have taken: frames at the very end, which nobody can tell from a torn write.
#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_changes_what_a_voter_remembers() {
    let disk = MemDisk::new();
    let voter = Voter::start(
        on_disk(),
        None,
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let client = voter.client(ClientConfig::default());
    for round in 0..2 {
        for number in 0..12 {
            create(&client, round * 12 + number).await;
        }
        voter.node.raft.trigger().snapshot().await.unwrap();
        let applied = voter.image().applied();
        let store = Arc::clone(&voter.node.snapshots);
        until("a snapshot", async || store.newest_index() >= Some(applied)).await;
    }
    for number in 24..30 {
        create(&client, number).await;
    }
    drop(client);
    voter.shutdown().await;
    let whole = files(&disk);
    let expected = found(&whole).await.unwrap();
    assert!(
        expected.entries.len() >= 6 && expected.snapshot.is_some(),
        "{expected:?}"
    );

    let (mut noticed, mut shorter, mut harmless) = (0, 0, 0);
    for (name, bytes) in &whole {
        for (at, &byte) in bytes.iter().enumerate() {
            // Most of a log file is zeros for frames to come.
            if byte == 0 && at % 31 != 0 {
                continue;
            }
            let mut damaged = whole.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            match found(&damaged).await {
                Err(error) => {
                    noticed += 1;
                    let said = error.to_string();
                    assert!(
                        said.contains("frazil cluster voter add"),
                        "{name} {at}: {said}"
                    );
                }
                Ok(found) => {
                    assert_eq!(found.vote, expected.vote, "{name} {at}");
                    assert!(expected.entries.starts_with(&found.entries), "{name} {at}");
                    match found == expected {
                        true => harmless += 1,
                        false => shorter += 1,
                    }
                    // The snapshot before takes over, with the entries behind it.
                    let reach = found.entries.last().map(|entry| entry.log_id.index);
                    assert!(
                        found.snapshot.max(reach) >= expected.snapshot,
                        "{name} {at}"
                    );
                }
            }
        }
    }
    println!("{noticed} noticed, {shorter} cut at the end, {harmless} without a meaning");
    assert!(noticed > 500, "{noticed}");
}
