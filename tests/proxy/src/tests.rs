use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

/// Long enough for anything to happen that is going to, where a test waits for nothing to happen.
const QUIET: Duration = Duration::from_millis(100);

/// A server that sends back what it gets, and a link to it.
async fn echo() -> (Proxy, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    let proxy = Proxy::start(address, &Handle::current()).unwrap();
    (proxy, server.abort_handle())
}

async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, bytes);
    Ok(())
}

#[tokio::test]
async fn bytes_go_both_ways_and_so_does_the_end() {
    let (proxy, server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let writing = async {
        writer.write_all(&bytes).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut answer));
    assert_eq!(read.unwrap(), bytes.len());
    assert_eq!(answer, bytes);
    assert_eq!(proxy.bytes(Way::Up), 200_000);
    assert_eq!(proxy.bytes(Way::Down), 200_000);
    assert_eq!(proxy.connections(), 1);
    server.abort();
}

#[tokio::test]
async fn a_cut_link_resets_and_refuses_until_it_is_healed() {
    let (proxy, server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut stream, b"before").await.unwrap();
    proxy.cut();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(refused.read_u8().await.is_err());
    proxy.heal();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut stream, b"after").await.unwrap();
    proxy.reset();
    assert!(stream.read_u8().await.is_err());
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut stream, b"and again").await.unwrap();
    server.abort();
}

#[tokio::test]
async fn what_is_held_one_way_arrives_after_healing() {
    let (proxy, server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut stream, b"before").await.unwrap();
    proxy.hold(Way::Down);
    stream.write_all(b"held").await.unwrap();
    timeout(QUIET, stream.read_u8()).await.unwrap_err();
    assert_eq!(proxy.bytes(Way::Up), 10, "the other way is open");
    proxy.heal();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"held");
    server.abort();
}

#[tokio::test]
async fn what_was_held_arrives_although_its_sender_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let proxy = Proxy::start(target, &Handle::current()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    proxy.hold(Way::Up);
    stream.write_all(b"late").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    timeout(QUIET, accepted.read_u8()).await.unwrap_err();
    proxy.heal();
    let mut late = [0; 4];
    accepted.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"late");
    // And then its end.
    assert!(accepted.read_u8().await.is_err());
}

#[tokio::test]
async fn a_silent_link_connects_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let proxy = Proxy::start(target, &Handle::current()).unwrap();
    proxy.hold(Way::Up);
    let _stream = TcpStream::connect(proxy.address()).await.unwrap();
    timeout(QUIET, listener.accept()).await.unwrap_err();
    proxy.heal();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_tripwire_resets_or_holds_exactly_where_it_lies() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let proxy = Proxy::start(target, &Handle::current()).unwrap();

    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let tripped = proxy.trip(Way::Up, 5, Then::Hold);
    stream.write_all(b"abc").await.unwrap();
    stream.write_all(b"defgh").await.unwrap();
    assert!(tripped.wait().await);
    let mut seen = [0; 5];
    accepted.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"abcde");
    timeout(QUIET, accepted.read_u8()).await.unwrap_err();
    proxy.heal();
    let mut rest = [0; 3];
    accepted.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"fgh");

    let tripped = proxy.trip(Way::Up, 2, Then::Reset);
    stream.write_all(b"xyz").await.unwrap();
    assert!(tripped.wait().await);
    assert!(stream.read_u8().await.is_err());

    let removed = proxy.trip(Way::Up, 2, Then::Reset);
    proxy.heal();
    assert!(!removed.wait().await);
}

#[tokio::test(start_paused = true)]
async fn delay_jitter_and_bandwidth_add_up() {
    let switch = Switch::new(7);
    let start = Instant::now();
    let ms = Duration::from_millis;
    switch.set(Flow::delayed(ms(100), ms(50)));
    switch.leave(start, 1000).await;
    let passed = start.elapsed();
    assert!((ms(100)..=ms(151)).contains(&passed), "{passed:?}");

    let start = Instant::now();
    switch.set(Flow {
        bytes_per_second: Some(1000),
        ..Flow::OPEN
    });
    for _ in 0..3 {
        switch.leave(start, 1000).await;
    }
    let passed = start.elapsed();
    assert!((ms(3000)..=ms(3010)).contains(&passed), "{passed:?}");
    assert_eq!(switch.passed(), 4000);
}
