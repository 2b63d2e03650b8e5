//! When a request that takes long is worth a second one, and how many of those there may be. Pure.
//!
//! A second request goes out after the time that all but one in a hundred of the recent ones took
//! (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013). A budget bounds them: whatever makes
//! every request slow must not be met with twice as many.

use std::time::Duration;

/// How many of the recent requests are remembered.
const RECENT: usize = 256;
/// How few of them say nothing yet.
const FEW: usize = 20;
/// After how many new ones it is computed again.
const EVERY: usize = 16;
/// Second requests per request.
const SHARE: f64 = 0.05;
/// How many of them may be saved up.
const SAVED_MAX: f64 = 10.0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hedge {
    floor: Duration,
    cap: Duration,
    /// The times of recent requests, in a ring.
    recent: Vec<Duration>,
    next: usize,
    new: usize,
    delay: Duration,
    saved: f64,
}

impl Hedge {
    /// No second request goes out before `floor`. As long as little is known, and at most, one
    /// waits for `cap`.
    pub(crate) fn new(floor: Duration, cap: Duration) -> Self {
        Self {
            floor,
            cap,
            recent: Vec::with_capacity(RECENT),
            next: 0,
            new: 0,
            delay: cap,
            saved: 1.0,
        }
    }

    /// A request has succeeded after this time.
    pub(crate) fn record(&mut self, took: Duration) {
        if self.recent.len() < RECENT {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
        }
        self.next = (self.next + 1) % RECENT;
        self.new += 1;
        if self.recent.len() >= FEW && self.new >= EVERY {
            self.new = 0;
            let mut sorted = self.recent.clone();
            sorted.sort_unstable();
            let slow = sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)];
            self.delay = slow.clamp(self.floor, self.cap);
        }
    }

    /// How long to wait before a second request.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// A request goes out: how long to wait before a second one.
    pub(crate) fn begin(&mut self) -> Duration {
        self.saved = (self.saved + SHARE).min(SAVED_MAX);
        self.delay
    }

    /// Takes a second request from the budget, if there is one.
    pub(crate) fn spend(&mut self) -> bool {
        let there = self.saved >= 1.0;
        if there {
            self.saved -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_delay_follows_the_slow_ones_within_its_limits() {
        let mut hedge = Hedge::new(20 * MS, 1000 * MS);
        assert_eq!(hedge.begin(), 1000 * MS, "nothing is known");
        let mut feed = |took: u32, times: usize| {
            for _ in 0..times {
                hedge.record(took * MS);
            }
            hedge.begin()
        };
        assert_eq!(feed(50, 10), 1000 * MS, "too little is known");
        assert_eq!(feed(50, 300), 50 * MS);
        // One slow request in a hundred changes nothing, some do.
        feed(400, 1);
        assert_eq!(feed(50, 15), 50 * MS);
        feed(400, 10);
        assert_eq!(feed(50, 22), 400 * MS);
        assert_eq!(feed(1, 300), 20 * MS);
        assert_eq!(feed(9000, 300), 1000 * MS);
    }

    #[test]
    fn second_requests_are_few_however_slow_everything_is() {
        let mut hedge = Hedge::new(MS, 1000 * MS);
        let second = (0..10_000).filter(|_| {
            hedge.begin();
            hedge.spend()
        });
        let second = second.count();
        assert!((490..=501).contains(&second), "{second}");
        for _ in 0..10_000 {
            hedge.begin();
        }
        let at_once = (0..100).filter(|_| hedge.spend()).count();
        assert_eq!(at_once, 10, "no more is saved up");
    }
}
