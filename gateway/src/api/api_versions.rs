//! ApiVersions (key 18): what this gateway serves. Source: KIP-35, KIP-511, KIP-584.
//!
//! A version that is newer than ours is answered in version 0 with `UNSUPPORTED_VERSION` and our
//! range of this API, so that the client can ask again. The response header is always version 0.

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::Header;
use crate::dispatch::{Unanswerable, decode, encode};
use crate::error::{Code, NONE};
use crate::versions;

/// The `metadata.version` reported: that of Kafka 3.6 (IV2). Administration tools derive "the
/// version of Kafka" from it and refuse incremental config changes and quotas without it.
const METADATA_VERSION: i16 = 14;

/// Decodes the request if its version is known, and answers.
pub(crate) fn serve(header: &Header, body: &mut Bytes) -> Result<Bytes, Unanswerable> {
    let own = versions::SUPPORTED
        .iter()
        .filter(|api| api.key == ApiKey::ApiVersions);
    if !versions::is_served(header.key, header.version) {
        let response = ApiVersionsResponse::default()
            .with_error_code(Code::UnsupportedVersion.code())
            .with_api_keys(own.map(api_version).collect());
        let header = Header {
            version: 0,
            ..header.clone()
        };
        return encode(&header, &response);
    }
    let request: ApiVersionsRequest = decode(body, header.version)?;
    encode(header, &handle(&request, header.version))
}

fn handle(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let legal = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if version >= 3 && !legal {
        return ApiVersionsResponse::default().with_error_code(Code::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default()
        .with_error_code(NONE)
        .with_api_keys(versions::SUPPORTED.iter().map(api_version).collect());
    if version < 3 {
        return response;
    }
    let name = StrBytes::from_static_str("metadata.version");
    response
        .with_supported_features(vec![
            SupportedFeatureKey::default()
                .with_name(name.clone())
                .with_min_version(1)
                .with_max_version(METADATA_VERSION),
        ])
        // Java accepts features only if their epoch is above its initial -1.
        .with_finalized_features_epoch(0)
        .with_finalized_features(vec![
            FinalizedFeatureKey::default()
                .with_name(name)
                .with_min_version_level(METADATA_VERSION)
                .with_max_version_level(METADATA_VERSION),
        ])
}

fn api_version(api: &versions::Supported) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.min)
        .with_max_version(api.max)
}

/// Whether a text is `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for (name, legal) in [
            ("apache-kafka-java", true),
            ("4.3.0", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(is_software_name(name), legal, "{name:?}");
        }
    }

    #[test]
    fn a_newer_version_is_answered_in_version_0() {
        let header = Header {
            key: ApiKey::ApiVersions,
            version: 99,
            correlation_id: 7,
            client_id: None,
        };
        let answer = serve(&header, &mut Bytes::from_static(&[0xff; 9])).unwrap();
        let expected = [0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
        assert_eq!(answer[..], expected);
    }

    #[test]
    fn an_illegal_software_name_is_refused_from_version_3_on() {
        let request = ApiVersionsRequest::default();
        assert_eq!(handle(&request, 3).error_code, 42);
        let old = handle(&request, 2);
        assert_eq!(old.error_code, 0);
        assert_eq!(old.api_keys.len(), versions::SUPPORTED.len());
    }
}
