//! What a broker pays for each thing it keeps, and how it answers and starts with many of them.
//!
//! A group here has one member, which has joined, was assigned a partition and has committed an
//! offset on it. "Taken up again" is the time until every one of them is answered, in its
//! generation, by a broker that was killed and started again: none has to join anew. The same is
//! then asked of a fleet (three voters, two gateways), of which the leader of the quorum is killed,
//! and then the gateway that coordinates half of the groups.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiVersionsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    MetadataRequest, OffsetCommitRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::runtime::Runtime;

use crate::broker::{Broker, sibling};
use crate::faults::fleet::{Fleet, GATEWAY, Plan};
use crate::sheet::{Sheet, milliseconds};
use crate::wire::{Connection, allow_sockets};
use crate::workload;

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Partitions, in topics of 1 000
    #[arg(long, default_value_t = 50_000)]
    partitions: u32,
    /// Groups with one member each
    #[arg(long, default_value_t = 10_000)]
    groups: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Partitions of a topic.
const TOPIC: u32 = 1000;
/// How long the quorum may need for a new leader.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests on the way at a time.
const WORKERS: u32 = 64;

const MEMBER_ID_REQUIRED: i16 = 79;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const NOT_COORDINATOR: i16 = 16;

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = options.frazil.clone().map_or_else(sibling, Ok)?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    allow_sockets(u64::from(options.connections + WORKERS))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut sheet = Sheet::new(options.json);
    measure(&runtime, &binary, dir.path(), options, &mut sheet)?;
    failover(&runtime, &binary, dir.path(), options, &mut sheet)?;
    sheet.finish()
}

fn measure(
    runtime: &Runtime,
    binary: &Path,
    dir: &Path,
    options: &Options,
    sheet: &mut Sheet,
) -> Result<()> {
    let data = dir.join("scale");
    let settings = [
        format!("max.connections={}", options.connections + 1000),
        "group.initial.rebalance.delay.ms=0".to_owned(),
    ];
    let broker = Broker::with(binary, &data, &settings)?;
    let mut memory = Memory::of(&broker)?;
    sheet.add("RSS, nothing", memory.last, "MiB");

    let topics = options.partitions.div_ceil(TOPIC);
    let names: Vec<String> = (0..topics).map(|n| format!("scale-{n}")).collect();
    let start = Instant::now();
    workload::create_topics(broker.kafka, &names, TOPIC as i32, &[])?;
    sheet.add(
        format!("creating {} partitions", topics * TOPIC),
        start.elapsed().as_secs_f64(),
        "s",
    );
    memory.each(&broker, sheet, "partition", topics * TOPIC)?;

    let start = Instant::now();
    let groups = runtime.block_on(join_all(
        broker.kafka,
        &(0..options.groups).collect::<Vec<_>>(),
    ))?;
    sheet.add(
        format!("joining {} groups", options.groups),
        start.elapsed().as_secs_f64(),
        "s",
    );
    memory.each(
        &broker,
        sheet,
        "group with a member and an offset",
        options.groups,
    )?;

    let idle = runtime.block_on(connect(&broker, options.connections))?;
    memory.each(&broker, sheet, "idle connection", options.connections)?;
    runtime.block_on(answers(&broker, &names, sheet))?;
    drop(idle);
    sheet.add(
        "SIGTERM to exit, all of it",
        milliseconds(broker.stop()?),
        "ms",
    );
    let broker = Broker::with(binary, &data, &settings)?;
    sheet.add(
        "exec to ready, all of it",
        milliseconds(broker.ready_after),
        "ms",
    );
    sheet.add("RSS when ready", broker.rss_mib()?, "MiB");
    broker.kill()?;
    let killed = Instant::now();
    let broker = Broker::with(binary, &data, &settings)?;
    sheet.add(
        "exec to ready after kill -9",
        milliseconds(broker.ready_after),
        "ms",
    );
    let (first, all) = runtime.block_on(take_up(broker.kafka, &groups, killed))?;
    sheet.add(
        "kill -9 to the first group answered",
        milliseconds(first),
        "ms",
    );
    sheet.add(
        "kill -9 to every group taken up again",
        milliseconds(all),
        "ms",
    );
    sheet.add("RSS with all groups", broker.rss_mib()?, "MiB");
    broker.stop()?;
    Ok(())
}

/// Resident memory from step to step.
struct Memory {
    last: f64,
}

impl Memory {
    fn of(broker: &Broker) -> Result<Self> {
        Ok(Self {
            last: broker.rss_mib()?,
        })
    }

    fn each(&mut self, broker: &Broker, sheet: &mut Sheet, what: &str, count: u32) -> Result<()> {
        let now = broker.rss_mib()?;
        let each = (now - self.last) * 1024.0 / f64::from(count.max(1));
        sheet.add(format!("memory per {what} ({count})"), each, "KiB");
        self.last = now;
        Ok(())
    }
}

/// Connections that have asked for the versions, as every client does.
pub(crate) async fn connect(broker: &Broker, count: u32) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    while all.len() < count as usize {
        let some = (count as usize - all.len()).min(WORKERS as usize);
        let some = (0..some).map(|_| async {
            let mut connection = Connection::to(broker.kafka).await?;
            let versions = connection.ask(&ApiVersionsRequest::default(), 0).await?;
            ensure!(versions.error_code == 0, "error {}", versions.error_code);
            Ok(connection)
        });
        all.extend(try_join_all(some).await?);
    }
    Ok(all)
}

/// A group's only member.
pub(crate) struct Joined {
    pub group: GroupId,
    pub member: StrBytes,
    pub generation: i32,
}

/// Does `work` for all numbers, on [`WORKERS`] connections.
pub(crate) async fn spread<T, F>(
    kafka: SocketAddr,
    all: &[u32],
    work: impl Fn(Connection, Vec<u32>) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<Vec<T>>>,
{
    let workers = (0..WORKERS as usize).map(|worker| {
        let numbers = all.iter().skip(worker).step_by(WORKERS as usize).copied();
        let (numbers, work) = (numbers.collect(), &work);
        async move { work(Connection::to(kafka).await?, numbers).await }
    });
    Ok(try_join_all(workers).await?.into_iter().flatten().collect())
}

pub(crate) async fn join_all(kafka: SocketAddr, numbers: &[u32]) -> Result<Vec<Joined>> {
    spread(kafka, numbers, |mut connection, numbers| async move {
        let mut joined = Vec::new();
        for number in numbers {
            joined.push(join(&mut connection, number).await?);
        }
        Ok(joined)
    })
    .await
}

async fn join(connection: &mut Connection, number: u32) -> Result<Joined> {
    let group = GroupId(StrBytes::from_string(format!("group-{number}")));
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from_static(
            b"\0\0\0\0\0\x01\0\x07scale-0\xff\xff\xff\xff",
        ));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(1_800_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let mut answer = connection.ask(&request, 5).await?;
    if answer.error_code == MEMBER_ID_REQUIRED {
        request.member_id = answer.member_id;
        answer = connection.ask(&request, 5).await?;
    }
    ensure!(
        answer.error_code == 0,
        "JoinGroup: error {}",
        answer.error_code
    );
    let (member, generation) = (answer.member_id, answer.generation_id);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(
            b"\0\0\0\0\0\x01\0\x07scale-0\0\0\0\x01\0\0\0\0\xff\xff\xff\xff",
        ));
    let request = SyncGroupRequest::default()
        .with_group_id(group.clone())
        .with_generation_id(generation)
        .with_member_id(member.clone())
        .with_assignments(vec![assignment]);
    let answer = connection.ask(&request, 3).await?;
    ensure!(
        answer.error_code == 0,
        "SyncGroup: error {}",
        answer.error_code
    );
    let joined = Joined {
        group,
        member,
        generation,
    };
    let code = commit(connection, &joined, number).await?;
    ensure!(code == 0, "OffsetCommit: error {code}");
    Ok(joined)
}

/// Commits an offset for the group; answers the error code.
pub(crate) async fn commit(
    connection: &mut Connection,
    joined: &Joined,
    number: u32,
) -> Result<i16> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index((number % TOPIC) as i32)
        .with_committed_offset(0);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("scale-0")))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(joined.group.clone())
        .with_generation_id_or_member_epoch(joined.generation)
        .with_member_id(joined.member.clone())
        .with_topics(vec![topic]);
    let answer = connection.ask(&request, 7).await?;
    Ok(answer.topics[0].partitions[0].error_code)
}

/// How requests are answered while all of that is there.
async fn answers(broker: &Broker, names: &[String], sheet: &mut Sheet) -> Result<()> {
    let mut connection = Connection::to(broker.kafka).await?;
    let name = |name: &String| TopicName(StrBytes::from_string(name.clone()));
    let one = MetadataRequest::default().with_topics(Some(vec![
        MetadataRequestTopic::default().with_name(names.first().map(name)),
    ]));
    let all = MetadataRequest::default().with_topics(None);
    for (what, request, times) in [("a topic of 1 000", one, 500), ("all topics", all, 50)] {
        let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        for _ in 0..times {
            let start = Instant::now();
            connection.ask(&request, 12).await?;
            latency.saturating_record(start.elapsed().as_micros() as u64);
        }
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let value = latency.value_at_quantile(quantile) as f64 / 1e3;
            sheet.add(format!("metadata of {what}, {label}"), value, "ms");
        }
    }
    Ok(())
}

/// Asks for every group until its member is answered in its generation; how long the first took
/// and the last, since `killed`.
pub(crate) async fn take_up(
    kafka: SocketAddr,
    groups: &[Joined],
    killed: Instant,
) -> Result<(Duration, Duration)> {
    let groups = Arc::new(groups);
    let numbers: Vec<u32> = (0..groups.len() as u32).collect();
    let times = spread(kafka, &numbers, |mut connection, numbers| {
        let groups = Arc::clone(&groups);
        async move {
            let mut times = Vec::new();
            for number in numbers {
                let joined = &groups[number as usize];
                let request = HeartbeatRequest::default()
                    .with_group_id(joined.group.clone())
                    .with_generation_id(joined.generation)
                    .with_member_id(joined.member.clone());
                loop {
                    let answer = connection.ask(&request, 3).await?;
                    match answer.error_code {
                        0 => break,
                        COORDINATOR_LOAD_IN_PROGRESS | NOT_COORDINATOR => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        code => bail!("{}: error {code}", joined.group.as_str()),
                    }
                }
                times.push(killed.elapsed());
            }
            Ok(times)
        }
    })
    .await?;
    let (first, last) = (times.iter().min(), times.iter().max());
    Ok((
        first.copied().unwrap_or_default(),
        last.copied().unwrap_or_default(),
    ))
}

/// A fleet with as many partitions and groups, of which leaders are lost.
fn failover(
    runtime: &Runtime,
    binary: &Path,
    dir: &Path,
    options: &Options,
    sheet: &mut Sheet,
) -> Result<()> {
    // The links of a fleet need threads of their own.
    let links = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut fleet = Fleet::start(&Plan {
        binary,
        dir,
        runtime: links.handle(),
        gateways: 2,
        settings: &[],
    })?;
    let (lost, kept) = (GATEWAY, GATEWAY + 1);
    let kafka = fleet.node(kept)?.addresses.kafka;
    let topics = options.partitions.div_ceil(TOPIC);
    let names: Vec<String> = (0..topics).map(|n| format!("scale-{n}")).collect();
    workload::create_topics(kafka, &names, TOPIC as i32, &[])?;
    let numbers: Vec<u32> = (0..options.groups).collect();
    let (theirs, ours) = runtime.block_on(coordinated(kafka, &numbers, lost))?;
    let theirs_at = fleet.node(lost)?.addresses.kafka;
    let theirs = runtime.block_on(join_all(theirs_at, &theirs))?;
    let ours = runtime.block_on(join_all(kafka, &ours))?;

    let leader = fleet.leader()?;
    fleet.node(leader)?.kill()?;
    let killed = Instant::now();
    let joined = ours.first().context("a group of the gateway that stays")?;
    runtime.block_on(async {
        let mut connection = Connection::to(kafka).await?;
        while commit(&mut connection, joined, 0).await? != 0 {
            ensure!(killed.elapsed() < PATIENCE, "the quorum takes nothing");
        }
        Ok::<_, anyhow::Error>(())
    })?;
    sheet.add(
        "leader of the quorum killed, to the next commit",
        milliseconds(killed.elapsed()),
        "ms",
    );
    fleet.node(leader)?.start()?;
    fleet.node(lost)?.kill()?;
    let killed = Instant::now();
    let (first, all) = runtime.block_on(take_up(kafka, &theirs, killed))?;
    let name = |what| format!("gateway killed, to {what} of its {} groups", theirs.len());
    sheet.add(name("the first"), milliseconds(first), "ms");
    sheet.add(name("the last"), milliseconds(all), "ms");
    Ok(())
}

/// The groups that the gateway `id` coordinates, and the others.
async fn coordinated(kafka: SocketAddr, all: &[u32], id: u32) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut connection = Connection::to(kafka).await?;
    let (mut its, mut others) = (Vec::new(), Vec::new());
    for numbers in all.chunks(1000) {
        let name = |number: &u32| StrBytes::from_string(format!("group-{number}"));
        let names = numbers.iter().map(name).collect();
        let request = FindCoordinatorRequest::default().with_coordinator_keys(names);
        let answer = connection.ask(&request, 4).await?;
        for (number, found) in numbers.iter().zip(&answer.coordinators) {
            let code = found.error_code;
            ensure!(code == 0, "FindCoordinator: error {code}");
            match found.node_id.0 == id as i32 {
                true => its.push(*number),
                false => others.push(*number),
            }
        }
    }
    Ok((its, others))
}
