//! Heartbeat (key 12): a member lives, and learns of a rebalance. Sources: KIP-62, KIP-345.

use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;

/// Answers whether the member's generation still stands.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: HeartbeatRequest,
    _version: i16,
) -> HeartbeatResponse {
    let beat = ctx.groups.heartbeat(
        &request.group_id,
        request.member_id.to_string(),
        request.group_instance_id.map(|id| id.to_string()),
        request.generation_id,
    );
    let code = beat.await.err().map_or(error::NONE, |error| {
        group_error(ctx, ApiKey::Heartbeat, &error)
    });
    HeartbeatResponse::default().with_error_code(code)
}
