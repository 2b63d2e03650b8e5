use clap::{CommandFactory as _, Parser as _};

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    Cli::try_parse_from(line.split_whitespace())
        .map(|cli| cli.command)
        .map_err(|e| e.to_string())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_setting_is_a_flag() {
    #[derive(Debug, clap::Parser)]
    struct Node {
        #[command(flatten)]
        settings: ConfigArgs,
    }
    let line = "x --roles gateway --data-dir /d --store-url memory: --listeners :9092 \
                --log-retention-ms -1 --config f.toml --set num.partitions=3 --set a.b=c=d";
    let node = Node::try_parse_from(line.split_whitespace()).unwrap();
    let flag = |key: &str| {
        let found = node.settings.flags.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(flag("roles"), Some("gateway"));
    assert_eq!(flag("data.dir"), Some("/d"));
    assert_eq!(flag("store.url"), Some("memory:"));
    assert_eq!(flag("listeners"), Some(":9092"));
    assert_eq!(flag("log.retention.ms"), Some("-1"));
    assert_eq!(flag("node.id"), None);
    assert_eq!(
        node.settings.file.as_deref(),
        Some(std::path::Path::new("f.toml"))
    );
    let set = [("num.partitions", "3"), ("a.b", "c=d")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(node.settings.set, set);
    for key in crate::config::KEYS {
        let flag = format!("--{}", key.flag());
        let node = Node::try_parse_from(["x", &flag, "7"]).unwrap();
        assert_eq!(node.settings.flags, [(key.name.to_owned(), "7".to_owned())]);
    }
}

#[test]
fn commands_are_understood() {
    for line in [
        "frazil config --json --num-partitions 3",
        "frazil topic create t -p 3 -c retention.ms=1 -c cleanup.policy=compact --if-not-exists",
        "frazil topic list --json -b other:9092 -X debug=all --timeout 3",
        "frazil topic describe a b",
        "frazil topic alter t --partitions 4",
        "frazil topic alter t --config a=b --delete-config c",
        "frazil topic delete a b",
        "frazil produce t -k : -p 0 -H a=b -H c=d -z zstd --acks 1",
        "frazil produce t --file a b c --acks all",
        "frazil produce t --files dir",
        "frazil consume t --from-beginning -n 3 --json",
        "frazil consume t --offset -5 --partition 0 -p 1 --until-end --format %k:%v",
        "frazil consume t --group g --files-to dir",
        "frazil group list",
        "frazil group describe g --json",
        "frazil group reset-offsets g --topic a --topic b --to-earliest --execute",
        "frazil group reset-offsets g --to-datetime 2026-11-20T08:30:00Z",
        "frazil group delete a b",
        "frazil table list --json -c http://node:8080 --timeout 3",
        "frazil table describe a b --namespace n",
        "frazil table snapshots t --json",
        "frazil table files t --snapshot 7",
        "frazil cluster --json",
    ] {
        parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn commands_that_contradict_themselves_are_refused() {
    for line in [
        "frazil",
        "frazil topic create",
        "frazil topic create t -p 0",
        "frazil topic create t -c novalue",
        "frazil topic alter t",
        "frazil topic delete",
        "frazil produce t --file a --files b",
        "frazil produce t --files b -k :",
        "frazil produce t -z brotli",
        "frazil produce t --acks 2",
        "frazil consume t --from-beginning --offset 3",
        "frazil consume t --offset somewhere",
        "frazil consume t --group g --partition 0",
        "frazil consume t --json --files-to d",
        "frazil consume t --format %q",
        "frazil table describe",
        "frazil table files t --snapshot newest",
        "frazil group reset-offsets g",
        "frazil group reset-offsets g --to-earliest --to-latest",
        "frazil group reset-offsets g --to-datetime tomorrow",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
