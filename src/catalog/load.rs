//! One table.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use frazil_core::Topic;
use frazil_core::cold::ObjectId;
use futures_util::stream;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;

use super::error::Refusal;
use super::metadata::Unreadable;
use super::route::{Namespace, Query};
use super::{Catalog, NAMESPACE, header_lists};

/// Which snapshots a client wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshots {
    All,
    /// Those that a branch or a tag names.
    Refs,
}

impl Catalog {
    /// Answers a table's metadata, the object that holds it, and what is needed to read its files.
    pub(super) async fn load(
        &self,
        topic: &Topic,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let snapshots = match query.get("snapshots") {
            None | Some("" | "all") => Snapshots::All,
            Some("refs") => Snapshots::Refs,
            Some(_) => return Err(Refusal::bad_request("snapshots is neither all nor refs")),
        };
        let wants = |mechanism| header_lists(headers, "x-iceberg-access-delegation", mechanism);
        let readers = &self.parts.readers;
        let delegated = wants("vended-credentials").then(|| readers.delegated());
        let config = delegated.flatten().unwrap_or_default();

        let gone = || Refusal::no_table(&Namespace::parse(NAMESPACE), topic.name.as_str());
        let mut missing = None;
        loop {
            let table = self.parts.source.table(topic.id).ok_or_else(gone)?;
            let object = table.pointer.map(|pointer| pointer.metadata);
            let tag = etag(topic, object, snapshots, config.get("s3.access-key-id"));
            if is_current(headers, &tag) {
                return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
            }
            let metadata = match table.pointer {
                None => self.empty(topic),
                Some(pointer) => match self.metadata(topic.id, pointer).await {
                    Ok(bytes) => bytes,
                    Err(Unreadable::Other(refusal)) => return Err(refusal),
                    Err(Unreadable::Missing) if missing == object => {
                        return Err(Refusal::damaged(format_args!(
                            "the metadata of table {} is not in the object store",
                            topic.name
                        )));
                    }
                    // It may have been replaced, and collected, since the image was asked.
                    Err(Unreadable::Missing) => {
                        missing = object;
                        self.barrier().await?;
                        continue;
                    }
                },
            };
            let metadata = match snapshots {
                Snapshots::All => metadata,
                Snapshots::Refs => with_refs_only(&metadata)?,
            };
            let location = object.map(|object| self.metadata_location(topic.id, object));
            let config = json!(config);
            return Ok(answer(location.as_deref(), metadata, &config, tag));
        }
    }
}

/// The answer in three pieces, so that metadata is sent from where it is kept.
fn answer(location: Option<&str>, metadata: Bytes, config: &Value, tag: String) -> Response {
    let before = match location {
        Some(location) => format!(r#"{{"metadata-location":{},"metadata":"#, json!(location)),
        None => r#"{"metadata":"#.to_owned(),
    };
    let after = format!(r#","config":{config}}}"#);
    let length = before.len() + metadata.len() + after.len();
    let pieces = [Bytes::from(before), metadata, Bytes::from(after)];
    let pieces = stream::iter(pieces.map(Ok::<Bytes, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ETAG, tag),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Names the version of a table, and what else decides how the answer looks.
fn etag(
    topic: &Topic,
    object: Option<ObjectId>,
    snapshots: Snapshots,
    credentials: Option<&String>,
) -> String {
    let version = object.map_or_else(|| format!("empty-{}", topic.id), |id| id.to_string());
    let snapshots = match snapshots {
        Snapshots::All => "all",
        Snapshots::Refs => "refs",
    };
    let credentials = credentials.map_or(0, |id| crc32c::crc32c(id.as_bytes()));
    format!("\"{version}-{snapshots}-{credentials:08x}\"")
}

/// Whether the client says that it has this version (RFC 9110, section 13.1.2).
fn is_current(headers: &HeaderMap, tag: &str) -> bool {
    let name = header::IF_NONE_MATCH.as_str();
    [tag, &format!("W/{tag}"), "*"]
        .iter()
        .any(|wanted| header_lists(headers, name, wanted))
}

/// The metadata without snapshots that no branch or tag names.
fn with_refs_only(metadata: &[u8]) -> Result<Bytes, Refusal> {
    let damaged = |_| Refusal::damaged("a table's metadata is no JSON");
    let mut table: Value = serde_json::from_slice(metadata).map_err(damaged)?;
    let refs = table["refs"].as_object().into_iter().flatten();
    let named: BTreeSet<i64> = refs
        .filter_map(|(_, reference)| reference["snapshot-id"].as_i64())
        .collect();
    if let Some(snapshots) = table["snapshots"].as_array_mut() {
        let id = |snapshot: &Value| snapshot["snapshot-id"].as_i64();
        snapshots.retain(|snapshot| id(snapshot).is_some_and(|id| named.contains(&id)));
    }
    Ok(Bytes::from(table.to_string()))
}
