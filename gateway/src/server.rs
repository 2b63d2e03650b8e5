//! The accept loop: connections in, up to a limit, each with a task of its own.
//!
//! On shutdown it stops accepting; connections finish what they have read and close; those that
//! do not within the drain timeout are cut.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connection::{self, Ended};
use crate::context::{ConnInfo, Ctx};
use crate::frames::FrameError;
use crate::net::{self, TcpListener, TcpStream};

/// How long accepting pauses when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves Kafka clients on a listener.
pub struct Server {
    ctx: Arc<Ctx>,
    listener: TcpListener,
}

impl Server {
    /// A server on a bound listener.
    pub fn new(ctx: Arc<Ctx>, listener: TcpListener) -> Self {
        Self { ctx, listener }
    }

    /// Accepts and serves until `shutdown`, then drains.
    ///
    /// # Cancel safety
    /// Dropping it cuts all connections.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { ctx, listener } = self;
        let mut connections = JoinSet::new();
        let groups = ctx.groups.clone();
        let mut adoption = pin!(groups.run());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => reaped(ended),
                // Ends only with the groups, and those only below.
                () = &mut adoption => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if connections.len() >= ctx.config.connections_max {
                            ctx.metrics.connections_refused.inc();
                            warn!(%peer, "connection refused: there are too many");
                            continue;
                        }
                        ctx.metrics.connections_accepted.inc();
                        let conn = ConnInfo { peer, drain: shutdown.clone() };
                        connections.spawn(serve(Arc::clone(&ctx), conn, stream));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        info!(connections = connections.len(), "draining connections");
        // Answers parked joins and syncs, so that their connections can finish.
        ctx.groups.stop().await;
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                reaped(ended);
            }
        };
        if tokio::time::timeout(ctx.config.drain_timeout, drained)
            .await
            .is_err()
        {
            warn!(
                connections = connections.len(),
                "connections cut: they did not drain in time"
            );
            connections.shutdown().await;
        }
    }
}

fn reaped(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task has panicked");
    }
}

/// One connection from its first byte to its last.
async fn serve(ctx: Arc<Ctx>, conn: ConnInfo, stream: TcpStream) {
    let peer = conn.peer;
    ctx.metrics.connections.inc();
    let open = Open(&ctx);
    if let Err(error) = prepare(&stream) {
        debug!(%peer, %error, "cannot set socket options");
    }
    let (read, write) = stream.into_split();
    let ended = connection::run(Arc::clone(&ctx), conn, read, write).await;
    drop(open);
    match ended {
        Ok(()) => debug!(%peer, "connection closed"),
        Err(Ended::Frame(FrameError::Io(error)) | Ended::Write(error)) => {
            debug!(%peer, %error, "connection lost");
        }
        Err(Ended::Frame(FrameError::Timeout | FrameError::CutOff | FrameError::Memory)) => {
            debug!(%peer, "connection closed: cut off, silent, or no memory left");
        }
        Err(error) => {
            ctx.metrics.malformed.inc();
            info!(%peer, %error, "connection closed");
        }
    }
}

/// Counts a connection as open while it lives.
struct Open<'a>(&'a Ctx);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    net::keep_alive(stream)
}
