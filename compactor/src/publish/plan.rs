//! What has to be changed in the other catalog. Pure.

use std::collections::BTreeSet;

use frazil_table::iceberg::partition_specs;
use serde_json::{Map, Value, json};

/// What has to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// Nothing: it has the same snapshot, or a newer one of this cluster's.
    Done,
    /// There is no table yet: this commit makes one.
    Create(Value),
    /// This commit brings it up to date.
    Update(Value),
    /// It must not be touched, because of this.
    Foreign(&'static str),
}

/// Compares this cluster's metadata of a table with the other catalog's.
///
/// A table is created with its schema, numbered as it is in the files: the specification's
/// `createTable` would number the columns afresh.
pub(super) fn plan(ours: &Value, theirs: Option<&Value>) -> Plan {
    match theirs {
        None => Plan::Create(create(ours)),
        Some(theirs) => update(ours, theirs),
    }
}

/// Settings of the table in the other catalog. Nobody but this cluster may delete files: they are
/// the log. And the other catalog's own objects stay apart from them.
fn properties(ours: &Value) -> Map<String, Value> {
    let mut properties = ours["properties"].as_object().cloned().unwrap_or_default();
    properties.insert("gc.enabled".to_owned(), json!("false"));
    let path = format!("{}/published", location(ours));
    properties.insert("write.metadata.path".to_owned(), json!(path));
    properties
}

fn create(ours: &Value) -> Value {
    let mut updates = vec![
        json!({"action": "assign-uuid", "uuid": ours["table-uuid"]}),
        json!({"action": "upgrade-format-version", "format-version": ours["format-version"]}),
    ];
    add_schemas(&mut updates, ours, &BTreeSet::new());
    add_specs(&mut updates, ours, &BTreeSet::new());
    updates.push(json!({
        "action": "set-default-spec", "spec-id": ours["default-spec-id"],
    }));
    for order in list(ours, "sort-orders") {
        updates.push(json!({"action": "add-sort-order", "sort-order": order}));
    }
    updates.push(json!({
        "action": "set-default-sort-order", "sort-order-id": ours["default-sort-order-id"],
    }));
    updates.push(json!({"action": "set-location", "location": ours["location"]}));
    updates.push(json!({"action": "set-properties", "updates": properties(ours)}));
    for snapshot in list(ours, "snapshots") {
        updates.push(json!({"action": "add-snapshot", "snapshot": snapshot}));
    }
    updates.extend(newest(ours).map(set_main));
    json!({"requirements": [{"type": "assert-create"}], "updates": updates})
}

fn update(ours: &Value, theirs: &Value) -> Plan {
    if ours["table-uuid"] != theirs["table-uuid"] {
        return Plan::Foreign(
            "another table has its name, perhaps that of a topic that was deleted",
        );
    }
    let Some(current) = newest(ours) else {
        return Plan::Done;
    };
    let published = newest(theirs);
    let have = ids(theirs, "snapshots", "snapshot-id");
    let own = ids(ours, "snapshots", "snapshot-id");
    let last = theirs["last-sequence-number"].as_i64().unwrap_or(0);
    if let Some(published) = published
        && !own.contains(&published)
    {
        let snapshots = list(theirs, "snapshots");
        let found = snapshots
            .iter()
            .find(|s| id(s, "snapshot-id") == Some(published));
        match found.filter(|snapshot| written_here(ours, snapshot)) {
            None => return Plan::Foreign("its newest snapshot was not written by this cluster"),
            Some(snapshot) if sequence(snapshot) > ours["last-sequence-number"].as_i64() => {
                return Plan::Done;
            }
            // It has expired here since.
            Some(_) => {}
        }
    }
    if list(theirs, "partition-specs").iter().any(is_foreign_spec) {
        return Plan::Foreign(NUMBERS);
    }
    let mut updates = Vec::new();
    add_schemas(&mut updates, ours, &ids(theirs, "schemas", "schema-id"));
    add_specs(
        &mut updates,
        ours,
        &ids(theirs, "partition-specs", "spec-id"),
    );
    if ours["default-spec-id"] != theirs["default-spec-id"] {
        updates.push(json!({
            "action": "set-default-spec", "spec-id": ours["default-spec-id"],
        }));
    }
    let wanted = properties(ours);
    let differs = |(name, value): &(&String, &Value)| theirs["properties"][*name] != **value;
    let changed: Map<String, Value> = wanted
        .iter()
        .filter(differs)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !changed.is_empty() {
        updates.push(json!({"action": "set-properties", "updates": changed}));
    }
    if published != Some(current) {
        for snapshot in list(ours, "snapshots") {
            let known = id(snapshot, "snapshot-id").is_some_and(|id| have.contains(&id));
            if !known && sequence(snapshot) > Some(last) {
                updates.push(json!({"action": "add-snapshot", "snapshot": snapshot}));
            } else if !known && id(snapshot, "snapshot-id") == Some(current) {
                return Plan::Foreign("something else has committed to it");
            }
        }
        updates.push(set_main(current));
    }
    let expired: Vec<i64> = list(theirs, "snapshots")
        .iter()
        .filter(|snapshot| written_here(ours, snapshot))
        .filter_map(|snapshot| id(snapshot, "snapshot-id"))
        .filter(|id| !own.contains(id))
        .collect();
    if !expired.is_empty() {
        updates.push(json!({"action": "remove-snapshots", "snapshot-ids": expired}));
    }
    if updates.is_empty() {
        return Plan::Done;
    }
    Plan::Update(json!({
        "requirements": [
            {"type": "assert-table-uuid", "uuid": ours["table-uuid"]},
            {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": published},
        ],
        "updates": updates,
    }))
}

/// Whether the other catalog understands columns and partition specs by the numbers that the files
/// have.
pub(super) fn same_numbers(ours: &Value, theirs: &Value) -> Result<(), &'static str> {
    for (all, number) in [("schemas", "schema-id"), ("partition-specs", "spec-id")] {
        for one in list(ours, all) {
            let same = list(theirs, all)
                .iter()
                .any(|other| other[number] == one[number] && other["fields"] == one["fields"]);
            if !same {
                return Err(NUMBERS);
            }
        }
    }
    Ok(())
}

const NUMBERS: &str = "it numbers columns or partition specs differently";

/// Whether a spec is none of those that a table here can have.
fn is_foreign_spec(theirs: &Value) -> bool {
    let same =
        |spec: &Value| spec["spec-id"] == theirs["spec-id"] && spec["fields"] == theirs["fields"];
    !partition_specs().iter().any(same)
}

fn add_schemas(updates: &mut Vec<Value>, ours: &Value, have: &BTreeSet<i64>) {
    let before = updates.len();
    for schema in missing(ours, "schemas", "schema-id", have) {
        updates.push(json!({
            "action": "add-schema", "schema": schema, "last-column-id": ours["last-column-id"],
        }));
    }
    if updates.len() > before {
        let current = &ours["current-schema-id"];
        updates.push(json!({"action": "set-current-schema", "schema-id": current}));
    }
}

/// Catalogs number specs as they come. So that ours get the numbers that our manifests have, those
/// below them are added too, used or not.
fn add_specs(updates: &mut Vec<Value>, ours: &Value, have: &BTreeSet<i64>) {
    let own = ids(ours, "partition-specs", "spec-id");
    for spec in partition_specs() {
        let id = id(&spec, "spec-id");
        if id <= own.last().copied() && id.is_some_and(|id| !have.contains(&id)) {
            updates.push(json!({"action": "add-spec", "spec": spec}));
        }
    }
}

fn set_main(snapshot: i64) -> Value {
    json!({
        "action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": snapshot,
    })
}

/// What of a numbered list is not among `have`, by number.
fn missing<'a>(ours: &'a Value, all: &str, number: &str, have: &BTreeSet<i64>) -> Vec<&'a Value> {
    let of = |one: &&Value| id(one, number);
    let mut missing: Vec<&Value> = list(ours, all)
        .iter()
        .filter(|one| of(one).is_some_and(|id| !have.contains(&id)))
        .collect();
    missing.sort_by_key(of);
    missing
}

/// Whether this cluster wrote a snapshot of this table: its list is among the table's objects.
fn written_here(ours: &Value, snapshot: &Value) -> bool {
    let list = snapshot["manifest-list"].as_str().unwrap_or_default();
    let below = list.strip_prefix(location(ours));
    below.is_some_and(|below| below.starts_with("/metadata/snap-"))
}

fn location(metadata: &Value) -> &str {
    metadata["location"].as_str().unwrap_or_default()
}

/// The snapshot that readers see who name none.
fn newest(metadata: &Value) -> Option<i64> {
    let main = id(&metadata["refs"]["main"], "snapshot-id");
    let current = || id(metadata, "current-snapshot-id");
    main.or_else(current).filter(|id| *id != -1)
}

fn list<'a>(metadata: &'a Value, name: &str) -> &'a [Value] {
    metadata[name].as_array().map_or(&[], Vec::as_slice)
}

fn id(of: &Value, name: &str) -> Option<i64> {
    of[name].as_i64()
}

fn sequence(snapshot: &Value) -> Option<i64> {
    id(snapshot, "sequence-number")
}

fn ids(metadata: &Value, all: &str, number: &str) -> BTreeSet<i64> {
    list(metadata, all)
        .iter()
        .filter_map(|one| id(one, number))
        .collect()
}
