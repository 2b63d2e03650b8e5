//! When to seal the open segment. Pure.
//!
//! A flush costs a PUT. While the budget has a PUT to spend, the segment is sealed as soon as it
//! has gathered for a few milliseconds, and at once if nothing is being uploaded and PUTs are plenty; when it has none, batches gather until there is one; a
//! full segment is sealed in any case. On the write-ahead log's disk, where a PUT costs a file, so is one
//! that is large enough to pass the log, and it costs nothing of the budget. So a lone producer sees the store's latency instead of a
//! timer, and the bill stays bounded by the budget plus one PUT per full segment.
//!
//! Times are durations since the service started.

use std::time::Duration;

use crate::config::{Config, PutBudget};

/// A token bucket of PUTs.
#[derive(Debug)]
struct Bucket {
    budget: PutBudget,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn refill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.budget.per_second;
        self.tokens = (self.tokens + gained).min(f64::from(self.budget.burst));
        self.at = self.at.max(now);
    }

    /// When there is a whole token; `now` if there is one.
    fn ready(&mut self, now: Duration) -> Duration {
        self.refill(now);
        let missing = 1.0 - self.tokens;
        if missing <= 0.0 {
            return now;
        }
        // Rounded up to the next microsecond, so that the token is whole when the timer fires.
        now + Duration::from_secs_f64(missing / self.budget.per_second) + Duration::from_micros(1)
    }

    /// Half of what can be saved up is there: nobody has used more than the budget for a while.
    fn is_plenty(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.budget.burst) / 2.0
    }

    /// Takes a token, or what is left of one: a full segment is sealed without asking.
    fn take(&mut self, now: Duration) {
        self.refill(now);
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

/// What the policy must know of the open segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    pub(crate) bytes: usize,
    /// When its first batch came; `None`: it is empty.
    pub(crate) since: Option<Duration>,
    /// When the first batch came whose acknowledgement waits for the upload.
    pub(crate) awaited_since: Option<Duration>,
    /// Somebody asked for a flush.
    pub(crate) flush: bool,
}

/// What to do with the open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Seal it now. The PUT has been deducted.
    Seal,
    /// Ask again then.
    WaitUntil(Duration),
    /// Ask again after the next event.
    Wait,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Policy {
    bucket: Option<Bucket>,
    /// An upload takes no longer than gathering would: nothing is gained by waiting for more.
    at_once: bool,
    gather: Duration,
    linger: Duration,
    segment_bytes: usize,
    uploads_max: usize,
    past_log_bytes: Option<usize>,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bucket: config.put_budget.map(|budget| Bucket {
                budget,
                tokens: f64::from(budget.burst),
                at: Duration::ZERO,
            }),
            at_once: config.local_store || config.put_budget.is_none(),
            gather: config.gather,
            linger: config.linger,
            segment_bytes: config.segment_bytes,
            uploads_max: config.uploads_max,
            past_log_bytes: config.past_log_bytes,
        }
    }

    /// Whether batches may go past the write-ahead log at all.
    pub(crate) fn may_pass_the_log(&self) -> bool {
        self.past_log_bytes.is_some()
    }

    /// Whether local batches of so many bytes that wait for the write-ahead log go into their segment
    /// alone.
    pub(crate) fn passes_the_log(&self, bytes: usize) -> bool {
        self.past_log_bytes.is_some_and(|least| bytes >= least)
    }

    /// Whether a segment of `bytes` bytes can take `more`. The factor of two bounds what the last
    /// batch may add, so that a segment of many tiny batches stays far below the format's limit.
    pub(crate) fn has_room(&self, bytes: usize, more: usize) -> bool {
        bytes == 0 || (bytes < self.segment_bytes && bytes + more <= 2 * self.segment_bytes)
    }

    /// Whether to seal, with `busy` segments sealed and not yet uploaded.
    pub(crate) fn judge(&mut self, open: &Open, busy: usize, now: Duration) -> Verdict {
        let Some(since) = open.since else {
            return Verdict::Wait;
        };
        let worth_it = self.passes_the_log(open.bytes);
        if open.bytes >= self.segment_bytes || open.flush {
            self.take(worth_it, now);
            return Verdict::Seal;
        }
        if busy >= self.uploads_max {
            return Verdict::Wait;
        }
        let lingered = since + self.linger;
        let plenty = self
            .bucket
            .as_mut()
            .is_none_or(|bucket| bucket.is_plenty(now));
        let mut due = match open.awaited_since {
            Some(awaited) if busy == 0 && (self.at_once || plenty) => awaited.min(lingered),
            Some(awaited) => (awaited + self.gather).min(lingered),
            None => lingered,
        };
        if let Some(bucket) = self.bucket.as_mut().filter(|_| !worth_it) {
            due = due.max(bucket.ready(now));
        }
        if due > now {
            return Verdict::WaitUntil(due);
        }
        self.take(worth_it, now);
        Verdict::Seal
    }

    fn take(&mut self, worth_it: bool, now: Duration) {
        if let Some(bucket) = self.bucket.as_mut().filter(|_| !worth_it) {
            bucket.take(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn open(bytes: usize, since: u64, awaited: bool) -> Open {
        Open {
            bytes,
            since: Some(ms(since)),
            awaited_since: awaited.then(|| ms(since)),
            flush: false,
        }
    }

    fn remote() -> Policy {
        Policy::new(&Config {
            put_budget: Some(PutBudget {
                per_second: 4.0,
                burst: 2,
            }),
            ..Config::remote()
        })
    }

    #[test]
    fn an_empty_segment_waits_for_an_event() {
        assert_eq!(remote().judge(&Open::default(), 0, ms(5)), Verdict::Wait);
    }

    #[test]
    fn with_budget_a_segment_gathers_briefly() {
        let mut policy = remote();
        assert_eq!(
            policy.judge(&open(9, 100, true), 1, ms(100)),
            Verdict::WaitUntil(ms(105))
        );
        assert_eq!(policy.judge(&open(9, 100, true), 1, ms(105)), Verdict::Seal);
    }

    #[test]
    fn a_lone_producer_is_not_made_to_wait_while_puts_are_plenty() {
        let mut policy = Policy::new(&Config {
            put_budget: Some(PutBudget {
                per_second: 4.0,
                burst: 6,
            }),
            ..Config::remote()
        });
        for _ in 0..4 {
            assert_eq!(policy.judge(&open(9, 1, true), 0, ms(1)), Verdict::Seal);
        }
        // There are two left, less than half of what can be saved up.
        let gathers = Verdict::WaitUntil(ms(6));
        assert_eq!(policy.judge(&open(9, 1, true), 0, ms(1)), gathers);
        assert_eq!(policy.judge(&open(9, 1, true), 0, ms(6)), Verdict::Seal);
    }

    #[test]
    fn without_budget_a_segment_gathers_until_there_is_some() {
        let mut policy = remote();
        for at in [0, 10] {
            assert_eq!(
                policy.judge(&open(9, at, true), 0, ms(at + 5)),
                Verdict::Seal
            );
        }
        // Both tokens were spent by 15 ms; since then a quarter second per token.
        let Verdict::WaitUntil(at) = policy.judge(&open(9, 20, true), 0, ms(25)) else {
            panic!("no token is left");
        };
        assert!((ms(250)..ms(256)).contains(&at), "{at:?}");
        assert_eq!(policy.judge(&open(9, 20, true), 0, at), Verdict::Seal);
    }

    #[test]
    fn a_full_segment_is_sealed_without_budget_and_without_a_free_upload() {
        let mut policy = remote();
        for _ in 0..10 {
            assert_eq!(
                policy.judge(&open(8 << 20, 0, true), 100, ms(0)),
                Verdict::Seal
            );
        }
    }

    #[test]
    fn what_passes_the_log_asks_for_no_budget_and_takes_none() {
        let mut policy = Policy::new(&Config {
            past_log_bytes: Some(1 << 20),
            put_budget: Some(PutBudget {
                per_second: 20.0,
                burst: 1,
            }),
            ..Config::local()
        });
        for _ in 0..10 {
            let large = open(1 << 20, 1, true);
            assert_eq!(policy.judge(&large, 0, ms(1)), Verdict::Seal);
        }
        assert_eq!(policy.judge(&open(9, 1, true), 0, ms(1)), Verdict::Seal);
        let empty = policy.judge(&open(9, 1, true), 0, ms(1));
        assert!(matches!(empty, Verdict::WaitUntil(_)), "{empty:?}");
        let large = open(1 << 20, 1, true);
        assert_eq!(policy.judge(&large, 0, ms(1)), Verdict::Seal);
        let busy = policy.judge(&large, 1, ms(1));
        assert_eq!(busy, Verdict::WaitUntil(ms(3)), "it gathers as ever");
    }

    #[test]
    fn acknowledged_batches_are_not_worth_a_put_before_long() {
        let mut policy = Policy::new(&Config::local());
        assert_eq!(
            policy.judge(&open(9, 7, false), 0, ms(7)),
            Verdict::WaitUntil(ms(1007))
        );
        assert_eq!(policy.judge(&open(9, 7, false), 0, ms(1007)), Verdict::Seal);
    }

    #[test]
    fn a_local_store_is_used_at_once_when_idle_and_soon_when_busy() {
        let mut policy = Policy::new(&Config::local());
        assert_eq!(policy.judge(&open(9, 7, true), 0, ms(7)), Verdict::Seal);
        assert_eq!(
            policy.judge(&open(9, 7, true), 1, ms(7)),
            Verdict::WaitUntil(ms(9))
        );
        assert_eq!(policy.judge(&open(9, 7, true), 4, ms(90)), Verdict::Wait);
    }

    #[test]
    fn a_flush_needs_no_reason() {
        let mut flush = open(9, 7, false);
        flush.flush = true;
        assert_eq!(remote().judge(&flush, 100, ms(7)), Verdict::Seal);
    }

    proptest! {
        /// However batches arrive, small segments never exceed burst + rate × time, and a
        /// segment never waits longer than a token takes.
        #[test]
        fn the_budget_bounds_the_puts(gaps in prop::collection::vec(0u64..400, 1..200)) {
            let mut policy = remote();
            let mut now = 0;
            let mut sealed = 0u32;
            let mut since = None;
            for gap in gaps {
                now += gap;
                let opened = *since.get_or_insert(now);
                match policy.judge(&open(100, opened, true), 0, ms(now)) {
                    Verdict::Seal => { sealed += 1; since = None; }
                    Verdict::WaitUntil(at) => {
                        prop_assert!(at > ms(now));
                        prop_assert!(at <= ms(now + 251), "{at:?} at {now}");
                    }
                    Verdict::Wait => prop_assert!(false, "an upload was free"),
                }
            }
            prop_assert!(f64::from(sealed) <= 2.0 + now as f64 * 0.004 + 1e-3);
        }
    }
}
