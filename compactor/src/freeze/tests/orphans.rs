//! The search for orphans: what goes, what never does, and what a search costs.

use super::links::Fuse;
use super::*;

#[tokio::test(start_paused = true)]
async fn orphans_go_and_nothing_that_is_named() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5), (1, 2)]).await;
    world.convert().await.unwrap();
    // A job that was stopped after writing something.
    let client = world.node.client().clone();
    let dead = client
        .claim_table(world.topic, SeededIds::new(5).uuid(), 1000)
        .await;
    let dead = dead.unwrap().unwrap();
    let id = frazil_core::cold::ObjectId::new(dead, 0);
    let orphans = [
        TableObject::Data(id),
        TableObject::Manifest(0, id),
        TableObject::List(id),
    ];
    for object in orphans {
        let path = world.ctx.bucket.table(world.topic, object);
        world.store.put(&path, "orphan".into()).await.unwrap();
    }
    let before = world.objects().await;
    let mut sweep = Orphans::default();
    for _ in 0..3 {
        // It may still be at work.
        assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 0);
    }
    world.wait(Duration::from_secs(2)).await;
    // Nobody works on the topic: the claim is put to an end, and then its objects are orphans.
    assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 0);
    world.wait(Duration::from_secs(1)).await;
    assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 0);
    world.wait(GRACE).await;
    assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 3);
    assert_eq!(before.len() - world.objects().await.len(), 3);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn where_something_is_damaged_nothing_is_deleted() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    world.wait(GRACE * 2).await;
    world.collect().await;
    let orphan = TableObject::Data(frazil_core::cold::ObjectId::new(1, 0));
    let path = world.ctx.bucket.table(world.topic, orphan);
    world.store.put(&path, "orphan".into()).await.unwrap();
    // One that has read everything while it was sound.
    let mut remembering = Orphans::default();
    remembering.round(&world.ctx, GRACE).await.unwrap();
    // Everything that the log or the table names, one after the other: damaged, or missing.
    let named = world.named().await;
    assert_eq!(named.len(), 8, "{named:?}");
    for object in named {
        let place = world.ctx.bucket.table(world.topic, object);
        let sound = world.store.get(&place).await.unwrap();
        let sound = sound.bytes().await.unwrap();
        for at in (0..sound.len()).step_by(3).map(Some).chain([None]) {
            match at {
                None => world.store.delete(&place).await.unwrap(),
                Some(at) => {
                    let mut damaged = sound.to_vec();
                    damaged[at] ^= 1 << (at % 8);
                    world.store.put(&place, damaged.into()).await.unwrap();
                }
            }
            // Of rows nothing is read here, and some bytes of Avro mean nothing.
            let read = matches!(object, TableObject::Manifest(..) | TableObject::Metadata(_));
            for mut sweep in [Orphans::default(), remembering.clone()] {
                let before = world.objects().await;
                let done = sweep.round(&world.ctx, Duration::ZERO).await;
                let after = world.objects().await;
                let gone: Vec<&String> = before.difference(&after).collect();
                assert!(
                    gone.is_empty() || !read && gone == [path.as_ref()],
                    "{object:?} {at:?} {done:?}: {gone:?}"
                );
                world.store.put(&path, "orphan".into()).await.unwrap();
            }
            world.store.put(&place, sound.clone().into()).await.unwrap();
        }
    }
    let mut sweep = Orphans::default();
    assert!(sweep.round(&world.ctx, Duration::ZERO).await.unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_which_something_is_missing_is_in_nobodys_way() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    // Of a topic that is gone, and comes after the other in every search.
    let last = TopicId::new(uuid::Uuid::max());
    let orphan = TableObject::Data(frazil_core::cold::ObjectId::new(1, 0));
    let orphan = world.ctx.bucket.table(last, orphan);
    for missing in world.named().await {
        let path = world.ctx.bucket.table(world.topic, missing);
        let sound = world.store.get(&path).await.unwrap().bytes().await.unwrap();
        world.store.delete(&path).await.unwrap();
        world.store.put(&orphan, "orphan".into()).await.unwrap();
        let mut sweep = Orphans::default();
        let gone = sweep.round(&world.ctx, Duration::ZERO).await.unwrap();
        assert_eq!(gone, 1, "{missing:?}");
        world.store.put(&path, sound.into()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_nothing() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    world
        .node
        .client()
        .delete_topic(world.topic)
        .await
        .unwrap()
        .unwrap();
    world.wait(GRACE * 2).await;
    world.collect().await;
    let left = world.objects().await;
    assert!(left.iter().all(|key| !key.contains("/tables/")), "{left:?}");
    assert_eq!(world.node.client().dead_tables(), []);
    // What arrives late, from a job that was under way, goes too.
    let late = TableObject::Data(frazil_core::cold::ObjectId::new(3, 9));
    let path = world.ctx.bucket.table(world.topic, late);
    world.store.put(&path, "late".into()).await.unwrap();
    let mut sweep = Orphans::default();
    assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 0);
    world.wait(GRACE).await;
    assert_eq!(sweep.round(&world.ctx, GRACE).await.unwrap(), 1);
}

/// A search that counts what it asks the store for, besides lists.
async fn counted(world: &World, sweep: &mut Orphans) -> usize {
    let fuse = Fuse::sound();
    let (ctx, _) = world.another(fuse.clone(), Fuse::sound());
    sweep.round(&ctx, GRACE).await.unwrap();
    fuse.asked()
}

#[tokio::test(start_paused = true)]
async fn what_a_search_has_read_is_not_read_again() {
    let mut world = World::new(&[]).await;
    for _ in 0..10 {
        world.produce(&[(0, 5), (1, 3)]).await;
        world.convert().await.unwrap();
    }
    world.wait(GRACE * 2).await;
    world.collect().await;
    let mut sweep = Orphans::default();
    let named = world.named().await;
    let data = named
        .iter()
        .filter(|object| matches!(object, TableObject::Data(_)));
    let inner = named.len() - data.count();
    assert_eq!(counted(&world, &mut sweep).await, inner);
    assert_eq!(counted(&world, &mut sweep).await, 0);
    // Of a conversion what it wrote: a list, a manifest, metadata, and a root for each partition.
    world.produce(&[(0, 5), (1, 3)]).await;
    world.convert().await.unwrap();
    assert_eq!(counted(&world, &mut sweep).await, 5);
    assert_eq!(counted(&world, &mut sweep).await, 0);
    // One that was written again is read again, though it says the same.
    let manifest = named
        .iter()
        .find(|object| matches!(object, TableObject::Files(_)));
    let path = world.ctx.bucket.table(world.topic, *manifest.unwrap());
    let same = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    world.store.put(&path, same.into()).await.unwrap();
    assert_eq!(counted(&world, &mut sweep).await, 1);
    assert_eq!(counted(&world, &mut sweep).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_an_object_that_nothing_leads_to_keeps_nothing() {
    let mut world = World::new(&[("frazil.table.snapshot.retention.ms", "60000")]).await;
    for _ in 0..8 {
        world.produce(&[(0, 5), (1, 3)]).await;
        world.convert().await.unwrap();
    }
    let mut sweep = Orphans::default();
    sweep.round(&world.ctx, GRACE).await.unwrap();
    assert_eq!(world.merge().await.unwrap(), 8);
    world.wait(Duration::from_secs(61)).await;
    assert_eq!(upkeep(&world).await.expired, 8);
    // Nothing is retired here: all of it must be found by a search that knew it as named.
    for _ in 0..3 {
        sweep.round(&world.ctx, GRACE).await.unwrap();
        world.wait(GRACE).await;
    }
    world.holds_what_is_named().await;
    world.check().await;
}
