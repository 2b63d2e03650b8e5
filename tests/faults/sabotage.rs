//! The suite, checked: a broker that really loses something acknowledged is found out.
//!
//! Its whole data directory, with quorum and store, is put back to what it was some rounds of
//! acknowledgements earlier, as a restored backup would. Nothing in the broker can notice that; the
//! history must.

use std::path::Path;

use frazil_history::workload::Role;
use frazil_history::{Group, Invariant};

use crate::harness::{Harness, Place};
use crate::server::Server;

const ROLES: [Role; 4] = [
    Role::Idempotent,
    Role::Plain(-1),
    Role::Reader,
    Role::Committer(Group(0)),
];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_back_in_time_is_found_out() {
    let mut server = Server::start();
    let mut harness = Harness::new(vec![Place::new(server.kafka, 0)], &["object", "local"]);
    harness.create_topics(&server).await;
    harness.work(&ROLES, 0);
    harness.progress("at first");
    server.kill();
    let backup = tempfile::tempdir().unwrap();
    copy(&server.data(), backup.path());
    server.revive();
    harness.progress("before it goes back");
    harness.pause();
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(backup.path(), &server.data());
    server.revive();
    let (history, stuck) = harness.finish();
    assert_eq!(stuck, None);
    let found = frazil_history::check(&history);
    let named = |invariant| {
        found
            .iter()
            .any(|violation| violation.invariant == invariant)
    };
    assert!(named(Invariant::I2) || named(Invariant::I3), "{found:#?}");
}
