//! Drives workers against brokers, and judges the history.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use frazil_history::workload::{Role, Step, Sweep, Worker};
use frazil_history::{
    Answer, Client, Gateway, Group, History, Op, Outcome, Recorder, Topic, TopicPartition, check,
};

use crate::client;
use crate::member::Member;
use crate::server::{PATIENCE, Server};

/// How many partitions a topic has.
const PARTITIONS: i32 = 2;

/// Who creates, heals and sweeps.
const HARNESS: Client = Client(1000);

/// The seeds asked for, or so many.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    let Ok(text) = std::env::var("FAULTS_SEEDS") else {
        return 0..default;
    };
    let (start, end) = text.split_once("..").expect("FAULTS_SEEDS=from..to");
    start.parse().expect("a seed")..end.parse().expect("a seed")
}

/// How many faults a seed gets.
pub(crate) fn rounds() -> u64 {
    std::env::var("FAULTS_ROUNDS").map_or(3, |text| text.parse().expect("a number"))
}

/// Where a gateway is, and which of its lives this is.
pub(crate) struct Place {
    address: SocketAddr,
    number: AtomicU32,
}

impl Place {
    /// The gateway's place in its first life, or in all if they are not told apart.
    pub(crate) fn new(address: SocketAddr, number: u32) -> Self {
        Self {
            address,
            number: AtomicU32::new(number),
        }
    }

    /// The gateway begins another life; to be called before its process starts.
    pub(crate) fn reborn(&self) {
        // Numbers of lives of different gateways never meet.
        self.number.fetch_add(1000, Ordering::SeqCst);
    }

    fn gateway(&self) -> Gateway {
        Gateway(self.number.load(Ordering::SeqCst))
    }
}

/// Clients of one cluster, and what they see.
pub(crate) struct Harness {
    recorder: Recorder,
    places: Arc<[Place]>,
    topics: &'static [&'static str],
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    /// How much had been acknowledged when last asked.
    reached: usize,
}

impl Harness {
    /// For gateways, and topics that are named like their level.
    pub(crate) fn new(places: Vec<Place>, topics: &'static [&'static str]) -> Self {
        Self {
            recorder: Recorder::logical(),
            places: places.into(),
            topics,
            stop: Arc::default(),
            workers: Vec::new(),
            reached: 0,
        }
    }

    /// The gateways' places.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let of_topic = |topic| (0..PARTITIONS).map(move |p| TopicPartition::new(Topic(topic), p));
        (0..self.topics.len() as u32).flat_map(of_topic).collect()
    }

    /// Creates the topics through a gateway.
    pub(crate) async fn create_topics(&self, server: &Server) {
        for (number, level) in (0..).zip(self.topics) {
            let pending = self.recorder.begin(
                HARNESS,
                Op::CreateTopic {
                    topic: Topic(number),
                    name: (*level).to_owned(),
                    retention: false,
                    gaps: false,
                },
            );
            let settings = [("frazil.durability", *level)];
            server.create_topic(level, PARTITIONS, &settings).await;
            pending.ok(Answer::Done);
        }
    }

    /// Lets one worker of each role work.
    pub(crate) fn work(&mut self, roles: &[Role], seed: u64) {
        for (number, role) in (0..).zip(roles) {
            let mut partitions = self.partitions();
            if *role == Role::Deleter {
                // The others keep everything, so that nothing lost can pass for deleted.
                partitions.retain(|at| at.partition == 1);
            }
            let gateways = self.places.len() as u32;
            let mut worker = Worker::new(*role, Client(number), &partitions, gateways, seed);
            let (stop, mut caller) = (self.stop.clone(), self.caller(Client(number)));
            self.workers.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let step = worker.step();
                    let outcome = caller.call(&step);
                    worker.learn(&step.op, &outcome);
                    park_timeout(pause(&outcome));
                }
            }));
        }
    }

    /// Lets so many members of a group consume.
    pub(crate) fn consume(&mut self, group: Group, members: u32, seed: u64) {
        for number in 0..members {
            let caller = self.caller(Client(500 + number));
            let partitions = self.partitions();
            let stop = self.stop.clone();
            let topics = self.topics;
            self.workers.push(std::thread::spawn(move || {
                let mut member = Member::new(caller, group, topics, &partitions, seed);
                while !stop.load(Ordering::Relaxed) {
                    let pause = member.step();
                    park_timeout(pause);
                }
            }));
        }
    }

    fn caller(&self, client: Client) -> Caller {
        let connect = |place: &Place| client::Client::new(place.address, self.topics);
        Caller {
            client,
            connections: self.places.iter().map(connect).collect(),
            places: self.places.clone(),
            recorder: self.recorder.clone(),
        }
    }

    /// Waits until something has been acknowledged since the last time: no fault counts at which
    /// nothing was at stake.
    pub(crate) fn progress(&mut self, what: &str) {
        let start = Instant::now();
        loop {
            let now = acknowledged(&self.recorder.history());
            if now >= self.reached + 10 {
                self.reached = now;
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "nothing is acknowledged: {what}"
            );
            park_timeout(Duration::from_millis(20));
        }
    }

    /// Ends the workers.
    pub(crate) fn pause(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("no worker panics");
        }
    }

    /// Ends the workers and reads everything: the history, and why not everything could be read.
    pub(crate) fn finish(mut self) -> (History, Option<String>) {
        self.pause();
        let mut caller = self.caller(HARNESS);
        self.recorder.begin(HARNESS, Op::Healed).ok(Answer::Done);
        let mut sweep = Sweep::new(&self.partitions(), self.places.len() as u32);
        let start = Instant::now();
        while let Some(step) = sweep.step() {
            let outcome = caller.call(&step);
            sweep.learn(&step.op, &outcome);
            if start.elapsed() > PATIENCE {
                let stuck = format!("the sweep is stuck at {step:?}: {outcome:?}");
                return (self.recorder.history(), Some(stuck));
            }
            if outcome.answer().is_none() {
                park_timeout(pause(&outcome));
            }
        }
        (self.recorder.history(), None)
    }

    /// Ends the workers, reads everything, and fails if a promise was broken.
    pub(crate) fn judge(self, test: &str, seed: u64) {
        let (history, stuck) = self.finish();
        let count = |what: fn(&Op) -> bool| {
            let events = history.events.iter();
            let done = events.filter(|event| event.outcome.answer().is_some());
            done.filter(|event| what(&event.op)).count()
        };
        println!(
            "{test}, seed {seed}: {} events, {} batches acknowledged, {} polled in {} assignments, {} \
             commits",
            history.events.len(),
            acknowledged(&history),
            count(|op| matches!(op, Op::Poll { .. })),
            count(|op| matches!(op, Op::Join { .. })),
            count(|op| matches!(op, Op::OffsetCommit { .. })),
        );
        judge(&history, test, seed);
        // What has been recorded says more than that the sweep does not end, so this comes last.
        assert_eq!(stuck, None, "{test}, seed {seed}");
    }
}

const fn pause(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Ok(_) => Duration::from_millis(1),
        Outcome::Fail(_) | Outcome::Info(_) => Duration::from_millis(20),
    }
}

/// One client with a connection to each gateway.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) connections: Vec<client::Client>,
    places: Arc<[Place]>,
    pub(crate) recorder: Recorder,
}

impl Caller {
    /// Does one operation, and records it.
    pub(crate) fn call(&mut self, step: &Step) -> Outcome {
        let index = step.gateway.0 as usize;
        let gateway = self.places[index].gateway();
        let pending = self
            .recorder
            .begin(self.client, step.op.clone().through(gateway));
        let mut outcome = self.connections[index].call(&step.op);
        if self.places[index].gateway() != gateway && outcome.answer().is_some() {
            // Which life answered cannot be known.
            outcome = Outcome::Info(0);
        }
        pending.end(outcome.clone());
        outcome
    }
}

/// Fails if a promise was broken, and keeps the history then, or if asked to.
fn judge(history: &History, test: &str, seed: u64) {
    let found = check(history);
    let keep = std::env::var_os("FAULTS_KEEP").is_some();
    if found.is_empty() && !keep {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{seed}.jsonl"));
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
        "{test}, seed {seed}: {} violations; the history is in {}\n{}",
        found.len(),
        path.display(),
        shown.join("\n")
    );
}

/// How many batches were acknowledged.
fn acknowledged(history: &History) -> usize {
    let produced = |op: &Op| matches!(op, Op::Produce { .. });
    let events = history.events.iter();
    events
        .filter(|event| produced(&event.op) && event.outcome.answer().is_some())
        .count()
}
