//! Topics, settings, ids.

use frazil_core::ports::{CatalogRefusal, ConfigTarget, TOPIC_PARTITIONS_MAX};

use super::*;

fn create(world: &mut World, topic: NewTopic) -> Result<i32, CatalogRefusal> {
    match world.apply(Command::CreateTopic(topic)) {
        Outcome::TopicCreated(created) => created.map(|topic| topic.partitions),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::new();
    assert_eq!(create(&mut world, new_topic(1, "a.b", 3)), Ok(3));
    assert_eq!(
        create(&mut world, new_topic(2, "a.b", 1)),
        Err(CatalogRefusal::TopicExists)
    );
    assert_eq!(
        create(&mut world, new_topic(2, "a_b", 1)),
        Err(CatalogRefusal::NameCollision("a.b".to_owned()))
    );
    assert_eq!(
        world.state.check_new_topic(&new_topic(2, "a_b", 1)),
        Err(CatalogRefusal::NameCollision("a.b".to_owned()))
    );
    // The same topic again, as after a lost answer.
    assert_eq!(create(&mut world, new_topic(1, "a.b", 9)), Ok(3));
    assert_eq!(
        create(&mut world, new_topic(1, "other", 9)),
        Err(CatalogRefusal::TopicExists)
    );
    world.apply(Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(create(&mut world, new_topic(2, "a_b", 1)), Ok(1));
    assert_eq!(world.state.topic("a_b").expect("a topic").id, topic_id(2));
    assert_eq!(world.state.topic("a.b"), None);
    assert_eq!(world.state.topic_by_id(topic_id(1)), None);
}

#[test]
fn partitions_only_grow_and_have_a_limit() {
    let mut world = World::new();
    for wrong in [0, -1, TOPIC_PARTITIONS_MAX + 1] {
        assert_eq!(
            create(&mut world, new_topic(1, "a", wrong)),
            Err(CatalogRefusal::PartitionCount(0))
        );
    }
    assert_eq!(create(&mut world, new_topic(1, "a", 2)), Ok(2));
    let mut grow = |partitions| {
        world.apply(Command::CreatePartitions {
            id: topic_id(1),
            partitions,
        })
    };
    let refused = |present| Outcome::Catalog(Err(CatalogRefusal::PartitionCount(present)));
    assert_eq!(grow(2), refused(2));
    assert_eq!(grow(5), Outcome::Catalog(Ok(())));
    assert_eq!(grow(4), refused(5));
    assert_eq!(grow(TOPIC_PARTITIONS_MAX + 1), refused(5));
    assert_eq!(world.bounds(partition(1, 4)), (0, 0));
    assert_eq!(world.state.partitions().len(), 5);
}

#[test]
fn what_does_not_exist_cannot_be_changed() {
    let mut world = World::new();
    let id = topic_id(9);
    for command in [
        Command::DeleteTopic { id },
        Command::CreatePartitions { id, partitions: 4 },
        Command::AlterConfig {
            target: ConfigTarget::Topic(id),
            changes: vec![],
        },
    ] {
        let (outcome, changes) = world.apply_with_changes(command);
        assert_eq!(outcome, Outcome::Catalog(Err(CatalogRefusal::UnknownTopic)));
        assert_eq!(changes, Changes::default());
    }
}

#[test]
fn settings_are_set_and_returned_to_their_defaults() {
    let mut world = World::new();
    world.apply(Command::CreateTopic(new_topic(1, "a", 1)));
    let held = world.state.topic("a").expect("a topic");
    let mut alter = |target, name: &str, value: Option<&str>| {
        let outcome = world.apply(Command::AlterConfig {
            target,
            changes: vec![(name.to_owned(), value.map(str::to_owned))],
        });
        assert_eq!(outcome, Outcome::Catalog(Ok(())));
        (
            world.state.topic("a").expect("a topic").config.clone(),
            world.state.broker_config(Some(BrokerId(3))),
            world.state.broker_config(None),
        )
    };
    let none = BTreeMap::new();
    let some = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let topic = ConfigTarget::Topic(topic_id(1));
    let broker = ConfigTarget::Broker(Some(BrokerId(3)));
    let all = ConfigTarget::Broker(None);
    let expect = |a: &BTreeMap<_, _>, b: &BTreeMap<_, _>, c: &BTreeMap<_, _>| {
        (a.clone(), b.clone(), c.clone())
    };
    assert_eq!(alter(topic, "k", Some("v")), expect(&some, &none, &none));
    assert_eq!(alter(broker, "k", Some("v")), expect(&some, &some, &none));
    assert_eq!(alter(topic, "k", None), expect(&none, &some, &none));
    assert_eq!(alter(all, "k", Some("v")), expect(&none, &some, &some));
    assert_eq!(alter(broker, "k", None), expect(&none, &none, &some));
    assert_eq!(alter(all, "absent", None), expect(&none, &none, &some));
    assert_eq!(held.config, none, "what a reader holds does not change");
}

#[test]
fn a_recreated_topic_is_empty() {
    let (mut world, gateway) = World::with_gateway();
    let log = partition(1, 0);
    world.append(gateway, log, gateway.in_wal(0, 10), &[sequenced(0, 0, 1)]);
    world.apply(Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(world.state.bounds(&log), None);
    world.apply(Command::CreateTopic(new_topic(3, "one", 1)));
    assert_eq!(world.bounds(partition(3, 0)), (0, 0));
    assert_eq!(world.state.wal_extents(gateway.id), []);
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut world = World::new();
    let mut allocate = |count| match world.apply(Command::AllocateProducerIds { count }) {
        Outcome::ProducerIds { first } => first.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(allocate(1), 0);
    assert_eq!(allocate(10), 1);
    assert_eq!(allocate(0), 11);
    assert_eq!(allocate(1), 12);
}

#[test]
fn the_first_cluster_id_wins() {
    let mut world = World::new();
    for id in ["first", "second"] {
        let outcome = world.apply(Command::InitCluster {
            level: None,
            cluster_id: id.to_owned(),
        });
        let cluster_id = "first".to_owned();
        assert_eq!(outcome, Outcome::Cluster { cluster_id });
    }
    assert_eq!(world.state.cluster_id(), Some("first"));
}
