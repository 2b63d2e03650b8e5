//! ListGroups (key 16): the groups that this gateway coordinates. Clients ask every broker and
//! merge, so a group is listed by its coordinator only. Sources: KIP-518 (states, version 4),
//! KIP-848 (types, version 5).

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ApiKey, GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;

/// The type of all groups here.
const CLASSIC: &str = "classic";

/// Lists groups.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: ListGroupsRequest,
    _version: i16,
) -> ListGroupsResponse {
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|text| text.eq_ignore_ascii_case(value))
    };
    if !wanted(&request.types_filter, CLASSIC) {
        return ListGroupsResponse::default();
    }
    let listings = match ctx.groups.list().await {
        Ok(listings) => listings,
        Err(error) => {
            return ListGroupsResponse::default().with_error_code(group_error(
                ctx,
                ApiKey::ListGroups,
                &error,
            ));
        }
    };
    let groups = listings
        .into_iter()
        .filter(|listing| wanted(&request.states_filter, listing.state.name()))
        .map(|listing| {
            ListedGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(listing.name)))
                .with_protocol_type(StrBytes::from_string(listing.protocol_type))
                .with_group_state(StrBytes::from_static_str(listing.state.name()))
                .with_group_type(StrBytes::from_static_str(CLASSIC))
        });
    ListGroupsResponse::default()
        .with_error_code(error::NONE)
        .with_groups(groups.collect())
}
