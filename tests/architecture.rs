//! Holds the arrows between the crates, as ARCHITECTURE.md draws them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What each member may use of the other members and, of the outside, must not.
fn rules() -> BTreeMap<&'static str, (&'static [&'static str], &'static [&'static str])> {
    const NO_RUNTIME: &[&str] = &["tokio", "tokio-util", "object_store", "openraft", "foyer"];
    const NO_KAFKA: &[&str] = &["kafka-protocol", "rdkafka"];
    BTreeMap::from([
        ("frazil-core", (&[][..], NO_RUNTIME)),
        ("frazil-table", (&["frazil-core"][..], NO_RUNTIME)),
        ("frazil-objects", (&["frazil-core"][..], NO_KAFKA)),
        (
            "frazil-cache",
            (
                &["frazil-core", "frazil-table", "frazil-objects"][..],
                NO_KAFKA,
            ),
        ),
        ("frazil-metadata", (&["frazil-core"][..], NO_KAFKA)),
        (
            "frazil-compactor",
            (
                &["frazil-core", "frazil-table", "frazil-objects"][..],
                NO_KAFKA,
            ),
        ),
        (
            "frazil-gateway",
            (
                &["frazil-core", "frazil-cache"][..],
                &["openraft", "rdkafka"][..],
            ),
        ),
        // It judges what others build, so it shares nothing with them but their words.
        ("frazil-history", (&["frazil-core"][..], NO_RUNTIME)),
        // It stands for somebody else's service.
        ("frazil-store", (&[][..], NO_KAFKA)),
    ])
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// The normal and build dependencies of every member; what only tests use is free.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            (package["name"].as_str().expect("a name").to_owned(), used)
        })
        .collect()
}

#[test]
fn the_arrows_between_the_crates_hold() {
    let found = dependencies();
    for (member, (allowed, banned)) in rules() {
        let used = found
            .get(member)
            .unwrap_or_else(|| panic!("{member} is a member"));
        for name in used.iter().filter(|name| name.starts_with("frazil")) {
            assert!(
                allowed.contains(&name.as_str()),
                "{member} must not use {name}"
            );
        }
        for name in banned {
            assert!(!used.contains(*name), "{member} must not use {name}");
        }
    }
}

#[test]
fn only_the_root_and_the_bench_see_the_whole() {
    for (member, used) in dependencies() {
        // The inner loops that are measured by themselves are the bench's.
        if ["frazil", "frazil-bench", "frazil-micro"].contains(&&*member) {
            continue;
        }
        for hub in [
            "frazil",
            "frazil-gateway",
            "frazil-metadata",
            "frazil-compactor",
        ] {
            assert!(!used.contains(hub), "{member} must not use {hub}");
        }
    }
}

/// Every `.rs` file of a crate, as (path, text).
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &std::path::Path, out: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text file");
                out.push((path.display().to_string(), text));
            }
        }
    }
    let mut out = Vec::new();
    walk(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut out,
    );
    out
}

#[test]
fn kafka_error_codes_appear_in_one_file_of_the_gateway() {
    for folder in [
        "core/src",
        "table/src",
        "cache/src",
        "metadata/src",
        "compactor/src",
        "gateway/src",
    ] {
        for (path, text) in sources(folder) {
            if path.ends_with("gateway/src/error.rs") {
                continue;
            }
            assert!(
                !text.contains("ResponseError"),
                "{path} names Kafka's error codes"
            );
        }
    }
}
