//! What openraft knows as the state machine: an adapter that applies entries to the shared
//! [`Image`], and its snapshots.
//!
//! Envelopes are decoded and outcomes encoded outside the image's lock. An envelope that cannot be
//! decoded was written by a later version of this program; this voter stops rather than skip it.
//!
//! A snapshot is made beside the image ([`replay`](mod@super::replay)), which nobody waits for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use parking_lot::Mutex;

use super::log_store::LogReader;
use super::replay::{Covering, replay};
use super::room::{self, Teller};
use super::snapshot::SnapshotStore;
use super::{Blob, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::command::{Envelope, Outcome};
use crate::error::Corrupt;
use crate::image::Image;
use crate::metrics::Metrics;
use crate::state::State;

/// Entries that are applied under one lock.
const BATCH: usize = 256;

type OurSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;

/// What the image covers.
#[derive(Default)]
struct Covered {
    last: Option<LogId>,
    membership: StoredMembership,
}

/// The state machine of a voter.
pub(crate) struct StateMachine {
    image: Arc<Image>,
    /// Held while the image is changed.
    covered: Arc<Mutex<Covered>>,
    snapshots: Arc<SnapshotStore>,
    log: Option<LogReader>,
    metrics: Metrics,
}

impl StateMachine {
    /// Applies to `image`, which is empty. Its snapshots are made from the log, if it is given, and
    /// else of a copy of the image.
    pub(crate) fn new(
        image: Arc<Image>,
        snapshots: Arc<SnapshotStore>,
        log: Option<LogReader>,
        metrics: Metrics,
    ) -> Self {
        Self {
            image,
            covered: Arc::default(),
            snapshots,
            log,
            metrics,
        }
    }

    fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut responders = Vec::with_capacity(batch.len());
        let (mut last, mut members) = (None, None);
        for (entry, responder) in batch {
            let id = entry.log_id();
            let envelope = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(bytes) => {
                    let envelope = Envelope::decode_knowing(self.image.knows(), &bytes.0)
                        .map_err(|error| Corrupt::new(format!("entry {id}: {error}")))?;
                    Some(envelope)
                }
                EntryPayload::Membership(membership) => {
                    members = Some(StoredMembership::new(Some(id), membership));
                    None
                }
            };
            entries.push((id.index, envelope));
            responders.push(responder);
            last = Some(id);
        }
        let outcomes = {
            let mut covered = self.covered.lock();
            covered.last = last.or(covered.last);
            if let Some(members) = members {
                covered.membership = members;
            }
            self.image.apply(&entries)
        };
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                let bytes = outcome.as_ref().map(Outcome::encode).unwrap_or_default();
                responder.send(bytes.into());
            }
        }
        Ok(())
    }
}

/// Makes a snapshot of what was applied when it was made itself, or later.
pub(crate) struct Builder {
    upto: Option<LogId>,
    image: Arc<Image>,
    covered: Arc<Mutex<Covered>>,
    snapshots: Arc<SnapshotStore>,
    log: Option<LogReader>,
    metrics: Metrics,
}

impl Builder {
    async fn covering(&self) -> Covering {
        if let (Some(log), Some(upto)) = (&self.log, self.upto) {
            match replay(&self.snapshots, log, upto, self.image.knows()).await {
                Ok(Some(covering)) => return covering,
                Ok(None) => tracing::debug!("the log has been purged meanwhile"),
                Err(error) => {
                    tracing::warn!(%error, "the last snapshot and the log do not give the next one");
                }
            }
        }
        // Commands wait for as long as this takes.
        let covered = self.covered.lock();
        let (state, _) = self.image.copy();
        Covering {
            state,
            last: covered.last,
            membership: covered.membership.clone(),
        }
    }
}

/// How often a snapshot is tried while the disk is full: each time, as much of it is written as fits.
const ROOM_EVERY: Duration = Duration::from_secs(2);

/// Saves a snapshot, durably. While the disk is full, waits for room.
async fn save(
    snapshots: &Arc<SnapshotStore>,
    meta: &SnapshotMeta,
    bytes: &Bytes,
    metrics: &Metrics,
) -> io::Result<()> {
    let mut teller = Teller::new("a snapshot of the metadata", &metrics.disk_full);
    loop {
        let (snapshots, meta, bytes) = (Arc::clone(snapshots), meta.clone(), bytes.clone());
        let saving = crate::blocking::spawn_blocking(move || snapshots.save(&meta, &bytes));
        match saving.await.map_err(io::Error::other)? {
            Err(error) if room::is_full(&error) => {
                teller.tell(&error);
                tokio::time::sleep(ROOM_EVERY).await;
            }
            saved => return saved,
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<OurSnapshot> {
        let covering = self.covering().await;
        let meta = covering.meta();
        let bytes = crate::blocking::spawn_blocking(move || Bytes::from(covering.state.snapshot()));
        let bytes = bytes.await.map_err(io::Error::other)?;
        save(&self.snapshots, &meta, &bytes, &self.metrics).await?;
        self.metrics.snapshots_built.inc();
        tracing::info!(last = ?meta.last_log_id, bytes = bytes.len(), "metadata snapshot written");
        Ok(Snapshot {
            meta,
            snapshot: bytes,
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let covered = self.covered.lock();
        Ok((covered.last, covered.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch.into_iter().collect::<io::Result<Vec<_>>>()?)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            upto: self.covered.lock().last,
            image: Arc::clone(&self.image),
            covered: Arc::clone(&self.covered),
            snapshots: Arc::clone(&self.snapshots),
            log: self.log.clone(),
            metrics: self.metrics.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> io::Result<()> {
        let knows = self.image.knows();
        let received = bytes.clone();
        let state = crate::blocking::spawn_blocking(move || {
            State::restore_knowing(knows, &received)
                .map_err(|error| Corrupt::new(format!("snapshot: {error}")))
        });
        let state = state.await.map_err(io::Error::other)??;
        save(&self.snapshots, meta, &bytes, &self.metrics).await?;
        {
            let mut covered = self.covered.lock();
            covered.last = meta.last_log_id;
            covered.membership = meta.last_membership.clone();
            let index = meta.last_log_id.map_or(0, |id| id.index);
            self.image.install(state, index);
        }
        self.metrics.snapshots_installed.inc();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<OurSnapshot>> {
        let snapshots = Arc::clone(&self.snapshots);
        let newest = crate::blocking::spawn_blocking(move || snapshots.newest())
            .await
            .map_err(io::Error::other)??;
        Ok(newest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl Blob {
    /// The outcome in the answer to a proposal.
    pub(crate) fn outcome(&self) -> Result<Outcome, Corrupt> {
        Outcome::decode(&self.0).map_err(|error| Corrupt::new(format!("outcome: {error}")))
    }
}
