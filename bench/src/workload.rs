//! What is done to the broker, through librdkafka with its default settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::load::batch::noise;

fn client(broker: impl std::fmt::Display) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.to_string());
    config
}

/// Creates topics, all with the same settings.
pub(crate) fn create_topics(
    broker: impl std::fmt::Display,
    names: &[String],
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(broker).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for names in names.chunks(100) {
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                settings.iter().fold(
                    NewTopic::new(name, partitions, TopicReplication::Fixed(1)),
                    |topic, (key, value)| topic.set(key, value),
                )
            })
            .collect();
        let results = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new()))?;
        for result in results {
            if let Err((topic, code)) = result {
                bail!("cannot create {topic}: {code}");
            }
        }
    }
    Ok(())
}

/// Deletes a topic.
pub(crate) fn delete_topic(broker: impl std::fmt::Display, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(broker).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for result in runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()))? {
        if let Err((topic, code)) = result {
            bail!("cannot delete {topic}: {code}");
        }
    }
    Ok(())
}

#[derive(Default)]
struct Acks {
    acked: AtomicU64,
    failed: AtomicU64,
    latency: Option<Mutex<Histogram<u64>>>,
}

struct Counting(Arc<Acks>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, due: Box<Instant>) {
        match result {
            Ok(_) => {
                self.0.acked.fetch_add(1, Ordering::Relaxed);
                if let Some(latency) = &self.0.latency {
                    let micros = due.elapsed().as_micros().min(u128::from(u64::MAX)) as u64;
                    if let Ok(mut latency) = latency.lock() {
                        latency.saturating_record(micros);
                    }
                }
            }
            Err(_) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn send(
    producer: &ThreadedProducer<Counting>,
    topic: &str,
    payload: &[u8],
    due: Instant,
) -> Result<()> {
    let mut record =
        BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(due)).payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Produces `records` records of `size` bytes as fast as it goes; answers MB/s of values.
pub(crate) fn produce(broker: SocketAddr, topic: &str, records: u64, size: usize) -> Result<f64> {
    let acks = Arc::new(Acks::default());
    let producer: ThreadedProducer<Counting> =
        client(broker).create_with_context(Counting(acks.clone()))?;
    let noise = noise(size * 64);
    let start = Instant::now();
    for n in 0..records {
        let at = (n as usize * 61) % (size * 63);
        send(&producer, topic, &noise[at..at + size], start)?;
    }
    producer.flush(Duration::from_secs(120))?;
    let seconds = start.elapsed().as_secs_f64();
    let (acked, failed) = (
        acks.acked.load(Ordering::Relaxed),
        acks.failed.load(Ordering::Relaxed),
    );
    ensure!(
        acked == records,
        "{acked} of {records} records acknowledged, {failed} failed"
    );
    Ok(records as f64 * size as f64 / 1e6 / seconds)
}

/// Sends at a fixed rate, whether or not acknowledgements come; answers the latencies from the
/// instant at which each record was due, in microseconds.
pub(crate) fn ack_latency(
    broker: SocketAddr,
    topic: &str,
    per_second: u32,
    duration: Duration,
    size: usize,
) -> Result<Histogram<u64>> {
    let latency = Some(Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?));
    let acks = Arc::new(Acks {
        latency,
        ..Acks::default()
    });
    let producer: ThreadedProducer<Counting> =
        client(broker).create_with_context(Counting(acks.clone()))?;
    let payload = noise(size);
    // The first record pays for connections and metadata; it is not part of the figure.
    send(&producer, topic, &payload, Instant::now())?;
    producer.flush(Duration::from_secs(30))?;
    if let Some(latency) = &acks.latency {
        latency
            .lock()
            .map_err(|_| anyhow::anyhow!("a callback panicked"))?
            .reset();
    }
    let start = Instant::now();
    let total = (duration.as_secs_f64() * f64::from(per_second)) as u32;
    for n in 0..total {
        let due = start + Duration::from_secs(1) * n / per_second;
        let now = Instant::now();
        if due > now {
            std::thread::park_timeout(due - now);
        }
        send(&producer, topic, &payload, due)?;
    }
    producer.flush(Duration::from_secs(60))?;
    drop(producer);
    let acks = Arc::into_inner(acks).context("the producer is gone")?;
    ensure!(acks.failed.into_inner() == 0, "records failed");
    let latency = acks.latency.context("a histogram was asked for")?;
    latency
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a callback panicked"))
}

/// Consumes `records` records of all partitions from the beginning; answers MB/s of values.
pub(crate) fn consume(
    broker: SocketAddr,
    topic: &str,
    partitions: i32,
    records: u64,
) -> Result<f64> {
    let consumer: BaseConsumer = client(broker)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let start = Instant::now();
    let (mut seen, mut bytes) = (0, 0);
    while seen < records {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else {
            bail!("no record for 30 s after {seen} of {records}");
        };
        bytes += rdkafka::Message::payload(&message?).map_or(0, <[u8]>::len);
        seen += 1;
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}
