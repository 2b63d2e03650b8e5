//! What a voter does when its disk is full: it acknowledges nothing, says so, and waits for room.
//!
//! A full disk takes nothing back: what was written and synced stays, and what could not be written
//! was never answered for. So, unlike any other error, it does not end the voter. What is tried again
//! is only ever one whole step whose repetition has the same effect: creating a file under a temporary
//! name, writing the same bytes at the same place. A *sync* that fails is never tried again, whatever
//! it says: what it was to make durable may be lost and yet be read ([`synced`]).
//!
//! Meanwhile openraft's calls are not answered. To the others the voter is one that is slow: they elect
//! another leader and go on. A voter that is alone answers no command until there is room; reading
//! goes on.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

/// How often it is looked for room.
const EVERY: Duration = Duration::from_millis(100);
/// How often it is said that there is none.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The error of a start, with what to do if there is no room: a voter begins a new file when it starts.
pub(crate) fn at_start(dir: &Path, error: io::Error) -> io::Error {
    if !is_full(&error) {
        return error;
    }
    let dir = dir.display();
    io::Error::new(
        error.kind(),
        format!("the disk is full: free some space for {dir}, and start again ({error})"),
    )
}

/// The result of a sync, as one that [`is_full`] does not recognise.
pub(crate) fn synced(result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| match is_full(&error) {
        true => io::Error::other(format!("a sync failed: {error}")),
        false => error,
    })
}

/// Says, at first and then from time to time, that there is no room.
pub(crate) struct Teller<'a> {
    what: &'a str,
    full: &'a Gauge,
    told: Option<Instant>,
}

impl<'a> Teller<'a> {
    /// `what` cannot be written; `full` shows it to whoever looks.
    pub(crate) fn new(what: &'a str, full: &'a Gauge) -> Self {
        Self {
            what,
            full,
            told: None,
        }
    }

    /// There is none.
    pub(crate) fn tell(&mut self, error: &io::Error) {
        self.full.set(1);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            let what = self.what;
            tracing::error!(
                %error,
                "no room for {what}: this voter acknowledges nothing until there is; free space in \
                 data.dir"
            );
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.full.set(0);
            tracing::info!("the wait for room for {} has ended", self.what);
        }
    }
}

/// Where a thread of its own waits for room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Nobody waits for what is to be written.
    closed: AtomicBool,
}

impl Room {
    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Does a step again and again while there is no room for it. Blocks.
    ///
    /// # Errors
    /// The step's, if it is another one or nobody waits any more. With the feature `sim`, in which no
    /// thread can be held, always the first.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        full: &Gauge,
        mut step: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut teller = Teller::new(what, full);
        loop {
            match step() {
                Err(error)
                    if is_full(&error)
                        && !self.closed.load(Ordering::Relaxed)
                        && !cfg!(feature = "sim") =>
                {
                    teller.tell(&error);
                    std::thread::park_timeout(EVERY);
                }
                result => return result,
            }
        }
    }
}
