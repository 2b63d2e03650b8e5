//! Reading what another gateway's write-ahead log has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::Codec;
use frazil_core::ports::LogIndex;
use frazil_core::{BrokerEpoch, BrokerId, Extent, Location, Offset};
use tokio::time::Instant;

use crate::peer::wire::{Reply, Request};
use crate::testing::net::Script;
use crate::testing::store::Weather;
use crate::testing::world::address;
use crate::testing::{Host, Running, World, batch_of, partition};
use crate::{Compression, Durability, Read, ReadError, ReadRequest};

const HOLDER: BrokerId = BrokerId(7);
const READER: BrokerId = BrokerId(8);

/// Two gateways. What the first one acknowledges stays in its log.
async fn two_gateways() -> (World, Running, Running) {
    let world = World::new(1);
    world.store.set(Weather {
        throttled: 100,
        ..Weather::default()
    });
    let holder = world.start_gateway(HOLDER, None).await;
    let reader = world.start_gateway(READER, None).await;
    (world, holder, reader)
}

async fn append(node: &Running, sizes: &[usize]) {
    for (n, size) in sizes.iter().enumerate() {
        let batch = batch_of(2, *size, n as u8);
        let pending = node.append_bytes(0, Durability::Local, batch).await;
        pending.await.unwrap();
    }
}

async fn read(node: &Running, from: i64, up_to: i64) -> Result<Read, ReadError> {
    let request = ReadRequest {
        partition: partition(0),
        from: Offset(from),
        up_to: Offset(up_to),
        max_bytes: 8 << 20,
        min_one: true,
        compression: Compression::As(Codec::Lz4),
    };
    node.cache.read(request).await
}

fn script(answer: impl Fn(u64, Request) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Arc::new(answer)
}

fn frame(id: u64, reply: Reply) -> Vec<u8> {
    let (head, body) = reply.frame(id);
    [head, body].concat()
}

fn elsewhere(read: &Result<Read, ReadError>) -> bool {
    matches!(read, Err(ReadError::ElsewhereInWal { broker: HOLDER }))
}

#[tokio::test(start_paused = true)]
async fn what_another_gateway_acknowledged_is_read_before_its_upload() {
    let (world, holder, reader) = two_gateways().await;
    // One of them needs several replies.
    append(&holder, &[100, 3_000_000, 50, 100]).await;
    let extents = world.quorum.extents(partition(0));
    let in_log = |e: &Extent| matches!(e.location, Location::Wal { broker: HOLDER, .. });
    assert!(extents.iter().all(in_log), "{extents:?}");
    let there = read(&holder, 0, 8).await.unwrap();
    let here = read(&reader, 0, 8).await.unwrap();
    assert_eq!(here.next, Offset(8));
    assert_eq!(here.pieces.concat(), there.pieces.concat());
    let whole = reader.cache.read_extent(partition(0), &extents[1]).await;
    assert_eq!(whole.unwrap()[0].1.len(), 3_000_061);
    let stats = reader.cache.stats();
    assert_eq!((stats.gets, stats.peer_wal_reads), (0, 5));
    // A part of it, from the middle.
    let some = read(&reader, 5, 6).await.unwrap();
    assert_eq!((some.next, some.bytes), (Offset(6), 111));
}

#[tokio::test(start_paused = true)]
async fn what_has_moved_meanwhile_is_read_from_where_it_is() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[100, 100]).await;
    let old = world.quorum.extents(partition(0))[0];
    world.store.set(Weather::default());
    holder.cache.drain().await;
    let batches = reader.cache.read_extent(partition(0), &old).await.unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].0, Offset(0));
    assert!(reader.cache.stats().gets > 0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_down_costs_its_waiting_time_once() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[100]).await;
    for (host, first) in [(None, 0), (Some(Host::Mute), 500)] {
        match host {
            None => world.net.remove(&address(HOLDER)),
            Some(host) => world.net.set(&address(HOLDER), host),
        }
        let before = Instant::now();
        let failed = read(&reader, 0, 2).await;
        assert!(elsewhere(&failed), "{failed:?}");
        assert_eq!(before.elapsed().as_millis(), first);
        let (before, dials) = (Instant::now(), world.net.dials());
        let failed = read(&reader, 0, 2).await;
        assert!(elsewhere(&failed), "{failed:?}");
        assert_eq!(before.elapsed(), Duration::ZERO, "nobody waits again");
        assert_eq!(world.net.dials(), dials);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    // It is asked again once it may be back.
    let server = holder.cache.peer_server();
    world.net.set(&address(HOLDER), Host::Gateway(server));
    assert_eq!(read(&reader, 0, 2).await.unwrap().next, Offset(2));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_dies_in_the_middle_of_an_answer_fails_the_read_for_now() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[1000]).await;
    let half = |id, _| {
        let mut frame = frame(id, Reply::Bytes(Bytes::from(vec![0; 1061])));
        frame.truncate(500);
        frame
    };
    let host = Host::Scripted(HOLDER, script(half));
    world.net.set(&address(HOLDER), host);
    let reading = read(&reader, 0, 2);
    let dying = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.net.remove(&address(HOLDER));
    };
    let (failed, ()) = tokio::join!(reading, dying);
    assert!(elsewhere(&failed), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_are_never_given_out() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[100]).await;
    let Location::Wal {
        epoch,
        start,
        length,
        ..
    } = world.quorum.extents(partition(0))[0].location
    else {
        panic!("it is in the log");
    };
    let server = holder.cache.peer_server();
    let good = server.wal_for_tests(epoch, start, length).unwrap();
    let flipped = {
        let mut bytes = good.to_vec();
        bytes[130] ^= 1;
        Bytes::from(bytes)
    };
    let answers: [Script; 7] = [
        script(move |id, _| frame(id, Reply::Bytes(flipped.clone()))),
        script(move |id, _| frame(id, Reply::Bytes(good.slice(..160)))),
        script(|id, _| frame(id, Reply::Bytes(Bytes::from(vec![0; 161])))),
        script(|id, _| frame(id, Reply::Failed("as the test wants it".into()))),
        // A length that is only claimed, one beyond the limit, and no reply at all.
        script(|id, _| [&(1u32 << 20).to_be_bytes()[..], &id.to_be_bytes(), &[0]].concat()),
        script(|_, _| vec![0xFF; 100]),
        script(|_, _| vec![0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 77]),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        world
            .net
            .set(&address(HOLDER), Host::Scripted(HOLDER, answer));
        let failed = read(&reader, 0, 2).await;
        assert!(elsewhere(&failed), "{n}: {failed:?}");
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    // Somebody else is there.
    let other = Host::Gateway(reader.cache.peer_server());
    world.net.set(&address(HOLDER), other);
    let failed = read(&reader, 0, 2).await;
    assert!(elsewhere(&failed), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_life_answers_for_an_old_log_only_if_it_recovered_it() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[100]).await;
    let extent = world.quorum.extents(partition(0))[0];
    let Location::Wal { epoch, .. } = extent.location else {
        panic!("it is in the log");
    };
    holder.kill().await;
    world.net.remove(&address(HOLDER));
    assert!(elsewhere(&read(&reader, 0, 2).await));
    // Its next life has recovered the log and can be asked at once.
    let holder = world.start_gateway(HOLDER, None).await;
    assert_eq!(
        world.quorum.extents(partition(0))[0],
        extent,
        "of the old epoch"
    );
    assert_eq!(read(&reader, 0, 2).await.unwrap().next, Offset(2));
    append(&holder, &[100]).await;
    assert_eq!(read(&reader, 0, 4).await.unwrap().next, Offset(4));
    // The same place of another epoch is another place.
    let server = holder.cache.peer_server();
    let Location::Wal { start, length, .. } = extent.location else {
        panic!("it is in the log");
    };
    assert!(server.wal_for_tests(epoch, start, length).is_some());
    for epoch in [BrokerEpoch(epoch.0 + 100), BrokerEpoch(0)] {
        assert_eq!(server.wal_for_tests(epoch, start, length), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_leaves_nothing_behind() {
    let (world, holder, reader) = two_gateways().await;
    append(&holder, &[100]).await;
    let silent = script(|id, _| frame(id, Reply::Working));
    world
        .net
        .set(&address(HOLDER), Host::Scripted(HOLDER, silent));
    for _ in 0..200 {
        let limit = Duration::from_millis(10);
        let reading = tokio::time::timeout(limit, read(&reader, 0, 2)).await;
        assert!(reading.is_err(), "there is no answer");
    }
    // More have left than calls fit.
    let server = holder.cache.peer_server();
    world.net.set(&address(HOLDER), Host::Gateway(server));
    assert_eq!(read(&reader, 0, 2).await.unwrap().next, Offset(2));
    assert!(world.quorum.bounds(&partition(0)).is_some());
}
