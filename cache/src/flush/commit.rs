//! Sees one commit through to an outcome.

use std::sync::Arc;

use frazil_core::env::Ids;
use frazil_core::ports::{Commit, CommitOutcome, LogIndex, Sequencer};
use frazil_core::{Extent, PortError, TopicPartition};
use frazil_objects::Backoff;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics::Metrics;

/// What commits share.
pub(crate) struct Committer {
    pub(crate) sequencer: Arc<dyn Sequencer>,
    pub(crate) index: Arc<dyn LogIndex>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) metrics: Metrics,
}

/// The end of a commit.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It happened.
    Done(CommitOutcome),
    /// It may have happened, and from now on it cannot. The log of this gateway is expected to
    /// hold `wal`.
    Unknown {
        reason: String,
        wal: Vec<(TopicPartition, Extent)>,
    },
    /// Nothing of this registration can be committed any more.
    Fenced {
        reason: String,
        /// This commit may have happened before.
        unknown: bool,
    },
}

impl Committer {
    /// Commits, however long that takes.
    ///
    /// # Cancel safety
    /// If the future is dropped, the outcome is unknown.
    pub(crate) async fn commit(&self, commit: Commit) -> Committed {
        let fence = Commit {
            segments: Vec::new(),
            appends: Vec::new(),
            moves: Vec::new(),
            ..commit
        };
        let mut backoff = Backoff::new(&self.ids);
        loop {
            let began = Instant::now();
            match self.sequencer.commit(commit.clone()).await {
                Ok(outcome) => {
                    self.metrics.commits.inc();
                    let elapsed = began.elapsed();
                    self.metrics.commit_seconds.observe(elapsed.as_secs_f64());
                    return Committed::Done(outcome);
                }
                Err(PortError::Fenced(reason)) => {
                    return Committed::Fenced {
                        reason,
                        unknown: false,
                    };
                }
                Err(PortError::Indeterminate(reason)) => {
                    warn!(%reason, "the outcome of a commit is unknown");
                    return self.fence(fence, reason).await;
                }
                Err(PortError::Unavailable(reason)) => self.pause(&mut backoff, &reason).await,
            }
        }
    }

    /// Makes sure that an unknown commit cannot take effect any more, and asks what is there.
    ///
    /// A later command of this session that has been applied settles it: the state drops what a
    /// session sends late, and refuses the segments that the fence seals.
    async fn fence(&self, fence: Commit, reason: String) -> Committed {
        let broker = fence.broker;
        let mut backoff = Backoff::new(&self.ids);
        loop {
            match self.sequencer.commit(fence.clone()).await {
                Ok(_) => break,
                Err(PortError::Fenced(reason)) => {
                    return Committed::Fenced {
                        reason,
                        unknown: true,
                    };
                }
                Err(PortError::Unavailable(reason) | PortError::Indeterminate(reason)) => {
                    self.pause(&mut backoff, &reason).await;
                }
            }
        }
        while let Err(error) = self.index.barrier().await {
            self.pause(&mut backoff, &error.to_string()).await;
        }
        Committed::Unknown {
            reason,
            wal: self.index.wal_extents(broker),
        }
    }

    async fn pause(&self, backoff: &mut Backoff, reason: &str) {
        self.metrics.commit_failures.inc();
        if backoff.attempts() >= 3 {
            warn!(%reason, attempts = backoff.attempts(), "commits fail");
        }
        backoff.wait().await;
    }
}
