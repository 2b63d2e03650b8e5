//! Which gateways have been heard of: soft state of the leader, outside of the log.
//!
//! ```text
//!  gateway ── Heartbeat ──► leader: heard now          nothing is written while all are well
//!                             │ nothing for a lease
//!                             ▼
//!                          Lapse ──► log: not live     and Heartbeat is written to live again
//! ```
//!
//! From feature level 2 on, a lease in the state has no end of its own; the leader ends it when it
//! has not heard of the gateway for as long as the lease is, by its monotone clock. So an idle
//! cluster commits nothing, and no wall clock ends a lease. A leader answers a heartbeat only after
//! a majority has confirmed that it leads, and one that has just been elected gives every gateway
//! a grace before it believes that it is silent.
//!
//! A lease decides nothing that could lose data: a gateway whose lease has lapsed is no longer told
//! to clients, and may go on committing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::{BrokerEpoch, BrokerId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::command::{Command, Envelope};
use crate::node::Node;

/// How often the leader looks for gateways that are silent, within the grace of a new leader.
const LOOKS: u32 = 10;

/// When the gateways' leases end, by what this leader has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Since when this voter has been the leader in this term.
    leading: Option<(u64, Instant)>,
    until: HashMap<BrokerEpoch, Instant>,
}

impl Heard {
    /// A gateway has been heard of.
    pub(crate) fn beat(&self, epoch: BrokerEpoch, lease: Duration, now: Instant) {
        self.0.lock().until.insert(epoch, now + lease);
    }

    /// Those of the `live` that have been silent for too long, as the leader of `term`.
    pub(crate) fn silent(
        &self,
        term: u64,
        live: &[(BrokerId, BrokerEpoch)],
        grace: Duration,
        now: Instant,
    ) -> Vec<(BrokerId, BrokerEpoch)> {
        let mut inner = self.0.lock();
        let since = match inner.leading {
            Some((known, since)) if known == term => since,
            _ => {
                inner.leading = Some((term, now));
                now
            }
        };
        inner
            .until
            .retain(|epoch, _| live.iter().any(|(_, known)| known == epoch));
        let silent = |epoch| match inner.until.get(epoch) {
            // What was heard in an earlier term is no less true, but others have led meanwhile.
            Some(until) => *until < now && since + grace < now,
            None => since + grace < now,
        };
        live.iter()
            .filter(|(_, epoch)| silent(epoch))
            .copied()
            .collect()
    }
}

/// As long as this voter leads: ends the leases of gateways that are silent.
pub(crate) async fn watch_gateways(node: Arc<Node>, grace: Duration) {
    loop {
        tokio::time::sleep(grace / LOOKS).await;
        let (leader, term) = node.leader_and_term();
        if leader != Some(node.id) {
            continue;
        }
        let live: Vec<_> = node.image.read(|state| {
            let leased = |known: &&crate::state::Registration| {
                state.level() >= 2
                    && known.lease_until_ms > state.now_ms()
                    && state.is_current(&known.broker)
            };
            let registrations = state.registrations().filter(leased);
            registrations
                .map(|known| (known.broker.id, known.broker.epoch))
                .collect()
        });
        for (broker, epoch) in node.heard.silent(term, &live, grace, Instant::now()) {
            tracing::info!(%broker, "a gateway is not heard of, and counts as live no longer");
            let lapse = Command::Lapse { broker, epoch };
            // If it does not happen, the next look repeats it.
            let _ = node.propose(Envelope::by_leader(lapse)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_a_lease_lapses_but_not_at_a_new_leader() {
        let heard = Heard::default();
        let (a, b) = (
            (BrokerId(1), BrokerEpoch(10)),
            (BrokerId(2), BrokerEpoch(20)),
        );
        let start = Instant::now();
        let lease = Duration::from_secs(10);
        let at = |seconds| start + Duration::from_secs(seconds);
        let grace = Duration::from_secs(15);
        let silent = |term, live: &[_], now| heard.silent(term, live, grace, now);
        assert_eq!(silent(3, &[a, b], at(0)), []);
        heard.beat(a.1, lease, at(8));
        heard.beat(b.1, lease, at(3));
        assert_eq!(
            silent(3, &[a, b], at(14)),
            [],
            "b's lease is over, the grace not yet"
        );
        assert_eq!(silent(3, &[a, b], at(16)), [b]);
        heard.beat(b.1, lease, at(16));
        assert_eq!(silent(3, &[a, b], at(17)), []);
        // Elected again: others may have heard what this one has not.
        assert_eq!(silent(5, &[a, b], at(40)), []);
        assert_eq!(silent(5, &[a, b], at(56)), [a, b]);
        assert_eq!(silent(5, &[b], at(56)), [b]);
    }
}
