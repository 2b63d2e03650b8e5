//! DescribeGroups (key 15): a group's phase, members and assignments. Sources: KIP-430
//! (authorized operations, version 3), KIP-345, KIP-1043 (GROUP_ID_NOT_FOUND, version 6).

use bytes::Bytes;
use frazil_core::group::Member;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;
use crate::group::{Description, GroupError, State};

/// The first version that can say that a group does not exist (before, it is `Dead`), and why.
const NOT_FOUND: i16 = 6;

/// The bits of what may be done with a group: read, delete, describe. Nobody is kept from any.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

/// Not asked for, or nothing to be done.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Describes groups.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for id in request.groups {
        let operations = if request.include_authorized_operations {
            ALL_OPERATIONS
        } else {
            OPERATIONS_UNKNOWN
        };
        groups.push(match ctx.groups.describe(&id).await {
            Ok(description) => describe(id, description).with_authorized_operations(operations),
            Err(error) => {
                failed(ctx, id, &error, version).with_authorized_operations(OPERATIONS_UNKNOWN)
            }
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn describe(id: GroupId, description: Description) -> DescribedGroup {
    let Description { state, group, .. } = description;
    // The protocol, and metadata for it, mean something only once a generation is complete;
    // an assignment, until it is replaced.
    let protocol = group.protocol.filter(|_| state == State::Stable);
    let members = group.members.into_iter();
    DescribedGroup::default()
        .with_error_code(error::NONE)
        .with_group_id(id)
        .with_group_state(StrBytes::from_static_str(state.name()))
        .with_protocol_type(StrBytes::from_string(group.protocol_type))
        .with_members(
            members
                .map(|(id, member)| describe_member(id, member, protocol.as_deref()))
                .collect(),
        )
        .with_protocol_data(StrBytes::from_string(protocol.unwrap_or_default()))
}

fn describe_member(id: String, member: Member, protocol: Option<&str>) -> DescribedGroupMember {
    let metadata = protocol.and_then(|protocol| {
        let mut offered = member.protocols.into_iter();
        offered
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| Bytes::copy_from_slice(&metadata))
    });
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(id))
        .with_group_instance_id(member.instance_id.map(StrBytes::from_string))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(metadata.unwrap_or_default())
        .with_member_assignment(Bytes::from(member.assignment.to_vec()))
}

fn failed(ctx: &Ctx, id: GroupId, error: &GroupError, version: i16) -> DescribedGroup {
    let dead = *error == GroupError::UnknownGroup;
    let described = DescribedGroup::default();
    let described = if version >= NOT_FOUND {
        described
            .with_error_code(group_error(ctx, ApiKey::DescribeGroups, error))
            .with_error_message(Some(StrBytes::from_string(error.to_string())))
    } else if dead {
        described.with_error_code(error::NONE)
    } else {
        described.with_error_code(group_error(ctx, ApiKey::DescribeGroups, error))
    };
    let state = if dead { "Dead" } else { "" };
    described
        .with_group_id(id)
        .with_group_state(StrBytes::from_static_str(state))
}
