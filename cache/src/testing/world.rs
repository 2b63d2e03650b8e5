//! A gateway's surroundings, and the gateway's data plane running in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::{BatchHeader, Codec};
use frazil_core::env::testing::{MemDisk, SeededIds};
use frazil_core::env::{Disk, Ids};
use frazil_core::ports::{Gateway, LogIndex};
use frazil_core::{BrokerEpoch, BrokerId, Offset, TopicPartition};
use frazil_objects::Retries;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{FakeQuorum, FaultyStore, Host, MemNet, batch, partition};
use crate::{
    AppendBatch, Cache, Compression, Config, Durability, Error, Metrics, Neighbours, Parts,
    Pending, ReadError, ReadRequest, WalConfig,
};

pub(crate) const BROKER: BrokerId = BrokerId(3);

pub(crate) struct World {
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) quorum: Arc<FakeQuorum>,
    pub(crate) disk: MemDisk,
    pub(crate) ids: Arc<SeededIds>,
    pub(crate) config: Config,
    pub(crate) cluster: &'static str,
    pub(crate) prefix: Path,
    pub(crate) net: Arc<MemNet>,
    /// The disks of gateways other than [`BROKER`].
    disks: Mutex<HashMap<BrokerId, MemDisk>>,
}

pub(crate) struct Running {
    pub(crate) cache: Cache,
    pub(crate) shutdown: CancellationToken,
    pub(crate) service: JoinHandle<Result<(), Error>>,
}

impl World {
    /// A world with partitions 0 to 3 and a local store.
    pub(crate) fn new(seed: u64) -> Self {
        let store = Arc::new(FaultyStore::new(seed));
        let prefix = Path::from("some/where");
        let objects: Arc<dyn ObjectStore> = store.objects.clone();
        let quorum = FakeQuorum::new(objects, prefix.clone(), (0..4).map(partition));
        Self {
            store,
            quorum: Arc::new(quorum),
            disk: MemDisk::new(),
            ids: Arc::new(SeededIds::new(seed ^ 0xF00D)),
            config: Config {
                wal: Some(WalConfig {
                    file_bytes: 64 * 1024,
                    ..WalConfig::new(wal_dir())
                }),
                ..Config::local()
            },
            cluster: "cluster",
            prefix,
            net: Arc::default(),
            disks: Mutex::default(),
        }
    }

    pub(crate) async fn try_start(&self) -> Result<Running, Error> {
        let epoch = self.quorum.register(BROKER);
        let disk = self.disk.clone();
        self.start_as(BROKER, epoch, disk, None).await
    }

    /// Starts a gateway that the others know, at [`address`].
    pub(crate) async fn start_gateway(&self, broker: BrokerId, zone: Option<&str>) -> Running {
        let neighbours = Neighbours {
            gateways: self.quorum.clone(),
            zone: zone.map(str::to_owned),
            dial: self.net.clone(),
        };
        let epoch = self.quorum.register(broker);
        let disk = match broker {
            BROKER => self.disk.clone(),
            _ => self.disks.lock().entry(broker).or_default().clone(),
        };
        let started = self.start_as(broker, epoch, disk, Some(neighbours)).await;
        let running = started.expect("the cache starts");
        let server = running.cache.peer_server();
        self.net.set(&address(broker), Host::Gateway(server));
        self.quorum.announce(Gateway {
            id: broker,
            epoch,
            zone: zone.map(str::to_owned),
            address: address(broker),
            live: true,
        });
        running
    }

    async fn start_as(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        disk: MemDisk,
        neighbours: Option<Neighbours>,
    ) -> Result<Running, Error> {
        let ids: Arc<dyn Ids> = self.ids.clone();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let parts = Parts {
            broker,
            epoch,
            cluster: self.cluster.into(),
            store: self.store.clone(),
            retries: Retries::new(ids.clone(), frazil_objects::Metrics::default()),
            prefix: self.prefix.clone(),
            sequencer: self.quorum.clone(),
            index: self.quorum.clone(),
            neighbours,
            disk,
            metrics: Metrics::default(),
            ids,
        };
        let (cache, service) = Cache::start(self.config.clone(), parts).await?;
        let shutdown = CancellationToken::new();
        Ok(Running {
            cache,
            service: tokio::spawn(service.run(shutdown.clone())),
            shutdown,
        })
    }

    pub(crate) async fn start(&self) -> Running {
        self.try_start().await.expect("the cache starts")
    }

    pub(crate) fn wal_files(&self) -> Vec<String> {
        self.disk.list(&wal_dir()).unwrap_or_default()
    }
}

/// Where other gateways reach one.
pub(crate) fn address(broker: BrokerId) -> String {
    format!("gateway-{broker}")
}

pub(crate) fn wal_dir() -> PathBuf {
    PathBuf::from("/data/wal")
}

impl Running {
    /// Appends a small batch.
    pub(crate) async fn append(&self, index: i32, durability: Durability) -> Pending {
        self.append_bytes(index, durability, batch(1, 100)).await
    }

    pub(crate) async fn append_bytes(
        &self,
        index: i32,
        durability: Durability,
        (info, bytes): (frazil_core::ports::BatchInfo, Bytes),
    ) -> Pending {
        let reservation = self.cache.reserve(bytes.len()).await.expect("room");
        let batch = AppendBatch {
            partition: partition(index),
            info,
            bytes,
            durability,
        };
        self.cache.append(batch, reservation)
    }

    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(3600), self.service);
        ended.await.expect("it ends").expect("it does not panic")
    }

    /// Kills the process.
    pub(crate) async fn kill(self) {
        self.service.abort();
        drop(self.service.await);
    }

    /// Everything in a partition: the base offset and the bytes of each batch, as consumers get
    /// them.
    pub(crate) async fn read_all(
        &self,
        quorum: &FakeQuorum,
        partition: TopicPartition,
        max_bytes: usize,
    ) -> Vec<(Offset, Bytes)> {
        let (batches, end) = self.read_some(quorum, partition, max_bytes).await;
        end.expect("it can be read");
        batches
    }

    /// As much of a partition as can be read now, and why it ended.
    pub(crate) async fn read_some(
        &self,
        quorum: &FakeQuorum,
        partition: TopicPartition,
        max_bytes: usize,
    ) -> (Vec<(Offset, Bytes)>, Result<(), ReadError>) {
        let mut batches = Vec::new();
        let mut from = Offset::ZERO;
        let up_to = quorum.bounds(&partition).expect("it exists").high_watermark;
        while from < up_to {
            let request = ReadRequest {
                partition,
                from,
                up_to,
                max_bytes,
                min_one: true,
                compression: Compression::As(Codec::Lz4),
            };
            let read = match self.cache.read(request).await {
                Ok(read) => read,
                Err(error) => return (batches, Err(error)),
            };
            assert!(read.next > from, "progress at {from}");
            let bytes = Bytes::from(read.pieces.concat());
            assert_eq!(bytes.len(), read.bytes);
            let mut at = 0;
            while at < bytes.len() {
                let header = BatchHeader::parse(&bytes[at..]).expect("a batch");
                header.check_crc(&bytes[at..]).expect("its bytes");
                assert_eq!(header.base_offset, from.0, "no gap, no overlap");
                let batch = bytes.slice(at..at + header.length as usize);
                batches.push((from, batch));
                from = from + header.offsets();
                at += header.length as usize;
            }
            assert_eq!(read.next, from);
        }
        (batches, Ok(()))
    }
}
