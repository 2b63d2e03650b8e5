//! DescribeCluster (key 60): the live brokers. Source: KIP-700, KIP-919, KIP-1073.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::Code;
use crate::placement;

/// `endpoint_type` of brokers; the other one, controllers, cannot be reached by clients here.
const BROKERS: i8 = 1;

/// Answers the live brokers.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DescribeClusterRequest,
    version: i16,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(ctx.catalog.cluster_id()));
    let response = if version >= 1 {
        response.with_endpoint_type(BROKERS)
    } else {
        response
    };
    if request.endpoint_type != BROKERS {
        return response
            .with_error_code(Code::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "only brokers can be asked for, endpoint type 1",
            )));
    }
    let brokers = ctx.catalog.brokers();
    let controller = placement::controller(&brokers).map_or(-1, |broker| broker.id.0);
    response
        .with_controller_id(BrokerId(controller))
        .with_brokers(
            brokers
                .into_iter()
                .map(|broker| {
                    DescribeClusterBroker::default()
                        .with_broker_id(BrokerId(broker.id.0))
                        .with_host(StrBytes::from_string(broker.host))
                        .with_port(i32::from(broker.port))
                        .with_rack(broker.rack.map(StrBytes::from_string))
                })
                .collect(),
        )
}
