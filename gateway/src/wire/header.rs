//! The request header, versions 1 and 2.
//!
//! ```text
//! api key i16 | api version i16 | correlation id i32 | client id nullable string | tags (v2)
//! ```
//!
//! The client id is a classic string in both versions. Version 2 comes with the API's first
//! flexible version (KIP-482).

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use super::layout;
use super::reader::{Malformed, Reader};
use crate::context::Header;
use crate::versions;

/// Why a frame's header leads nowhere. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The API does not exist, is not served, or not in this version.
    #[error("API key {key}, version {version} is not served")]
    Unsupported {
        /// As sent.
        key: i16,
        /// As sent.
        version: i16,
    },
    /// Not a header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] Malformed),
}

/// Reads the header of a request that is served; answers it with the body.
///
/// Of an ApiVersions request in a version that is not served only the fixed fields are read, and
/// its body is empty: it shall be answered all the same.
pub fn parse(frame: &Bytes) -> Result<(Header, Bytes), HeaderError> {
    let mut reader = Reader::new(frame);
    let key = reader.i16()?;
    let version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let unsupported = HeaderError::Unsupported { key, version };
    let api = ApiKey::try_from(key).map_err(|()| unsupported)?;
    if !versions::is_served(api, version) {
        if api != ApiKey::ApiVersions {
            return Err(unsupported);
        }
        let header = Header {
            key: api,
            version,
            correlation_id,
            client_id: None,
        };
        return Ok((header, Bytes::new()));
    }
    let client_id = match reader.string(false)? {
        None => None,
        Some(text) => {
            Some(StrBytes::from_utf8(frame.slice_ref(text)).map_err(|_| Malformed::Utf8)?)
        }
    };
    let flexible = layout::of(api).is_some_and(|layout| layout.is_flexible(version));
    if flexible {
        reader.tagged(|_, _| Ok(()))?;
    }
    let header = Header {
        key: api,
        version,
        correlation_id,
        client_id,
    };
    Ok((header, frame.slice(reader.position()..)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn agrees_with_the_codec_for_every_api_and_version() {
        for api in versions::SUPPORTED {
            for version in api.min..=api.max {
                let expected = RequestHeader::default()
                    .with_request_api_key(api.key as i16)
                    .with_request_api_version(version)
                    .with_correlation_id(77)
                    .with_client_id(Some(StrBytes::from_static_str("me")));
                let mut bytes = BytesMut::new();
                expected
                    .encode(&mut bytes, api.key.request_header_version(version))
                    .unwrap();
                bytes.extend_from_slice(b"body");
                let parsed = parse(&bytes.freeze());
                if api.key == ApiKey::Produce && version < versions::PRODUCE_MIN {
                    assert!(parsed.is_err());
                    continue;
                }
                let (header, body) = parsed.unwrap();
                assert_eq!(
                    (header.key, header.version, header.correlation_id),
                    (api.key, version, 77)
                );
                assert_eq!(header.client_id.as_deref(), Some("me"));
                assert_eq!(&body[..], b"body", "{api:?} {version}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let refused = |bytes: &'static [u8]| parse(&Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(refused(b""), HeaderError::Malformed(Malformed::Truncated));
        assert_eq!(
            refused(b"\0\x03"),
            HeaderError::Malformed(Malformed::Truncated)
        );
        assert_eq!(
            refused(b"\0\x7b\0\0\0\0\0\x01\0\0"),
            HeaderError::Unsupported {
                key: 123,
                version: 0
            }
        );
        assert_eq!(
            refused(b"\0\x3c\0\x63\0\0\0\x01\xff\xff"),
            HeaderError::Unsupported {
                key: 60,
                version: 99
            }
        );
        assert_eq!(
            refused(b"\0\x12\0\0\0\0\0\x01\0\x05ab"),
            HeaderError::Malformed(Malformed::Truncated)
        );
        assert_eq!(
            refused(b"\0\x12\0\0\0\0\0\x01\0\x01\xff"),
            HeaderError::Malformed(Malformed::Utf8)
        );
    }

    #[test]
    fn api_versions_of_the_future_keeps_its_correlation_id() {
        let (header, body) = parse(&Bytes::from_static(b"\0\x12\0\x63\0\0\0\x09\xff")).unwrap();
        assert_eq!((header.version, header.correlation_id), (99, 9));
        assert!(body.is_empty());
    }
}
