//! Requests as they come out of a socket: `length i32 | length bytes`.
//!
//! - The length is checked before anything is allocated for it. What looks like TLS or HTTP has a
//!   length beyond any limit, and ends here.
//! - The buffer grows with the bytes that arrive: by doubling, or at once up to the length of the
//!   request before, so that large requests of one kind are not copied while they arrive.
//! - The buffer counts against the gateway's memory as it grows, until the request is answered;
//!   while there is none left, nothing more is read. A length that is only claimed counts for
//!   [`FIRST_READ_BYTES`]. Requests that each wait for the memory of the rest of the others are
//!   ended by the timeout.
//! - Produce requests may wait long for the store while they hold memory, so they have a share of
//!   their own: whatever producers do, heartbeats, fetches and the like get through.
//! - A client that is slower than the timeouts is cut off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::Config;

/// What is read from an idle connection at first.
const FIRST_READ_BYTES: usize = 8 << 10;
/// What a connection may allocate at once because its last request was as long.
const USUAL_MAX: usize = 1 << 20;
/// Key, version and correlation id: no request is shorter.
const LENGTH_MIN: usize = 8;
/// Length and key.
const KEYED: usize = 6;

/// Why there is no further request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a request of {length} bytes is not between {LENGTH_MIN} and {max} ({guess})")]
    Length {
        length: i32,
        max: usize,
        guess: &'static str,
    },
    #[error("the client was silent or slow for too long")]
    Timeout,
    #[error("there was no memory for the rest of a request")]
    Memory,
    #[error("the connection ended within a request")]
    CutOff,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes of requests that may be in memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    produce: Pool,
    rest: Pool,
}

/// A share of it.
#[derive(Clone, Debug)]
struct Pool {
    free: Arc<Semaphore>,
    bytes: usize,
}

impl Memory {
    /// `bytes` bytes, of which requests other than Produce have a quarter.
    pub(crate) fn new(bytes: usize) -> Self {
        let rest = bytes / 4;
        Self {
            produce: Pool::new(bytes - rest),
            rest: Pool::new(rest.max(1)),
        }
    }
}

impl Pool {
    fn new(bytes: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            bytes,
        }
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.free).acquire_many_owned(bytes as u32);
        permit.await.expect("the semaphore is never closed")
    }
}

/// A request with the memory it occupies.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Cuts a byte stream into requests.
pub(crate) struct Frames<R> {
    io: R,
    buffer: BytesMut,
    memory: Memory,
    limits: Limits,
    /// How long the client may be silent before the next request.
    patience: Duration,
    /// The length of the last request: the next one is likely of that kind.
    usual: usize,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    request_bytes_max: usize,
    request_timeout: Duration,
    idle_timeout: Duration,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Reads from `io`; `memory` is that of all connections.
    pub(crate) fn new(io: R, memory: Memory, config: &Config) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            memory,
            limits: Limits {
                request_bytes_max: config.request_bytes_max,
                request_timeout: config.request_timeout,
                idle_timeout: config.idle_timeout,
            },
            patience: config.first_request_timeout,
            usual: 0,
        }
    }

    /// The next request; `None` if the client has closed the connection between two.
    ///
    /// # Cancel safety
    /// What has been read stays, but the time starts anew.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let deadline = Instant::now() + self.patience;
        while self.buffer.is_empty() {
            if self.read(FIRST_READ_BYTES, deadline).await? == 0 {
                return Ok(None);
            }
        }
        let mut deadline = deadline.min(Instant::now() + self.limits.request_timeout);
        while self.buffer.len() < 4 {
            if self.read(FIRST_READ_BYTES, deadline).await? == 0 {
                return Err(FrameError::CutOff);
            }
        }
        let length = self.checked_length()?;
        while self.buffer.len() < KEYED {
            if self.read(FIRST_READ_BYTES, deadline).await? == 0 {
                return Err(FrameError::CutOff);
            }
        }
        let memory = self.memory_of_request();
        let before = Instant::now();
        let mut charged = length.min(FIRST_READ_BYTES).min(memory.bytes);
        let mut permit = memory.take(charged).await;
        deadline += before.elapsed();
        while self.buffer.len() < 4 + length {
            let missing = 4 + length - self.buffer.len();
            let proven = self.buffer.len().max(self.usual).max(FIRST_READ_BYTES);
            let growth = missing.min(proven);
            let needed = (self.buffer.len() + growth).min(memory.bytes);
            if needed > charged {
                let more = timeout_at(deadline, memory.take(needed - charged)).await;
                permit.merge(more.map_err(|_| FrameError::Memory)?);
                charged = needed;
            }
            if self.read(growth, deadline).await? == 0 {
                return Err(FrameError::CutOff);
            }
        }
        self.buffer.advance(4);
        let bytes = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
        self.patience = self.limits.idle_timeout;
        self.usual = length.min(USUAL_MAX);
        Ok(Some(Frame { bytes, permit }))
    }

    fn checked_length(&self) -> Result<usize, FrameError> {
        let prefix = [
            self.buffer[0],
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
        ];
        let length = i32::from_be_bytes(prefix);
        let max = self.limits.request_bytes_max;
        usize::try_from(length)
            .ok()
            .filter(|length| (LENGTH_MIN..=max).contains(length))
            .ok_or(FrameError::Length {
                length,
                max,
                guess: guess(prefix),
            })
    }

    /// The memory that the request counts against whose key has arrived.
    fn memory_of_request(&self) -> Pool {
        let key = i16::from_be_bytes([self.buffer[4], self.buffer[5]]);
        if key == ApiKey::Produce as i16 {
            self.memory.produce.clone()
        } else {
            self.memory.rest.clone()
        }
    }

    /// Reads once, up to `bytes`.
    async fn read(&mut self, bytes: usize, deadline: Instant) -> Result<usize, FrameError> {
        self.buffer.reserve(bytes);
        timeout_at(deadline, self.io.read_buf(&mut self.buffer))
            .await
            .map_err(|_| FrameError::Timeout)?
            .map_err(FrameError::Io)
    }
}

/// What somebody may have meant by such a length.
fn guess(prefix: [u8; 4]) -> &'static str {
    match &prefix {
        [0x16, 0x03, ..] => "it looks like TLS",
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" => "it looks like HTTP",
        _ => "it does not look like Kafka's protocol",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn config() -> Config {
        Config {
            request_bytes_max: 1 << 20,
            ..Config::default()
        }
    }

    fn frames<R: AsyncRead + Unpin>(io: R) -> Frames<R> {
        Frames::new(io, Memory::new(4 << 20), &config())
    }

    #[tokio::test]
    async fn requests_come_out_whole_however_they_arrive() {
        let requests: Vec<Vec<u8>> = [8, 9, 100, 8, 50_000]
            .iter()
            .map(|&n| (0..n).map(|i| i as u8).collect())
            .collect();
        let mut stream = Vec::new();
        for request in &requests {
            stream.extend_from_slice(&(request.len() as i32).to_be_bytes());
            stream.extend_from_slice(request);
        }
        for step in [1, 3, 7, 4096, stream.len()] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let stream = stream.clone();
            let sender = tokio::spawn(async move {
                for chunk in stream.chunks(step) {
                    client.write_all(chunk).await.unwrap();
                }
            });
            let mut frames = frames(server);
            for request in &requests {
                let frame = frames.next().await.unwrap().unwrap();
                assert_eq!(&frame.bytes[..], &request[..]);
            }
            assert!(frames.next().await.unwrap().is_none());
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn lengths_out_of_bounds_end_the_connection_without_allocation() {
        for (bytes, guessed) in [
            (&b"\x16\x03\x01\x02"[..], "it looks like TLS"),
            (b"GET / HTTP/1.1", "it looks like HTTP"),
            (
                b"\xff\xff\xff\xff",
                "it does not look like Kafka's protocol",
            ),
            (
                b"\0\0\0\x07abcdefg",
                "it does not look like Kafka's protocol",
            ),
            (b"\0\x10\0\x01", "it does not look like Kafka's protocol"),
        ] {
            let mut frames = frames(bytes);
            match frames.next().await {
                Err(FrameError::Length { guess, .. }) => assert_eq!(guess, guessed),
                other => panic!("{bytes:?}: {other:?}"),
            }
            assert!(frames.buffer.capacity() <= 2 * FIRST_READ_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_are_cut_off() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut silent = frames(server);
        let start = Instant::now();
        assert!(matches!(silent.next().await, Err(FrameError::Timeout)));
        assert_eq!(start.elapsed(), config().first_request_timeout);

        client.write_all(b"\0\0\0\x09abcdefghi").await.unwrap();
        assert!(silent.next().await.unwrap().is_some());
        let dribble = tokio::spawn(async move {
            client.write_all(b"\0\0\0\x09").await.unwrap();
            loop {
                tokio::time::sleep(Duration::from_secs(4)).await;
                if client.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        assert!(matches!(silent.next().await, Err(FrameError::Timeout)));
        assert_eq!(start.elapsed(), config().request_timeout);
        drop(silent);
        dribble.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_waited_for_and_given_back() {
        let memory = Memory::new(40);
        let free = Arc::clone(&memory.rest.free);
        let mut stream = Vec::new();
        for _ in 0..2 {
            stream.extend_from_slice(b"\0\0\0\x08abcdefgh");
        }
        // A request larger than all memory takes all of it, and passes.
        stream.extend_from_slice(b"\0\0\0\x0cabcdefghijkl");
        let mut frames = Frames::new(&stream[..], memory, &config());
        let one = frames.next().await.unwrap().unwrap();
        assert_eq!(free.available_permits(), 2);
        let waiting = tokio::time::timeout(Duration::from_secs(60), frames.next()).await;
        assert!(waiting.is_err(), "there is no memory for a second request");
        drop(one);
        assert!(frames.next().await.unwrap().is_some());
        let large = frames.next().await.unwrap().unwrap();
        assert_eq!(free.available_permits(), 0);
        drop(large);
        assert_eq!(free.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn producers_leave_memory_to_everybody_else() {
        let memory = Memory::new(40);
        let mut stream = Vec::new();
        for _ in 0..4 {
            stream.extend_from_slice(b"\0\0\0\x0c\0\0cdefghijkl");
        }
        let mut producers = Frames::new(&stream[..], memory.clone(), &config());
        let _first = producers.next().await.unwrap().unwrap();
        let _second = producers.next().await.unwrap().unwrap();
        let third = tokio::spawn(async move {
            let mut other = Frames::new(&b"\0\0\0\x08\0\x0ccdefgh"[..], memory, &config());
            // It does not even queue behind the producer.
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.next().await.unwrap().unwrap()
        });
        let waiting = tokio::time::timeout(Duration::from_secs(60), producers.next()).await;
        assert!(waiting.is_err(), "there is no memory for a third producer");
        let heartbeat = tokio::time::timeout(Duration::from_secs(1), third).await;
        assert_eq!(heartbeat.unwrap().unwrap().bytes.len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn claimed_lengths_take_no_memory_from_others() {
        let bytes = 10 * FIRST_READ_BYTES;
        let memory = Memory::new(4 * bytes);
        let free = Arc::clone(&memory.rest.free);
        let mut request = ((8 * FIRST_READ_BYTES) as i32).to_be_bytes().to_vec();
        let (mut stalled, server) = tokio::io::duplex(1 << 20);
        stalled.write_all(&request).await.unwrap();
        stalled.write_all(b"and no more").await.unwrap();
        let mut frames = Frames::new(server, memory.clone(), &config());
        let waiting = tokio::spawn(async move { frames.next().await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        request.resize(4 + 8 * FIRST_READ_BYTES, 1);
        let mut other = Frames::new(&request[..], memory, &config());
        let frame = other.next().await.unwrap().unwrap();
        assert_eq!(frame.bytes.len(), 8 * FIRST_READ_BYTES);
        assert!(matches!(waiting.await.unwrap(), Err(FrameError::Timeout)));
        drop(frame);
        assert_eq!(free.available_permits(), bytes);
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_a_request_is_an_error() {
        for length in 1..12 {
            let mut frames = frames(&b"\0\0\0\x08abcdefgh"[..length]);
            assert!(
                matches!(frames.next().await, Err(FrameError::CutOff)),
                "{length}"
            );
        }
    }
}
