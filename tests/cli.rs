//! The client commands against librdkafka's own mock broker: that they work with a broker that is
//! not ours, and what they print. Administrative requests are not among what that broker knows.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rdkafka::mocking::MockCluster;
use serde_json::Value;

struct Cluster {
    mock: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

impl Cluster {
    fn with_topic(name: &str, partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(name, partitions, 1).unwrap();
        Self { mock }
    }

    fn run(&self, input: &[u8], arguments: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_frazil"))
            .args(arguments)
            .args(["--bootstrap-server", &self.mock.bootstrap_servers()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails does not wait for its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// What a command prints that succeeds and has nothing to complain about.
    fn ok(&self, input: &[u8], arguments: &[&str]) -> String {
        let output = self.run(input, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line that a command ends with that fails.
    fn error(&self, input: &[u8], arguments: &[&str]) -> String {
        let output = self.run(input, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr.trim_end().to_owned()
    }
}

#[test]
fn lines_become_records_and_records_lines() {
    let cluster = Cluster::with_topic("t", 1);
    assert_eq!(cluster.ok(b"one\n\ntwo: 2\nlast", &["produce", "t"]), "");
    let keyed = [
        "produce", "t", "-k", ": ", "-H", "h=1", "-H", "i=", "-z", "zstd",
    ];
    cluster.ok(b"key: value: more\n", &keyed);

    let end = ["consume", "t", "--from-beginning", "--until-end"];
    assert_eq!(cluster.ok(b"", &end), "one\n\ntwo: 2\nlast\nvalue: more\n");
    let format = [&end[..], &["--format", "%t/%p/%o %k=%v %h"]].concat();
    let printed = cluster.ok(b"", &format);
    assert_eq!(printed.lines().next(), Some("t/0/0 =one "));
    assert_eq!(printed.lines().last(), Some("t/0/4 key=value: more h=1,i="));

    let json = ["consume", "t", "--offset", "-1", "-n", "1", "--json"];
    let record: Value = serde_json::from_str(&cluster.ok(b"", &json)).unwrap();
    assert_eq!(record["offset"], 4);
    assert_eq!(record["key"], "key");
    assert_eq!(record["value"], "value: more");
    assert_eq!(record["headers"][0]["key"], "h");
    assert_eq!(record["headers"][1]["value"], "");
    assert!(record["timestamp"].as_i64().unwrap() > 1_600_000_000_000);
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.ok(b"a\nb\nc\nd\n", &["produce", "t"]);
    // The mock lets the next member in when the session of the one that left would have ended.
    let short = [
        "-X",
        "session.timeout.ms=6000",
        "-X",
        "heartbeat.interval.ms=1000",
    ];
    let group = [
        &["consume", "t", "--group", "g", "--from-beginning"][..],
        &short,
    ]
    .concat();
    assert_eq!(
        cluster.ok(b"", &[&group[..], &["-n", "3"]].concat()),
        "a\nb\nc\n"
    );
    assert_eq!(
        cluster.ok(b"", &[&group[..], &["--until-end"]].concat()),
        "d\n"
    );
}

#[test]
fn a_directory_goes_through_a_topic_and_back() {
    let cluster = Cluster::with_topic("t", 3);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let files: [(&str, &[u8]); 3] = [("a", b"x\ny"), ("d/e/f.bin", &binary), ("d/empty", b"")];
    for (name, bytes) in files {
        frazil::env::replace_file(&from.path().join(name), bytes).unwrap();
    }
    cluster.ok(
        b"",
        &["produce", "t", "--files", from.path().to_str().unwrap()],
    );
    let to_dir = ["--files-to", to.path().to_str().unwrap()];
    let consume = ["consume", "t", "--from-beginning", "--until-end"];
    assert_eq!(cluster.ok(b"", &[&consume[..], &to_dir].concat()), "");
    for (name, bytes) in files {
        assert_eq!(
            frazil::env::read_file(&to.path().join(name), 1 << 20).unwrap(),
            bytes
        );
    }

    // A key that leads out of the directory ends it, and nothing is written there.
    cluster.ok(b"../escaped|x\n", &["produce", "t", "-k", "|", "-p", "0"]);
    let e = cluster.error(b"", &[&consume[..], &to_dir, &["-p", "0"]].concat());
    assert!(
        e.contains("\"../escaped\" is not a path below the directory"),
        "{e}"
    );
    assert!(!Path::new(&to.path().join("../escaped")).exists());
}

#[test]
fn the_cluster_and_its_topics_are_described() {
    let cluster = Cluster::with_topic("t", 2);
    let topics: Value =
        serde_json::from_str(&cluster.ok(b"", &["topic", "list", "--json"])).unwrap();
    assert_eq!(
        topics,
        serde_json::json!([{ "topic": "t", "partitions": 2 }])
    );
    assert_eq!(
        cluster.ok(b"", &["topic", "list"]),
        "TOPIC  PARTITIONS\nt      2\n"
    );
    let described = cluster.ok(b"", &["cluster", "--json"]);
    let described: Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["brokers"][0]["host"], "127.0.0.1");
    assert_eq!(described["topics"], 1);
    assert_eq!(described["partitions"], 2);
    assert!(
        described["cluster_id"]
            .as_str()
            .is_some_and(|id| !id.is_empty())
    );
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let cluster = Cluster::with_topic("t", 2);
    for (arguments, expected) in [
        (
            &["consume", "other", "--until-end"][..],
            "error: there is no topic other",
        ),
        (
            &["consume", "t", "-p", "2"],
            "error: topic t has no partition 2",
        ),
        (
            &["topic", "describe", "other"],
            "error: there is no topic other",
        ),
        (
            &["produce", "t", "-k", ":"],
            "error: line 1: no \":\" in it",
        ),
        (
            &["produce", "t", "-X", "nonsense=1"],
            "error: -X nonsense=1: ",
        ),
        (
            &["produce", "t", "--file", "/nonexistent"],
            "error: /nonexistent: No such file",
        ),
    ] {
        let e = cluster.error(b"no separator\n", arguments);
        assert!(e.starts_with(expected), "{arguments:?}: {e}");
    }
}
