//! The quorum's disk is lost, and the bucket gives its content back.

use std::process::{Command, Output};

use rdkafka::Offset;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::produce::{next, reader};
use crate::server::{PATIENCE, Server};

fn recover(server: &Server, cluster: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["recover", "--cluster-id", cluster])
        .args(["--set", &format!("data.dir={}", server.data().display())])
        .current_dir(server.data())
        .output()
        .unwrap()
}

async fn send(server: &Server, numbers: std::ops::Range<i64>) {
    let producer: FutureProducer = server.client().create().unwrap();
    for n in numbers {
        let value = n.to_string();
        let record = FutureRecord::<str, str>::to("kept").payload(&value);
        let delivery = producer.send(record, PATIENCE).await.unwrap();
        assert_eq!(delivery.offset, n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_recovered_from_the_bucket_and_every_record_is_readable() {
    let mut server = Server::start();
    server.create_topic("kept", 1, &[]).await;
    send(&server, 0..50).await;
    assert_eq!(server.terminate(), Some(0), "{}", server.log());

    // The only directory below the store is the cluster's, whose name is its id.
    let mut below = std::fs::read_dir(server.data().join("store")).unwrap();
    let cluster = below
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    assert!(below.next().is_none());
    let refused = recover(&server, &cluster);
    assert!(!refused.status.success(), "there is a quorum");

    for round in 0..2 {
        std::fs::remove_dir_all(server.data().join("quorum")).unwrap();
        let unknown = recover(&server, "someone-else");
        assert!(!unknown.status.success());
        let output = recover(&server, &cluster);
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert!(text.starts_with("recovered up to index "), "{text}");
        assert!(
            text.contains("no segment in the bucket is unknown"),
            "{text}"
        );
        assert!(!text.contains("MISSING"), "{text}");

        server.revive();
        let begin = 50 * (round + 1);
        send(&server, begin..begin + 50).await;
        let consumer = reader(&server, "kept", 0, Offset::Beginning);
        for n in 0..begin + 50 {
            let record = next(&consumer);
            assert_eq!(record.offset(), n);
            assert_eq!(record.payload(), Some(n.to_string().as_bytes()));
        }
        drop(consumer);
        assert_eq!(server.terminate(), Some(0), "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_after_the_archive_is_told_by_name() {
    // Not archived for as long as the last part takes.
    let mut server = Server::with(&["metadata.archive.interval.ms=3000"]);
    server.create_topic("kept", 1, &[]).await;
    send(&server, 0..5).await;
    let store = server.data().join("store");
    let parts = || {
        let mut clusters = std::fs::read_dir(&store).unwrap();
        let cluster = clusters.next().unwrap().unwrap().path();
        let archived = std::fs::read_dir(cluster.join("quorum/log"));
        let names = archived
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        // What is being written has another name.
        let whole = names.filter(|name| name.to_str().is_some_and(|name| name.ends_with(".log")));
        (cluster, whole.count())
    };
    // The second put from now on has all that was sent before, and there is one because something
    // is committed.
    let start = std::time::Instant::now();
    for name in ["one", "two"] {
        let before = parts().1;
        server.create_topic(name, 1, &[]).await;
        while parts().1 == before {
            assert!(start.elapsed() < PATIENCE, "nothing is archived");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
    }
    let archived = parts().1;
    send(&server, 5..8).await;
    server.kill();
    let (cluster, now) = parts();
    assert_eq!(now, archived, "the machine is too slow for this test");

    std::fs::remove_dir_all(server.data().join("quorum")).unwrap();
    let cluster = cluster.file_name().unwrap().to_str().unwrap();
    let output = recover(&server, cluster);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("MAY BE MISSING"), "{text}");
    assert!(text.contains("kept-0: "), "{text}");
    server.revive();
    let consumer = reader(&server, "kept", 0, Offset::Beginning);
    for n in 0..5 {
        assert_eq!(next(&consumer).offset(), n);
    }
}
