//! A voter's side of the peer protocol.
//!
//! ```text
//!   socket ──► reader: one task per request (bounded) ──► writer ──► socket
//! ```
//!
//! Every connection has its own tasks, which end with it. What a request began in Raft goes on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::{EntryPayload, Snapshot};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::command::Envelope;
use crate::connections::Connections;
use crate::net::TcpStream;
use crate::node::{Node, Us};
use crate::peer::Introduce as _;
use crate::raft::{Blob, SnapshotMeta, Vote};
use crate::wire::{
    Greeting, Reply, Request, SNAPSHOT_MAX, SNAPSHOT_PART, frame, parse, read_frame, read_greeting,
    send_greeting,
};

/// Connections that are served at once.
const CONNECTIONS_MAX: usize = 4096;
/// Requests of one connection that are worked on at once.
const REQUESTS_MAX: usize = 256;
/// KiB of requests of one connection that are worked on at once.
const REQUESTS_KIB_MAX: u32 = 128 << 10;
/// How long a frame may take from its first byte to its last.
const FRAME: Duration = Duration::from_secs(60);
/// How long a connection may have nothing to ask and nothing to be told.
const UNUSED: Duration = Duration::from_secs(600);
/// How long a connection may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// How often a follower hears from us when nothing happens.
const IDLE: Duration = Duration::from_secs(2);
/// Entries, and their bytes, that a follower gets at once.
const FOLLOW_ENTRIES: u64 = 1024;
const FOLLOW_BYTES: u64 = 1 << 20;
/// How long the leader may take to answer what was handed to it; whoever asked is less patient
/// than twice this.
const RELAY: Duration = Duration::from_secs(4);
/// The same for a change of voters.
const RELAY_CHANGE: Duration = Duration::from_secs(85);
/// A follower that is further behind gets a snapshot.
const FOLLOW_LAG_MAX: u64 = 100_000;

/// Serves until it is stopped.
pub(crate) async fn serve(node: Arc<Node>, mut incoming: Connections, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = incoming.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(Some(stream)) => {
                    let node = Arc::clone(&node);
                    connections.spawn(async move {
                        let from = stream.peer_addr().ok();
                        if let Err(error) = connection(node, stream).await {
                            tracing::debug!(?from, %error, "a metadata connection ended");
                        }
                    });
                }
                // Those that are there go on.
                Ok(None) => {
                    stop.cancelled().await;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a metadata connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// A snapshot that is being received.
struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    bytes: u64,
    received: BytesMut,
}

/// What the requests of a connection share.
struct Session {
    node: Arc<Node>,
    incoming: Mutex<Option<Incoming>>,
    replies: mpsc::Sender<Vec<u8>>,
}

async fn connection(node: Arc<Node>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut writer = BufWriter::with_capacity(64 << 10, writer);

    let us = Us {
        image: Arc::clone(&node.image),
        voter: Some(node.id),
    };
    let ours = Greeting::of(&us, node.id);
    let theirs = tokio::time::timeout(GREETING, read_greeting(&mut reader))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    send_greeting(&mut writer, &ours).await?;
    if let Some(objection) = theirs.objection(&ours) {
        // Somebody of this very cluster says so.
        if objection.excludes_us && ours.cluster.is_some() && theirs.cluster == ours.cluster {
            us.excluded(&objection.why);
        }
        return Err(objection.into());
    }

    let (replies, mut queue) = mpsc::channel::<Vec<u8>>(REQUESTS_MAX);
    let session = Arc::new(Session {
        node,
        incoming: Mutex::new(None),
        replies,
    });
    let permits = Arc::new(Semaphore::new(REQUESTS_KIB_MAX as usize));
    let mut requests = JoinSet::new();
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        while let Some(reply) = queue.recv().await {
            writer.write_all(&reply).await?;
            if queue.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    });
    loop {
        // Sweep what has ended, and end with the writer.
        while let Some(ended) = requests.try_join_next().or_else(|| writing.try_join_next()) {
            ended.map_err(io::Error::other)??;
        }
        if requests.len() >= REQUESTS_MAX {
            if let Some(ended) = requests.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            continue;
        }
        match tokio::time::timeout(UNUSED, reader.fill_buf()).await {
            Ok(bytes) => {
                if bytes?.is_empty() {
                    return Ok(());
                }
            }
            Err(_) if requests.is_empty() => return Ok(()),
            Err(_) => continue,
        }
        let (id, body) = match tokio::time::timeout(FRAME, read_frame(&mut reader)).await {
            Ok(frame) => match frame? {
                Some(frame) => frame,
                None => return Ok(()),
            },
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let request = parse::<Request>(&body)?;
        let kib = (body.len() as u32 >> 10) + 1;
        let permit = Arc::clone(&permits)
            .acquire_many_owned(kib)
            .await
            .map_err(io::Error::other)?;
        let session = Arc::clone(&session);
        requests.spawn(async move {
            let result = session.answer(id, request).await;
            drop(permit);
            result
        });
    }
}

impl Session {
    async fn answer(&self, id: u64, request: Request) -> io::Result<()> {
        let reply = match request {
            Request::Follow { after } => return self.follow(id, after).await,
            other => self.handle(other).await,
        };
        self.send(id, &reply).await
    }

    async fn send(&self, id: u64, reply: &Reply) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.replies.send(frame(id, reply)?).await.map_err(gone)
    }

    async fn handle(&self, request: Request) -> Reply {
        let raft = &self.node.raft;
        let refused = |error: &dyn std::fmt::Display| Reply::Refused(error.to_string());
        match request {
            Request::Append(rpc) => match raft.append_entries(rpc).await {
                Ok(response) => Reply::Appended(response),
                Err(error) => refused(&error),
            },
            Request::Vote(rpc) => match raft.vote(rpc).await {
                Ok(response) => Reply::Voted(response),
                Err(error) => refused(&error),
            },
            Request::PreVote(rpc) => match raft.pre_vote(rpc).await {
                Ok(response) => Reply::Voted(response),
                Err(error) => refused(&error),
            },
            Request::SnapshotBegin { vote, meta, bytes } => {
                if bytes > SNAPSHOT_MAX {
                    return Reply::Refused(format!("a snapshot of {bytes} bytes"));
                }
                *self.incoming.lock().await = Some(Incoming {
                    vote,
                    meta,
                    bytes,
                    received: BytesMut::new(),
                });
                Reply::Continue
            }
            Request::SnapshotPart(part) => {
                let mut incoming = self.incoming.lock().await;
                match &mut *incoming {
                    Some(snapshot)
                        if (snapshot.received.len() + part.0.len()) as u64 <= snapshot.bytes =>
                    {
                        snapshot.received.extend_from_slice(&part.0);
                        Reply::Continue
                    }
                    _ => {
                        *incoming = None;
                        Reply::Refused("no snapshot is expected, or not so much".to_owned())
                    }
                }
            }
            Request::SnapshotEnd => match self.incoming.lock().await.take() {
                Some(snapshot) if snapshot.received.len() as u64 == snapshot.bytes => {
                    let received = Snapshot {
                        meta: snapshot.meta,
                        snapshot: snapshot.received.freeze(),
                    };
                    match raft.install_full_snapshot(snapshot.vote, received).await {
                        Ok(response) => Reply::SnapshotInstalled(response),
                        Err(error) => refused(&error),
                    }
                }
                _ => Reply::Refused("the snapshot is not complete".to_owned()),
            },
            Request::TransferLeader(rpc) => match raft.handle_transfer_leader(rpc).await {
                Ok(response) => Reply::Transferred(response),
                Err(error) => refused(&error),
            },
            Request::Propose(bytes) => self.propose(&bytes).await,
            Request::ReadIndex => self.node.read_index().await,
            Request::Status => Reply::Status(self.node.status()),
            Request::Members => Reply::Members(self.node.members()),
            Request::ProposeAnywhere(bytes) => {
                let reply = self.propose(&bytes).await;
                let relayed = Request::Propose(bytes);
                self.node.or_leader(reply, &relayed, RELAY).await
            }
            Request::ReadIndexAnywhere => {
                let reply = self.node.read_index().await;
                let relayed = Request::ReadIndex;
                self.node.or_leader(reply, &relayed, RELAY).await
            }
            Request::ChangeVoters { change, relayed } => {
                let node = Arc::clone(&self.node);
                let reply = node.change_voters(change.clone()).await;
                if relayed {
                    return reply;
                }
                let relayed = Request::ChangeVoters {
                    change,
                    relayed: true,
                };
                self.node.or_leader(reply, &relayed, RELAY_CHANGE).await
            }
            Request::Features => Reply::Features(self.node.features().await),
            Request::Upgrade { to, relayed } => {
                let reply = self.node.upgrade(to).await;
                if relayed {
                    return reply;
                }
                let relayed = Request::Upgrade { to, relayed: true };
                self.node.or_leader(reply, &relayed, RELAY_CHANGE).await
            }
            Request::Follow { .. } => Reply::Refused("not here".to_owned()),
        }
    }

    async fn propose(&self, bytes: &Blob) -> Reply {
        match Envelope::decode_knowing(self.node.image.knows(), &bytes.0) {
            Ok(envelope) => self.node.propose(envelope).await,
            Err(error) => Reply::Impossible(error.to_string()),
        }
    }

    /// Sends the applied log behind `after`, until the connection ends.
    async fn follow(&self, id: u64, after: u64) -> io::Result<()> {
        let image = &self.node.image;
        let mut applied = image.subscribe();
        let mut next = after + 1;
        loop {
            let upto = *applied.borrow_and_update();
            if next > upto {
                let changed = tokio::time::timeout(IDLE, applied.changed()).await;
                match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => self.send(id, &Reply::FollowIdle(upto)).await?,
                }
                continue;
            }
            let entries = if upto - next < FOLLOW_LAG_MAX {
                let end = (upto + 1).min(next + FOLLOW_ENTRIES);
                self.node.log.read(next, end, FOLLOW_BYTES).await?
            } else {
                Vec::new()
            };
            if entries
                .first()
                .is_some_and(|entry| entry.log_id.index == next)
            {
                next += entries.len() as u64;
                let entries = entries
                    .into_iter()
                    .map(|entry| match entry.payload {
                        EntryPayload::Normal(command) => (entry.log_id.index, Some(command)),
                        EntryPayload::Blank | EntryPayload::Membership(_) => {
                            (entry.log_id.index, None)
                        }
                    })
                    .collect();
                self.send(id, &Reply::FollowEntries(entries)).await?;
            } else {
                // Too far behind, or what it needs has been purged.
                next = self.send_snapshot(id, next).await? + 1;
            }
        }
    }

    /// Sends a snapshot that covers the entry `next`: the newest on disk if it does, which costs
    /// nobody anything, or else one of a copy of the image. Answers its index.
    async fn send_snapshot(&self, id: u64, next: u64) -> io::Result<u64> {
        let node = Arc::clone(&self.node);
        let read = move || {
            let newest = node.snapshots.newest().ok().flatten();
            let on_disk = newest.and_then(|(meta, bytes)| Some((bytes, meta.last_log_id?.index)));
            on_disk
                .filter(|(_, index)| *index >= next)
                .unwrap_or_else(|| {
                    let (state, index) = node.image.copy();
                    (state.snapshot().into(), index)
                })
        };
        let (bytes, index): (Bytes, u64) = crate::blocking::spawn_blocking(read)
            .await
            .map_err(io::Error::other)?;
        let begin = Reply::FollowSnapshot {
            index,
            bytes: bytes.len() as u64,
        };
        self.send(id, &begin).await?;
        for start in (0..bytes.len()).step_by(SNAPSHOT_PART) {
            let part = bytes.slice(start..bytes.len().min(start + SNAPSHOT_PART));
            self.send(id, &Reply::FollowPart(Blob(part))).await?;
        }
        Ok(index)
    }
}
