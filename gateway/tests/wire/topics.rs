use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use frazil_gateway::Config;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, FindCoordinatorRequest, InitProducerIdRequest,
    MetadataRequest, MetadataResponse, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use object_store::memory::InMemory;
use uuid::Uuid;

use crate::node::Node;
use crate::requests::{batch, name};

fn metadata(names: &[&'static str]) -> MetadataRequest {
    let topics = names
        .iter()
        .map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
    MetadataRequest::default().with_topics(Some(topics.collect()))
}

/// Error code and number of partitions by topic.
fn summary(response: &MetadataResponse) -> Vec<(i16, usize)> {
    let topics = response.topics.iter();
    topics.map(|t| (t.error_code, t.partitions.len())).collect()
}

#[tokio::test]
async fn topics_are_described_in_every_version() {
    let node = Node::start().await;
    let topic = node.topic("t", 3, &[]);
    let mut client = node.client().await;
    for version in 0..=13 {
        let response = client.call(&metadata(&["t"]), version).await;
        assert_eq!(summary(&response), [(0, 3)]);
        assert_eq!(response.brokers.len(), 1);
        let broker = &response.brokers[0];
        assert_eq!(broker.port, i32::from(node.address.port()));
        for partition in &response.topics[0].partitions {
            assert_eq!(partition.leader_id, broker.node_id);
            assert_eq!(partition.replica_nodes, [broker.node_id]);
            assert_eq!(partition.isr_nodes, [broker.node_id]);
        }
        if version >= 1 {
            assert_eq!(response.controller_id, broker.node_id);
        }
        if version >= 2 {
            assert_eq!(response.cluster_id.as_deref(), Some("test-cluster"));
        }
        if version >= 7 {
            assert_eq!(response.topics[0].partitions[0].leader_epoch, 0);
        }
        if version >= 8 {
            assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
        }
        if version >= 10 {
            assert_eq!(response.topics[0].topic_id, topic.1.uuid());
        }
    }
}

#[tokio::test]
async fn all_none_or_some_topics() {
    let node = Node::start().await;
    node.topic("a", 1, &[]);
    let b = node.topic("b", 2, &[]);
    let mut client = node.client().await;
    let all = MetadataRequest::default().with_topics(None);
    let none = MetadataRequest::default().with_topics(Some(vec![]));
    let everything = [(0, 1), (0, 2)];
    assert_eq!(summary(&client.call(&none, 0).await), everything);
    assert_eq!(summary(&client.call(&all, 1).await), everything);
    assert_eq!(summary(&client.call(&none, 1).await), []);
    let by_id = |id| {
        let topic = MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    let found = client.call(&by_id(b.1.uuid()), 12).await;
    assert_eq!(summary(&found), [(0, 2)]);
    assert_eq!(found.topics[0].name, Some(name("b")));
    let missing = client.call(&by_id(Uuid::from_u128(3)), 12).await;
    assert_eq!(summary(&missing), [(100, 0)]);
    assert_eq!(missing.topics[0].topic_id, Uuid::from_u128(3));
}

#[tokio::test]
async fn topics_are_created_on_first_use_if_both_sides_agree() {
    let config = Config {
        num_partitions: 4,
        default_replication_factor: 3,
        ..Config::default()
    };
    let node = Node::start_with(config, std::sync::Arc::new(InMemory::new())).await;
    let mut client = node.client().await;
    let unwanted = metadata(&["new"]).with_allow_auto_topic_creation(false);
    assert_eq!(summary(&client.call(&unwanted, 9).await), [(3, 0)]);
    let response = client
        .call(&metadata(&["new", "bad name", "", ".."]), 9)
        .await;
    assert_eq!(summary(&response), [(0, 4), (17, 0), (17, 0), (17, 0)]);
    assert_eq!(summary(&client.call(&unwanted, 9).await), [(0, 4)]);
    // Three replicas were asked for and there is one broker.
    assert_eq!(response.topics[0].partitions[0].replica_nodes.len(), 1);
    let collision = client.call(&metadata(&["a.b", "a_b"]), 9).await;
    assert_eq!(summary(&collision), [(0, 4), (17, 0)]);
}

#[tokio::test]
async fn a_topic_is_unknown_only_behind_a_barrier() {
    let node = Node::start().await;
    node.quorum.freeze();
    node.topic("t", 2, &[]);
    let mut client = node.client().await;
    node.quorum.unavailable.store(true, Ordering::SeqCst);
    assert_eq!(summary(&client.call(&metadata(&["t"]), 9).await), [(5, 0)]);
    node.quorum.unavailable.store(false, Ordering::SeqCst);
    assert_eq!(summary(&client.call(&metadata(&["t"]), 9).await), [(0, 2)]);
    let barriers = node.quorum.barriers.load(Ordering::SeqCst);
    client.call(&metadata(&["t"]), 9).await;
    assert_eq!(node.quorum.barriers.load(Ordering::SeqCst), barriers);
}

#[tokio::test]
async fn groups_have_a_coordinator_and_transactions_have_none() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let key = StrBytes::from_static_str("g");
    for version in 0..=6 {
        let request = |kind| {
            let request = FindCoordinatorRequest::default().with_key_type(kind);
            if version >= 4 {
                request.with_coordinator_keys(vec![key.clone()])
            } else {
                request.with_key(key.clone())
            }
        };
        let answer = |response: kafka_protocol::messages::FindCoordinatorResponse| {
            response
                .coordinators
                .first()
                .map_or((response.error_code, response.port), |coordinator| {
                    (coordinator.error_code, coordinator.port)
                })
        };
        let found = client.call(&request(0), version).await;
        assert_eq!(answer(found), (0, i32::from(node.address.port())));
        if version >= 1 {
            assert_eq!(answer(client.call(&request(1), version).await), (53, -1));
            assert_eq!(answer(client.call(&request(2), version).await), (42, -1));
        }
    }
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let mut seen = BTreeSet::new();
    let plain = InitProducerIdRequest::default().with_transactional_id(None);
    for version in 0..=5 {
        let response = client.call(&plain, version).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(response.producer_id.0 >= 0);
        assert!(seen.insert(response.producer_id.0));
    }
    node.quorum.unavailable.store(true, Ordering::SeqCst);
    assert_eq!(client.call(&plain, 4).await.error_code, 14);
    node.quorum.unavailable.store(false, Ordering::SeqCst);
    for (id, code) in [("tx", 53), ("", 42)] {
        let id = TransactionalId(StrBytes::from_static_str(id));
        let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
        assert_eq!(client.call(&request, 3).await.error_code, code);
    }
}

#[tokio::test]
async fn the_cluster_and_its_sizes_are_described() {
    let node = Node::start().await;
    let topic = node.topic("t", 2, &[]);
    let mut client = node.client().await;
    client.produce(topic, 9, batch(&["a"])).await;
    for version in 0..=2 {
        let response = client
            .call(&DescribeClusterRequest::default(), version)
            .await;
        assert_eq!((response.error_code, response.brokers.len()), (0, 1));
        assert_eq!(&response.cluster_id[..], "test-cluster");
    }
    for version in 1..=4 {
        let all = DescribeLogDirsRequest::default().with_topics(None);
        let response = client.call(&all, version).await;
        assert_eq!(response.results.len(), 1);
        let sizes: Vec<i64> = response.results[0].topics[0]
            .partitions
            .iter()
            .map(|partition| partition.partition_size)
            .collect();
        assert_eq!(sizes, [batch(&["a"]).len() as i64, 0]);
    }
}
