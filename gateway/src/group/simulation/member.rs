//! A member as clients behave, and as they sometimes do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::group::CommittedOffset;
use frazil_core::ports::Catalog;

use super::super::{Commit, GroupError, Groups, Join, Joined, Sync};
use super::world::{GROUP, Gateway, PARTITIONS, Seat, World};
use crate::placement;

const SESSION: Duration = Duration::from_secs(10);
/// How long a member has to come back when the group rebalances.
const REBALANCE: Duration = Duration::from_secs(15);
/// How long a request may be unanswered: rebalances, commands and their retries included.
const ANSWERED: Duration = Duration::from_secs(120);

/// Why a call to a coordinator came to nothing.
#[derive(Debug)]
enum Trouble {
    /// It said so.
    Said(GroupError),
    /// The connection broke, or nothing came for too long.
    Silence,
}

pub(super) struct Member {
    world: Arc<World>,
    n: u64,
    /// Even ones are static.
    instance: Option<String>,
    id: String,
    life: u64,
}

impl Member {
    pub(super) fn new(world: Arc<World>, n: u64) -> Self {
        Self {
            world,
            n,
            instance: n.is_multiple_of(2).then(|| format!("instance-{n}")),
            id: String::new(),
            life: 0,
        }
    }

    /// Joins and consumes, for ever.
    pub(super) async fn run(mut self) {
        let mut before: Option<(Seat, BTreeMap<i32, Offset>)> = None;
        loop {
            let Some((gateway, seat)) = self.enter().await else {
                tokio::time::sleep(Duration::from_millis(200 + self.world.below(800))).await;
                continue;
            };
            self.world.oracle.lock().seats.insert(self.n, seat.clone());
            if let Some((old, positions)) = before.take()
                && old.generation < seat.generation
            {
                // A request of the generation before arrives now.
                let commit = self.commit(&old, &positions);
                let late = gateway.groups.commit(GROUP, commit).await;
                assert!(late.is_err(), "{old:?} committed in {seat:?}");
            }
            let positions = self.consume(&gateway, &seat).await;
            before = positions.map(|positions| (seat, positions));
            self.world.oracle.lock().seats.remove(&self.n);
        }
    }

    async fn enter(&mut self) -> Option<(Arc<Gateway>, Seat)> {
        let gateway = coordinator(&self.world)?;
        let joined = match ask(&self.world, &gateway, |groups| {
            let join = self.join();
            async move { groups.join(GROUP, join).await }
        })
        .await
        {
            Ok(joined) => joined,
            Err(trouble) => {
                self.learn(&trouble);
                return None;
            }
        };
        self.id = joined.member_id.clone();
        let synced = ask(&self.world, &gateway, |groups| {
            let sync = self.sync(&joined);
            async move { groups.sync(GROUP, sync).await }
        })
        .await;
        match synced {
            Ok(synced) => {
                let seat = Seat {
                    member_id: joined.member_id,
                    generation: joined.generation,
                    partitions: synced.assignment.iter().map(|p| i32::from(*p)).collect(),
                };
                let who = self.instance.clone().unwrap_or_else(|| self.id.clone());
                self.world.oracle.lock().seated(&who, &seat);
                Some((gateway, seat))
            }
            Err(trouble) => {
                self.learn(&trouble);
                None
            }
        }
    }

    fn join(&self) -> Join {
        Join {
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            client_id: format!("client-{}", self.n),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION.as_millis() as i32,
            rebalance_timeout_ms: REBALANCE.as_millis() as i32,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"))],
            id_required: self.n == 1,
            can_skip_assignment: true,
            fresh: String::new(),
        }
    }

    /// The leader deals the partitions out.
    fn sync(&self, joined: &Joined) -> Sync {
        let count = joined.members.len().max(1);
        let dealt =
            |at: usize| (0..PARTITIONS as u8).filter(move |p| usize::from(*p) % count == at);
        let members = joined.members.iter().enumerate();
        Sync {
            member_id: joined.member_id.clone(),
            instance_id: self.instance.clone(),
            generation: joined.generation,
            protocol_type: None,
            protocol: None,
            assignments: members
                .map(|(at, m)| (m.member_id.clone(), dealt(at).collect::<Vec<u8>>().into()))
                .collect(),
        }
    }

    fn learn(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Said(GroupError::MemberIdRequired(id)) => self.id = id.clone(),
            Trouble::Said(GroupError::UnknownMember | GroupError::FencedInstance) => {
                self.id.clear();
            }
            Trouble::Said(
                GroupError::RebalanceInProgress
                | GroupError::IllegalGeneration
                | GroupError::NotCoordinator
                | GroupError::Unavailable,
            )
            | Trouble::Silence => {}
            Trouble::Said(other) => panic!("{other}"),
        }
    }

    fn commit(&self, seat: &Seat, positions: &BTreeMap<i32, Offset>) -> Commit {
        let committed = |offset| CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed_ms: 0,
        };
        Commit {
            member_id: seat.member_id.clone(),
            instance_id: self.instance.clone(),
            generation: seat.generation,
            offsets: positions
                .iter()
                .map(|(p, offset)| (self.world.partition(*p), committed(*offset)))
                .collect(),
        }
    }

    /// Consumes until something ends the place in the group. Answers how far it was, if it goes on
    /// as the same member.
    async fn consume(&mut self, gateway: &Gateway, seat: &Seat) -> Option<BTreeMap<i32, Offset>> {
        let world = Arc::clone(&self.world);
        let mut positions = match fetch(&world, gateway).await {
            Ok(committed) => seat
                .partitions
                .iter()
                .map(|p| (*p, committed.get(p).copied().unwrap_or_default()))
                .collect(),
            Err(trouble) => {
                self.learn(&trouble);
                return None;
            }
        };
        loop {
            tokio::time::sleep(SESSION / 4).await;
            let beat = ask(&world, gateway, |groups| {
                let (id, instance) = (seat.member_id.clone(), self.instance.clone());
                let generation = seat.generation;
                async move { groups.heartbeat(GROUP, id, instance, generation).await }
            });
            if let Err(trouble) = beat.await {
                self.learn(&trouble);
                return Some(positions);
            }
            if world.chance(40) {
                for offset in positions.values_mut() {
                    *offset = *offset + (1 + world.below(9)) as u32;
                }
                let commit = ask(&world, gateway, |groups| {
                    let commit = self.commit(seat, &positions);
                    async move { groups.commit(GROUP, commit).await }
                });
                match commit.await {
                    Ok(()) => world.oracle.lock().acknowledged(&positions),
                    // What became of it is unknown or bad. A client begins at what is committed.
                    Err(trouble) => {
                        self.learn(&trouble);
                        return Some(positions);
                    }
                }
            }
            if !world.is_rough() {
                continue;
            }
            match world.below(60) {
                0 => {
                    let leaving = (seat.member_id.clone(), self.instance.clone());
                    let left = ask(&world, gateway, |groups| async move {
                        groups.leave(GROUP, vec![leaving]).await
                    });
                    drop(left.await);
                    self.restart().await;
                    return None;
                }
                1 => {
                    self.restart().await;
                    return None;
                }
                // It stands still for too long, and goes on as if nothing had happened.
                2 => tokio::time::sleep(SESSION.mul_f64(1.5)).await,
                _ => {}
            }
        }
    }

    /// The process ends, and is started again after a while.
    async fn restart(&mut self) {
        self.id.clear();
        self.life += 1;
        self.world.oracle.lock().seats.remove(&self.n);
        let pause = Duration::from_millis(self.world.below(20_000));
        tokio::time::sleep(pause).await;
    }
}

/// The coordinator, as some gateway sees it.
fn coordinator(world: &World) -> Option<Arc<Gateway>> {
    let gateways = world.gateways();
    let asked = &gateways[world.below(gateways.len() as u64) as usize];
    if !asked.node.runs() {
        return None;
    }
    let brokers = asked.node.client().brokers();
    let id = placement::coordinator(&brokers, GROUP)?.id;
    gateways.into_iter().find(|gateway| gateway.id == id)
}

/// Asks a coordinator as over a network: a process that is stopped neither hears nor answers.
async fn ask<T, F>(
    world: &World,
    gateway: &Gateway,
    request: impl FnOnce(Groups) -> F,
) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, GroupError>>,
{
    let disturbances = || world.disturbances.load(Ordering::Relaxed);
    let before = disturbances();
    let answer = async {
        gateway.node.running().await;
        let answer = request(gateway.groups.clone()).await;
        gateway.node.running().await;
        answer
    };
    tokio::select! {
        answer = tokio::time::timeout(ANSWERED, answer) => match answer {
            Ok(answer) => answer.map_err(Trouble::Said),
            Err(_) => {
                let quiet = gateway.node.runs() && disturbances() == before;
                assert!(!quiet, "a coordinator that runs does not answer");
                Err(Trouble::Silence)
            }
        },
        () = gateway.dead.cancelled() => Err(Trouble::Silence),
    }
}

/// The committed offsets, which must be at least those that were acknowledged before.
async fn fetch(world: &World, gateway: &Gateway) -> Result<BTreeMap<i32, Offset>, Trouble> {
    let acked = world.oracle.lock().acked();
    let found = ask(world, gateway, |groups| async move {
        groups.offsets(GROUP).await
    });
    let found: BTreeMap<i32, Offset> = found
        .await?
        .into_iter()
        .map(|(partition, committed)| (partition.partition, committed.offset))
        .collect();
    for (partition, offset) in acked {
        let is = found.get(&partition).copied();
        assert!(
            is >= Some(offset),
            "{partition}: {offset} was acknowledged, {is:?} is read"
        );
    }
    Ok(found)
}

/// Reads committed offsets through whoever answers, for ever.
pub(super) async fn audit(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(world.below(2_000))).await;
        let all = world.gateways();
        let reads = all.iter().filter(|gateway| gateway.node.runs());
        futures_util::future::join_all(reads.map(|gateway| fetch(&world, gateway))).await;
    }
}
