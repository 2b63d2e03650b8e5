//! Processes with a link of its own between any two that talk, over a store that misbehaves when
//! told to.
//!
//! ```text
//!   clients ──► gateways ──► voters ◄──► voters
//!                   └──────► store ◄──── compactor
//! ```
//! Every arrow is a proxy. A node's configured voters win over those that the quorum tells, so each
//! node is given addresses of its own.

use std::collections::BTreeMap;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use frazil_proxy::{Proxy, Way};
use frazil_store::{Options, Store};
use tokio::runtime::Handle;

use crate::harness::{Harness, Place};
use crate::server::{PATIENCE, Server, free_address};

pub(crate) const VOTERS: usize = 3;
pub(crate) const GATEWAYS: usize = 2;
const NODES: usize = VOTERS + GATEWAYS + 1;

/// Where a gateway is when it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// What it uploads has not reached the store.
    BeforePut,
    /// Half of it has.
    HalfPut,
    /// It will reach the store when the gateway is gone.
    LatePut,
    /// It is in the store, and the gateway does not know.
    AfterPut,
    /// It is committed, and the clients do not know.
    BeforeAck,
}

pub(crate) struct Cluster {
    pub(crate) voters: Vec<Server>,
    pub(crate) gateways: Vec<Server>,
    pub(crate) compactor: Server,
    /// From clients to each gateway.
    pub(crate) clients: Vec<Proxy>,
    /// From node to voter, by ids from 1.
    pub(crate) quorum: BTreeMap<(usize, usize), Proxy>,
    /// From each node to the store, by ids from 1.
    pub(crate) storage: BTreeMap<usize, Proxy>,
    pub(crate) store: Store,
}

impl Cluster {
    /// Three voters, two gateways, a compactor that is in a hurry.
    pub(crate) async fn start() -> Self {
        let store = Store::start(Options::default()).await.unwrap();
        let runtime = Handle::current();
        let peers: Vec<_> = (0..NODES).map(|_| free_address()).collect();
        let (mut quorum, mut storage) = (BTreeMap::new(), BTreeMap::new());
        let mut begin = |id: usize, role: &str| {
            let mut voters = Vec::new();
            for voter in 1..=VOTERS {
                let mut address = peers[voter - 1];
                if voter != id {
                    let link = Proxy::start(address, &runtime).unwrap();
                    address = link.address();
                    quorum.insert((id, voter), link);
                }
                voters.push(format!("{voter}@{address}"));
            }
            let link = Proxy::start(store.address(), &runtime).unwrap();
            let mut settings = vec![
                format!("node.id={id}"),
                format!("roles={role}"),
                format!("peer.listen={}", peers[id - 1]),
                format!("controller.quorum.voters={}", voters.join(",")),
                "store.url=s3://faults/cluster".to_owned(),
                "collector.grace.ms=1000".to_owned(),
                "log.retention.check.interval.ms=500".to_owned(),
                // Records here are of 1970.
                "log.retention.ms=-1".to_owned(),
                // So that old ones come from the store.
                "cache.tail.bytes=64KiB".to_owned(),
                "cache.memory.bytes=64KiB".to_owned(),
            ];
            for (name, value) in store.settings() {
                let value = match name {
                    "aws_endpoint" => format!("http://{}", link.address()),
                    _ => value,
                };
                settings.push(format!("store.options.{name}={value}"));
            }
            storage.insert(id, link);
            Server::begin(settings)
        };
        let voters: Vec<_> = (1..=VOTERS).map(|id| begin(id, "metadata")).collect();
        let gateways: Vec<_> = (VOTERS + 1..NODES).map(|id| begin(id, "gateway")).collect();
        let compactor = begin(NODES, "compactor");
        let clients = gateways
            .iter()
            .map(|gateway| Proxy::start(gateway.kafka, &runtime).unwrap());
        let mut cluster = Self {
            clients: clients.collect(),
            voters,
            gateways,
            compactor,
            quorum,
            storage,
            store,
        };
        let nodes = cluster.voters.iter_mut().chain(&mut cluster.gateways);
        nodes.for_each(Server::wait_until_ready);
        cluster.compactor.wait_until_ready();
        cluster
    }

    /// Where clients find the gateways.
    pub(crate) fn places(&self) -> Vec<Place> {
        let links = (0..).zip(&self.clients);
        links
            .map(|(n, link)| Place::new(link.address(), n))
            .collect()
    }

    /// The id of the voter that leads.
    pub(crate) fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            let leads = |server: &Server| metric(server, "frazil_metadata_is_leader") > Some(0.0);
            if let Some(index) = self.voters.iter().position(leads) {
                return index + 1;
            }
            assert!(start.elapsed() < PATIENCE, "nobody leads the quorum");
            park_timeout(Duration::from_millis(20));
        }
    }

    /// The links to a voter, and its own to others.
    pub(crate) fn around(&self, voter: usize) -> impl Iterator<Item = &Proxy> {
        let links = self.quorum.iter();
        let ends = links.filter(move |((from, to), _)| *from == voter || *to == voter);
        ends.map(|(_, link)| link)
    }

    /// Loses a gateway with its disk, at this point of what it does for a client; an empty one
    /// takes its place.
    pub(crate) async fn lose(&mut self, gateway: usize, at: Point, harness: &Harness) {
        let (storage, clients) = (
            &self.storage[&(VOTERS + 1 + gateway)],
            &self.clients[gateway],
        );
        match at {
            Point::BeforePut | Point::LatePut => storage.hold(Way::Up),
            Point::AfterPut => storage.hold(Way::Down),
            Point::BeforeAck => clients.hold(Way::Down),
            Point::HalfPut => {
                let tripped = storage.trip(Way::Up, 700, frazil_proxy::Then::Hold);
                assert!(tripped.wait().await);
            }
        }
        if at != Point::HalfPut {
            // Until it is surely at that point, with everything that its clients have sent.
            park_timeout(Duration::from_millis(400));
        }
        self.gateways[gateway].kill();
        std::fs::remove_dir_all(self.gateways[gateway].data()).unwrap();
        if at != Point::LatePut {
            storage.reset();
        }
        clients.reset();
        storage.heal();
        clients.heal();
        harness.places()[gateway].reborn();
        self.gateways[gateway].revive();
    }
}

/// One sample of a node's metrics.
pub(crate) fn metric(server: &Server, name: &str) -> Option<f64> {
    let (_, body) = server.get("/metrics")?;
    body.lines().find_map(|line| {
        let (known, value) = line.rsplit_once(' ')?;
        (known == name).then(|| value.parse().ok())?
    })
}
