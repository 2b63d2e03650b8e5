//! One client's connection: requests in, responses out in the order of the requests.
//!
//! ```text
//! socket ─► frames ─► header ─┬─► other requests: served here, one after the other ─┐
//!                             └─► Produce: staged here, in order ───────────────────┤
//! socket ◄──────────── writer: awaits each answer in turn ◄─ bounded queue ─────────┘
//! ```
//!
//! Produce requests are staged (validated, handed to the cache) one after the other and then left
//! in flight, so that those of one connection overlap and keep their order. Whatever takes its
//! time, a long poll or a JoinGroup, holds up what comes behind it, as in Kafka.
//!
//! A request that cannot be answered ends the connection, after the answers to those before it.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use bytes::Buf;

use crate::api::produce;
use crate::context::{ConnInfo, Ctx};
use crate::dispatch::{self, Unanswerable};
use crate::frames::{Frame, FrameError, Frames};
use crate::wire::header::{self, HeaderError};
use crate::wire::response::Response;

/// Why a connection ended before the client closed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{key:?} version {version}: {source}")]
    Request {
        key: ApiKey,
        version: i16,
        source: Unanswerable,
    },
    #[error("the client did not take a response: {0}")]
    Write(io::Error),
}

/// A response that is still to come; `None`: the client wants none.
pub(crate) type LaterResponse = BoxFuture<'static, Result<Option<Response>, Unanswerable>>;

/// An answer on its way to the writer.
struct Answer {
    key: ApiKey,
    version: i16,
    /// When the request was complete.
    since: Instant,
    /// The request's memory.
    permit: OwnedSemaphorePermit,
    outcome: Outcome,
}

/// What became of a request.
pub(crate) enum Outcome {
    Ready(Result<Response, Unanswerable>),
    Later(LaterResponse),
}

/// Serves a connection until the client closes it, an error ends it, or the gateway drains. Then
/// what has been read is still answered.
///
/// # Cancel safety
/// Dropping it closes the connection; what was staged may still be committed.
pub(crate) async fn run<R, W>(ctx: Arc<Ctx>, conn: ConnInfo, read: R, write: W) -> Result<(), Ended>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (answers, queue) = mpsc::channel(ctx.config.pipelined_produce_max);
    let frames = Frames::new(read, ctx.request_memory.clone(), &ctx.config);
    let reader = read_requests(&ctx, &conn, frames, answers);
    let writer = write_answers(&ctx, write, queue);
    tokio::pin!(reader, writer);
    tokio::select! {
        read = &mut reader => {
            // The reader has dropped its end of the queue: the writer ends when it is empty.
            writer.await.and(read)
        }
        written = &mut writer => written,
    }
}

/// Reads, stages and serves requests.
async fn read_requests<R: AsyncRead + Unpin>(
    ctx: &Arc<Ctx>,
    conn: &ConnInfo,
    mut frames: Frames<R>,
    answers: mpsc::Sender<Answer>,
) -> Result<(), Ended> {
    loop {
        let frame = tokio::select! {
            biased;
            () = conn.drain.cancelled() => return Ok(()),
            frame = frames.next() => frame?,
        };
        let Some(Frame { bytes, permit }) = frame else {
            return Ok(());
        };
        ctx.drain.note_request();
        ctx.metrics.received_bytes.inc_by(bytes.len() as u64 + 4);
        let since = Instant::now();
        let (header, body) = header::parse(&bytes)?;
        drop(bytes);
        let outcome = if header.key == ApiKey::Produce {
            produce::stage(ctx, &header, &body).await
        } else {
            Outcome::Ready(Box::pin(dispatch::serve(ctx, conn, &header, body)).await)
        };
        let answer = Answer {
            key: header.key,
            version: header.version,
            since,
            permit,
            outcome,
        };
        if answers.send(answer).await.is_err() {
            // The writer has ended, and says why.
            return Ok(());
        }
    }
}

/// Writes answers in the order of their requests.
async fn write_answers<W: AsyncWrite + Unpin>(
    ctx: &Ctx,
    mut io: W,
    mut queue: mpsc::Receiver<Answer>,
) -> Result<(), Ended> {
    while let Some(answer) = queue.recv().await {
        let Answer {
            key,
            version,
            since,
            permit,
            outcome,
        } = answer;
        let response = match outcome {
            Outcome::Ready(response) => response.map(Some),
            Outcome::Later(response) => response.await,
        };
        let ended = |source| Ended::Request {
            key,
            version,
            source,
        };
        let response = response.map_err(ended)?;
        ctx.metrics.answered(key, since.elapsed());
        if let Some(response) = response {
            let framed = response
                .framed()
                .map_err(|error| ended(Unanswerable::Unencodable(error.to_string())))?;
            write_all(ctx, &mut io, framed)
                .await
                .map_err(Ended::Write)?;
        }
        drop(permit);
    }
    io.shutdown().await.map_err(Ended::Write)
}

/// Writes all pieces. A client that takes longer than allowed for the whole response is given up:
/// a response holds memory until it is written, and the client has stopped waiting for it by then.
async fn write_all<W: AsyncWrite + Unpin>(
    ctx: &Ctx,
    io: &mut W,
    mut response: Response,
) -> io::Result<()> {
    let deadline = Instant::now() + ctx.config.response_timeout;
    while response.has_remaining() {
        let written = timeout_at(deadline, io.write_buf(&mut response)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        ctx.metrics.sent_bytes.inc_by(written as u64);
    }
    timeout_at(deadline, io.flush()).await?
}
