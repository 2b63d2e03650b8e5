//! Clients: one operation at a time over turmoil's sockets, honest about how each ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use frazil_history::kafka::{Speaker, request};
use frazil_history::workload::{Step, Sweep, Worker};
use frazil_history::{Answer, Client, Gateway, Op, Outcome, Recorder, Topic, TopicPartition};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use turmoil::net::TcpStream;

use crate::node::{Host, KAFKA_PORT};
use crate::trace;

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many partitions a topic has.
pub const PARTITIONS: i32 = 2;
/// Who creates, heals and sweeps.
const HARNESS: Client = Client(1000);
/// Who creates and deletes topics meanwhile.
const CHURN: Client = Client(900);

/// What clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Create the topics.
    Begin,
    /// Work.
    Work,
    /// Finish the operation at hand.
    Stop,
    /// All have finished.
    Stopped,
    /// Read everything.
    Sweep,
    /// Everything has been read.
    Swept,
}

/// One attempt without an answer.
enum Lost {
    Unsent,
    Sent,
}

struct Connection {
    host: Arc<Host>,
    stream: Option<TcpStream>,
    correlation: i32,
}

impl Connection {
    async fn exchange(&mut self, frame: &[u8]) -> Result<Bytes, Lost> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let connecting = TcpStream::connect((self.host.name.as_str(), KAFKA_PORT));
                match tokio::time::timeout(TIMEOUT, connecting).await {
                    Ok(Ok(stream)) => empty.insert(stream),
                    Ok(Err(_)) | Err(_) => return Err(Lost::Unsent),
                }
            }
        };
        let exchange = async {
            stream.write_all(frame).await?;
            let length = stream.read_i32().await?;
            let mut answer = vec![0; length as usize];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer.into()),
            Ok(Err(_)) | Err(_) => {
                self.stream = None;
                Err(Lost::Sent)
            }
        }
    }
}

/// What all clients share.
#[derive(Clone)]
pub struct Crowd {
    /// What they see.
    pub recorder: Recorder,
    /// Whom they ask.
    pub gateways: Vec<Arc<Host>>,
    /// The names of the topics, by number.
    pub topics: Arc<Mutex<Vec<String>>>,
    /// How many of them stay.
    pub fixed: usize,
    /// The topics that nobody has tried to delete in earnest.
    pub there: Arc<Mutex<BTreeSet<u32>>>,
    /// What they are to do, and how far they are.
    pub phase: Arc<watch::Sender<Phase>>,
}

impl Crowd {
    fn caller(&self, client: Client) -> Caller {
        let connect = |host: &Arc<Host>| Connection {
            host: Arc::clone(host),
            stream: None,
            correlation: 0,
        };
        Caller {
            client,
            connections: self.gateways.iter().map(connect).collect(),
            crowd: self.clone(),
        }
    }

    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() == phase
    }

    async fn wait_for(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender is held here.
        let _ = phases.wait_for(|now| *now == phase).await;
    }
}

/// One client with a connection to each gateway.
struct Caller {
    client: Client,
    connections: Vec<Connection>,
    crowd: Crowd,
}

impl Caller {
    /// Does one operation, and records it.
    async fn call(&mut self, step: &Step, settings: &[(String, String)]) -> Outcome {
        let connection = &mut self.connections[step.gateway.0 as usize];
        let life = |host: &Host| Gateway(host.life.load(Ordering::Relaxed));
        let gateway = life(&connection.host);
        let op = step.op.clone().through(gateway);
        let pending = self.crowd.recorder.begin(self.client, op);
        connection.correlation += 1;
        let ask = {
            let topics = self.crowd.topics.lock();
            let speaker = Speaker {
                client_id: "sim",
                topics: &topics,
                member: "",
                partitions: PARTITIONS,
                settings,
            };
            request(&step.op, speaker, connection.correlation)
        };
        let mut outcome = match connection.exchange(&ask.frame()).await {
            Ok(answer) => ask.outcome(answer),
            Err(Lost::Unsent) => Outcome::Fail(0),
            Err(Lost::Sent) => Outcome::Info(0),
        };
        if life(&connection.host) != gateway && outcome.answer().is_some() {
            // Which life answered cannot be known.
            outcome = Outcome::Info(0);
        }
        trace::note(format_args!("{:?} {step:?} {outcome:?}", self.client));
        pending.end(outcome.clone());
        outcome
    }

    /// Creates a topic; repeated until it is there.
    async fn create(&mut self, topic: Topic, name: &str, settings: &[(String, String)]) {
        const EXISTS: i16 = 36;
        let retention = settings.iter().any(|(key, _)| key == "retention.bytes");
        let op = Op::CreateTopic {
            topic,
            name: name.to_owned(),
            retention,
            gaps: false,
        };
        let gateways = self.connections.len() as u32;
        // One event, whatever it takes: an attempt that was lost may have been the one.
        let pending = self.crowd.recorder.begin(self.client, op.clone());
        for turn in 0.. {
            let step = Step {
                gateway: Gateway(turn % gateways),
                op: op.clone(),
            };
            match self.attempt(&step, settings).await {
                Outcome::Ok(_) | Outcome::Fail(EXISTS) => break,
                Outcome::Fail(_) | Outcome::Info(_) => pause(200).await,
            }
        }
        pending.ok(Answer::Done);
    }

    /// Does one operation of which the caller records what comes of it.
    async fn attempt(&mut self, step: &Step, settings: &[(String, String)]) -> Outcome {
        let crowd = self.crowd.clone();
        // Nobody looks into this one.
        self.crowd.recorder = Recorder::logical();
        let outcome = self.call(step, settings).await;
        self.crowd = crowd;
        outcome
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// All clients, from the first topic to the last record read.
pub async fn crowd(
    crowd: Crowd,
    kinds: Vec<Vec<(String, String)>>,
    workers: Vec<Worker>,
    churns: bool,
) -> turmoil::Result {
    let mut harness = crowd.caller(HARNESS);
    let names = crowd.topics.lock().clone();
    for (number, (name, settings)) in (0..).zip(names.iter().zip(&kinds)) {
        harness.create(Topic(number), name, settings).await;
        crowd.there.lock().insert(number);
    }
    crowd.phase.send_replace(Phase::Work);
    let mut working = Vec::new();
    for worker in workers {
        working.push(tokio::spawn(work(crowd.clone(), worker)));
    }
    if churns {
        working.push(tokio::spawn(churn(crowd.clone(), kinds[0].clone())));
    }
    for task in working {
        task.await?;
    }
    crowd.phase.send_replace(Phase::Stopped);
    crowd.wait_for(Phase::Sweep).await;
    let begun = crowd.recorder.begin(HARNESS, Op::Healed);
    begun.ok(Answer::Done);
    let all: Vec<_> = crowd.there.lock().iter().copied().collect();
    let all: Vec<_> = all.into_iter().flat_map(partitions).collect();
    let gateways = harness.connections.len() as u32;
    // Through each gateway: a record may be lost on one alone.
    for first in 0..gateways {
        let mut sweep = Sweep::new(&all, 1);
        while let Some(mut step) = sweep.step() {
            step.gateway = Gateway(first);
            let outcome = harness.call(&step, &[]).await;
            sweep.learn(&step.op, &outcome);
            if outcome.answer().is_none() {
                pause(100).await;
            }
        }
    }
    crowd.phase.send_replace(Phase::Swept);
    std::future::pending().await
}

/// The partitions of a topic.
pub fn partitions(topic: u32) -> impl Iterator<Item = TopicPartition> {
    (0..PARTITIONS).map(move |p| TopicPartition::new(Topic(topic), p))
}

async fn work(crowd: Crowd, mut worker: Worker) {
    let mut caller = crowd.caller(worker.client());
    while crowd.is(Phase::Work) {
        let step = worker.step();
        let outcome = caller.call(&step, &[]).await;
        worker.learn(&step.op, &outcome);
        pause(match outcome {
            Outcome::Ok(_) => 20,
            Outcome::Fail(_) | Outcome::Info(_) => 60,
        })
        .await;
    }
}

/// Creates a topic, fills it, deletes it, and creates it again under the same name. After an
/// operation of which nobody knows whether it is still under way the name is left alone: it would
/// find the next topic of that name.
async fn churn(crowd: Crowd, settings: Vec<(String, String)>) {
    let mut caller = crowd.caller(CHURN);
    let gateways = caller.connections.len() as u32;
    let (mut value, mut name) = (u64::from(CHURN.0) << 40, 0);
    let mut turn = 0;
    while crowd.is(Phase::Work) {
        let topic = {
            let mut topics = crowd.topics.lock();
            topics.push(format!("churn-{name}"));
            Topic(topics.len() as u32 - 1)
        };
        caller
            .create(topic, &format!("churn-{name}"), &settings)
            .await;
        crowd.there.lock().insert(topic.0);
        let mut clean = true;
        for n in 0..3 {
            turn += 1;
            let step = Step {
                gateway: Gateway(turn % gateways),
                op: Op::Produce {
                    at: TopicPartition::new(topic, n % PARTITIONS),
                    values: vec![value],
                    producer: None,
                    acks: -1,
                    resends: false,
                },
            };
            value += 1;
            clean &= caller.call(&step, &[]).await.answer().is_some();
            pause(50).await;
        }
        let step = Step {
            gateway: Gateway(turn % gateways),
            op: Op::DeleteTopic { topic },
        };
        match caller.call(&step, &[]).await {
            Outcome::Ok(_) => drop(crowd.there.lock().remove(&topic.0)),
            Outcome::Fail(_) => clean = false,
            Outcome::Info(_) => {
                crowd.there.lock().remove(&topic.0);
                clean = false;
            }
        }
        if !clean {
            name += 1;
        }
        pause(400).await;
    }
}
