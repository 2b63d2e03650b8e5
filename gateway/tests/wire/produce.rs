use bytes::{Bytes, BytesMut};
use frazil_core::TopicId;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec};
use frazil_gateway::Config;
use frazil_metadata::command::Command;
use kafka_protocol::messages::{ApiVersionsRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::gate::GatedStore;
use crate::node::{NOW_MS, Node};
use crate::requests::{Topic, batch, fetch, fetched, offsets, outcomes, produce};

#[tokio::test]
async fn what_is_produced_is_fetched_in_every_version() {
    let node = Node::start().await;
    let topic = node.topic("t", 2, &[]);
    let mut client = node.client().await;
    let mut expected = Vec::new();
    for (version, base) in (3..=13).zip((0..).step_by(2)) {
        let request = produce(topic, version, -1, &[(0, batch(&["a", "b"]))]);
        let response = client.call(&request, version).await;
        let outcome = &outcomes(&response)[0];
        assert_eq!((outcome.error_code, outcome.base_offset), (0, base));
        assert_eq!(outcome.log_append_time_ms, -1);
        if version >= 5 {
            assert_eq!(outcome.log_start_offset, 0);
        }
        expected.push((base, 2));
    }
    for version in 4..=18 {
        // From within a batch: it comes whole. The other partition is empty, and answered.
        let request = fetch(topic, version, &[(0, 1), (1, 0)]);
        let response = client.call(&request, version).await;
        let partitions = fetched(&response);
        assert_eq!(partitions.len(), 2, "version {version}");
        assert_eq!(offsets(&partitions[0]), expected, "version {version}");
        assert_eq!(partitions[0].high_watermark, 22);
        assert_eq!(partitions[0].last_stable_offset, 22);
        assert_eq!(partitions[1].high_watermark, 0);
        assert_eq!(partitions[1].records.as_deref(), Some(&[][..]));
    }
}

#[tokio::test]
async fn a_repeated_batch_gets_its_first_offset_and_a_gap_is_refused() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let set = |sequence| {
        BatchBuilder::new()
            .producer(7, 0, sequence)
            .record(NOW_MS, None, Some(b"v"))
            .build()
    };
    assert_eq!(client.produce(topic, 9, set(0)).await, (0, 0));
    assert_eq!(client.produce(topic, 9, set(1)).await, (0, 1));
    assert_eq!(client.produce(topic, 9, set(0)).await, (0, 0));
    assert_eq!(client.produce(topic, 9, set(3)).await, (45, -1));
    assert_eq!(client.produce(topic, 9, set(2)).await, (0, 2));
}

#[tokio::test]
async fn partitions_fail_alone() {
    let node = Node::start().await;
    let topic = node.topic("t", 20, &[("max.message.bytes", "1000")]);
    let mut client = node.client().await;
    let mut corrupt = BytesMut::from(&batch(&["x"])[..]);
    *corrupt.last_mut().unwrap() ^= 1;
    let mut based = BytesMut::from(&batch(&["x"])[..]);
    based[7] = 9;
    let mut two = BytesMut::from(&batch(&["x"])[..]);
    two.extend_from_slice(&batch(&["y"]));
    let old_format = {
        let mut bytes = BytesMut::from(&batch(&["x"])[..]);
        bytes[16] = 1;
        bytes
    };
    let zstd = BatchBuilder::new()
        .codec(Codec::Zstd)
        .record(NOW_MS, None, Some(b"v"));
    let late = BatchBuilder::new().record(NOW_MS + 7_200_000, None, None);
    let control = BatchBuilder::new()
        .attributes(1 << 5)
        .record(NOW_MS, None, None);
    let transactional = BatchBuilder::new()
        .attributes(1 << 4)
        .producer(1, 0, 0)
        .record(NOW_MS, None, None);
    let sets: Vec<(Bytes, i16)> = vec![
        (batch(&["ok"]), 0),
        (corrupt.freeze(), 2),
        (based.freeze(), 87),
        (two.freeze(), 87),
        (old_format.freeze(), 87),
        (batch(&[&"x".repeat(2000)]), 10),
        (batch(&["cut off"]).slice(..40), 2),
        (Bytes::new(), 2),
        (zstd.build(), 76),
        (late.build(), 32),
        (control.build(), 87),
        (transactional.build(), 53),
        (batch(&["also ok"]), 0),
    ];
    let mut indexed: Vec<(i32, Bytes)> =
        (0..).zip(sets.iter().map(|(set, _)| set.clone())).collect();
    indexed.push((20, batch(&["no such partition"])));
    indexed.push((-1, batch(&["no such partition"])));
    let mut expected: Vec<i16> = sets.iter().map(|(_, code)| *code).collect();
    expected.extend([3, 3]);
    let response = client.call(&produce(topic, 6, -1, &indexed), 6).await;
    let codes: Vec<i16> = outcomes(&response).iter().map(|o| o.error_code).collect();
    assert_eq!(codes, expected);
    for (outcome, (index, _)) in outcomes(&response).iter().zip(&indexed) {
        assert_eq!(outcome.index, *index);
        let offset = if outcome.error_code == 0 { 0 } else { -1 };
        assert_eq!(outcome.base_offset, offset);
    }
    // From version 7 on zstd is welcome.
    assert_eq!(client.produce(topic, 7, zstd.build()).await, (0, 1));
}

#[tokio::test]
async fn refusals_say_which_record_is_wrong() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[("cleanup.policy", "compact")]);
    let mut client = node.client().await;
    let set = BatchBuilder::new()
        .record(NOW_MS, Some(b"k"), Some(b"v"))
        .record(NOW_MS, None, Some(b"v"))
        .build();
    let response = client.call(&produce(topic, 8, -1, &[(0, set)]), 8).await;
    let outcome = &outcomes(&response)[0];
    assert_eq!(outcome.error_code, 87);
    assert_eq!(outcome.record_errors.len(), 1);
    assert_eq!(outcome.record_errors[0].batch_index, 1);
    assert!(outcome.error_message.is_some());
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused_for_every_partition() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let missing = Topic("missing", TopicId::new(Uuid::from_u128(5)));
    let mut client = node.client().await;
    for (version, expected) in [(12, 3), (13, 100)] {
        assert_eq!(
            client.produce(missing, version, batch(&["x"])).await,
            (expected, -1)
        );
    }
    let acks = client
        .call(&produce(topic, 9, 2, &[(0, batch(&["x"]))]), 9)
        .await;
    assert_eq!(outcomes(&acks)[0].error_code, 21);
    let transactional = produce(topic, 9, -1, &[(0, batch(&["x"]))])
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("tx"))));
    let response = client.call(&transactional, 9).await;
    assert_eq!(outcomes(&response)[0].error_code, 53);
    assert_eq!(client.produce(topic, 9, batch(&["first"])).await, (0, 0));
}

#[tokio::test]
async fn the_broker_gives_the_time_where_the_topic_says_so() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut client = node.client().await;
    let set = BatchBuilder::new().record(5, None, Some(b"v")).build();
    let response = client.call(&produce(topic, 9, -1, &[(0, set)]), 9).await;
    assert_eq!(outcomes(&response)[0].error_code, 0);
    assert_eq!(outcomes(&response)[0].log_append_time_ms, NOW_MS);
    let response = client.call(&fetch(topic, 12, &[(0, 0)]), 12).await;
    let records = fetched(&response)[0].records.clone().unwrap();
    let header = BatchHeader::parse(&records).unwrap();
    header.check_crc(&records).unwrap();
    assert_eq!(header.max_timestamp, NOW_MS);
}

#[tokio::test]
async fn without_acks_there_is_no_answer_and_an_error_closes_the_connection() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let silent = produce(topic, 9, 0, &[(0, batch(&["x"]))]);
    client.send(&silent, 9).await;
    let asked = client.send(&ApiVersionsRequest::default(), 0).await;
    let (answered, _) = client
        .receive::<kafka_protocol::messages::ApiVersionsResponse>(0)
        .await;
    assert_eq!(asked, answered);
    node.cache.drain().await;
    assert_eq!(client.produce(topic, 9, batch(&["y"])).await, (0, 1));

    let bad = produce(topic, 9, 0, &[(0, Bytes::from_static(b"no batch"))]);
    client.send(&bad, 9).await;
    assert_eq!(client.receive_frame().await, None);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let mut sent = Vec::new();
    for i in 0..40 {
        if i % 8 == 7 {
            sent.push((client.send(&ApiVersionsRequest::default(), 0).await, None));
        } else {
            let request = produce(topic, 9, -1, &[(0, batch(&["x"]))]);
            let offset = sent.iter().filter(|(_, offset)| offset.is_some()).count() as i64;
            sent.push((client.send(&request, 9).await, Some(offset)));
        }
    }
    for (expected, offset) in sent {
        match offset {
            None => {
                let (id, _) = client
                    .receive::<kafka_protocol::messages::ApiVersionsResponse>(0)
                    .await;
                assert_eq!(id, expected);
            }
            Some(offset) => {
                let (id, response) = client.receive::<ProduceResponse>(9).await;
                assert_eq!(id, expected);
                assert_eq!(outcomes(&response)[0].base_offset, offset);
            }
        }
    }
}

#[tokio::test]
async fn a_topic_made_elsewhere_a_moment_ago_is_found() {
    let node = Node::start().await;
    node.quorum.freeze();
    let topic = node.topic("new", 1, &[]);
    let mut client = node.client().await;
    assert_eq!(client.produce(topic, 13, batch(&["x"])).await, (0, 0));

    // So is a partition.
    node.quorum.freeze();
    node.quorum.apply(Command::CreatePartitions {
        id: topic.1,
        partitions: 2,
    });
    let response = client
        .call(&produce(topic, 13, -1, &[(1, batch(&["x"]))]), 13)
        .await;
    assert_eq!(outcomes(&response)[0].error_code, 0);
    node.quorum.freeze();
    node.quorum.apply(Command::CreatePartitions {
        id: topic.1,
        partitions: 3,
    });
    let response = client.call(&fetch(topic, 13, &[(2, 0)]), 13).await;
    assert_eq!(fetched(&response)[0].error_code, 0);
}

#[tokio::test]
async fn requests_of_one_connection_are_in_flight_together() {
    let store = GatedStore::new();
    let node = Node::start_with(Config::default(), store.clone()).await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let mut sent = Vec::new();
    for puts in 1..=3 {
        let request = produce(topic, 9, -1, &[(0, batch(&["x"]))]);
        sent.push(client.send(&request, 9).await);
        // It is on its way to the store, and the ones before it have not been answered.
        store.waiting(puts).await;
    }
    store.open();
    for (offset, expected) in (0..).zip(sent) {
        let (id, response) = client.receive::<ProduceResponse>(9).await;
        assert_eq!(id, expected);
        assert_eq!(outcomes(&response)[0].base_offset, offset);
    }
}

#[tokio::test]
async fn an_outcome_that_is_not_known_in_time_is_a_timeout_and_may_be_asked_for_again() {
    let store = GatedStore::new();
    let node = Node::start_with(Config::default(), store.clone()).await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let set = BatchBuilder::new()
        .producer(7, 0, 0)
        .record(NOW_MS, None, Some(b"v"))
        .build();
    let impatient = produce(topic, 9, -1, &[(0, set.clone())]).with_timeout_ms(50);
    let response = client.call(&impatient, 9).await;
    let outcome = &outcomes(&response)[0];
    assert_eq!((outcome.error_code, outcome.base_offset), (7, -1));
    store.open();
    assert_eq!(client.produce(topic, 9, set).await, (0, 0));
    assert_eq!(client.produce(topic, 9, batch(&["next"])).await, (0, 1));
}

#[tokio::test]
async fn batches_that_grow_by_another_codec_take_room_for_what_they_have_become() {
    let store = GatedStore::new();
    let node = Node::start_with(Config::default(), store.clone()).await;
    let settings = [
        ("compression.type", "uncompressed"),
        ("max.message.bytes", "8388608"),
    ];
    let topic = node.topic("t", 1, &settings);
    let mut client = node.client().await;
    let value = vec![0; 6 << 20];
    let set = BatchBuilder::new()
        .codec(Codec::Gzip)
        .record(NOW_MS, None, Some(&value))
        .build();
    assert!(set.len() < 64 << 10);
    // Nothing reaches the store: whatever is accepted keeps its room when its time is over.
    let mut codes = Vec::new();
    for _ in 0..13 {
        let request = produce(topic, 9, -1, &[(0, set.clone())]).with_timeout_ms(1);
        let response = client.call(&request, 9).await;
        codes.push(outcomes(&response)[0].error_code);
    }
    // There is room for 64 MiB.
    let accepted = codes.iter().filter(|code| **code == 7).count();
    assert!((1..=10).contains(&accepted), "{codes:?}");
    assert!(
        codes[accepted..].iter().all(|code| *code == 19),
        "{codes:?}"
    );
    store.open();
}
