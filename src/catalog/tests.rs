//! The catalog over a store in memory and an image that the test makes up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{Table, TablePointer};
use frazil_core::{PortError, PortResult, Topic, TopicId, TopicName};
use frazil_objects::Retries;
use frazil_table::iceberg::{Commit, TableMetadata};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Catalog, Metrics, Parts, Readers, Source};

/// An image.
#[derive(Default)]
struct Image {
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
    tables: Mutex<BTreeMap<TopicId, Table>>,
    /// What the next barrier brings.
    news: Mutex<Vec<(TopicId, Table)>>,
    barriers: AtomicUsize,
    alone: AtomicBool,
}

#[async_trait]
impl Source for Image {
    fn cluster_id(&self) -> String {
        "cluster-1".to_owned()
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.lock().get(name).cloned()
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.lock().values().cloned().collect()
    }

    fn broker_config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        self.tables.lock().get(&topic).cloned()
    }

    async fn barrier(&self) -> PortResult<()> {
        if self.alone.load(Ordering::Relaxed) {
            return Err(PortError::Unavailable("no leader".to_owned()));
        }
        // The first of a request brings nothing: a test that wants news in the middle of one waits.
        let barriers = self.barriers.fetch_add(1, Ordering::Relaxed);
        if barriers % 2 == 1 {
            self.tables.lock().extend(self.news.lock().drain(..));
        }
        Ok(())
    }
}

struct Rig {
    image: Arc<Image>,
    store: Arc<InMemory>,
    catalog: Catalog,
}

const PREFIX: &str = "cluster-1";
const LOCATION: &str = "s3://bucket/kafka/cluster-1";

impl Rig {
    fn new(readers: Readers) -> Self {
        let (image, store) = (Arc::new(Image::default()), Arc::new(InMemory::new()));
        let catalog = Catalog::new(Parts {
            source: image.clone(),
            store: store.clone(),
            retries: Retries::new(Arc::new(SeededIds::new(1)), Default::default()),
            prefix: Path::from(PREFIX),
            location: LOCATION.to_owned(),
            readers,
            broker_defaults: BTreeMap::new(),
            cache_bytes: 1 << 20,
            metrics: Metrics::default(),
        });
        Self {
            image,
            store,
            catalog,
        }
    }

    /// A topic; its id follows from its name.
    fn topic(&self, name: &str, mode: &str) -> TopicId {
        let id = TopicId::new(Uuid::from_u128(0x100 + name.len() as u128));
        self.topic_with(id, name, mode)
    }

    fn topic_with(&self, id: TopicId, name: &str, mode: &str) -> TopicId {
        let config = BTreeMap::from([("frazil.table.mode".to_owned(), mode.to_owned())]);
        let topic = Topic {
            id,
            name: TopicName::new(name).unwrap(),
            partitions: 3,
            replication_factor: 1,
            config,
            created_ms: 1_700_000_000_000,
        };
        let mut topics = self.image.topics.lock();
        topics.insert(name.to_owned(), Arc::new(topic));
        self.image.tables.lock().insert(id, Table::default());
        id
    }

    /// A table with `snapshots` snapshots, written but not pointed at.
    async fn write(&self, topic: TopicId, snapshots: u64) -> (Table, Vec<u8>) {
        let location = format!("{LOCATION}/tables/{topic}");
        let mut table = TableMetadata::new(topic.to_string(), location, 1_700_000_000_000);
        let mut last = (ObjectId::new(0, 0), Vec::new());
        for claim in 1..=snapshots {
            let next = ObjectId::new(claim, 0);
            let commit = Commit {
                table: &table,
                manifests: Vec::new(),
                add: Vec::new(),
                remove: BTreeSet::new(),
                snapshot: claim as i64,
                now_ms: 1_700_000_000_000 + claim as i64,
                summary: Default::default(),
                next,
            };
            let committed = commit.finish().unwrap();
            for (location, bytes) in &committed.objects {
                let key = location.strip_prefix(LOCATION).unwrap();
                let path = Path::from(format!("{PREFIX}{key}"));
                self.store.put(&path, bytes.clone().into()).await.unwrap();
                let (_, object) = TableObject::parse(&key[1..]).unwrap();
                if let TableObject::Metadata(id) = object {
                    last = (id, bytes.to_vec());
                }
            }
            table = committed.table;
        }
        let pointer = TablePointer {
            metadata: last.0,
            length: last.1.len() as u32,
            crc: crc32c::crc32c(&last.1),
        };
        let table = Table {
            pointer: Some(pointer),
            ..Table::default()
        };
        (table, last.1)
    }

    /// The same, pointed at.
    async fn convert(&self, topic: TopicId, snapshots: u64) -> Vec<u8> {
        let (table, bytes) = self.write(topic, snapshots).await;
        self.image.tables.lock().insert(topic, table);
        bytes
    }

    /// Where the metadata is that the image points at.
    fn key(&self, topic: TopicId) -> String {
        let table = self.image.table(topic).unwrap();
        TableObject::Metadata(table.pointer.unwrap().metadata).key(topic)
    }

    async fn send(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let (head, body) = self.catalog.answer(request).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, head.headers, body.to_vec())
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        let (status, _, body) = self.send("GET", uri, &[], b"").await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }
}

const TABLE: &str = "/v1/namespaces/frazil/tables/orders";

fn error(status: u16, kind: &str, body: &Value) {
    assert_eq!(body["error"]["code"], status, "{body}");
    assert_eq!(body["error"]["type"], kind, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
}

#[tokio::test]
async fn a_client_learns_what_there_is() {
    let rig = Rig::new(Readers {
        region: Some("mars-1".to_owned()),
        endpoint: Some("http://store:9000".to_owned()),
        path_style: true,
        credentials: Some(("id".to_owned(), "secret".to_owned())),
    });
    let (status, config) = rig.get("/v1/config").await;
    assert_eq!(status, 200);
    assert_eq!(config["overrides"], json!({}));
    let defaults = json!({
        "s3.endpoint": "http://store:9000", "s3.region": "mars-1", "client.region": "mars-1",
        "s3.path-style-access": "true",
    });
    assert_eq!(config["defaults"], defaults);
    let endpoints = config["endpoints"].as_array().unwrap();
    assert!(endpoints.contains(&json!(
        "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}"
    )));
    for warehouse in [
        "",
        "frazil",
        "cluster-1",
        "s3%3A%2F%2Fbucket%2Fkafka%2Fcluster-1%2F",
    ] {
        let (status, _) = rig.get(&format!("/v1/config?warehouse={warehouse}")).await;
        assert_eq!(status, 200, "{warehouse}");
    }
    let (_, other) = rig.get("/v1/config?warehouse=other").await;
    error(400, "BadRequestException", &other);

    let (_, namespaces) = rig.get("/v1/namespaces").await;
    assert_eq!(namespaces["namespaces"], json!([["frazil"]]));
    let (_, below) = rig.get("/v1/namespaces?parent=frazil").await;
    assert_eq!(below["namespaces"], json!([]));
    let (_, unknown) = rig.get("/v1/namespaces?parent=frazil%1Fx").await;
    error(404, "NoSuchNamespaceException", &unknown);
    let (_, namespace) = rig.get("/v1/namespaces/frazil").await;
    assert_eq!(namespace["namespace"], json!(["frazil"]));
    let (_, unknown) = rig.get("/v1/namespaces/other").await;
    error(404, "NoSuchNamespaceException", &unknown);
    let (status, _, body) = rig.send("HEAD", "/v1/namespaces/frazil", &[], b"").await;
    assert_eq!((status.as_u16(), body.len()), (204, 0));
    let (_, views) = rig.get("/v1/namespaces/frazil/views").await;
    assert_eq!(views["identifiers"], json!([]));
    let (_, view) = rig.get("/v1/namespaces/frazil/views/v").await;
    error(404, "NoSuchViewException", &view);
}

#[tokio::test]
async fn every_topic_that_becomes_a_table_is_listed_page_by_page() {
    let rig = Rig::new(Readers::default());
    for name in ["a", "b.b", "c-c_c"] {
        rig.topic(name, "shared");
    }
    rig.topic("copied", "copy");
    rig.topic("hidden", "off");
    // What was converted before it was switched off stays.
    let left = rig.topic("left-over", "off");
    rig.convert(left, 1).await;
    let names = |body: &Value| -> Vec<String> {
        let tables = body["identifiers"].as_array().unwrap().iter();
        tables
            .map(|table| {
                assert_eq!(table["namespace"], json!(["frazil"]));
                table["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let all = ["a", "b.b", "c-c_c", "copied", "left-over"];
    let list = "/v1/namespaces/frazil/tables";
    for uri in [list.to_owned(), format!("{list}?pageSize=2")] {
        let (_, body) = rig.get(&uri).await;
        assert_eq!(names(&body), all);
        assert_eq!(body["next-page-token"], Value::Null);
    }
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let (_, body) = rig
            .get(&format!("{list}?pageToken={token}&pageSize=2"))
            .await;
        paged.extend(names(&body));
        match body["next-page-token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
        // Later pages lose nothing when topics of earlier ones go.
        rig.image.topics.lock().remove("a");
    }
    assert_eq!(paged, all);
    for wrong in [
        "pageSize=0",
        "pageSize=x",
        "pageToken=x",
        "pageToken=after:%2F",
    ] {
        let (_, body) = rig.get(&format!("{list}?{wrong}")).await;
        error(400, "BadRequestException", &body);
    }
    let (_, body) = rig.get("/v1/namespaces/other/tables").await;
    error(404, "NoSuchNamespaceException", &body);
    let (_, body) = rig.get("/v1/namespaces/frazil/tables/hidden").await;
    error(404, "NoSuchTableException", &body);
    let (status, left) = rig.get("/v1/namespaces/frazil/tables/left-over").await;
    assert_eq!(
        (status, &left["metadata"]["current-snapshot-id"]),
        (200, &json!(1))
    );
}

#[tokio::test]
async fn a_topic_of_which_nothing_was_converted_is_an_empty_table() {
    let rig = Rig::new(Readers::default());
    let id = rig.topic("orders", "shared");
    let (status, table) = rig.get(TABLE).await;
    assert_eq!(status, 200);
    let metadata = &table["metadata"];
    assert_eq!(metadata["table-uuid"], id.to_string());
    assert_eq!(metadata["location"], format!("{LOCATION}/tables/{id}"));
    assert_eq!(metadata["snapshots"], json!([]));
    let default = &metadata["default-spec-id"];
    let specs = metadata["partition-specs"].as_array().unwrap();
    let spec = specs
        .iter()
        .find(|spec| spec["spec-id"] == *default)
        .unwrap();
    assert_eq!(spec["fields"][0]["transform"], "day");
    assert_eq!(table.get("metadata-location"), None);
    assert_eq!(table["config"], json!({}));
    // The same table goes on when there is something in it.
    rig.convert(id, 1).await;
    let (_, later) = rig.get(TABLE).await;
    for constant in ["table-uuid", "location", "schemas"] {
        assert_eq!(
            later["metadata"][constant], metadata[constant],
            "{constant}"
        );
    }
}

#[tokio::test]
async fn a_topic_that_is_created_again_is_another_table() {
    let rig = Rig::new(Readers::default());
    let old = rig.topic("orders", "shared");
    rig.convert(old, 2).await;
    let (_, headers, _) = rig.send("GET", TABLE, &[], b"").await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    rig.image.topics.lock().clear();
    rig.image.tables.lock().clear();
    let (_, body) = rig.get(TABLE).await;
    error(404, "NoSuchTableException", &body);
    let new = rig.topic_with(TopicId::new(Uuid::from_u128(0x999)), "orders", "shared");
    // Nobody is told that what he has is current, or given what was kept of the old one.
    let known = ("If-None-Match", tag.as_str());
    let (status, _, body) = rig.send("GET", TABLE, &[known], b"").await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(table["metadata"]["table-uuid"], new.to_string());
    assert_eq!(
        table["metadata"]["location"],
        format!("{LOCATION}/tables/{new}")
    );
    assert_eq!(table["metadata"]["snapshots"], json!([]));
}

#[tokio::test]
async fn a_table_is_what_the_store_holds() {
    let rig = Rig::new(Readers::default());
    let id = rig.topic("orders", "shared");
    let bytes = rig.convert(id, 3).await;
    let (status, headers, body) = rig.send("GET", TABLE, &[], b"").await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-length"], body.len().to_string());
    let metadata = br#","metadata":"#;
    let start = body
        .windows(metadata.len())
        .position(|w| w == metadata)
        .unwrap()
        + metadata.len();
    assert_eq!(body[start..start + bytes.len()], bytes);
    let table: Value = serde_json::from_slice(&body).unwrap();
    let key = rig.key(id);
    assert_eq!(table["metadata-location"], format!("{LOCATION}/{key}"));
    assert_eq!(table["metadata"]["snapshots"].as_array().unwrap().len(), 3);

    let (_, refs) = rig.get(&format!("{TABLE}?snapshots=refs")).await;
    let kept = refs["metadata"]["snapshots"].as_array().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        kept[0]["snapshot-id"],
        table["metadata"]["current-snapshot-id"]
    );
    let (_, wrong) = rig.get(&format!("{TABLE}?snapshots=some")).await;
    error(400, "BadRequestException", &wrong);

    let (status, _, body) = rig.send("HEAD", TABLE, &[], b"").await;
    assert_eq!((status.as_u16(), body.len()), (204, 0));
    for (table, namespace) in [
        ("other", "frazil"),
        ("orders", "other"),
        ("snapshots", "frazil%1Forders"),
    ] {
        let uri = format!("/v1/namespaces/{namespace}/tables/{table}");
        let (_, body) = rig.get(&uri).await;
        error(404, "NoSuchTableException", &body);
    }
    // One object was read once.
    assert_eq!(rig.catalog.parts.metrics.fetched.get(), 1);
}

#[tokio::test]
async fn a_client_that_has_the_version_gets_no_body() {
    let rig = Rig::new(Readers {
        credentials: Some(("id".to_owned(), "secret".to_owned())),
        ..Readers::default()
    });
    let id = rig.topic("orders", "shared");
    let mut tags = BTreeSet::new();
    for snapshots in 0..3 {
        if snapshots > 0 {
            rig.convert(id, snapshots).await;
        }
        for uri in [TABLE.to_owned(), format!("{TABLE}?snapshots=refs")] {
            for delegation in ["remote-signing", "remote-signing,vended-credentials"] {
                let asked = ("X-Iceberg-Access-Delegation", delegation);
                let (status, headers, _) = rig.send("GET", &uri, &[asked], b"").await;
                assert_eq!(status, 200);
                let tag = headers["etag"].to_str().unwrap().to_owned();
                for (sent, expected) in [
                    (tag.clone(), 304),
                    (format!("\"x\", W/{tag}"), 304),
                    ("\"x\"".to_owned(), 200),
                ] {
                    let known = ("If-None-Match", sent.as_str());
                    let (status, headers, body) = rig.send("GET", &uri, &[asked, known], b"").await;
                    assert_eq!(status, expected, "{sent}");
                    assert_eq!(headers["etag"], tag.as_str());
                    assert_eq!(body.is_empty(), expected == 304);
                }
                assert!(tags.insert(tag), "two versions have one tag");
            }
        }
    }
}

#[tokio::test]
async fn credentials_are_given_to_those_who_ask_if_the_operator_says_so() {
    let readers = Readers {
        endpoint: Some("http://store:9000".to_owned()),
        path_style: true,
        credentials: Some(("id".to_owned(), "secret".to_owned())),
        ..Readers::default()
    };
    assert!(!format!("{readers:?}").contains("secret"));
    let asked = ("X-Iceberg-Access-Delegation", "vended-credentials");
    for (readers, header, given) in [
        (readers.clone(), Some(asked), true),
        (readers.clone(), None, false),
        (
            Readers {
                credentials: None,
                ..readers
            },
            Some(asked),
            false,
        ),
    ] {
        let rig = Rig::new(readers);
        rig.topic("orders", "shared");
        let headers: Vec<_> = header.into_iter().collect();
        let (_, _, body) = rig.send("GET", TABLE, &headers, b"").await;
        let table: Value = serde_json::from_slice(&body).unwrap();
        let expected = match given {
            true => json!({
                "s3.endpoint": "http://store:9000", "s3.path-style-access": "true",
                "s3.access-key-id": "id", "s3.secret-access-key": "secret",
            }),
            false => json!({}),
        };
        assert_eq!(table["config"], expected);
        let (_, config) = rig.get("/v1/config").await;
        assert!(!config.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn metadata_that_is_damaged_or_missing_is_an_error_and_nothing_older() {
    let rig = Rig::new(Readers::default());
    let id = rig.topic("orders", "shared");
    let bytes = rig.convert(id, 2).await;
    let path = Path::from(format!("{PREFIX}/{}", rig.key(id)));
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    let longer = [&bytes[..], b" "].concat();
    for damaged in [&flipped[..], &longer, &bytes[..bytes.len() - 1], b""] {
        rig.store.put(&path, damaged.to_vec().into()).await.unwrap();
        let (status, body) = rig.get(TABLE).await;
        assert_eq!(status, 500);
        error(500, "InternalServerError", &body);
    }
    rig.store.delete(&path).await.unwrap();
    let (_, body) = rig.get(TABLE).await;
    error(500, "InternalServerError", &body);
    rig.store.put(&path, bytes.into()).await.unwrap();
    let (status, _) = rig.get(TABLE).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn metadata_that_is_replaced_and_collected_meanwhile_is_looked_up_again() {
    let rig = Rig::new(Readers::default());
    let id = rig.topic("orders", "shared");
    rig.convert(id, 1).await;
    let path = Path::from(format!("{PREFIX}/{}", rig.key(id)));
    let (next, _) = rig.write(id, 2).await;
    rig.store.delete(&path).await.unwrap();
    rig.image.news.lock().push((id, next));
    let (status, table) = rig.get(TABLE).await;
    assert_eq!(
        (status, &table["metadata"]["current-snapshot-id"]),
        (200, &json!(2))
    );
}

#[tokio::test]
async fn without_the_quorum_there_is_no_answer() {
    let rig = Rig::new(Readers::default());
    rig.topic("orders", "shared");
    rig.image.alone.store(true, Ordering::Relaxed);
    for uri in [
        TABLE,
        "/v1/namespaces/frazil/tables",
        "/v1/namespaces/frazil",
    ] {
        let (status, headers, body) = rig.send("GET", uri, &[], b"").await;
        assert_eq!(status, 503);
        assert!(headers.contains_key("retry-after"));
        let body = serde_json::from_slice(&body).unwrap();
        error(503, "ServiceUnavailableException", &body);
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let rig = Rig::new(Readers::default());
    rig.topic("orders", "shared");
    for (method, uri) in [
        ("POST", "/v1/namespaces"),
        ("DELETE", "/v1/namespaces/frazil"),
        ("POST", "/v1/namespaces/frazil/properties"),
        ("POST", "/v1/namespaces/frazil/tables"),
        ("POST", "/v1/namespaces/frazil/register"),
        ("POST", TABLE),
        ("DELETE", TABLE),
        (
            "DELETE",
            "/v1/namespaces/frazil/tables/orders?purgeRequested=true",
        ),
        ("POST", "/v1/tables/rename"),
        ("POST", "/v1/transactions/commit"),
        ("POST", "/v1/namespaces/frazil/views"),
        ("PUT", TABLE),
    ] {
        let (status, _, body) = rig.send(method, uri, &[], b"{\"x\":1}").await;
        assert_eq!(status, 403, "{method} {uri}");
        let body = serde_json::from_slice(&body).unwrap();
        error(403, "ForbiddenException", &body);
    }
    for (method, uri) in [
        ("GET", "/v1/tables/rename"),
        ("POST", "/v1/config"),
        ("GET", "/v1/oauth/tokens"),
    ] {
        let (status, _, body) = rig.send(method, uri, &[], b"").await;
        assert_eq!(status, 405, "{method} {uri}");
        let body = serde_json::from_slice(&body).unwrap();
        error(405, "UnsupportedOperationException", &body);
    }
    let (status, _, body) = rig
        .send(
            "POST",
            "/v1/oauth/tokens",
            &[],
            b"grant_type=client_credentials",
        )
        .await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("unsupported_grant_type"))
    );
}

#[tokio::test]
async fn reports_of_metrics_are_accepted_and_dropped() {
    let rig = Rig::new(Readers::default());
    rig.topic("orders", "shared");
    let uri = format!("{TABLE}/metrics");
    let (status, _, _) = rig.send("POST", &uri, &[], b"{}").await;
    assert_eq!(status, 204);
    let other = "/v1/namespaces/frazil/tables/other/metrics";
    let (status, _, _) = rig.send("POST", other, &[], b"{}").await;
    assert_eq!(status, 404);
    let (status, _, _) = rig
        .send("POST", &uri, &[], &vec![b' '; (1 << 20) + 1])
        .await;
    assert_eq!(status, 413);
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("v1".to_owned()),
        Just("config".to_owned()),
        Just("namespaces".to_owned()),
        Just("frazil".to_owned()),
        Just("tables".to_owned()),
        Just("orders".to_owned()),
        Just("metrics".to_owned()),
        Just("..".to_owned()),
        Just("%2e%2e%2f".to_owned()),
        Just("%00".to_owned()),
        Just("%".to_owned()),
        "[!-~&&[^/?#<>\"`{}|\\\\^\\[\\]]]{0,12}",
        "(%[0-9A-F]{2}){0,6}",
    ]
}

proptest! {
    /// Whatever is asked, the answer is JSON, or nothing, and not the catalog's fault; and nothing
    /// that anybody asks reaches the store, except for the table's metadata.
    #[test]
    fn any_request_is_answered(
        method in prop_oneof![
            Just("GET"), Just("HEAD"), Just("POST"), Just("PUT"), Just("DELETE"), Just("PATCH"),
            Just("OPTIONS"), Just("NONSENSE"),
        ],
        pieces in prop::collection::vec(piece(), 0..8),
        below in any::<bool>(),
        query in prop::option::of("[!-~&&[^#<>\"`{}|\\\\^\\[\\]]]{0,40}"),
        header in prop::collection::vec((0..4usize, "[ -~]{0,40}"), 0..3),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let path = pieces.join("/");
        let path = if below { format!("/v1/namespaces/{path}") } else { format!("/{path}") };
        let uri = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        prop_assume!(uri.parse::<axum::http::Uri>().is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new(Readers::default());
            let id = rig.topic("orders", "shared");
            rig.convert(id, 1).await;
            let names = ["If-None-Match", "X-Iceberg-Access-Delegation", "Accept", "Authorization"];
            let headers: Vec<_> = header
                .iter()
                .map(|(name, value)| (names[*name], value.as_str()))
                .collect();
            let (status, _, answer) = rig.send(method, &uri, &headers, &body).await;
            prop_assert!(!status.is_server_error(), "{method} {uri}: {status}");
            if !answer.is_empty() {
                let parsed: Result<Value, _> = serde_json::from_slice(&answer);
                prop_assert!(parsed.is_ok(), "{method} {uri}");
            }
            Ok(())
        })?;
    }
}
