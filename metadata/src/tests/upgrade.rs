//! Programs of two versions in one cluster: who is upgraded first, who last, and who never.

use super::*;
use crate::command::{Command, Envelope, LEVEL};
use crate::state::State;
use crate::wire::Reply;

/// An earlier program.
const OLD: u8 = 1;

impl Cluster {
    /// Three voters of the earlier program.
    async fn old() -> Self {
        Self::started(1000, (1..=3).map(|id| (id, OLD)).collect()).await
    }

    /// The node of `id` runs another program from now on.
    async fn install(&mut self, id: u64, knows: u8) {
        self.stop(id).await;
        self.knows.insert(id, knows);
        self.restart(id).await;
        self.client(id).ready(PATIENCE).await.unwrap();
    }

    fn level(&self, id: u64) -> u8 {
        self.voters[&id].image().read(State::level)
    }
}

fn observe(cluster: &Cluster, knows: u8) -> Observer {
    let ids = Arc::new(SeededIds::new(700 + u64::from(knows)));
    Observer::knowing(knows, cluster.addresses.clone(), ids, Metrics::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_replaced_one_by_one_and_then_the_level_is_raised() {
    let mut cluster = Cluster::old().await;
    let admin = Admin::new(&cluster.addresses[&1]);
    let gateway = observe(&cluster, OLD);
    let client = gateway.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    client.register(broker(1)).await.unwrap();
    create(&client, 0).await;
    assert_eq!(admin.features().await.unwrap().level, OLD, "a new cluster");

    // One after the other, the leader too; commands go on, and one of them goes back meanwhile.
    for (turn, (id, knows)) in [(1, LEVEL), (2, LEVEL), (1, OLD), (3, LEVEL)]
        .into_iter()
        .enumerate()
    {
        cluster.install(id, knows).await;
        create(&client, 1 + turn as u128).await;
        let early = admin.upgrade(None).await;
        assert_eq!(early.unwrap().level, OLD, "not all of them know more");
        let refused = admin.upgrade(Some(LEVEL)).await.unwrap_err();
        assert!(
            refused.to_string().contains("install a newer frazil"),
            "{refused}"
        );
    }
    cluster.install(1, LEVEL).await;
    // The gateway does not know it.
    let refused = admin.upgrade(Some(LEVEL)).await.unwrap_err();
    assert!(refused.to_string().contains("gateway"), "{refused}");
    let newer = observe(&cluster, LEVEL);
    let client = newer.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    let (id, _) = gateway
        .client(ClientConfig::default())
        .register(broker(1))
        .await
        .unwrap();
    let same = Registration {
        id: Some(id),
        ..broker(2)
    };
    client.register(same).await.unwrap();

    let features = admin.upgrade(None).await.unwrap();
    assert_eq!(features.level, LEVEL);
    create(&client, 10).await;
    client.barrier().await.unwrap();
    assert_eq!(newer.image().read(State::level), LEVEL);

    // Who does not know it stops there, is refused from then on, and says what to do.
    let reason = tokio::time::timeout(PATIENCE, gateway.failed())
        .await
        .unwrap();
    assert!(reason.contains("install a newer frazil"), "{reason}");
    assert_eq!(
        gateway.image().read(State::level),
        OLD,
        "nothing is skipped"
    );
    let late = observe(&cluster, OLD);
    let reason = tokio::time::timeout(PATIENCE, late.failed()).await.unwrap();
    assert!(reason.contains("install a newer frazil"), "{reason}");
    cluster.stop(2).await;
    cluster.knows.insert(2, OLD);
    cluster.restart(2).await;
    let failed = cluster.voters[&2].failed();
    let reason = tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert!(reason.contains("install a newer frazil"), "{reason}");
    assert_eq!(cluster.level(2), OLD);
    // The others go on, and so does it with the right program.
    create(&client, 11).await;
    cluster.install(2, LEVEL).await;
    assert_eq!(cluster.level(2), LEVEL);

    let back = admin.upgrade(Some(OLD)).await.unwrap_err();
    assert!(back.to_string().contains("no way back"), "{back}");
    for observer in [gateway, newer, late] {
        observer.shutdown().await;
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_level_brings_is_not_written_before_it_is_in_use() {
    let dir = TempDir::new().unwrap();
    // Of a cluster that an earlier program has formed.
    let old = Config {
        knows: OLD,
        ..alone(&dir)
    };
    start(old, None, 1).await.unwrap().shutdown().await;
    let voter = start(alone(&dir), None, 2).await.unwrap();
    let client = voter.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let early = Envelope::by_leader(Command::Lapse { broker: id, epoch });
    let node = Arc::clone(&voter.node);
    let before = voter.image().applied();
    let reply = node.propose(early.clone()).await;
    assert!(
        matches!(&reply, Reply::Impossible(why) if why.contains("frazil cluster upgrade")),
        "{reply:?}"
    );
    assert_eq!(voter.image().applied(), before);
    let upgraded = node.upgrade(None).await;
    assert!(matches!(upgraded, Reply::Features(f) if f.level == LEVEL));
    let reply = node.propose(early).await;
    assert!(matches!(reply, Reply::Proposed { .. }), "{reply:?}");
    drop(client);
    drop(node);
    voter.shutdown().await;

    // A new cluster has it at once.
    let dir = TempDir::new().unwrap();
    let voter = start(alone(&dir), None, 3).await.unwrap();
    assert_eq!(voter.image().read(State::level), LEVEL);
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_later_level_is_refused() {
    let dir = TempDir::new().unwrap();
    let config = |knows| Config {
        snapshot_entries: 5,
        kept_entries: 0,
        knows,
        ..alone(&dir)
    };
    let voter = start(config(LEVEL), None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    for number in 0..20 {
        create(&client, number).await;
    }
    drop(client);
    let snapshot = || {
        let names = frazil_core::env::Disk::list(&RealDisk, dir.path()).unwrap();
        names.iter().any(|name| name.ends_with(".snap"))
    };
    until("a snapshot", async || snapshot()).await;
    voter.shutdown().await;
    let refused = start(config(OLD), None, 2).await.map(|_| ()).unwrap_err();
    assert!(
        refused.to_string().contains("install a newer frazil"),
        "{refused}"
    );
    start(config(LEVEL), None, 3)
        .await
        .unwrap()
        .shutdown()
        .await;
}
