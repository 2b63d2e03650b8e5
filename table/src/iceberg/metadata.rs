//! A table's metadata: the JSON object that a catalog names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SNAPSHOTS;
use super::manifest::SORT_ORDER;
use super::partition::{PartitionBy, Spec};
use crate::schema::ICEBERG_SCHEMA;

/// The metadata of a table in format version 2. What Frazil never changes is kept as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableMetadata {
    format_version: i32,
    table_uuid: String,
    /// Where its objects are, without a slash at the end.
    pub location: String,
    /// The sequence number of the newest snapshot.
    pub last_sequence_number: i64,
    /// When it last changed, in milliseconds since the epoch.
    pub last_updated_ms: i64,
    last_column_id: i32,
    schemas: Vec<Value>,
    current_schema_id: i32,
    partition_specs: Vec<Value>,
    default_spec_id: i32,
    last_partition_id: i32,
    sort_orders: Vec<Value>,
    default_sort_order_id: i64,
    properties: BTreeMap<String, String>,
    /// -1: none yet.
    current_snapshot_id: i64,
    /// The newest, oldest first.
    pub snapshots: Vec<Snapshot>,
    pub(super) snapshot_log: Vec<Value>,
    refs: BTreeMap<String, Value>,
}

/// A snapshot of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: i64,
    /// The one before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent_snapshot_id: Option<i64>,
    /// Counts snapshots from 1.
    pub sequence_number: i64,
    /// When it was made.
    pub timestamp_ms: i64,
    /// Location of its manifest list.
    pub manifest_list: String,
    /// What it changed.
    pub summary: BTreeMap<String, String>,
    /// 0, as long as there is one schema.
    pub schema_id: i32,
}

pub(super) fn summary(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

impl TableMetadata {
    /// An empty table, partitioned by nothing. `uuid` in the usual text form; a topic's id does.
    pub fn new(uuid: String, location: String, now_ms: i64) -> Self {
        let schema = serde_json::from_str(ICEBERG_SCHEMA).expect("it is JSON");
        let sorted = |field: i32| {
            json!({"transform": "identity", "source-id": field, "direction": "asc",
                "null-order": "nulls-first"})
        };
        let unpartitioned = Spec::of(PartitionBy::None);
        Self {
            format_version: 2,
            table_uuid: uuid,
            location,
            last_sequence_number: 0,
            last_updated_ms: now_ms,
            last_column_id: 12,
            schemas: vec![schema],
            current_schema_id: 0,
            partition_specs: vec![unpartitioned.json()],
            default_spec_id: unpartitioned.id,
            last_partition_id: unpartitioned.last_field(),
            sort_orders: vec![json!({"order-id": SORT_ORDER, "fields": [sorted(1), sorted(2)]})],
            default_sort_order_id: SORT_ORDER,
            properties: BTreeMap::new(),
            current_snapshot_id: -1,
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            refs: BTreeMap::new(),
        }
    }

    /// Has the metadata say that no engine may delete files of the table, or files that it does not
    /// know below the table's location: some of them are the log.
    pub fn keep_files(&mut self) {
        self.properties
            .insert("gc.enabled".to_owned(), "false".to_owned());
    }

    /// Its JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it is JSON")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The id of the current snapshot.
    pub fn current_snapshot(&self) -> Option<i64> {
        self.snapshots.last().map(|snapshot| snapshot.snapshot_id)
    }

    /// The partition spec that new files should have; `None` if its id is none of ours.
    pub fn partition_by(&self) -> Option<PartitionBy> {
        Spec::with_id(self.default_spec_id.into()).map(|spec| spec.by)
    }

    /// From now on new files should be partitioned so. What is there stays as it is, and is found
    /// as before: every manifest names its spec.
    pub fn set_partition_by(&mut self, by: PartitionBy) {
        self.know(by);
        self.default_spec_id = Spec::of(by).id;
    }

    /// Files of this spec may be in the table.
    pub(super) fn know(&mut self, by: PartitionBy) {
        let spec = Spec::of(by);
        let known = |known: &Value| known["spec-id"] == spec.id;
        if !self.partition_specs.iter().any(known) {
            self.partition_specs.push(spec.json());
            self.last_partition_id = self.last_partition_id.max(spec.last_field());
        }
    }

    pub(super) fn push(&mut self, snapshot: Snapshot) {
        self.last_sequence_number = snapshot.sequence_number;
        self.last_updated_ms = snapshot.timestamp_ms;
        self.current_snapshot_id = snapshot.snapshot_id;
        self.snapshot_log.push(json!({
            "snapshot-id": snapshot.snapshot_id,
            "timestamp-ms": snapshot.timestamp_ms,
        }));
        self.refs.insert(
            "main".to_owned(),
            json!({"snapshot-id": snapshot.snapshot_id, "type": "branch"}),
        );
        self.snapshots.push(snapshot);
        let old = self.snapshots.len().saturating_sub(SNAPSHOTS);
        self.snapshots.drain(..old);
        let old = self.snapshot_log.len().saturating_sub(SNAPSHOTS);
        self.snapshot_log.drain(..old);
    }
}
