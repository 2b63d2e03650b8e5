//! A consumer group at work, and the last read of everything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use frazil_history::{
    Answer, Client, Event, Gateway, Group, Isolation, Op, Outcome, Record, Topic, TopicPartition,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode as ErrorCode;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::load::{PARTITIONS, Timer, number};

/// How many members the group has.
const MEMBERS: u32 = 2;
const GROUP: Group = Group(0);
/// Who reads everything at the end.
const SWEEPER: Client = Client(200);
/// How long reading everything may take.
const PATIENCE: Duration = Duration::from_secs(90);

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new(Topic(0), partition)
}

pub(crate) fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: message.offset(),
        value: number(message.payload()),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
    }
}

/// What members share.
struct Shared {
    timer: Timer,
    stop: AtomicBool,
    events: Mutex<Vec<Event>>,
    errors: Mutex<Vec<String>>,
    /// The next offset to be read of each partition, as far as the group has come.
    reached: [AtomicU64; PARTITIONS as usize],
}

impl Shared {
    fn error(&self, error: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.push(error);
    }

    fn event(&self, client: Client, invoke: u64, op: Op, outcome: Outcome) {
        let ret = self.timer.now();
        let event = Event {
            client,
            invoke,
            ret,
            op,
            outcome,
        };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
    }
}

/// One member's callbacks.
struct Member {
    client: Client,
    shared: Arc<Shared>,
    /// When it polled last: an assignment cannot be older.
    polled: AtomicU64,
}

impl ClientContext for Member {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| at(e.partition())).collect()
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (op, answer) = match rebalance {
            Rebalance::Assign(list) => (
                Op::Join { group: GROUP },
                Answer::Assignment {
                    generation: None,
                    partitions: partitions(list),
                },
            ),
            Rebalance::Revoke(list) => (
                Op::Revoke {
                    group: GROUP,
                    partitions: partitions(list),
                },
                Answer::Done,
            ),
            Rebalance::Error(_) => return,
        };
        let invoke = self.polled.load(Ordering::Relaxed);
        self.shared
            .event(self.client, invoke, op, Outcome::Ok(answer));
    }
}

/// A group at work.
pub(crate) struct Members {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What became of it.
pub(crate) struct Consumed {
    pub events: Vec<Event>,
    /// What the application was told, beyond news of connections.
    pub errors: Vec<String>,
    /// How far the group has come.
    pub reached: Vec<i64>,
}

impl Members {
    pub(crate) fn start(bootstrap: &str, topic: &str, timer: Timer) -> Result<Self> {
        let shared = Arc::new(Shared {
            timer,
            stop: AtomicBool::new(false),
            events: Mutex::default(),
            errors: Mutex::default(),
            reached: Default::default(),
        });
        let mut threads = Vec::new();
        for number in 0..MEMBERS {
            let member = Member {
                client: Client(100 + number),
                shared: Arc::clone(&shared),
                polled: AtomicU64::new(timer.now()),
            };
            let consumer: BaseConsumer<Member> = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("broker.address.family", "v4")
                .set("group.id", "reliability")
                .set("auto.offset.reset", "earliest")
                .set("enable.auto.commit", "false")
                .create_with_context(member)?;
            consumer.subscribe(&[topic])?;
            threads.push(std::thread::spawn(move || consume(&consumer)));
        }
        Ok(Self { shared, threads })
    }

    /// Waits until the group has come so far, or for a while; then ends it.
    pub(crate) fn finish(mut self, ends: &[i64]) -> Result<Consumed> {
        let start = Instant::now();
        let reached = |shared: &Shared| -> Vec<i64> {
            let reached = shared.reached.iter();
            reached
                .map(|next| next.load(Ordering::Relaxed) as i64)
                .collect()
        };
        while reached(&self.shared)
            .iter()
            .zip(ends)
            .any(|(next, end)| next < end)
            && start.elapsed() < PATIENCE
        {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a member panicked"))??;
        }
        let take = |mutex: &Mutex<Vec<Event>>| {
            std::mem::take(&mut *mutex.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let errors = self.shared.errors.lock();
        Ok(Consumed {
            events: take(&self.shared.events),
            errors: errors.unwrap_or_else(PoisonError::into_inner).clone(),
            reached: reached(&self.shared),
        })
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// librdkafka's news of connections: it goes on by itself, and its documentation says to ignore it.
pub(crate) fn is_news(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            ErrorCode::BrokerTransportFailure
                | ErrorCode::AllBrokersDown
                | ErrorCode::OperationTimedOut
                | ErrorCode::Resolve
        )
    )
}

fn consume(consumer: &BaseConsumer<Member>) -> Result<()> {
    let member: &Member = consumer.context();
    let shared = &member.shared;
    let mut last_commit = Instant::now();
    let mut uncommitted = false;
    while !shared.stop.load(Ordering::Relaxed) {
        let invoke = shared.timer.now();
        let polled = consumer.poll(Duration::from_millis(100));
        member.polled.store(invoke, Ordering::Relaxed);
        match polled {
            None => {}
            Some(Ok(message)) => {
                let record = record(&message);
                let partition = message.partition();
                let op = Op::Poll {
                    group: GROUP,
                    at: at(partition),
                };
                let answer = Answer::Polled(vec![record]);
                shared.event(member.client, invoke, op, Outcome::Ok(answer));
                let next = record.offset as u64 + 1;
                shared.reached[partition as usize].fetch_max(next, Ordering::Relaxed);
                uncommitted = true;
            }
            Some(Err(error)) if is_news(&error) => {}
            Some(Err(error)) => shared.error(error.to_string()),
        }
        if uncommitted && last_commit.elapsed() > Duration::from_secs(1) {
            uncommitted = false;
            commit(consumer)?;
            last_commit = Instant::now();
        }
    }
    Ok(())
}

/// A commit that is refused because the group has moved on is no error: what it was about will be
/// delivered again.
fn is_rebalancing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            ErrorCode::IllegalGeneration
                | ErrorCode::RebalanceInProgress
                | ErrorCode::UnknownMemberId
                | ErrorCode::NoOffset
                | ErrorCode::AssignmentLost
        )
    )
}

/// Commits where this member is, and waits for the answer.
fn commit(consumer: &BaseConsumer<Member>) -> Result<()> {
    let member: &Member = consumer.context();
    let mut list = TopicPartitionList::new();
    for element in consumer.position()?.elements() {
        if let Offset::Offset(_) = element.offset() {
            list.add_partition_offset(element.topic(), element.partition(), element.offset())?;
        }
    }
    if list.count() == 0 {
        return Ok(());
    }
    let invoke = member.shared.timer.now();
    let committed = consumer.commit(&list, CommitMode::Sync);
    // One that failed may have been tried before.
    let outcome = match &committed {
        Ok(()) => Outcome::Ok(Answer::Done),
        Err(_) => Outcome::Info(0),
    };
    for element in list.elements() {
        let Offset::Offset(offset) = element.offset() else {
            continue;
        };
        let op = Op::OffsetCommit {
            group: GROUP,
            generation: None,
            at: at(element.partition()),
            offset,
        };
        member
            .shared
            .event(member.client, invoke, op, outcome.clone());
    }
    if let Err(error) = committed
        && !is_rebalancing(&error)
    {
        member.shared.error(format!("commit: {error}"));
    }
    Ok(())
}

/// Reads every partition from its start to its end, as events of a history, and where they end.
pub(crate) fn sweep(bootstrap: &str, topic: &str, timer: Timer) -> Result<(Vec<Event>, Vec<i64>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("broker.address.family", "v4")
        .set("group.id", "sweep")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut events = vec![Event {
        client: SWEEPER,
        invoke: timer.now(),
        ret: timer.now(),
        op: Op::Healed,
        outcome: Outcome::Ok(Answer::Done),
    }];
    let mut list = TopicPartitionList::new();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for partition in 0..PARTITIONS {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(30))
            .with_context(|| format!("the bounds of partition {partition}"))?;
        starts.push(low);
        ends.push(high);
        list.add_partition_offset(topic, partition, Offset::Offset(low))?;
    }
    consumer.assign(&list)?;
    let begun = timer.now();
    let mut read: Vec<Vec<Record>> = vec![Vec::new(); PARTITIONS as usize];
    let mut left: i64 = ends.iter().zip(&starts).map(|(end, low)| end - low).sum();
    let start = Instant::now();
    while left > 0 {
        if start.elapsed() > PATIENCE {
            bail!("{left} records cannot be read within {PATIENCE:?}");
        }
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                let partition = message.partition() as usize;
                if message.offset() < ends[partition] {
                    read[partition].push(record(&message));
                    // A log with a hole would never be read to its end.
                    if message.offset() == ends[partition] - 1 {
                        left -= ends[partition] - starts[partition];
                    }
                }
            }
            Some(Err(error)) if !is_news(&error) => bail!("reading everything: {error}"),
            Some(Err(_)) | None => {}
        }
    }
    for (partition, records) in (0..).zip(read) {
        let op = Op::Fetch {
            at: at(partition),
            from: starts[partition as usize],
            isolation: Isolation::ReadCommitted,
            gateway: Gateway(0),
        };
        events.push(Event {
            client: SWEEPER,
            invoke: begun,
            ret: timer.now(),
            op,
            outcome: Outcome::Ok(Answer::Records {
                records,
                high_watermark: ends[partition as usize],
                log_start: Some(starts[partition as usize]),
                last_stable: None,
            }),
        });
    }
    Ok((events, ends))
}
