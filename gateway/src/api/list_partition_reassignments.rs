//! ListPartitionReassignments (key 46): partitions never move, so there are none. Source: KIP-455.

use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::{ConnInfo, Ctx, Header};

/// Answers that nothing is being reassigned.
pub(crate) async fn handle(
    _ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    _request: ListPartitionReassignmentsRequest,
    _version: i16,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
