//! The group APIs as clients meet them: one request after another on a quorum in memory.

use bytes::Bytes;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;

use super::*;
use crate::Ctx;
use crate::testing::{World, conn, header};

async fn ctx() -> Ctx {
    let mut config = crate::Config::default();
    config.groups.initial_rebalance_delay = Duration::ZERO;
    let world = World::new();
    world.add_topic("t", 2);
    world.ctx(1, config).await
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn subscription() -> Bytes {
    Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff")
}

async fn join(ctx: &Ctx, member: &str, version: i16) -> JoinGroupResponse {
    let protocol = join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription());
    let request = JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let header = header(ApiKey::JoinGroup, version);
    join_group::handle(ctx, &conn(), &header, request, version).await
}

/// A stable group `g` of one member.
async fn enter(ctx: &Ctx) -> JoinGroupResponse {
    let joined = join(ctx, "", 3).await;
    assert_eq!(joined.error_code, 0);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"yours"));
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id)
        .with_assignments(vec![assignment]);
    let header = header(ApiKey::SyncGroup, 5);
    let synced = sync_group::handle(ctx, &conn(), &header, request, 5).await;
    assert_eq!(
        (synced.error_code, &synced.assignment[..]),
        (0, &b"yours"[..])
    );
    assert_eq!(synced.protocol_name.as_deref(), Some("range"));
    joined
}

async fn commit(
    ctx: &Ctx,
    member: Option<&JoinGroupResponse>,
    entries: &[(&str, i32, i64, &str)],
    version: i16,
) -> Vec<i16> {
    let topics = entries.iter().map(|(name, partition, offset, note)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text(note)));
        OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition])
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_member_id(
            member
                .map(|joined| joined.member_id.clone())
                .unwrap_or_default(),
        )
        .with_generation_id_or_member_epoch(member.map_or(-1, |joined| joined.generation_id))
        .with_topics(topics.collect());
    let header = header(ApiKey::OffsetCommit, version);
    let response = offset_commit::handle(ctx, &conn(), &header, request, version).await;
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

#[tokio::test(start_paused = true)]
async fn joining_needs_an_id_from_version_4_on() {
    let ctx = ctx().await;
    let first = join(&ctx, "", 4).await;
    assert_eq!((first.error_code, first.generation_id), (79, -1));
    assert!(first.member_id.starts_with("test-"));
    assert_eq!(
        (first.protocol_type, first.protocol_name.as_deref()),
        (None, Some(""))
    );
    let second = join(&ctx, &first.member_id, 4).await;
    assert_eq!((second.error_code, second.generation_id), (0, 1));
    assert_eq!(
        (&second.leader, &second.member_id),
        (&first.member_id, &first.member_id)
    );
    assert_eq!(second.members.len(), 1);
    let unknown = join(&ctx, "nobody", 7).await;
    assert_eq!(
        (unknown.error_code, unknown.member_id.as_str()),
        (25, "nobody")
    );
    assert_eq!(unknown.protocol_name, None);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_and_leaving() {
    let ctx = ctx().await;
    let joined = enter(&ctx).await;
    let beat = async |generation| {
        let request = HeartbeatRequest::default()
            .with_group_id(group("g"))
            .with_member_id(joined.member_id.clone())
            .with_generation_id(generation);
        let header = header(ApiKey::Heartbeat, 4);
        heartbeat::handle(&ctx, &conn(), &header, request, 4)
            .await
            .error_code
    };
    assert_eq!(beat(joined.generation_id).await, 0);
    assert_eq!(beat(joined.generation_id + 1).await, 22);
    let leave = async |version, request: LeaveGroupRequest| {
        let header = header(ApiKey::LeaveGroup, version);
        let request = request.with_group_id(group("g"));
        leave_group::handle(&ctx, &conn(), &header, request, version).await
    };
    let old = LeaveGroupRequest::default().with_member_id(text("nobody"));
    assert_eq!(leave(2, old).await.error_code, 25);
    let identity = |id: &StrBytes| MemberIdentity::default().with_member_id(id.clone());
    let members = vec![identity(&text("nobody")), identity(&joined.member_id)];
    let left = leave(3, LeaveGroupRequest::default().with_members(members)).await;
    let codes: Vec<_> = left
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    assert_eq!((left.error_code, codes), (0, vec![25, 0]));
    assert_eq!(beat(joined.generation_id).await, 25);
}

#[tokio::test(start_paused = true)]
async fn commits_are_checked_one_by_one_and_come_back_as_they_were() {
    let ctx = ctx().await;
    let long = "x".repeat(4097);
    let entries = [
        ("t", 0, 5, "a note"),
        ("t", 1, 6, long.as_str()),
        ("t", 2, 7, ""),
        ("nowhere", 0, 8, ""),
    ];
    assert_eq!(commit(&ctx, None, &entries, 8).await, [0, 12, 3, 3]);
    let joined = enter(&ctx).await;
    assert_eq!(commit(&ctx, None, &[("t", 1, 6, "")], 2).await, [25]);
    assert_eq!(
        commit(&ctx, Some(&joined), &[("t", 1, 6, "")], 9).await,
        [0]
    );
    let stale = joined.clone().with_generation_id(joined.generation_id + 1);
    assert_eq!(
        commit(&ctx, Some(&stale), &[("t", 1, 7, "")], 9).await,
        [22]
    );

    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0, 1, 9]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group("g"))
        .with_topics(Some(vec![asked]));
    for version in [1, 5, 7] {
        let header = header(ApiKey::OffsetFetch, version);
        let response = offset_fetch::handle(&ctx, &conn(), &header, request.clone(), version).await;
        assert_eq!(response.error_code, 0);
        let got: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|p| {
                (
                    p.committed_offset,
                    p.metadata.as_deref().unwrap(),
                    p.error_code,
                )
            })
            .collect();
        assert_eq!(got, [(5, "a note", 0), (6, "", 0), (-1, "", 0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_of_several_groups_and_of_unknown_ones() {
    let ctx = ctx().await;
    commit(&ctx, None, &[("t", 1, 6, "")], 8).await;
    let unknown = OffsetFetchRequestTopics::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0]);
    let groups = vec![
        OffsetFetchRequestGroup::default()
            .with_group_id(group("g"))
            .with_topics(None),
        OffsetFetchRequestGroup::default()
            .with_group_id(group("unknown"))
            .with_topics(Some(vec![unknown])),
    ];
    let request = OffsetFetchRequest::default().with_groups(groups);
    let header = header(ApiKey::OffsetFetch, 9);
    let response = offset_fetch::handle(&ctx, &conn(), &header, request, 9).await;
    let got: Vec<_> = response
        .groups
        .iter()
        .flat_map(|group| {
            group.topics.iter().flat_map(move |topic| {
                let name = topic.name.as_str();
                topic.partitions.iter().map(move |p| {
                    (
                        group.error_code,
                        name,
                        p.partition_index,
                        p.committed_offset,
                        p.error_code,
                    )
                })
            })
        })
        .collect();
    assert_eq!(got, [(0, "t", 1, 6, 0), (0, "t", 0, -1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn describing_listing_and_deleting() {
    let ctx = ctx().await;
    let describe = async |name: &str, version| {
        let request = DescribeGroupsRequest::default().with_groups(vec![group(name)]);
        let header = header(ApiKey::DescribeGroups, version);
        let response = describe_groups::handle(&ctx, &conn(), &header, request, version).await;
        response.groups.into_iter().next().unwrap()
    };
    let list = async |states: &[&str], types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        let header = header(ApiKey::ListGroups, 5);
        list_groups::handle(&ctx, &conn(), &header, request, 5)
            .await
            .groups
    };
    let delete = async |name: &str| {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(name)]);
        let header = header(ApiKey::DeleteGroups, 2);
        delete_groups::handle(&ctx, &conn(), &header, request, 2)
            .await
            .results[0]
            .error_code
    };
    let missing = describe("g", 5).await;
    assert_eq!(
        (missing.error_code, missing.group_state.as_str()),
        (0, "Dead")
    );
    let missing = describe("g", 6).await;
    assert_eq!(
        (missing.error_code, missing.group_state.as_str()),
        (69, "Dead")
    );
    assert_eq!(delete("g").await, 69);

    let joined = enter(&ctx).await;
    let found = describe("g", 5).await;
    assert_eq!(
        (found.group_state.as_str(), found.protocol_data.as_str()),
        ("Stable", "range")
    );
    assert_eq!(found.authorized_operations, i32::MIN);
    let member = &found.members[0];
    assert_eq!(
        (member.client_id.as_str(), member.client_host.as_str()),
        ("test", "/127.0.0.1")
    );
    assert_eq!(member.member_metadata, subscription());
    assert_eq!(&member.member_assignment[..], b"yours");

    let listed = list(&[], &[]).await;
    assert_eq!(
        (listed[0].group_id.as_str(), listed[0].group_state.as_str()),
        ("g", "Stable")
    );
    assert_eq!(list(&["stable"], &["classic"]).await.len(), 1);
    assert_eq!(list(&["Empty"], &[]).await.len(), 0);
    assert_eq!(list(&[], &["share"]).await.len(), 0);
    assert_eq!(listed[0].group_type.as_str(), "classic");

    assert_eq!(delete("g").await, 68);
    let leave = LeaveGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(joined.member_id.clone());
    leave_group::handle(&ctx, &conn(), &header(ApiKey::LeaveGroup, 1), leave, 1).await;
    assert_eq!(describe("g", 5).await.group_state.as_str(), "Empty");
    assert_eq!(delete("g").await, 0);
    assert!(list(&[], &[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn offsets_in_use_are_not_deleted() {
    let ctx = ctx().await;
    let delete = async |names: &[&str]| {
        let topics = names.iter().map(|name| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
            OffsetDeleteRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(vec![partition])
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(group("g"))
            .with_topics(topics.collect());
        let header = header(ApiKey::OffsetDelete, 0);
        let response = offset_delete::handle(&ctx, &conn(), &header, request, 0).await;
        let codes = response
            .topics
            .iter()
            .map(|topic| topic.partitions[0].error_code);
        (response.error_code, codes.collect::<Vec<_>>())
    };
    assert_eq!(delete(&["t"]).await, (69, vec![]));
    commit(&ctx, None, &[("t", 0, 6, "")], 8).await;
    enter(&ctx).await;
    assert_eq!(delete(&["t", "nowhere"]).await, (0, vec![86, 3]));
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_errors_are_retriable() {
    let ctx = ctx().await;
    let joined = enter(&ctx).await;
    let down = World::new();
    let ctx = down.ctx(1, crate::Config::default()).await;
    down.unavailable
        .store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(join(&ctx, "", 3).await.error_code, 15);
    assert_eq!(
        commit(&ctx, Some(&joined), &[("t", 0, 1, "")], 8).await,
        [15]
    );
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group("g"))
        .with_topics(Some(vec![asked]));
    let fetch = async |version| {
        let header = header(ApiKey::OffsetFetch, version);
        offset_fetch::handle(&ctx, &conn(), &header, request.clone(), version).await
    };
    // Never "no offset": that would send consumers to the beginning.
    assert_eq!(fetch(1).await.topics[0].partitions[0].error_code, 15);
    assert_eq!(fetch(2).await.error_code, 15);
}
