//! The time that a leader writes into commands: monotone, and not at the mercy of the wall clock.
//!
//! ```text
//!  wall clock   ────────┐                    ┌──────────     a step of an hour
//!  leader time  ──────────────────────────────────╱──        goes on as before, at most 10 % faster
//! ```
//!
//! The state's time decides when offsets and idle producers expire and when records are older than a
//! topic keeps them. So it advances as the monotone clock does ([`tokio::time::Instant`]): from the
//! largest time that the state has seen, and when this process saw it. The wall clock only bends
//! it: while it is ahead, leader time runs up to a tenth faster, while it is behind, up to a tenth
//! slower. A wall clock that is wrong by days for an hour costs six minutes, and nobody has to
//! notice; one that was set right is caught up with in ten times the error.
//!
//! A follower has the time from the log, so that a change of leaders loses none. While nobody leads
//! because the whole quorum is down, time stands still; afterwards it is late, and catches up. Late
//! means that things are kept for longer, never that they go early.
//!
//! Before 2020, clocks are not set yet ([`EARLIEST_MS`]): the first time that a state gets is the
//! wall clock's, and so is the first one after such a time.
//!
//! Invariant: leader time never goes back, also not across leaders, and advances by at most 1.1
//! times what the monotone clock does.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// 2020-01-01T00:00Z. A state's time before this was given by a clock that was not set.
pub(crate) const EARLIEST_MS: i64 = 1_577_836_800_000;
/// By which part of the time that passes the wall clock may bend it.
const SLEW: i64 = 10;

/// A time, and when it was that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) ms: i64,
    pub(crate) at: Instant,
}

/// What this process said last, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Said {
    us: i64,
    at: Instant,
}

/// The clock of a leader.
#[derive(Debug, Default)]
pub(crate) struct LeaderClock(Mutex<Option<Said>>);

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl LeaderClock {
    /// The time of a command that is accepted `now`, given what the state has `seen` and what the
    /// wall clock says.
    pub(crate) fn stamp(&self, seen: Seen, wall_ms: i64, now: Instant) -> i64 {
        let mut said = self.0.lock();
        let wall = wall_ms.saturating_mul(1000);
        if seen.ms < EARLIEST_MS {
            // It may have been said and not applied yet.
            let us = said.map_or(wall, |said| said.us.max(wall));
            *said = Some(Said { us, at: now });
            return us.max(seen.ms.saturating_mul(1000)) / 1000;
        }
        let seen_us = seen.ms.saturating_mul(1000);
        let from = match *said {
            Some(said) if said.us >= seen_us => said,
            _ => Said {
                us: seen_us,
                at: seen.at,
            },
        };
        let passed = micros(now.saturating_duration_since(from.at));
        let free = from.us.saturating_add(passed);
        let bend = passed / SLEW;
        let us = free.saturating_add(wall.saturating_sub(free).clamp(-bend, bend));
        *said = Some(Said { us, at: now });
        us / 1000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_790_000_000_000;
    const DAY: i64 = 24 * 3600 * 1000;

    /// A leader whose stamps are applied at once.
    struct Leader {
        clock: LeaderClock,
        seen: Seen,
        now: Instant,
    }

    impl Leader {
        fn new(ms: i64) -> Self {
            let now = Instant::now();
            let seen = Seen { ms, at: now };
            let clock = LeaderClock::default();
            Self { clock, seen, now }
        }

        fn stamp(&mut self, wall_ms: i64) -> i64 {
            let ms = self.clock.stamp(self.seen, wall_ms, self.now);
            assert!(ms >= self.seen.ms, "back from {} to {ms}", self.seen.ms);
            self.seen = Seen { ms, at: self.now };
            ms
        }
    }

    #[test]
    fn a_new_state_has_the_time_of_the_wall_clock() {
        let mut leader = Leader::new(0);
        assert_eq!(leader.stamp(1_000), 1_000);
        // It is set now.
        assert_eq!(leader.stamp(START), START);
        assert_eq!(leader.stamp(START + DAY), START);
    }

    #[test]
    fn a_clock_that_leaps_for_an_hour_costs_minutes() {
        for leap in [DAY, -DAY, 3650 * DAY] {
            let mut leader = Leader::new(START);
            let mut true_ms = START;
            let step = |leader: &mut Leader, true_ms: &mut i64, by| {
                leader.now += Duration::from_secs(1);
                *true_ms += 1000;
                leader.stamp(*true_ms + by)
            };
            for _ in 0..600 {
                assert_eq!(step(&mut leader, &mut true_ms, 0), true_ms);
            }
            for _ in 0..3600 {
                let stamp = step(&mut leader, &mut true_ms, leap);
                assert!((stamp - true_ms).abs() <= 361_000, "{}", stamp - true_ms);
            }
            // Set right, it is right an hour later.
            for _ in 0..3601 {
                step(&mut leader, &mut true_ms, 0);
            }
            assert!(
                (leader.seen.ms - true_ms).abs() <= 2,
                "{}",
                leader.seen.ms - true_ms
            );
        }
    }

    #[test]
    fn the_next_leader_goes_on_from_what_it_has_seen_and_when() {
        let mut leader = Leader::new(START);
        // Seen an hour ago, and its wall clock is three days ahead.
        leader.now += Duration::from_secs(3600);
        let stamp = leader.stamp(START + 3 * DAY);
        assert_eq!(stamp, START + 3_600_000 + 360_000);
    }

    proptest! {
        #[test]
        fn it_is_monotone_and_never_faster_than_a_tenth(
            steps in proptest::collection::vec((0_u64..5_000_000, -DAY * 400..DAY * 400), 1..60),
        ) {
            let mut leader = Leader::new(START);
            let mut passed = 0;
            for (us, wall) in steps {
                leader.now += Duration::from_micros(us);
                passed += us as i64;
                let before = leader.seen.ms;
                let ms = leader.stamp(START + wall);
                prop_assert!(ms >= before);
                prop_assert!(ms - START <= (passed + passed / SLEW) / 1000 + 1);
                prop_assert!(ms - START >= (passed - passed / SLEW) / 1000 - 60);
            }
        }
    }
}
