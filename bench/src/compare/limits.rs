//! What the machine can do at best: no broker is in any of these.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::load::batch::noise;
use crate::load::histogram;

fn create(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    Ok(options.write(true).create(true).truncate(true).open(path)?)
}

/// MB/s of frames of this size over one loopback connection to a thread that reads each whole and
/// then sends it back (`echo`), or a short answer instead.
pub(crate) fn loopback(frame: usize, echo: bool, window: Duration) -> Result<f64> {
    const ANSWER: usize = 512;
    const IN_FLIGHT: usize = 5;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let back = if echo { frame } else { ANSWER };
    std::thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; frame];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer[..back])?;
            }
            Ok(())
        });
        let mut sender = TcpStream::connect(address)?;
        sender.set_nodelay(true)?;
        let mut receiver = sender.try_clone()?;
        // Answers are read by another thread, or both sides would wait with full buffers.
        let (credit, credits) = std::sync::mpsc::sync_channel::<()>(IN_FLIGHT);
        let reader = scope.spawn(move || -> Result<u64> {
            let mut buffer = vec![0; back];
            let mut frames = 0;
            while receiver.read_exact(&mut buffer).is_ok() {
                frames += 1;
                if credits.recv().is_err() {
                    break;
                }
            }
            Ok(frames)
        });
        let bytes = noise(frame);
        let start = Instant::now();
        while start.elapsed() < window {
            sender.write_all(&bytes)?;
            if credit.send(()).is_err() {
                break;
            }
        }
        drop(credit);
        sender.shutdown(std::net::Shutdown::Write)?;
        let frames = reader.join().map_err(|_| anyhow!("a thread panicked"))??;
        let seconds = start.elapsed().as_secs_f64();
        server.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok(frames as f64 * frame as f64 / 1e6 / seconds)
    })
}

/// MB/s of writing a file from its beginning to its end, with so many syncs a second.
pub(crate) fn sequential_write(dir: &Path, syncs: f64, window: Duration) -> Result<f64> {
    let path = dir.join("sequential");
    let mut file = create(&path)?;
    let bytes = noise(1 << 20);
    let (mut written, mut synced) = (0u64, 0.0);
    let start = Instant::now();
    while start.elapsed() < window {
        file.write_all(&bytes)?;
        written += bytes.len() as u64;
        if start.elapsed().as_secs_f64() * syncs > synced {
            file.sync_data()?;
            synced += 1.0;
        }
    }
    file.sync_data()?;
    let rate = written as f64 / 1e6 / start.elapsed().as_secs_f64();
    drop(file);
    rustix::fs::unlink(path)?;
    Ok(rate)
}

/// Milliseconds of two appends of 1 KiB, each synced, in two files, one after the other: p50, p99.
pub(crate) fn two_syncs(dir: &Path, window: Duration) -> Result<(f64, f64)> {
    let paths = [dir.join("sync-1"), dir.join("sync-2")];
    let mut files = [create(&paths[0])?, create(&paths[1])?];
    let bytes = noise(1024);
    let mut latency = histogram()?;
    let start = Instant::now();
    while start.elapsed() < window {
        let begin = Instant::now();
        for file in &mut files {
            file.write_all(&bytes)?;
            file.sync_data()?;
        }
        latency.saturating_record(begin.elapsed().as_micros() as u64);
    }
    for path in paths {
        rustix::fs::unlink(path)?;
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok((at(0.5), at(0.99)))
}

fn bandwidth(window: Duration, bytes: usize, mut once: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times = 0u64;
    while start.elapsed() < window {
        once();
        times += 1;
    }
    times as f64 * bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// MB/s of CRC-32C over memory that is not in the processor's caches.
pub(crate) fn checksum(window: Duration) -> f64 {
    let bytes = noise(64 << 20);
    bandwidth(window, bytes.len(), || {
        std::hint::black_box(crc32c::crc32c(std::hint::black_box(&bytes)));
    })
}

/// MB/s of copying memory that is not in the processor's caches.
pub(crate) fn copy(window: Duration) -> f64 {
    let from = noise(64 << 20);
    let mut to = vec![0; from.len()];
    bandwidth(window, from.len(), || {
        std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
    })
}
