//! A fleet of processes: three voters, some gateways, one compactor, over one store.
//!
//! Every link has a proxy: from clients to each gateway (which is what a gateway advertises), from
//! every node to every voter but itself, from every node to the store. A node's configured voters
//! win over what the quorum tells, so each node is given addresses of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use frazil_proxy::Proxy;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::node::{Addresses, Links, Node, Role};
use super::store::Store;

/// The ids of the voters.
pub(crate) const VOTERS: [u32; 3] = [1, 2, 3];
/// The id of the first gateway.
pub(crate) const GATEWAY: u32 = 11;
/// The id of the compactor.
pub(crate) const COMPACTOR: u32 = 91;

/// What memory a gateway is configured to use, in MiB: requests, responses, buffer, tail, blocks.
const GATEWAY_MEMORY: [(&str, u64); 5] = [
    ("queued.max.request.bytes", 32),
    ("fetch.memory.bytes", 32),
    ("flush.buffer.bytes", 16),
    ("cache.tail.bytes", 16),
    ("cache.memory.bytes", 16),
];
/// What a process may use besides: code, metadata, connections, the allocator's slack.
const BESIDES_MIB: u64 = 64;
/// What a voter keeps of its log in memory.
const VOTER_LOG_MIB: u64 = 64;

/// The most memory that a gateway should use, in MiB.
pub(crate) fn gateway_cap_mib() -> u64 {
    GATEWAY_MEMORY.iter().map(|(_, mib)| mib).sum::<u64>() + BESIDES_MIB
}

/// The most memory that a voter should use, in MiB.
pub(crate) const fn voter_cap_mib() -> u64 {
    VOTER_LOG_MIB + BESIDES_MIB
}

/// What a fleet is made of.
pub(crate) struct Plan<'a> {
    pub binary: &'a Path,
    /// Below which folder its data is.
    pub dir: &'a Path,
    pub runtime: &'a Handle,
    pub gateways: u32,
    /// Further settings of all nodes.
    pub settings: &'a [&'a str],
}

/// A running fleet. Dropping it kills the processes and removes their data.
pub(crate) struct Fleet {
    pub nodes: BTreeMap<u32, Node>,
    pub store: Store,
    binary: PathBuf,
    runtime: Handle,
    settings: Vec<String>,
    voters: BTreeMap<u32, Addresses>,
    dir: TempDir,
    keep: bool,
}

impl Fleet {
    /// Starts all processes, and waits until they serve.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("frazil-fleet-")
            .tempdir_in(plan.dir)?;
        let mut voters = BTreeMap::new();
        for id in VOTERS {
            voters.insert(id, Addresses::free()?);
        }
        let mut fleet = Self {
            nodes: BTreeMap::new(),
            store: Store::start(plan.runtime)?,
            binary: plan.binary.to_owned(),
            runtime: plan.runtime.clone(),
            settings: plan.settings.iter().map(|&s| s.to_owned()).collect(),
            voters,
            dir,
            keep: false,
        };
        for id in VOTERS {
            fleet.add(id, Role::Voter)?;
        }
        for id in (GATEWAY..).take(plan.gateways as usize) {
            fleet.add(id, Role::Gateway)?;
        }
        fleet.add(COMPACTOR, Role::Compactor)?;
        for node in fleet.nodes.values_mut() {
            node.begin()?;
        }
        for node in fleet.nodes.values_mut() {
            node.wait_until_ready()?;
        }
        Ok(fleet)
    }

    /// Makes a node that is not started.
    pub(crate) fn add(&mut self, id: u32, role: Role) -> Result<()> {
        let addresses = match self.voters.get(&id) {
            Some(addresses) => *addresses,
            None => Addresses::free()?,
        };
        let link = |target| Proxy::start(target, &self.runtime);
        let mut links = Links {
            clients: None,
            voters: BTreeMap::new(),
            store: None,
        };
        let mut voters = Vec::new();
        for (voter, at) in &self.voters {
            let address = if *voter == id {
                at.peer
            } else {
                let proxy = link(at.peer)?;
                let address = proxy.address();
                links.voters.insert(*voter, proxy);
                address
            };
            voters.push(format!("{voter}@{address}"));
        }
        let mut settings = vec![
            format!("controller.quorum.voters={}", voters.join(",")),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            "socket.request.max.bytes=16MiB".to_owned(),
            "fetch.max.bytes=16MiB".to_owned(),
            "wal.bytes=128MiB".to_owned(),
        ];
        settings.extend(GATEWAY_MEMORY.map(|(key, mib)| format!("{key}={mib}MiB")));
        if role == Role::Gateway {
            let proxy = link(addresses.kafka)?;
            settings.push(format!("advertised.listeners={}", proxy.address()));
            links.clients = Some(proxy);
        }
        let proxy = link(self.store.address())?;
        let environment = self.store.environment(proxy.address());
        links.store = Some(proxy);
        settings.push(format!("store.url={}", self.store.url()));
        // The last one counts.
        settings.extend(self.settings.iter().cloned());
        let node = Node::new(
            (id, role),
            &self.binary,
            self.dir.path(),
            (addresses, links),
            settings,
            environment,
        );
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Leaves data and logs where they are.
    pub(crate) fn keep(&mut self) -> &Path {
        self.keep = true;
        self.dir.path()
    }

    pub(crate) fn node(&mut self, id: u32) -> Result<&mut Node> {
        self.nodes.get_mut(&id).context("no such node")
    }

    /// The ids of the nodes with a role.
    pub(crate) fn ids(&self, role: Role) -> Vec<u32> {
        let of_role = self.nodes.values().filter(|node| node.role == role);
        of_role.map(|node| node.id).collect()
    }

    /// What clients are told to begin with.
    pub(crate) fn bootstrap(&self) -> String {
        let running = self.nodes.values().filter(|node| node.is_running());
        let links = running.filter_map(|node| node.links.clients.as_ref());
        let addresses: Vec<String> = links.map(|link| link.address().to_string()).collect();
        addresses.join(",")
    }

    /// Who leads the quorum.
    pub(crate) fn leader(&self) -> Result<u32> {
        for _ in 0..100 {
            for id in VOTERS {
                let leads = self.nodes[&id].metric("frazil_metadata_is_leader");
                if leads.is_ok_and(|leads| leads > 0.0) {
                    return Ok(id);
                }
            }
            std::thread::park_timeout(std::time::Duration::from_millis(100));
        }
        bail!("nobody leads the quorum")
    }

    /// The links between two voters, both ways.
    pub(crate) fn between(&self, one: u32, other: u32) -> Result<[&Proxy; 2]> {
        let link = |from: u32, to: u32| {
            let links = &self.nodes.get(&from)?.links;
            links.voters.get(&to)
        };
        let there = link(one, other).context("no link")?;
        Ok([there, link(other, one).context("no link")?])
    }

    /// All links that lead to a voter, and its own to the others.
    pub(crate) fn around(&self, voter: u32) -> Vec<&Proxy> {
        let to = self
            .nodes
            .values()
            .filter_map(|n| n.links.voters.get(&voter));
        let own = self
            .nodes
            .get(&voter)
            .map(|node| node.links.voters.values());
        to.chain(own.into_iter().flatten()).collect()
    }

    /// Notes how much memory the processes use.
    pub(crate) fn look_at_memory(&mut self) {
        self.nodes.values_mut().for_each(Node::look_at_memory);
    }

    /// The most memory that a node of a role has used, in MiB.
    pub(crate) fn peak_mib(&self, role: Role) -> f64 {
        let of_role = self.nodes.values().filter(|node| node.role == role);
        of_role.map(Node::peak_mib).fold(0.0, f64::max)
    }

    /// Ends all processes as an operator does; what went wrong.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ids: Vec<u32> = self.nodes.keys().copied().collect();
        // Each before those it needs to say goodbye to.
        ids.reverse();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) else {
                continue;
            };
            match node.terminate() {
                Ok(status) if status.success() => {}
                Ok(status) => problems.push(format!("{} ended with {status}", node.name())),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.nodes.clear();
        if self.keep {
            self.dir.disable_cleanup(true);
        }
    }
}
