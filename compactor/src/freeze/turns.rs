//! When a topic is due, and whose turn it is. Pure.
//!
//! A topic is due when something of it has waited for its freshness. How much waits is a reason only long
//! before it is in anybody's way ([`Most`]): a burst of some GiB is converted behind the load that it
//! came with, not in its midst (docs/adr/0051-tables-are-made-after-the-load.md).
//!
//! Of those that are due, the one is next whose last turn is longest ago. So the others wait for one turn
//! at most of a topic to which more is produced than can be converted, however long its own records wait.

use std::time::Duration;

use tokio::time::Instant;

/// What of a topic waits for its conversion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Since when something waits, as far as this process knows: timestamps are the producers'.
    pub(super) since: Option<Instant>,
    pub(super) bytes: u64,
    pub(super) extents: u64,
    /// When it last had its turn.
    pub(super) served: Option<Instant>,
}

/// How much of a topic may wait, however fresh it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) bytes: u64,
    pub(super) extents: u64,
}

impl Waiting {
    pub(super) fn is_due(&self, freshness: Duration, most: Most, now: Instant) -> bool {
        self.since.is_some_and(|since| {
            now.saturating_duration_since(since) >= freshness
                || self.bytes >= most.bytes
                || self.extents >= most.extents
        })
    }

    /// The least is next.
    pub(super) fn turn(&self) -> (Option<Instant>, Option<Instant>) {
        (self.served, self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most {
        bytes: 1000,
        extents: 10,
    };
    const FRESHNESS: Duration = Duration::from_secs(60);

    #[test]
    fn freshness_decides_and_much_only_where_it_is_too_much() {
        let now = Instant::now() + Duration::from_secs(1000);
        let cases = [
            (None, 0, 0, false),
            // There may be much that cannot be converted yet.
            (None, 5000, 50, false),
            (Some(0), 0, 0, false),
            (Some(59), 999, 9, false),
            (Some(60), 0, 0, true),
            (Some(0), 1000, 1, true),
            (Some(0), 1, 10, true),
        ];
        for (age, bytes, extents, due) in cases {
            let waiting = Waiting {
                since: age.map(|age| now - Duration::from_secs(age)),
                bytes,
                extents,
                served: None,
            };
            assert_eq!(waiting.is_due(FRESHNESS, MOST, now), due, "{waiting:?}");
        }
    }

    #[test]
    fn who_has_much_does_not_keep_others_from_their_turn() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let due = |second| Waiting {
            since: Some(at(second)),
            ..Waiting::default()
        };
        // The first one never has nothing left; the others have when they had their turn.
        let mut topics = [due(0), due(50), due(51)];
        let mut turns = Vec::new();
        for second in 100..106 {
            let waiting = topics.iter().enumerate();
            let waiting = waiting.filter(|(_, topic)| topic.since.is_some());
            let (which, _) = waiting.min_by_key(|(_, topic)| topic.turn()).unwrap();
            turns.push(which);
            topics[which].served = Some(at(second));
            if which > 0 {
                topics[which].since = None;
            }
            if second == 103 {
                topics[2].since = Some(at(103));
            }
        }
        assert_eq!(turns, [0, 1, 2, 0, 2, 0]);
    }
}
