//! LeaveGroup (key 13): members go at once instead of by their session's end. Sources: KIP-345
//! (several members, by instance id, version 3), KIP-800 (a reason, version 5).

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;

/// The first version that names several members.
const BATCHED: i16 = 3;

/// Takes members out of a group.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let members: Vec<_> = if version < BATCHED {
        vec![(request.member_id, None)]
    } else {
        let members = request.members.into_iter();
        members
            .map(|member| (member.member_id, member.group_instance_id))
            .collect()
    };
    let leavers = members
        .iter()
        .map(|(id, instance)| (id.to_string(), instance.as_ref().map(ToString::to_string)))
        .collect();
    let results = match ctx.groups.leave(&request.group_id, leavers).await {
        Ok(results) => results,
        Err(error) => {
            return LeaveGroupResponse::default().with_error_code(group_error(
                ctx,
                ApiKey::LeaveGroup,
                &error,
            ));
        }
    };
    let mut codes = results.into_iter().map(|result| {
        result.err().map_or(error::NONE, |error| {
            group_error(ctx, ApiKey::LeaveGroup, &error)
        })
    });
    if version < BATCHED {
        let code = codes.next().unwrap_or(error::NONE);
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let members = members
        .into_iter()
        .zip(codes)
        .map(|((id, instance), code)| {
            MemberResponse::default()
                .with_member_id(id)
                .with_group_instance_id(instance)
                .with_error_code(code)
        });
    LeaveGroupResponse::default()
        .with_error_code(error::NONE)
        .with_members(members.collect())
}
