//! The publisher over a store in memory and a catalog that does what the specification says, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::TablePointer;
use frazil_core::topic_config::PartitionBy;
use frazil_core::{Topic, TopicId, TopicName};
use frazil_objects::Retries;
use frazil_table::iceberg::{Commit, TableMetadata};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::external::{External, ExternalError};
use super::plan::{Plan, plan};
use super::{Image, PublishParts, Publisher};
use crate::Metrics;

const LOCATION: &str = "s3://bucket/cluster";

/// The other catalog.
#[derive(Default)]
struct Shelf {
    tables: Mutex<BTreeMap<String, Value>>,
    namespace: Mutex<bool>,
    /// What becomes of the next commits.
    fate: Mutex<Vec<Fate>>,
    /// Commits that were asked for.
    commits: Mutex<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It is not done.
    Fails,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// Specs get other numbers.
    Renumbers,
}

fn ids(table: &Value, all: &str, id: &str) -> Vec<i64> {
    let all = table[all].as_array().unwrap().iter();
    all.map(|one| one[id].as_i64().unwrap()).collect()
}

impl Shelf {
    fn table(&self) -> Value {
        self.tables.lock()["orders"].clone()
    }

    fn snapshots(&self) -> Vec<i64> {
        ids(&self.table(), "snapshots", "snapshot-id")
    }

    /// As Iceberg's own server does it, as far as these commits need.
    fn apply(table: Option<&Value>, body: &Value) -> Result<Value, ExternalError> {
        let conflict = |what: &str| Err(ExternalError::Conflict(what.to_owned()));
        for requirement in body["requirements"].as_array().unwrap() {
            let holds = match requirement["type"].as_str().unwrap() {
                "assert-create" => table.is_none(),
                "assert-table-uuid" => {
                    table.is_some_and(|t| t["table-uuid"] == requirement["uuid"])
                }
                "assert-ref-snapshot-id" => table.is_some_and(|t| {
                    t["refs"]["main"]["snapshot-id"] == requirement["snapshot-id"]
                }),
                other => panic!("{other}"),
            };
            if !holds {
                return conflict(requirement["type"].as_str().unwrap());
            }
        }
        let mut new = table.cloned().unwrap_or_else(|| {
            json!({"schemas": [], "partition-specs": [], "sort-orders": [], "properties": {},
                "snapshots": [], "refs": {}, "last-sequence-number": 0, "current-snapshot-id": -1})
        });
        for update in body["updates"].as_array().unwrap() {
            let push = |new: &mut Value, to: &str, from: &str| {
                new[to].as_array_mut().unwrap().push(update[from].clone());
            };
            match update["action"].as_str().unwrap() {
                "assign-uuid" => new["table-uuid"] = update["uuid"].clone(),
                "upgrade-format-version" => new["format-version"] = 2.into(),
                "add-schema" => push(&mut new, "schemas", "schema"),
                "add-spec" => {
                    let next = new["partition-specs"].as_array().unwrap().len();
                    let mut spec = update["spec"].clone();
                    spec["spec-id"] = next.into();
                    new["partition-specs"].as_array_mut().unwrap().push(spec);
                }
                "add-sort-order" => push(&mut new, "sort-orders", "sort-order"),
                "set-current-schema" => new["current-schema-id"] = update["schema-id"].clone(),
                "set-default-spec" => new["default-spec-id"] = update["spec-id"].clone(),
                "set-default-sort-order" => {
                    new["default-sort-order-id"] = update["sort-order-id"].clone();
                }
                "set-location" => new["location"] = update["location"].clone(),
                "set-properties" => {
                    let properties = new["properties"].as_object_mut().unwrap();
                    properties.extend(update["updates"].as_object().unwrap().clone());
                }
                "add-snapshot" => {
                    let sequence = &update["snapshot"]["sequence-number"];
                    if sequence.as_i64() <= new["last-sequence-number"].as_i64() {
                        return Err(ExternalError::Refused {
                            status: 400,
                            message: "an old sequence number".to_owned(),
                        });
                    }
                    new["last-sequence-number"] = sequence.clone();
                    push(&mut new, "snapshots", "snapshot");
                }
                "set-snapshot-ref" => {
                    let id = &update["snapshot-id"];
                    assert!(ids(&new, "snapshots", "snapshot-id").contains(&id.as_i64().unwrap()));
                    new["refs"]["main"] = json!({"snapshot-id": id, "type": "branch"});
                    new["current-snapshot-id"] = id.clone();
                }
                "remove-snapshots" => {
                    let gone = update["snapshot-ids"].as_array().unwrap();
                    assert!(!gone.contains(&new["current-snapshot-id"]));
                    let snapshots = new["snapshots"].as_array_mut().unwrap();
                    snapshots.retain(|snapshot| !gone.contains(&snapshot["snapshot-id"]));
                }
                other => panic!("{other}"),
            }
        }
        Ok(new)
    }
}

#[async_trait]
impl External for Shelf {
    async fn load(&self, table: &str) -> Result<Option<Value>, ExternalError> {
        Ok(self.tables.lock().get(table).cloned())
    }

    async fn create_namespace(&self) -> Result<(), ExternalError> {
        *self.namespace.lock() = true;
        Ok(())
    }

    async fn commit(&self, table: &str, body: &Value) -> Result<Value, ExternalError> {
        *self.commits.lock() += 1;
        assert!(*self.namespace.lock());
        let fate = self.fate.lock().pop();
        let unknown = || ExternalError::Unknown("no answer".to_owned());
        if fate == Some(Fate::Fails) {
            return Err(unknown());
        }
        let mut tables = self.tables.lock();
        let mut new = Self::apply(tables.get(table), body)?;
        if fate == Some(Fate::Renumbers) {
            for spec in new["partition-specs"].as_array_mut().unwrap() {
                spec["spec-id"] = (spec["spec-id"].as_i64().unwrap() + 7).into();
            }
        }
        tables.insert(table.to_owned(), new.clone());
        match fate {
            Some(Fate::AnswerLost) => Err(unknown()),
            _ => Ok(new),
        }
    }
}

#[derive(Default)]
struct Topics {
    topics: Mutex<Vec<Arc<Topic>>>,
    pointers: Mutex<BTreeMap<TopicId, TablePointer>>,
}

impl Image for Topics {
    fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.lock().clone()
    }

    fn broker_config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn pointer(&self, topic: TopicId) -> Option<TablePointer> {
        self.pointers.lock().get(&topic).copied()
    }
}

struct Rig {
    image: Arc<Topics>,
    store: Arc<InMemory>,
    shelf: Arc<Shelf>,
    metrics: Metrics,
    publisher: Publisher,
    table: TableMetadata,
    topic: TopicId,
}

impl Rig {
    fn new(mode: &str, by: PartitionBy) -> Self {
        let (image, store, shelf) = <(Arc<Topics>, Arc<InMemory>, Arc<Shelf>)>::default();
        let topic = TopicId::new(Uuid::from_u128(0x11));
        let config = BTreeMap::from([("frazil.table.mode".to_owned(), mode.to_owned())]);
        image.topics.lock().push(Arc::new(Topic {
            id: topic,
            name: TopicName::new("orders").unwrap(),
            partitions: 1,
            replication_factor: 1,
            config,
            created_ms: 0,
        }));
        let location = format!("{LOCATION}/tables/{topic}");
        let mut table = TableMetadata::new(topic.to_string(), location, 1);
        table.set_partition_by(by);
        let metrics = Metrics::default();
        Self {
            publisher: Self::publisher(&image, &store, &shelf, &metrics),
            image,
            store,
            shelf,
            metrics,
            table,
            topic,
        }
    }

    fn publisher(
        image: &Arc<Topics>,
        store: &Arc<InMemory>,
        shelf: &Arc<Shelf>,
        metrics: &Metrics,
    ) -> Publisher {
        let parts = PublishParts {
            image: image.clone(),
            store: store.clone(),
            retries: Retries::new(Arc::new(SeededIds::new(1)), Default::default()),
            prefix: Path::from("cluster"),
            broker_defaults: BTreeMap::new(),
            interval: Duration::from_secs(2),
            metrics: metrics.clone(),
        };
        Publisher::new(parts, shelf.clone())
    }

    /// Another process takes over.
    fn restart(&mut self) {
        self.publisher = Self::publisher(&self.image, &self.store, &self.shelf, &self.metrics);
    }

    /// The table gets another snapshot; of all, the last `keep` are kept.
    async fn snapshot(&mut self, claim: u64, keep: usize) {
        let committed = Commit {
            table: &self.table,
            manifests: Vec::new(),
            add: Vec::new(),
            remove: BTreeSet::new(),
            snapshot: claim as i64,
            now_ms: claim as i64,
            next: ObjectId::new(claim, 0),
            summary: Default::default(),
        };
        self.table = committed.finish().unwrap().table;
        let old = self.table.snapshots.len().saturating_sub(keep);
        self.table.snapshots.drain(..old);
        let id = ObjectId::new(claim, 9);
        let bytes = self.table.encode();
        let pointer = TablePointer {
            metadata: id,
            length: bytes.len() as u32,
            crc: crc32c::crc32c(&bytes),
        };
        let key = TableObject::Metadata(id).key(self.topic);
        let path = Path::from(format!("cluster/{key}"));
        self.store.put(&path, bytes.into()).await.unwrap();
        self.image.pointers.lock().insert(self.topic, pointer);
    }

    /// A round, after everything that rests has rested.
    async fn round(&mut self) {
        tokio::time::advance(super::REST_MAX).await;
        self.publisher.round().await;
    }

    fn ours(&self) -> Value {
        serde_json::from_slice(&self.table.encode()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_is_made_and_follows() {
    for by in [PartitionBy::None, PartitionBy::Day, PartitionBy::Year] {
        let mut rig = Rig::new("copy", by);
        rig.round().await;
        assert!(
            rig.shelf.tables.lock().is_empty(),
            "there is nothing to publish yet"
        );
        rig.snapshot(1, 10).await;
        rig.snapshot(2, 10).await;
        rig.round().await;
        let (ours, theirs) = (rig.ours(), rig.shelf.table());
        for same in [
            "table-uuid",
            "location",
            "schemas",
            "current-schema-id",
            "default-spec-id",
            "sort-orders",
            "snapshots",
            "current-snapshot-id",
        ] {
            assert_eq!(theirs[same], ours[same], "{same}");
        }
        // Nobody else may delete the log.
        assert_eq!(theirs["properties"]["gc.enabled"], "false");
        // Later snapshots follow, and those that have expired go.
        rig.snapshot(3, 10).await;
        rig.round().await;
        assert_eq!(rig.shelf.snapshots(), [1, 2, 3]);
        rig.snapshot(4, 2).await;
        rig.round().await;
        assert_eq!(rig.shelf.snapshots(), [3, 4]);
        // Nothing is asked while nothing changes, and after a restart nothing is committed.
        let commits = *rig.shelf.commits.lock();
        rig.round().await;
        rig.restart();
        rig.round().await;
        assert_eq!(*rig.shelf.commits.lock(), commits);
        assert_eq!(rig.metrics.unpublished.get(), 0);
        assert_eq!(rig.metrics.published.get(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn only_topics_that_say_so_are_published() {
    for mode in ["shared", "off"] {
        let mut rig = Rig::new(mode, PartitionBy::Day);
        rig.snapshot(1, 10).await;
        rig.round().await;
        assert!(rig.shelf.tables.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_failures_and_crashes_change_nothing_in_the_end() {
    // Every sequence of fates of four commits, with and without a crash after each.
    for fates in 0..16u32 {
        for crash in [false, true] {
            let mut rig = Rig::new("copy", PartitionBy::Day);
            for claim in 1..=4 {
                let fate = match fates >> (claim - 1) & 1 {
                    0 => Fate::Fails,
                    _ => Fate::AnswerLost,
                };
                rig.shelf.fate.lock().push(fate);
                rig.snapshot(claim, 2).await;
                rig.round().await;
                assert_eq!(rig.metrics.unpublished.get(), 1);
                if crash {
                    rig.restart();
                }
            }
            rig.round().await;
            assert_eq!(rig.shelf.snapshots(), [3, 4]);
            assert_eq!(rig.shelf.table()["current-snapshot-id"], 4);
            assert_eq!(rig.metrics.unpublished.get(), 0);
            assert_eq!(rig.metrics.publish_failures.get(), 4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_was_away_while_everything_expired_catches_up() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 2).await;
    rig.round().await;
    for claim in 2..=9 {
        rig.snapshot(claim, 2).await;
    }
    rig.round().await;
    assert_eq!(rig.shelf.snapshots(), [8, 9]);
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_in_vain_is_tried_less_and_less() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 2).await;
    *rig.shelf.fate.lock() = vec![Fate::Fails; 1000];
    for _ in 0..1000 {
        tokio::time::advance(Duration::from_secs(2)).await;
        rig.publisher.round().await;
    }
    let tried = *rig.shelf.commits.lock();
    assert!((30..60).contains(&tried), "{tried}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_is_left_alone() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 10).await;
    rig.round().await;
    let ours = rig.shelf.table();
    let foreign = |change: &dyn Fn(&mut Value)| {
        let mut table = ours.clone();
        change(&mut table);
        table
    };
    rig.snapshot(2, 10).await;
    for (theirs, why) in [
        (
            foreign(&|table| table["table-uuid"] = json!("another")),
            "a topic of the same name, or another table",
        ),
        (
            foreign(&|table| {
                let snapshots = table["snapshots"].as_array_mut().unwrap();
                let list = "s3://bucket/elsewhere/snap-1.avro";
                snapshots.push(json!({
                    "snapshot-id": 77, "sequence-number": 2, "manifest-list": list,
                }));
                table["refs"]["main"]["snapshot-id"] = json!(77);
                table["current-snapshot-id"] = json!(77);
                table["last-sequence-number"] = json!(2);
            }),
            "a snapshot of somebody else's",
        ),
        (
            foreign(&|table| table["last-sequence-number"] = json!(9)),
            "commits that are not seen any more",
        ),
        (
            foreign(&|table| table["refs"]["main"]["snapshot-id"] = json!(5)),
            "a snapshot that is not there",
        ),
    ] {
        let before = *rig.shelf.commits.lock();
        rig.shelf
            .tables
            .lock()
            .insert("orders".to_owned(), theirs.clone());
        assert!(
            matches!(plan(&rig.ours(), Some(&theirs)), Plan::Foreign(_)),
            "{why}"
        );
        rig.round().await;
        assert_eq!(rig.shelf.table(), theirs, "{why}");
        assert_eq!(*rig.shelf.commits.lock(), before, "{why}");
        assert_eq!(rig.metrics.unpublished.get(), 1, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_lags_behind_another_takes_nothing_back() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 1).await;
    let old = rig.ours();
    rig.snapshot(2, 1).await;
    rig.round().await;
    assert_eq!(plan(&old, Some(&rig.shelf.table())), Plan::Done);
    // Both have read the same; one of them is refused.
    let theirs = rig.shelf.table();
    rig.snapshot(3, 1).await;
    let Plan::Update(body) = plan(&rig.ours(), Some(&theirs)) else {
        panic!("it is behind");
    };
    rig.round().await;
    let late = rig.shelf.commit("orders", &body).await;
    assert!(matches!(late, Err(ExternalError::Conflict(_))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_numbers_specs_differently_is_reported() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 1).await;
    rig.shelf.fate.lock().push(Fate::Renumbers);
    for _ in 0..2 {
        rig.round().await;
        assert_eq!(rig.metrics.unpublished.get(), 1);
        assert_eq!(*rig.shelf.commits.lock(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_metadata_is_not_published() {
    let mut rig = Rig::new("copy", PartitionBy::Day);
    rig.snapshot(1, 1).await;
    let pointer = rig.image.pointer(rig.topic).unwrap();
    for wrong in [
        TablePointer {
            length: pointer.length + 1,
            ..pointer
        },
        TablePointer {
            crc: pointer.crc ^ 1,
            ..pointer
        },
    ] {
        rig.image.pointers.lock().insert(rig.topic, wrong);
        rig.round().await;
        assert!(rig.shelf.tables.lock().is_empty());
    }
}
