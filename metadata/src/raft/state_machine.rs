//! What openraft knows as the state machine: an adapter that applies entries to the shared
//! [`Image`], and its snapshots.
//!
//! Envelopes are decoded and outcomes encoded outside the image's lock. An envelope that cannot be
//! decoded was written by a later version of this program; this voter stops rather than skip it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};

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

/// The state machine of a voter.
pub(crate) struct StateMachine {
    image: Arc<Image>,
    last: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<SnapshotStore>,
    metrics: Metrics,
}

impl StateMachine {
    /// Applies to `image`, which is empty.
    pub(crate) fn new(image: Arc<Image>, snapshots: Arc<SnapshotStore>, metrics: Metrics) -> Self {
        Self {
            image,
            last: None,
            membership: StoredMembership::default(),
            snapshots,
            metrics,
        }
    }

    fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut responders = Vec::with_capacity(batch.len());
        let mut last = None;
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
                    self.membership = StoredMembership::new(Some(id), membership);
                    None
                }
            };
            entries.push((id.index, envelope));
            responders.push(responder);
            last = Some(id);
        }
        let outcomes = self.image.apply(&entries);
        self.last = last.or(self.last);
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                let bytes = outcome.as_ref().map(Outcome::encode).unwrap_or_default();
                responder.send(bytes.into());
            }
        }
        Ok(())
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        }
    }
}

/// A copy of the state that is to become a snapshot.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    state: Arc<State>,
    snapshots: Arc<SnapshotStore>,
    metrics: Metrics,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<OurSnapshot> {
        let (meta, state, snapshots) = (
            self.meta.clone(),
            Arc::clone(&self.state),
            Arc::clone(&self.snapshots),
        );
        let bytes = crate::blocking::spawn_blocking(move || -> io::Result<Bytes> {
            let bytes = state.snapshot();
            snapshots.save(&meta, &bytes)?;
            Ok(bytes.into())
        })
        .await
        .map_err(io::Error::other)??;
        self.metrics.snapshots_built.inc();
        tracing::info!(last = ?self.meta.last_log_id, bytes = bytes.len(), "metadata snapshot written");
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: bytes,
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
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
            meta: self.meta(),
            state: Arc::new(self.image.copy().0),
            snapshots: Arc::clone(&self.snapshots),
            metrics: self.metrics.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> io::Result<()> {
        let snapshots = Arc::clone(&self.snapshots);
        let saved = meta.clone();
        let knows = self.image.knows();
        let state = crate::blocking::spawn_blocking(move || -> io::Result<State> {
            let state = State::restore_knowing(knows, &bytes)
                .map_err(|error| Corrupt::new(format!("snapshot: {error}")))?;
            snapshots.save(&saved, &bytes)?;
            Ok(state)
        })
        .await
        .map_err(io::Error::other)??;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.image
            .install(state, meta.last_log_id.map_or(0, |id| id.index));
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
