//! From a request's bytes to the handler of its API, and from the handler's answer to bytes.
//!
//! Adding an API: a line in [`crate::versions`], a layout in `wire/layout.rs`, a file in `api/`
//! with `handle`, and an arm here.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::api;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::Code;
use crate::versions;
use crate::wire::guard::{self, Refused};
use crate::wire::response::Response;

/// Why a request cannot be answered. The connection is closed: Kafka has no way to say so.
#[derive(Debug, thiserror::Error)]
pub enum Unanswerable {
    /// This gateway does not serve the API, or not in this version.
    #[error("API key {key}, version {version} is not served")]
    Unsupported {
        /// The API key.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// The bytes are not a request of this API and version.
    #[error("malformed request: {0}")]
    Malformed(#[from] Refused),
    /// The bytes have the form of a request, but are not decoded.
    #[error("request cannot be decoded: {0}")]
    Undecodable(String),
    /// A batch of a producer that wants no answer (`acks=0`) was refused.
    #[error("an unacknowledged batch was refused with {0:?}")]
    Unacknowledged(Code),
    /// The response cannot be encoded in the version asked for.
    #[error("response cannot be encoded: {0}")]
    Unencodable(String),
}

/// Guards and decodes a request, serves it, and encodes the response (without the length prefix).
/// Produce is served by `connection`: it is staged in order and answered later.
///
/// # Cancel safety
/// Dropping it abandons the request; what it may have started in the quorum stays ambiguous.
pub async fn serve(
    ctx: &Ctx,
    conn: &ConnInfo,
    header: &Header,
    mut body: Bytes,
) -> Result<Response, Unanswerable> {
    let version = header.version;
    macro_rules! served_by {
        ($handler:path) => {{
            let request = decode(&mut body, version)?;
            let response = $handler(ctx, conn, header, request, version).await;
            encode(header, &response).map(Response::from)
        }};
    }
    if versions::is_served(header.key, version) {
        guard::check(header.key, version, &body)?;
    }
    match header.key {
        ApiKey::Fetch => {
            let request = decode(&mut body, version)?;
            Ok(api::fetch::handle(ctx, conn, header, request, version).await)
        }
        ApiKey::ListOffsets => served_by!(api::list_offsets::handle),
        ApiKey::Metadata => served_by!(api::metadata::handle),
        ApiKey::OffsetCommit => served_by!(api::offset_commit::handle),
        ApiKey::OffsetFetch => served_by!(api::offset_fetch::handle),
        ApiKey::FindCoordinator => served_by!(api::find_coordinator::handle),
        ApiKey::JoinGroup => served_by!(api::join_group::handle),
        ApiKey::Heartbeat => served_by!(api::heartbeat::handle),
        ApiKey::LeaveGroup => served_by!(api::leave_group::handle),
        ApiKey::SyncGroup => served_by!(api::sync_group::handle),
        ApiKey::DescribeGroups => served_by!(api::describe_groups::handle),
        ApiKey::ListGroups => served_by!(api::list_groups::handle),
        ApiKey::ApiVersions => api::api_versions::serve(header, &mut body).map(Response::from),
        ApiKey::CreateTopics => served_by!(api::create_topics::handle),
        ApiKey::DeleteTopics => served_by!(api::delete_topics::handle),
        ApiKey::DeleteRecords => served_by!(api::delete_records::handle),
        ApiKey::InitProducerId => served_by!(api::init_producer_id::handle),
        ApiKey::OffsetForLeaderEpoch => served_by!(api::offset_for_leader_epoch::handle),
        ApiKey::DescribeConfigs => served_by!(api::describe_configs::handle),
        ApiKey::AlterConfigs => served_by!(api::alter_configs::handle),
        ApiKey::DescribeLogDirs => served_by!(api::describe_log_dirs::handle),
        ApiKey::CreatePartitions => served_by!(api::create_partitions::handle),
        ApiKey::DeleteGroups => served_by!(api::delete_groups::handle),
        ApiKey::ElectLeaders => served_by!(api::elect_leaders::handle),
        ApiKey::IncrementalAlterConfigs => served_by!(api::incremental_alter_configs::handle),
        ApiKey::ListPartitionReassignments => {
            served_by!(api::list_partition_reassignments::handle)
        }
        ApiKey::OffsetDelete => served_by!(api::offset_delete::handle),
        ApiKey::DescribeCluster => served_by!(api::describe_cluster::handle),
        _ => Err(Unanswerable::Unsupported {
            key: header.key as i16,
            version,
        }),
    }
}

/// Decodes a request body.
pub(crate) fn decode<Q: Decodable>(body: &mut Bytes, version: i16) -> Result<Q, Unanswerable> {
    Q::decode(body, version).map_err(|error| Unanswerable::Undecodable(error.to_string()))
}

/// Encodes a response with its header.
pub(crate) fn encode<R: Encodable + HeaderVersion>(
    header: &Header,
    response: &R,
) -> Result<Bytes, Unanswerable> {
    let size = response
        .compute_size(header.version)
        .map_err(|error| Unanswerable::Unencodable(error.to_string()))?;
    let mut out = BytesMut::with_capacity(size + 8);
    ResponseHeader::default()
        .with_correlation_id(header.correlation_id)
        .encode(&mut out, R::header_version(header.version))
        .and_then(|()| response.encode(&mut out, header.version))
        .map_err(|error| Unanswerable::Unencodable(error.to_string()))?;
    Ok(out.freeze())
}
