//! The coordinators, the quorum, and what the oracle knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{Catalog, NewTopic};
use frazil_core::{BrokerId, Offset, TopicId, TopicName, TopicPartition};
use frazil_metadata::command::{Command, Outcome};
use frazil_metadata::simulated::{Node, Quorum, Weather};
use frazil_metadata::{ClientConfig, Registration};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Config, Groups};

pub(super) const GROUP: &str = "group";
pub(super) const GATEWAYS: u64 = 3;
pub(super) const MEMBERS: u64 = 4;
pub(super) const PARTITIONS: i32 = 5;
const LEASE: Duration = Duration::from_secs(10);

/// A place in a generation, as a member sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) member_id: String,
    pub(super) generation: i32,
    pub(super) partitions: Vec<i32>,
}

/// What was told to members, and what the state did.
#[derive(Default)]
pub(super) struct Oracle {
    /// The last offset committed in the state.
    committed: BTreeMap<i32, Offset>,
    /// The largest offset whose commit was acknowledged.
    acked: BTreeMap<i32, Offset>,
    owners: BTreeMap<(i32, i32), String>,
    pub(super) seats: BTreeMap<u64, Seat>,
    pub(super) acknowledged: u64,
}

impl Oracle {
    /// A commit of offsets was acknowledged.
    pub(super) fn acknowledged(&mut self, offsets: &BTreeMap<i32, Offset>) {
        self.acknowledged += 1;
        for (partition, offset) in offsets {
            let known = self.acked.entry(*partition).or_default();
            *known = (*known).max(*offset);
        }
    }

    /// What whoever asks from now on must find at least.
    pub(super) fn acked(&self) -> BTreeMap<i32, Offset> {
        self.acked.clone()
    }

    /// A member was given its assignment.
    pub(super) fn seated(&mut self, who: &str, seat: &Seat) {
        for partition in &seat.partitions {
            let owner = self
                .owners
                .entry((seat.generation, *partition))
                .or_insert_with(|| who.to_owned());
            assert_eq!(owner, who, "two owners of {partition} in {seat:?}");
        }
    }
}

/// A coordinator's process.
pub(super) struct Gateway {
    pub(super) id: BrokerId,
    pub(super) node: Arc<Node>,
    pub(super) groups: Groups,
    /// Nobody has an answer of it any more.
    pub(super) dead: CancellationToken,
    tasks: [AbortHandle; 2],
}

impl Gateway {
    pub(super) fn pause(&self) {
        self.node.pause();
    }
}

pub(super) struct World {
    pub(super) quorum: Quorum,
    pub(super) random: SeededIds,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    gateways: Mutex<Vec<Arc<Gateway>>>,
    topic: TopicId,
    config: ClientConfig,
    rough: std::sync::atomic::AtomicBool,
    /// Grows with every pause and death: a call during one may have no answer.
    pub(super) disturbances: std::sync::atomic::AtomicU64,
}

impl World {
    pub(super) async fn new(seed: u64) -> Arc<Self> {
        let random = SeededIds::new(seed);
        let quorum = Quorum::new(random.random());
        let oracle = Arc::new(Mutex::new(Oracle::default()));
        quorum.watch({
            let oracle = Arc::clone(&oracle);
            move |(state, envelope, outcome)| {
                if let (Command::CommitOffsets { member, .. }, Outcome::Group(Ok(()))) =
                    (&envelope.command, outcome)
                {
                    let mut oracle = oracle.lock();
                    for (partition, offset) in state.offsets(GROUP) {
                        let known = oracle.committed.entry(partition.partition).or_default();
                        let (at, was) = (offset.offset, *known);
                        assert!(at >= was, "{partition}: {was}, then {at} by {member:?}");
                        *known = at;
                    }
                }
            }
        });
        let patient = random.random().is_multiple_of(2);
        let world = Arc::new(Self {
            quorum,
            topic: TopicId::new(random.uuid()),
            config: ClientConfig {
                deadline: Duration::from_secs(if patient { 4 } else { 1 }),
                attempt: Duration::from_millis(700),
                ..ClientConfig::default()
            },
            random,
            oracle,
            gateways: Mutex::default(),
            rough: false.into(),
            disturbances: 0.into(),
        });
        let admin = world.node();
        let topic = NewTopic {
            id: world.topic,
            name: TopicName::new("t").expect("a name"),
            partitions: PARTITIONS,
            replication_factor: 1,
            config: BTreeMap::new(),
        };
        let created = admin.client().create_topic(topic).await;
        created.expect("calm").expect("a new topic");
        for _ in 0..GATEWAYS {
            let gateway = world.start(None).await;
            world.gateways.lock().push(gateway);
        }
        world
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.random() % bound
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn partition(&self, index: i32) -> TopicPartition {
        TopicPartition::new(self.topic, index)
    }

    /// Whether members misbehave.
    pub(super) fn is_rough(&self) -> bool {
        self.rough.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn set_rough(&self, rough: bool) {
        self.rough
            .store(rough, std::sync::atomic::Ordering::Relaxed);
    }

    fn disturb(&self) {
        self.disturbances
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn storm(&self) {
        self.set_rough(true);
        let ms = |most| Duration::from_millis(self.below(most));
        self.quorum.set(Weather {
            refused: self.below(10),
            lost: self.below(5),
            unanswered: self.below(10),
            late: self.below(8),
            repeated: self.below(15),
            elections: self.below(5),
            latency: ms(50),
            lag: ms(3_000),
            delay: Duration::from_secs(self.below(30)),
            skew: ms(1_000),
        });
    }

    pub(super) fn calm(&self) {
        self.set_rough(false);
        self.quorum.set(Weather::default());
    }

    fn node(&self) -> Arc<Node> {
        let config = self.config.clone();
        Arc::new(self.quorum.node(self.random.random(), config))
    }

    async fn start(&self, id: Option<BrokerId>) -> Arc<Gateway> {
        let node = self.node();
        let incarnation = self.random.uuid();
        let registration = || Registration {
            id,
            incarnation,
            host: "gateway".to_owned(),
            port: 9092,
            rack: None,
            peer: String::new(),
            lease: LEASE,
        };
        let id = loop {
            if let Ok((id, _)) = node.client().register(registration()).await {
                break id;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let client = Arc::new(node.client().clone());
        let config = Config {
            session_timeout_min: Duration::from_secs(1),
            ..Config::default()
        };
        let groups = Groups::new(
            id,
            Arc::clone(&client) as _,
            Arc::clone(&client) as _,
            Arc::clone(&client) as _,
            Arc::new(SeededIds::new(self.random.random())),
            config,
        );
        let heartbeats = async move {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                // Whoever was superseded hears it here, and is replaced by the test.
                drop(client.heartbeat(LEASE).await);
            }
        };
        let adoption = {
            let groups = groups.clone();
            async move { groups.run().await }
        };
        let tasks = [
            tokio::spawn(heartbeats).abort_handle(),
            tokio::spawn(adoption).abort_handle(),
        ];
        Arc::new(Gateway {
            id,
            node,
            groups,
            dead: CancellationToken::new(),
            tasks,
        })
    }

    pub(super) fn gateway(&self, which: usize) -> Arc<Gateway> {
        self.disturb();
        Arc::clone(&self.gateways.lock()[which])
    }

    pub(super) fn gateways(&self) -> Vec<Arc<Gateway>> {
        self.gateways.lock().clone()
    }

    pub(super) fn resume(&self) {
        self.gateways()
            .iter()
            .for_each(|gateway| gateway.node.resume());
    }

    /// A coordinator dies, and is started again, or another one in its place.
    pub(super) async fn replace(&self, which: usize) {
        let old = self.gateway(which);
        old.pause();
        old.dead.cancel();
        old.tasks.iter().for_each(AbortHandle::abort);
        let id = Some(old.id).filter(|_| self.chance(70));
        let new = self.start(id).await;
        self.gateways.lock()[which] = new;
        self.disturb();
    }

    pub(super) fn committed(&self) -> BTreeMap<i32, Offset> {
        self.oracle.lock().committed.clone()
    }

    pub(super) fn seats(&self) -> Vec<Seat> {
        self.oracle.lock().seats.values().cloned().collect()
    }
}
