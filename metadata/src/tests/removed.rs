//! Voters that do not belong to the quorum any more, and learn of it.

use super::*;

async fn ends(voter: &Voter) -> String {
    tokio::time::timeout(PATIENCE, voter.failed())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_removed_ends_and_says_so_also_when_it_comes_back_later() {
    let mut cluster = Cluster::new(1000).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    let leader = client.status().await.unwrap().leader.unwrap();
    drop(client);
    let address = newcomer(&mut cluster, 4).await;
    let admin = Admin::new(&cluster.addresses[&leader]);
    admin.add_voter(4, address).await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();

    // One that runs, and one that is down meanwhile.
    cluster.stop(others[1]).await;
    for id in &others {
        admin.remove_voter(*id).await.unwrap();
    }
    let reason = ends(&cluster.voters[&others[0]]).await;
    assert!(
        reason.contains("has been removed from the quorum"),
        "{reason}"
    );
    cluster.restart(others[1]).await;
    let reason = ends(&cluster.voters[&others[1]]).await;
    assert!(
        reason.contains("has been removed from the quorum"),
        "{reason}"
    );
    // Those that stay do not end.
    let client = cluster.client(leader);
    create(&client, 1).await;
    let failed = tokio::time::timeout(Duration::from_secs(3), cluster.voters[&leader].failed());
    assert!(failed.await.is_err());
    let members = admin.members().await.unwrap();
    assert!(members.heard_ms.contains_key(&4), "{members:?}");
    drop(client);
    for id in 1..=4 {
        cluster.stop(id).await;
    }
}
