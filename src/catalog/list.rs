//! The catalog's configuration, and lists of namespaces and tables.

use std::sync::Arc;

use axum::response::Response;
use frazil_core::{Topic, TopicName};
use serde_json::{Value, json};

use super::error::Refusal;
use super::route::{Namespace, Query};
use super::{Catalog, NAMESPACE, answer};

/// What the catalog serves, in the specification's words.
const ENDPOINTS: [&str; 8] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
    "GET /v1/{prefix}/namespaces/{namespace}/views",
];
/// Names on a page, if the client does not say.
const PAGE: usize = 1000;
/// Names on a page at most.
const PAGE_MAX: usize = 10_000;

impl Catalog {
    /// There is one warehouse. A client may call it by the catalog's name, the cluster's id or its
    /// location; another name is a mistake that should not look like an empty catalog.
    pub(super) fn config(&self, query: &Query) -> Result<Response, Refusal> {
        let warehouse = query.get("warehouse").unwrap_or_default();
        let location = &self.parts.location;
        let known = ["", NAMESPACE, &self.parts.source.cluster_id(), location];
        if !known.contains(&warehouse.trim_end_matches('/')) {
            return Err(Refusal::bad_request(format_args!(
                "there is no such warehouse; this catalog has one, {NAMESPACE}"
            )));
        }
        Ok(answer::ok(&json!({
            "defaults": self.parts.readers.defaults(),
            "overrides": {},
            "endpoints": ENDPOINTS,
        })))
    }

    pub(super) fn namespaces(&self, query: &Query) -> Result<Response, Refusal> {
        let namespaces = match query.get("parent").unwrap_or_default() {
            "" => json!([[NAMESPACE]]),
            parent => {
                Namespace::parse(parent).existing()?;
                json!([])
            }
        };
        Ok(answer::ok(
            &json!({"namespaces": namespaces, "next-page-token": null}),
        ))
    }

    pub(super) fn tables(&self, namespace: &Namespace, query: &Query) -> Result<Response, Refusal> {
        namespace.existing()?;
        let page = Page::parse(query)?;
        let broker = self.broker_settings();
        let topics = self.parts.source.topics();
        let tables = topics.iter().filter(|topic| self.is_table(topic, &broker));
        let (tables, next) = page.cut(tables);
        let identifier =
            |topic: &Arc<Topic>| json!({"namespace": [NAMESPACE], "name": topic.name.as_str()});
        let tables: Vec<Value> = tables.into_iter().map(identifier).collect();
        Ok(answer::ok(
            &json!({"identifiers": tables, "next-page-token": next}),
        ))
    }
}

/// Which part of a list a client wants. Tokens are the last name of the page before, so that topics
/// that come and go meanwhile move no others.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    after: Option<TopicName>,
    size: usize,
}

impl Page {
    /// A client that sends no token wants everything.
    fn parse(query: &Query) -> Result<Self, Refusal> {
        let size = match query.get("pageSize") {
            None => PAGE,
            Some(text) => match text.parse::<u32>() {
                Ok(size @ 1..) => PAGE_MAX.min(size as usize),
                _ => return Err(Refusal::bad_request("pageSize is not a positive number")),
            },
        };
        let (after, size) = match query.get("pageToken") {
            None => (None, usize::MAX),
            Some("") => (None, size),
            Some(token) => {
                let name = token.strip_prefix("after:").map(TopicName::new);
                let Some(Ok(name)) = name else {
                    return Err(Refusal::bad_request("pageToken is not one of this catalog"));
                };
                (Some(name), size)
            }
        };
        Ok(Self { after, size })
    }

    /// The page of `topics`, which are sorted by name, and the token of the next one.
    fn cut<'a>(
        &self,
        topics: impl Iterator<Item = &'a Arc<Topic>>,
    ) -> (Vec<&'a Arc<Topic>>, Option<String>) {
        let mut rest = topics
            .skip_while(|topic| {
                self.after
                    .as_ref()
                    .is_some_and(|after| topic.name <= *after)
            })
            .peekable();
        let page: Vec<_> = rest.by_ref().take(self.size).collect();
        let last = page.last().filter(|_| rest.peek().is_some());
        let next = last.map(|topic| format!("after:{}", topic.name));
        (page, next)
    }
}
