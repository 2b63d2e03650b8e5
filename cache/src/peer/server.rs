//! What a gateway answers other gateways.
//!
//! ```text
//!   socket ──► reader: one task per request (bounded) ──► writer ──► socket
//! ```
//!
//! Bytes of the write-ahead log come from the tail, which has everything that the log must still
//! keep, recovered epochs included, and nothing else: an epoch that is not there was not recovered,
//! and is not answered for. Blocks come from the tail or the block cache, or are fetched; a request
//! for one is never passed on, so that gateways that disagree about the owner cannot ask in a
//! circle. What is sent is not checked here: whoever asked does that.
//!
//! Every connection has its own tasks, which end with it. A fetch that has begun goes on, and fills
//! the cache.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::SegmentId;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::Us;
use super::wire::{Greeting, PAYLOAD_MAX, REQUEST_MAX, Reply, Request, read_frame};
use crate::ReadError;
use crate::metrics::Metrics;
use crate::net::{Connections, Stream};
use crate::read::Class;
use crate::read::blocks::Blocks;
use crate::read::plan::BLOCK_BYTES;
use crate::tail::Tail;

/// Connections that are served at once.
const CONNECTIONS_MAX: usize = 1024;
/// Requests of one connection that are worked on at once.
const REQUESTS_MAX: usize = 64;
/// Bytes of replies that are on their way at once, to all.
const REPLIES_BYTES_MAX: usize = 64 << 20;
/// How long a connection may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// How long a connection may have nothing to ask.
const UNUSED: Duration = Duration::from_secs(600);
/// How long a reply may take to be sent.
const SENDING: Duration = Duration::from_secs(30);

/// Answers other gateways.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    us: Us,
    tail: Arc<Tail>,
    blocks: Arc<Blocks>,
    replies: Arc<Semaphore>,
    metrics: Metrics,
}

impl Server {
    pub(crate) fn new(us: Us, tail: Arc<Tail>, blocks: Arc<Blocks>, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                us,
                tail,
                blocks,
                replies: Arc::new(Semaphore::new(REPLIES_BYTES_MAX)),
                metrics,
            }),
        }
    }

    /// Serves connections until `stop`, or until no more can come.
    ///
    /// # Cancel safety
    /// Dropping the future ends every connection.
    pub async fn run(self, mut incoming: Connections, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = incoming.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok(Some(stream)) => {
                        let server = self.clone();
                        connections.spawn(async move {
                            if let Err(error) = server.serve(stream).await {
                                tracing::debug!(%error, "a connection of another gateway ended");
                            }
                        });
                    }
                    Ok(None) => {
                        stop.cancelled().await;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of another gateway was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: impl Stream + 'static) -> io::Result<()> {
        connection(&self.shared, stream).await
    }
}

/// A reply's frame and the room it takes.
type Outgoing = (Bytes, Bytes, OwnedSemaphorePermit);

async fn connection<S: Stream + 'static>(shared: &Arc<Shared>, mut stream: S) -> io::Result<()> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let theirs = tokio::time::timeout(GREETING, Greeting::read(&mut stream));
    let theirs = theirs.await.map_err(timed_out)??;
    let us = &shared.us;
    Greeting::new(&us.cluster, us.broker, theirs.sender)
        .send(&mut stream)
        .await?;
    if let Some(objection) = theirs.objection(&us.cluster, us.broker) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, objection));
    }
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let (replies, mut queue) = mpsc::channel::<Outgoing>(REQUESTS_MAX);
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        while let Some((head, body, _room)) = queue.recv().await {
            let send = async {
                writer.write_all(&head).await?;
                writer.write_all(&body).await
            };
            tokio::time::timeout(SENDING, send)
                .await
                .map_err(timed_out)??;
        }
        Ok::<(), io::Error>(())
    });
    let mut requests = JoinSet::new();
    loop {
        while requests.try_join_next().is_some() {}
        if requests.len() >= REQUESTS_MAX {
            requests.join_next().await;
            continue;
        }
        let frame = tokio::select! {
            ended = writing.join_next() => {
                return ended.map_or(Ok(()), |ended| ended.map_err(io::Error::other)?);
            }
            frame = tokio::time::timeout(UNUSED, read_frame(&mut reader, REQUEST_MAX)) => frame,
        };
        let Some((id, body)) = frame.map_err(timed_out)?? else {
            return Ok(());
        };
        let request = Request::parse(&body)?;
        let (shared, replies) = (Arc::clone(shared), replies.clone());
        requests.spawn(async move { shared.answer(id, request, &replies).await });
    }
}

impl Shared {
    async fn answer(&self, id: u64, request: Request, replies: &mpsc::Sender<Outgoing>) {
        let reply = match request {
            Request::Wal {
                epoch,
                start,
                length,
            } if length as usize <= PAYLOAD_MAX => match self.tail.wal(epoch, start, length) {
                Some(bytes) => Reply::Bytes(bytes),
                None => Reply::NotHere,
            },
            Request::Wal { length, .. } => Reply::Failed(format!("{length} bytes are too many")),
            Request::Block {
                id: segment,
                block,
                scan,
            } => {
                let class = if scan { Class::Far } else { Class::Near };
                self.block(id, (segment, block, class), replies).await
            }
        };
        self.send(id, reply, replies).await;
    }

    async fn block(
        &self,
        id: u64,
        (segment, block, class): (SegmentId, u32, Class),
        replies: &mpsc::Sender<Outgoing>,
    ) -> Reply {
        if let Some(object) = self.tail.segment(segment) {
            let start = u64::from(block).saturating_mul(BLOCK_BYTES);
            let start = usize::try_from(start)
                .unwrap_or(usize::MAX)
                .min(object.len());
            let end = (start + BLOCK_BYTES as usize).min(object.len());
            return Reply::Bytes(object.slice(start..end));
        }
        if let Some(bytes) = self.blocks.at_hand(segment, block, class).await {
            return Reply::Bytes(bytes);
        }
        self.send(id, Reply::Working, replies).await;
        match self.blocks.own(segment, block, class).await {
            Ok(bytes) => Reply::Bytes(bytes),
            Err(ReadError::NotFound { .. }) => Reply::NotHere,
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    async fn send(&self, id: u64, reply: Reply, replies: &mpsc::Sender<Outgoing>) {
        if let Reply::Bytes(bytes) = &reply {
            self.metrics.peer_served.inc();
            self.metrics.peer_served_bytes.inc_by(bytes.len() as u64);
        }
        let (head, body) = reply.frame(id);
        let room = Arc::clone(&self.replies);
        if let Ok(room) = room.acquire_many_owned(body.len() as u32).await {
            // The connection may have ended.
            let _ = replies.send((head, body, room)).await;
        }
    }
}

#[cfg(test)]
impl Server {
    /// What it would answer for these bytes of a log.
    pub(crate) fn wal_for_tests(
        &self,
        epoch: frazil_core::BrokerEpoch,
        start: u64,
        length: u32,
    ) -> Option<Bytes> {
        self.shared.tail.wal(epoch, start, length)
    }
}
