//! A voter: its directory, its Raft node, its peer listener, and the forming of a new cluster.
//!
//! ```text
//! open the directory ─► recover log and vote ─► Raft ─► serve peers ─► form, or elect
//! ```
//!
//! **Forming.** Of a cluster whose logs are all empty, the voter with the lowest id writes the
//! membership, unless another voter already has one; the first leader gives the cluster its id. A
//! voter that is alone elects itself at once whenever it starts.
//!
//! **Joining.** A voter that is not among the members has an empty log and waits, without voting,
//! until an operator adds it ([`membership`](crate::membership)).
//!
//! **Lost disks.** A voter that has lost its log must not vote again under its id: it could elect a
//! leader without entries that it had acknowledged. It is refused if its directory says whose it is
//! but has no log, or if another voter that answers remembers that this one had the log. What is not
//! noticed is a directory that is gone as a whole while no other voter answers; so a voter without
//! its disk must be given a new id.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use frazil_core::env::{Clock, Disk, Ids};
use openraft::BasicNode;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{InitializeError, RaftError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archive::ship::ship_for_ever;
use crate::archive::{Archive, ArchiveConfig};
use crate::client::Client;
use crate::command::{Command, Envelope};
use crate::config::{ClientConfig, Config};
use crate::connections::Connections;
use crate::directory::Directory;
use crate::error::{Corrupt, Error};
use crate::image::Image;
use crate::liveness::watch_gateways;
use crate::membership::notice_removal;
use crate::metrics::Metrics;
use crate::node::{Node, Us};
use crate::peer::Peer;
use crate::raft::log_store::{LogConfig, LogStore, Opened};
use crate::raft::network::Network;
use crate::raft::record::{decode_all, encode_onto};
use crate::raft::snapshot::SnapshotStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::{Raft, durable};
use crate::server::serve;
use crate::wire::{Members, Reply, Request};

const IDENTITY_FILE: &str = "identity";
const IDENTITY_MAGIC: [u8; 8] = *b"FRZVTID\x01";
/// How long a lone voter may take to lead.
const LONE_ELECTION: Duration = Duration::from_secs(10);
/// After how long it tries again.
const LONE_RETRY: Duration = Duration::from_secs(1);
/// After how long a leader tries again to give the cluster its id, and looks again for voters that
/// have not been heard from.
const MINDING_RETRY: Duration = Duration::from_millis(500);
const NEEDS_LISTENER: &str = "a voter among several needs a listener";
/// How long a new voter waits for the others' answers.
const ASKING: Duration = Duration::from_millis(500);
/// How long a voter that leaves waits for another leader.
const HANDOVER: Duration = Duration::from_secs(1);

/// A running voter.
pub struct Voter {
    pub(crate) node: Arc<Node>,
    config: Config,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    log_stopped: oneshot::Receiver<()>,
    snapshots: Arc<SnapshotStore>,
    /// There is a quorum, and this voter was no member when it started.
    joins: bool,
}

impl Voter {
    /// Starts a voter. `incoming` is where other nodes reach it; a voter that is alone may have
    /// none. A voter that is alone leads on return, and the cluster has its id.
    ///
    /// # Errors
    /// A configuration or a directory that cannot be right, or a disk that fails.
    pub async fn start(
        config: Config,
        incoming: Option<Connections>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        config.check()?;
        let raft_config = Arc::new(config.raft()?);
        let sole = config.voters.len() == 1;
        let listens = incoming.is_some();
        if !sole && !listens {
            return Err(Error::Config(NEEDS_LISTENER.to_owned()));
        }

        let opening = open(&config, &disk, &ids, &metrics);
        let opened = crate::blocking::spawn_blocking(opening)
            .await
            .map_err(io::Error::other)??;
        let (store, log_stopped) = (opened.store, opened.stopped);
        let reader = store.reader();
        let log_bytes = store.bytes();
        let is_new = store.is_new();

        let image = Arc::new(Image::new(config.knows, metrics.clone()));
        let snapshots = Arc::new(SnapshotStore::new(disk, config.dir.clone()));
        let us = Arc::new(Us {
            image: Arc::clone(&image),
            voter: Some(config.voter_id),
        });
        let mut forms = is_new && is_first(&config);
        let mut joins = false;
        if is_new && !sole {
            // Before it can vote.
            let others = ask_others(&config, &us).await;
            refuse_if_remembered(&config, &others)?;
            forms &= others.iter().all(|members| members.voters.is_empty());
            let formed = others.iter().find(|members| !members.voters.is_empty());
            joins = formed.is_some_and(|members| !members.voters.contains_key(&config.voter_id));
        }
        let machine = StateMachine::new(
            Arc::clone(&image),
            Arc::clone(&snapshots),
            Some(reader.clone()),
            metrics.clone(),
        );
        let network = Network::new(us.clone(), config.voters.clone());
        let raft = Raft::new(config.voter_id, raft_config, network, store, machine)
            .await
            .map_err(|error| Error::Raft(error.to_string()))?;
        // By its log it may have been joined by others since that was configured.
        let joined = joined(&raft, config.voter_id).await?;
        if sole && joined {
            if !listens {
                return Err(Error::Config(NEEDS_LISTENER.to_owned()));
            }
            raft.runtime_config().tick(true);
        }
        let sole = sole && !joined;
        let directory = Arc::new(Directory::new(us, config.voters.clone()));
        let node = Node::new(
            raft,
            image,
            (reader, Arc::clone(&snapshots)),
            clock,
            directory,
            sole,
            listens,
        );
        let node = Arc::new(node);

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(incoming) = incoming {
            tasks.spawn(serve(Arc::clone(&node), incoming, stop.clone()));
        }
        let minding = mind(Arc::clone(&node), Arc::clone(&ids), metrics.clone());
        tasks.spawn(until_stopped(stop.clone(), minding));
        let watching = watch_gateways(Arc::clone(&node), config.gateway_grace);
        tasks.spawn(until_stopped(stop.clone(), watching));
        let noticing = notice_removal(Arc::clone(&node));
        tasks.spawn(until_stopped(stop.clone(), noticing));
        let snapshotting = snapshot_by_bytes(Arc::clone(&node), log_bytes, config.snapshot_bytes);
        tasks.spawn(until_stopped(stop.clone(), snapshotting));

        let voter = Self {
            node,
            config,
            ids,
            metrics,
            stop,
            tasks,
            log_stopped,
            snapshots,
            joins,
        };
        voter.form(forms).await?;
        Ok(voter)
    }

    /// The image, which this voter applies to.
    pub fn image(&self) -> &Arc<Image> {
        &self.node.image
    }

    /// Whether there is a quorum that this voter, when it started, was no member of.
    pub fn joins(&self) -> bool {
        self.joins
    }

    /// Waits until this voter is a member of the quorum, or learns to become one.
    pub async fn added(&self) {
        let mut server = self.node.raft.server_metrics();
        let is_member = |members: &Members| {
            members.voters.contains_key(&self.config.voter_id)
                || members.learners.contains_key(&self.config.voter_id)
        };
        while !is_member(&self.node.members()) {
            if server.changed().await.is_err() {
                // Raft has ended, which `failed` tells.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps an archive whenever this voter leads, until it stops; what is new is put a last time
    /// then. Once the cluster has its id: the archive is the cluster's.
    pub fn archive(&mut self, archive: Arc<dyn Archive>, config: ArchiveConfig) {
        let (node, snapshots) = (Arc::clone(&self.node), Arc::clone(&self.snapshots));
        let shipping = ship_for_ever(node, snapshots, archive, config, self.stop.clone());
        self.tasks.spawn(shipping);
    }

    /// A client of the quorum that reads from this voter's image.
    pub fn client(&self, config: ClientConfig) -> Client {
        Client::new(
            Arc::clone(&self.node.image),
            Some(Arc::clone(&self.node)),
            Arc::clone(&self.node.directory),
            config,
            &*self.ids,
            self.metrics.clone(),
        )
    }

    /// Waits until this voter cannot go on, and tells why: its storage has failed, or the quorum
    /// does what this program does not know. The process should then end.
    pub async fn failed(&self) -> String {
        let mut metrics = self.node.raft.metrics();
        let stopped = async {
            loop {
                if let Err(fatal) = &metrics.borrow_watched().running_state {
                    return fatal.to_string();
                }
                if metrics.changed().await.is_err() {
                    return "raft has ended".to_owned();
                }
            }
        };
        tokio::select! {
            reason = stopped => reason,
            reason = self.node.image.ended() => reason,
        }
    }

    /// Hands leadership over if there is someone to take it, and stops. Everything that was
    /// acknowledged is on disk, before and after.
    pub async fn shutdown(self) {
        self.hand_over().await;
        self.end().await;
    }

    /// Stops without telling anyone.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Err(error) = self.node.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        // The sender is dropped when the log's thread ends, which is when Raft drops the log.
        let _ = (&mut self.log_stopped).await;
    }

    async fn hand_over(&self) {
        let own = self.node.id;
        let voters = self.node.members().voters;
        let mut metrics = self.node.raft.metrics();
        let successor = {
            let metrics = metrics.borrow_watched();
            let progress = metrics.replication.iter().flatten();
            progress
                // The leader itself is in the list, and is all of it if there are no others.
                .filter(|(id, _)| **id != own && voters.contains_key(id))
                .filter_map(|(id, matched)| matched.as_ref().map(|matched| (matched.index, *id)))
                .max()
        };
        let Some((_, successor)) = successor else {
            return;
        };
        if self
            .node
            .raft
            .trigger()
            .transfer_leader(successor)
            .await
            .is_err()
        {
            return;
        }
        let handing = async {
            while metrics.borrow_watched().current_leader == Some(own) {
                if metrics.changed().await.is_err() {
                    break;
                }
            }
        };
        // Whoever is left elects a leader anyway.
        let _ = tokio::time::timeout(HANDOVER, handing).await;
    }

    /// Forms the cluster if it is this voter's part, and makes a lone voter lead.
    async fn form(&self, forms: bool) -> Result<(), Error> {
        let raft = &self.node.raft;
        let failed = |error: &dyn std::fmt::Display| Error::Raft(error.to_string());
        let sole = self.node.sole.load(Ordering::Acquire);
        if forms {
            let members: BTreeMap<u64, BasicNode> = self
                .config
                .voters
                .iter()
                .map(|(id, address)| (*id, BasicNode::new(address)))
                .collect();
            match raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        if sole {
            tokio::time::timeout(LONE_ELECTION, self.lead_alone())
                .await
                .map_err(|_| Error::Unavailable("a lone voter does not lead".to_owned()))??;
        }
        Ok(())
    }

    /// Becomes leader, and waits until the image has caught up and the cluster has its id.
    async fn lead_alone(&self) -> Result<(), Error> {
        let raft = &self.node.raft;
        loop {
            raft.trigger()
                .elect(false)
                .await
                .map_err(|error| Error::Raft(error.to_string()))?;
            let again = Instant::now() + LONE_RETRY;
            while Instant::now() < again {
                if matches!(self.node.read_index().await, Reply::ReadIndex(_)) {
                    let mut applied = self.node.image.subscribe();
                    // The id is given by the task that minds leadership.
                    let named = |_: &u64| {
                        let image = &self.node.image;
                        image.read(|state| state.cluster_id().is_some())
                    };
                    // The image, which sends, is held by this voter.
                    let _ = applied.wait_for(named).await;
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Whether the log names other voters than this one.
async fn joined(raft: &Raft, own: u64) -> Result<bool, Error> {
    raft.with_raft_state(move |state| {
        let membership = state.membership_state.effective();
        membership.voter_ids().any(|id| id != own)
    })
    .await
    .map_err(|error| Error::Raft(error.to_string()))
}

fn is_first(config: &Config) -> bool {
    config.voters.first_key_value().map(|(id, _)| *id) == Some(config.voter_id)
}

/// How the other voters are, as far as they answer at once.
async fn ask_others(config: &Config, us: &Arc<Us>) -> Vec<Members> {
    let deadline = Instant::now() + ASKING;
    let mut asking = JoinSet::new();
    for (id, address) in &config.voters {
        if *id != config.voter_id {
            let peer = Peer::new(*id, address.clone(), us.clone());
            asking.spawn(async move { peer.call(&Request::Members, deadline).await });
        }
    }
    let mut others = Vec::new();
    while let Some(answer) = asking.join_next().await {
        if let Ok(Ok(Reply::Members(members))) = answer {
            others.push(members);
        }
    }
    others
}

/// A voter without a log must not be one that had one.
fn refuse_if_remembered(config: &Config, others: &[Members]) -> Result<(), Error> {
    let remembering = others
        .iter()
        .find(|members| members.remembers(config.voter_id));
    remembering.map_or(Ok(()), |members| {
        Err(Error::Directory(format!(
            "{} is empty, but voter {} remembers that voter {} had the log; a voter that has lost \
             its disk must return under a new id (node.id)",
            config.dir.display(),
            members.voter,
            config.voter_id,
        )))
    })
}

impl Drop for Voter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn until_stopped(stop: CancellationToken, task: impl Future<Output = ()>) {
    stop.run_until_cancelled(task).await;
}

/// Opens the directory, which must be this voter's or new.
pub(crate) fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
    ids: &Arc<dyn Ids>,
    metrics: &Metrics,
) -> impl FnOnce() -> Result<Opened, Error> + Send + 'static {
    let (config, disk, ids, metrics) = (
        config.clone(),
        Arc::clone(disk),
        Arc::clone(ids),
        metrics.clone(),
    );
    move || open_blocking(&config, disk, ids, metrics).map_err(|error| advise(&config, error))
}

/// Says what to do about files that are not what was written.
fn advise(config: &Config, error: Error) -> Error {
    match error {
        Error::Storage(error) if error.kind() == io::ErrorKind::InvalidData => {
            damaged(config, &error)
        }
        other => other,
    }
}

fn damaged(config: &Config, what: &dyn std::fmt::Display) -> Error {
    Error::Directory(format!(
        "{} is damaged: {what}; repair nothing by hand, since voter {} may have answered for what is \
         missing. If other voters have a majority, add one under a new node.id (frazil cluster voter \
         add) and remove this one; if it was the only one, restore the directory as it was when it \
         was last stopped, or make a new quorum of the archive (frazil recover)",
        config.dir.display(),
        config.voter_id
    ))
}

fn open_blocking(
    config: &Config,
    disk: Arc<dyn Disk>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
) -> Result<Opened, Error> {
    disk.create_dir_all(&config.dir)?;
    let identity = identity(&*disk, &config.dir)?;
    if let Some(owner) = identity
        && owner != config.voter_id
    {
        return Err(Error::Directory(format!(
            "{} belongs to voter {owner}, not {}",
            config.dir.display(),
            config.voter_id
        )));
    }
    let log = LogConfig {
        dir: config.dir.clone(),
        file_bytes: config.log_file_bytes,
        cache_bytes: config.log_cache_bytes,
    };
    let opened = LogStore::open(log, Arc::clone(&disk), ids, metrics)?;
    match identity {
        Some(voter) if !opened.existed => {
            let what = format!("it has lost the log of voter {voter}");
            return Err(damaged(config, &what));
        }
        Some(_) => {}
        None => {
            // After the log's first file: a directory with an identity has a log.
            write_identity(&*disk, &config.dir, config.voter_id)?;
        }
    }
    let snapshot = SnapshotStore::new(disk, config.dir.clone())
        .newest()?
        .and_then(|(meta, _)| meta.last_log_id);
    let purged = opened.store.purged();
    if purged > snapshot {
        let what = format!(
            "the log begins behind {purged:?}, but the newest snapshot ends at {snapshot:?}"
        );
        return Err(damaged(config, &what));
    }
    Ok(opened)
}

fn identity(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, Error> {
    let bytes = durable::read(disk, dir, IDENTITY_FILE, IDENTITY_MAGIC)?;
    let parse = |bytes: Vec<u8>| -> Result<u64, Corrupt> { decode_all(&bytes, IDENTITY_FILE) };
    Ok(bytes.map(parse).transpose().map_err(io::Error::from)?)
}

/// Writes whose the directory is.
pub(crate) fn write_identity(disk: &dyn Disk, dir: &Path, voter: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode_onto(&voter, &mut bytes);
    durable::replace(disk, dir, IDENTITY_FILE, IDENTITY_MAGIC, &bytes)
}

/// Follows leadership and members: shows and publishes them, gives a new cluster its id, and does
/// what a leader owes the members.
async fn mind(node: Arc<Node>, ids: Arc<dyn Ids>, metrics: Metrics) {
    let mut server = node.raft.server_metrics();
    loop {
        let leads = server.borrow_watched().current_leader == Some(node.id);
        metrics.is_leader.set(i64::from(leads));
        node.publish_members();
        let settled = !leads || (name_cluster(&node, &*ids).await && node.mind_members().await);
        // A leader that stays the leader has to try again by itself.
        let again = tokio::time::sleep(MINDING_RETRY);
        tokio::select! {
            changed = server.changed() => if changed.is_err() {
                return;
            },
            () = again, if !settled => {}
        }
    }
}

/// Whether the cluster has its id now.
async fn name_cluster(node: &Node, ids: &dyn Ids) -> bool {
    let Reply::ReadIndex(index) = node.read_index().await else {
        return false;
    };
    node.image.wait_applied(index).await;
    if node.image.read(|state| state.cluster_id().is_some()) {
        return true;
    }
    let command = Command::InitCluster {
        cluster_id: ids.uuid().simple().to_string(),
        level: Some(node.first_level().await),
    };
    let reply = node.propose(Envelope::by_leader(command)).await;
    matches!(reply, Reply::Proposed { .. })
}

/// Asks for a snapshot whenever the log has grown by so many bytes.
async fn snapshot_by_bytes(node: Arc<Node>, mut log: watch::Receiver<u64>, bytes_max: u64) {
    let mut base = 0;
    while log.changed().await.is_ok() {
        let bytes = *log.borrow_and_update();
        base = base.min(bytes);
        if bytes - base >= bytes_max {
            base = bytes;
            if node.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::{MemDisk, check_golden};

    use super::*;

    #[test]
    fn the_identity_is_written_as_ever() {
        let disk = MemDisk::new();
        let dir = Path::new("/");
        assert_eq!(identity(&disk, dir).unwrap(), None);
        write_identity(&disk, dir, 300).unwrap();
        let bytes = disk.contents(&dir.join(IDENTITY_FILE)).unwrap();
        check_golden("raft-identity-v1.bin", &bytes);
        assert_eq!(identity(&disk, dir).unwrap(), Some(300));

        disk.rot(&dir.join(IDENTITY_FILE), 12, 1);
        assert!(identity(&disk, dir).is_err());
    }
}
