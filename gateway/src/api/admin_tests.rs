//! The admin APIs as clients meet them, on a quorum in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frazil_core::ports::Catalog;
use frazil_core::{Offset, TopicPartition};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::*;
use crate::Ctx;
use crate::testing::{World, conn, header};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn named(name: &str) -> TopicName {
    TopicName(text(name))
}

async fn setup() -> (Arc<World>, Ctx) {
    let world = World::new();
    let ctx = world.ctx(1, crate::Config::default()).await;
    (world, ctx)
}

fn new_topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
}

fn with_config(topic: CreatableTopic, settings: &[(&str, Option<&str>)]) -> CreatableTopic {
    let settings = settings.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(value.map(text))
    });
    topic.with_configs(settings.collect())
}

fn with_assignment(topic: CreatableTopic, partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = partitions.iter().map(|(index, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
    });
    topic.with_assignments(assignments.collect())
}

async fn create(
    ctx: &Ctx,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_validate_only(validate_only);
    let header = header(ApiKey::CreateTopics, 7);
    let response = create_topics::handle(ctx, &conn(), &header, request, 7).await;
    for topic in &response.topics {
        assert!(topic.configs.is_some(), "Java fails on null");
        for config in topic.configs.iter().flatten() {
            assert!(
                config.config_source > 0 && config.value.is_some(),
                "{config:?}"
            );
        }
        assert_eq!(topic.error_code == 0, topic.error_message.is_none());
    }
    response.topics
}

#[tokio::test]
async fn topics_are_created_with_defaults_settings_and_ids() {
    let (world, ctx) = setup().await;
    let settings = [
        ("retention.ms", Some("1000")),
        ("cleanup.policy", Some("compact")),
    ];
    let topics = vec![
        new_topic("plain", -1, -1),
        with_config(new_topic("tuned", 3, 3), &settings),
        with_assignment(new_topic("placed", -1, -1), &[(1, &[2, 1]), (0, &[1, 2])]),
    ];
    let created = create(&ctx, topics, false).await;
    let shape: Vec<_> = created
        .iter()
        .map(|t| {
            (
                t.name.as_str(),
                t.error_code,
                t.num_partitions,
                t.replication_factor,
            )
        })
        .collect();
    assert_eq!(
        shape,
        [("plain", 0, 1, 1), ("tuned", 0, 3, 3), ("placed", 0, 2, 2)]
    );
    assert_eq!(created[0].topic_id, world.topic("plain").unwrap().id.uuid());
    let configs = created[1].configs.as_ref().unwrap();
    let retention = configs
        .iter()
        .find(|c| c.name.as_str() == "retention.ms")
        .unwrap();
    assert_eq!(
        (retention.value.as_deref(), retention.config_source),
        (Some("1000"), 1)
    );
    let segment = configs
        .iter()
        .find(|c| c.name.as_str() == "segment.bytes")
        .unwrap();
    assert_eq!(
        (segment.value.as_deref(), segment.config_source),
        (Some("1073741824"), 5)
    );
    assert_eq!(world.topic("tuned").unwrap().config.len(), 2);
}

#[tokio::test]
async fn what_topics_are_refused_for() {
    let (world, ctx) = setup().await;
    world.add_topic("there.is", 1);
    let before = world.topics().len();
    for (topic, code) in [
        (new_topic("there.is", 1, 1), 36),
        (new_topic("there_is", 1, 1), 17),
        (new_topic("", 1, 1), 17),
        (new_topic("..", 1, 1), 17),
        (new_topic("a/b", 1, 1), 17),
        (new_topic(&"x".repeat(250), 1, 1), 17),
        (new_topic("t", 0, 1), 37),
        (new_topic("t", -2, 1), 37),
        (new_topic("t", 100_001, 1), 37),
        (new_topic("t", 1, 0), 38),
        (new_topic("t", 1, -2), 38),
        (
            with_config(new_topic("t", 1, 1), &[("retention.ms", Some("soon"))]),
            40,
        ),
        (
            with_config(new_topic("t", 1, 1), &[("no.such.thing", Some("1"))]),
            40,
        ),
        (
            with_config(new_topic("t", 1, 1), &[("retention.ms", None)]),
            40,
        ),
        (with_assignment(new_topic("t", 1, -1), &[(0, &[1])]), 42),
        (with_assignment(new_topic("t", -1, 1), &[(0, &[1])]), 42),
        (with_assignment(new_topic("t", -1, -1), &[(1, &[1])]), 39),
        (
            with_assignment(new_topic("t", -1, -1), &[(0, &[1]), (0, &[1])]),
            39,
        ),
        (with_assignment(new_topic("t", -1, -1), &[(0, &[])]), 39),
        (with_assignment(new_topic("t", -1, -1), &[(0, &[1, 1])]), 39),
        (
            with_assignment(new_topic("t", -1, -1), &[(0, &[1]), (1, &[1, 2])]),
            39,
        ),
        (with_assignment(new_topic("t", -1, -1), &[(0, &[-1])]), 39),
    ] {
        for validate_only in [true, false] {
            let results = create(&ctx, vec![topic.clone()], validate_only).await;
            assert_eq!(results[0].error_code, code, "{topic:?}");
        }
    }
    let twice = vec![
        new_topic("t", 1, 1),
        new_topic("u", 1, 1),
        new_topic("t", 1, 1),
    ];
    let results = create(&ctx, twice, true).await;
    let codes: Vec<_> = results
        .iter()
        .map(|t| (t.name.as_str(), t.error_code))
        .collect();
    assert_eq!(codes, [("t", 42), ("u", 0)]);
    assert_eq!(
        (results[1].topic_id, results[1].num_partitions),
        (Uuid::nil(), 1)
    );
    assert_eq!(world.topics().len(), before, "nothing was created");
    world.unavailable.store(true, Ordering::SeqCst);
    assert_eq!(
        create(&ctx, vec![new_topic("t", 1, 1)], false).await[0].error_code,
        7
    );
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let (world, ctx) = setup().await;
    let [_, b, c, d] = ["a", "b", "c", "d"].map(|name| world.add_topic(name, 1));
    let delete = async |version, request| {
        let header = header(ApiKey::DeleteTopics, version);
        let response = delete_topics::handle(&ctx, &conn(), &header, request, version).await;
        let responses = response.responses.into_iter();
        responses
            .map(|r| (r.name.map(|name| name.to_string()), r.error_code))
            .collect::<Vec<_>>()
    };
    let by_name = DeleteTopicsRequest::default().with_topic_names(vec![named("a"), named("x")]);
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(delete(5, by_name).await, [(name("a"), 0), (name("x"), 3)]);
    let by = |name: Option<&str>, id: Uuid| {
        DeleteTopicState::default()
            .with_name(name.map(named))
            .with_topic_id(id)
    };
    let by_id = DeleteTopicsRequest::default().with_topics(vec![
        by(None, b.uuid()),
        by(None, Uuid::from_u128(1)),
        by(Some("c"), c.uuid()),
        by(Some("d"), Uuid::nil()),
        by(None, d.uuid()),
        by(None, d.uuid()),
        by(None, Uuid::nil()),
    ]);
    let expected = [
        (name("b"), 0),
        (None, 100),
        (name("c"), 42),
        (name("d"), 42),
        (None, 42),
        (None, 42),
    ];
    assert_eq!(delete(6, by_id).await, expected);
    let left: Vec<_> = world
        .topics()
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    assert_eq!(left, ["c", "d"]);
}

#[tokio::test]
async fn partitions_are_added_and_never_taken() {
    let (world, ctx) = setup().await;
    world.add_topic("t", 2);
    world.add_topic("u", 2);
    let topic = |name: &str, count| {
        CreatePartitionsTopic::default()
            .with_name(named(name))
            .with_count(count)
            .with_assignments(None)
    };
    let add = async |topics: Vec<CreatePartitionsTopic>, validate_only| {
        let request = CreatePartitionsRequest::default()
            .with_topics(topics)
            .with_validate_only(validate_only);
        let header = header(ApiKey::CreatePartitions, 3);
        let response = create_partitions::handle(&ctx, &conn(), &header, request, 3).await;
        let results = response.results.iter();
        results
            .map(|r| (r.name.to_string(), r.error_code))
            .collect::<Vec<_>>()
    };
    let assigned = |brokers: &[&[i32]]| {
        let assignments = brokers.iter().map(|ids| {
            let ids = ids.iter().map(|id| BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        });
        topic("u", 4).with_assignments(Some(assignments.collect()))
    };
    for (asked, code) in [
        (topic("t", 2), 37),
        (topic("t", 1), 37),
        (topic("t", -1), 37),
        (topic("t", 100_001), 37),
        (topic("x", 3), 3),
        (topic("a/b", 3), 3),
        (topic("t", 3).with_assignments(Some(vec![])), 39),
        (assigned(&[&[1]]), 39),
        (assigned(&[&[1], &[]]), 39),
    ] {
        let name = asked.name.to_string();
        assert_eq!(
            add(vec![asked.clone()], true).await,
            [(name.clone(), code)],
            "{asked:?}"
        );
        assert_eq!(
            add(vec![asked.clone()], false).await,
            [(name, code)],
            "{asked:?}"
        );
    }
    assert_eq!(add(vec![topic("t", 3)], true).await, [("t".to_owned(), 0)]);
    assert_eq!(world.topic("t").unwrap().partitions, 2);
    let both = vec![topic("t", 3), assigned(&[&[1], &[1]])];
    assert_eq!(
        add(both, false).await,
        [("t".to_owned(), 0), ("u".to_owned(), 0)]
    );
    assert_eq!(world.topic("t").unwrap().partitions, 3);
    assert_eq!(world.topic("u").unwrap().partitions, 4);
    let twice = vec![topic("t", 5), topic("t", 6)];
    assert_eq!(add(twice, false).await, [("t".to_owned(), 42)]);
}

#[tokio::test]
async fn records_are_deleted_up_to_the_high_watermark() {
    let (world, ctx) = setup().await;
    let id = world.add_topic("t", 1);
    let partition = TopicPartition::new(id, 0);
    {
        let mut state = world.state.lock();
        let bounds = state.bounds.get_mut(&partition).unwrap();
        bounds.high_watermark = Offset(10);
        bounds.last_stable = Offset(10);
    }
    let compacted = [("cleanup.policy", Some("compact"))];
    create(
        &ctx,
        vec![with_config(new_topic("compacted", 1, 1), &compacted)],
        false,
    )
    .await;
    let delete = async |name: &str, index, offset| {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(index)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(named(name))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let header = header(ApiKey::DeleteRecords, 2);
        let response = delete_records::handle(&ctx, &conn(), &header, request, 2).await;
        let partition = &response.topics[0].partitions[0];
        (partition.low_watermark, partition.error_code)
    };
    assert_eq!(delete("t", 0, 4).await, (4, 0));
    assert_eq!(delete("t", 0, 2).await, (4, 0));
    assert_eq!(delete("t", 0, 11).await, (-1, 1));
    assert_eq!(delete("t", 0, -2).await, (-1, 1));
    assert_eq!(delete("t", 1, 1).await, (-1, 3));
    assert_eq!(delete("x", 0, 1).await, (-1, 3));
    assert_eq!(delete("compacted", 0, 0).await, (-1, 44));
    assert_eq!(delete("t", 0, -1).await, (10, 0));
}

// ---------------------------------------------------------------------------------------------
// Settings.

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn describe(ctx: &Ctx, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let header = header(ApiKey::DescribeConfigs, 4);
    let mut response = describe_configs::handle(ctx, &conn(), &header, request, 4).await;
    let result = response.results.remove(0);
    for config in &result.configs {
        assert!(
            config.config_source > 0 && config.config_type > 0,
            "{config:?}"
        );
        assert!(
            config
                .documentation
                .as_ref()
                .is_some_and(|doc| !doc.is_empty()),
            "{config:?}"
        );
        if config.value.is_some() {
            let first = &config.synonyms[0];
            assert_eq!(first.source, config.config_source, "{config:?}");
        }
    }
    result
}

async fn value(ctx: &Ctx, kind: i8, name: &str, key: &str) -> (Option<String>, i8) {
    let result = describe(ctx, kind, name, Some(&[key])).await;
    let config = &result.configs[0];
    (
        config.value.as_ref().map(ToString::to_string),
        config.config_source,
    )
}

async fn incremental(ctx: &Ctx, kind: i8, name: &str, ops: &[(&str, i8, Option<&str>)]) -> i16 {
    use kafka_protocol::messages::incremental_alter_configs_request as api;
    let configs = ops.iter().map(|(name, operation, value)| {
        api::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = api::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let header = header(ApiKey::IncrementalAlterConfigs, 1);
    let response = incremental_alter_configs::handle(ctx, &conn(), &header, request, 1).await;
    response.responses[0].error_code
}

async fn replace(ctx: &Ctx, kind: i8, name: &str, settings: &[(&str, Option<&str>)]) -> i16 {
    use kafka_protocol::messages::alter_configs_request as api;
    let configs = settings.iter().map(|(name, value)| {
        api::AlterableConfig::default()
            .with_name(text(name))
            .with_value(value.map(text))
    });
    let resource = api::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let header = header(ApiKey::AlterConfigs, 2);
    let response = alter_configs::handle(ctx, &conn(), &header, request, 2).await;
    response.responses[0].error_code
}

#[tokio::test]
async fn all_settings_are_described_with_where_they_come_from() {
    let (world, ctx) = setup().await;
    world.add_topic("t", 1);
    let topic = describe(&ctx, TOPIC, "t", None).await;
    assert_eq!(
        topic.configs.len(),
        frazil_core::topic_config::TOPIC_CONFIGS.len()
    );
    let broker = describe(&ctx, BROKER, "1", None).await;
    assert_eq!(
        broker.configs.len(),
        frazil_core::topic_config::BROKER_CONFIGS.len()
    );
    assert!(describe(&ctx, BROKER, "", None).await.configs.is_empty());

    let get = |key| value(&ctx, TOPIC, "t", key);
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(get("retention.ms").await, (some("604800000"), 5));
    assert_eq!(
        incremental(&ctx, BROKER, "", &[("log.retention.hours", 0, Some("1"))]).await,
        0
    );
    assert_eq!(get("retention.ms").await, (some("3600000"), 3));
    assert_eq!(
        incremental(&ctx, BROKER, "1", &[("log.retention.ms", 0, Some("5"))]).await,
        0
    );
    assert_eq!(get("retention.ms").await, (some("5"), 2));
    assert_eq!(
        incremental(&ctx, TOPIC, "t", &[("retention.ms", 0, Some("7"))]).await,
        0
    );
    assert_eq!(get("retention.ms").await, (some("7"), 1));
    let described = describe(&ctx, TOPIC, "t", Some(&["retention.ms"])).await;
    let synonyms: Vec<_> = described.configs[0]
        .synonyms
        .iter()
        .map(|s| (s.name.as_str(), s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(
        synonyms,
        [
            ("retention.ms", "7", 1),
            ("log.retention.ms", "5", 2),
            ("log.retention.hours", "1", 3),
            ("log.retention.hours", "168", 5),
        ]
    );
    assert_eq!(
        value(&ctx, BROKER, "", "log.retention.hours").await,
        (some("1"), 3)
    );
    assert_eq!(
        value(&ctx, BROKER, "1", "log.retention.hours").await,
        (some("1"), 3)
    );
    assert_eq!(value(&ctx, BROKER, "1", "broker.id").await, (some("1"), 4));
    assert_eq!(
        value(&ctx, BROKER, "1", "num.partitions").await,
        (some("1"), 5)
    );
    let listener = value(&ctx, BROKER, "1", "advertised.listeners").await;
    assert_eq!(listener, (some("PLAINTEXT://broker-1:9092"), 4));
}

#[tokio::test]
async fn what_a_broker_was_started_with_stands_behind_topics() {
    let world = World::new();
    world.add_topic("t", 1);
    let settings = [
        ("log.retention.ms", "604800000"),
        ("log.segment.bytes", "2000000"),
        ("num.partitions", "4"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = crate::Config {
        broker_settings: settings.into(),
        ..crate::Config::default()
    };
    let ctx = world.ctx(1, config).await;
    let some = |value: &str| Some(value.to_owned());
    let get = |key| value(&ctx, TOPIC, "t", key);
    assert_eq!(get("segment.bytes").await, (some("2000000"), 4));
    assert_eq!(
        value(&ctx, BROKER, "1", "num.partitions").await,
        (some("4"), 4)
    );
    // A default that was written out does not stand before what is set while the broker runs.
    assert_eq!(get("retention.ms").await, (some("604800000"), 5));
    assert_eq!(
        incremental(&ctx, BROKER, "", &[("log.retention.hours", 0, Some("1"))]).await,
        0
    );
    assert_eq!(get("retention.ms").await, (some("3600000"), 3));
}

#[tokio::test]
async fn resources_that_cannot_be_described() {
    let (_, ctx) = setup().await;
    for (kind, name, code) in [
        (TOPIC, "x", 3),
        (TOPIC, "a/b", 17),
        (BROKER, "2", 42),
        (BROKER, "one", 42),
        (8, "1", 42),
        (16, "m", 0),
        (32, "g", 0),
    ] {
        let result = describe(&ctx, kind, name, None).await;
        assert_eq!(
            (result.error_code, result.configs.len()),
            (code, 0),
            "{kind} {name}"
        );
        assert_eq!(result.error_message.is_some(), code != 0);
    }
}

#[tokio::test]
async fn settings_are_changed_one_by_one() {
    let (world, ctx) = setup().await;
    world.add_topic("t", 1);
    let config = || world.topic("t").unwrap().config.clone();
    for (operations, code) in [
        (&[("retention.ms", 0, Some("soon"))][..], 40),
        (&[("no.such.thing", 0, Some("1"))], 40),
        (&[("no.such.thing", 2, Some("1"))], 40),
        (&[("retention.ms", 0, None)], 42),
        (&[("retention.ms", 2, Some("1"))], 40),
        (&[("retention.ms", 3, Some("1"))], 40),
        (&[("retention.ms", 9, Some("1"))], 42),
        (
            &[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)],
            42,
        ),
        // One that is wrong keeps the others from being made.
        (
            &[
                ("retention.ms", 0, Some("1")),
                ("segment.bytes", 0, Some("x")),
            ],
            40,
        ),
        (
            &[
                ("min.compaction.lag.ms", 0, Some("9")),
                ("max.compaction.lag.ms", 0, Some("8")),
            ],
            40,
        ),
    ] {
        assert_eq!(
            incremental(&ctx, TOPIC, "t", operations).await,
            code,
            "{operations:?}"
        );
        assert!(config().is_empty(), "{operations:?}");
    }
    let policy = async |operation, value| {
        let operations = [("cleanup.policy", operation, Some(value))];
        assert_eq!(incremental(&ctx, TOPIC, "t", &operations).await, 0);
        config()["cleanup.policy"].clone()
    };
    assert_eq!(policy(2, "compact").await, "delete,compact");
    assert_eq!(policy(2, "compact").await, "delete,compact");
    assert_eq!(policy(3, "delete").await, "compact");
    let reset = [("cleanup.policy", 1, None), ("retention.ms", 1, None)];
    assert_eq!(incremental(&ctx, TOPIC, "t", &reset).await, 0);
    assert!(config().is_empty());
    assert_eq!(incremental(&ctx, TOPIC, "x", &[]).await, 3);
    for (name, operations, code) in [
        ("1", [("num.partitions", 0, Some("3"))], 42),
        ("1", [("no.such.thing", 0, Some("3"))], 42),
        ("1", [("log.retention.ms", 0, Some("soon"))], 40),
        ("7", [("log.retention.ms", 0, Some("1"))], 42),
    ] {
        assert_eq!(
            incremental(&ctx, BROKER, name, &operations).await,
            code,
            "{operations:?}"
        );
    }
}

#[tokio::test]
async fn settings_are_replaced_all_at_once() {
    let (world, ctx) = setup().await;
    world.add_topic("t", 1);
    let config = || {
        let config = world.topic("t").unwrap().config.clone();
        config
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
    };
    let first = [("retention.ms", Some("1")), ("segment.ms", Some("2"))];
    assert_eq!(replace(&ctx, TOPIC, "t", &first).await, 0);
    assert_eq!(config(), ["retention.ms=1", "segment.ms=2"]);
    assert_eq!(
        replace(&ctx, TOPIC, "t", &[("segment.ms", Some("3"))]).await,
        0
    );
    assert_eq!(config(), ["segment.ms=3"]);
    assert_eq!(replace(&ctx, TOPIC, "t", &[("segment.ms", None)]).await, 42);
    assert_eq!(
        replace(&ctx, TOPIC, "t", &[("segment.ms", Some("x"))]).await,
        40
    );
    let twice = [("segment.ms", Some("4")), ("segment.ms", Some("5"))];
    assert_eq!(replace(&ctx, TOPIC, "t", &twice).await, 42);
    assert_eq!(config(), ["segment.ms=3"]);
    // Read, change, write back: what tools do.
    let described = describe(&ctx, TOPIC, "t", None).await;
    let all: Vec<_> = described
        .configs
        .iter()
        .map(|c| (c.name.as_str(), c.value.as_deref()))
        .collect();
    assert_eq!(replace(&ctx, TOPIC, "t", &all).await, 0);
    let again = describe(&ctx, TOPIC, "t", None).await;
    let values = |result: &DescribeConfigsResult| -> Vec<_> {
        result.configs.iter().map(|c| c.value.clone()).collect()
    };
    assert_eq!(values(&described), values(&again));
    assert_eq!(replace(&ctx, TOPIC, "t", &[]).await, 0);
    assert!(config().is_empty());
}

#[tokio::test]
async fn no_election_is_ever_needed() {
    let (world, ctx) = setup().await;
    world.add_topic("t", 1);
    let elect = async |topics| {
        let request = ElectLeadersRequest::default().with_topic_partitions(topics);
        let header = header(ApiKey::ElectLeaders, 2);
        elect_leaders::handle(&ctx, &conn(), &header, request, 2).await
    };
    let topic = TopicPartitions::default()
        .with_topic(named("t"))
        .with_partitions(vec![0, 1]);
    let named = elect(Some(vec![topic])).await;
    let results = &named.replica_election_results[0].partition_result;
    let codes: Vec<_> = results
        .iter()
        .map(|p| (p.partition_id, p.error_code))
        .collect();
    assert_eq!((named.error_code, codes), (0, vec![(0, 84), (1, 3)]));
    assert!(elect(None).await.replica_election_results.is_empty());
}
