//! `frazil table` against the catalog, over a table in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;

use async_trait::async_trait;
use frazil::catalog::{Catalog, Metrics, Parts, Readers, Source};
use frazil_core::batch::BatchBuilder;
use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{Table, TablePointer};
use frazil_core::topic_config::PartitionBy;
use frazil_core::{Offset, PortResult, Topic, TopicId, TopicName};
use frazil_objects::Retries;
use frazil_table::iceberg::{Commit, DataFile, TableMetadata};
use frazil_table::{Writer, WriterConfig};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Two topics, of which the second is empty.
struct Image(Table);

const ORDERS: TopicId = TopicId::new(Uuid::from_u128(0x11));

impl Image {
    fn all() -> [(&'static str, TopicId); 2] {
        [
            ("orders", ORDERS),
            ("pay.ments", TopicId::new(Uuid::from_u128(0x12))),
        ]
    }
}

#[async_trait]
impl Source for Image {
    fn cluster_id(&self) -> String {
        "cluster".to_owned()
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics()
            .into_iter()
            .find(|topic| topic.name.as_str() == name)
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        let topic = |(name, id)| {
            Arc::new(Topic {
                id,
                name: TopicName::new(name).unwrap(),
                partitions: 1,
                replication_factor: 1,
                config: BTreeMap::from([("frazil.table.mode".to_owned(), "shared".to_owned())]),
                created_ms: 1_700_000_000_000,
            })
        };
        Self::all().map(topic).into()
    }

    fn broker_config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        Some(if topic == ORDERS {
            self.0.clone()
        } else {
            Table::default()
        })
    }

    async fn barrier(&self) -> PortResult<()> {
        Ok(())
    }
}

/// Ten records in partition 0, at offsets 0 to 9.
fn write_table(root: &std::path::Path, location: &str) -> Table {
    let put = |key: &str, bytes: &[u8]| {
        frazil::env::replace_file(&root.join(key), bytes).unwrap();
    };
    let id = ObjectId::new(7, 0);
    let mut batch = BatchBuilder::new();
    for record in 0..10 {
        batch.push(1_700_000_000_000 + record, Some(b"k"), Some(b"v"), &[]);
    }
    let mut writer = Writer::new(id, WriterConfig::default()).unwrap();
    writer.begin(0, Offset(0));
    writer.push_batch(Offset(0), &batch.build()).unwrap();
    writer.end(Offset(10)).unwrap();
    let written = writer.finish();
    put(&id.data_key(ORDERS), &written.parts.concat());
    let path = format!("{location}/{}", id.data_key(ORDERS));
    let file = DataFile::new(path, written.bytes, PartitionBy::None, &written.groups);
    let table = format!("{location}/tables/{ORDERS}");
    let committed = Commit {
        table: &TableMetadata::new(ORDERS.to_string(), table, 1_700_000_000_000),
        manifests: Vec::new(),
        add: vec![file],
        remove: BTreeSet::new(),
        snapshot: 7,
        now_ms: 1_700_000_001_000,
        next: ObjectId::new(7, 1),
        summary: Default::default(),
    };
    let committed = committed.finish().unwrap();
    for (place, bytes) in &committed.objects {
        put(place.strip_prefix(&format!("{location}/")).unwrap(), bytes);
    }
    let (place, bytes) = committed.objects.last().unwrap();
    let key = place.strip_prefix(&format!("{location}/")).unwrap();
    let Some((_, TableObject::Metadata(metadata))) = TableObject::parse(key) else {
        panic!("{key}");
    };
    let pointer = TablePointer {
        metadata,
        length: bytes.len() as u32,
        crc: crc32c::crc32c(bytes),
    };
    Table {
        pointer: Some(pointer),
        ..Table::default()
    }
}

/// The catalog behind a node's HTTP port.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    location: String,
    _dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = format!("file://{}", dir.path().display());
        let image = Image(write_table(dir.path(), &location));
        let catalog = Catalog::new(Parts {
            source: Arc::new(image),
            store: Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()),
            retries: Retries::new(Arc::new(SeededIds::new(1)), Default::default()),
            prefix: Path::default(),
            location: location.clone(),
            readers: Readers::default(),
            broker_defaults: BTreeMap::new(),
            cache_bytes: 1 << 20,
            metrics: Metrics::default(),
        });
        let slot = frazil::http::CatalogSlot::default();
        assert!(slot.set(catalog).is_ok());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        runtime.spawn(frazil::http::serve(
            listener,
            Arc::new(Registry::default()),
            Default::default(),
            CancellationToken::new(),
            Some(slot),
            stop.clone(),
        ));
        Self {
            address,
            stop,
            runtime: Some(runtime),
            location,
            _dir: dir,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_frazil"))
            .arg("table")
            .args(arguments)
            .args(["--catalog", &format!("http://{}", self.address)])
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr.trim_end().to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn tables_are_listed_and_described() {
    let served = Served::start();
    assert_eq!(
        served.ok(&["list"]),
        "TABLE      ROWS  FILES  SNAPSHOT  TIME\n\
         orders     10    1      7         2023-11-14T22:13:21.000Z\n\
         pay.ments  0     0      -         -\n"
    );
    let listed = served.json(&["list"]);
    assert_eq!(listed[0]["table"], "orders");
    assert_eq!(listed[0]["snapshot"]["rows"], 10);
    assert_eq!(listed[1]["snapshot"], Value::Null);

    let described = served.ok(&["describe", "orders", "pay.ments"]);
    let location = format!("location = {}/tables/{ORDERS}\n", served.location);
    for line in [
        "table = orders\n",
        &location,
        "newest = 7 of 2023-11-14T22:13:21.000Z: 10 rows in 1 files\n",
        "12  kafka_value           binary",
        "list<struct<header_key: string, header_value: binary, header_key_raw: binary>>",
        "\n\ntable = pay.ments\n",
        "newest = -\n",
    ] {
        assert!(described.contains(line), "{line} in {described}");
    }
    let described = served.json(&["describe", "orders"]);
    assert_eq!(described[0]["columns"].as_array().unwrap().len(), 8);
    assert_eq!(described[0]["uuid"], ORDERS.to_string());
}

#[test]
fn snapshots_and_their_files_are_listed() {
    let served = Served::start();
    assert_eq!(
        served.ok(&["snapshots", "orders"]),
        "SNAPSHOT  TIME                      OPERATION  ADDED  DELETED  ROWS  FILES\n\
         7         2023-11-14T22:13:21.000Z  append     10     0        10    1\n"
    );
    assert_eq!(
        served.json(&["snapshots", "pay.ments"]),
        serde_json::json!([])
    );
    let files = served.json(&["files", "orders"]);
    let file = &files[0];
    let path = format!(
        "{}/{}",
        served.location,
        ObjectId::new(7, 0).data_key(ORDERS)
    );
    assert_eq!(file["file"], path);
    assert_eq!(file["rows"], 10);
    assert_eq!(file["offsets"], serde_json::json!([0, 9]));
    assert_eq!(file["times"][0], "2023-11-14T22:13:20.000Z");
    assert_eq!(served.json(&["files", "orders", "--snapshot", "7"]), files);
    let printed = served.ok(&["files", "orders"]);
    assert_eq!(printed.lines().count(), 2);
    assert!(printed.contains("0-9"), "{printed}");
    assert_eq!(served.json(&["files", "pay.ments"]), serde_json::json!([]));
}

#[test]
fn what_cannot_be_shown_is_one_line() {
    let served = Served::start();
    for (arguments, expected) in [
        (
            &["describe", "other"][..],
            "error: Table does not exist: frazil.other",
        ),
        (
            &["list", "--namespace", "other"],
            "error: Namespace does not exist: other",
        ),
        (
            &["files", "orders", "--snapshot", "8"],
            "error: table orders has no snapshot 8",
        ),
        (
            &["describe", "../x y"],
            "error: Table does not exist: frazil.../x y",
        ),
    ] {
        let e = served.error(arguments);
        assert!(e.starts_with(expected), "{arguments:?}: {e}");
    }
    let nobody = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["table", "list", "-c", "127.0.0.1:1"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        stderr.starts_with("error: cannot reach http://127.0.0.1:1/iceberg: "),
        "{stderr}"
    );
}
