//! DeleteGroups (key 42): deletes groups without members, with their offsets. Source: KIP-229.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse};

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;

/// Deletes groups.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DeleteGroupsRequest,
    _version: i16,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let deleted = ctx.groups.delete(&id).await;
        let code = deleted.err().map_or(error::NONE, |error| {
            group_error(ctx, ApiKey::DeleteGroups, &error)
        });
        results.push(
            DeletableGroupResult::default()
                .with_group_id(id)
                .with_error_code(code),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
