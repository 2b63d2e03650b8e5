//! `frazil table`: the tables that topics have become, as the catalog shows them.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use frazil_table::iceberg::{self, DataFile, Status};
use serde::Serialize;
use serde_json::Value;

use super::output::{self, Table, or_dash};
use super::rest::{CatalogArgs, Loaded, Rest};
use super::time::format_ms;

/// `frazil table …`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the tables
    List(List),
    /// Show columns, partitioning and newest snapshot of tables
    Describe(Describe),
    /// List a table's snapshots, oldest first
    Snapshots(Snapshots),
    /// List the data files of a snapshot; reads the table's manifests from the object store
    Files(Files),
}

/// `frazil table list`.
#[derive(Debug, Args)]
pub struct List {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalog: CatalogArgs,
}

/// `frazil table describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// Their names
    #[arg(required = true)]
    tables: Vec<String>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalog: CatalogArgs,
}

/// `frazil table snapshots`.
#[derive(Debug, Args)]
pub struct Snapshots {
    /// Its name
    table: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalog: CatalogArgs,
}

/// `frazil table files`.
#[derive(Debug, Args)]
pub struct Files {
    /// Its name
    table: String,
    /// The snapshot; without it, the newest
    #[arg(long, value_name = "ID")]
    snapshot: Option<i64>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    catalog: CatalogArgs,
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::Snapshots(command) => command.run(),
        Command::Files(command) => command.run(),
    }
}

/// A snapshot, in as many words as people want.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Snapshot {
    snapshot: i64,
    time: String,
    operation: Option<String>,
    added_rows: Option<i64>,
    deleted_rows: Option<i64>,
    rows: Option<i64>,
    files: Option<i64>,
    #[serde(skip)]
    manifest_list: String,
}

impl Snapshot {
    /// All snapshots in a table's metadata, oldest first.
    fn all(metadata: &Value) -> Vec<Self> {
        let snapshots = metadata["snapshots"].as_array().into_iter().flatten();
        let read = |snapshot: &Value| {
            let summary = &snapshot["summary"];
            // Numbers in summaries are text.
            let number = |name: &str| summary[name].as_str()?.parse().ok();
            Some(Self {
                snapshot: snapshot["snapshot-id"].as_i64()?,
                time: format_ms(snapshot["timestamp-ms"].as_i64()?),
                operation: summary["operation"].as_str().map(str::to_owned),
                added_rows: number("added-records"),
                deleted_rows: number("deleted-records"),
                rows: number("total-records"),
                files: number("total-data-files"),
                manifest_list: snapshot["manifest-list"].as_str()?.to_owned(),
            })
        };
        snapshots.filter_map(read).collect()
    }

    /// The snapshot that is read by whoever names none.
    fn current(metadata: &Value) -> Option<Self> {
        let current = metadata["current-snapshot-id"].as_i64()?;
        let mut all = Self::all(metadata).into_iter();
        all.find(|snapshot| snapshot.snapshot == current)
    }
}

#[derive(Serialize)]
struct Listed {
    table: String,
    snapshot: Option<Snapshot>,
}

impl List {
    fn run(&self) -> anyhow::Result<()> {
        let tables = self.catalog.run(async |rest| {
            let mut tables = Vec::new();
            for table in rest.tables().await? {
                let loaded = rest.newest(&table).await;
                let loaded = loaded.with_context(|| format!("table {table}"))?;
                let snapshot = Snapshot::current(&loaded.metadata);
                tables.push(Listed { table, snapshot });
            }
            Ok(tables)
        })?;
        if self.json {
            return output::json(&tables);
        }
        let mut lines = Table::new(&["TABLE", "ROWS", "FILES", "SNAPSHOT", "TIME"]);
        for Listed { table, snapshot } in tables {
            lines.row(match snapshot {
                Some(s) => vec![
                    table,
                    or_dash(s.rows),
                    or_dash(s.files),
                    s.snapshot.to_string(),
                    s.time,
                ],
                None => vec![table, "0".into(), "0".into(), "-".into(), "-".into()],
            });
        }
        lines.print()
    }
}

#[derive(Serialize)]
struct Description {
    table: String,
    uuid: Option<String>,
    location: Option<String>,
    metadata_location: Option<String>,
    format_version: Option<i64>,
    /// `transform(column)` each.
    partitioned_by: Vec<String>,
    columns: Vec<Column>,
    snapshots: usize,
    snapshot: Option<Snapshot>,
}

#[derive(Serialize)]
struct Column {
    id: Option<i64>,
    name: String,
    r#type: String,
    required: bool,
}

impl Description {
    fn new(table: &str, loaded: &Loaded) -> Self {
        let metadata = &loaded.metadata;
        let text = |name: &str| metadata[name].as_str().map(str::to_owned);
        let schema = current(metadata, "schemas", "schema-id", "current-schema-id");
        let spec = current(metadata, "partition-specs", "spec-id", "default-spec-id");
        let fields = |of: Option<&Value>| of.and_then(|of| of["fields"].as_array().cloned());
        let columns = fields(schema).unwrap_or_default();
        let name_of = |id: &Value| {
            let column = columns.iter().find(|column| column["id"] == *id);
            column.map_or("?", |column| column["name"].as_str().unwrap_or("?"))
        };
        let partitioned_by = fields(spec).unwrap_or_default();
        let partitioned_by = partitioned_by.iter().map(|field| {
            let transform = field["transform"].as_str().unwrap_or("?");
            format!("{transform}({})", name_of(&field["source-id"]))
        });
        Self {
            table: table.to_owned(),
            uuid: text("table-uuid"),
            location: text("location"),
            metadata_location: loaded.metadata_location.clone(),
            format_version: metadata["format-version"].as_i64(),
            partitioned_by: partitioned_by.collect(),
            columns: columns.iter().map(Column::new).collect(),
            snapshots: Snapshot::all(metadata).len(),
            snapshot: Snapshot::current(metadata),
        }
    }

    fn render(&self) -> String {
        let mut out = String::new();
        let dash = |text: &Option<String>| or_dash(text.as_deref());
        let partitioned_by = match self.partitioned_by.is_empty() {
            true => "-".to_owned(),
            false => self.partitioned_by.join(", "),
        };
        let snapshot = self.snapshot.as_ref().map(|s| {
            let (rows, files) = (or_dash(s.rows), or_dash(s.files));
            let Snapshot { snapshot, time, .. } = s;
            format!("{snapshot} of {time}: {rows} rows in {files} files")
        });
        for (name, value) in [
            ("table", self.table.clone()),
            ("uuid", dash(&self.uuid)),
            ("location", dash(&self.location)),
            ("metadata", dash(&self.metadata_location)),
            ("format version", or_dash(self.format_version)),
            ("partitioned by", partitioned_by),
            ("snapshots", self.snapshots.to_string()),
            ("newest", dash(&snapshot)),
        ] {
            let _ = writeln!(out, "{name} = {value}");
        }
        let mut columns = Table::new(&["ID", "COLUMN", "TYPE", "NULL"]);
        for column in &self.columns {
            columns.row(vec![
                or_dash(column.id),
                column.name.clone(),
                column.r#type.clone(),
                if column.required { "no" } else { "yes" }.to_owned(),
            ]);
        }
        out + &columns.render()
    }
}

impl Column {
    fn new(field: &Value) -> Self {
        Self {
            id: field["id"].as_i64(),
            name: field["name"].as_str().unwrap_or("?").to_owned(),
            r#type: type_text(&field["type"]),
            required: field["required"] == true,
        }
    }
}

/// The element of the list `all` whose `id` the metadata's `which` names.
fn current<'a>(metadata: &'a Value, all: &str, id: &str, which: &str) -> Option<&'a Value> {
    let mut all = metadata[all].as_array()?.iter();
    all.find(|one| one[id] == metadata[which])
}

/// A type in a notation that most engines have.
fn type_text(of: &Value) -> String {
    let inner = |name: &str| type_text(&of[name]);
    match of["type"].as_str() {
        Some("list") => format!("list<{}>", inner("element")),
        Some("map") => format!("map<{}, {}>", inner("key"), inner("value")),
        Some("struct") => {
            let fields = of["fields"].as_array().into_iter().flatten();
            let fields = fields.map(|field| {
                let name = field["name"].as_str().unwrap_or("?");
                format!("{name}: {}", type_text(&field["type"]))
            });
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        _ => of.as_str().unwrap_or("?").to_owned(),
    }
}

impl Describe {
    fn run(&self) -> anyhow::Result<()> {
        let described = self.catalog.run(async |rest| {
            let mut described = Vec::new();
            for table in &self.tables {
                described.push(Description::new(table, &rest.table(table).await?));
            }
            Ok(described)
        })?;
        if self.json {
            return output::json(&described);
        }
        let text: Vec<String> = described.iter().map(Description::render).collect();
        output::text(&text.join("\n"))
    }
}

impl Snapshots {
    fn run(&self) -> anyhow::Result<()> {
        let loaded = self
            .catalog
            .run(async |rest| rest.table(&self.table).await)?;
        let snapshots = Snapshot::all(&loaded.metadata);
        if self.json {
            return output::json(&snapshots);
        }
        let mut lines = Table::new(&[
            "SNAPSHOT",
            "TIME",
            "OPERATION",
            "ADDED",
            "DELETED",
            "ROWS",
            "FILES",
        ]);
        for s in snapshots {
            lines.row(vec![
                s.snapshot.to_string(),
                s.time,
                or_dash(s.operation),
                or_dash(s.added_rows),
                or_dash(s.deleted_rows),
                or_dash(s.rows),
                or_dash(s.files),
            ]);
        }
        lines.print()
    }
}

/// A data file. Bounds are of all rows in it, of all Kafka partitions together.
#[derive(Debug, PartialEq, Serialize)]
struct File {
    file: String,
    rows: i64,
    bytes: i64,
    partitions: Option<(i64, i64)>,
    offsets: Option<(i64, i64)>,
    times: Option<(String, String)>,
}

impl File {
    fn new(file: DataFile) -> Self {
        let bounds = |field| {
            let mut bounds = file.bounds.iter();
            let (_, low, high) = bounds.find(|(id, ..)| *id == field)?;
            Some((bound(low)?, bound(high)?))
        };
        let time = |micros: i64| format_ms(micros.div_euclid(1000));
        Self {
            rows: file.records,
            bytes: file.bytes,
            partitions: bounds(1),
            offsets: bounds(2),
            times: bounds(3).map(|(low, high)| (time(low), time(high))),
            file: file.path,
        }
    }
}

/// A bound of an integer column, as Iceberg writes it.
fn bound(bytes: &[u8]) -> Option<i64> {
    if let Ok(int) = bytes.try_into() {
        return Some(i32::from_le_bytes(int).into());
    }
    bytes.try_into().ok().map(i64::from_le_bytes)
}

impl Files {
    fn run(&self) -> anyhow::Result<()> {
        let files = self.catalog.run(async |rest| self.files(rest).await)?;
        if self.json {
            return output::json(&files);
        }
        let mut lines = Table::new(&["ROWS", "BYTES", "PARTITIONS", "OFFSETS", "TIMES", "FILE"]);
        for file in files {
            let range = |range: Option<(i64, i64)>| or_dash(range.map(|(a, b)| format!("{a}-{b}")));
            lines.row(vec![
                file.rows.to_string(),
                file.bytes.to_string(),
                range(file.partitions),
                range(file.offsets),
                or_dash(file.times.map(|(low, high)| format!("{low} {high}"))),
                file.file,
            ]);
        }
        lines.print()
    }

    async fn files(&self, rest: &Rest) -> anyhow::Result<Vec<File>> {
        let loaded = rest.table(&self.table).await?;
        let snapshot = match self.snapshot {
            None => match Snapshot::current(&loaded.metadata) {
                Some(snapshot) => snapshot,
                None => return Ok(Vec::new()),
            },
            Some(id) => {
                let mut all = Snapshot::all(&loaded.metadata).into_iter();
                let found = all.find(|snapshot| snapshot.snapshot == id);
                found.ok_or_else(|| anyhow!("table {} has no snapshot {id}", self.table))?
            }
        };
        let foreign = |location: &str| {
            anyhow!(
                "{location} is damaged, or was not written by Frazil, whose tables this command reads"
            )
        };
        let list = rest.object(&loaded, &snapshot.manifest_list).await?;
        let list = iceberg::decode_list(&list).ok_or_else(|| foreign(&snapshot.manifest_list))?;
        let mut files = Vec::new();
        for manifest in list {
            let bytes = rest.object(&loaded, &manifest.path).await?;
            let entries =
                iceberg::decode_manifest(&bytes).ok_or_else(|| foreign(&manifest.path))?;
            let live = entries
                .into_iter()
                .filter(|entry| entry.status != Status::Deleted);
            files.extend(live.map(|entry| File::new(entry.file)));
        }
        Ok(files)
    }
}
