use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_tables_are_sorted_and_their_defaults_valid() {
    assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
    for key in TOPIC_CONFIGS {
        assert_eq!(validate(key.name, key.default), Ok(()), "{}", key.name);
        assert!(key.doc.ends_with('.'), "{}", key.name);
    }
    let brokers = &*BROKER_CONFIGS;
    assert!(brokers.is_sorted_by(|a, b| a.name < b.name));
    for key in brokers {
        if let Some(default) = key.default {
            assert_eq!(key.kind.check(default), Ok(()), "{}", key.name);
        }
    }
    assert_eq!(
        broker_config("log.retention.hours").unwrap().default,
        Some("168")
    );
    assert_eq!(broker_config("log.retention.ms").unwrap().default, None);
    assert!(broker_config("nothing").is_none());
}

#[test]
fn unknown_names_are_answered_with_near_ones() {
    for (name, expected) in [
        ("retention.mss", Some("retention.ms")),
        ("cleanup-policy", Some("cleanup.policy")),
        ("durability", None),
        ("frazil.durabilty", Some("frazil.durability")),
        ("", None),
    ] {
        let Err(ConfigError::Unknown { nearest, .. }) = validate(name, "1") else {
            panic!("{name} is known");
        };
        assert_eq!(nearest, expected, "{name}");
    }
    let error = validate("retention.m", "1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown topic config \"retention.m\"; did you mean \"retention.ms\"?"
    );
    assert!(
        validate(&"x".repeat(100_000), "1")
            .unwrap_err()
            .to_string()
            .len()
            < 200
    );
}

#[test]
fn distances_count_edits() {
    for (a, b, expected) in [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("abc", "axc", 1),
        ("abc", "bc", 1),
        ("abc", "abxc", 1),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), expected, "{a} {b}");
    }
}

#[test]
fn values_have_ranges() {
    for (name, value) in [
        ("retention.ms", "-1"),
        ("retention.ms", " 5 "),
        ("retention.bytes", "9223372036854775807"),
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact, delete"),
        ("cleanup.policy", ""),
        ("compression.type", "zstd"),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("leader.replication.throttled.replicas", "*"),
        ("leader.replication.throttled.replicas", "0:1, 12:3"),
        ("remote.storage.enable", "false"),
        ("frazil.durability", "local"),
        ("segment.bytes", "52428800"),
    ] {
        assert_eq!(validate(name, value), Ok(()), "{name}={value}");
    }
    for (name, value) in [
        ("retention.ms", "-2"),
        ("retention.ms", "1.5"),
        ("retention.ms", ""),
        ("retention.ms", "9223372036854775808"),
        ("max.message.bytes", "2147483648"),
        ("cleanup.policy", "compact,archive"),
        ("compression.type", "ZSTD"),
        ("preallocate", "yes"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("leader.replication.throttled.replicas", "0:1,x"),
        ("leader.replication.throttled.replicas", "1:"),
        ("remote.storage.enable", "true"),
        ("frazil.durability", "replicated"),
        ("min.insync.replicas", "0"),
        ("message.timestamp.type", "createtime"),
    ] {
        let error = validate(name, value).unwrap_err();
        assert!(
            matches!(error, ConfigError::Invalid { .. }),
            "{name}={value}: {error}"
        );
    }
}

#[test]
fn settings_can_contradict_each_other() {
    let lags = [
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "9"),
    ];
    assert!(matches!(
        validate_all(&map(&lags)),
        Err(ConfigError::Conflict(_))
    ));
    assert_eq!(validate_all(&map(&lags[..1])), Ok(()));
    assert!(validate_all(&map(&[("nothing", "1")])).is_err());
}

#[test]
fn the_defaults_are_kafkas() {
    assert_eq!(
        TopicConfig::default(),
        TopicConfig {
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: None,
            durability: Durability::Object,
            compact: false,
            delete: true,
            table: TableConfig {
                mode: TableMode::Shared,
                partition_by: PartitionBy::Day,
                freshness_ms: 60_000,
                retention: TableRetention::AsLog,
                snapshot_retention_ms: 3_600_000,
            },
        }
    );
}

#[test]
fn the_topic_comes_before_the_broker_before_the_default() {
    let broker = map(&[("log.retention.hours", "2"), ("message.max.bytes", "5000")]);
    let topic = map(&[("max.message.bytes", "7000")]);
    let config = TopicConfig::resolve(&topic, &broker);
    assert_eq!(config.retention_ms, Some(7_200_000));
    assert_eq!(config.max_message_bytes, 7000);
    let of = |name| effective(name, &topic, &broker);
    let found = |value: &str, source| Some((value.to_owned(), source));
    assert_eq!(
        of("retention.ms"),
        found("7200000", Source::Broker("log.retention.hours"))
    );
    assert_eq!(of("max.message.bytes"), found("7000", Source::Topic));
    assert_eq!(
        of("flush.ms"),
        found("9223372036854775807", Source::Default)
    );
    assert_eq!(of("nothing"), None);

    let finer = map(&[("log.retention.hours", "2"), ("log.retention.minutes", "1")]);
    assert_eq!(
        TopicConfig::resolve(&map(&[]), &finer).retention_ms,
        Some(60_000)
    );
    let never = map(&[("log.retention.hours", "-1")]);
    assert_eq!(TopicConfig::resolve(&map(&[]), &never).retention_ms, None);
}

#[test]
fn nothing_is_removed_from_a_topic_that_is_only_compacted() {
    let with = |policy| {
        let topic = map(&[
            ("cleanup.policy", policy),
            ("retention.ms", "1"),
            ("retention.bytes", "1"),
        ]);
        let config = TopicConfig::resolve(&topic, &map(&[]));
        (
            config.compact,
            config.delete,
            config.retention_ms,
            config.retention_bytes,
        )
    };
    assert_eq!(with("compact"), (true, false, None, None));
    assert_eq!(with("compact,delete"), (true, true, Some(1), Some(1)));
    assert_eq!(with("delete"), (false, true, Some(1), Some(1)));
    assert_eq!(with(""), (false, false, None, None));
}

#[test]
fn what_is_not_understood_counts_as_the_default() {
    let topic = map(&[
        ("retention.ms", "a year"),
        ("frazil.durability", "replicated"),
    ]);
    assert_eq!(
        TopicConfig::resolve(&topic, &map(&[])),
        TopicConfig::default()
    );
}

#[test]
fn batches_have_a_limit_whatever_the_topic_says() {
    let topic = map(&[
        ("max.message.bytes", "2147483647"),
        ("compression.type", "lz4"),
    ]);
    let limits = TopicConfig::resolve(&topic, &map(&[])).limits(17);
    assert_eq!(limits.max_message_bytes as usize, BATCH_MAX);
    assert_eq!(limits.compression, Some(Codec::Lz4));
    assert_eq!(limits.now_ms, 17);
}

#[test]
fn tables_are_made_as_the_topic_or_the_broker_says() {
    let broker = map(&[
        ("frazil.table.mode", "copy"),
        ("frazil.table.freshness.ms", "5000"),
    ]);
    let topic = map(&[
        ("frazil.table.mode", "shared"),
        ("frazil.table.partition.by", "hour"),
        ("frazil.table.retention.ms", "-1"),
    ]);
    let table = |topic: &BTreeMap<String, String>| TopicConfig::resolve(topic, &broker).table;
    assert_eq!(table(&map(&[])).mode, TableMode::Copy);
    let of = table(&topic);
    assert_eq!((of.mode, of.freshness_ms), (TableMode::Shared, 5000));
    assert_eq!(of.partition_by, PartitionBy::Hour);
    assert_eq!(of.retention, TableRetention::Forever);
    assert_eq!(
        table(&map(&[("frazil.table.retention.ms", "7")])).retention,
        TableRetention::Ms(7)
    );
    for (name, value) in [
        ("frazil.table.mode", "on"),
        ("frazil.table.partition.by", "week"),
        ("frazil.table.retention.ms", "-3"),
        ("frazil.table.freshness.ms", "-1"),
        ("frazil.table.snapshot.retention.ms", "-1"),
    ] {
        assert!(validate(name, value).is_err(), "{name}={value}");
    }
}
