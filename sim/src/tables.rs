//! What tables have, read as table engines do: from the metadata to the rows of every snapshot it
//! keeps, with another implementation of Parquet. And which objects somebody may still read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::cold::{NodeRef, TableObject};
use frazil_core::ports::TablePointer;
use frazil_core::{TopicId, TopicPartition};
use frazil_history::Record;
use frazil_history::kafka::number;
use frazil_metadata::state::State;
use frazil_table::iceberg::{Entry, Status, TableMetadata, decode_list, decode_manifest};
use frazil_table::manifest::Node;
use object_store::path::Path;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;

use crate::store::World;

/// One snapshot of a table.
pub struct Snapshot {
    /// Counts the table's snapshots.
    pub sequence: i64,
    /// The rows of each partition, by offset; rows that are there twice are here twice.
    pub rows: BTreeMap<i32, Vec<Record>>,
}

/// The objects of one topic.
pub struct Objects<'a> {
    store: &'a World,
    prefix: &'a str,
    topic: TopicId,
    /// The entries of the manifests that have been read.
    entries: BTreeMap<String, Vec<Entry>>,
    /// The rows of the files that have been read.
    files: BTreeMap<String, Vec<(i32, Record)>>,
}

impl<'a> Objects<'a> {
    /// Those of a cluster's topic.
    pub fn new(store: &'a World, prefix: &'a str, topic: TopicId) -> Self {
        Self {
            store,
            prefix,
            topic,
            entries: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    fn get(&self, object: TableObject) -> Result<Bytes, String> {
        let path = Path::from(format!("{}/{}", self.prefix, object.key(self.topic)));
        let found = self.store.object(&path);
        found.ok_or_else(|| format!("I33: {path} is not in the store"))
    }

    /// The object at a location as engines know it.
    fn at(&self, location: &str) -> Result<TableObject, String> {
        let key = location.find("tables/").map(|start| &location[start..]);
        match key.and_then(TableObject::parse) {
            Some((topic, object)) if topic == self.topic => Ok(object),
            _ => Err(format!("{location} is no object of topic {}", self.topic)),
        }
    }

    /// The live files of a snapshot.
    fn live(&mut self, list: &str) -> Result<Vec<Entry>, String> {
        let damaged = |what: &str| format!("I38: {what} is damaged");
        let bytes = self.get(self.at(list)?)?;
        let mut live = Vec::new();
        for manifest in decode_list(&bytes).ok_or_else(|| damaged(list))? {
            if !self.entries.contains_key(&manifest.path) {
                let bytes = self.get(self.at(&manifest.path)?)?;
                let entries = decode_manifest(&bytes).ok_or_else(|| damaged(&manifest.path))?;
                self.entries.insert(manifest.path.clone(), entries);
            }
            let entries = self.entries[&manifest.path].iter();
            live.extend(
                entries
                    .filter(|entry| entry.status != Status::Deleted)
                    .cloned(),
            );
        }
        Ok(live)
    }

    /// Every snapshot that the table keeps, oldest first.
    pub fn snapshots(&mut self, pointer: &TablePointer) -> Result<Vec<Snapshot>, String> {
        let bytes = self.get(TableObject::Metadata(pointer.metadata))?;
        let table = TableMetadata::decode(&bytes)
            .map_err(|error| format!("I38: a table's metadata: {error}"))?;
        let mut snapshots = Vec::new();
        for kept in &table.snapshots {
            let mut rows: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
            for entry in self.live(&kept.manifest_list)? {
                let path = &entry.file.path;
                if !self.files.contains_key(path) {
                    let bytes = self.get(self.at(path)?)?;
                    let read = read(bytes).map_err(|error| format!("I38: {path}: {error}"))?;
                    if read.len() as i64 != entry.file.records {
                        let (found, said) = (read.len(), entry.file.records);
                        return Err(format!("I38: {path} has {found} rows, and not {said}"));
                    }
                    self.files.insert(path.clone(), read);
                }
                for (partition, record) in &self.files[path] {
                    rows.entry(*partition).or_default().push(*record);
                }
            }
            for records in rows.values_mut() {
                records.sort_by_key(|record| record.offset);
            }
            snapshots.push(Snapshot {
                sequence: kept.sequence_number,
                rows,
            });
        }
        Ok(snapshots)
    }

    /// What an object names. Objects never change, so it is looked at once.
    fn named_by(&self, object: TableObject, memory: &mut Memory) -> Result<Named, String> {
        if let Some(known) = memory.0.get(&(self.topic, object)) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.get(object)?;
        let damaged = || format!("I38: {object:?} of topic {} is damaged", self.topic);
        let named: Vec<TableObject> = match object {
            TableObject::Metadata(_) => {
                let table = TableMetadata::decode(&bytes).map_err(|_| damaged())?;
                let lists = table.snapshots.iter();
                let lists = lists.map(|kept| self.at(&kept.manifest_list));
                lists.collect::<Result<_, _>>()?
            }
            TableObject::List(_) => {
                let manifests = decode_list(&bytes).ok_or_else(damaged)?;
                let manifests = manifests.iter().map(|manifest| self.at(&manifest.path));
                manifests.collect::<Result<_, _>>()?
            }
            TableObject::Files(_) => {
                let entries = decode_manifest(&bytes).ok_or_else(damaged)?;
                let entries = entries.iter();
                let live = entries.filter(|entry| entry.status != Status::Deleted);
                live.map(|entry| self.at(&entry.file.path))
                    .collect::<Result<_, _>>()?
            }
            TableObject::Manifest(partition, _) => {
                let node = Node::decode(&bytes).map_err(|_| damaged())?;
                let children = node.children().iter();
                let children = children.map(|node| TableObject::Manifest(partition, node.id));
                let groups = node.groups().iter().filter(|group| group.records > 0);
                children
                    .chain(groups.map(|group| TableObject::Data(group.file)))
                    .collect()
            }
            TableObject::Data(_) => Vec::new(),
        };
        let named = Arc::new(named);
        memory.0.insert((self.topic, object), Arc::clone(&named));
        Ok(named)
    }

    /// Everything that a Kafka reader or a table engine may read.
    pub fn reachable(
        &self,
        roots: &[(TopicPartition, NodeRef)],
        pointer: Option<TablePointer>,
        memory: &mut Memory,
    ) -> Result<BTreeSet<TableObject>, String> {
        let roots = roots.iter();
        let roots = roots.map(|(at, root)| TableObject::Manifest(at.partition, root.id));
        let pointer = pointer.map(|pointer| TableObject::Metadata(pointer.metadata));
        let mut next: Vec<_> = roots.chain(pointer).collect();
        let mut found = BTreeSet::new();
        while let Some(object) = next.pop() {
            if found.insert(object) && !matches!(object, TableObject::Data(_)) {
                next.extend(self.named_by(object, memory)?.iter());
            }
        }
        Ok(found)
    }
}

type Named = Arc<Vec<TableObject>>;

/// What objects name.
#[derive(Default)]
pub struct Memory(BTreeMap<(TopicId, TableObject), Named>);

/// The roots of a topic's partitions.
pub fn roots(state: &State, topic: TopicId) -> Vec<(TopicPartition, NodeRef)> {
    let partitions = state.topic_by_id(topic).map_or(0, |topic| topic.partitions);
    let all = (0..partitions).map(|index| TopicPartition::new(topic, index));
    all.filter_map(|partition| Some((partition, state.cold(&partition)?)))
        .collect()
}

/// The rows of a data file.
fn read(bytes: Bytes) -> Result<Vec<(i32, Record)>, String> {
    let wrong = |error: parquet::errors::ParquetError| error.to_string();
    let reader = SerializedFileReader::new(bytes).map_err(wrong)?;
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(wrong)? {
        let row = row.map_err(wrong)?;
        let timestamp = match row.get_timestamp_micros(2) {
            Ok(micros) => micros.div_euclid(1000),
            Err(_) => row.get_long(3).map_err(wrong)?,
        };
        let value = row.get_bytes(7).map(|value| number(Some(value.data())));
        let record = Record {
            offset: row.get_long(1).map_err(wrong)?,
            value: value.unwrap_or(u64::MAX),
            timestamp,
        };
        rows.push((row.get_int(0).map_err(wrong)?, record));
    }
    Ok(rows)
}
