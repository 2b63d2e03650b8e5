//! When to seal the open segment. Pure.
//!
//! A flush costs a PUT. While the budget has a PUT to spend, the segment is sealed as soon as it
//! has gathered for a few milliseconds, and at once if nothing is being uploaded and PUTs are plenty; when it
//! has none, batches gather until there is one; a full segment is sealed in any case. So a lone
//! producer sees the store's latency instead of a timer, and the bill stays bounded by the budget plus one
//! PUT per half a segment. On the write-ahead log's disk, where a PUT costs a file, what is large
//! enough to pass the log is sealed without asking the budget.
//!
//! What a PUT takes from the budget falls with what it carries: the bytes of half a segment have earned
//! one. Producers make good use of that: one with a few requests on the way fills them within
//! milliseconds of its last acknowledgement, and what it has to say later waits for the next. Its records
//! wait for up to two seals, not one, and so gain twice from each that comes earlier.
//!
//! Where PUTs are paid, two things keep them large when much comes:
//!
//! - At a rate that fills segments in little more time than the budget needs for a PUT, the rest is waited for.
//! - What comes with the batch that fills a segment goes with it: those who have just got their
//!   acknowledgements all send at once, and what such a burst has too much would be a small segment.
//!
//! Times are durations since the service started.

use std::time::Duration;

use crate::config::{Config, PutBudget};

/// A token bucket of PUTs.
#[derive(Debug)]
struct Bucket {
    budget: PutBudget,
    /// So many bytes take nothing from it.
    earned: usize,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn refill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.budget.per_second;
        self.tokens = (self.tokens + gained).min(f64::from(self.budget.burst));
        self.at = self.at.max(now);
    }

    /// What a PUT of so many bytes takes.
    fn price(&self, bytes: usize) -> f64 {
        (1.0 - bytes as f64 / self.earned as f64).max(0.0)
    }

    /// When there is enough for so many bytes; `now` if there is.
    fn ready(&mut self, bytes: usize, now: Duration) -> Duration {
        self.refill(now);
        let missing = self.price(bytes) - self.tokens;
        if missing <= 0.0 {
            return now;
        }
        // Rounded up to the next microsecond, so that it is there when the timer fires.
        now + Duration::from_secs_f64(missing / self.budget.per_second) + Duration::from_micros(1)
    }

    /// Half of what can be saved up is there: nobody has used more than the budget for a while.
    fn is_plenty(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.budget.burst) / 2.0
    }

    /// Takes the price, or what is left of it: some segments are sealed without asking.
    fn take(&mut self, bytes: usize, now: Duration) {
        self.refill(now);
        self.tokens = (self.tokens - self.price(bytes)).max(0.0);
    }
}

/// How fast bytes have been coming lately, seen from what was sealed; the last second counts most.
#[derive(Debug, Default)]
struct Flow {
    bytes: f64,
    /// The last seal.
    at: Duration,
}

impl Flow {
    const MEMORY: f64 = 1.0;

    fn bytes(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.at).as_secs_f64();
        self.bytes * Self::MEMORY / (Self::MEMORY + age)
    }

    fn sealed(&mut self, bytes: usize, now: Duration) {
        self.bytes = self.bytes(now) + bytes as f64;
        self.at = now;
    }

    /// How many seconds so many bytes take; infinite if nothing comes.
    fn time_of(&self, bytes: usize, now: Duration) -> f64 {
        bytes as f64 * Self::MEMORY / self.bytes(now)
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
    flow: Flow,
    /// When the open segment was found to be full.
    full_since: Option<Duration>,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bucket: config.put_budget.map(|budget| Bucket {
                budget,
                earned: config.segment_bytes.div_ceil(2),
                tokens: f64::from(budget.burst),
                at: Duration::ZERO,
            }),
            at_once: config.local_store || config.put_budget.is_none(),
            gather: config.gather,
            linger: config.linger,
            segment_bytes: config.segment_bytes,
            uploads_max: config.uploads_max,
            past_log_bytes: config.past_log_bytes,
            flow: Flow::default(),
            full_since: None,
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

    /// Whether a segment of `bytes` bytes can take `more`. The factor of two bounds what comes with the batch
    /// that fills it, so that a segment of many tiny batches stays far below the format's limit.
    pub(crate) fn has_room(&self, bytes: usize, more: usize) -> bool {
        let open = bytes < self.segment_bytes || !self.at_once;
        bytes == 0 || (open && bytes + more <= 2 * self.segment_bytes)
    }

    /// Whether to seal, with `busy` segments sealed and not yet uploaded.
    pub(crate) fn judge(&mut self, open: &Open, busy: usize, now: Duration) -> Verdict {
        let Some(since) = open.since else {
            return Verdict::Wait;
        };
        let free = self.passes_the_log(open.bytes);
        let due = if open.flush {
            now
        } else if open.bytes >= self.segment_bytes {
            self.burst_ends(now)
        } else if busy >= self.uploads_max {
            return Verdict::Wait;
        } else {
            self.due(open, since, busy, free, now)
        };
        if due > now {
            return Verdict::WaitUntil(due);
        }
        if let Some(bucket) = self.bucket.as_mut().filter(|_| !free) {
            bucket.take(open.bytes, now);
        }
        self.flow.sealed(open.bytes, now);
        self.full_since = None;
        Verdict::Seal
    }

    /// When a segment that is not full is to be sealed.
    fn due(
        &mut self,
        open: &Open,
        since: Duration,
        busy: usize,
        free: bool,
        now: Duration,
    ) -> Duration {
        let lingered = since + self.linger;
        let plenty = self
            .bucket
            .as_mut()
            .is_none_or(|bucket| bucket.is_plenty(now));
        let due = match open.awaited_since {
            Some(awaited) if busy == 0 && (self.at_once || plenty) => awaited.min(lingered),
            Some(awaited) => (awaited + self.gather).min(lingered),
            None => lingered,
        };
        match self.bucket.as_mut().filter(|_| !free) {
            Some(bucket) => due
                .max(bucket.ready(open.bytes, now))
                .max(self.nearly_full(now)),
            None => due,
        }
    }

    /// Until when the rest of a segment is waited for, because it comes soon.
    fn nearly_full(&self, now: Duration) -> Duration {
        match &self.bucket {
            Some(Bucket { budget, .. }) if !self.at_once => {
                let interval = 1.0 / budget.per_second;
                let comes_soon =
                    self.flow.time_of(self.segment_bytes, now) <= WORTH_WAITING * interval;
                // Not for ever: whoever sent it may have nothing more to send before this is acknowledged.
                let until = self.flow.at + Duration::from_secs_f64(WAITING_ENDS * interval);
                if comes_soon { until } else { now }
            }
            _ => now,
        }
    }

    /// When a segment that is full is sealed, since what comes with it has come.
    fn burst_ends(&mut self, now: Duration) -> Duration {
        let since = *self.full_since.get_or_insert(now);
        if self.at_once {
            return since;
        }
        // No longer than it takes to fill a sixteenth: no delay that anybody notices.
        let sixteenth = self.flow.time_of(self.segment_bytes / 16, now);
        since
            + self
                .gather
                .min(Duration::try_from_secs_f64(sixteenth).unwrap_or(self.gather))
    }
}

/// In intervals between two PUTs of the budget: a segment that fills so soon is waited for …
const WORTH_WAITING: f64 = 1.25;
/// … for so long since the last was sealed.
const WAITING_ENDS: f64 = 2.0;

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
        // Both were spent by 15 ms; since then a quarter second for one.
        let Verdict::WaitUntil(at) = policy.judge(&open(9, 20, true), 0, ms(25)) else {
            panic!("no token is left");
        };
        assert!((ms(250)..ms(256)).contains(&at), "{at:?}");
        assert_eq!(policy.judge(&open(9, 20, true), 0, at), Verdict::Seal);
    }

    const FULL: usize = 8 << 20;

    #[test]
    fn a_full_segment_is_sealed_without_budget_and_without_a_free_upload() {
        let mut policy = remote();
        for _ in 0..10 {
            let full = open(FULL, 0, true);
            let Verdict::WaitUntil(at) = policy.judge(&full, 100, ms(0)) else {
                panic!("what comes with it goes with it");
            };
            assert!(at <= ms(5), "{at:?}");
            assert_eq!(policy.judge(&full, 100, ms(5)), Verdict::Seal);
            let mut local = Policy::new(&Config::local());
            assert_eq!(local.judge(&full, 100, ms(0)), Verdict::Seal);
        }
    }

    #[test]
    fn the_faster_segments_fill_the_shorter_is_a_full_one_kept_open() {
        let mut policy = remote();
        let mut now = ms(0);
        for _ in 0..100 {
            now += ms(10);
            let full = Open {
                since: Some(now),
                ..open(FULL, 0, true)
            };
            while let Verdict::WaitUntil(at) = policy.judge(&full, 0, now) {
                assert!(at <= now + ms(5));
                now = at;
            }
        }
        // One in 10 ms: a sixteenth comes in 0.6 ms.
        let full = open(FULL, 0, true);
        let Verdict::WaitUntil(at) = policy.judge(&full, 0, now) else {
            panic!("it is kept open");
        };
        assert!(at < now + ms(2), "{:?}", at - now);
    }

    #[test]
    fn a_burst_stays_together() {
        let policy = remote();
        assert!(policy.has_room(FULL + 1, FULL - 1));
        assert!(!policy.has_room(FULL + 1, FULL));
        assert!(policy.has_room(0, 3 * FULL), "one batch always has room");
        let local = Policy::new(&Config::local());
        assert!(local.has_room(FULL - 1, FULL));
        assert!(!local.has_room(FULL, 1));
    }

    #[test]
    fn bytes_earn_their_put() {
        let mut policy = remote();
        for _ in 0..2 {
            assert_eq!(policy.judge(&open(9, 0, true), 1, ms(5)), Verdict::Seal);
        }
        // Nothing is left. A quarter second for a whole PUT, half of it for one half earned.
        let half = policy.judge(&open(FULL / 4, 0, true), 1, ms(5));
        let Verdict::WaitUntil(at) = half else {
            panic!("{half:?}")
        };
        assert!((ms(129)..ms(131)).contains(&at), "{at:?}");
        let earned = policy.judge(&open(FULL / 2, 0, true), 1, ms(5));
        assert_eq!(earned, Verdict::Seal);
        let small = policy.judge(&open(9, 0, true), 1, ms(5));
        assert!(matches!(small, Verdict::WaitUntil(_)), "{small:?}");
    }

    /// Seals this many bytes each so many milliseconds, as full segments are; answers when the last was.
    fn flows(policy: &mut Policy, bytes: usize, each: u64) -> Duration {
        let mut now = ms(0);
        for _ in 0..50 {
            now += ms(each);
            let flush = Open {
                flush: true,
                ..open(bytes, 0, true)
            };
            assert_eq!(policy.judge(&flush, 0, now), Verdict::Seal);
        }
        now
    }

    #[test]
    fn the_rest_of_a_segment_that_is_soon_full_is_waited_for() {
        // 50 MiB/s fill a segment in 160 ms; the budget has a PUT in 250.
        let mut policy = remote();
        let last = flows(&mut policy, FULL, 160);
        let later = |since| Open {
            since: Some(last + since),
            awaited_since: Some(last + since),
            ..open(FULL / 2, 0, true)
        };
        let waits = policy.judge(&later(ms(80)), 1, last + ms(100));
        // Then nothing more came, so what is there goes.
        assert_eq!(waits, Verdict::WaitUntil(last + ms(500)));
        assert_eq!(
            policy.judge(&later(ms(80)), 1, last + ms(500)),
            Verdict::Seal
        );

        // 20 MiB/s do not.
        let mut policy = remote();
        let last = flows(&mut policy, FULL, 400);
        assert_eq!(
            policy.judge(&later(ms(1)), 1, last + ms(100)),
            Verdict::Seal
        );
    }

    #[test]
    fn where_puts_cost_nothing_nothing_is_waited_for() {
        let unlimited = Config {
            put_budget: None,
            ..Config::remote()
        };
        for config in [unlimited, Config::local()] {
            let mut policy = Policy::new(&config);
            let last = flows(&mut policy, FULL, 10);
            let open = Open {
                since: Some(last),
                awaited_since: Some(last),
                ..open(9, 0, true)
            };
            assert_eq!(policy.judge(&open, 0, last), Verdict::Seal);
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
        /// However batches arrive, segments never exceed burst + rate × time + one per half a
        /// segment, and none waits longer than a PUT takes to be saved up, or than the wait for
        /// its rest lasts.
        #[test]
        fn the_budget_bounds_the_puts(
            arrivals in prop::collection::vec((0u64..400, 1usize..3 << 20), 1..200),
        ) {
            let mut policy = remote();
            let mut now = 0;
            let mut sealed = 0u32;
            let (mut since, mut bytes, mut total) = (None, 0, 0);
            for (gap, more) in arrivals {
                now += gap;
                bytes += more;
                total += more;
                let opened = *since.get_or_insert(now);
                match policy.judge(&open(bytes, opened, true), 0, ms(now)) {
                    Verdict::Seal => { sealed += 1; since = None; bytes = 0; }
                    Verdict::WaitUntil(at) => {
                        prop_assert!(at > ms(now));
                        prop_assert!(at <= ms(now + 500), "{at:?} at {now}");
                    }
                    Verdict::Wait => prop_assert!(false, "an upload was free"),
                }
            }
            let earned = total as f64 / (FULL / 2) as f64;
            prop_assert!(f64::from(sealed) <= 2.0 + now as f64 * 0.004 + earned + 1e-3);
        }
    }
}
