//! A new quorum of one voter, made of what the archive holds.
//!
//! ```text
//! newest readable snapshot ─► entries behind it, up to the first gap ─► state
//!      state, at a far higher index and the next term ─► data directory of one voter
//! ```
//!
//! What was committed after the archive's last entry is lost: registrations, offsets, whatever else.
//! So that nothing that is handed out from now on was handed out before, the log continues
//! [`GAP`] behind everything that is known to have been used: registrations' epochs are log indexes,
//! and segments are named by them.
//!
//! Only for a quorum that is gone for good: what it commits after this is lost. Old voters that come
//! back all the same end ([`history`](crate::history)).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use frazil_core::env::{Disk, Ids};
use openraft::storage::RaftLogStorage as _;
use openraft::vote::{RaftLeaderId as _, RaftVote as _};
use openraft::{BasicNode, EntryPayload, Membership};

use crate::archive::{Archive, Listing, PartKey, part};
use crate::command::Envelope;
use crate::config::Config;
use crate::error::{Corrupt, Error};
use crate::history::History;
use crate::metrics::Metrics;
use crate::raft::log_store::{LogConfig, LogStore};
use crate::raft::snapshot::{SnapshotStore, parse};
use crate::raft::{LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::state::State;
use crate::voter::write_identity;

type LeaderId = <TypeConfig as openraft::RaftTypeConfig>::LeaderId;

/// How many indexes are left out. No quorum commits as many commands as this after its last
/// contact with the bucket, without which it commits no segment either.
pub const GAP: u64 = 1 << 32;

/// What an archive holds.
#[derive(Debug)]
pub struct Recovery {
    state: State,
    index: u64,
    term: u64,
    /// The index of the snapshot that it began with; `None`: with the first entry.
    pub snapshot: Option<u64>,
    /// Objects that could not be used, and why.
    pub damaged: Vec<String>,
    /// The last archived index behind a gap, if there is one: what is there cannot be used.
    pub beyond: Option<u64>,
}

impl Recovery {
    /// Reads an archive.
    ///
    /// # Errors
    /// An archive that cannot be read, or holds no beginning.
    pub async fn read(archive: &dyn Archive) -> Result<Self, Error> {
        let listing = Listing::of(archive).await?;
        let mut recovery = Self::snapshot(archive, &listing).await?;
        let mut left = listing.parts;
        while let Some(key) = recovery.next(&mut left) {
            match Self::entries(archive, key).await {
                Ok(entries) => recovery.apply(entries)?,
                Err(error) => recovery.damaged.push(format!("{}: {error}", key.key())),
            }
        }
        let last = left.iter().map(|part| part.last).max();
        recovery.beyond = last.filter(|last| *last > recovery.index);
        if recovery.index == 0 {
            let what = "there is nothing that a quorum could be made of".to_owned();
            return Err(Error::Archive(what));
        }
        Ok(recovery)
    }

    async fn snapshot(archive: &dyn Archive, listing: &Listing) -> Result<Self, Error> {
        let mut damaged = Vec::new();
        for key in listing.snapshots.iter().rev() {
            let read = async {
                let bytes = archive.get(&key.key()).await?;
                let (meta, state) = parse(&bytes)?;
                let last = meta.last_log_id.filter(|last| last.index == key.index);
                let last = last.ok_or_else(|| Corrupt::new("a snapshot of another index"))?;
                let state = State::restore(&state)
                    .map_err(|error| Corrupt::new(format!("snapshot: {error}")))?;
                Ok::<_, io::Error>((state, last))
            };
            match read.await {
                Ok((state, last)) => {
                    return Ok(Self {
                        state,
                        index: last.index,
                        term: last.leader_id.term,
                        snapshot: Some(last.index),
                        damaged,
                        beyond: None,
                    });
                }
                Err(error) => damaged.push(format!("{}: {error}", key.key())),
            }
        }
        Ok(Self {
            state: State::new(),
            index: 0,
            term: 0,
            snapshot: None,
            damaged,
            beyond: None,
        })
    }

    /// Takes the run that goes furthest of those that continue what there is.
    fn next(&self, left: &mut Vec<PartKey>) -> Option<PartKey> {
        left.retain(|part| part.last > self.index);
        let fits = |part: &PartKey| part.first <= self.index + 1;
        let (position, _) = left
            .iter()
            .enumerate()
            .filter(|(_, part)| fits(part))
            .max_by_key(|(_, part)| (part.last, part.term))?;
        Some(left.remove(position))
    }

    async fn entries(archive: &dyn Archive, key: PartKey) -> io::Result<Vec<crate::raft::Entry>> {
        let entries = part::decode(&archive.get(&key.key()).await?)?;
        let indexes = entries.iter().map(|entry| entry.log_id.index);
        if !indexes.eq(key.first..=key.last) {
            return Err(Corrupt::new("not the entries that its name says").into());
        }
        Ok(entries)
    }

    fn apply(&mut self, entries: Vec<crate::raft::Entry>) -> Result<(), Error> {
        for entry in entries {
            let id = entry.log_id;
            if id.index <= self.index {
                continue;
            }
            if let EntryPayload::Normal(command) = entry.payload {
                // Written by a later version of this program, which is to be used.
                let envelope = Envelope::decode(&command.0)
                    .map_err(|error| Error::Archive(format!("entry {id}: {error}")))?;
                self.state.apply(id.index, &envelope);
            }
            self.index = id.index;
            self.term = id.leader_id.term;
        }
        Ok(())
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The index of the last entry.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Writes the directory of the only voter of `config`, whose log continues behind everything
    /// here and behind `used`, the largest epoch found anywhere else. Answers where. Blocks.
    ///
    /// Before that it begins a new history of the cluster, and says so in the archive: from then on,
    /// voters of the old quorum and nodes that follow them end when they come back.
    ///
    /// # Errors
    /// A directory that is not empty, an archive that cannot be written, or a disk that fails: what
    /// was begun is then left, and must be removed.
    pub async fn write(
        &mut self,
        archive: &dyn Archive,
        config: &Config,
        used: u64,
        disk: Arc<dyn Disk>,
        ids: Arc<dyn Ids>,
    ) -> Result<u64, Error> {
        config.check()?;
        let wrong = |what: &str| Err(Error::Directory(format!("{} {what}", config.dir.display())));
        disk.create_dir_all(&config.dir)?;
        if !disk.list(&config.dir)?.is_empty() {
            return wrong("is not empty: a quorum is only recovered into a new directory");
        }
        let Some(base) = self.index.max(used).checked_add(GAP) else {
            return wrong("cannot hold indexes as large as those that were used");
        };
        let known = self.state.history();
        let history = History::begin(archive, known, ids.uuid()).await?;
        self.state.begin_history(history);
        let id = config.voter_id;
        let nodes = config
            .voters
            .iter()
            .map(|(id, address)| (*id, BasicNode::new(address)));
        let nodes: BTreeMap<u64, BasicNode> = nodes.collect();
        let voters = BTreeSet::from([id]);
        let membership = Membership::new(vec![voters], nodes)
            .map_err(|error| Error::Config(error.to_string()))?;
        let leader = LeaderId::new(self.term + 1, id);
        let last = LogId {
            leader_id: leader,
            index: base,
        };
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), membership),
        };
        SnapshotStore::new(Arc::clone(&disk), config.dir.clone())
            .save(&meta, &self.state.snapshot())?;

        let log = LogConfig {
            dir: config.dir.clone(),
            file_bytes: config.log_file_bytes,
            cache_bytes: config.log_cache_bytes,
        };
        let opened = LogStore::open(log, Arc::clone(&disk), ids, Metrics::default())?;
        let mut store = opened.store;
        store.purge(last).await?;
        // In order: what was purged is durable before the vote is.
        store
            .save_vote(&Vote::from_leader_id(leader, false))
            .await?;
        drop(store);
        // Ends when everything is written.
        let _ = opened.stopped.await;
        // Last: a directory without an identity is not complete.
        write_identity(&*disk, &config.dir, id)?;
        Ok(base)
    }
}
