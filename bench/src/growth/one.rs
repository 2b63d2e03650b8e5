//! One broker with more and more partitions, connections, groups.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    HeartbeatRequest, MetadataRequest, ProduceRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use super::Site;
use super::curve::{Curve, linear, log};
use crate::broker::Broker;
use crate::load::batch::{Codec, batch};
use crate::load::frames::Link;
use crate::load::produce::first_ack;
use crate::load::{Flood, flood, histogram};
use crate::scale::{self, Joined};
use crate::sheet::milliseconds;
use crate::wire::{Connection, allow_sockets};
use crate::workload;

const PARTITIONS: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];
const CONNECTIONS: [u32; 4] = [10, 100, 1_000, 10_000];
const GROUPS: [u32; 4] = [10, 100, 1_000, 10_000];
/// Partitions of a topic, at most.
const TOPIC: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A new broker on a new directory.
struct Fresh {
    broker: Broker,
    data: PathBuf,
    settings: Vec<String>,
}

impl Fresh {
    fn start(site: &Site, name: &str, settings: &[String]) -> Result<Self> {
        let data = site.dir.join(name);
        Ok(Self {
            broker: Broker::with(&site.binary, &data, settings)?,
            data,
            settings: settings.to_vec(),
        })
    }

    fn discard(self) -> Result<()> {
        self.broker.kill()?;
        std::fs::remove_dir_all(&self.data)
            .with_context(|| format!("cannot remove {}", self.data.display()))
    }
}

pub(super) fn partitions(site: &Site) -> Result<Vec<Curve>> {
    let x = log("partitions");
    let mut memory = Curve::new(
        "partitions-memory",
        "Memory of a broker against partitions",
        x,
        linear("MiB resident"),
    );
    let mut answers = Curve::new(
        "partitions-metadata",
        "Answering Metadata against partitions",
        x,
        log("ms, median"),
    );
    let mut work = Curve::new(
        "partitions-produce",
        "Processor time of the broker per MiB produced, against partitions",
        x,
        linear("ms per MiB"),
    );
    let mut start = Curve::new(
        "partitions-start",
        "From exec to the first acknowledgement after kill -9, against partitions",
        x,
        linear("ms"),
    );
    for count in site.sizes(&PARTITIONS) {
        let size = f64::from(count);
        let mut fresh = Fresh::start(site, &format!("partitions-{count}"), &[])?;
        let each = count.min(TOPIC);
        let names: Vec<String> = (0..count.div_ceil(each))
            .map(|n| format!("t-{n}"))
            .collect();
        workload::create_topics(fresh.broker.kafka, &names, each as i32, &[])?;
        first_ack(fresh.broker.kafka, &names[0], PATIENCE)?;
        memory.add("created", size, fresh.broker.rss_mib()?);

        for (name, topics, times) in [
            ("one topic of up to 1 000", Some(&names[..1]), 50),
            ("all topics", None, 10),
        ] {
            let time = metadata(&fresh.broker, topics, times)?;
            answers.add(name, size, milliseconds(time));
        }

        let load = Flood {
            broker: fresh.broker.kafka,
            topic: names[0].clone(),
            partitions: each as i32,
            acks: -1,
            codec: Codec::None,
            size: 1000,
            records: 16,
            spread: each.min(12) as i32,
            connections: 2,
            in_flight: 5,
            duration: Duration::from_secs(if site.quick { 1 } else { 3 }),
            bytes: 400_000_000,
        };
        let before = fresh.broker.cpu()?;
        let flow = flood(&load)?;
        let used = fresh.broker.cpu()?.saturating_sub(before);
        let mib = flow.records as f64 * 1000.0 / f64::from(1 << 20);
        work.add("to up to 1 000 of them", size, milliseconds(used) / mib);
        memory.add("under load, at most", size, fresh.broker.peak_rss_mib()?);

        fresh.broker.kill()?;
        let began = Instant::now();
        fresh.broker = Broker::exec(&site.binary, &fresh.data, &fresh.settings)?;
        first_ack(fresh.broker.kafka, &names[0], PATIENCE)?;
        start.add("first acknowledgement", size, milliseconds(began.elapsed()));
        fresh.discard()?;
    }
    Ok(vec![memory, answers, work, start])
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The median time of an answer about these topics, or all. It is received and not decoded.
fn metadata(broker: &Broker, topics: Option<&[String]>, times: i32) -> Result<Duration> {
    const VERSION: i16 = 12;
    let named = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(topics.map(|topics| topics.iter().map(named).collect()));
    let mut frame = BytesMut::zeroed(4);
    RequestHeader::default()
        .with_request_api_key(MetadataRequest::KEY)
        .with_request_api_version(VERSION)
        .with_client_id(Some(StrBytes::from_static_str("frazil-bench")))
        .encode(&mut frame, MetadataRequest::header_version(VERSION))?;
    request.encode(&mut frame, VERSION)?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let mut link = Link::to(broker.kafka)?;
    let mut took = Vec::new();
    for turn in 0..times {
        let start = Instant::now();
        link.send(&mut frame, turn)?;
        link.receive(turn)?;
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2])
}

pub(super) fn connections(site: &Site) -> Result<Vec<Curve>> {
    let x = log("connections");
    let mut memory = Curve::new(
        "connections-memory",
        "Memory of a broker per connection",
        x,
        linear("KiB resident per connection"),
    );
    let mut latency = Curve::new(
        "connections-latency",
        "Acknowledgement of a record, on one connection after the other",
        x,
        log("ms"),
    );
    for count in site.sizes(&CONNECTIONS) {
        allow_sockets(u64::from(count))?;
        let settings = [format!("max.connections={}", count + 1000)];
        let fresh = Fresh::start(site, &format!("connections-{count}"), &settings)?;
        let level = [("frazil.durability", "local")];
        workload::create_topics(fresh.broker.kafka, &["t".to_owned()], 12, &level)?;
        first_ack(fresh.broker.kafka, "t", PATIENCE)?;
        let size = f64::from(count);
        let empty = fresh.broker.rss_mib()?;
        let per = |now: f64| ((now - empty) * 1024.0 / size).max(0.0);
        let mut open = site
            .runtime
            .block_on(scale::connect(&fresh.broker, count))?;
        memory.add("idle", size, per(fresh.broker.rss_mib()?));
        let took = site.runtime.block_on(turns(&mut open))?;
        memory.add("each has produced", size, per(fresh.broker.rss_mib()?));
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            latency.add(name, size, took.value_at_quantile(quantile) as f64 / 1e3);
        }
        drop(open);
        fresh.discard()?;
    }
    Ok(vec![memory, latency])
}

/// Each connection produces one record at least, eight at a time; a thousand altogether at least.
async fn turns(open: &mut [Connection]) -> Result<hdrhistogram::Histogram<u64>> {
    const AT_A_TIME: usize = 8;
    let records = Bytes::from(batch(1, 100, Codec::None)?);
    let rounds = 1000_usize.div_ceil(open.len());
    let each = open.len().div_ceil(AT_A_TIME);
    let all = open.chunks_mut(each).enumerate().map(|(n, connections)| {
        let data = PartitionProduceData::default()
            .with_index(n as i32)
            .with_records(Some(records.clone()));
        let topic = TopicProduceData::default()
            .with_name(topic_name("t"))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        async move {
            let mut took = histogram()?;
            for _ in 0..rounds {
                for connection in &mut *connections {
                    let start = Instant::now();
                    let answer = connection.ask(&request, 9).await?;
                    took.saturating_record(start.elapsed().as_micros() as u64);
                    let code = answer.responses[0].partition_responses[0].error_code;
                    ensure!(code == 0, "Produce: error {code}");
                }
            }
            Ok(took)
        }
    });
    let mut sum = histogram()?;
    for took in try_join_all(all).await? {
        sum.add(&took)?;
    }
    Ok(sum)
}

pub(super) fn groups(site: &Site) -> Result<Vec<Curve>> {
    let x = log("groups with a member and an offset");
    let mut memory = Curve::new(
        "groups-memory",
        "Memory of a broker against groups",
        x,
        linear("MiB resident"),
    );
    let mut work = Curve::new(
        "groups-work",
        "Processor time of the broker for one group",
        x,
        linear("ms"),
    );
    let mut again = Curve::new(
        "groups-restart",
        "From kill -9 until every group is answered by the broker that is started again",
        x,
        log("ms"),
    );
    for count in site.sizes(&GROUPS) {
        let size = f64::from(count);
        let settings = ["group.initial.rebalance.delay.ms=0".to_owned()];
        let mut fresh = Fresh::start(site, &format!("groups-{count}"), &settings)?;
        let kafka = fresh.broker.kafka;
        workload::create_topics(kafka, &["scale-0".to_owned()], TOPIC as i32, &[])?;
        first_ack(kafka, "scale-0", PATIENCE)?;
        let before = fresh.broker.cpu()?;
        let numbers: Vec<u32> = (0..count).collect();
        let joined = site.runtime.block_on(scale::join_all(kafka, &numbers))?;
        let used = fresh.broker.cpu()?.saturating_sub(before);
        memory.add("joined", size, fresh.broker.rss_mib()?);
        work.add("join, sync, commit", size, milliseconds(used) / size);

        let before = fresh.broker.cpu()?;
        let rounds = 10_000_u32.div_ceil(count);
        site.runtime.block_on(heartbeats(kafka, &joined, rounds))?;
        let used = fresh.broker.cpu()?.saturating_sub(before);
        work.add(
            "heartbeat",
            size,
            milliseconds(used) / size / f64::from(rounds),
        );

        fresh.broker.kill()?;
        let killed = Instant::now();
        fresh.broker = Broker::with(&site.binary, &fresh.data, &fresh.settings)?;
        let (_, all) =
            site.runtime
                .block_on(scale::take_up(fresh.broker.kafka, &joined, killed))?;
        again.add("all of them", size, milliseconds(all));
        fresh.discard()?;
    }
    Ok(vec![memory, work, again])
}

/// A heartbeat of each group, so many times.
async fn heartbeats(kafka: std::net::SocketAddr, joined: &[Joined], rounds: u32) -> Result<()> {
    let numbers: Vec<u32> = (0..joined.len() as u32).collect();
    scale::spread(kafka, &numbers, |mut connection, numbers| async move {
        for _ in 0..rounds {
            for number in &numbers {
                let of = &joined[*number as usize];
                let request = HeartbeatRequest::default()
                    .with_group_id(of.group.clone())
                    .with_generation_id(of.generation)
                    .with_member_id(of.member.clone());
                let answer = connection.ask(&request, 3).await?;
                ensure!(answer.error_code == 0, "error {}", answer.error_code);
            }
        }
        Ok(Vec::<()>::new())
    })
    .await?;
    Ok(())
}
