use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A file that lives as long as the test.
fn file(text: &str) -> (tempfile::NamedTempFile, PathBuf) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_owned();
    (file, path)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    owned.collect()
}

/// The configuration that a file alone gives.
fn from_file(text: &str) -> Result<Config, String> {
    let (_keep, path) = file(text);
    let sources = Sources {
        file: Some(path.clone()),
        ..Sources::default()
    };
    load(&sources)
        .map(|loaded| loaded.config)
        .map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

fn from_set(set: &[(&str, &str)]) -> Result<Config, String> {
    let (_keep, path) = file("");
    let sources = Sources {
        file: Some(path),
        set: pairs(set),
        ..Sources::default()
    };
    load(&sources)
        .map(|loaded| loaded.config)
        .map_err(|e| e.to_string())
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(from_file("").unwrap(), Config::default());
}

#[test]
fn the_printed_file_reads_back_as_what_was_printed() {
    assert_eq!(
        from_file(&to_toml(&Config::default())).unwrap(),
        Config::default()
    );
    let changed = from_set(&[
        ("node.id", "7"),
        ("roles", "gateway"),
        ("broker.rack", "zone \"a\""),
        ("data.dir", "/var/lib/frazil"),
        ("listeners", "PLAINTEXT://[::]:9092"),
        ("advertised.listeners", "kafka.example:19092"),
        ("controller.quorum.voters", "1@a:1,2@b:2,3@[::1]:3"),
        ("store.url", "s3://bucket/prefix"),
        ("store.options.aws_region", "eu-central-1"),
        ("log.retention.ms", "-1"),
        ("log.retention.bytes", "3GiB"),
        ("offsets.retention.minutes", "2d"),
        ("flush.put.budget", "9"),
        ("frazil.durability", "local"),
    ])
    .unwrap();
    assert_ne!(changed, Config::default());
    assert_eq!(from_file(&to_toml(&changed)).unwrap(), changed);
}

#[test]
fn a_secret_is_used_and_never_shown() {
    let settings = [
        ("store.url", "s3://bucket"),
        ("catalog.credentials", "static"),
        ("catalog.access.key.id", "readers"),
    ];
    let e = from_set(&settings).unwrap_err();
    assert!(e.contains("catalog.secret.access.key = (unset)"), "{e}");
    let settings = [&settings[..], &[("catalog.secret.access.key", "hunter2")]].concat();
    let config = from_set(&settings).unwrap();
    let secret = config.catalog_secret_access_key.as_ref();
    assert_eq!(secret.map(Secret::reveal), Some("hunter2"));
    for shown in [
        to_toml(&config),
        to_json(&config).to_string(),
        format!("{config:?}"),
        format!("{:?}", config.broker_settings()),
    ] {
        assert!(shown.contains("(hidden)"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let wrong = [("table.copy.catalog.credential", "hunter2")];
    let e = from_set(&wrong).unwrap_err();
    assert!(
        e.contains("expected ID:SECRET") && !e.contains("hunter2"),
        "{e}"
    );
    // What was printed is not taken for the secret.
    let printed = from_file(&to_toml(&config)).unwrap_err();
    assert!(
        printed.contains("catalog.secret.access.key = (unset)"),
        "{printed}"
    );
    let e = from_set(&[("catalog.credentials", "static")]).unwrap_err();
    assert!(e.contains("expected none, because"), "{e}");
}

#[test]
fn every_key_is_printed_with_its_meaning_and_default() {
    let text = to_toml(&Config::default());
    let json = to_json(&Config::default());
    for key in KEYS {
        assert!(
            text.contains(&format!("\n# {}\n", key.meaning)),
            "{}",
            key.name
        );
        assert!(text.contains(&format!("{} =", key.name)), "{}", key.name);
        assert!(json.get(key.name).is_some(), "{}", key.name);
    }
}

#[test]
fn the_examples_of_the_readme_are_valid() {
    let readme = include_str!("../../README.md");
    let examples: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        from_file(example).unwrap_or_else(|e| panic!("{example}\n{e}"));
    }
}

#[test]
fn names_of_keys_can_be_told_apart_in_every_form() {
    let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    names.push("store.options");
    names.push("config");
    for (i, a) in names.iter().enumerate() {
        assert!(
            !a.starts_with("port") && !a.starts_with("service"),
            "{a}: Kubernetes makes such variables"
        );
        assert!(
            a.bytes().all(|b| b.is_ascii_lowercase() || b == b'.'),
            "{a}: other characters would not survive the way through an environment variable"
        );
        for (j, b) in names.iter().enumerate() {
            // A table and a value of one name cannot stand in one TOML file.
            assert!(
                i == j || !b.starts_with(&format!("{a}.")) && a != b,
                "{a} and {b}"
            );
        }
    }
}

#[test]
fn flags_win_over_set_over_environment_over_file_over_default() {
    let (_keep, path) =
        file("num.partitions = 2\nlog.level = \"warn\"\nmax.connections = 5\nflush.uploads = 3\n");
    let loaded = load(&Sources {
        file: Some(path.clone()),
        environment: pairs(&[
            ("FRAZIL_NUM_PARTITIONS", "3"),
            ("FRAZIL_LOG_LEVEL", "debug"),
            ("FRAZIL_MAX_CONNECTIONS", "6"),
            ("FRAZIL_CONFIG", "elsewhere.toml"),
            ("FRAZIL_STORE_OPTIONS_AWS_REGION", "mars-1"),
            ("PATH", "/bin"),
            ("FRAZIL_SERVICE_HOST", "10.0.0.1"),
            ("FRAZIL_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        ]),
        set: pairs(&[("num.partitions", "4"), ("log.level", "trace")]),
        flags: pairs(&[("num.partitions", "5")]),
    })
    .unwrap();
    let c = &loaded.config;
    assert_eq!(
        (
            c.num_partitions,
            c.log_level.as_str(),
            c.max_connections,
            c.flush_uploads
        ),
        (5, "trace", 6, 3)
    );
    assert_eq!((c.node_id, c.voter_id()), (None, 1));
    assert_eq!(c.store_options.0["aws_region"], "mars-1");
    assert_eq!(loaded.file, Some(path.clone()));
    assert_eq!(
        loaded.from["num.partitions"],
        Source::Flag("num-partitions".into())
    );
    assert_eq!(loaded.from["flush.uploads"], Source::File(path));
    assert!(!loaded.from.contains_key("node.id"));
}

#[test]
fn keys_stand_dotted_quoted_or_in_tables() {
    let forms = [
        "log.retention.ms = 5",
        "\"log.retention.ms\" = 5",
        "[log]\nretention.ms = \"5ms\"",
        "[log.retention]\nms = 5",
        "[log]\n\"retention.ms\" = \"5\"",
    ];
    for form in forms {
        let config = from_file(form).unwrap();
        assert_eq!(config.retention, Some(Duration::from_millis(5)), "{form}");
    }
    let lists = from_file("roles = [\"metadata\", \"gateway\"]").unwrap();
    assert_eq!(lists.roles.to_string(), "gateway,metadata");
    assert_eq!(
        from_file("\"log.level\" = \"info\"\n[log]\nlevel = \"warn\"").unwrap_err(),
        "configuration file FILE: log.level is set twice"
    );
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest() {
    let check = |text: &str, expected: &str| {
        assert_eq!(from_file(text).unwrap_err(), expected, "{text}");
    };
    check(
        "num.partition = 3",
        "num.partition (in FILE): there is no such setting; did you mean num.partitions?",
    );
    check(
        "[zookeeper]\nconnect = \"x\"",
        "zookeeper.connect (in FILE): there is no such setting; 'frazil config' lists them all",
    );
    let (_keep, path) = file("");
    let problems = load(&Sources {
        file: Some(path),
        environment: pairs(&[("FRAZIL_LISTENER", "a:1"), ("FRAZIL_NODE_ID", "x")]),
        flags: pairs(&[("wal.bytes", "lots")]),
        ..Sources::default()
    })
    .unwrap_err();
    assert_eq!(
        problems.to_string(),
        "listener (environment variable FRAZIL_LISTENER): there is no such setting; \
         did you mean listeners?\n\
         node.id = x (environment variable FRAZIL_NODE_ID): expected a whole number\n\
         wal.bytes = lots (--wal-bytes): expected a size: bytes, or a number with KiB, MiB, GiB \
         or TiB"
    );
}

#[test]
fn values_that_do_not_fit_name_key_value_and_what_is_expected() {
    for (key, value) in [
        ("node.id", "1.5"),
        ("node.id", "-1"),
        ("roles", ""),
        ("roles", "gateway,broker"),
        ("auto.create.topics.enable", "yes"),
        ("listeners", "SSL://127.0.0.1:9092"),
        ("listeners", "127.0.0.1"),
        ("listeners", "a:1,b:2"),
        ("http.listen", "::1:8080"),
        ("http.listen", "a:99999"),
        ("http.listen", "a:+1"),
        ("http.listen", "127.0.0.1:9092"),
        ("num.partitions", "0"),
        ("num.partitions", "100001"),
        ("default.replication.factor", "0"),
        ("log.retention.ms", "-2"),
        ("log.retention.ms", "9223372036854775808"),
        ("log.retention.ms", "5y"),
        ("offsets.retention.minutes", "90s"),
        ("message.max.bytes", "200MiB"),
        ("wal.bytes", "1MiB"),
        ("cache.memory.bytes", "18446744073709551615KiB"),
        ("flush.put.budget", "0"),
        ("log.format", "xml"),
        ("log.level", "loud"),
        ("controller.quorum.voters", "1@a"),
        ("controller.quorum.voters", "1@a:1,1@b:1"),
        ("controller.quorum.voters", "2@a:1"),
        ("frazil.durability", "replicated"),
    ] {
        let e = from_set(&[(key, value)]).expect_err(key);
        assert!(e.contains("expected"), "{e}");
        assert!(
            e.contains(key) || e.contains("socket.request.max.bytes"),
            "{e}"
        );
    }
    let e = from_file("log.retention.ms = 1.5").unwrap_err();
    assert!(
        e.starts_with("log.retention.ms = a value of another type (in FILE): expected"),
        "{e}"
    );
}

#[test]
fn a_listener_on_every_address_needs_one_to_tell_clients() {
    let e = from_set(&[("listeners", "PLAINTEXT://:9092")]).unwrap_err();
    assert!(e.starts_with("advertised.listeners = (unset) (the default): expected the address"));
    let set = [
        ("listeners", ":9092"),
        ("advertised.listeners", "PLAINTEXT://broker1:9092"),
    ];
    let config = from_set(&set).unwrap();
    assert!(config.listeners.is_wildcard());
    assert_eq!(config.advertised(1).to_string(), "broker1:9092");
    assert_eq!(Config::default().advertised(77).to_string(), "127.0.0.1:77");
}

#[test]
fn a_store_in_memory_is_refused_where_other_nodes_would_not_see_it() {
    assert!(from_set(&[("store.url", "memory:")]).is_ok());
    let voters = ("controller.quorum.voters", "1@a:1,2@b:1");
    assert!(from_set(&[voters]).is_ok());
    let e = from_set(&[voters, ("store.url", "memory:")]).unwrap_err();
    assert!(e.starts_with("store.url = memory:"), "{e}");
}

#[test]
fn settings_are_told_to_clients_in_kafkas_units() {
    let settings = Config::default().broker_settings();
    for (key, value) in [
        ("message.max.bytes", "1048588"),
        ("socket.request.max.bytes", "104857600"),
        ("log.retention.ms", "604800000"),
        ("log.retention.bytes", "-1"),
        ("offsets.retention.minutes", "10080"),
        ("auto.create.topics.enable", "true"),
        ("roles", "gateway,metadata,compactor"),
        ("frazil.durability", "object"),
    ] {
        assert_eq!(settings[key], value, "{key}");
    }
    assert!(!settings.contains_key("broker.rack"));
}

#[test]
fn secrets_of_the_store_are_not_shown() {
    let config = from_set(&[
        ("store.options.aws_secret_access_key", "hush"),
        ("store.options.aws_endpoint", "http://here"),
    ])
    .unwrap();
    for text in [
        to_toml(&config),
        to_json(&config).to_string(),
        format!("{config:?}"),
    ] {
        assert!(
            !text.contains("hush") && text.contains("http://here"),
            "{text}"
        );
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = load(&Sources {
        file: Some("/nonexistent/frazil.toml".into()),
        ..Sources::default()
    });
    let text = missing.unwrap_err().to_string();
    assert!(
        text.starts_with("configuration file /nonexistent/frazil.toml: "),
        "{text}"
    );
    let text = from_file("a = = b").unwrap_err();
    assert!(
        text.starts_with("configuration file FILE: TOML parse error at line 1"),
        "{text}"
    );
}

#[test]
fn the_store_is_below_the_data_directory_unless_named() {
    let config = from_set(&[("data.dir", "/d")]).unwrap();
    assert_eq!(config.store_url(), "file:/d/store");
}

#[test]
fn uploads_are_budgeted_by_the_kind_of_store() {
    use crate::config::PutBudget;
    use crate::store::Kind;
    assert_eq!(PutBudget::Auto.of(Kind::Cloud), Some((6, 6)));
    assert_eq!(PutBudget::Auto.of(Kind::Directory), Some((20, 10_000)));
    assert_eq!(PutBudget::Auto.of(Kind::Memory), None);
    assert_eq!(PutBudget::Unlimited.of(Kind::Cloud), None);
    assert_eq!(PutBudget::PerSecond(9).of(Kind::Directory), Some((9, 9)));
}
