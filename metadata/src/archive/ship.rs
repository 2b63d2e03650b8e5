//! The leader's side: puts what is new, and deletes what is superfluous.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Archive, ArchiveConfig, Listing, PartKey, SnapshotKey, part};
use crate::error::Error;
use crate::history::check_history;
use crate::node::Node;
use crate::raft::snapshot::{SnapshotStore, file_bytes};
use crate::wire::Reply;

/// Bytes of entries in one object, beyond which another is begun.
const PART_BYTES: u64 = 4 << 20;
/// How long the store may take for one request.
const REQUEST: Duration = Duration::from_secs(60);

/// How often the leader looks whether there is a later history of the cluster.
const LOOK: Duration = Duration::from_secs(60);
/// How long a leader that stops tries to put what is new.
const LAST: Duration = Duration::from_secs(2);

/// Keeps the archive while `node` leads, until `stop`, and then a last time.
pub(crate) async fn ship_for_ever(
    node: Arc<Node>,
    snapshots: Arc<SnapshotStore>,
    archive: Arc<dyn Archive>,
    config: ArchiveConfig,
    stop: CancellationToken,
) {
    let mut shipper: Option<Shipper> = None;
    let mut failing = false;
    // At first at once: a quorum that was made from the archive has to be archived in turn.
    let mut pause = Duration::ZERO;
    loop {
        let pause = tokio::time::sleep(std::mem::replace(&mut pause, config.every));
        let stopping = stop.run_until_cancelled(pause).await.is_none();
        if node.leader() != Some(node.id) {
            if stopping {
                return;
            }
            shipper = None;
            continue;
        }
        let round = async {
            let known = match shipper.take() {
                Some(known) => Some(known),
                None => Shipper::begin(&node, &*archive).await?,
            };
            match known {
                Some(known) => known.round(&node, &snapshots, &*archive, &config).await,
                None => Ok(None),
            }
        };
        if stopping {
            // What is not put then is in the log all the same.
            let _ = tokio::time::timeout(LAST, round).await;
            return;
        }
        match round.await {
            Ok(next) => {
                shipper = next;
                failing = false;
            }
            Err(error) if failing => tracing::debug!(%error, "the metadata is not archived"),
            Err(error) => {
                failing = true;
                tracing::warn!(%error, "the metadata is not archived; it will be tried again");
            }
        }
    }
}

/// What is known of the archive.
struct Shipper {
    /// It reaches up to this index.
    upto: u64,
    /// Its newest snapshot.
    snapshot: u64,
    /// Objects of entries that were put since.
    parts: usize,
    /// When it looked for a later history.
    looked: Instant,
    /// When a snapshot was put that may have made older ones superfluous.
    superseded: Option<Instant>,
}

async fn within<T>(request: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(REQUEST, request)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Ends this node if its history of the cluster is not the newest.
async fn look(node: &Node, archive: &dyn Archive) -> io::Result<()> {
    match within(async { Ok(check_history(archive, &node.image).await) }).await? {
        Ok(()) => Ok(()),
        Err(Error::Storage(error)) => Err(error),
        Err(error) => {
            node.image.end(|| error.to_string());
            Err(io::Error::other(error))
        }
    }
}

impl Shipper {
    /// Looks at what is there. `None`: not now.
    async fn begin(node: &Node, archive: &dyn Archive) -> io::Result<Option<Self>> {
        // What an earlier leader put, this one has then applied.
        let Reply::ReadIndex(index) = node.read_index().await else {
            return Ok(None);
        };
        node.image.wait_applied(index).await;
        look(node, archive).await?;
        let listing = within(Listing::of(archive)).await?;
        let snapshot = listing.snapshots.last().map_or(0, |newest| newest.index);
        let upto = listing.reach(snapshot);
        if upto > node.image.applied() {
            return Err(io::Error::other(format!(
                "the archive holds entries up to {upto}, of which this quorum knows nothing: it \
                 belongs to another history of this cluster"
            )));
        }
        Ok(Some(Self {
            upto,
            snapshot,
            parts: listing.parts.len(),
            looked: Instant::now(),
            superseded: Some(Instant::now()),
        }))
    }

    async fn round(
        mut self,
        node: &Node,
        snapshots: &Arc<SnapshotStore>,
        archive: &dyn Archive,
        config: &ArchiveConfig,
    ) -> io::Result<Option<Self>> {
        if self.looked.elapsed() >= LOOK {
            look(node, archive).await?;
            self.looked = Instant::now();
        }
        // Entries first, also those that a snapshot covers: it may become unreadable, and the one
        // before needs them.
        let whole = self.ship_entries(node, archive).await?;
        self.ship_snapshot(node, snapshots, archive).await?;
        // What has been purged only a snapshot has, and the entries behind it are new.
        if !whole && !self.ship_entries(node, archive).await? {
            self.ask_for_snapshot(node).await?;
        }
        if self.parts > config.parts_max {
            self.ask_for_snapshot(node).await?;
        }
        if self
            .superseded
            .is_some_and(|at| at.elapsed() >= config.grace)
        {
            let listing = within(Listing::of(archive)).await?;
            for key in listing.superfluous() {
                within(archive.delete(&key)).await?;
            }
            self.superseded = None;
        }
        Ok(Some(self))
    }

    async fn ask_for_snapshot(&self, node: &Node) -> io::Result<()> {
        let asked = node.raft.trigger().snapshot().await;
        asked.map_err(|error| io::Error::other(error.to_string()))
    }

    async fn ship_snapshot(
        &mut self,
        node: &Node,
        snapshots: &Arc<SnapshotStore>,
        archive: &dyn Archive,
    ) -> io::Result<()> {
        let newest = node.raft.metrics().borrow_watched().snapshot;
        if newest.is_none_or(|newest| newest.index <= self.snapshot) {
            return Ok(());
        }
        let store = Arc::clone(snapshots);
        let read = crate::blocking::spawn_blocking(move || store.newest());
        let Some((meta, state)) = read.await.map_err(io::Error::other)?? else {
            return Ok(());
        };
        let Some(last) = meta.last_log_id else {
            return Ok(());
        };
        let key = SnapshotKey {
            index: last.index,
            term: last.leader_id.term,
        };
        let bytes: Bytes = file_bytes(&meta, &state).into();
        within(archive.put(&key.key(), bytes)).await?;
        self.snapshot = last.index;
        self.upto = self.upto.max(last.index);
        self.parts = 0;
        self.superseded = Some(Instant::now());
        Ok(())
    }

    /// Puts all that is applied now. `false`: the next entries are not there any more.
    ///
    /// What is applied while it puts waits for the next round. To run after it would take as many
    /// objects as there is time for, each of a few entries, for as long as commands come.
    async fn ship_entries(&mut self, node: &Node, archive: &dyn Archive) -> io::Result<bool> {
        let end = node.image.applied() + 1;
        while self.upto + 1 < end {
            let next = self.upto + 1;
            let entries = node.log.read(next, end, PART_BYTES).await?;
            let Some(last) = entries.last().map(|entry| entry.log_id) else {
                return Ok(false);
            };
            if entries[0].log_id.index != next {
                return Ok(false);
            }
            let key = PartKey {
                first: next,
                last: last.index,
                term: last.leader_id.term,
            };
            within(archive.put(&key.key(), part::encode(&entries).into())).await?;
            self.upto = last.index;
            self.parts += 1;
        }
        Ok(true)
    }
}
