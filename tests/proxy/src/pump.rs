//! Moves the bytes of one way of one connection.

use std::io;
use std::net::Shutdown;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::flow::{Leave, Switch};

/// Bytes that are moved at once.
const CHUNK: usize = 16 << 10;
/// Chunks that may be under way on one connection.
const UNDER_WAY: usize = 256;

/// How a way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The source closed; the target has been told.
    Closed,
    /// The source was reset, or a tripwire wants it so: the target is to be reset, now.
    Reset,
    /// The target takes nothing more. The other way will learn why.
    Gone,
}

/// Moves bytes until there is an end.
pub(crate) async fn run(from: &TcpStream, to: &TcpStream, switch: &Switch) -> End {
    let (queue, received) = mpsc::channel(UNDER_WAY);
    let reading = async {
        let end = read(from, queue).await;
        match end {
            Ok(()) => End::Closed,
            Err(_) => End::Reset,
        }
    };
    let writing = write(to, received, switch);
    tokio::pin!(reading, writing);
    tokio::select! {
        end = &mut reading => match writing.await {
            // All that came has been handed over.
            None => {
                if end == End::Closed {
                    let _ = socket2::SockRef::from(to).shutdown(Shutdown::Write);
                }
                end
            }
            Some(earlier) => earlier,
        },
        Some(end) = &mut writing => end,
    }
}

type Chunk = (Instant, Vec<u8>);

/// Reads until the source closes.
async fn read(from: &TcpStream, queue: mpsc::Sender<Chunk>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        from.readable().await?;
        match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                let chunk = (Instant::now(), buffer[..n].to_vec());
                if queue.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes what was received; `None`: all, and nothing more comes.
async fn write(
    to: &TcpStream,
    mut received: mpsc::Receiver<Chunk>,
    switch: &Switch,
) -> Option<End> {
    while let Some((stamp, chunk)) = received.recv().await {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, end) = match switch.leave(stamp, rest.len()).await {
                Leave::Pass(bytes) => (bytes, None),
                Leave::Last(bytes) => (bytes, Some(End::Reset)),
            };
            if write_all(to, &rest[..now]).await.is_err() {
                return Some(End::Gone);
            }
            if end.is_some() {
                return end;
            }
            rest = &rest[now..];
        }
    }
    // The end, too, takes its way.
    switch.opened().await;
    None
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
