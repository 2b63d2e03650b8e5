//! Iceberg's manifests and manifest lists, format version 2.
//!
//! A manifest lists data files of one partition spec, a manifest list the manifests of a snapshot
//! with the least and the greatest partition in each. What is read back is what this module wrote,
//! when the next snapshot takes it over.

use super::avro::{self, Reader};
use super::partition::{Partition, PartitionBy, Spec};
use crate::schema::ICEBERG_SCHEMA;
use frazil_core::cold::ObjectId;

/// What a manifest says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was there before.
    Existing,
    /// This snapshot adds it.
    Added,
    /// This snapshot removes it.
    Deleted,
}

/// A data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its full location, for example `s3://bucket/prefix/…`.
    pub path: String,
    /// The partition that all its rows are in.
    pub partition: Partition,
    /// Rows.
    pub records: i64,
    /// Bytes.
    pub bytes: i64,
    /// Field id, lower and upper bound in Iceberg's single-value form. Wider than the truth is
    /// allowed.
    pub bounds: Vec<(i32, Vec<u8>, Vec<u8>)>,
    /// Bytes at which row groups begin.
    pub split_offsets: Vec<i64>,
}

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What of it.
    pub status: Status,
    /// The snapshot that added or removed it.
    pub snapshot: i64,
    /// The sequence number of the snapshot that added it.
    pub sequence: i64,
    /// The file.
    pub file: DataFile,
}

/// A manifest as the list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its full location.
    pub path: String,
    /// Bytes.
    pub length: i64,
    /// The sequence number of the snapshot that wrote it.
    pub sequence: i64,
    /// The least sequence number of its files.
    pub min_sequence: i64,
    /// The snapshot that wrote it.
    pub snapshot: i64,
    /// Files added, existing, deleted.
    pub files: [i32; 3],
    /// Rows of those.
    pub rows: [i64; 3],
    /// Which partitions its files are in, deleted ones too.
    pub partitions: Partitions,
}

/// Which partitions the files of a manifest are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// The spec of all of them.
    pub by: PartitionBy,
    /// One at least has the value null, if the spec has a value.
    pub null: bool,
    /// The least and the greatest value, if one is not null.
    pub bounds: Option<(i32, i32)>,
}

impl Partitions {
    /// Of these files, which are all of spec `by`.
    pub fn new<'a>(by: PartitionBy, files: impl IntoIterator<Item = &'a DataFile>) -> Self {
        let mut partitions = Self {
            by,
            null: false,
            bounds: None,
        };
        if by == PartitionBy::None {
            return partitions;
        }
        for file in files {
            match file.partition.value() {
                None => partitions.null = true,
                Some(value) => {
                    let (least, greatest) = partitions.bounds.unwrap_or((value, value));
                    partitions.bounds = Some((least.min(value), greatest.max(value)));
                }
            }
        }
        partitions
    }
}

impl ManifestFile {
    /// Files that are in the table.
    pub(super) fn live_files(&self) -> i64 {
        i64::from(self.files[0]) + i64::from(self.files[1])
    }

    /// Rows of those.
    pub(super) fn live_rows(&self) -> i64 {
        self.rows[0].saturating_add(self.rows[1])
    }
}

const FORMAT: &str = "frazil.format";
const MANIFEST_FORMAT: (&str, &str) = (FORMAT, "1");
const LIST_FORMAT: (&str, &str) = (FORMAT, "2");
/// Lists in this format say nothing of partitions; their manifests are all of spec 0.
const LIST_FORMAT_1: &str = "1";

/// What stands in front of the partition's fields, and behind them.
const ENTRY_SCHEMA: [&str; 2] = [
    concat!(
        r#"{"type":"record","name":"manifest_entry","fields":["#,
        r#"{"name":"status","type":"int","field-id":0},"#,
        r#"{"name":"snapshot_id","type":["null","long"],"default":null,"field-id":1},"#,
        r#"{"name":"sequence_number","type":["null","long"],"default":null,"field-id":3},"#,
        r#"{"name":"file_sequence_number","type":["null","long"],"default":null,"field-id":4},"#,
        r#"{"name":"data_file","type":{"type":"record","name":"r2","fields":["#,
        r#"{"name":"content","type":"int","field-id":134},"#,
        r#"{"name":"file_path","type":"string","field-id":100},"#,
        r#"{"name":"file_format","type":"string","field-id":101},"#,
        r#"{"name":"partition","type":{"type":"record","name":"r102","fields":"#,
    ),
    concat!(
        r#"},"field-id":102},"#,
        r#"{"name":"record_count","type":"long","field-id":103},"#,
        r#"{"name":"file_size_in_bytes","type":"long","field-id":104},"#,
        r#"{"name":"lower_bounds","type":["null",{"type":"array","logicalType":"map","items":"#,
        r#"{"type":"record","name":"k126_v127","fields":["#,
        r#"{"name":"key","type":"int","field-id":126},{"name":"value","type":"bytes","field-id":127}]}}],"#,
        r#""default":null,"field-id":125},"#,
        r#"{"name":"upper_bounds","type":["null",{"type":"array","logicalType":"map","items":"#,
        r#"{"type":"record","name":"k129_v130","fields":["#,
        r#"{"name":"key","type":"int","field-id":129},{"name":"value","type":"bytes","field-id":130}]}}],"#,
        r#""default":null,"field-id":128},"#,
        r#"{"name":"split_offsets","type":["null",{"type":"array","items":"long","element-id":133}],"#,
        r#""default":null,"field-id":132},"#,
        r#"{"name":"sort_order_id","type":["null","int"],"default":null,"field-id":140}"#,
        r#"]},"field-id":2}]}"#,
    ),
];

const LIST_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"manifest_file","fields":["#,
    r#"{"name":"manifest_path","type":"string","field-id":500},"#,
    r#"{"name":"manifest_length","type":"long","field-id":501},"#,
    r#"{"name":"partition_spec_id","type":"int","field-id":502},"#,
    r#"{"name":"content","type":"int","field-id":517},"#,
    r#"{"name":"sequence_number","type":"long","field-id":515},"#,
    r#"{"name":"min_sequence_number","type":"long","field-id":516},"#,
    r#"{"name":"added_snapshot_id","type":"long","field-id":503},"#,
    r#"{"name":"added_files_count","type":"int","field-id":504},"#,
    r#"{"name":"existing_files_count","type":"int","field-id":505},"#,
    r#"{"name":"deleted_files_count","type":"int","field-id":506},"#,
    r#"{"name":"added_rows_count","type":"long","field-id":512},"#,
    r#"{"name":"existing_rows_count","type":"long","field-id":513},"#,
    r#"{"name":"deleted_rows_count","type":"long","field-id":514},"#,
    r#"{"name":"partitions","type":["null",{"type":"array","element-id":508,"items":"#,
    r#"{"type":"record","name":"r508","fields":["#,
    r#"{"name":"contains_null","type":"boolean","field-id":509},"#,
    r#"{"name":"contains_nan","type":["null","boolean"],"default":null,"field-id":518},"#,
    r#"{"name":"lower_bound","type":["null","bytes"],"default":null,"field-id":510},"#,
    r#"{"name":"upper_bound","type":["null","bytes"],"default":null,"field-id":511}"#,
    r#"]}}],"default":null,"field-id":507}]}"#,
);

const SPEC_ID: &str = "partition-spec-id";

/// The order in which rows are sorted: by partition, then by offset.
pub(super) const SORT_ORDER: i64 = 1;

fn sync(id: ObjectId) -> [u8; 16] {
    (u128::from(id.claim) << 64 | u128::from(id.number)).to_be_bytes()
}

/// The bytes of a manifest named `id`, all of whose files are of spec `by`.
pub fn encode_manifest(id: ObjectId, by: PartitionBy, entries: &[Entry]) -> Vec<u8> {
    let spec = Spec::of(by);
    let mut out = Vec::new();
    for entry in entries {
        let out = &mut out;
        avro::long(
            out,
            match entry.status {
                Status::Existing => 0,
                Status::Added => 1,
                Status::Deleted => 2,
            },
        );
        avro::optional(out, Some(entry.snapshot), avro::long);
        avro::optional(out, Some(entry.sequence), avro::long);
        avro::optional(out, Some(entry.sequence), avro::long);
        avro::long(out, 0);
        avro::bytes(out, entry.file.path.as_bytes());
        avro::bytes(out, b"PARQUET");
        if by != PartitionBy::None {
            avro::optional(out, entry.file.partition.value(), |out, value| {
                avro::long(out, i64::from(value));
            });
        }
        avro::long(out, entry.file.records);
        avro::long(out, entry.file.bytes);
        avro::optional(out, Some(&entry.file.bounds), |out, bounds| {
            avro::array(out, bounds, |out, (field, lower, _)| {
                avro::long(out, i64::from(*field));
                avro::bytes(out, lower);
            });
        });
        avro::optional(out, Some(&entry.file.bounds), |out, bounds| {
            avro::array(out, bounds, |out, (field, _, upper)| {
                avro::long(out, i64::from(*field));
                avro::bytes(out, upper);
            });
        });
        avro::optional(out, Some(&entry.file.split_offsets), |out, offsets| {
            avro::array(out, offsets, |out, offset| avro::long(out, *offset));
        });
        avro::optional(out, Some(SORT_ORDER), avro::long);
    }
    let schema = ENTRY_SCHEMA.join(&spec.avro_fields());
    let (fields, spec) = (spec.fields().to_string(), spec.id.to_string());
    let metadata = [
        ("avro.schema", schema.as_str()),
        ("avro.codec", "null"),
        ("schema", ICEBERG_SCHEMA),
        ("schema-id", "0"),
        ("partition-spec", fields.as_str()),
        (SPEC_ID, spec.as_str()),
        ("format-version", "2"),
        ("content", "data"),
        MANIFEST_FORMAT,
    ];
    avro::container(&metadata, sync(id), entries.len(), &out)
}

/// Reads a manifest that [`encode_manifest`] wrote; `None` if these bytes are none.
pub fn decode_manifest(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader(bytes);
    let metadata = reader.metadata()?;
    if metadata.get(FORMAT)? != MANIFEST_FORMAT.1 {
        return None;
    }
    let by = Spec::with_id(metadata.get(SPEC_ID)?.parse().ok()?)?.by;
    reader.records(|reader| {
        let status = match reader.long()? {
            0 => Status::Existing,
            1 => Status::Added,
            2 => Status::Deleted,
            _ => return None,
        };
        let snapshot = reader.optional(Reader::long)??;
        let sequence = reader.optional(Reader::long)??;
        let _file_sequence = reader.optional(Reader::long)?;
        if reader.long()? != 0 {
            return None;
        }
        let path = reader.text()?;
        let _format = reader.bytes()?;
        let partition = if by == PartitionBy::None {
            Partition::NONE
        } else {
            let value = reader.optional(Reader::int)?;
            Partition::read(by, value)
        };
        let (records, bytes) = (reader.long()?, reader.long()?);
        let mut side = || {
            reader.optional(|reader| {
                reader.array(|reader| Some((reader.int()?, reader.bytes()?.to_vec())))
            })
        };
        let (lower, upper) = (side()??, side()??);
        let split_offsets = reader.optional(|reader| reader.array(Reader::long))??;
        let _sort_order = reader.optional(Reader::long)?;
        if lower
            .iter()
            .map(|(field, _)| field)
            .ne(upper.iter().map(|(field, _)| field))
        {
            return None;
        }
        let bounds = lower.into_iter().zip(upper);
        Some(Entry {
            status,
            snapshot,
            sequence,
            file: DataFile {
                path,
                partition,
                records,
                bytes,
                bounds: bounds
                    .map(|((field, lower), (_, upper))| (field, lower, upper))
                    .collect(),
                split_offsets,
            },
        })
    })
}

/// The bytes of a manifest list named `id`.
pub fn encode_list(id: ObjectId, snapshot: i64, manifests: &[ManifestFile]) -> Vec<u8> {
    let mut out = Vec::new();
    for manifest in manifests {
        let out = &mut out;
        avro::bytes(out, manifest.path.as_bytes());
        avro::long(out, manifest.length);
        avro::long(out, i64::from(Spec::of(manifest.partitions.by).id));
        avro::long(out, 0);
        avro::long(out, manifest.sequence);
        avro::long(out, manifest.min_sequence);
        avro::long(out, manifest.snapshot);
        manifest
            .files
            .iter()
            .for_each(|count| avro::long(out, i64::from(*count)));
        manifest
            .rows
            .iter()
            .for_each(|count| avro::long(out, *count));
        let Partitions { by, null, bounds } = manifest.partitions;
        let fields = if by == PartitionBy::None { 0 } else { 1 };
        avro::optional(out, Some(&[()][..fields]), |out, fields| {
            avro::array(out, fields, |out, ()| {
                avro::boolean(out, null);
                avro::optional(out, Some(false), avro::boolean);
                for bound in [bounds.map(|of| of.0), bounds.map(|of| of.1)] {
                    avro::optional(out, bound, |out, bound| {
                        avro::bytes(out, &bound.to_le_bytes());
                    });
                }
            });
        });
    }
    let snapshot = snapshot.to_string();
    let metadata = [
        ("avro.schema", LIST_SCHEMA),
        ("avro.codec", "null"),
        ("format-version", "2"),
        ("snapshot-id", snapshot.as_str()),
        LIST_FORMAT,
    ];
    avro::container(&metadata, sync(id), manifests.len(), &out)
}

/// Reads a manifest list that [`encode_list`] wrote; `None` if these bytes are none.
pub fn decode_list(bytes: &[u8]) -> Option<Vec<ManifestFile>> {
    let mut reader = Reader(bytes);
    let partitioned = match reader.metadata()?.get(FORMAT)? {
        LIST_FORMAT_1 => false,
        format if format == LIST_FORMAT.1 => true,
        _ => return None,
    };
    reader.records(|reader| {
        let path = reader.text()?;
        let length = reader.long()?;
        let by = Spec::with_id(reader.long()?)?.by;
        if reader.long()? != 0 {
            return None;
        }
        let (sequence, min_sequence, snapshot) = (reader.long()?, reader.long()?, reader.long()?);
        let files = [reader.int()?, reader.int()?, reader.int()?];
        let rows = [reader.long()?, reader.long()?, reader.long()?];
        let fields = if partitioned {
            reader.optional(|reader| reader.array(field_summary))??
        } else {
            Vec::new()
        };
        let (null, bounds) = match (by, &fields[..]) {
            (PartitionBy::None, []) => (false, None),
            (PartitionBy::None, _) => return None,
            (_, &[field]) => field,
            _ => return None,
        };
        Some(ManifestFile {
            path,
            length,
            sequence,
            min_sequence,
            snapshot,
            files,
            rows,
            partitions: Partitions { by, null, bounds },
        })
    })
}

/// Whether a partition's value is null, and the bounds of the others.
fn field_summary(reader: &mut Reader<'_>) -> Option<(bool, Option<(i32, i32)>)> {
    let null = reader.boolean()?;
    let _nan = reader.optional(Reader::boolean)?;
    let mut bound =
        || reader.optional(|reader| Some(i32::from_le_bytes(reader.bytes()?.try_into().ok()?)));
    let (lower, upper) = (bound()?, bound()?);
    (lower.is_some() == upper.is_some()).then_some((null, lower.zip(upper)))
}
