//! The link to one other gateway: a connection that many calls share.
//!
//! ```text
//!   call ──► writer task ──► socket ──► reader task ──► the call with that id
//! ```
//!
//! Connected when first needed, and again after it has failed: also at once, for a call that found
//! an old connection broken. Requests only read, so one whose fate is unknown is asked again, or of
//! somebody else. A gateway that sends nothing at all, not even
//! that it is at work, is *silent*; one that is at work may take its time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use frazil_core::BrokerId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::wire::{Greeting, REPLY_MAX, Reply, Request, read_frame};
use crate::net::{Dial, Stream};

/// How long connecting and greeting may take.
const CONNECT: Duration = SILENCE;
/// How long a gateway at whose end the machine works may send nothing.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);
/// Calls of one link that are under way at once; with what a reply may be long, a bound on memory.
const CALLS_MAX: usize = 64;

/// Why a call got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The other side is gone, refuses, or says nothing: ask nobody there for a while.
    #[error("{0}")]
    Down(String),
    /// It is there and did not answer in time.
    #[error("no answer in time")]
    Slow,
}

/// Why a connection brought no reply.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Lost {
    #[error("the connection ended")]
    Broken,
    #[error("nothing is heard")]
    Silent,
}

/// Who we are, for greetings.
#[derive(Clone, Debug)]
pub(crate) struct Us {
    pub(crate) cluster: String,
    pub(crate) broker: BrokerId,
}

/// See the module.
pub(crate) struct Link {
    us: Us,
    target: BrokerId,
    address: String,
    dial: Arc<dyn Dial>,
    calls: Semaphore,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// How often connecting has failed, and how the last time.
    failures: Mutex<(u64, String)>,
}

impl Link {
    pub(crate) fn new(us: Us, target: BrokerId, address: String, dial: Arc<dyn Dial>) -> Self {
        Self {
            us,
            target,
            address,
            dial,
            calls: Semaphore::new(CALLS_MAX),
            connection: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Where it goes to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks, and waits for the reply until the deadline. Also answers whether the other side had to
    /// work for it.
    ///
    /// # Cancel safety
    /// Dropping the future is safe; a reply that still comes is thrown away.
    pub(crate) async fn call(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Reply, bool), CallError> {
        let work = async {
            let _slot = self.calls.acquire().await;
            let down = |error: io::Error| CallError::Down(format!("{}: {error}", self.address));
            loop {
                let (connection, is_new) = self.connect().await.map_err(down)?;
                match connection.call(request).await {
                    Ok(reply) => return Ok(reply),
                    Err(Lost::Broken) if !is_new => {}
                    Err(lost) => return Err(CallError::Down(format!("{}: {lost}", self.address))),
                }
            }
        };
        match tokio::time::timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Slow),
        }
    }

    /// The connection, and whether nobody has used it before.
    async fn connect(&self) -> io::Result<(Arc<Connection>, bool)> {
        let failed = self.failures.lock().0;
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection
            && !connection.shared.closed.load(Ordering::Acquire)
        {
            return Ok((Arc::clone(connection), false));
        }
        {
            let (times, how) = &*self.failures.lock();
            if *times > failed {
                // Those who waited meanwhile need not try in turn.
                return Err(io::Error::other(how.clone()));
            }
        }
        let greeted = tokio::time::timeout(CONNECT, self.greet()).await;
        let greeted = greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = greeted.inspect_err(|error| {
            let mut failures = self.failures.lock();
            *failures = (failures.0 + 1, error.to_string());
        })?;
        let new = Arc::new(Connection::start(stream));
        *connection = Some(Arc::clone(&new));
        Ok((new, true))
    }

    async fn greet(&self) -> io::Result<Box<dyn Stream>> {
        let mut stream = self.dial.dial(&self.address).await?;
        let ours = Greeting::new(&self.us.cluster, self.us.broker, self.target);
        ours.send(&mut stream).await?;
        let theirs = Greeting::read(&mut stream).await?;
        if theirs.sender != self.target {
            let what = format!("broker {} is there", theirs.sender);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        match theirs.objection(&self.us.cluster, self.us.broker) {
            Some(objection) => Err(io::Error::new(io::ErrorKind::InvalidData, objection)),
            None => Ok(stream),
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Bytes>,
    ids: AtomicU64,
    tasks: [AbortHandle; 2],
}

struct Shared {
    closed: AtomicBool,
    /// Frames received.
    received: watch::Sender<u64>,
    pending: Mutex<HashMap<u64, mpsc::Sender<Reply>>>,
}

impl Shared {
    fn close(&self) {
        let mut pending = self.pending.lock();
        self.closed.store(true, Ordering::Release);
        // Whoever waits learns it from the dropped sender.
        pending.clear();
    }
}

impl Connection {
    fn start(stream: Box<dyn Stream>) -> Self {
        let (reader, mut writer) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            closed: AtomicBool::new(false),
            received: watch::Sender::new(0),
            pending: Mutex::default(),
        });
        let (frames, mut queue) = mpsc::channel::<Bytes>(CALLS_MAX);
        let writing = Arc::clone(&shared);
        let write = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if writer.write_all(&frame).await.is_err() {
                    break;
                }
            }
            writing.close();
        });
        let reading = Arc::clone(&shared);
        let read = tokio::spawn(async move {
            let mut reader = BufReader::with_capacity(64 << 10, reader);
            if let Err(error) = receive(&mut reader, &reading).await {
                tracing::debug!(%error, "a connection to another gateway failed");
            }
            reading.close();
        });
        Self {
            shared,
            frames,
            ids: AtomicU64::new(1),
            tasks: [write.abort_handle(), read.abort_handle()],
        }
    }

    async fn call(&self, request: &Request) -> Result<(Reply, bool), Lost> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        // Room for all replies that a request can have: the reader never waits for a call.
        let (sender, mut replies) = mpsc::channel(2);
        let mut received = self.shared.received.subscribe();
        {
            let mut pending = self.shared.pending.lock();
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(Lost::Broken);
            }
            pending.insert(id, sender);
        }
        let _guard = Pending {
            shared: &self.shared,
            id,
        };
        if self.frames.send(request.frame(id)).await.is_err() {
            return Err(Lost::Broken);
        }
        let mut works = false;
        loop {
            let reply = tokio::select! {
                biased;
                reply = replies.recv() => reply,
                () = tokio::time::sleep(SILENCE), if !works => {
                    if !received.has_changed().unwrap_or(false) {
                        // Nobody shall wait on this connection again.
                        self.shared.close();
                        return Err(Lost::Silent);
                    }
                    received.mark_unchanged();
                    continue;
                }
            };
            match reply {
                Some(Reply::Working) => works = true,
                Some(reply) => return Ok((reply, works)),
                None => return Err(Lost::Broken),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Forgets a call that nobody waits for any more.
struct Pending<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.pending.lock().remove(&self.id);
    }
}

async fn receive<R: AsyncRead + Unpin>(reader: &mut R, shared: &Shared) -> io::Result<()> {
    while let Some((id, body)) = read_frame(reader, REPLY_MAX).await? {
        let reply = Reply::parse(body)?;
        shared.received.send_modify(|frames| *frames += 1);
        if let Some(sender) = shared.pending.lock().get(&id) {
            // The caller may have given up in this moment; more than it has room for is noise.
            let _ = sender.try_send(reply);
        }
    }
    Ok(())
}
