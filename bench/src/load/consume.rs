//! Consumers of all partitions of a topic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::frames::{self, Link};

/// What a consumer reads, and when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub broker: SocketAddr,
    pub topic: String,
    pub partitions: i32,
    /// It ends after so many records, or when it is stopped.
    pub until: u64,
    /// Whether it notes when each batch arrived.
    pub arrivals: bool,
}

/// Batches that came together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub partition: i32,
    pub next: i64,
    pub at: Instant,
}

/// What a consumer has read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub records: u64,
    /// From the first request to the last answer with records.
    pub seconds: f64,
    pub arrivals: Vec<Arrival>,
}

/// How long a fetch waits for records, in milliseconds: as in Kafka's own consumer.
const WAIT: i32 = 500;
/// Nothing new for so long is an error.
const SILENCE: Duration = Duration::from_secs(60);

/// Waits until all partitions of a topic can be read: a topic that was created may have no leaders
/// yet.
pub(crate) fn readable(broker: SocketAddr, topic: &str, partitions: i32) -> Result<()> {
    let offsets: Vec<(i32, i64)> = (0..partitions).map(|p| (p, 0)).collect();
    let mut frame = frames::fetch(topic, &offsets, 0);
    let start = Instant::now();
    let mut once = || {
        let mut link = Link::to(broker)?;
        link.send(&mut frame, 1)?;
        frames::fetched(link.receive(1)?, |_| ())
    };
    while let Err(error) = once() {
        if start.elapsed() > SILENCE {
            return Err(error);
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

fn read(consumer: &Consumer, stop: &AtomicBool, seen: &AtomicU64) -> Result<Read> {
    let mut link = Link::to(consumer.broker)?;
    // What was served goes to the end of the line, as in Kafka's own consumer.
    let mut offsets: Vec<(i32, i64)> = (0..consumer.partitions).map(|p| (p, 0)).collect();
    let mut done = Read::default();
    let start = Instant::now();
    let mut last = start;
    for request in 0.. {
        if done.records >= consumer.until || stop.load(Ordering::Relaxed) {
            break;
        }
        let mut frame = frames::fetch(&consumer.topic, &offsets, WAIT);
        link.send(&mut frame, request)?;
        let answer = link.receive(request)?;
        let at = Instant::now();
        let before = done.records;
        frames::fetched(answer, |fetched| {
            done.records += fetched.records;
            if let Some(place) = offsets.iter().position(|(p, _)| *p == fetched.partition) {
                offsets.remove(place);
                offsets.push((fetched.partition, fetched.next));
            }
            if consumer.arrivals {
                done.arrivals.push(Arrival {
                    partition: fetched.partition,
                    next: fetched.next,
                    at,
                });
            }
        })?;
        if done.records > before {
            last = at;
            done.seconds = at.duration_since(start).as_secs_f64();
            seen.store(done.records, Ordering::Relaxed);
        }
        ensure!(at - last < SILENCE, "nothing to consume for a minute");
    }
    Ok(done)
}

/// Consumers that run.
pub(crate) struct Consumers {
    handles: Vec<JoinHandle<Result<Read>>>,
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<AtomicU64>>,
}

impl Consumers {
    /// Starts so many, each reading everything.
    pub(crate) fn start(count: usize, consumer: &Consumer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Vec<_> = (0..count).map(|_| Arc::default()).collect();
        let handles = seen
            .iter()
            .map(|seen| {
                let (consumer, stop, seen) = (consumer.clone(), stop.clone(), Arc::clone(seen));
                thread::spawn(move || read(&consumer, &stop, &seen))
            })
            .collect();
        Self {
            handles,
            stop,
            seen,
        }
    }

    /// Records that all of them have read so far.
    pub(crate) fn records(&self) -> u64 {
        self.seen.iter().map(|s| s.load(Ordering::Relaxed)).sum()
    }

    /// Whether one of them has not ended.
    pub(crate) fn run(&self) -> bool {
        self.handles.iter().any(|handle| !handle.is_finished())
    }

    /// Tells them to end after their next answer.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until they have ended.
    pub(crate) fn join(self) -> Result<Vec<Read>> {
        self.handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect()
    }
}
