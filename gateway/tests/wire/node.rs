//! One gateway in this process, over the real state machine and a store in memory, and a client
//! that speaks the protocol through another codec.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use frazil_cache::Cache;
use frazil_core::env::testing::{ManualClock, MemDisk, SeededIds};
use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::*;
use frazil_core::{
    BrokerEpoch, BrokerId, Extent, Offset, PortError, PortResult, ProducerId, Topic, TopicId,
    TopicName, TopicPartition,
};
use frazil_gateway::{Config, Ctx, Metrics, Parts, Server};
use frazil_metadata::command::{Command, Envelope, Outcome};
use frazil_metadata::state::State;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The broker's clock, milliseconds since the epoch.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// The quorum: the state machine behind a mutex. Reads can be frozen, as those of an image that
/// lags behind; a barrier thaws them.
pub(crate) struct Quorum {
    state: Mutex<State>,
    frozen: Mutex<Option<State>>,
    index: AtomicU64,
    changes: watch::Sender<u64>,
    /// While set, barriers fail.
    pub(crate) unavailable: AtomicBool,
    /// How many barriers there were.
    pub(crate) barriers: AtomicU64,
    /// Applied just before extents are next located: after whoever asks has looked at the bounds.
    pub(crate) before_locate: Mutex<Option<Command>>,
    /// The bounds of every log, as an old image has them, until extents are next located.
    pub(crate) old_bounds: Mutex<Option<Bounds>>,
}

impl Quorum {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new()),
            frozen: Mutex::new(None),
            index: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            unavailable: AtomicBool::new(false),
            barriers: AtomicU64::new(0),
            before_locate: Mutex::new(None),
            old_bounds: Mutex::new(None),
        })
    }

    /// What is read from now on is what is there now, until a barrier.
    pub(crate) fn freeze(&self) {
        *self.frozen.lock() = Some(self.state.lock().clone());
    }

    pub(crate) fn apply(&self, command: Command) -> Outcome {
        let index = self.index.fetch_add(1, Ordering::SeqCst) + 1;
        let envelope = Envelope {
            client: Uuid::nil(),
            request: index,
            done_below: 0,
            time_ms: NOW_MS,
            command,
        };
        let (outcome, _) = self.state.lock().apply(index, &envelope);
        self.changes.send_replace(index);
        outcome
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        match &*self.frozen.lock() {
            Some(frozen) => read(frozen),
            None => read(&self.state.lock()),
        }
    }
}

struct AnyChange(watch::Receiver<u64>);

#[async_trait]
impl Watch for AnyChange {
    async fn changed(&mut self) {
        self.0
            .changed()
            .await
            .expect("the quorum outlives its watches");
    }
}

#[async_trait]
impl Sequencer for Quorum {
    async fn commit(&self, commit: Commit) -> PortResult<CommitOutcome> {
        match self.apply(Command::Commit(commit)) {
            Outcome::Committed(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }
}

#[async_trait]
impl LogIndex for Quorum {
    fn bounds(&self, partition: &TopicPartition) -> Option<Bounds> {
        let old = *self.old_bounds.lock();
        old.or_else(|| self.read(|state| state.bounds(partition)))
    }

    fn locate(&self, partition: &TopicPartition, from: Offset, max_bytes: u64) -> Located {
        *self.old_bounds.lock() = None;
        let command = self.before_locate.lock().take();
        if let Some(command) = command {
            self.apply(command);
        }
        self.read(|state| state.locate(partition, from, max_bytes))
    }

    fn locate_time(&self, partition: &TopicPartition, from: Offset, time: i64) -> Option<Place> {
        self.read(|state| state.locate_time(partition, from, time))
    }

    fn locate_max_timestamp(&self, partition: &TopicPartition) -> Option<Place> {
        self.read(|state| state.locate_max_timestamp(partition))
    }

    fn size_bytes(&self, partition: &TopicPartition) -> u64 {
        self.read(|state| state.size_bytes(partition))
    }

    fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)> {
        self.read(|state| state.wal_extents(broker))
    }

    fn watch(&self, _: &[TopicPartition]) -> Box<dyn Watch> {
        Box::new(AnyChange(self.changes.subscribe()))
    }

    async fn barrier(&self) -> PortResult<()> {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable("as the test wants it".into()));
        }
        *self.frozen.lock() = None;
        Ok(())
    }
}

#[async_trait]
impl Catalog for Quorum {
    fn cluster_id(&self) -> String {
        "test-cluster".into()
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read(|state| state.topic(name))
    }

    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read(|state| state.topic_by_id(id))
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.read(State::topics)
    }

    fn brokers(&self) -> Vec<Broker> {
        self.read(State::brokers)
    }

    fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String> {
        self.read(|state| state.broker_config(broker))
    }

    fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogRefusal> {
        self.read(|state| state.check_new_topic(topic))
    }

    async fn create_topic(
        &self,
        topic: NewTopic,
    ) -> PortResult<Result<Arc<Topic>, CatalogRefusal>> {
        match self.apply(Command::CreateTopic(topic)) {
            Outcome::TopicCreated(outcome) => Ok(outcome.map(Arc::new)),
            other => panic!("{other:?}"),
        }
    }

    async fn delete_topic(&self, id: TopicId) -> PortResult<Result<(), CatalogRefusal>> {
        match self.apply(Command::DeleteTopic { id }) {
            Outcome::Catalog(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    async fn create_partitions(
        &self,
        _: TopicId,
        _: i32,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        Err(unused())
    }

    async fn alter_config(
        &self,
        _: ConfigTarget,
        _: Vec<(String, Option<String>)>,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        Err(unused())
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        to: Option<Offset>,
    ) -> PortResult<Result<Offset, CatalogRefusal>> {
        match self.apply(Command::DeleteRecords { partition, to }) {
            Outcome::RecordsDeleted(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    async fn new_producer_id(&self) -> PortResult<ProducerId> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable("as the test wants it".into()));
        }
        match self.apply(Command::AllocateProducerIds { count: 1 }) {
            Outcome::ProducerIds { first } => Ok(first),
            other => panic!("{other:?}"),
        }
    }
}

fn unused() -> PortError {
    PortError::Unavailable("these tests change no such thing".into())
}

#[async_trait]
impl GroupStore for Quorum {
    fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)> {
        self.read(|state| state.group(group))
    }

    fn groups(&self, broker: Option<BrokerId>) -> Vec<String> {
        self.read(|state| state.groups(broker))
    }

    fn offsets(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.read(|state| state.offsets(group))
    }

    fn offset(&self, group: &str, partition: &TopicPartition) -> Option<CommittedOffset> {
        self.read(|state| state.offset(group, partition))
    }

    async fn claim(&self, _: &str) -> PortResult<(Coordinator, Group)> {
        Err(unused())
    }

    async fn save(&self, _: &GroupClaim, _: Group) -> PortResult<Result<(), GroupRefusal>> {
        Err(unused())
    }

    async fn commit_offsets(
        &self,
        _: &GroupClaim,
        _: Option<(i32, String)>,
        _: Vec<(TopicPartition, CommittedOffset)>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        Err(unused())
    }

    async fn delete_offsets(
        &self,
        _: &GroupClaim,
        _: Vec<TopicPartition>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        Err(unused())
    }

    async fn delete_group(&self, _: &GroupClaim) -> PortResult<Result<(), GroupRefusal>> {
        Err(unused())
    }
}

/// A running gateway.
pub(crate) struct Node {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) cache: Cache,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default(), Arc::new(InMemory::new())).await
    }

    pub(crate) async fn start_with(config: Config, store: Arc<dyn ObjectStore>) -> Self {
        let quorum = Quorum::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registered = quorum.apply(Command::RegisterBroker {
            id: None,
            incarnation: Uuid::from_u128(1),
            host: address.ip().to_string(),
            port: address.port(),
            rack: None,
            peer: "127.0.0.1:1".into(),
            lease_ms: u32::MAX,
            knows: None,
        });
        let Outcome::Registered { id: broker, epoch } = registered else {
            panic!("{registered:?}");
        };
        let ids = Arc::new(SeededIds::new(1));
        let (cache, service) = Cache::start(
            frazil_cache::Config::local(),
            frazil_cache::Parts {
                broker,
                epoch: BrokerEpoch(epoch.0),
                cluster: "test-cluster".into(),
                store,
                retries: frazil_cache::Retries::new(Arc::clone(&ids) as _, Default::default()),
                prefix: object_store::path::Path::from("test-cluster"),
                sequencer: Arc::clone(&quorum) as _,
                index: Arc::clone(&quorum) as _,
                neighbours: None,
                disk: Arc::new(MemDisk::new()),
                ids: Arc::clone(&ids) as _,
                metrics: frazil_cache::Metrics::default(),
            },
        )
        .await
        .unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(service.run(CancellationToken::new()));
        let ctx = Ctx::new(
            Parts {
                broker,
                log: Arc::clone(&quorum) as _,
                catalog: Arc::clone(&quorum) as _,
                group_store: Arc::clone(&quorum) as _,
                cache: cache.clone(),
                clock: Arc::new(ManualClock::new(NOW_MS)),
                ids,
            },
            config,
            Metrics::register(&mut Default::default()),
        );
        let server = Server::new(Arc::new(ctx), listener);
        let server = tokio::spawn(server.run(shutdown.clone()));
        Self {
            quorum,
            cache,
            address,
            shutdown,
            server,
        }
    }

    /// Creates a topic and answers its id.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> TopicId {
        let outcome = self.quorum.apply(Command::CreateTopic(NewTopic {
            id: TopicId::new(Uuid::from_u128(
                name.bytes()
                    .fold(77, |id, byte| id * 257 + u128::from(byte)),
            )),
            name: TopicName::new(name).unwrap(),
            partitions,
            replication_factor: 1,
            config: config
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        }));
        match outcome {
            Outcome::TopicCreated(Ok(topic)) => topic.id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.unwrap(),
            correlation_id: 0,
        }
    }
}

/// A connection of a client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Sends a request and answers its correlation id.
    pub(crate) async fn send<Q: Request>(&mut self, request: &Q, version: i16) -> i32 {
        self.correlation_id += 1;
        let key = ApiKey::try_from(Q::KEY).unwrap();
        let mut body = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut body, key.request_header_version(version))
            .unwrap();
        request.encode(&mut body, version).unwrap();
        self.send_frame(&body).await;
        self.correlation_id
    }

    pub(crate) async fn send_frame(&mut self, body: &[u8]) {
        let mut frame = (body.len() as i32).to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next response frame; `None`: the connection was closed.
    pub(crate) async fn receive_frame(&mut self) -> Option<Bytes> {
        let length = match self.stream.read_i32().await {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}"),
        };
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.unwrap();
        Some(body.into())
    }

    /// The next response, with its correlation id.
    pub(crate) async fn receive<R: Decodable + HeaderVersion>(&mut self, version: i16) -> (i32, R) {
        let mut body = self.receive_frame().await.expect("a response");
        let header = ResponseHeader::decode(&mut body, R::header_version(version)).unwrap();
        let response = R::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} bytes behind the response", body.len());
        (header.correlation_id, response)
    }

    pub(crate) async fn call<Q: Request>(&mut self, request: &Q, version: i16) -> Q::Response {
        let sent = self.send(request, version).await;
        let (answered, response) = self.receive::<Q::Response>(version).await;
        assert_eq!(sent, answered);
        response
    }
}
