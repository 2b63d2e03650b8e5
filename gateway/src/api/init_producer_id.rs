//! InitProducerId (key 22): an id for an idempotent producer.
//!
//! Without a transactional id every call gives a fresh id with epoch 0, whatever the client had
//! before (KIP-360 lets it bump its epoch by itself). With one, the request is refused as in
//! [`super::find_coordinator`]: transactions are not served yet.
//! Sources: KIP-98, KIP-360.

use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, NONE};

/// Answers a fresh producer id.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: InitProducerIdRequest,
    _version: i16,
) -> InitProducerIdResponse {
    let refused = match &request.transactional_id {
        Some(id) if id.is_empty() => Some(Code::InvalidRequest),
        Some(_) => Some(Code::TransactionalIdAuthorizationFailed),
        None => None,
    };
    let outcome = match refused {
        Some(code) => Err(code),
        None => ctx
            .catalog
            .new_producer_id()
            .await
            .map_err(|error| error::producer_id(&error)),
    };
    match outcome {
        Ok(id) => InitProducerIdResponse::default()
            .with_error_code(NONE)
            .with_producer_id(ProducerId(id.0))
            .with_producer_epoch(0),
        Err(code) => {
            ctx.metrics.error(ApiKey::InitProducerId, code);
            InitProducerIdResponse::default()
                .with_error_code(code.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        }
    }
}
