//! A claim on a topic's table, whose lease is renewed for as long as a job holds it.
//!
//! ```text
//! claim ── a third of the lease ──► renewal ── a third ──► renewal … the job's replacement gives it up
//!   └─ killed, or cut off from the quorum: a lease later at most, another compactor may claim
//! ```
//!
//! A renewal is a replacement of nothing. It is refused like any other once the claim is past, and
//! then the job ends instead of writing what nobody will want. A lease that has been given up is not
//! renewed by a command that comes late. To claim again would not do: that makes another claim, and
//! what was written under the one before would be orphaned.
//!
//! Invariant: nothing rests on the lease. A job whose renewals do not get through, or whose process
//! stood still, may find its claim past, and is refused; so leases can be short.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use frazil_core::TopicId;
use frazil_core::ports::{Replacement, TableRefusal, Tables};
use tokio::task::AbortHandle;
use tracing::debug;

use super::{Ctx, JobError};

/// How many renewals a lease has time for. One may fail, and the next one be late.
const RENEWALS: u32 = 3;

/// A claim. When it is dropped, its lease is no longer renewed.
pub(super) struct Claim {
    /// Its number, which is in the names of what is written under it.
    pub(super) number: u64,
    topic: TopicId,
    tables: Arc<dyn Tables>,
    /// Why it is past, once a renewal has been told.
    past: Arc<OnceLock<TableRefusal>>,
    renewals: AbortHandle,
}

impl Ctx {
    /// Claims a topic's table.
    pub(super) async fn claim(&self, topic: TopicId) -> Result<Claim, JobError> {
        let lease_ms = self.config.lease_ms();
        let claimed = self.tables.claim_table(topic, self.holder, lease_ms);
        let number = claimed.await??;
        let past = Arc::new(OnceLock::new());
        let renewals = renew(
            Arc::clone(&self.tables),
            nothing(topic, number, lease_ms),
            self.config.lease / RENEWALS,
            Arc::clone(&past),
        );
        Ok(Claim {
            number,
            topic,
            tables: Arc::clone(&self.tables),
            past,
            renewals: tokio::spawn(renewals).abort_handle(),
        })
    }
}

impl Claim {
    /// An error if the claim is known to be past.
    pub(super) fn check(&self) -> Result<(), JobError> {
        match self.past.get() {
            Some(refusal) => Err((*refusal).into()),
            None => Ok(()),
        }
    }

    /// A replacement of nothing, under this claim.
    pub(super) fn nothing(&self, lease_ms: u32) -> Replacement {
        nothing(self.topic, self.number, lease_ms)
    }

    /// Gives the lease up, after a job that replaces nothing.
    pub(super) async fn give_up(self) -> Result<(), JobError> {
        Ok(self.tables.replace(self.nothing(0)).await??)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

fn nothing(topic: TopicId, claim: u64, lease_ms: u32) -> Replacement {
    Replacement {
        topic,
        claim,
        lease_ms,
        moves: Vec::new(),
        table: None,
        retired: Vec::new(),
    }
}

/// Renews until it is refused.
async fn renew(
    tables: Arc<dyn Tables>,
    nothing: Replacement,
    every: Duration,
    past: Arc<OnceLock<TableRefusal>>,
) {
    loop {
        tokio::time::sleep(every).await;
        match tables.replace(nothing.clone()).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                past.get_or_init(|| refusal);
                return;
            }
            // The lease goes on, or ends: the next renewal will be told.
            Err(error) => debug!(topic = %nothing.topic, %error, "a lease was not renewed"),
        }
    }
}
