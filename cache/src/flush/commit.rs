//! Sees one commit through to an outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use frazil_core::env::Ids;
use frazil_core::ports::{Commit, CommitOutcome, LogIndex, Sequencer};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{Extent, PortError, TopicPartition};
use frazil_objects::Backoff;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::metrics::Metrics;

/// After so many commits in a row that the quorum does not take, this process gives up.
const REFUSED_MAX: u32 = 5;

/// What commits share.
pub(crate) struct Committer {
    pub(crate) sequencer: Arc<dyn Sequencer>,
    pub(crate) index: Arc<dyn LogIndex>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) metrics: Metrics,
    /// Commits that were not taken since the last one that was.
    pub(crate) refused: AtomicU32,
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
    /// Commits, however long that takes. One that the quorum does not take at all is given up, and
    /// its batches with it; if that happens again and again, nothing that this process could do
    /// helps, and it ends as if it were superseded: what is in the write-ahead log is found by the
    /// next start.
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
        if sabotage::on(Bug::AckBeforeCommit) {
            let guess = sabotage::guess(&commit, |partition| self.index.bounds(partition));
            let sequencer = Arc::clone(&self.sequencer);
            tokio::spawn(async move { sequencer.commit(commit).await });
            return Committed::Done(guess);
        }
        let mut backoff = Backoff::new(&self.ids);
        loop {
            let began = Instant::now();
            match self.sequencer.commit(commit.clone()).await {
                Ok(outcome) => {
                    self.metrics.commits.inc();
                    let elapsed = began.elapsed();
                    self.metrics.commit_seconds.observe(elapsed.as_secs_f64());
                    self.refused.store(0, Ordering::Relaxed);
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
                Err(PortError::Impossible(reason)) => {
                    self.metrics.commit_failures.inc();
                    let times = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                    error!(%reason, times, "the metadata does not take a commit");
                    if times >= REFUSED_MAX {
                        return Committed::Fenced {
                            reason,
                            unknown: false,
                        };
                    }
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
        while !sabotage::on(Bug::UnknownIsNotFenced) {
            match self.sequencer.commit(fence.clone()).await {
                Ok(_) => break,
                Err(PortError::Fenced(reason)) => {
                    return Committed::Fenced {
                        reason,
                        unknown: true,
                    };
                }
                Err(PortError::Impossible(reason)) => {
                    error!(%reason, "the metadata does not even take an empty commit");
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
