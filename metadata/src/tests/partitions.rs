//! Networks in which not everybody reaches everybody: leadership settles, terms do not grow, and
//! commands go on.

use super::*;

/// By when commands go on: a leader that nobody answers has to give up, and another to be elected.
const RESUMED: Duration = Duration::from_secs(10);
/// Several times as long as an election takes that nobody prevents.
const WATCHED: Duration = Duration::from_secs(4);
/// Elections that a loaded machine may see in that time. Without a vote before the vote, whoever is
/// cut off would begin five to ten.
const ELECTIONS: u64 = 2;

impl Cluster {
    /// Swallows, or lets through again, what `from` sends to `to`, on any connection.
    fn cut(&self, from: u64, to: u64, through: bool) {
        self.links[&(from, to)].there.send_replace(through);
        self.links[&(to, from)].back.send_replace(through);
    }

    fn heal(&self) {
        for id in 1..=3 {
            self.connect(id, true, true);
        }
    }

    fn term(&self) -> u64 {
        let terms = self.voters.values().map(|voter| voter.node.status().term);
        terms.max().unwrap()
    }

    async fn leader(&self) -> u64 {
        let started = Instant::now();
        loop {
            let leaders = self.voters.values().map(|voter| voter.node.leader());
            let leaders: BTreeSet<Option<u64>> = leaders.collect();
            if let (1, Some(Some(leader))) = (leaders.len(), leaders.first()) {
                return *leader;
            }
            assert!(started.elapsed() < PATIENCE, "{leaders:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_partitions_settle_and_commands_go_on() {
    let mut cluster = Cluster::linked().await;
    let hasty = ClientConfig {
        attempt: Duration::from_millis(500),
        ..ClientConfig::default()
    };
    let clients: BTreeMap<u64, Client> = (1..=3)
        .map(|id| (id, cluster.voters[&id].client(hasty.clone())))
        .collect();
    for client in clients.values() {
        client.ready(PATIENCE).await.unwrap();
    }
    let mut number = 0;
    type Cuts = fn(u64, u64, u64) -> Vec<(u64, u64)>;
    // Of the leader, one that bridges, and the third: who does not reach whom.
    let cases: [(&str, Cuts); 6] = [
        ("a bridge between leader and follower", |l, _, o| {
            vec![(l, o), (o, l)]
        }),
        ("a follower that does not hear the leader", |l, _, o| {
            vec![(l, o)]
        }),
        ("a leader that does not hear a follower", |l, _, o| {
            vec![(o, l)]
        }),
        ("a leader that bridges", |_, b, o| vec![(b, o), (o, b)]),
        ("a leader that nobody answers", |l, b, o| {
            vec![(b, l), (o, l)]
        }),
        ("a leader that nobody hears", |l, b, o| vec![(l, b), (l, o)]),
    ];
    for (what, cuts) in cases {
        let leader = cluster.leader().await;
        let (bridge, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        let before = cluster.term();
        for (from, to) in cuts(leader, bridge, other) {
            cluster.cut(from, to, false);
        }
        // Through the bridge, which reaches a majority in every case.
        let resumed = tokio::time::timeout(RESUMED, create(&clients[&bridge], number));
        resumed
            .await
            .unwrap_or_else(|_| panic!("{what}: commands do not go on"));
        let settled = cluster.term();
        let stop = Instant::now() + WATCHED;
        while Instant::now() < stop {
            number += 1;
            create(&clients[&bridge], number).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let after = cluster.term();
        println!("{what}: term {before}, settled {settled}, then {after}");
        assert!(
            after <= settled + ELECTIONS,
            "{what}: terms grow from {settled} to {after}"
        );
        cluster.heal();
        number += 1;
        for client in clients.values() {
            let again = tokio::time::timeout(RESUMED, client.barrier());
            again
                .await
                .unwrap_or_else(|_| panic!("{what}: not healed"))
                .unwrap();
            assert_eq!(client.topics().len(), number as usize);
        }
    }
    drop(clients);
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}
