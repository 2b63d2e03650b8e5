//! A connection to one voter, shared by many calls.
//!
//! ```text
//!   call ──► writer task ──► socket ──► reader task ──► the call with that id
//! ```
//!
//! Connected when first needed, and again after it has failed. An attempt that failed before the
//! request was handed to the connection certainly did not happen; afterwards nobody knows. A
//! connection on which nothing arrives while calls run out of time is given up: a network that
//! swallows packets would otherwise hold it for minutes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::history::History;
use crate::net::{OwnedReadHalf, OwnedWriteHalf, TcpStream};
use crate::wire::{
    Greeting, Reply, Request, frame, parse, read_frame, read_greeting, send_greeting,
};

/// How long connecting and greeting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a failure to connect stands for further attempts.
const RETRY: Duration = Duration::from_millis(50);
/// A connection is given up after so many calls without a reply, or one so long, if nothing arrives.
const OVERDUE_MAX: u64 = 5;
const SILENCE: Duration = Duration::from_secs(2);
/// Requests that may wait for the socket.
const QUEUED_MAX: usize = 256;

/// Why a call got no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It did not happen.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have happened.
    #[error("no reply: {0}")]
    Lost(String),
}

/// Who a node is, for greetings.
pub(crate) trait Introduce: Send + Sync + 'static {
    /// The cluster, once known.
    fn cluster(&self) -> Option<String>;
    /// This node's voter id, if it is one.
    fn voter(&self) -> Option<u64>;
    /// The highest feature level that this program knows.
    fn knows(&self) -> u8;
    /// The feature level that this node has seen in use; at least 1.
    fn level(&self) -> u8;
    /// The history of the cluster that this node has seen.
    fn history(&self) -> Option<History> {
        None
    }
    /// This node cannot belong to the cluster any more, and why.
    fn excluded(&self, _why: &str) {}
    /// The way to simulated voters, if it goes to those.
    #[cfg(any(test, feature = "testing"))]
    fn link(&self) -> Option<Arc<crate::simulated::Link>> {
        None
    }
}

/// One voter, as seen from a client.
pub(crate) struct Peer {
    id: u64,
    address: String,
    us: Arc<dyn Introduce>,
    connection: tokio::sync::Mutex<State>,
}

/// What is known of the connection.
enum State {
    New,
    Connected(Arc<Connection>),
    /// Connecting failed then, and why: those who waited for it need not try in turn.
    Failed(Instant, String),
}

impl Peer {
    pub(crate) fn new(id: u64, address: String, us: Arc<dyn Introduce>) -> Self {
        Self {
            id,
            address,
            us,
            connection: tokio::sync::Mutex::new(State::New),
        }
    }

    /// Its `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The voter's id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Asks and waits for the reply, until the deadline.
    ///
    /// # Cancel safety
    /// Whether the request is carried out is then unknown.
    pub(crate) async fn call(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(link) = self.us.link() {
            return link.call(self.id, request, deadline).await;
        }
        let connection = tokio::time::timeout_at(deadline, self.connect())
            .await
            .map_err(|_| {
                CallError::NotSent(format!("connecting to {} took too long", self.address))
            })?
            .map_err(|error| CallError::NotSent(format!("{}: {error}", self.address)))?;
        connection.call(request, deadline).await
    }

    async fn connect(&self) -> io::Result<Arc<Connection>> {
        let mut state = self.connection.lock().await;
        match &*state {
            State::Connected(connection) if !connection.is_closed() => {
                return Ok(Arc::clone(connection));
            }
            State::Failed(at, why) if at.elapsed() < RETRY => {
                return Err(io::Error::other(why.clone()));
            }
            State::New | State::Connected(_) | State::Failed(..) => {}
        }
        match dial(self.id, &self.address, &*self.us).await {
            Ok((reader, writer)) => {
                let connection = Arc::new(Connection::start(reader, writer));
                *state = State::Connected(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                *state = State::Failed(Instant::now(), error.to_string());
                Err(error)
            }
        }
    }
}

/// Connects and greets.
pub(crate) async fn dial(
    id: u64,
    address: &str,
    us: &dyn Introduce,
) -> io::Result<(BufReader<OwnedReadHalf>, BufWriter<OwnedWriteHalf>)> {
    let greet = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (
            BufReader::with_capacity(64 << 10, reader),
            BufWriter::with_capacity(64 << 10, writer),
        );
        let ours = Greeting::of(us, id);
        send_greeting(&mut writer, &ours).await?;
        let theirs = read_greeting(&mut reader).await?;
        if let Some(objection) = theirs.objection(&ours) {
            // A voter of our own choice says so.
            if objection.excludes_us {
                us.excluded(&objection.why);
            }
            return Err(objection.into());
        }
        Ok((reader, writer))
    };
    tokio::time::timeout(CONNECT, greet)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

struct Connection {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Vec<u8>>,
    ids: AtomicU64,
    tasks: [AbortHandle; 2],
}

struct Shared {
    closed: AtomicBool,
    /// Frames received.
    received: AtomicU64,
    /// Calls that ran out of time since the last frame.
    overdue: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Shared {
    /// A call got no reply for `waited`, since `received` frames had been received.
    fn ran_out(&self, received: u64, waited: Duration) {
        if self.received.load(Ordering::Relaxed) == received {
            let overdue = self.overdue.fetch_add(1, Ordering::Relaxed) + 1;
            if overdue >= OVERDUE_MAX || waited >= SILENCE {
                self.close();
            }
        }
    }

    fn close(&self) {
        let mut pending = self.pending.lock();
        self.closed.store(true, Ordering::Release);
        // Whoever waits learns it from the dropped sender.
        pending.clear();
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    fn start(mut reader: BufReader<OwnedReadHalf>, mut writer: BufWriter<OwnedWriteHalf>) -> Self {
        let shared = Arc::new(Shared {
            closed: AtomicBool::new(false),
            received: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            pending: Mutex::default(),
        });
        let (frames, mut queue) = mpsc::channel::<Vec<u8>>(QUEUED_MAX);
        let writing = Arc::clone(&shared);
        let write = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                let mut result = writer.write_all(&frame).await;
                if result.is_ok() && queue.is_empty() {
                    result = writer.flush().await;
                }
                if let Err(error) = result {
                    tracing::debug!(%error, "a metadata peer connection failed");
                    break;
                }
            }
            writing.close();
        });
        let reading = Arc::clone(&shared);
        let read = tokio::spawn(async move {
            if let Err(error) = receive(&mut reader, &reading).await {
                tracing::debug!(%error, "a metadata peer connection failed");
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

    async fn call(&self, request: &Request, deadline: Instant) -> Result<Reply, CallError> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let frame = frame(id, request).map_err(|error| CallError::NotSent(error.to_string()))?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = self.shared.pending.lock();
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(CallError::NotSent("the connection is closed".to_owned()));
            }
            pending.insert(id, sender);
        }
        let _guard = Pending {
            shared: &self.shared,
            id,
        };
        tokio::time::timeout_at(deadline, self.frames.send(frame))
            .await
            .map_err(|_| CallError::NotSent("the connection is congested".to_owned()))?
            .map_err(|_| CallError::NotSent("the connection is closed".to_owned()))?;
        let received = self.shared.received.load(Ordering::Relaxed);
        let sent = Instant::now();
        let Ok(reply) = tokio::time::timeout_at(deadline, receiver).await else {
            self.shared.ran_out(received, sent.elapsed());
            return Err(CallError::Lost("no reply in time".to_owned()));
        };
        reply.map_err(|_| CallError::Lost("the connection failed".to_owned()))
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

async fn receive(reader: &mut BufReader<OwnedReadHalf>, shared: &Shared) -> io::Result<()> {
    while let Some((id, body)) = read_frame(reader).await? {
        let reply: Reply = parse(&body)?;
        shared.received.fetch_add(1, Ordering::Relaxed);
        shared.overdue.store(0, Ordering::Relaxed);
        if let Some(sender) = shared.pending.lock().remove(&id) {
            // The caller may have given up in this moment.
            let _ = sender.send(reply);
        }
    }
    Ok(())
}
