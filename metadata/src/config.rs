//! Settings of voters, observers and clients: plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::LEVEL;
use crate::error::Error;

/// Settings of one voter.
#[derive(Clone, Debug)]
pub struct Config {
    /// This voter's id, which is its own for ever: a voter that has lost its disk returns under a
    /// new one.
    pub voter_id: u64,
    /// All voters with `host:port` of their peer listeners, this one included.
    pub voters: BTreeMap<u64, String>,
    /// Where log, vote and snapshots are. Created if it does not exist; no other voter's.
    pub dir: PathBuf,
    /// Bytes of one log file, preallocated.
    pub log_file_bytes: u64,
    /// Bytes of log entries that are kept in memory for followers and observers.
    pub log_cache_bytes: u64,
    /// Entries after which a snapshot is made.
    pub snapshot_entries: u64,
    /// Bytes of log after which a snapshot is made, if that comes first.
    pub snapshot_bytes: u64,
    /// Entries before a snapshot that stay in the log, for those that are not far behind.
    pub kept_entries: u64,
    /// An election begins after this long without a leader, or up to twice as long.
    pub election_timeout: Duration,
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// What a new leader gives gateways that it has not heard of yet before it takes them for silent;
    /// several of their heartbeats.
    pub gateway_grace: Duration,
    /// The highest feature level that this program knows; lower only where an older program is
    /// played.
    pub knows: u8,
}

impl Config {
    /// The defaults.
    pub fn new(voter_id: u64, voters: BTreeMap<u64, String>, dir: impl Into<PathBuf>) -> Self {
        Self {
            voter_id,
            voters,
            dir: dir.into(),
            log_file_bytes: 16 << 20,
            log_cache_bytes: 64 << 20,
            snapshot_entries: 50_000,
            snapshot_bytes: 128 << 20,
            kept_entries: 5_000,
            election_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            gateway_grace: Duration::from_secs(6),
            knows: LEVEL,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        if self.voters.is_empty() {
            return wrong("no voters".to_owned());
        }
        if !self.voters.contains_key(&self.voter_id) {
            return wrong(format!("voter {} is not among the voters", self.voter_id));
        }
        if self.log_file_bytes < 4096 || self.snapshot_entries == 0 || self.snapshot_bytes == 0 {
            return wrong("log files below 4 KiB, or a snapshot after nothing".to_owned());
        }
        if self.heartbeat.is_zero() || self.heartbeat * 2 > self.election_timeout {
            return wrong(format!(
                "a heartbeat every {:?} does not fit an election timeout of {:?}",
                self.heartbeat, self.election_timeout
            ));
        }
        Ok(())
    }

    pub(crate) fn raft(&self) -> Result<openraft::Config, Error> {
        let election_ms = self.election_timeout.as_millis() as u64;
        let config = openraft::Config {
            cluster_name: "frazil".to_owned(),
            election_timeout_min: election_ms,
            election_timeout_max: 2 * election_ms,
            heartbeat_interval: self.heartbeat.as_millis() as u64,
            // A snapshot may be large and the other side has to sync it.
            install_snapshot_timeout: 120_000,
            max_payload_entries: 1024,
            replication_lag_threshold: self.snapshot_entries.saturating_mul(2),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.kept_entries,
            enable_pre_vote: Some(true),
            // Must reach from the end of the lease over the longest election timeout.
            quorum_loss_probe_interval: Some(6 * election_ms),
            // Alone there is nobody to hear from, and an idle node should not wake up for it.
            enable_tick: self.voters.len() > 1,
            // The state machine is in memory and the commit index is not saved: only an election
            // tells a restarted leader what is committed.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        config
            .validate()
            .map_err(|error| Error::Config(error.to_string()))
    }
}

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long a command or a barrier is tried before the caller is told that it failed.
    pub deadline: Duration,
    /// How long one attempt may take before another voter is asked.
    pub attempt: Duration,
    /// How long ago a gateway's lease must have ended before it is declared dead.
    pub seal_after: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempt: Duration::from_secs(5),
            seal_after: Duration::from_secs(24 * 3600),
        }
    }
}
