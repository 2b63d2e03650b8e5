//! JoinGroup (key 11): becomes or stays a member; waits for the generation. Sources: KIP-62,
//! KIP-345, KIP-394 (member id required, version 4), KIP-814 (skipped assignment, version 9).

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;
use crate::group::{GroupError, Join, Joined};

/// Joins a group.
pub(crate) async fn handle(
    ctx: &Ctx,
    conn: &ConnInfo,
    header: &Header,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let group = request.group_id.to_string();
    let join = to_join(conn, header, request, version);
    let member_id = join.member_id.clone();
    match ctx.groups.join(&group, join).await {
        Ok(joined) => joined_response(joined),
        Err(error) => {
            let member_id = match &error {
                GroupError::MemberIdRequired(id) => id.clone(),
                _ => member_id,
            };
            JoinGroupResponse::default()
                .with_error_code(group_error(ctx, ApiKey::JoinGroup, &error))
                .with_generation_id(-1)
                .with_protocol_type(None)
                .with_protocol_name((version < 7).then(StrBytes::default))
                .with_member_id(StrBytes::from_string(member_id))
        }
    }
}

/// An owned copy of the request, for it waits, and slices would keep its whole frame in memory.
/// (The metadata is copied by the group.)
fn to_join(conn: &ConnInfo, header: &Header, request: JoinGroupRequest, version: i16) -> Join {
    Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: header
            .client_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        client_host: format!("/{}", conn.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 has none, which reads as -1.
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.to_string(), protocol.metadata))
            .collect(),
        id_required: version >= 4,
        can_skip_assignment: version >= 9,
        fresh: String::new(),
    }
}

fn joined_response(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(member.instance_id.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(error::NONE)
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(StrBytes::from_string(joined.protocol_type)))
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(members.collect())
}
