//! Claims: how long they keep others away, and what becomes of a job that has lost its own.

use std::sync::atomic::Ordering;

use frazil_core::ports::TableRefusal;

use super::links::Fuse;
use super::*;

/// A conversion of `world`'s topic by another compactor that stands still at its second request to
/// the store, until the fuse is mended.
fn stuck(world: &World, ctx: Ctx) -> tokio::task::JoinHandle<Result<Done, JobError>> {
    let topic = world.topic();
    let table = table_config(&topic);
    tokio::spawn(async move { job::run(&ctx, &topic, table).await })
}

#[tokio::test(start_paused = true)]
async fn a_killed_compactors_topic_is_taken_over_within_a_minute() {
    let mut world = World::new(&[("frazil.table.mode", "shared")]).await;
    world.produce(&[(0, 5)]).await;
    let fuse = Fuse::new(2, false);
    let (ctx, _) = world.another(fuse, Fuse::sound());
    let job = stuck(&world, ctx);
    // It has been at work for longer than a lease when it is killed.
    world.wait(Duration::from_secs(75)).await;
    let held = world.convert().await.unwrap_err();
    assert!(
        matches!(held, JobError::Refused(TableRefusal::Held)),
        "{held}"
    );
    job.abort();
    let (topic, node) = (world.topic, world.node.client().clone());
    let catalog = Arc::new(node.clone());
    let mut left = world.ctx.config.clone();
    left.interval = Duration::from_secs(1);
    let ctx = Arc::new(Ctx {
        config: left,
        bucket: world.ctx.bucket.clone(),
        ledger: world.ctx.ledger.clone(),
        tables: world.ctx.tables.clone(),
        metrics: Metrics::default(),
        holder: SeededIds::new(5).uuid(),
    });
    let defaults = BTreeMap::from([("frazil.table.freshness.ms".to_owned(), "1000".to_owned())]);
    let freezer = tokio::spawn(crate::freeze::Freezer::new(ctx, catalog, defaults).run());
    world.wait(Duration::from_secs(59)).await;
    freezer.abort();
    assert!(node.table(topic).unwrap().pointer.is_some());
    assert_eq!(world.check().await[&0], Offset(5));
}

#[tokio::test(start_paused = true)]
async fn a_long_job_keeps_its_topic_with_few_commands() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    let fuse = Fuse::new(2, false);
    let (ctx, reached) = world.another(fuse.clone(), Fuse::sound());
    let job = stuck(&world, ctx);
    for _ in 0..20 {
        world.wait(Duration::from_secs(15)).await;
        let held = world.convert().await.unwrap_err();
        assert!(
            matches!(held, JobError::Refused(TableRefusal::Held)),
            "{held}"
        );
    }
    // Five minutes, with leases of half of one.
    assert_eq!(reached.renewals.load(Ordering::Relaxed), 30);
    fuse.mend();
    assert!(job.await.unwrap().unwrap().bytes > 0);
    world.node.client().barrier().await.unwrap();
    assert_eq!(world.check().await[&0], Offset(5));
    world.wait(Duration::from_secs(60)).await;
    assert_eq!(
        reached.renewals.load(Ordering::Relaxed),
        30,
        "nobody holds it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_renew_its_lease_is_refused_and_harms_nothing() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5), (1, 2)]).await;
    for after_told in [false, true] {
        let fuse = Fuse::new(2, false);
        let (ctx, reached) = world.another(fuse.clone(), Fuse::sound());
        let job = stuck(&world, ctx);
        reached.cut_off.store(true, Ordering::Relaxed);
        world.wait(Duration::from_secs(45)).await;
        // Nobody has kept the topic for it.
        world.produce(&[(0, 3)]).await;
        world.convert().await.unwrap();
        let cold = world.check().await;
        // It wakes and goes on with what it had planned, or has been told by a renewal first.
        reached.cut_off.store(false, Ordering::Relaxed);
        if after_told {
            world.wait(Duration::from_secs(15)).await;
        }
        fuse.mend();
        let refused = job.await.unwrap().unwrap_err();
        assert!(
            matches!(refused, JobError::Refused(TableRefusal::Superseded)),
            "{refused}"
        );
        assert_eq!(world.check().await, cold);
        world.produce(&[(0, 3)]).await;
    }
    world.convert().await.unwrap();
    nothing_is_left_over(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_comes_late_renews_nothing() {
    let world = World::new(&[]).await;
    let claim = world.ctx.claim(world.topic).await.unwrap();
    let late = claim.nothing(60_000);
    claim.give_up().await.unwrap();
    let client = world.node.client();
    client.replace(late.clone()).await.unwrap().unwrap();
    client.barrier().await.unwrap();
    assert_eq!(client.table(world.topic).unwrap().lease, None);
    let next = client.claim_table(world.topic, SeededIds::new(6).uuid(), 1000);
    next.await.unwrap().unwrap();
    assert_eq!(
        client.replace(late).await.unwrap(),
        Err(TableRefusal::Superseded)
    );
}
