//! Wall clocks that leap, and gateways that fall silent.

use frazil_core::group::CommittedOffset;
use frazil_core::ports::{GroupClaim, GroupStore, Ledger};

use super::*;
use crate::archive::tests::MemArchive;
use crate::command::Command;
use crate::{Archive, ArchiveConfig};

const START: i64 = 1_790_000_000_000;
const DAY: i64 = 24 * 3600 * 1000;

fn offset(at: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(at),
        leader_epoch: -1,
        metadata: String::new(),
        committed_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_clock_that_leaps_fences_nobody_and_lets_nothing_expire() {
    let mut cluster = Cluster::new(1000).await;
    for id in 1..=3 {
        cluster.stop(id).await;
        cluster.clocks.insert(id, Arc::new(ManualClock::new(START)));
        cluster.restart(id).await;
    }
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    create(&client, 1).await;
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let partition = TopicPartition::new(topic(1).id, 0);
    let (coordinator, _) = client.claim("readers").await.unwrap();
    let claim = GroupClaim {
        group: "readers".to_owned(),
        coordinator,
    };
    let offsets = vec![(partition, offset(7))];
    let committed = client.commit_offsets(&claim, None, offsets).await;
    committed.unwrap().unwrap();
    let begun = client.now_ms();
    assert!((START..START + 60_000).contains(&begun), "{begun}");

    let mut number = 0;
    for leap in [DAY, -DAY, 1000 * DAY, 0] {
        let leader = client.status().await.unwrap().leader.unwrap();
        cluster.clocks[&leader].set(START + leap);
        for _ in 0..20 {
            client.heartbeat(Duration::from_secs(10)).await.unwrap();
            let outcome = client.commit(flush(id, epoch, number, partition)).await;
            assert_eq!(
                outcome.unwrap().appends[0].batches,
                [BatchOutcome::Appended(Offset(10 * number as i64))]
            );
            number += 1;
            // As the compactor does, which also compares records' timestamps with this time.
            let now = client.now_ms();
            assert!((begun..begun + 60_000).contains(&now), "{leap}: {now}");
            client.expire(now - DAY / 2, now - DAY / 2).await.unwrap();
        }
        assert_eq!(client.brokers().len(), 1, "the gateway is live");
        assert_eq!(
            client.offset("readers", &partition).unwrap().offset,
            Offset(7)
        );
        // The next leader, whose clock leaps from the beginning.
        cluster.clocks[&(leader % 3 + 1)].set(START + leap);
        client.barrier().await.unwrap();
    }
    drop(client);
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

fn silent_soon(dir: &TempDir) -> Config {
    Config {
        gateway_grace: Duration::from_millis(600),
        ..alone(dir)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_silent_is_not_live_until_it_is_heard_again() {
    let dir = TempDir::new().unwrap();
    let voter = start(silent_soon(&dir), None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let lease = Duration::from_millis(300);
    client.heartbeat(lease).await.unwrap();
    assert_eq!(client.brokers().len(), 1);
    until("it lapses", async || client.brokers().is_empty()).await;
    // It may go on committing, and is there again as soon as it is heard.
    create(&client, 1).await;
    let partition = TopicPartition::new(topic(1).id, 0);
    client.commit(flush(id, epoch, 0, partition)).await.unwrap();
    client.heartbeat(Duration::from_secs(30)).await.unwrap();
    assert_eq!(client.brokers().len(), 1);
    // Superseded: told so, by a heartbeat.
    let other = voter.client(ClientConfig::default());
    let same = Registration {
        id: Some(id),
        ..broker(2)
    };
    other.register(same).await.unwrap();
    let fenced = client.heartbeat(lease).await;
    assert!(matches!(fenced, Err(PortError::Fenced(_))), "{fenced:?}");
    // One that has left is forgotten like any other.
    other.leave().await.unwrap();
    let late = client.now_ms() + 1;
    client.expire(late, late).await.unwrap();
    assert!(voter.image().read(|state| state.registration(id).is_none()));
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut voter = start(silent_soon(&dir), None, 1).await.unwrap();
    let archive = Arc::new(MemArchive::default());
    let every = ArchiveConfig {
        every: Duration::from_millis(20),
        ..ArchiveConfig::default()
    };
    voter.archive(Arc::clone(&archive) as Arc<dyn Archive>, every);
    let client = voter.client(ClientConfig::default());
    client.register(broker(1)).await.unwrap();
    let beat = async |times: u32| {
        for _ in 0..times {
            client.heartbeat(Duration::from_secs(5)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    beat(50).await;
    let (applied, objects) = (voter.image().applied(), archive.objects.lock().len());
    assert!(objects > 0, "the archive is kept");
    beat(150).await;
    assert_eq!(voter.image().applied(), applied);
    assert_eq!(archive.objects.lock().len(), objects);
    assert_eq!(client.brokers().len(), 1, "it is live all the same");
    // What happens is archived.
    create(&client, 1).await;
    until("it is archived", async || {
        archive.objects.lock().len() > objects
    })
    .await;
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_an_older_level_lose_their_end_with_the_upgrade() {
    let dir = TempDir::new().unwrap();
    let old = Config {
        knows: 1,
        ..silent_soon(&dir)
    };
    let voter = start(old, None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    let (id, _) = client.register(broker(1)).await.unwrap();
    let before = voter.image().applied();
    client.heartbeat(Duration::from_secs(10)).await.unwrap();
    assert_eq!(
        voter.image().applied(),
        before + 1,
        "a command at that level"
    );
    let lease = |voter: &Voter| {
        let image = voter.image();
        image.read(|state| state.registration(id).unwrap().lease_until_ms)
    };
    assert_ne!(lease(&voter), i64::MAX);
    drop(client);
    voter.shutdown().await;
    let voter = start(silent_soon(&dir), None, 2).await.unwrap();
    let raise = Command::RaiseLevel { level: 2 };
    let raised = voter
        .node
        .propose(crate::command::Envelope::by_leader(raise))
        .await;
    assert!(matches!(raised, crate::wire::Reply::Proposed { .. }));
    assert_eq!(lease(&voter), i64::MAX);
    until("it lapses", async || lease(&voter) != i64::MAX).await;
    voter.shutdown().await;
}
