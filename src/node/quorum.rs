//! The metadata as this node has it: as a voter, or as one that follows the voters.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use frazil_metadata::{ArchiveConfig, Client, ClientConfig, Observer, Voter};
use frazil_objects::Retries;
use tracing::info;

use crate::archive::StoreArchive;
use crate::config::Config;
use crate::env::Env;
use crate::store::{Kind, Store};

pub(super) enum Quorum {
    Voter(Voter),
    Observer(Observer),
}

impl Quorum {
    /// Starts the voter, or follows those that there are.
    pub(super) async fn start(
        config: &Config,
        env: &Env,
        peers: Option<frazil_metadata::Connections>,
        metrics: frazil_metadata::Metrics,
    ) -> Result<Self> {
        let voters: BTreeMap<u64, String> = config
            .voters
            .iter()
            .map(|voter| (voter.id as u64, voter.address.to_string()))
            .collect();
        if !config.roles.metadata {
            let observer = Observer::start(voters, Arc::clone(&env.ids), metrics)?;
            return Ok(Self::Observer(observer));
        }
        let mut quorum = lone_voter(config);
        if !voters.is_empty() {
            quorum.voters = voters;
        }
        let voter = Voter::start(
            quorum,
            peers,
            Arc::clone(&env.disk),
            Arc::clone(&env.clock),
            Arc::clone(&env.ids),
            metrics,
        )
        .await
        .context("the metadata voter cannot start")?;
        Ok(Self::Voter(voter))
    }

    /// Has a voter keep the archive, unless it would end with the process.
    pub(super) fn archive(
        &mut self,
        config: &Config,
        store: &Store,
        retries: &Retries,
        prefix: &object_store::path::Path,
    ) {
        let wanted = !config.archive_interval.is_zero() && store.kind != Kind::Memory;
        if let Self::Voter(voter) = self
            && wanted
        {
            let to = StoreArchive::new(Arc::clone(&store.client), retries.clone(), prefix.clone());
            let settings = ArchiveConfig {
                every: config.archive_interval,
                ..ArchiveConfig::default()
            };
            voter.archive(Arc::new(to), settings);
        }
    }

    pub(super) fn client(&self, config: &Config) -> Client {
        let config = ClientConfig {
            seal_after: config.gateway_seal_after,
            ..ClientConfig::default()
        };
        match self {
            Self::Voter(voter) => voter.client(config),
            Self::Observer(observer) => observer.client(config),
        }
    }

    /// Waits until a voter that is not a member of the quorum is added to it, for however long.
    pub(super) async fn added(&self, config: &Config) {
        if let Self::Voter(voter) = self
            && voter.joins()
        {
            let own = config.own_voter();
            let own = own.map_or_else(String::new, |own| format!("{}@{}", own.id, own.address));
            info!("waiting to become a voter: frazil cluster voter add {own}");
            voter.added().await;
        }
    }

    /// Ends it: a voter hands over what it leads.
    pub(super) async fn stop(self) {
        match self {
            Self::Voter(voter) => voter.shutdown().await,
            Self::Observer(observer) => observer.shutdown().await,
        }
    }

    /// Waits until this node can follow the metadata no longer, and says why.
    pub(super) async fn failed(&self) -> String {
        match self {
            Self::Voter(voter) => voter.failed().await,
            Self::Observer(observer) => observer.failed().await,
        }
    }
}

/// Where this node's voter keeps its log.
pub(crate) fn quorum_dir(config: &Config) -> PathBuf {
    config.data_dir.join("quorum")
}

/// This node's voter, if it is the only one.
pub(crate) fn lone_voter(config: &Config) -> frazil_metadata::Config {
    let own = config.own_voter().map(|voter| &voter.address);
    let address = own.unwrap_or(&config.peer_listen).to_string();
    let id = config.voter_id() as u64;
    frazil_metadata::Config::new(id, BTreeMap::from([(id, address)]), quorum_dir(config))
}
