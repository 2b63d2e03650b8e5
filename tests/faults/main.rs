//! Black box under faults: clients record what they see of a broker that is killed again and
//! again, and the history must show no broken promise.
//!
//! Which seeds and how many kills each: `FAULTS_SEEDS=1000..1100 FAULTS_ROUNDS=20
//! cargo test --test faults`. A failure prints its seed and keeps its history in a file, which
//! `cargo run -p frazil-history < file` checks again; `FAULTS_KEEP=1` keeps all. The seed fixes what clients ask and when
//! kills are due; what else happens is up to the machine.

mod client;
#[path = "../kafka/raw.rs"]
#[allow(dead_code, reason = "tests/kafka uses the rest of it")]
mod raw;
#[path = "../kafka/server.rs"]
#[allow(dead_code, reason = "tests/kafka uses the rest of it")]
mod server;

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use frazil_history::workload::{Role, Sweep, Worker};
use frazil_history::{
    Answer, Client, Group, History, Op, Outcome, Recorder, Rng, Topic, TopicPartition, check,
};

use crate::server::{PATIENCE, Server};

/// The topics by number: one of each level.
const TOPICS: [&str; 2] = ["object", "local"];
const PARTITIONS: i32 = 2;
const ROLES: [Role; 8] = [
    Role::Idempotent,
    Role::Idempotent,
    Role::Plain(-1),
    Role::Plain(1),
    Role::Reader,
    Role::Reader,
    Role::Committer(Group(0)),
    Role::Deleter,
];

/// Who creates, heals and sweeps.
const HARNESS: Client = Client(1000);

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("FAULTS_SEEDS") else {
        return 0..2;
    };
    let (start, end) = text.split_once("..").expect("FAULTS_SEEDS=from..to");
    start.parse().expect("a seed")..end.parse().expect("a seed")
}

fn rounds() -> u64 {
    std::env::var("FAULTS_ROUNDS").map_or(3, |text| text.parse().expect("a number"))
}

fn partitions() -> Vec<TopicPartition> {
    let of_topic = |topic| (0..PARTITIONS).map(move |p| TopicPartition::new(Topic(topic), p));
    (0..TOPICS.len() as u32).flat_map(of_topic).collect()
}

async fn create_topics(server: &Server, recorder: &Recorder) {
    for (number, level) in (0..).zip(TOPICS) {
        let pending = recorder.begin(
            HARNESS,
            Op::CreateTopic {
                topic: Topic(number),
                name: level.to_owned(),
                retention: false,
                gaps: false,
            },
        );
        let settings = [("frazil.durability", level)];
        server.create_topic(level, PARTITIONS, &settings).await;
        pending.ok(Answer::Done);
    }
}

/// Lets a worker work until it is told to stop.
fn spawn(
    mut worker: Worker,
    address: SocketAddr,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut client = client::Client::new(address, &TOPICS);
        while !stop.load(Ordering::Relaxed) {
            let step = worker.step();
            let pending = recorder.begin(worker.client(), step.op.clone());
            let outcome = client.call(&step.op);
            worker.learn(&step.op, &outcome);
            let pause = match outcome {
                Outcome::Ok(_) => Duration::from_millis(1),
                _ => Duration::from_millis(20),
            };
            pending.end(outcome);
            park_timeout(pause);
        }
    })
}

/// Reads everything, with patience for what is not ready.
fn sweep(address: SocketAddr, recorder: &Recorder) {
    recorder.begin(HARNESS, Op::Healed).ok(Answer::Done);
    let mut client = client::Client::new(address, &TOPICS);
    let mut sweep = Sweep::new(&partitions(), 1);
    let start = Instant::now();
    while let Some(step) = sweep.step() {
        let pending = recorder.begin(HARNESS, step.op.clone());
        let outcome = client.call(&step.op);
        assert!(
            start.elapsed() < PATIENCE,
            "the sweep is stuck at {:?}: {outcome:?}",
            step.op
        );
        sweep.learn(&step.op, &outcome);
        if outcome.answer().is_none() {
            park_timeout(Duration::from_millis(20));
        }
        pending.end(outcome);
    }
}

/// Fails if a promise was broken, and keeps the history then, or if asked to.
fn judge(history: &History, seed: u64) {
    let found = check(history);
    let keep = std::env::var_os("FAULTS_KEEP").is_some();
    if found.is_empty() && !keep {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}.jsonl"));
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    history.write(BufWriter::new(file)).unwrap();
    if found.is_empty() {
        return;
    }
    let shown: Vec<String> = found.iter().take(8).map(|f| f.explain(history)).collect();
    panic!(
        "seed {seed}: {} violations; the history is in {}\n{}",
        found.len(),
        path.display(),
        shown.join("\n")
    );
}

/// How much of a history was acknowledged.
fn acknowledged(history: &History) -> usize {
    let produced = |op: &Op| matches!(op, Op::Produce { .. });
    let events = history.events.iter();
    events
        .filter(|event| produced(&event.op) && event.outcome.answer().is_some())
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_a_broker_that_is_killed_and_keeps_its_disk() {
    for seed in seeds() {
        let mut server = Server::start();
        let recorder = Recorder::logical();
        create_topics(&server, &recorder).await;
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<JoinHandle<()>> = (0..)
            .zip(ROLES)
            .map(|(number, role)| {
                let mut partitions = partitions();
                if role == Role::Deleter {
                    // The others keep everything, so that nothing lost can pass for deleted.
                    partitions.retain(|at| at.partition == 1);
                }
                let worker = Worker::new(role, Client(number), &partitions, 1, seed);
                spawn(worker, server.kafka, recorder.clone(), stop.clone())
            })
            .collect();
        let mut rng = Rng::new(seed);
        let mut reached = 0;
        for round in 0..rounds() {
            park_timeout(Duration::from_millis(200 + rng.below(600)));
            if rng.chance(80) {
                server.kill();
            } else {
                server.terminate();
            }
            server.revive();
            // No round counts in which nothing was at stake.
            let start = Instant::now();
            while acknowledged(&recorder.history()) < reached + 10 {
                assert!(
                    start.elapsed() < PATIENCE,
                    "seed {seed}: nothing is acknowledged after kill {round}"
                );
                park_timeout(Duration::from_millis(20));
            }
            reached = acknowledged(&recorder.history());
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        sweep(server.kafka, &recorder);
        let history = recorder.history();
        println!(
            "seed {seed}: {} events, {} batches acknowledged",
            history.events.len(),
            acknowledged(&history)
        );
        judge(&history, seed);
    }
}
