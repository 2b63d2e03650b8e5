//! A gateway as the cold path sees it: puts segments, commits them, and vanishes.
//!
//! It keeps the contract of [`Sequencer`], as the data plane does: a segment is named before its
//! first PUT, is committed when it is durable, and nothing but that is told to the quorum. Some
//! batches are committed in its write-ahead log first, and move to a later segment; some are sent
//! again.

use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::ports::{
    Append, BatchInfo, Commit, LogIndex, Move, ProducerBatch, SegmentInfo, Sequencer,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, PortError, ProducerEpoch, ProducerId, SegmentId, TopicId,
    TopicPartition,
};
use frazil_metadata::Registration;
use frazil_metadata::simulated::Node;
use object_store::{ObjectStore, PutMode, PutPayload};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::bucket::Segments;
use super::{LEASE, PARTITIONS, World, content};
use crate::reclaim::object;
use crate::simulated::Bucket;

pub(super) struct Gateway {
    node: Arc<Node>,
    task: JoinHandle<()>,
    /// What its disk remembers.
    id: Arc<Mutex<Option<BrokerId>>>,
    leaving: Arc<tokio::sync::Notify>,
}

impl Gateway {
    pub(super) fn start(world: &Arc<World>, other: TopicId, id: Option<BrokerId>) -> Self {
        let node = world.node();
        let id = Arc::new(Mutex::new(id));
        let leaving = Arc::new(tokio::sync::Notify::new());
        let life = Life {
            world: Arc::clone(world),
            other,
            store: world.store(&node),
            node: Arc::clone(&node),
            id: Arc::clone(&id),
            leaving: Arc::clone(&leaving),
            broker: BrokerId(0),
            epoch: BrokerEpoch(0),
            next: 0,
            wal: 0,
            producer: None,
            sent: None,
        };
        Self {
            node,
            task: tokio::spawn(life.run()),
            id,
            leaving,
        }
    }

    pub(super) fn pause(&self) {
        self.node.pause();
    }

    pub(super) fn resume(&self) {
        self.node.resume();
    }

    /// The process ends at once; what it has sent goes on its way. Answers what its disk remembers.
    pub(super) async fn kill(&mut self) -> Option<BrokerId> {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        *self.id.lock()
    }

    /// The process moves what is in its log, and ends.
    pub(super) async fn leave(self) {
        self.leaving.notify_one();
        let ended = tokio::time::timeout(Duration::from_secs(120), self.task).await;
        ended.expect("it ends").expect("it ends well");
    }
}

struct Life {
    world: Arc<World>,
    other: TopicId,
    store: Bucket<Segments>,
    node: Arc<Node>,
    id: Arc<Mutex<Option<BrokerId>>>,
    leaving: Arc<tokio::sync::Notify>,
    broker: BrokerId,
    epoch: BrokerEpoch,
    /// The number of the next segment.
    next: u64,
    /// The next position in the write-ahead log.
    wal: u64,
    producer: Option<(ProducerId, i32)>,
    /// The last batch of the producer, to be sent again.
    sent: Option<(TopicPartition, BatchInfo)>,
}

/// It was superseded, or given up.
struct Fenced;

impl Life {
    async fn run(mut self) {
        self.register().await;
        let node = Arc::clone(&self.node);
        let heartbeats = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                if let Err(PortError::Fenced(_)) = node.client().heartbeat(LEASE).await {
                    return;
                }
            }
        };
        let leaving = Arc::clone(&self.leaving);
        tokio::select! {
            () = heartbeats => return,
            Fenced = self.work() => return,
            () = leaving.notified() => {}
        }
        // A commit that was under way is settled by the next one.
        while let Ok(true) = self.moves().await {}
        drop(self.node.client().leave().await);
    }

    async fn register(&mut self) {
        let incarnation = self.world.random.uuid();
        loop {
            let registration = Registration {
                id: *self.id.lock(),
                incarnation,
                host: "gateway".to_owned(),
                port: 9092,
                rack: None,
                peer: String::new(),
                lease: LEASE,
            };
            if let Ok((id, epoch)) = self.node.client().register(registration).await {
                (self.broker, self.epoch) = (id, epoch);
                *self.id.lock() = Some(id);
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn work(&mut self) -> Fenced {
        loop {
            // What a log of an earlier life holds goes first.
            let done = match self.moves().await {
                Ok(_) => self.flush().await,
                Err(fenced) => return fenced,
            };
            if done.is_err() {
                return Fenced;
            }
            let pause = Duration::from_millis(500 + self.world.below(8_000));
            tokio::time::sleep(pause).await;
            self.node.running().await;
        }
    }

    fn batch(&mut self) -> BatchInfo {
        let world = &self.world;
        let records = 1 + world.below(3) as u32;
        let producer = self.producer.as_mut().filter(|_| world.chance(50));
        let producer = producer.map(|(id, sequence)| {
            let base_sequence = *sequence;
            *sequence += records as i32;
            ProducerBatch {
                id: *id,
                epoch: ProducerEpoch(0),
                base_sequence,
            }
        });
        BatchInfo {
            length: 20 + world.below(60) as u32,
            records,
            max_timestamp: world.quorum.now_ms() - world.below(5_000) as i64,
            producer,
        }
    }

    /// Puts one to three segments at once, and commits them one after the other.
    async fn flush(&mut self) -> Result<(), Fenced> {
        let count = 1 + self.world.below(3);
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push((self.next, self.appends(self.next)));
            self.next += 1;
        }
        let sizes = segments
            .iter()
            .map(|(number, appends)| (*number, length(appends)));
        futures_util::future::join_all(sizes.map(|(number, size)| self.put(number, size))).await;
        for (number, appends) in segments {
            let info = SegmentInfo {
                id: SegmentId::new(self.epoch, number),
                bytes: u64::from(length(&appends)),
            };
            let in_wal = self.in_wal();
            let commit = Commit {
                segments: vec![info],
                appends: appends.into_iter().chain(in_wal).collect(),
                // Those behind it are under way, or not begun.
                ..self.empty(number + 1)
            };
            self.commit(commit).await?;
        }
        Ok(())
    }

    fn empty(&self, sealed_below: u64) -> Commit {
        Commit {
            broker: self.broker,
            epoch: self.epoch,
            sealed_below,
            segments: Vec::new(),
            appends: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// Batches of some partitions, back to back in a segment.
    fn appends(&mut self, number: u64) -> Vec<Append> {
        let mut start = 0;
        let mut appends = Vec::new();
        for _ in 0..1 + self.world.below(3) {
            let (partition, batch) = match self.sent.take() {
                Some(again) if self.world.chance(50) => again,
                _ => {
                    // One producer, one partition.
                    let mut partition = self.world.some_partition();
                    if self.world.chance(10) {
                        partition.topic = self.other;
                    }
                    let batch = self.batch();
                    if batch.producer.is_some() {
                        partition =
                            TopicPartition::new(self.world.topic, self.broker.0 % PARTITIONS);
                        self.sent = Some((partition, batch));
                    }
                    (partition, batch)
                }
            };
            let location = Location::Segment {
                id: SegmentId::new(self.epoch, number),
                start,
                length: batch.length,
            };
            start += batch.length;
            appends.push(Append {
                partition,
                location,
                batches: vec![batch],
            });
        }
        appends
    }

    /// A batch that is in the write-ahead log only.
    fn in_wal(&mut self) -> Option<Append> {
        if !self.world.chance(30) {
            return None;
        }
        let batch = BatchInfo {
            producer: None,
            ..self.batch()
        };
        let start = self.wal + 64;
        self.wal = start + u64::from(batch.length);
        Some(Append {
            partition: self.world.some_partition(),
            location: Location::Wal {
                broker: self.broker,
                epoch: self.epoch,
                start,
                length: batch.length,
            },
            batches: vec![batch],
        })
    }

    /// Moves what the state expects in this gateway's log. Whether there was anything.
    async fn moves(&mut self) -> Result<bool, Fenced> {
        while self.node.client().barrier().await.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if self.producer.is_none()
            && let Ok(id) = frazil_core::ports::Catalog::new_producer_id(self.node.client()).await
        {
            self.producer = Some((id, 0));
        }
        let held = self.node.client().wal_extents(self.broker);
        if held.is_empty() {
            return Ok(false);
        }
        let number = self.next;
        self.next += 1;
        let id = SegmentId::new(self.epoch, number);
        let mut start = 0;
        let mut moves = Vec::new();
        for (partition, extent) in held {
            let length = extent.location.length();
            moves.push(Move {
                partition,
                base: extent.base,
                end: extent.end,
                to: Location::Segment { id, start, length },
            });
            start += length;
        }
        self.put(number, start).await;
        let bytes = u64::from(start);
        let commit = Commit {
            segments: vec![SegmentInfo { id, bytes }],
            moves,
            ..self.empty(number + 1)
        };
        self.commit(commit).await?;
        Ok(true)
    }

    /// Until it is certainly there: "already exists" is this one, which has no other content.
    async fn put(&self, number: u64, size: u32) {
        let id = SegmentId::new(self.epoch, number);
        let path = object(&self.world.prefix, id);
        loop {
            let payload = PutPayload::from(content(id, size as usize));
            let put = self.store.put_opts(&path, payload, PutMode::Create.into());
            match put.await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// A commit whose outcome is unknown is settled by an empty one behind it.
    async fn commit(&self, commit: Commit) -> Result<(), Fenced> {
        let fence = self.empty(commit.sealed_below);
        let mut next = commit;
        loop {
            match self.node.client().commit(next.clone()).await {
                Ok(_) => return Ok(()),
                Err(PortError::Fenced(_)) => return Err(Fenced),
                Err(PortError::Impossible(why)) => panic!("{why}: {next:?}"),
                Err(PortError::Unavailable(_)) => {}
                Err(PortError::Indeterminate(_)) => next = fence.clone(),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn length(appends: &[Append]) -> u32 {
    appends.iter().map(|append| append.location.length()).sum()
}
