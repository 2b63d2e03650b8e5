//! Waiting between attempts: exponential, with full jitter.

use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::Ids;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(5);

/// The waits of one operation.
#[derive(Clone)]
pub struct Backoff {
    ids: Arc<dyn Ids>,
    attempts: u32,
}

impl Backoff {
    /// None has been waited for yet.
    pub fn new(ids: &Arc<dyn Ids>) -> Self {
        Self {
            ids: Arc::clone(ids),
            attempts: 0,
        }
    }

    /// How many waits there have been.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next wait: anything up to twice the bound of the one before, at most 5 s.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.attempts.min(10)).min(MAX);
        self.attempts = self.attempts.saturating_add(1);
        Duration::from_micros(self.ids.random() % (bound.as_micros() as u64 + 1))
    }

    /// Waits.
    ///
    /// # Cancel safety
    /// Dropping the future shortens the wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::SeededIds;

    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(3));
        let mut backoff = Backoff::new(&ids);
        let waits: Vec<_> = (0..1000).map(|_| backoff.next()).collect();
        assert!(waits[0] <= FIRST);
        assert!(waits[1] <= 2 * FIRST);
        assert!(waits.iter().all(|wait| *wait <= MAX));
        assert!(waits.iter().any(|wait| *wait > MAX / 2));
        assert_eq!(backoff.attempts(), 1000);
    }
}
