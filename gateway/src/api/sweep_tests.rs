//! Every version of every API here answers in the version it was asked in: what handlers put into
//! responses must be encodable in all of them.

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::dispatch;
use crate::testing::{World, conn, header};
use crate::versions;

fn body<R: Encodable>(request: &R, version: i16) -> bytes::Bytes {
    let mut out = BytesMut::new();
    request
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("v{version}: {error}"));
    out.freeze()
}

/// A request of the API that names something that exists and something that does not.
fn request(key: ApiKey, version: i16) -> Option<bytes::Bytes> {
    let text = StrBytes::from_static_str;
    let group = || GroupId(text("g"));
    let names = || [TopicName(text("t")), TopicName(text("nowhere"))];
    let bytes = match key {
        ApiKey::JoinGroup => {
            let protocol =
                join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(6_000)
                .with_rebalance_timeout_ms(if version == 0 { -1 } else { 6_000 })
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            body(&request, version)
        }
        ApiKey::SyncGroup => {
            let request = SyncGroupRequest::default().with_group_id(group());
            body(&request, version)
        }
        ApiKey::Heartbeat => body(&HeartbeatRequest::default().with_group_id(group()), version),
        ApiKey::LeaveGroup => body(
            &LeaveGroupRequest::default().with_group_id(group()),
            version,
        ),
        ApiKey::OffsetCommit => {
            let topics = names().map(|name| {
                let partition = offset_commit_request::OffsetCommitRequestPartition::default()
                    .with_committed_offset(1)
                    .with_committed_metadata(Some(text("note")));
                offset_commit_request::OffsetCommitRequestTopic::default()
                    .with_name(name)
                    .with_partitions(vec![partition])
            });
            let request = OffsetCommitRequest::default()
                .with_group_id(group())
                .with_generation_id_or_member_epoch(-1)
                .with_topics(topics.into());
            body(&request, version)
        }
        ApiKey::OffsetFetch if version < 8 => {
            let topics = names().map(|name| {
                offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(name)
                    .with_partition_indexes(vec![0])
            });
            let request = OffsetFetchRequest::default()
                .with_group_id(group())
                .with_topics(Some(topics.into()));
            body(&request, version)
        }
        ApiKey::OffsetFetch => {
            let group = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(None);
            body(
                &OffsetFetchRequest::default().with_groups(vec![group]),
                version,
            )
        }
        ApiKey::OffsetDelete => {
            let request = OffsetDeleteRequest::default().with_group_id(group());
            body(&request, version)
        }
        ApiKey::DescribeGroups => {
            let groups = vec![group(), GroupId(text("unknown"))];
            body(
                &DescribeGroupsRequest::default().with_groups(groups),
                version,
            )
        }
        ApiKey::ListGroups => body(&ListGroupsRequest::default(), version),
        ApiKey::DeleteGroups => {
            let request =
                DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("unknown"))]);
            body(&request, version)
        }
        ApiKey::CreateTopics => {
            let topics = [text("t"), text("new")].map(|name| {
                create_topics_request::CreatableTopic::default()
                    .with_name(TopicName(name))
                    .with_num_partitions(1)
                    .with_replication_factor(1)
            });
            let request = CreateTopicsRequest::default()
                .with_topics(topics.into())
                .with_validate_only(true);
            body(&request, version)
        }
        ApiKey::DeleteTopics if version < 6 => {
            let unknown = vec![TopicName(text("nowhere"))];
            body(
                &DeleteTopicsRequest::default().with_topic_names(unknown),
                version,
            )
        }
        ApiKey::DeleteTopics => {
            let unknown = delete_topics_request::DeleteTopicState::default().with_name(None);
            body(
                &DeleteTopicsRequest::default().with_topics(vec![unknown]),
                version,
            )
        }
        ApiKey::DeleteRecords => {
            let topics = names().map(|name| {
                let partition = delete_records_request::DeleteRecordsPartition::default();
                delete_records_request::DeleteRecordsTopic::default()
                    .with_name(name)
                    .with_partitions(vec![partition])
            });
            body(
                &DeleteRecordsRequest::default().with_topics(topics.into()),
                version,
            )
        }
        ApiKey::DescribeConfigs => {
            let resources = [(2, "t"), (2, "nowhere"), (4, "1")].map(|(kind, name)| {
                describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(name))
                    .with_configuration_keys(None)
            });
            let request = DescribeConfigsRequest::default()
                .with_resources(resources.into())
                .with_include_synonyms(true);
            body(&request, version)
        }
        ApiKey::AlterConfigs => {
            let resources = ["t", "nowhere"].map(|name| {
                alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(name))
            });
            body(
                &AlterConfigsRequest::default().with_resources(resources.into()),
                version,
            )
        }
        ApiKey::IncrementalAlterConfigs => {
            let resources = ["t", "nowhere"].map(|name| {
                incremental_alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(name))
            });
            let request =
                IncrementalAlterConfigsRequest::default().with_resources(resources.into());
            body(&request, version)
        }
        ApiKey::CreatePartitions => {
            let topics = names().map(|name| {
                create_partitions_request::CreatePartitionsTopic::default()
                    .with_name(name)
                    .with_count(2)
                    .with_assignments(None)
            });
            let request = CreatePartitionsRequest::default()
                .with_topics(topics.into())
                .with_validate_only(true);
            body(&request, version)
        }
        ApiKey::ElectLeaders => {
            let topics = names().map(|name| {
                elect_leaders_request::TopicPartitions::default()
                    .with_topic(name)
                    .with_partitions(vec![0])
            });
            let request = ElectLeadersRequest::default().with_topic_partitions(Some(topics.into()));
            body(&request, version)
        }
        _ => return None,
    };
    Some(bytes)
}

#[tokio::test(start_paused = true)]
async fn every_version_can_be_answered() {
    let mut swept = std::collections::BTreeSet::new();
    for available in [true, false] {
        let world = World::new();
        world.add_topic("t", 1);
        let ctx = world.ctx(1, crate::Config::default()).await;
        world
            .unavailable
            .store(!available, std::sync::atomic::Ordering::SeqCst);
        for api in versions::SUPPORTED {
            for version in api.min..=api.max {
                let Some(body) = request(api.key, version) else {
                    continue;
                };
                let header = header(api.key, version);
                let answer = dispatch::serve(&ctx, &conn(), &header, body).await;
                assert!(
                    answer.is_ok(),
                    "{:?} v{version}: {:?}",
                    api.key,
                    answer.err()
                );
                swept.insert(api.key as i16);
            }
        }
    }
    assert_eq!(swept.len(), 18, "{swept:?}");
}
