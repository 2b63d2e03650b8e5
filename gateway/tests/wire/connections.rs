use std::time::Duration;

use bytes::BytesMut;
use frazil_gateway::{Config, versions};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchResponse, ProduceResponse, RequestHeader,
    RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use object_store::memory::InMemory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::Node;
use crate::requests::{batch, fetch, fetched, outcomes, produce};

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(9)
        .encode(&mut frame, 1)
        .unwrap();
    frame.extend_from_slice(body);
    frame.to_vec()
}

#[tokio::test]
async fn versions_are_advertised_in_every_version() {
    let node = Node::start().await;
    let mut client = node.client().await;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1.0"));
        let request = if version >= 3 {
            request
        } else {
            ApiVersionsRequest::default()
        };
        let response = client.call(&request, version).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(response.api_keys.len(), versions::SUPPORTED.len());
        let produce = &response.api_keys[0];
        assert_eq!((produce.api_key, produce.min_version), (0, 0));
        if version >= 3 {
            assert!(response.finalized_features_epoch >= 0);
            assert_eq!(response.finalized_features.len(), 1);
        }
    }
    // A version of the future is answered in version 0, and the connection goes on.
    client.send_frame(&frame(18, 77, b"whatever it is")).await;
    let (id, response) = client.receive::<ApiVersionsResponse>(0).await;
    assert_eq!((id, response.error_code), (9, 35));
    assert_eq!(
        client
            .call(&ApiVersionsRequest::default(), 0)
            .await
            .error_code,
        0
    );
}

#[tokio::test]
async fn every_advertised_version_of_every_api_is_answered() {
    let node = Node::start().await;
    node.topic("t", 1, &[]);
    let mut answered = 0;
    for api in versions::SUPPORTED {
        for version in (api.min..=api.max).filter(|v| versions::is_served(api.key, *v)) {
            // Zeros are a legal body for nearly everything: empty strings, no elements, no tags.
            let mut body = BytesMut::from(&[0u8; 64][..]).freeze();
            let Ok(request) = RequestKind::decode(api.key, &mut body, version) else {
                continue;
            };
            let mut frame = BytesMut::new();
            RequestHeader::default()
                .with_request_api_key(api.key as i16)
                .with_request_api_version(version)
                .encode(&mut frame, api.key.request_header_version(version))
                .unwrap();
            request.encode(&mut frame, version).unwrap();
            let mut client = node.client().await;
            client.send_frame(&frame).await;
            if api.key == ApiKey::Produce {
                // With acks=0 it wants no answer.
                continue;
            }
            let what = format!("{:?} version {version}", api.key);
            let mut response = timeout(Duration::from_secs(20), client.receive_frame())
                .await
                .unwrap_or_else(|_| panic!("{what}: no answer"))
                .unwrap_or_else(|| panic!("{what}: closed"));
            let header_version = api.key.response_header_version(version);
            ResponseHeader::decode(&mut response, header_version).unwrap();
            ResponseKind::decode(api.key, &mut response, version)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(response.is_empty(), "{what}: {} bytes left", response.len());
            answered += 1;
        }
    }
    assert!(answered > 60, "only {answered} versions were tried");
}

#[tokio::test]
async fn what_cannot_be_answered_closes_the_connection_after_what_can() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    for bad in [
        frame(999, 0, b""),
        frame(3, 99, b""),
        frame(-1, 0, b""),
        frame(0, 2, b""),
        frame(3, 1, b"\x7f\xff\xff\xff"),
        frame(0, 7, b"\xff\xff\xff\xff\x00\x00\x00\x01\x7f\xff\xff\xff"),
        vec![0; 8],
    ] {
        let mut client = node.client().await;
        client
            .send(&produce(topic, 9, -1, &[(0, batch(&["x"]))]), 9)
            .await;
        client.send_frame(&bad).await;
        let (_, response) = client.receive::<ProduceResponse>(9).await;
        assert_eq!(outcomes(&response)[0].error_code, 0);
        assert_eq!(client.receive_frame().await, None, "{bad:?}");
    }
}

#[tokio::test]
async fn strangers_are_turned_away_at_their_first_bytes() {
    let node = Node::start().await;
    for hello in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        // A reset is as good as an end.
        if read.expect("the connection is closed").is_ok() {
            assert!(answer.is_empty());
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let config = Config {
        connections_max: 2,
        ..Config::default()
    };
    let node = Node::start_with(config, std::sync::Arc::new(InMemory::new())).await;
    let (mut one, mut two) = (node.client().await, node.client().await);
    for client in [&mut one, &mut two] {
        assert_eq!(
            client
                .call(&ApiVersionsRequest::default(), 0)
                .await
                .error_code,
            0
        );
    }
    let mut three = node.client().await;
    assert_eq!(three.receive_frame().await, None);
    assert_eq!(
        one.call(&ApiVersionsRequest::default(), 0).await.error_code,
        0
    );
}

#[tokio::test]
async fn draining_answers_what_was_asked_and_closes() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let (mut consumer, mut producer) = (node.client().await, node.client().await);
    producer.produce(topic, 9, batch(&["a"])).await;
    // This one finds less than it wants, and would wait for a minute.
    let waiting = fetch(topic, 12, &[(0, 0)])
        .with_max_wait_ms(60_000)
        .with_min_bytes(1 << 20);
    consumer.send(&waiting, 12).await;
    // Its request has been read once a second one on the same gateway has been answered; nothing
    // orders the two, so the fetch may also be cut off before it was read.
    producer.produce(topic, 9, batch(&["b"])).await;
    node.shutdown.cancel();
    timeout(Duration::from_secs(20), node.server)
        .await
        .expect("it drains")
        .unwrap();
    if let Some(mut answer) = consumer.receive_frame().await {
        ResponseHeader::decode(&mut answer, 1).unwrap();
        let response = FetchResponse::decode(&mut answer, 12).unwrap();
        assert_eq!(fetched(&response).len(), 1);
        assert_eq!(consumer.receive_frame().await, None);
    }
    assert_eq!(producer.receive_frame().await, None);
    assert!(TcpStream::connect(node.address).await.is_err());
}
