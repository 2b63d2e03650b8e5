//! FindCoordinator (key 10): which gateway coordinates a group.
//!
//! Transactions are not served yet. A client that asks for their coordinator is told
//! `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`: the one code at which the Java client and librdkafka
//! both give up at once, where others make them ask again until they time out.
//! Sources: KIP-98 (key types), KIP-699 (batches, version 4).

use frazil_core::ports::Broker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{Code, NONE};
use crate::placement;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Answers the coordinator of one key, or from version 4 on of several.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let brokers = ctx.catalog.brokers();
    let find = |key: &StrBytes| {
        let answer = coordinator(&brokers, request.key_type, key);
        if let Err((code, _)) = answer {
            ctx.metrics.error(ApiKey::FindCoordinator, code);
        }
        answer
    };
    let response = FindCoordinatorResponse::default();
    if version >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| {
            let response = Coordinator::default().with_key(key.clone());
            match find(key) {
                Ok(broker) => response
                    .with_error_code(NONE)
                    .with_node_id(BrokerId(broker.id.0))
                    .with_host(StrBytes::from_string(broker.host.clone()))
                    .with_port(i32::from(broker.port)),
                Err((code, why)) => response
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_static_str(why)))
                    .with_node_id(BrokerId(-1))
                    .with_port(-1),
            }
        });
        return response.with_coordinators(coordinators.collect());
    }
    match find(&request.key) {
        Ok(broker) => response
            .with_error_code(NONE)
            .with_node_id(BrokerId(broker.id.0))
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port)),
        Err((code, why)) => response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(why)))
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}

fn coordinator<'a>(
    brokers: &'a [Broker],
    key_type: i8,
    key: &str,
) -> Result<&'a Broker, (Code, &'static str)> {
    match key_type {
        GROUP => placement::coordinator(brokers, key)
            .ok_or((Code::CoordinatorNotAvailable, "no broker is available")),
        TRANSACTION => Err((
            Code::TransactionalIdAuthorizationFailed,
            "transactions are not supported",
        )),
        _ => Err((Code::InvalidRequest, "unknown kind of coordinator")),
    }
}
