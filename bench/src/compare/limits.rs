//! What the machine can do at best: no broker is in any of these.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

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

/// Bytes of a file that are there before anything is measured.
const PREPARED: usize = 16 << 20;

/// Milliseconds from when a record of 1 KiB is due, so many a second, until it is written and synced to one file
/// and then to another, which is what a quorum of one on one disk has to do: p50, p99. Both files have their
/// length and their bytes already. What is due meanwhile goes together. `beside`: a file of a twentieth of a
/// second's records is made and synced twenty times a second, as an upload into a directory is.
pub(crate) fn paced_syncs(
    dir: &Path,
    rate: f64,
    window: Duration,
    beside: bool,
) -> Result<(f64, f64)> {
    let paths = [dir.join("paced-1"), dir.join("paced-2")];
    let mut files = [prepared(&paths[0])?, prepared(&paths[1])?];
    let done = AtomicBool::new(false);
    let latency = std::thread::scope(|scope| {
        let uploads = beside.then(|| scope.spawn(|| uploads(dir, rate, &done)));
        let latency = paced(&mut files, rate, window);
        done.store(true, Ordering::Relaxed);
        if let Some(uploads) = uploads {
            uploads.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        latency
    })?;
    for path in paths {
        rustix::fs::unlink(path)?;
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok((at(0.5), at(0.99)))
}

fn prepared(path: &Path) -> Result<File> {
    let mut file = create(path)?;
    file.write_all(&vec![0; PREPARED])?;
    file.sync_all()?;
    file.rewind()?;
    Ok(file)
}

fn paced(files: &mut [File; 2], rate: f64, window: Duration) -> Result<Histogram<u64>> {
    let mut latency = histogram()?;
    let total = (window.as_secs_f64() * rate) as u64;
    let bytes = noise(1024);
    let (mut done, start) = (0, Instant::now());
    while done < total {
        let due = ((start.elapsed().as_secs_f64() * rate) as u64 + 1).min(total);
        if due <= done {
            let next = Duration::from_secs_f64(done as f64 / rate);
            std::thread::park_timeout((start + next).saturating_duration_since(Instant::now()));
            continue;
        }
        for file in &mut *files {
            for _ in done..due {
                file.write_all(&bytes)?;
            }
            file.sync_data()?;
        }
        let now = start.elapsed().as_secs_f64();
        for record in done..due {
            let late = now - record as f64 / rate;
            latency.saturating_record((late * 1e6) as u64);
        }
        done = due;
    }
    Ok(latency)
}

fn uploads(dir: &Path, rate: f64, done: &AtomicBool) -> Result<()> {
    const EACH: Duration = Duration::from_millis(50);
    let bytes = noise((rate * EACH.as_secs_f64() * 1024.0) as usize);
    let folder = std::fs::OpenOptions::new().read(true).open(dir)?;
    let mut made = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let path = dir.join(format!("paced-upload-{}", made.len()));
        let mut file = create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        folder.sync_all()?;
        made.push(path);
        std::thread::park_timeout(EACH.saturating_sub(begin.elapsed()));
    }
    for path in made {
        rustix::fs::unlink(path)?;
    }
    Ok(())
}

/// One megabyte at an address that a disk takes as it is.
struct Page(Vec<u8>);

impl Page {
    const BYTES: usize = 1 << 20;
    const ALIGNED: usize = 4096;

    fn new() -> Self {
        Self(noise(Self::BYTES + Self::ALIGNED))
    }

    fn bytes(&self) -> &[u8] {
        let start = self.0.as_ptr().align_offset(Self::ALIGNED);
        &self.0[start..start + Self::BYTES]
    }
}

/// Runs so many threads for so long; MB/s of the bytes that they say they have written.
fn together(
    writers: usize,
    window: Duration,
    work: impl Fn(usize, Instant) -> Result<u64> + Sync,
) -> Result<f64> {
    let start = Instant::now();
    let end = start + window;
    let written = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..writers)
            .map(|writer| scope.spawn(move || work(writer, end)))
            .collect();
        let mut written = 0;
        for thread in threads {
            written += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok::<u64, anyhow::Error>(written)
    })?;
    Ok(written as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// MB/s of so many files that are written from their beginnings to their ends at the same time, past the page
/// cache in pieces of 1 MiB, and synced at the end.
pub(crate) fn direct_write(dir: &Path, writers: usize, window: Duration) -> Result<f64> {
    let path = |writer| dir.join(format!("direct-{writer}"));
    let rate = together(writers, window, |writer, end| {
        let mut options = std::fs::OpenOptions::new();
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        options.write(true).create(true).truncate(true);
        let mut file = options.custom_flags(direct).open(path(writer))?;
        let (page, mut written) = (Page::new(), 0);
        while Instant::now() < end {
            file.write_all(page.bytes())?;
            written += Page::BYTES as u64;
        }
        file.sync_data()?;
        Ok(written)
    });
    for writer in 0..writers {
        rustix::fs::unlink(path(writer))?;
    }
    rate
}

/// MB/s of files of 1 MiB that are made, written past the page cache and synced with their directory, one after
/// the other by so many at the same time: the least that a PUT into a directory is.
pub(crate) fn files(dir: &Path, writers: usize, window: Duration) -> Result<f64> {
    let root = dir.join("files");
    std::fs::create_dir(&root)?;
    let rate = together(writers, window, |writer, end| {
        let folder = root.join(writer.to_string());
        std::fs::create_dir(&folder)?;
        let synced = std::fs::OpenOptions::new().read(true).open(&folder)?;
        let (page, mut written) = (Page::new(), 0);
        while Instant::now() < end {
            let mut options = std::fs::OpenOptions::new();
            let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
            options.write(true).create_new(true).custom_flags(direct);
            let mut file = options.open(folder.join(written.to_string()))?;
            file.write_all(page.bytes())?;
            file.sync_all()?;
            synced.sync_all()?;
            written += Page::BYTES as u64;
        }
        Ok(written)
    });
    std::fs::remove_dir_all(&root)?;
    rate
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
