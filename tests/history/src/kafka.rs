//! Operations as Kafka's requests, for any transport: bytes to be sent, and what their answer means.
//!
//! ```text
//! ask = request(op, …)  →  ask.frame() is sent  →  outcome = ask.outcome(the answer's frame)
//! ```
//!
//! Every attempt is one event: nothing here retries. Which outcome an attempt without an answer
//! has, the transport knows: `Fail` if nothing was sent, otherwise `Info`.

use bytes::{Buf, Bytes, BytesMut};
use frazil_core::batch::{BatchBuilder, Records, batches};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, GroupId,
    InitProducerIdRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::{Answer, Group, Isolation, List, Op, Outcome, Producer, Record, TopicPartition};

const OFFSET_OUT_OF_RANGE: i16 = 1;

/// How long a broker may take for what it does in the quorum or the store.
const TIMEOUT_MS: i32 = 30_000;

/// Whose operations these are, as far as requests say it.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// The client's `client.id`.
    pub client_id: &'static str,
    /// The names of the topics, by number.
    pub topics: &'a [String],
    /// As which member of a group it commits under a generation.
    pub member: &'a str,
    /// Partitions of a topic that it creates.
    pub partitions: i32,
    /// Settings of a topic that it creates.
    pub settings: &'a [(String, String)],
}

/// A request, and how its answer is read.
pub struct Ask {
    frame: Bytes,
    read: Box<dyn FnOnce(Bytes) -> Outcome + Send>,
}

impl Ask {
    fn new<R>(
        speaker: Speaker<'_>,
        request: &R,
        version: i16,
        correlation: i32,
        read: impl FnOnce(R::Response) -> Outcome + Send + 'static,
    ) -> Self
    where
        R: Request + HeaderVersion,
        R::Response: HeaderVersion,
    {
        Self {
            frame: frame(request, version, correlation, speaker.client_id),
            read: Box::new(move |answer| read(response::<R>(answer, version, correlation))),
        }
    }

    /// What is to be sent, with its length in front.
    pub fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    /// What the answer says; its frame without the length.
    ///
    /// # Panics
    /// If it is no answer to the request, or its records are damaged: no broker may send that.
    pub fn outcome(self, answer: Bytes) -> Outcome {
        (self.read)(answer)
    }
}

/// A request on the wire, with its length in front.
///
/// # Panics
/// If the request cannot be encoded in this version.
pub fn frame<R: Request + HeaderVersion>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &'static str,
) -> Bytes {
    let mut frame = BytesMut::from(&[0; 4][..]);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(client_id)))
        .encode(&mut frame, R::header_version(version))
        .expect("a header can be encoded");
    request
        .encode(&mut frame, version)
        .expect("the version has what the request says");
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// An answer from the wire, without its length.
///
/// # Panics
/// If it is no answer to the request with this correlation id.
pub fn response<R: Request>(mut answer: Bytes, version: i16, correlation: i32) -> R::Response
where
    R::Response: HeaderVersion,
{
    let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
    assert_eq!(header.expect("a header").correlation_id, correlation);
    let response = R::Response::decode(&mut answer, version).expect("the answer's layout");
    assert!(!answer.has_remaining(), "the answer has more bytes");
    response
}

/// The request for an operation.
///
/// # Panics
/// If clients do not ask that way: what members of a group do takes several requests.
pub fn request(op: &Op, speaker: Speaker<'_>, correlation: i32) -> Ask {
    let it = Asking {
        speaker,
        correlation,
    };
    match op {
        Op::InitProducer => it.init_producer(),
        Op::Produce {
            at,
            values,
            producer,
            acks,
            ..
        } => it.produce(*at, values, *producer, *acks),
        Op::Fetch {
            at,
            from,
            isolation,
            ..
        } => it.fetch(*at, *from, *isolation),
        Op::ListOffsets { at, list, .. } => it.list_offsets(*at, *list),
        Op::DeleteRecords { at, before } => it.delete_records(*at, *before),
        Op::OffsetCommit {
            group,
            generation,
            at,
            offset,
        } => it.commit(*group, *generation, *at, *offset),
        Op::OffsetFetch { group, at, .. } => it.fetch_commit(*group, *at),
        Op::CreateTopic { name, .. } => it.create_topic(name),
        Op::DeleteTopic { topic } => it.delete_topic(&speaker.topics[topic.0 as usize]),
        other => panic!("no request does {other:?}"),
    }
}

struct Asking<'a> {
    speaker: Speaker<'a>,
    correlation: i32,
}

impl Asking<'_> {
    fn ask<R>(
        &self,
        request: &R,
        version: i16,
        read: impl FnOnce(R::Response) -> Outcome + Send + 'static,
    ) -> Ask
    where
        R: Request + HeaderVersion,
        R::Response: HeaderVersion,
    {
        Ask::new(self.speaker, request, version, self.correlation, read)
    }

    fn topic(&self, at: TopicPartition) -> TopicName {
        topic_name(&self.speaker.topics[at.topic.0 as usize])
    }

    fn init_producer(&self) -> Ask {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        self.ask(&request, 4, |response| {
            answer(response.error_code, || {
                assert_eq!(response.producer_epoch, 0, "a new producer's epoch");
                Answer::ProducerId(response.producer_id.0)
            })
        })
    }

    fn produce(
        &self,
        at: TopicPartition,
        values: &[u64],
        producer: Option<Producer>,
        acks: i16,
    ) -> Ask {
        let mut builder = BatchBuilder::new();
        if let Some(p) = producer {
            builder = builder.producer(p.id, p.epoch, p.sequence as i32);
        }
        for value in values {
            builder = builder.record(timestamp(*value), None, Some(text(*value).as_bytes()));
        }
        let data = PartitionProduceData::default()
            .with_index(at.partition)
            .with_records(Some(builder.build()));
        let topic = TopicProduceData::default()
            .with_name(self.topic(at))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(TIMEOUT_MS)
            .with_topic_data(vec![topic]);
        self.ask(&request, 9, |response| {
            let partition = &response.responses[0].partition_responses[0];
            answer(partition.error_code, || {
                Answer::Offset(partition.base_offset)
            })
        })
    }

    fn fetch(&self, at: TopicPartition, from: i64, isolation: Isolation) -> Ask {
        let partition = FetchPartition::default()
            .with_partition(at.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from)
            .with_partition_max_bytes(64 << 10);
        let topic = FetchTopic::default()
            .with_topic(self.topic(at))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_isolation_level((isolation == Isolation::ReadCommitted).into())
            .with_topics(vec![topic]);
        self.ask(&request, 12, move |response| {
            if response.error_code != 0 {
                return Outcome::error(response.error_code);
            }
            let partition = &response.responses[0].partitions[0];
            if partition.error_code == OFFSET_OUT_OF_RANGE {
                return Outcome::Ok(Answer::OutOfRange);
            }
            answer(partition.error_code, || Answer::Records {
                records: records(&partition.records.clone().unwrap_or_default(), from),
                high_watermark: partition.high_watermark,
                log_start: Some(partition.log_start_offset),
                last_stable: Some(partition.last_stable_offset),
            })
        })
    }

    fn list_offsets(&self, at: TopicPartition, list: List) -> Ask {
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
            .with_name(self.topic(at))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        self.ask(&request, 6, |response| {
            let partition = &response.topics[0].partitions[0];
            answer(partition.error_code, || {
                Answer::Position(Some(partition.offset).filter(|offset| *offset >= 0))
            })
        })
    }

    fn delete_records(&self, at: TopicPartition, before: i64) -> Ask {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(at.partition)
            .with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(self.topic(at))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(TIMEOUT_MS);
        self.ask(&request, 2, |response| {
            let code = response.topics[0].partitions[0].error_code;
            answer(code, || Answer::Done)
        })
    }

    fn commit(
        &self,
        group: Group,
        generation: Option<i32>,
        at: TopicPartition,
        offset: i64,
    ) -> Ask {
        let member = generation.map_or("", |_| self.speaker.member).to_owned();
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(at.partition)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(self.topic(at))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(generation.unwrap_or(-1))
            .with_member_id(StrBytes::from_string(member))
            .with_topics(vec![topic]);
        self.ask(&request, 8, |response| {
            let code = response.topics[0].partitions[0].error_code;
            answer(code, || Answer::Done)
        })
    }

    fn fetch_commit(&self, group: Group, at: TopicPartition) -> Ask {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(self.topic(at))
            .with_partition_indexes(vec![at.partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(vec![topic]));
        self.ask(&request, 7, |response| {
            if response.error_code != 0 {
                return Outcome::error(response.error_code);
            }
            let partition = &response.topics[0].partitions[0];
            answer(partition.error_code, || {
                Answer::Position(Some(partition.committed_offset).filter(|offset| *offset >= 0))
            })
        })
    }

    fn create_topic(&self, name: &str) -> Ask {
        let setting = |(key, value): &(String, String)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(key.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        };
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(self.speaker.partitions)
            .with_replication_factor(1)
            .with_configs(self.speaker.settings.iter().map(setting).collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(TIMEOUT_MS);
        self.ask(&request, 5, |response| {
            answer(response.topics[0].error_code, || Answer::Done)
        })
    }

    fn delete_topic(&self, name: &str) -> Ask {
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(TIMEOUT_MS);
        self.ask(&request, 6, |response| {
            answer(response.responses[0].error_code, || Answer::Done)
        })
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The name of a group.
pub fn group_id(group: Group) -> GroupId {
    GroupId(StrBytes::from_string(format!("group-{}", group.0)))
}

fn answer(code: i16, answer: impl FnOnce() -> Answer) -> Outcome {
    match code {
        0 => Outcome::Ok(answer()),
        code => Outcome::error(code),
    }
}

/// What a record with a value looks like: its number, and enough behind it that segments differ.
pub fn text(value: u64) -> String {
    format!("{value} {}", "x".repeat((value % 61) as usize))
}

/// Its time: neither in order nor unique, and below what workers ask for.
fn timestamp(value: u64) -> i64 {
    (value % 1009) as i64
}

/// The number in a record's value; one that nobody sends if there is none.
pub fn number(value: Option<&[u8]>) -> u64 {
    let read = |bytes| {
        let number = std::str::from_utf8(bytes).ok()?.split(' ').next()?;
        let number = number.parse().ok()?;
        (text(number).as_bytes() == bytes).then_some(number)
    };
    value.and_then(read).unwrap_or(u64::MAX)
}

/// The records of an answer from an offset on.
///
/// # Panics
/// If they are not what a client must accept.
pub fn records(bytes: &Bytes, from: i64) -> Vec<Record> {
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let (header, batch) = batch.expect("whole batches");
        header.check_crc(&batch).expect("a batch's checksum");
        for record in Records::of(&header, &batch).expect("records") {
            let record = record.expect("a record");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_and_other_bytes_are_nobodys() {
        for value in [0, 1, 60, 61, 1 << 40, u64::MAX - 1] {
            assert_eq!(number(Some(text(value).as_bytes())), value);
        }
        for bytes in [&b"1 xx"[..], b"", b"x", b"2  ", b"\xff"] {
            assert_eq!(number(Some(bytes)), u64::MAX);
        }
        assert_eq!(number(None), u64::MAX);
    }

    #[test]
    fn an_answer_is_read_as_what_it_says() {
        let topics = ["t".to_owned()];
        let speaker = Speaker {
            client_id: "test",
            topics: &topics,
            member: "",
            partitions: 1,
            settings: &[],
        };
        let fenced = kafka_protocol::messages::InitProducerIdResponse::default().with_error_code(7);
        let mut bytes = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(3);
        header.encode(&mut bytes, 1).expect("a header");
        fenced.encode(&mut bytes, 4).expect("a response");
        let ask = request(&Op::InitProducer, speaker, 3);
        let frame = ask.frame();
        let length = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        assert_eq!(length as usize, frame.len() - 4);
        assert_eq!(ask.outcome(bytes.freeze()), Outcome::Info(7));
    }
}
