//! What no stock client would send, or would not tell.

use bytes::{Bytes, BytesMut};
use frazil_core::batch::BatchHeader;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest, RequestKind,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::raw::{Connection, batch, fetch, fetched, outcome, produce};
use crate::server::Server;

const PRODUCE: i16 = 9;
const FETCH: i16 = 12;

fn producer_id(connection: &mut Connection) -> i64 {
    let request = InitProducerIdRequest::default()
        .with_transaction_timeout_ms(60_000)
        .with_transactional_id(None);
    let response = connection.ask(&request, 4);
    assert_eq!(response.error_code, 0);
    response.producer_id.0
}

#[tokio::test]
async fn a_repeated_batch_is_answered_with_its_original_offset() {
    for level in ["object", "local"] {
        let mut server = Server::start();
        server
            .create_topic("dup", 1, &[("frazil.durability", level)])
            .await;
        let mut connection = Connection::to(&server);
        let id = producer_id(&mut connection);
        let send = |connection: &mut Connection, sequence| {
            let records = batch(&["a", "b"], Some((id, 0, sequence)));
            outcome(&connection.ask(&produce("dup", 0, records, -1), PRODUCE))
        };
        for n in 0..6 {
            assert_eq!(send(&mut connection, n * 2), (0, i64::from(n) * 2));
        }
        for n in 1..6 {
            assert_eq!(
                send(&mut connection, n * 2),
                (0, i64::from(n) * 2),
                "within the last five"
            );
        }
        assert_eq!(send(&mut connection, 0).0, 45, "older than the last five");
        assert_eq!(send(&mut connection, 14).0, 45, "a gap");
        server.kill();
        server.revive();
        let mut connection = Connection::to(&server);
        assert_eq!(send(&mut connection, 10), (0, 10), "known after a restart");
        assert_eq!(send(&mut connection, 12), (0, 12));
    }
}

#[tokio::test]
async fn an_old_producer_epoch_is_refused_and_a_new_one_begins_at_0() {
    let server = Server::start();
    server.create_topic("epochs", 1, &[]).await;
    let mut connection = Connection::to(&server);
    let id = producer_id(&mut connection);
    let mut send = |epoch, sequence| {
        let records = batch(&["a"], Some((id, epoch, sequence)));
        outcome(&connection.ask(&produce("epochs", 0, records, -1), PRODUCE)).0
    };
    assert_eq!(send(0, 0), 0);
    assert_eq!(send(1, 1), 45);
    assert_eq!(send(1, 0), 0);
    assert_eq!(send(0, 1), 47);
}

#[tokio::test]
async fn a_fetch_within_a_batch_returns_the_whole_batch() {
    let server = Server::start();
    server.create_topic("mid", 1, &[]).await;
    let mut connection = Connection::to(&server);
    let records = batch(&["a", "b", "c"], None);
    for n in 0..3 {
        let sent = produce("mid", 0, records.clone(), -1);
        assert_eq!(outcome(&connection.ask(&sent, PRODUCE)), (0, n * 3));
    }
    for (offset, base) in [(0, 0), (1, 0), (2, 0), (3, 3), (5, 3), (8, 6)] {
        // One byte is less than a batch: the first one comes all the same, and no second.
        let answer = connection.ask(&fetch("mid", 0, offset, 1), FETCH);
        let (error, bytes) = fetched(&answer);
        assert_eq!(error, 0);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (base, 0));
        assert_eq!(header.length as usize, bytes.len(), "one batch");
        header.check_crc(&bytes).unwrap();
        assert_eq!(bytes.slice(16..), records.slice(16..), "as it was sent");
    }
    let answer = connection.ask(&fetch("mid", 0, 0, 1 << 20), FETCH);
    assert_eq!(fetched(&answer).1.len(), records.len() * 3);
    let at_end = connection.ask(&fetch("mid", 0, 9, 1 << 20), FETCH);
    assert_eq!(fetched(&at_end), (0, Bytes::new()));
    for outside in [-1, 10, i64::MAX] {
        let answer = connection.ask(&fetch("mid", 0, outside, 1 << 20), FETCH);
        assert_eq!(fetched(&answer).0, 1, "at {outside}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    server.create_topic("pipe", 1, &[]).await;
    let mut connection = Connection::to(&server);
    let mut expected = Vec::new();
    for n in 0..50 {
        if n % 5 == 4 {
            let request = MetadataRequest::default().with_topics(None);
            expected.push((connection.send(&request, 9), false));
        } else {
            let request = produce("pipe", 0, batch(&["x"], None), -1);
            expected.push((connection.send(&request, PRODUCE), true));
        }
    }
    let mut offset = 0;
    for (correlation, is_produce) in expected {
        if is_produce {
            let response = connection.receive::<ProduceRequest>(correlation, PRODUCE);
            assert_eq!(outcome(&response), (0, offset));
            offset += 1;
        } else {
            connection.receive::<MetadataRequest>(correlation, 9);
        }
    }
}

#[tokio::test]
async fn acks_0_is_not_answered() {
    let server = Server::start();
    server.create_topic("silent", 1, &[]).await;
    let mut connection = Connection::to(&server);
    connection.send(&produce("silent", 0, batch(&["x"], None), 0), PRODUCE);
    // What comes next is the answer to the next request.
    connection.ask(&MetadataRequest::default().with_topics(None), 9);
}

#[tokio::test]
async fn batches_that_lie_are_refused_and_nothing_is_stored() {
    let server = Server::start();
    server.create_topic("lies", 1, &[]).await;
    let mut connection = Connection::to(&server);
    let good = batch(&["a", "b"], None);
    // (byte to change, value, whether the CRC is made right again, error code)
    let recrc = |bytes: &mut BytesMut| {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    };
    for (what, at, value, valid_crc, codes) in [
        ("crc", 17, 0xFF, false, &[2][..]),
        ("body", 70, 0xFF, false, &[2]),
        ("magic", 16, 1, true, &[87, 2]),
        ("length", 11, 1, true, &[2, 87]),
        ("control bit", 22, 0x20, true, &[87]),
        ("codec 7", 22, 7, true, &[87, 2, 76]),
        ("gzip that is none", 22, 1, true, &[87, 2]),
        ("count", 60, 9, true, &[87, 2]),
        ("last delta", 26, 9, true, &[87, 2]),
    ] {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] = value;
        if valid_crc {
            recrc(&mut bytes);
        }
        let request = produce("lies", 0, bytes.freeze(), -1);
        let (code, offset) = outcome(&connection.ask(&request, PRODUCE));
        assert!(codes.contains(&code), "{what}: {code}");
        assert_eq!(offset, -1, "{what}");
    }
    let request = produce("lies", 0, good, -1);
    assert_eq!(
        outcome(&connection.ask(&request, PRODUCE)),
        (0, 0),
        "nothing was stored"
    );
}

#[tokio::test]
async fn api_versions_of_the_future_are_answered_in_version_0() {
    let server = Server::start();
    let mut connection = Connection::to(&server);
    let mut frame = vec![0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'x'];
    frame.extend([0xFF; 20]);
    connection
        .write(&(frame.len() as i32).to_be_bytes())
        .unwrap();
    connection.write(&frame).unwrap();
    let answer = connection.frame().unwrap();
    assert_eq!(&answer[..6], &[0, 0, 0, 7, 0, 35]);
    // The connection goes on.
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("raw"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    assert_eq!(connection.ask(&request, 3).error_code, 0);
}

#[tokio::test]
async fn hostile_frames_close_one_connection_and_harm_no_other() {
    let server = Server::start();
    let mut bystander = Connection::to(&server);
    let frames: [&[u8]; 12] = [
        &[0xFF; 8],
        &[0x7F, 0xFF, 0xFF, 0xFF, 0, 3, 0, 9],
        &[0, 0, 0, 0],
        &[0, 0, 0, 1, 0],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC],
        // Metadata with 2^31-1 topics, in the fixed and in the flexible encoding.
        &[
            0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF,
        ],
        &[
            0, 0, 0, 16, 0, 3, 0, 9, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x07,
        ],
        // A client id that is longer than the frame.
        &[0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0x7F, 0xFF, 0, 0],
        // An API that does not exist, one that is not served, a version that is not.
        &[0, 0, 0, 10, 0x7F, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF],
        &[0, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF],
        &[0, 0, 0, 10, 0, 3, 0x7F, 0, 0, 0, 0, 1, 0xFF, 0xFF],
    ];
    for frame in frames {
        let mut connection = Connection::to(&server);
        connection.write(frame).unwrap();
        assert!(connection.frame().is_none(), "{frame:?} is answered");
        bystander.ask(&MetadataRequest::default().with_topics(None), 9);
    }
}

/// Every version of every advertised API answers a request with default fields, in a form that an
/// independent codec reads to its end.
#[tokio::test]
async fn every_advertised_version_answers() {
    let server = Server::start();
    server.create_topic("sweep", 1, &[]).await;
    let mut connection = Connection::to(&server);
    let request = ApiVersionsRequest::default();
    let advertised = connection.ask(&request, 0).api_keys;
    assert!(advertised.len() > 25, "{}", advertised.len());
    for api in advertised {
        let key = ApiKey::try_from(api.api_key).unwrap();
        let valid = key.valid_versions();
        for version in api.min_version.max(valid.min)..=api.max_version {
            let request = default_request(key);
            let mut connection = Connection::to(&server);
            let mut frame = BytesMut::new();
            kafka_protocol::messages::RequestHeader::default()
                .with_request_api_key(api.api_key)
                .with_request_api_version(version)
                .with_correlation_id(1)
                .encode(&mut frame, key.request_header_version(version))
                .unwrap();
            request
                .encode(&mut frame, version)
                .unwrap_or_else(|error| panic!("{key:?} v{version} cannot be encoded: {error}"));
            connection
                .write(&(frame.len() as i32).to_be_bytes())
                .unwrap();
            connection.write(&frame).unwrap();
            let mut answer = connection
                .frame()
                .unwrap_or_else(|| panic!("{key:?} v{version} is not answered"));
            kafka_protocol::protocol::Decodable::decode(
                &mut answer,
                key.response_header_version(version),
            )
            .map(|header: kafka_protocol::messages::ResponseHeader| {
                assert_eq!(header.correlation_id, 1);
            })
            .unwrap();
            kafka_protocol::messages::ResponseKind::decode(key, &mut answer, version)
                .unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
            assert!(
                answer.is_empty(),
                "{key:?} v{version}: {} bytes are left",
                answer.len()
            );
        }
    }
}

fn default_request(key: ApiKey) -> RequestKind {
    use kafka_protocol::messages as m;
    match key {
        ApiKey::Produce => RequestKind::Produce(m::ProduceRequest::default().with_acks(-1)),
        ApiKey::Fetch => RequestKind::Fetch(m::FetchRequest::default().with_session_epoch(-1)),
        ApiKey::ListOffsets => RequestKind::ListOffsets(m::ListOffsetsRequest::default()),
        ApiKey::Metadata => RequestKind::Metadata(m::MetadataRequest::default()),
        ApiKey::OffsetCommit => RequestKind::OffsetCommit(m::OffsetCommitRequest::default()),
        ApiKey::OffsetFetch => RequestKind::OffsetFetch(m::OffsetFetchRequest::default()),
        ApiKey::FindCoordinator => {
            RequestKind::FindCoordinator(m::FindCoordinatorRequest::default())
        }
        ApiKey::JoinGroup => RequestKind::JoinGroup(m::JoinGroupRequest::default()),
        ApiKey::Heartbeat => RequestKind::Heartbeat(m::HeartbeatRequest::default()),
        ApiKey::LeaveGroup => RequestKind::LeaveGroup(m::LeaveGroupRequest::default()),
        ApiKey::SyncGroup => RequestKind::SyncGroup(m::SyncGroupRequest::default()),
        ApiKey::DescribeGroups => RequestKind::DescribeGroups(m::DescribeGroupsRequest::default()),
        ApiKey::ListGroups => RequestKind::ListGroups(m::ListGroupsRequest::default()),
        ApiKey::ApiVersions => RequestKind::ApiVersions(
            m::ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("raw"))
                .with_client_software_version(StrBytes::from_static_str("1")),
        ),
        ApiKey::CreateTopics => RequestKind::CreateTopics(m::CreateTopicsRequest::default()),
        ApiKey::DeleteTopics => RequestKind::DeleteTopics(m::DeleteTopicsRequest::default()),
        ApiKey::DeleteRecords => RequestKind::DeleteRecords(m::DeleteRecordsRequest::default()),
        ApiKey::InitProducerId => RequestKind::InitProducerId(
            m::InitProducerIdRequest::default().with_transactional_id(None),
        ),
        ApiKey::OffsetForLeaderEpoch => {
            RequestKind::OffsetForLeaderEpoch(m::OffsetForLeaderEpochRequest::default())
        }
        ApiKey::DescribeConfigs => {
            RequestKind::DescribeConfigs(m::DescribeConfigsRequest::default())
        }
        ApiKey::AlterConfigs => RequestKind::AlterConfigs(m::AlterConfigsRequest::default()),
        ApiKey::DescribeLogDirs => {
            RequestKind::DescribeLogDirs(m::DescribeLogDirsRequest::default().with_topics(None))
        }
        ApiKey::CreatePartitions => {
            RequestKind::CreatePartitions(m::CreatePartitionsRequest::default())
        }
        ApiKey::DeleteGroups => RequestKind::DeleteGroups(m::DeleteGroupsRequest::default()),
        ApiKey::ElectLeaders => RequestKind::ElectLeaders(m::ElectLeadersRequest::default()),
        ApiKey::IncrementalAlterConfigs => {
            RequestKind::IncrementalAlterConfigs(m::IncrementalAlterConfigsRequest::default())
        }
        ApiKey::ListPartitionReassignments => {
            RequestKind::ListPartitionReassignments(m::ListPartitionReassignmentsRequest::default())
        }
        ApiKey::OffsetDelete => RequestKind::OffsetDelete(m::OffsetDeleteRequest::default()),
        ApiKey::DescribeCluster => {
            RequestKind::DescribeCluster(m::DescribeClusterRequest::default())
        }
        other => panic!("{other:?} is advertised and not in this test"),
    }
}
