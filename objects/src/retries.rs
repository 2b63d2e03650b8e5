//! How often a store is asked again.
//!
//! Two things hold a retry back: its own backoff (exponential, full jitter) spreads the retries of one
//! moment over time, and one budget for all requests bounds their number. Each request that is sent
//! for the first time adds [`SHARE`] of a token, each retry takes one, and [`TRICKLE`] tokens come
//! every second by themselves. So a store that refuses everything is asked again a few times a
//! second, however many requests wait, and one that refuses some is never asked more than a fifth
//! beyond its load; and whatever waits gets its turn, in the order of waiting.
//!
//! Source: "Addressing Cascading Failures" in Site Reliability Engineering (Google, 2016): retries
//! that multiply the load are what keeps an overloaded service down.

use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::Ids;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{Backoff, Failure, Metrics};

/// Retries per request.
const SHARE: f64 = 0.2;
/// Retries per second that are always allowed.
const TRICKLE: f64 = 5.0;
/// Retries that can be saved up.
const SAVED_MAX: f64 = 20.0;
/// How long at least before something is tried again that will hardly succeed.
const SLOW: Duration = Duration::from_secs(5);
/// How often trouble that goes on is told.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Failures in a row that are a store's ordinary way of speaking.
const ORDINARY: u32 = 3;

/// What all requests to one store share. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Retries {
    shared: Arc<Shared>,
}

struct Shared {
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    bucket: Mutex<Bucket>,
    /// Who takes the next token: the longest waiting.
    turn: tokio::sync::Mutex<()>,
    /// There may be a token earlier than expected.
    added: Notify,
    trouble: Mutex<Trouble>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// What goes wrong, as far as it is logged.
#[derive(Default)]
struct Trouble {
    /// Nothing has succeeded since.
    since: Option<Instant>,
    /// It has been said since then that something goes wrong.
    known: bool,
    /// When that was said last. Kinds of requests can fail while others succeed, so this outlives
    /// a success.
    told: Option<Instant>,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let gained = now.duration_since(self.at).as_secs_f64() * TRICKLE;
        self.tokens = (self.tokens + gained).min(SAVED_MAX);
        self.at = now;
    }

    /// Takes a token, or says how long it takes until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let missing = 1.0 - self.tokens;
        if missing > 0.0 {
            // Rounded up, so that the token is whole after the wait.
            return Err(Duration::from_secs_f64(missing / TRICKLE) + Duration::from_micros(1));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

impl Retries {
    /// The budget of a store that has not been asked yet.
    ///
    pub fn new(ids: Arc<dyn Ids>, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                ids,
                metrics,
                bucket: Mutex::new(Bucket {
                    tokens: SAVED_MAX,
                    at: Instant::now(),
                }),
                turn: tokio::sync::Mutex::default(),
                added: Notify::new(),
                trouble: Mutex::default(),
            }),
        }
    }

    /// A request that is about to be sent for the first time.
    pub fn begin(&self) -> Attempts {
        {
            let mut bucket = self.shared.bucket.lock();
            bucket.refill(Instant::now());
            bucket.tokens = (bucket.tokens + SHARE).min(SAVED_MAX);
        }
        self.shared.added.notify_one();
        Attempts {
            backoff: Backoff::new(&self.shared.ids),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The attempts of one request.
pub struct Attempts {
    shared: Arc<Shared>,
    backoff: Backoff,
}

impl Attempts {
    /// The request has succeeded, or was answered as it should be.
    pub fn done(self) {
        let mut trouble = self.shared.trouble.lock();
        let since = trouble.since.take();
        if std::mem::take(&mut trouble.known)
            && let Some(since) = since
        {
            info!(after = ?since.elapsed(), "the object store works again");
        }
    }

    /// Waits until the request may be sent again, after it has failed like this.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is not sent again by whoever dropped it, and the turn
    /// goes to another.
    pub async fn again(&mut self, error: &object_store::Error) {
        let wait = self.failed(error);
        tokio::time::sleep(wait).await;
        self.turn().await;
    }

    /// As [`Self::again`], unless that would take until `deadline`: then answers `false`, perhaps
    /// at once.
    ///
    /// # Cancel safety
    /// As [`Self::again`].
    pub async fn again_before(&mut self, error: &object_store::Error, deadline: Instant) -> bool {
        let wait = self.failed(error);
        if Instant::now() + wait >= deadline {
            return false;
        }
        tokio::time::sleep(wait).await;
        tokio::time::timeout_at(deadline, self.turn()).await.is_ok()
    }

    /// Notes a failure, and says how long to wait because of it.
    fn failed(&mut self, error: &object_store::Error) -> Duration {
        let failure = Failure::of(error);
        self.shared.metrics.failures.inc();
        let mut wait = self.backoff.next();
        if let Failure::Permanent { .. } = failure {
            self.shared.metrics.permanent.inc();
            wait += SLOW;
        }
        self.tell(error, failure);
        wait
    }

    /// Logs trouble, but not for each of the requests that are in it.
    fn tell(&self, error: &object_store::Error, failure: Failure) {
        let mut trouble = self.shared.trouble.lock();
        let now = Instant::now();
        let since = *trouble.since.get_or_insert(now);
        let lately = trouble.told.is_some_and(|told| now < told + TELL_EVERY);
        let ordinary = self.backoff.attempts() < ORDINARY;
        match failure {
            _ if lately => return,
            Failure::Permanent { advice } => {
                error!(%error, advice, "the object store refuses what Frazil needs");
            }
            _ if ordinary => return,
            _ => {
                let since = since.elapsed();
                warn!(%error, ?since, "the object store fails; requests are tried again");
            }
        }
        trouble.told = Some(now);
        trouble.known = true;
    }

    /// Waits for a token.
    async fn turn(&self) {
        let shared = &self.shared;
        let mut waited = false;
        let _turn = match shared.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                waited = true;
                shared.turn.lock().await
            }
        };
        loop {
            let taken = shared.bucket.lock().take(Instant::now());
            match taken {
                Ok(()) => break,
                Err(wait) => {
                    waited = true;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = shared.added.notified() => {}
                    }
                }
            }
        }
        shared.metrics.retries.inc();
        if waited {
            shared.metrics.exhausted.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::SeededIds;
    use object_store::Error;

    use super::*;

    fn error(text: &'static str) -> Error {
        Error::Generic {
            store: "test",
            source: text.into(),
        }
    }

    fn retries(metrics: &Metrics) -> Retries {
        Retries::new(Arc::new(SeededIds::new(7)), metrics.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_everything_is_asked_a_few_times_a_second() {
        let metrics = Metrics::default();
        let retries = retries(&metrics);
        for _ in 0..500 {
            let mut attempts = retries.begin();
            tokio::spawn(async move {
                loop {
                    attempts.again(&error("503")).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        let sent = metrics.retries.get() as f64;
        // What was saved up, a share of the requests that came, and what trickles.
        assert!(
            sent <= SAVED_MAX + 500.0 * SHARE + 100.0 * TRICKLE,
            "{sent}"
        );
        assert!(sent >= 100.0 * TRICKLE, "{sent}");
        assert!(metrics.exhausted.get() > 400);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_the_load() {
        let metrics = Metrics::default();
        let retries = retries(&metrics);
        let load = 20_000;
        for _ in 0..load {
            let mut attempts = retries.begin();
            tokio::spawn(async move {
                // Half of them fail, again and again.
                for _ in 0..4 {
                    attempts.again(&error("503")).await;
                }
                attempts.done();
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sent = metrics.retries.get() as f64;
        let most = SAVED_MAX + f64::from(load) * SHARE + 25.0 * TRICKLE;
        assert!(sent <= most, "{sent} of {load}");
        assert!(sent >= most / 2.0, "{sent} of {load}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_failure_is_tried_again_at_once() {
        let metrics = Metrics::default();
        let mut attempts = retries(&metrics).begin();
        let began = Instant::now();
        attempts.again(&error("reset")).await;
        assert!(began.elapsed() <= Duration::from_millis(51));
        attempts.done();
        assert_eq!(metrics.exhausted.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_hardly_succeed_is_tried_slowly() {
        let metrics = Metrics::default();
        let mut attempts = retries(&metrics).begin();
        let began = Instant::now();
        let denied = Error::PermissionDenied {
            path: "a".to_owned(),
            source: "403".into(),
        };
        attempts.again(&denied).await;
        assert!(began.elapsed() >= SLOW);
        assert_eq!(metrics.permanent.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept() {
        let metrics = Metrics::default();
        let retries = retries(&metrics);
        for _ in 0..100 {
            let mut attempts = retries.begin();
            tokio::spawn(async move {
                loop {
                    attempts.again(&error("503")).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let began = Instant::now();
        let deadline = began + Duration::from_secs(2);
        let mut attempts = retries.begin();
        while attempts.again_before(&error("503"), deadline).await {}
        assert!(Instant::now() <= deadline + Duration::from_millis(1));
    }
}
