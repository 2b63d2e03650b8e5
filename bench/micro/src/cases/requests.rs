//! What the protocol edge does with a request before anybody acts on it.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use frazil_core::batch::Codec;
use frazil_gateway::wire::{guard, header, produce};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable as _, Encodable, HeaderVersion, Request, StrBytes};

use super::{Numbers, batch};
use crate::{Case, Work};

pub(super) fn cases() -> Vec<Case> {
    let case = |name, prepare| Case {
        name,
        bytes: None,
        prepare,
    };
    vec![
        case("guard/fetch of 1 000 partitions", || {
            guarded(fetch(1000), 12)
        }),
        case("guard/metadata of 1 000 topics", || {
            guarded(topics(1000), 12)
        }),
        case("decode/fetch of 1 000 partitions", decoded),
        case("parse/produce to 12 partitions", || parsed(12)),
        case("parse/produce to 1 000 partitions", || parsed(1000)),
    ]
}

/// A request without the length in front.
fn frame<R: Request + Encodable>(request: &R, version: i16) -> Bytes {
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .with_client_id(Some(StrBytes::from_static_str("micro")))
        .encode(&mut frame, <R as HeaderVersion>::header_version(version))
        .expect("a header");
    request.encode(&mut frame, version).expect("a request");
    frame.freeze()
}

fn name(number: usize) -> TopicName {
    TopicName(StrBytes::from_string(format!("orders-{number}")))
}

fn fetch(partitions: i32) -> FetchRequest {
    let partitions = (0..partitions).map(|index| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(i64::from(index) * 1000)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(name(0))
        .with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic])
}

fn topics(count: usize) -> MetadataRequest {
    let topics = (0..count).map(|n| MetadataRequestTopic::default().with_name(Some(name(n))));
    MetadataRequest::default().with_topics(Some(topics.collect()))
}

/// Header and guard, ten times.
fn guarded<R: Request + Encodable>(request: R, version: i16) -> Work {
    let frame = frame(&request, version);
    drop(request);
    Box::new(move || {
        for _ in 0..10 {
            let (header, body) = header::parse(black_box(&frame)).expect("a header");
            black_box(guard::check(header.key, header.version, &body).expect("a request"));
        }
    })
}

/// What the codec makes of what the guard let pass.
fn decoded() -> Work {
    let frame = frame(&fetch(1000), 12);
    let (header, body) = header::parse(&frame).expect("a header");
    Box::new(move || {
        let request = FetchRequest::decode(&mut body.clone(), header.version);
        black_box(request.expect("a request"));
    })
}

/// Produce is read by hand. Ten times.
fn parsed(partitions: i32) -> Work {
    let records = batch(&mut Numbers::new(), Codec::None, 100, 1000);
    let partitions = (0..partitions).map(|index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(records.clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(name(0))
        .with_partition_data(partitions.collect());
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    let frame = frame(&request, 9);
    Box::new(move || {
        for _ in 0..10 {
            let (header, body) = header::parse(black_box(&frame)).expect("a header");
            black_box(produce::parse(&body, header.version).expect("a request"));
        }
    })
}
