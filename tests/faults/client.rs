//! A client that does one operation at a time and says honestly how it ended.
//!
//! It never retries by itself: every attempt is an event of the history. An operation that was not
//! sent, because nobody listens, did not happen; once bytes were written, only an answer tells.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use frazil_core::batch::{BatchBuilder, Records, batches};
use frazil_history::{Answer, Group, Isolation, List, Op, Outcome, Record, TopicPartition};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    DeleteRecordsRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest, OffsetCommitRequest,
    OffsetFetchRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::raw::{fetch, outcome, produce};

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

const OFFSET_OUT_OF_RANGE: i16 = 1;

/// Why there is no answer.
pub(crate) enum Lost {
    /// Nothing was sent.
    Unsent,
    /// It may have arrived.
    Sent,
}

impl From<Lost> for Outcome {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsent => Self::Fail(0),
            Lost::Sent => Self::Info(0),
        }
    }
}

/// One connection at a time to one broker.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    correlation: i32,
    /// The name of topic n.
    topics: Vec<String>,
    /// As which member of a group it commits under a generation.
    pub(crate) member: String,
}

impl Client {
    /// A client of a broker, for these topics.
    pub(crate) fn new(address: SocketAddr, topics: &[&str]) -> Self {
        Self {
            address,
            stream: None,
            correlation: 0,
            topics: topics.iter().map(|&name| name.to_owned()).collect(),
            member: String::new(),
        }
    }

    /// Does one operation.
    pub(crate) fn call(&mut self, op: &Op) -> Outcome {
        let done = match op {
            Op::InitProducer => self.init_producer(),
            Op::Produce {
                at,
                values,
                producer,
                acks,
                ..
            } => {
                let mut builder = BatchBuilder::new();
                if let Some(p) = producer {
                    builder = builder.producer(p.id, p.epoch, p.sequence as i32);
                }
                for value in values {
                    builder =
                        builder.record(timestamp(*value), None, Some(text(*value).as_bytes()));
                }
                self.produce(*at, builder.build(), *acks)
            }
            Op::Fetch {
                at,
                from,
                isolation,
                ..
            } => self.fetch(*at, *from, *isolation),
            Op::ListOffsets { at, list, .. } => self.list_offsets(*at, *list),
            Op::DeleteRecords { at, before } => self.delete_records(*at, *before),
            Op::OffsetCommit {
                group,
                generation,
                at,
                offset,
            } => self.commit(*group, *generation, *at, *offset),
            Op::OffsetFetch { group, at, .. } => self.fetch_commit(*group, *at),
            other => panic!("this client does not {other:?}"),
        };
        done.unwrap_or_else(Outcome::from)
    }

    fn name(&self, at: TopicPartition) -> &str {
        &self.topics[at.topic.0 as usize]
    }

    fn topic_name(&self, at: TopicPartition) -> TopicName {
        TopicName(StrBytes::from_string(self.name(at).to_owned()))
    }

    /// Sends a request and receives its answer; the connection is given up if there is none.
    pub(crate) fn ask<R: Request + HeaderVersion>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Lost>
    where
        R::Response: HeaderVersion,
    {
        if self.stream.is_none() {
            let stream =
                TcpStream::connect_timeout(&self.address, TIMEOUT).map_err(|_| Lost::Unsent)?;
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream.set_write_timeout(Some(TIMEOUT)).unwrap();
            stream.set_nodelay(true).unwrap();
            self.stream = Some(stream);
        }
        self.correlation += 1;
        let mut frame = BytesMut::from(&[0; 4][..]);
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("faults")))
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let stream = self.stream.as_mut().expect("connected above");
        let mut exchange = || {
            stream.write_all(&frame)?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; i32::from_be_bytes(length) as usize];
            stream.read_exact(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let Ok(answer) = exchange() else {
            self.stream = None;
            return Err(Lost::Sent);
        };
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        assert_eq!(header.unwrap().correlation_id, self.correlation);
        Ok(R::Response::decode(&mut answer, version).unwrap())
    }

    fn init_producer(&mut self) -> Result<Outcome, Lost> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        let response = self.ask(&request, 4)?;
        Ok(answer(response.error_code, || {
            assert_eq!(response.producer_epoch, 0);
            Answer::ProducerId(response.producer_id.0)
        }))
    }

    fn produce(&mut self, at: TopicPartition, batch: Bytes, acks: i16) -> Result<Outcome, Lost> {
        let request = produce(self.name(at), at.partition, batch, acks);
        let (code, base) = outcome(&self.ask(&request, 9)?);
        Ok(answer(code, || Answer::Offset(base)))
    }

    fn fetch(
        &mut self,
        at: TopicPartition,
        from: i64,
        isolation: Isolation,
    ) -> Result<Outcome, Lost> {
        let committed = isolation == Isolation::ReadCommitted;
        let request = fetch(self.name(at), at.partition, from, 64 << 10)
            .with_isolation_level(committed.into());
        let response = self.ask(&request, 12)?;
        let partition = &response.responses[0].partitions[0];
        if partition.error_code == OFFSET_OUT_OF_RANGE {
            return Ok(Outcome::Ok(Answer::OutOfRange));
        }
        Ok(answer(partition.error_code, || Answer::Records {
            records: records(&partition.records.clone().unwrap_or_default(), from),
            high_watermark: partition.high_watermark,
            log_start: Some(partition.log_start_offset),
            last_stable: Some(partition.last_stable_offset),
        }))
    }

    fn list_offsets(&mut self, at: TopicPartition, list: List) -> Result<Outcome, Lost> {
        let timestamp = match list {
            List::Earliest => -2,
            List::Latest => -1,
            List::Timestamp(time) => time,
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(at.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(self.topic_name(at))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = self.ask(&request, 6)?;
        let partition = &response.topics[0].partitions[0];
        Ok(answer(partition.error_code, || {
            Answer::Position(Some(partition.offset).filter(|offset| *offset >= 0))
        }))
    }

    fn delete_records(&mut self, at: TopicPartition, before: i64) -> Result<Outcome, Lost> {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(at.partition)
            .with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(self.topic_name(at))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let response = self.ask(&request, 2)?;
        let code = response.topics[0].partitions[0].error_code;
        Ok(answer(code, || Answer::Done))
    }

    fn commit(
        &mut self,
        group: Group,
        generation: Option<i32>,
        at: TopicPartition,
        offset: i64,
    ) -> Result<Outcome, Lost> {
        let member = generation.map_or("", |_| &self.member).to_owned();
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(at.partition)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(self.topic_name(at))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(generation.unwrap_or(-1))
            .with_member_id(StrBytes::from_string(member))
            .with_topics(vec![topic]);
        let response = self.ask(&request, 8)?;
        let code = response.topics[0].partitions[0].error_code;
        Ok(answer(code, || Answer::Done))
    }

    fn fetch_commit(&mut self, group: Group, at: TopicPartition) -> Result<Outcome, Lost> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(self.topic_name(at))
            .with_partition_indexes(vec![at.partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(vec![topic]));
        let response = self.ask(&request, 7)?;
        if response.error_code != 0 {
            return Ok(Outcome::error(response.error_code));
        }
        let partition = &response.topics[0].partitions[0];
        Ok(answer(partition.error_code, || {
            Answer::Position(Some(partition.committed_offset).filter(|offset| *offset >= 0))
        }))
    }
}

/// The name of a group.
pub(crate) fn group_id(group: Group) -> GroupId {
    GroupId(StrBytes::from_string(format!("group-{}", group.0)))
}

fn answer(code: i16, answer: impl FnOnce() -> Answer) -> Outcome {
    match code {
        0 => Outcome::Ok(answer()),
        code => Outcome::error(code),
    }
}

/// What a record with a value looks like: its number, and enough behind it that segments differ.
pub(crate) fn text(value: u64) -> String {
    format!("{value} {}", "x".repeat((value % 61) as usize))
}

/// Its time: neither in order nor unique, and below what workers ask for.
fn timestamp(value: u64) -> i64 {
    (value % 1009) as i64
}

/// The number in a record's value; one that nobody sends if there is none.
pub(crate) fn number(value: Option<&[u8]>) -> u64 {
    let read = |bytes| {
        let number = std::str::from_utf8(bytes).ok()?.split(' ').next()?;
        let number = number.parse().ok()?;
        (text(number).as_bytes() == bytes).then_some(number)
    };
    value.and_then(read).unwrap_or(u64::MAX)
}

/// The records of an answer from an offset on; what a client must accept, checked.
fn records(bytes: &Bytes, from: i64) -> Vec<Record> {
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let (header, batch) = batch.expect("whole batches");
        header.check_crc(&batch).unwrap();
        for record in Records::of(&header, &batch).unwrap() {
            let record = record.unwrap();
            found.push(Record {
                offset: header.base_offset + i64::from(record.offset_delta),
                value: number(record.value.as_deref()),
                timestamp: record.timestamp,
            });
        }
    }
    found.retain(|record| record.offset >= from);
    found
}
