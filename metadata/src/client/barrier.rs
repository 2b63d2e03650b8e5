//! Barriers: one read index serves everyone who was waiting when it was asked for.
//!
//! Invariant: a waiter is served by a read index that was asked for after it began to wait.

use std::sync::Arc;

use frazil_core::sabotage::{self, Bug};
use frazil_core::{PortError, PortResult};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Link;

/// Waiters that may queue.
const WAITING_MAX: usize = 4096;

type Waiter = oneshot::Sender<PortResult<u64>>;

/// Gathers those who wait.
pub(super) struct Barrier {
    waiters: mpsc::Sender<Waiter>,
    task: AbortHandle,
}

impl Barrier {
    pub(super) fn start(link: Arc<Link>) -> Self {
        let (waiters, queue) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(serve(link, queue)).abort_handle();
        Self { waiters, task }
    }

    /// Waits until the image has everything that was acknowledged before the call.
    pub(super) async fn pass(&self, link: &Link, deadline: Instant) -> PortResult<()> {
        let authority = link.local.as_ref().is_some_and(|node| node.is_authority());
        if authority || sabotage::on(Bug::BarrierDoesNotWait) {
            return Ok(());
        }
        let late = || PortError::Unavailable("no read index in time".to_owned());
        let passing = async {
            let (waiter, index) = oneshot::channel();
            self.waiters.send(waiter).await.map_err(|_| late())?;
            let index = index.await.map_err(|_| late())??;
            link.arrived(index).await;
            Ok(())
        };
        tokio::time::timeout_at(deadline, passing)
            .await
            .map_err(|_| late())?
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(link: Arc<Link>, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiters = Vec::new();
    while queue.recv_many(&mut waiters, WAITING_MAX).await > 0 {
        waiters.retain(|waiter| !waiter.is_closed());
        if waiters.is_empty() {
            continue;
        }
        let deadline = Instant::now() + link.config.deadline;
        let index = link.read_index(deadline).await;
        for waiter in waiters.drain(..) {
            // Whoever gave up does not need it.
            let _ = waiter.send(index.clone());
        }
    }
}
