//! SyncGroup (key 14): waits for one's assignment; the leader's request brings everybody's.
//! Sources: KIP-62, KIP-345 (instance id, version 3), KIP-559 (protocol, version 5).

use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;
use crate::group::Sync;

/// Gives and gets assignments.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: SyncGroupRequest,
    _version: i16,
) -> SyncGroupResponse {
    let group = request.group_id.to_string();
    match ctx.groups.sync(&group, to_sync(request)).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_error_code(error::NONE)
            .with_protocol_type(Some(StrBytes::from_string(synced.protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(synced.protocol)))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(group_error(
            ctx,
            ApiKey::SyncGroup,
            &error,
        )),
    }
}

/// An owned copy of the request, for it waits, and slices would keep its whole frame in memory.
/// (The assignments are copied by the group.)
fn to_sync(request: SyncGroupRequest) -> Sync {
    Sync {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|text| text.to_string()),
        protocol: request.protocol_name.map(|text| text.to_string()),
        assignments: request
            .assignments
            .into_iter()
            .map(|assignment| (assignment.member_id.to_string(), assignment.assignment))
            .collect(),
    }
}
