//! A reader that reads everything from the start, again and again: old segments, from the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use frazil_history::{Answer, Client, Event, Group, Op, Outcome, Record, Topic, TopicPartition};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::group::{is_news, record};
use super::load::{PARTITIONS, Timer};

const READER: Client = Client(300);
const GROUP: Group = Group(1);

/// What it saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub events: Vec<Event>,
    pub errors: Vec<String>,
    /// How many records.
    pub records: u64,
}

/// A running reader.
pub(crate) struct Replay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

impl Replay {
    pub(crate) fn start(bootstrap: &str, topic: &str, timer: Timer) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("broker.address.family", "v4")
            .set("group.id", "replay")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .create()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                round(&consumer, &topic, timer, &stopped, &mut seen)?;
            }
            Ok(seen)
        });
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }

    pub(crate) fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_| anyhow!("the reader panicked"))?
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads for some seconds from the start of every partition.
fn round(
    consumer: &BaseConsumer,
    topic: &str,
    timer: Timer,
    stop: &AtomicBool,
    seen: &mut Seen,
) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&list)?;
    let begun = timer.now();
    let mut read: Vec<Vec<Record>> = vec![Vec::new(); PARTITIONS as usize];
    while !stop.load(Ordering::Relaxed) && timer.now() < begun + 4_000_000_000 {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                read[message.partition() as usize].push(record(&message));
                seen.records += 1;
            }
            Some(Err(error)) if is_news(&error) => {}
            Some(Err(error)) => seen.errors.push(error.to_string()),
        }
    }
    // As a group of its own that begins afresh each time: nothing may be skipped or repeated.
    let at = |partition| TopicPartition::new(Topic(0), partition);
    let mut event = |op, answer| {
        seen.events.push(Event {
            client: READER,
            invoke: begun,
            ret: timer.now(),
            op,
            outcome: Outcome::Ok(answer),
        });
    };
    let assignment = Answer::Assignment {
        generation: None,
        partitions: (0..PARTITIONS).map(at).collect(),
    };
    event(Op::Join { group: GROUP }, assignment);
    for (partition, records) in (0..).zip(read) {
        if !records.is_empty() {
            let op = Op::Poll {
                group: GROUP,
                at: at(partition),
            };
            event(op, Answer::Polled(records));
        }
    }
    Ok(())
}
