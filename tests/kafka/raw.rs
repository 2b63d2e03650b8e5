//! A connection that sends exactly the frames a test wants.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::{Buf, Bytes, BytesMut};
use frazil_core::batch::{BatchBuilder, Codec};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::server::{PATIENCE, Server};

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects to the broker.
    pub(crate) fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.kafka).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            correlation: 0,
        }
    }

    /// Writes bytes as they are. The broker may have closed the connection.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request; answers its correlation id.
    pub(crate) fn send<R: Request + HeaderVersion>(&mut self, request: &R, version: i16) -> i32 {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("raw")))
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        self.stream
            .write_all(&(frame.len() as i32).to_be_bytes())
            .unwrap();
        self.stream.write_all(&frame).unwrap();
        self.correlation
    }

    /// The next frame; `None` if the broker has closed the connection.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if let Err(error) = self.stream.read_exact(&mut length) {
            let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "{error}");
            return None;
        }
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        Some(frame.into())
    }

    /// Receives the answer to the request with this correlation id, which must be the next one,
    /// and must be read to its end.
    pub(crate) fn receive<R: Request>(&mut self, correlation: i32, version: i16) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        let mut frame = self.frame().expect("an answer, not a closed connection");
        let header =
            ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation);
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(
            !frame.has_remaining(),
            "{:?} v{version} has more bytes",
            ApiKey::try_from(R::KEY)
        );
        response
    }

    /// Sends a request and receives its answer.
    pub(crate) fn ask<R: Request + HeaderVersion>(
        &mut self,
        request: &R,
        version: i16,
    ) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        let correlation = self.send(request, version);
        self.receive::<R>(correlation, version)
    }
}

/// A batch of `values`, by an idempotent producer or none.
pub(crate) fn batch(values: &[&str], producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new().codec(Codec::None);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for (n, value) in values.iter().enumerate() {
        builder = builder.record(1_000_000 + n as i64, None, Some(value.as_bytes()));
    }
    builder.build()
}

/// A produce request for one partition.
pub(crate) fn produce(topic: &str, partition: i32, records: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

/// Error code and base offset of the only partition of an answer.
pub(crate) fn outcome(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// A fetch request for one partition.
pub(crate) fn fetch(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(max_bytes);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Error code and records of the only partition of an answer.
pub(crate) fn fetched(response: &FetchResponse) -> (i16, Bytes) {
    let partition = &response.responses[0].partitions[0];
    (
        partition.error_code,
        partition.records.clone().unwrap_or_default(),
    )
}
