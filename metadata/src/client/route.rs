//! Which way a request takes to the leader.
//!
//! Usually straight: to the leader as it was last heard of, or to any voter, which then names it.
//! When a voter cannot be reached that should be, requests take a detour for a while: through
//! another voter, which hands them on. Detours grow longer while the straight way keeps failing, so
//! that a network that swallows packets does not cost every request a timeout.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const DETOUR_MIN: Duration = Duration::from_secs(1);
const DETOUR_MAX: Duration = Duration::from_secs(60);

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the leader itself.
    Leader(u64),
    /// To any voter, to hear who leads.
    Ask,
    /// Through this voter if one has been found, or else any other.
    Through(Option<u64>),
}

/// What is known of the ways.
pub(super) struct Route {
    inner: Mutex<Inner>,
}

struct Inner {
    /// The leader as it was last heard of.
    leader: Option<u64>,
    /// Until when the straight way is not tried.
    detour_until: Option<Instant>,
    /// Who hands on meanwhile.
    through: Option<u64>,
    /// How long the next detour takes.
    next: Duration,
}

impl Route {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                leader: None,
                detour_until: None,
                through: None,
                next: DETOUR_MIN,
            }),
        }
    }

    /// The way to take now. `known` is a leader that is known otherwise.
    pub(super) fn way(&self, known: Option<u64>, now: Instant) -> Way {
        let inner = self.inner.lock();
        if inner.detour_until.is_some_and(|until| now < until) {
            return Way::Through(inner.through);
        }
        known.or(inner.leader).map_or(Way::Ask, Way::Leader)
    }

    /// A request got what it wanted from `voter`.
    pub(super) fn arrived(&self, way: Way, voter: u64) {
        let mut inner = self.inner.lock();
        if let Way::Through(_) = way {
            inner.through = Some(voter);
        } else {
            inner.leader = Some(voter);
            inner.next = DETOUR_MIN;
        }
    }

    /// `voter` does not lead, and says who does.
    pub(super) fn told(&self, voter: u64, leader: Option<u64>) {
        let mut inner = self.inner.lock();
        inner.leader = leader.filter(|leader| *leader != voter);
        inner.through = None;
    }

    /// A voter did not answer, or could not do anything. `unreachable`: the former.
    pub(super) fn failed(&self, way: Way, unreachable: bool, now: Instant) {
        let mut inner = self.inner.lock();
        inner.leader = None;
        inner.through = None;
        if unreachable && !matches!(way, Way::Through(_)) {
            inner.detour_until = Some(now + inner.next);
            inner.next = (inner.next * 2).min(DETOUR_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_leader_is_gone_around_for_longer_and_longer() {
        let route = Route::new();
        let mut now = Instant::now();
        assert_eq!(route.way(None, now), Way::Ask);
        route.told(1, Some(2));
        assert_eq!(route.way(None, now), Way::Leader(2));
        route.failed(Way::Leader(2), true, now);
        assert_eq!(route.way(None, now), Way::Through(None));
        route.arrived(Way::Through(None), 3);
        assert_eq!(route.way(Some(2), now), Way::Through(Some(3)));

        // A straight attempt is due, and fails again.
        now += DETOUR_MIN;
        assert_eq!(route.way(Some(2), now), Way::Leader(2));
        route.failed(Way::Leader(2), true, now);
        now += DETOUR_MIN;
        assert_eq!(route.way(Some(2), now), Way::Through(None));

        now += DETOUR_MIN;
        assert_eq!(route.way(Some(2), now), Way::Leader(2));
        route.arrived(Way::Leader(2), 2);
        route.failed(Way::Leader(2), true, now);
        assert_eq!(route.way(None, now + DETOUR_MIN), Way::Ask, "short again");
    }

    #[test]
    fn one_that_cannot_hand_on_is_left_for_the_next() {
        let route = Route::new();
        let now = Instant::now();
        route.failed(Way::Ask, true, now);
        route.arrived(Way::Through(None), 3);
        route.failed(Way::Through(Some(3)), true, now);
        assert_eq!(route.way(None, now), Way::Through(None));
    }
}
