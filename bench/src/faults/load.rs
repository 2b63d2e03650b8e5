//! Producers that send at a fixed rate whatever happens, and remember everything.
//!
//! Stock librdkafka, idempotent, acks=all, every other setting at its default except that a record
//! may take two minutes. A record is due at an instant that does not depend on the broker, and its
//! latency counts from then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use frazil_history::{Answer, Client, Event, Op, Outcome, Producer, Topic, TopicPartition};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as ErrorCode;

/// How many producers there are.
pub(crate) const PRODUCERS: u32 = 3;
/// How many partitions.
pub(crate) const PARTITIONS: i32 = 12;
/// How long a record may take before its producer gives up.
const DELIVERY: Duration = Duration::from_secs(120);

/// Bytes of a record.
const SIZE: usize = 256;

/// The bytes of a value: its number, and something that does not compress.
fn bytes(value: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut state = value.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_be_bytes());
    }
    bytes[..8].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// The number of a value; one that nobody sends if these are not the bytes of any.
pub(crate) fn number(payload: Option<&[u8]>) -> u64 {
    let read = |payload: &[u8]| {
        let value = u64::from_be_bytes(payload.get(..8)?.try_into().ok()?);
        (payload == bytes(value)).then_some(value)
    };
    payload.and_then(read).unwrap_or(u64::MAX)
}

/// The clock of one run, in nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.0).as_nanos() as u64
    }
}

/// One record, after its fate is known. Times in nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub producer: u32,
    pub partition: i32,
    /// How many records this producer sent to this partition before.
    pub sequence: u32,
    pub value: u64,
    pub due: u64,
    pub invoke: u64,
    pub ret: u64,
    /// Its offset, or librdkafka's error. The offset is negative if the answer was lost and a later
    /// batch was acknowledged, which says that this one is in the log, and not where.
    pub outcome: Result<i64, RDKafkaErrorCode>,
}

impl Sent {
    /// What a history says about it. A library that repeats by itself never knows that something
    /// did not happen.
    pub(crate) fn event(&self) -> Event {
        Event {
            client: Client(self.producer),
            invoke: self.invoke,
            ret: self.ret,
            op: Op::Produce {
                at: TopicPartition::new(Topic(0), self.partition),
                values: vec![self.value],
                producer: Some(Producer {
                    id: self.producer.into(),
                    epoch: 0,
                    sequence: self.sequence.into(),
                }),
                acks: -1,
                resends: true,
            },
            outcome: match self.outcome {
                Ok(offset) if offset >= 0 => Outcome::Ok(Answer::Offset(offset)),
                Ok(_) | Err(_) => Outcome::Info(0),
            },
        }
    }
}

/// What producers share.
struct Shared {
    timer: Timer,
    sent: Mutex<Vec<Sent>>,
    /// Records handed to librdkafka.
    begun: AtomicU64,
    ended: AtomicU64,
    stop: AtomicBool,
}

struct Listener(Arc<Shared>);

impl ClientContext for Listener {
    // What it says about connections is not news in a test that breaks them.
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Listener {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut sent: Box<Sent>) {
        sent.ret = self.0.timer.now();
        sent.outcome = match result {
            Ok(message) => Ok(rdkafka::Message::offset(message)),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(ErrorCode::Unknown)),
        };
        let mut all = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(*sent);
        drop(all);
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Running producers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
    pub timer: Timer,
    /// Records per second, of all together.
    pub rate: u32,
}

impl Load {
    /// Begins to send.
    pub(crate) fn start(bootstrap: &str, topic: &str, rate: u32) -> Result<Self> {
        let timer = Timer::start();
        let shared = Arc::new(Shared {
            timer,
            sent: Mutex::default(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for number in 0..PRODUCERS {
            let producer: ThreadedProducer<Listener> = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("broker.address.family", "v4")
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("message.timeout.ms", DELIVERY.as_millis().to_string())
                .create_with_context(Listener(Arc::clone(&shared)))?;
            let (shared, topic) = (Arc::clone(&shared), topic.to_owned());
            let pace = (number, rate / PRODUCERS);
            threads.push(std::thread::spawn(move || {
                send(&producer, &topic, pace, &shared)
            }));
        }
        Ok(Self {
            shared,
            threads,
            timer,
            rate: rate / PRODUCERS * PRODUCERS,
        })
    }

    /// What has ended so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        let sent = self.shared.sent.lock();
        sent.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Acknowledgements since an instant.
    pub(crate) fn acked_since(&self, since: u64) -> usize {
        let sent = self.shared.sent.lock();
        let sent = sent.unwrap_or_else(PoisonError::into_inner);
        let late = sent.iter().rev().take_while(|sent| sent.ret >= since);
        late.filter(|sent| sent.outcome.is_ok()).count()
    }

    /// Stops sending, waits until every record's fate is known, and answers them.
    pub(crate) fn finish(mut self) -> Result<Vec<Sent>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow!("a producer panicked"))??;
        }
        let begun = self.shared.begun.load(Ordering::Relaxed);
        let ended = self.shared.ended.load(Ordering::Relaxed);
        anyhow::ensure!(
            begun == ended,
            "the fate of {} records is open",
            begun - ended
        );
        Ok(self.sent())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn send(
    producer: &ThreadedProducer<Listener>,
    topic: &str,
    (number, rate): (u32, u32),
    shared: &Shared,
) -> Result<()> {
    let mut sequences = [0; PARTITIONS as usize];
    let start = Instant::now();
    for turn in 0.. {
        let due = start + Duration::from_secs(1) * turn / rate;
        let now = Instant::now();
        if due > now {
            park_timeout(due - now);
        }
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // Producers begin at different partitions.
        let partition = (turn + 4 * number) as usize % PARTITIONS as usize;
        let value = u64::from(number) << 40 | u64::from(turn);
        let sent = Sent {
            producer: number,
            partition: partition as i32,
            sequence: sequences[partition],
            value,
            due: shared.timer.at(due),
            invoke: shared.timer.now(),
            ret: 0,
            outcome: Err(ErrorCode::Unknown),
        };
        let payload = bytes(value);
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(sent))
            .partition(partition as i32)
            .payload(&payload[..]);
        shared.begun.fetch_add(1, Ordering::Relaxed);
        if let Err((error, record)) = producer.send(record) {
            // It will never be sent, and its place in the order is the next one's.
            shared.begun.fetch_sub(1, Ordering::Relaxed);
            drop(record);
            match error.rdkafka_error_code() {
                Some(ErrorCode::QueueFull) => continue,
                _ => return Err(error).context("a producer refuses records"),
            }
        }
        sequences[partition] += 1;
    }
    producer
        .flush(DELIVERY + Duration::from_secs(10))
        .context("records are neither acknowledged nor given up")?;
    Ok(())
}
