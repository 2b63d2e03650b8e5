//! Leaving while clients are at work, without their noticing.
//!
//! ```text
//! out of the live set ─► begin ─► new Produce and Fetch: NOT_LEADER_OR_FOLLOWER ─► quiet ─► close
//!                          │      (clients ask for metadata, which names other gateways)
//!                          └────► long polls end; groups: NOT_COORDINATOR
//! ```
//!
//! A batch is refused before anything of it is staged, or it is staged and answered as ever: what is
//! refused was certainly not appended. On one connection, whatever was sent before the refused
//! request is answered before it, so that a client that sends the refused batch elsewhere has it
//! appended behind the others.
//!
//! Invariant: nobody is sent away unless the image has another live gateway. A gateway that is alone
//! serves until its connections are closed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After so long without a request, every client has found another gateway or has nothing to do.
const QUIET: Duration = Duration::from_millis(1_000);

/// Whether this gateway is leaving.
#[derive(Debug)]
pub struct Drain {
    begun: CancellationToken,
    asked: Mutex<Instant>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            begun: CancellationToken::new(),
            asked: Mutex::new(Instant::now()),
        }
    }
}

impl Drain {
    /// Begins to send clients away. The gateway must be out of the live set.
    pub fn begin(&self) {
        self.note_request();
        self.begun.cancel();
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until it begins.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// A client has asked for something.
    pub(crate) fn note_request(&self) {
        *self.asked.lock() = Instant::now();
    }

    /// Waits until no client has asked for anything for a second.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn quiet(&self) {
        loop {
            let until = *self.asked.lock() + QUIET;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_nobody_has_asked_for_a_second() {
        let drain = Drain::default();
        drain.begin();
        let began = Instant::now();
        for _ in 0..5 {
            let waited = tokio::time::timeout(QUIET / 2, drain.quiet()).await;
            assert!(waited.is_err(), "it was not quiet");
            drain.note_request();
        }
        drain.quiet().await;
        assert_eq!(began.elapsed(), QUIET / 2 * 5 + QUIET);
    }
}
