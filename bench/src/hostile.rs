//! What ordinary clients notice while others send garbage.
//!
//! One producer sends at a fixed rate, first alone, then beside connections that are opened a
//! thousand times a second, each of which sends one thing that no client would: random bytes,
//! lengths without what they announce, requests out of the fuzz corpora as they are or framed, and
//! connections that dribble. The broker must not end, its memory must not grow by much, and the
//! producer must hardly notice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::broker::{Broker, sibling};
use crate::sheet::Sheet;
use crate::wire::allow_sockets;
use crate::workload;

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A folder of inputs, each file one of them
    #[arg(long, default_value = "fuzz/corpus")]
    corpus: PathBuf,
    /// Hostile connections a second
    #[arg(long, default_value_t = 1000)]
    connections: u32,
    /// Seconds of each part
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Records a second of the producer.
const RATE: u32 = 1000;
/// How long a hostile connection waits for the broker to close it.
const LINGER: Duration = Duration::from_secs(2);
/// Hostile connections open at a time.
const OPEN_MAX: usize = 4000;

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = options.frazil.clone().map_or_else(sibling, Ok)?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    allow_sockets(OPEN_MAX as u64)?;
    let inputs = inputs(&options.corpus)?;
    let mut sheet = Sheet::new(options.json);
    sheet.add("inputs of the corpus", inputs.len() as f64, "");
    let mut broker = Broker::start(&binary, &dir.path().join("hostile"))?;
    workload::create_topics(broker.kafka, &["calm".to_owned()], 12, &[])?;
    let window = Duration::from_secs(options.seconds);
    let latency = |name: &str, sheet: &mut Sheet| -> Result<f64> {
        let seen = workload::ack_latency(broker.kafka, "calm", RATE, window, 1024)?;
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let value = seen.value_at_quantile(quantile) as f64 / 1e3;
            sheet.add(format!("ack {label}, {name}"), value, "ms");
        }
        Ok(seen.value_at_quantile(0.99) as f64)
    };
    let alone = latency("alone", &mut sheet)?;
    let before = broker.peak_rss_mib()?;
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let attack = {
        let (stop, seen) = (stop.clone(), seen.clone());
        let (kafka, rate) = (broker.kafka, options.connections);
        std::thread::spawn(move || attack(kafka, rate, &inputs, &stop, &seen))
    };
    let beside = latency("beside garbage", &mut sheet);
    stop.store(true, Ordering::Relaxed);
    let began = attack
        .join()
        .map_err(|_| anyhow::anyhow!("the attack panicked"))??;
    let beside = beside?;
    sheet.add("p99 beside garbage over p99 alone", beside / alone, "");
    let rate = seen.sent.load(Ordering::Relaxed) as f64 / began.as_secs_f64();
    sheet.add("hostile connections a second", rate, "");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    sheet.add("of these, closed by the broker", count(&seen.closed), "");
    sheet.add("answered with something", count(&seen.answered), "");
    sheet.add("refused by the system", count(&seen.refused), "");
    let growth = broker.peak_rss_mib()? - before;
    sheet.add("growth of peak RSS", growth, "MiB");
    ensure!(broker.runs()?, "the broker ended");
    workload::produce(broker.kafka, "calm", 1000, 1024).context("the broker serves no more")?;
    sheet.add("SIGTERM to exit", broker.stop()?.as_secs_f64() * 1e3, "ms");
    sheet.finish()
}

/// Every file below a folder.
#[expect(
    clippy::disallowed_methods,
    reason = "the bench's own input, from the real disk"
)]
fn inputs(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("--corpus: cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(inputs(&path)?);
        } else {
            found.push(std::fs::read(path)?);
        }
    }
    ensure!(
        !found.is_empty(),
        "--corpus: no files in {}",
        folder.display()
    );
    Ok(found)
}

#[derive(Default)]
struct Seen {
    sent: AtomicU64,
    closed: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
}

/// Opens connections at a fixed rate until it is stopped; answers for how long.
fn attack(
    broker: SocketAddr,
    rate: u32,
    inputs: &[Vec<u8>],
    stop: &AtomicBool,
    seen: &Arc<Seen>,
) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let start = Instant::now();
    runtime.block_on(async {
        let mut open = JoinSet::new();
        let mut state = 1;
        for n in 0_u32.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let due = start + Duration::from_secs(1) * n / rate.max(1);
            tokio::time::sleep_until(due.into()).await;
            while open.try_join_next().is_some() {}
            if open.len() >= OPEN_MAX {
                open.join_next().await;
            }
            let bytes = garbage(n, inputs, &mut state);
            let slow = n % 50 == 0;
            open.spawn(strike(broker, bytes, slow, seen.clone()));
        }
        open.shutdown().await;
    });
    Ok(start.elapsed())
}

async fn strike(broker: SocketAddr, bytes: Vec<u8>, slow: bool, seen: Arc<Seen>) {
    let Ok(mut stream) = TcpStream::connect(broker).await else {
        seen.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    seen.sent.fetch_add(1, Ordering::Relaxed);
    let talk = async {
        if slow {
            for byte in bytes.chunks(1).take(20) {
                stream.write_all(byte).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } else {
            stream.write_all(&bytes).await?;
        }
        let mut answer = [0; 4096];
        loop {
            match stream.read(&mut answer).await? {
                0 => return Ok::<(), std::io::Error>(()),
                _ => seen.answered.fetch_add(1, Ordering::Relaxed),
            };
        }
    };
    // An error is a connection that the broker has reset.
    if tokio::time::timeout(LINGER, talk).await.is_ok() {
        seen.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The n-th thing to send.
fn garbage(n: u32, inputs: &[Vec<u8>], state: &mut u64) -> Vec<u8> {
    let input = &inputs[n as usize / 8 % inputs.len()];
    let framed = |body: &[u8]| [&(body.len() as i32).to_be_bytes(), body].concat();
    match n % 8 {
        // As the corpora have it: bodies of requests, batches, frames.
        0 => input.clone(),
        1 | 2 => framed(input),
        // Changed in one place.
        3 | 4 => {
            let mut body = input.clone();
            if !body.is_empty() {
                let at = random(state) as usize % body.len();
                body[at] ^= 1 << (random(state) % 8);
            }
            framed(&body)
        }
        // More announced than comes.
        5 => (random(state) as i32 >> 4).to_be_bytes().to_vec(),
        // A plausible header, then anything.
        6 => {
            let mut body = vec![0, (random(state) % 75) as u8, 0, (random(state) % 18) as u8];
            body.extend((0..random(state) % 600).map(|_| random(state) as u8));
            framed(&body)
        }
        _ => (0..random(state) % 2000)
            .map(|_| random(state) as u8)
            .collect(),
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
