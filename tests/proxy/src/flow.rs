//! How one way of a link flows: what was set, and what has passed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How one way flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Nothing goes on; it waits.
    pub held: bool,
    /// How long bytes are under way.
    pub delay: Duration,
    /// By how much longer at most, evenly spread. Bytes of one connection stay in order.
    pub jitter: Duration,
    /// How much passes per second, over all connections; `None`: all.
    pub bytes_per_second: Option<u64>,
}

impl Flow {
    /// Everything, at once.
    pub const OPEN: Self = Self {
        held: false,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bytes_per_second: None,
    };
    /// Nothing.
    pub const HELD: Self = Self {
        held: true,
        ..Self::OPEN
    };

    /// Everything, this much later.
    pub const fn delayed(delay: Duration, jitter: Duration) -> Self {
        Self {
            delay,
            jitter,
            ..Self::OPEN
        }
    }
}

/// What a tripwire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The way is held.
    Hold,
    /// The connection that the last byte went over is reset.
    Reset,
}

/// Tells when a tripwire was touched.
pub struct Tripped(oneshot::Receiver<()>);

impl Tripped {
    /// Waits until all its bytes have gone by; `false`: it was removed before.
    ///
    /// # Cancel safety
    /// Can be dropped and the tripwire stays; nobody is told then.
    pub async fn wait(self) -> bool {
        self.0.await.is_ok()
    }
}

struct Wire {
    left: u64,
    then: Then,
    told: oneshot::Sender<()>,
}

struct Inner {
    passed: u64,
    wire: Option<Wire>,
    /// When the bandwidth has been used up to.
    busy_until: Option<Instant>,
    random: u64,
}

/// The state of one way, which all connections share.
pub(crate) struct Switch {
    flow: watch::Sender<Flow>,
    inner: Mutex<Inner>,
}

/// What may pass now.
pub(crate) enum Leave {
    /// So many bytes.
    Pass(usize),
    /// So many bytes, after which the connection is to be reset.
    Last(usize),
}

impl Switch {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            flow: watch::Sender::new(Flow::OPEN),
            inner: Mutex::new(Inner {
                passed: 0,
                wire: None,
                busy_until: None,
                random: seed | 1,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    pub(crate) fn heal(&self) {
        let mut inner = self.inner();
        inner.wire = None;
        inner.busy_until = None;
        drop(inner);
        self.set(Flow::OPEN);
    }

    pub(crate) fn trip(&self, bytes: u64, then: Then) -> Tripped {
        let (told, tripped) = oneshot::channel();
        let left = bytes.max(1);
        self.inner().wire = Some(Wire { left, then, told });
        Tripped(tripped)
    }

    pub(crate) fn passed(&self) -> u64 {
        self.inner().passed
    }

    /// Waits until the way is not held.
    pub(crate) async fn opened(&self) {
        let mut flow = self.flow.subscribe();
        // The sender is `self`.
        let _ = flow.wait_for(|flow| !flow.held).await;
    }

    /// When bytes that were received at `stamp` are due, as the way flows now.
    fn due(&self, stamp: Instant, bytes: usize) -> Instant {
        let flow = *self.flow.borrow();
        let mut inner = self.inner();
        let mut due = stamp + flow.delay;
        if !flow.jitter.is_zero() {
            inner.random ^= inner.random << 13;
            inner.random ^= inner.random >> 7;
            inner.random ^= inner.random << 17;
            let share = (inner.random >> 40) as f64 / (1u64 << 24) as f64;
            due += flow.jitter.mul_f64(share);
        }
        if let Some(rate) = flow.bytes_per_second {
            let begin = inner.busy_until.unwrap_or(stamp).max(stamp);
            let end = begin + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            inner.busy_until = Some(end);
            due = due.max(end);
        }
        due
    }

    /// Waits until some of these bytes, received at `stamp`, may pass.
    pub(crate) async fn leave(&self, stamp: Instant, bytes: usize) -> Leave {
        let due = self.due(stamp, bytes);
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        self.opened().await;
        let mut inner = self.inner();
        let Some(mut wire) = inner.wire.take() else {
            inner.passed += bytes as u64;
            return Leave::Pass(bytes);
        };
        if (bytes as u64) < wire.left {
            wire.left -= bytes as u64;
            inner.wire = Some(wire);
            inner.passed += bytes as u64;
            return Leave::Pass(bytes);
        }
        let last = wire.left as usize;
        inner.passed += last as u64;
        drop(inner);
        let leave = match wire.then {
            Then::Hold => {
                self.set(Flow::HELD);
                Leave::Pass(last)
            }
            Then::Reset => Leave::Last(last),
        };
        // Perhaps nobody waits for it.
        let _ = wire.told.send(());
        leave
    }
}
