//! Producers: as fast as it goes, and at a fixed rate.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;

use super::batch::{Codec, batch};
use super::frames::{self, Link, Stored};
use super::histogram;

/// Tries again and again to produce a record, until it is acknowledged.
pub(crate) fn first_ack(broker: SocketAddr, topic: &str, patience: Duration) -> Result<()> {
    let batch = batch(1, 100, Codec::None)?;
    let mut frame = frames::produce(topic, -1, &[(0, &batch)]);
    let start = Instant::now();
    let mut once = || {
        let mut link = Link::to(broker)?;
        link.send(&mut frame, 1)?;
        frames::produced(link.receive(1)?, |_| ())
    };
    while let Err(error) = once() {
        if start.elapsed() > patience {
            return Err(error);
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

/// Producers that keep a number of requests on the way.
#[derive(Clone, Debug)]
pub(crate) struct Flood {
    pub broker: SocketAddr,
    pub topic: String,
    pub partitions: i32,
    pub acks: i16,
    pub codec: Codec,
    /// Bytes of a value.
    pub size: usize,
    /// Records of a batch.
    pub records: usize,
    /// Partitions that one request has batches for.
    pub spread: i32,
    pub connections: usize,
    /// Requests on the way on each connection.
    pub in_flight: usize,
    pub duration: Duration,
    /// It ends after so many bytes of values, if that is sooner.
    pub bytes: u64,
}

/// What came of a flood.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Acknowledged.
    pub records: u64,
    pub requests: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Of requests.
    pub latency: Histogram<u64>,
}

impl Flow {
    /// MB of values in a second.
    pub(crate) fn rate(&self, size: usize) -> f64 {
        self.records as f64 * size as f64 / 1e6 / self.seconds
    }
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Sends for so long, then waits for what is on the way.
pub(crate) fn flood(load: &Flood) -> Result<Flow> {
    let batch = batch(load.records, load.size, load.codec)?;
    let begin = Barrier::new(load.connections);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..load.connections)
            .map(|n| {
                let (batch, begin) = (&batch, &begin);
                scope.spawn(move || connection(load, n, batch, begin))
            })
            .collect();
        let mut flow = Flow {
            records: 0,
            requests: 0,
            seconds: 0.0,
            latency: histogram()?,
        };
        for handle in handles {
            let one = joined(handle)?;
            flow.records += one.records;
            flow.requests += one.requests;
            flow.seconds = flow.seconds.max(one.seconds);
            flow.latency.add(&one.latency)?;
        }
        Ok(flow)
    })
}

fn connection(load: &Flood, n: usize, batch: &[u8], begin: &Barrier) -> Result<Flow> {
    let link = Link::to(load.broker);
    // Connections rotate through groups of partitions, each beginning with another.
    let groups = (load.partitions / load.spread).max(1);
    let mut requests: Vec<Vec<u8>> = (0..groups)
        .map(|group| {
            let batches: Vec<(i32, &[u8])> = (group * load.spread..)
                .take(load.spread as usize)
                .map(|partition| (partition, batch))
                .collect();
            frames::produce(&load.topic, load.acks, &batches)
        })
        .collect();
    begin.wait();
    let mut link = link?;
    let mut latency = histogram()?;
    let mut sent_at = VecDeque::with_capacity(load.in_flight);
    let (mut sent, mut answered) = (0, 0);
    let each = (load.spread as usize * load.records * load.size) as u64;
    let most = load.bytes / each / load.connections as u64;
    let start = Instant::now();
    loop {
        let now = Instant::now();
        let open = now.duration_since(start) < load.duration && (sent as u64) < most;
        if open && sent_at.len() < load.in_flight {
            let frame = &mut requests[(n + sent as usize) % groups as usize];
            link.send(frame, sent)?;
            sent_at.push_back(now);
            sent += 1;
        } else if let Some(at) = sent_at.pop_front() {
            frames::produced(link.receive(answered)?, |_| ())?;
            latency.saturating_record(at.elapsed().as_micros() as u64);
            answered += 1;
        } else {
            break;
        }
    }
    Ok(Flow {
        records: answered as u64 * load.records as u64 * load.spread as u64,
        requests: answered as u64,
        seconds: start.elapsed().as_secs_f64(),
        latency,
    })
}

/// One producer at a fixed rate.
#[derive(Clone, Debug)]
pub(crate) struct Steady {
    pub broker: SocketAddr,
    pub topic: String,
    pub partitions: i32,
    pub acks: i16,
    pub size: usize,
    /// Records due in a second.
    pub rate: f64,
    /// Requests on the way at most.
    pub in_flight: usize,
    pub duration: Duration,
}

/// A batch that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub stored: Stored,
    /// The number of its first record.
    pub first: u64,
    pub count: u64,
}

/// What came of a steady load.
#[derive(Debug)]
pub(crate) struct Acks {
    /// From the moment a record was due to its acknowledgement.
    pub latency: Histogram<u64>,
    /// Every batch, and when the first record was due: where offsets are to be matched with.
    pub batches: Vec<Acked>,
    pub start: Instant,
}

impl Acks {
    /// When this record was due.
    pub(crate) fn due(&self, record: u64, rate: f64) -> Instant {
        self.start + Duration::from_secs_f64(record as f64 / rate)
    }
}

/// Records of a batch at most.
const GATHERED: u64 = 64;

struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests on the way, each with its batches: partition, first record, count.
    on_the_way: VecDeque<Vec<(i32, u64, u64)>>,
    finished: bool,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is due, when it is due. The first record, which pays for the connection, is not
/// counted.
pub(crate) fn steady(load: &Steady) -> Result<Acks> {
    let batches: Vec<Vec<u8>> = (1..=GATHERED)
        .map(|count| batch(count as usize, load.size, Codec::None))
        .collect::<Result<_>>()?;
    let mut sender = Link::to(load.broker)?;
    let mut receiver = sender.share()?;
    let mut first = frames::produce(&load.topic, load.acks, &[(0, &batches[0])]);
    sender.send(&mut first, -1)?;
    receiver.receive(-1)?;
    let window = Window {
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let answers = scope.spawn(|| answers(load, &mut receiver, &window, start));
        let sent = send_due(load, &mut sender, &window, &batches, start);
        window.lock().finished = true;
        window.changed.notify_all();
        let answers = joined(answers);
        sent?;
        answers
    })
}

fn send_due(
    load: &Steady,
    link: &mut Link,
    window: &Window,
    batches: &[Vec<u8>],
    start: Instant,
) -> Result<()> {
    let total = (load.duration.as_secs_f64() * load.rate) as u64;
    let (mut sent, mut request, mut partition) = (0, 0, 0);
    while sent < total {
        let elapsed = start.elapsed().as_secs_f64();
        let due = ((elapsed * load.rate) as u64 + 1).min(total);
        if due <= sent {
            let next = Duration::from_secs_f64(sent as f64 / load.rate);
            thread::park_timeout((start + next).saturating_duration_since(Instant::now()));
            continue;
        }
        let mut state = window.lock();
        if state.on_the_way.len() >= load.in_flight {
            drop(window.changed.wait_timeout(state, Duration::from_secs(1)));
            continue;
        }
        let mut chosen = Vec::new();
        let mut next = sent;
        while next < due && chosen.len() < load.partitions as usize {
            let count = (due - next).min(GATHERED);
            chosen.push((partition, next, count));
            partition = (partition + 1) % load.partitions;
            next += count;
        }
        let parts: Vec<(i32, &[u8])> = chosen
            .iter()
            .map(|(partition, _, count)| (*partition, &batches[*count as usize - 1][..]))
            .collect();
        let mut frame = frames::produce(&load.topic, load.acks, &parts);
        state.on_the_way.push_back(chosen);
        window.changed.notify_all();
        drop(state);
        link.send(&mut frame, request)?;
        (sent, request) = (next, request + 1);
    }
    Ok(())
}

fn answers(load: &Steady, link: &mut Link, window: &Window, start: Instant) -> Result<Acks> {
    let mut acks = Acks {
        latency: histogram()?,
        batches: Vec::new(),
        start,
    };
    let mut request = 0;
    loop {
        let mut state = window.lock();
        while state.on_the_way.is_empty() && !state.finished {
            state = window
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.on_the_way.is_empty() {
            return Ok(acks);
        }
        drop(state);
        let mut stored = Vec::new();
        let answer = link.receive(request)?;
        let now = Instant::now();
        frames::produced(answer, |one| stored.push(one))?;
        let chosen = window.lock().on_the_way.pop_front();
        window.changed.notify_all();
        for (partition, first, count) in chosen.context("an answer to nothing")? {
            let stored = stored
                .iter()
                .find(|stored| stored.partition == partition)
                .context("a partition without an answer")?;
            acks.batches.push(Acked {
                stored: *stored,
                first,
                count,
            });
            for record in first..first + count {
                let late = now.saturating_duration_since(acks.due(record, load.rate));
                acks.latency.saturating_record(late.as_micros() as u64);
            }
        }
        request += 1;
    }
}
