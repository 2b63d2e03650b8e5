//! What an operator sees: exit codes, one clear line, health.

use std::net::TcpListener;
use std::process::Output;

use crate::server::{Server, free_address, serve};

fn fails(output: &Output, expected: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "one line says it:\n{stderr}");
    for part in expected {
        assert!(lines[0].contains(part), "{part:?} in {:?}", lines[0]);
    }
}

#[test]
fn an_occupied_port_is_one_line_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = serve(&data, address, free_address(), &[]).output().unwrap();
    fails(
        &output,
        &["listeners", &address.to_string(), "another process"],
    );
    assert!(!data.exists(), "nothing is written");
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let settings = ["num.partition=3".to_owned()];
    let output = serve(&data, free_address(), free_address(), &settings)
        .output()
        .unwrap();
    fails(&output, &["num.partition", "num.partitions"]);
    assert!(!data.exists(), "nothing is written");
}

#[test]
fn a_directory_that_cannot_be_made_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&file)
        .unwrap();
    let data = file.join("data");
    let mut command = serve(&data, free_address(), free_address(), &[]);
    let output = command.current_dir(dir.path()).output().unwrap();
    fails(&output, &[&data.display().to_string()]);
}

#[test]
fn health_and_metrics_answer() {
    let server = Server::start();
    assert_eq!(server.get("/livez").unwrap().0, 200);
    assert_eq!(server.get("/readyz").unwrap().0, 200);
    let (status, metrics) = server.get("/metrics").unwrap();
    assert_eq!(status, 200);
    for name in [
        "frazil_cache_puts_total",
        "frazil_metadata_commits_total",
        "frazil_gateway_",
    ] {
        assert!(metrics.contains(name), "{name} in:\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[test]
fn nothing_unexpected_is_logged_in_a_quiet_life() {
    let mut server = Server::start();
    assert_eq!(server.terminate(), Some(0));
    let log = server.log();
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[tokio::test]
async fn topics_that_become_tables_are_in_the_catalog_of_the_http_port() {
    let server = Server::start();
    for (name, mode) in [("orders", "shared"), ("logs", "off")] {
        let settings = [("frazil.table.mode", mode)];
        server.create_topic(name, 1, &settings).await;
    }
    let (status, list) = server.get("/iceberg/v1/namespaces/frazil/tables").unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let orders = serde_json::json!([{"namespace": ["frazil"], "name": "orders"}]);
    assert_eq!((status, &list["identifiers"]), (200, &orders));
    let table = "/iceberg/v1/namespaces/frazil/tables/orders";
    let (status, table) = server.get(table).unwrap();
    assert_eq!(status, 200, "{table}");
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    let location = table["metadata"]["location"].as_str().unwrap();
    let store = format!("file://{}/store/", server.data().display());
    assert!(location.starts_with(&store), "{location}");
    assert!(server.metric("frazil_catalog_requests_total") >= 2);

    let without = Server::with(&["catalog.enable=false"]);
    assert_eq!(without.get("/iceberg/v1/config").unwrap().0, 404);
}
