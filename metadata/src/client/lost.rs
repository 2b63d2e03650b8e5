//! Declares gateways dead that have not been heard of for long, so that what they uploaded and
//! never committed can be collected.
//!
//! A lease that ran out proves nothing: the state's time is a leader's clock, which may have leapt
//! forward past every lease at once. So a lapsed registration is watched for a while of this
//! process's own time; one that lives renews its lease meanwhile and is left alone.
//!
//! Sealing loses nothing: what an epoch has not committed was not acknowledged as being in the
//! store. A gateway that comes back is fenced, ends, and registers anew when it is started again.

use std::collections::BTreeMap;
use std::time::Duration;

use frazil_core::{BrokerEpoch, PortResult};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Client;
use crate::command::Command;

/// How long a lapsed registration is watched at most; several of the leases that nodes ask for.
const WATCHED: Duration = Duration::from_secs(30);

/// Lapsed registrations: the end of the lease, and since when it is known here.
#[derive(Default)]
pub(super) struct Lost {
    watched: Mutex<BTreeMap<BrokerEpoch, (i64, Instant)>>,
}

impl Lost {
    /// Watches those of `lapsed` from now on, and only those; answers the ones that were watched
    /// for long enough without a sign of life.
    fn confirm(
        &self,
        lapsed: &[(BrokerEpoch, i64)],
        long_enough: Duration,
        now: Instant,
    ) -> Vec<BrokerEpoch> {
        let mut watched = self.watched.lock();
        let before = std::mem::take(&mut *watched);
        let mut confirmed = Vec::new();
        for &(epoch, lease_until_ms) in lapsed {
            let since = match before.get(&epoch) {
                Some(&(until, since)) if until == lease_until_ms => since,
                _ => now,
            };
            if since < now && now - since >= long_enough {
                confirmed.push(epoch);
            }
            watched.insert(epoch, (lease_until_ms, since));
        }
        confirmed
    }
}

impl Client {
    /// Seals the epochs of gateways that are lost. Those whose write-ahead log the metadata still
    /// refers to are kept: their disk is expected back.
    pub(super) async fn seal_lost(&self) -> PortResult<()> {
        let after = self.inner.link.config.seal_after;
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let lapsed = self.image().read(|state| {
            let before_ms = state.now_ms().saturating_sub(after_ms);
            state.lapsed_epochs(before_ms)
        });
        let lost = &self.inner.lost;
        for epoch in lost.confirm(&lapsed, after.min(WATCHED), Instant::now()) {
            self.done(Command::SealEpoch { epoch }).await?;
            tracing::info!(
                %epoch,
                "a gateway that has not been heard of for long is declared dead"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_gave_no_sign_of_life_while_watched_is_lost() {
        let lost = Lost::default();
        let (dead, alive) = (BrokerEpoch(1), BrokerEpoch(2));
        let start = Instant::now();
        let look = |halves: u32, lapsed: &[(BrokerEpoch, i64)]| {
            lost.confirm(lapsed, WATCHED, start + WATCHED / 2 * halves)
        };
        assert_eq!(look(0, &[(dead, 10), (alive, 10)]), []);
        // It has renewed its lease, which lies in the past of the state's time all the same.
        assert_eq!(look(1, &[(dead, 10), (alive, 20)]), []);
        assert_eq!(look(2, &[(dead, 10), (alive, 20)]), [dead]);
        // Not among the lapsed for a moment: watching begins again.
        assert_eq!(look(2, &[(dead, 10)]), [dead]);
        assert_eq!(look(4, &[(alive, 20)]), []);
        assert_eq!(look(6, &[(alive, 20)]), [alive]);
    }
}
