//! The Fetch response, versions 4-18, written by hand around record batches that stay where they
//! are.
//!
//! ```text
//! correlation id i32 | tags (12+)
//! throttle ms i32 | error i16 (7+) | session id i32 (7+) | [topic]
//! topic:      name string (4-12) or id uuid (13+) | [partition]
//! partition:  index i32 | error i16 | high watermark i64 | last stable i64 | log start i64 (5+)
//!             | [aborted transaction] | preferred read replica i32 (11+) | records bytes
//! ```
//!
//! From version 12 on everything is compact, with tagged fields (none are sent) behind every
//! struct. Everything but the records goes into one buffer of exactly the needed size, of which
//! the response's pieces between the records are slices.
//! Source: KIP-74, KIP-227, KIP-392, KIP-516, schema of Kafka 4.1.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::response::Response;

const FLEXIBLE: i16 = 12;
const TOPIC_IDS: i16 = 13;

/// A Fetch response. There are no sessions: the session id is always 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct FetchResponse {
    /// An error of the whole request, or 0.
    pub(crate) error_code: i16,
    /// Every topic of the request, in its order.
    pub(crate) topics: Vec<FetchedTopic>,
    /// Whether the consumer asked for committed records only, so that it must be told which
    /// transactions were aborted.
    pub(crate) read_committed: bool,
}

/// A topic in a Fetch response.
#[derive(Clone, Debug)]
pub(crate) struct FetchedTopic {
    /// As in the request; empty from version 13 on.
    pub(crate) name: StrBytes,
    /// As in the request; zero before version 13.
    pub(crate) id: Uuid,
    /// Every partition of the request, in its order.
    pub(crate) partitions: Vec<FetchedPartition>,
}

/// A partition in a Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchedPartition {
    pub(crate) index: i32,
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// Record batches, back to back over all pieces.
    pub(crate) records: Vec<Bytes>,
}

impl FetchedPartition {
    /// A partition about which nothing can be said but an error.
    pub(crate) fn error(index: i32, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            records: Vec::new(),
        }
    }

    /// Bytes of records.
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// Writes a response with its header.
pub(crate) fn encode(response: FetchResponse, version: i16, correlation_id: i32) -> Response {
    let mut sizer = Layout::new(version, Sizer(0));
    sizer.response(&response, correlation_id, |_, _| ());
    let Sizer(size) = sizer.out;

    let mut splits = Vec::new();
    let mut writer = Layout::new(version, BytesMut::with_capacity(size));
    writer.response(&response, correlation_id, |out, at| {
        splits.push((out.len(), at));
    });
    debug_assert_eq!(writer.out.len(), size);

    let frame = writer.out.freeze();
    let mut pieces = Vec::new();
    let mut from = 0;
    let mut topics = response.topics;
    for (to, (topic, partition)) in splits {
        pieces.push(frame.slice(from..to));
        pieces.append(&mut topics[topic].partitions[partition].records);
        from = to;
    }
    pieces.push(frame.slice(from..));
    Response::new(pieces)
}

/// What a layout is written to: a buffer, or a count of its bytes.
trait Out {
    fn put(&mut self, bytes: &[u8]);
}

struct Sizer(usize);

impl Out for Sizer {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

impl Out for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

struct Layout<O> {
    version: i16,
    compact: bool,
    out: O,
}

impl<O: Out> Layout<O> {
    fn new(version: i16, out: O) -> Self {
        Self {
            version,
            compact: version >= FLEXIBLE,
            out,
        }
    }

    /// Writes everything but records; calls `records` where those of a topic's partition belong.
    fn response(
        &mut self,
        response: &FetchResponse,
        correlation_id: i32,
        mut records: impl FnMut(&O, (usize, usize)),
    ) {
        self.i32(correlation_id);
        self.tags();
        self.i32(0);
        if self.version >= 7 {
            self.i16(response.error_code);
            self.i32(0);
        }
        self.length(response.topics.len());
        for (t, topic) in response.topics.iter().enumerate() {
            if self.version >= TOPIC_IDS {
                self.out.put(topic.id.as_bytes());
            } else if self.compact {
                self.length(topic.name.len());
                self.out.put(topic.name.as_bytes());
            } else {
                self.i16(topic.name.len() as i16);
                self.out.put(topic.name.as_bytes());
            }
            self.length(topic.partitions.len());
            for (p, partition) in topic.partitions.iter().enumerate() {
                self.partition(partition, response.read_committed);
                records(&self.out, (t, p));
                self.tags();
            }
            self.tags();
        }
        self.tags();
    }

    fn partition(&mut self, partition: &FetchedPartition, read_committed: bool) {
        self.i32(partition.index);
        self.i16(partition.error_code);
        self.i64(partition.high_watermark);
        self.i64(partition.last_stable);
        if self.version >= 5 {
            self.i64(partition.log_start);
        }
        match (read_committed, self.compact) {
            (true, _) => self.length(0),
            (false, true) => self.out.put(&[0]),
            (false, false) => self.i32(-1),
        }
        if self.version >= 11 {
            self.i32(-1);
        }
        self.length(partition.bytes());
    }

    fn i16(&mut self, value: i16) {
        self.out.put(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.out.put(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.out.put(&value.to_be_bytes());
    }

    /// The length of an array, of bytes, or of a compact string.
    fn length(&mut self, length: usize) {
        if !self.compact {
            return self.i32(length as i32);
        }
        let mut value = length as u32 + 1;
        while value >= 0x80 {
            self.out.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.out.put(&[value as u8]);
    }

    /// An empty section of tagged fields.
    fn tags(&mut self) {
        if self.compact {
            self.out.put(&[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{FetchResponse as Decoded, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, HeaderVersion};
    use proptest::prelude::*;

    use super::*;

    fn partition() -> impl Strategy<Value = FetchedPartition> {
        let records = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4);
        (any::<i32>(), any::<i16>(), any::<[i64; 3]>(), records).prop_map(
            |(index, error_code, [high_watermark, last_stable, log_start], records)| {
                FetchedPartition {
                    index,
                    error_code,
                    high_watermark,
                    last_stable,
                    log_start,
                    records: records.into_iter().map(Bytes::from).collect(),
                }
            },
        )
    }

    fn response() -> impl Strategy<Value = FetchResponse> {
        let topic = (
            "[a-z]{0,200}",
            any::<u128>(),
            prop::collection::vec(partition(), 0..4),
        )
            .prop_map(|(name, id, partitions)| FetchedTopic {
                name: StrBytes::from_string(name),
                id: Uuid::from_u128(id),
                partitions,
            });
        (
            any::<i16>(),
            prop::collection::vec(topic, 0..4),
            any::<bool>(),
        )
            .prop_map(|(error_code, topics, read_committed)| FetchResponse {
                error_code,
                topics,
                read_committed,
            })
    }

    proptest! {
        #[test]
        fn the_codec_reads_what_we_write(ours in response(), correlation_id in any::<i32>()) {
            for version in 4..=18 {
                let mut bytes = encode(ours.clone(), version, correlation_id).to_bytes();
                let header_version = Decoded::header_version(version);
                let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
                prop_assert_eq!(header.correlation_id, correlation_id);
                let theirs = Decoded::decode(&mut bytes, version).unwrap();
                prop_assert!(bytes.is_empty());
                prop_assert_eq!(theirs.session_id, 0);
                prop_assert_eq!(theirs.error_code, if version >= 7 { ours.error_code } else { 0 });
                prop_assert_eq!(theirs.responses.len(), ours.topics.len());
                for (theirs, ours_topic) in theirs.responses.iter().zip(&ours.topics) {
                    if version >= TOPIC_IDS {
                        prop_assert_eq!(theirs.topic_id, ours_topic.id);
                    } else {
                        prop_assert_eq!(&theirs.topic.0, &ours_topic.name);
                    }
                    prop_assert_eq!(theirs.partitions.len(), ours_topic.partitions.len());
                    for (theirs, partition) in theirs.partitions.iter().zip(&ours_topic.partitions) {
                        prop_assert_eq!(theirs.partition_index, partition.index);
                        prop_assert_eq!(theirs.error_code, partition.error_code);
                        prop_assert_eq!(theirs.high_watermark, partition.high_watermark);
                        prop_assert_eq!(theirs.last_stable_offset, partition.last_stable);
                        if version >= 5 {
                            prop_assert_eq!(theirs.log_start_offset, partition.log_start);
                        }
                        let aborted = theirs.aborted_transactions.as_ref().map(Vec::len);
                        prop_assert_eq!(aborted, ours.read_committed.then_some(0));
                        prop_assert_eq!(theirs.preferred_read_replica.0, -1);
                        let records = partition.records.concat();
                        prop_assert_eq!(theirs.records.as_deref(), Some(&records[..]));
                    }
                }
            }
        }
    }

    #[test]
    fn records_are_not_copied() {
        let records = Bytes::from(vec![1; 1000]);
        let response = FetchResponse {
            topics: vec![FetchedTopic {
                name: StrBytes::from_static_str("t"),
                id: Uuid::nil(),
                partitions: vec![FetchedPartition {
                    records: vec![records.clone()],
                    ..FetchedPartition::error(0, 0)
                }],
            }],
            ..FetchResponse::default()
        };
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let encoded = encode(response, 12, 1);
        let filled = bytes::Buf::chunks_vectored(&encoded, &mut slices);
        assert!(
            slices[..filled]
                .iter()
                .any(|slice| slice.as_ptr() == records.as_ptr())
        );
    }
}
