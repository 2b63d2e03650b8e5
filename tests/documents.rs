//! Holds the documents to the code: what they name must exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between single backquotes, code blocks left out.
fn quoted(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Whether `text` holds a test of this name: an attribute that makes it one, or a property.
fn has_test(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else {
        return false;
    };
    let before: Vec<&str> = text[..at].lines().rev().collect();
    let mut attributes = before
        .iter()
        .skip_while(|line| line.trim().is_empty() || line.trim() == "async")
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// The tests that a document names as `path::test`.
fn tests_named_in(document: &str) -> BTreeSet<(String, String)> {
    quoted(&read(document))
        .into_iter()
        .filter_map(|text| {
            let (path, name) = text.split_once(".rs::")?;
            Some((format!("{path}.rs"), name.to_owned()))
        })
        .collect()
}

fn check_tests_named_in(document: &str) {
    let named = tests_named_in(document);
    assert!(!named.is_empty(), "{document} names no test");
    for (path, name) in named {
        assert!(
            root().join(&path).is_file(),
            "{document} names {path}, which does not exist"
        );
        assert!(
            has_test(&read(&path), &name),
            "{document} names {path}::{name}, which is not a test"
        );
    }
}

#[test]
fn every_guarantee_names_a_test_that_exists() {
    check_tests_named_in("GUARANTEES.md");
    let text = read("GUARANTEES.md");
    let promises = text
        .split("\n- ")
        .skip(1)
        .map(|item| item.split("\n\n").next().unwrap_or(item));
    for promise in promises {
        assert!(promise.contains(".rs::"), "no test holds: {promise}");
    }
}

#[test]
fn every_format_names_its_test_and_every_golden_file_is_documented() {
    check_tests_named_in("docs/formats.md");
    let text = read("docs/formats.md");
    let golden = root().join("tests/formats/golden");
    for entry in std::fs::read_dir(golden).expect("golden files") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a plain name");
        let documented = text.contains(&format!("`{name}`"))
            || (name.starts_with("batch-v2-") && text.contains("`batch-v2-*.bin`"));
        assert!(documented, "docs/formats.md does not name {name}");
    }
}

#[test]
fn where_invariants_are_checked_is_where_they_are() {
    check_tests_named_in("docs/reliability.md");
}

/// The root's manifest and the members'.
fn manifests() -> Vec<String> {
    let root: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let members = root["workspace"]["members"].as_array().expect("members");
    let members = members
        .iter()
        .map(|member| member.as_str().expect("a path"));
    std::iter::once("Cargo.toml".to_owned())
        .chain(members.map(|member| format!("{member}/Cargo.toml")))
        .collect()
}

#[test]
fn every_dependency_has_its_line() {
    let text = read("docs/dependencies.md");
    let documented: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split([',', ';', ' ', '(', ')']))
        .collect();
    let mut used = BTreeSet::new();
    for manifest in manifests() {
        let parsed: toml::Table = read(&manifest).parse().expect("a manifest");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(toml::Value::Table(table)) = parsed.get(section) else {
                continue;
            };
            used.extend(
                table
                    .keys()
                    .filter(|name| !name.starts_with("frazil"))
                    .cloned(),
            );
        }
    }
    for name in &used {
        assert!(
            documented.contains(name.as_str()),
            "docs/dependencies.md says nothing of {name}"
        );
    }
    let workspace: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let declared = workspace["workspace"]["dependencies"]
        .as_table()
        .expect("dependencies");
    for name in declared.keys().filter(|name| !name.starts_with("frazil")) {
        assert!(used.contains(name), "nobody uses {name}, which is declared");
    }
}

#[test]
fn files_that_documents_name_exist() {
    let mut documents: Vec<PathBuf> = vec!["docs/formats.md".into(), "docs/dependencies.md".into()];
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "GUARANTEES.md",
        "CHANGELOG.md",
    ] {
        documents.push(name.into());
    }
    for document in documents {
        let document = document.to_str().expect("a plain name");
        for text in quoted(&read(document)) {
            let top = [
                "core/",
                "table/",
                "cache/",
                "metadata/",
                "gateway/",
                "compactor/",
                "src/",
                "tests/",
                "bench/",
                "fuzz/",
                "docs/",
                ".ci/",
            ];
            let path = text.split(".rs::").next().unwrap_or(&text);
            let path = if text.contains(".rs::") {
                format!("{path}.rs")
            } else {
                path.to_owned()
            };
            let path = path.split_whitespace().next().unwrap_or_default();
            if top.iter().any(|start| path.starts_with(start)) && !path.contains(['*', '<', '…'])
            {
                assert!(root().join(path).exists(), "{document} names {path}");
            }
        }
    }
}
