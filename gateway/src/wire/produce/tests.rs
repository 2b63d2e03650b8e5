use bytes::BytesMut;
use kafka_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest as Encoded, TopicProduceData,
};
use kafka_protocol::messages::{ApiKey, TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use super::super::guard::tests::Builder;
use super::*;

fn encoded(request: &ProduceRequest, version: i16) -> Bytes {
    let topics = request.topics.iter().map(|topic| {
        let data = match &topic.topic {
            TopicRef::Name(name) => TopicProduceData::default().with_name(TopicName(name.clone())),
            TopicRef::Id(id) => TopicProduceData::default().with_topic_id(*id),
        };
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionProduceData::default()
                .with_index(partition.index)
                .with_records(partition.records.clone())
        });
        data.with_partition_data(partitions.collect())
    });
    let mut out = BytesMut::new();
    Encoded::default()
        .with_transactional_id(request.transactional_id.clone().map(TransactionalId))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(topics.collect())
        .encode(&mut out, version)
        .unwrap();
    out.freeze()
}

prop_compose! {
    fn request(ids: bool)(
        transactional_id in prop::option::of("[a-z]{0,9}"),
        acks in any::<i16>(),
        timeout_ms in any::<i32>(),
        topics in prop::collection::vec(
            (
                "[a-zäß.]{0,20}",
                any::<u128>(),
                prop::collection::vec(
                    (any::<i32>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))),
                    0..4,
                ),
            ),
            0..4,
        ),
    ) -> ProduceRequest {
        let topics = topics.into_iter().map(|(name, id, partitions)| ProduceTopic {
            topic: if ids {
                TopicRef::Id(Uuid::from_u128(id))
            } else {
                TopicRef::Name(StrBytes::from_string(name))
            },
            partitions: partitions
                .into_iter()
                .map(|(index, records)| ProducePartition { index, records: records.map(Bytes::from) })
                .collect(),
        });
        ProduceRequest {
            transactional_id: transactional_id.map(StrBytes::from_string),
            acks,
            timeout_ms,
            topics: topics.collect(),
        }
    }
}

proptest! {
    #[test]
    fn reads_what_the_codec_writes(by_name in request(false), by_id in request(true)) {
        for version in 3..=13 {
            let request = if version >= TOPIC_IDS { &by_id } else { &by_name };
            let bytes = encoded(request, version);
            prop_assert_eq!(&parse(&bytes, version).unwrap(), request);
            for length in 0..bytes.len() {
                prop_assert!(parse(&bytes.slice(..length), version).is_err());
            }
        }
    }

    #[test]
    fn agrees_with_the_codec_on_mutated_bytes(
        seed in any::<u64>(),
        version in 3i16..=13,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (_, body) = Builder::body(ApiKey::Produce, version, seed, true);
        let mut body = body.to_vec();
        for (at, value) in mutations {
            let at = at.index(body.len());
            body[at] = value;
        }
        let body = Bytes::from(body);
        if let Ok(ours) = parse(&body, version) {
            // What we accept is harmless to the codec, and it reads the same from it.
            let theirs = Encoded::decode(&mut body.clone(), version).unwrap();
            prop_assert_eq!(ours.acks, theirs.acks);
            prop_assert_eq!(ours.topics.len(), theirs.topic_data.len());
            for (ours, theirs) in ours.topics.iter().zip(&theirs.topic_data) {
                for (ours, theirs) in ours.partitions.iter().zip(&theirs.partition_data) {
                    prop_assert_eq!(ours.index, theirs.index);
                    prop_assert_eq!(&ours.records, &theirs.records);
                }
            }
        }
    }
}

#[test]
fn records_are_slices_of_the_frame() {
    let request = ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 1,
        topics: vec![ProduceTopic {
            topic: TopicRef::Name(StrBytes::from_static_str("t")),
            partitions: vec![ProducePartition {
                index: 0,
                records: Some(Bytes::from_static(&[7; 100])),
            }],
        }],
    };
    let frame = encoded(&request, 9);
    let parsed = parse(&frame, 9).unwrap();
    let records = parsed.topics[0].partitions[0].records.as_ref().unwrap();
    let range = frame.as_ptr_range();
    assert!(range.contains(&records.as_ptr()));
}

#[test]
fn floods_of_partitions_are_refused() {
    let mut body = BytesMut::new();
    body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't']);
    let count = PARTITIONS_MAX as i32 + 1;
    body.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        body.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }
    assert_eq!(parse(&body.freeze(), 3), Err(Malformed::Budget));
}
