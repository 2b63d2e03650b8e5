//! A job that is stopped for good at its n-th request, to the store or the quorum, before or after
//! that was executed; for every n. Then another one does what is left.

use super::links::Fuse;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Convert,
    Merge,
    Upkeep,
}

/// A topic for which there is something to do of this kind.
async fn prepared(kind: Kind) -> World {
    let mut world = World::new(&[("frazil.table.snapshot.retention.ms", "1000")]).await;
    let conversions = if kind == Kind::Merge { 8 } else { 2 };
    for number in 0..conversions {
        // The table loses whole files, so upkeep's have rows of one partition only.
        let others = if kind == Kind::Upkeep { 0 } else { 1 };
        let batches = [(0, 5), (1 + number % 2, 3)];
        world.produce(&batches[..1 + others]).await;
        world.convert().await.unwrap();
    }
    match kind {
        Kind::Convert => {
            world.produce(&[(0, 5), (1, 3)]).await;
            world.produce(&[(0, 2), (2, 1)]).await;
        }
        Kind::Merge => {}
        Kind::Upkeep => {
            let now_ms = frazil_core::ports::Ledger::now_ms(world.node.client());
            retain(&world, now_ms - (1_700_000_000_000 + 5)).await;
        }
    }
    world.wait(Duration::from_secs(10)).await;
    world
}

async fn work(ctx: &Ctx, topic: &Topic, kind: Kind) -> Result<(), JobError> {
    let table = table_config(topic);
    match kind {
        Kind::Convert => job::run(ctx, topic, table).await.map(drop),
        Kind::Merge => merge::run(ctx, topic, table).await.map(drop),
        Kind::Upkeep => super::super::upkeep::run(ctx, topic, table).await.map(drop),
    }
}

/// Stops a job at its `requests`-th request. Whether it had that many.
async fn killed(kind: Kind, requests: usize, after: bool) -> bool {
    let world = prepared(kind).await;
    let fuse = Fuse::new(requests, after);
    let (ctx, _) = world.another(fuse.clone(), fuse);
    let topic = world.topic();
    let job = tokio::time::timeout(Duration::from_secs(10), work(&ctx, &topic, kind));
    let ended = job.await;
    if let Ok(ended) = &ended {
        ended.as_ref().unwrap();
    }
    world.node.client().barrier().await.unwrap();
    // Whatever it has done: readers find everything, now and when another one has gone on.
    if kind != Kind::Upkeep {
        world.check().await;
    }
    world.wait(world.ctx.config.lease).await;
    work(&world.ctx, &topic, kind).await.unwrap();
    world.node.client().barrier().await.unwrap();
    upkeep(&world).await;
    let cold = world.check().await;
    assert_eq!(
        cold.get(&0),
        world.ends.get(&0),
        "{kind:?} {requests} {after}"
    );
    world.wait(Duration::from_secs(3)).await;
    upkeep(&world).await;
    nothing_is_left_over(&world).await;
    world.check().await;
    ended.is_err()
}

async fn killed_everywhere(kind: Kind, at_least: usize) {
    for after in [false, true] {
        let mut requests = 1;
        while killed(kind, requests, after).await {
            requests += 1;
        }
        assert!(requests > at_least, "{kind:?}: {requests} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn conversions_can_be_killed_anywhere() {
    killed_everywhere(Kind::Convert, 12).await;
}

#[tokio::test(start_paused = true)]
async fn merges_can_be_killed_anywhere() {
    killed_everywhere(Kind::Merge, 15).await;
}

#[tokio::test(start_paused = true)]
async fn upkeep_can_be_killed_anywhere() {
    killed_everywhere(Kind::Upkeep, 8).await;
}
