//! The port at which other nodes reach this one, `peer.listen`, for a node that is both voter and
//! gateway.
//!
//! Both protocols begin with a greeting whose magic stands at the same place. It is looked at
//! without being taken, and the connection goes to whoever speaks that protocol.

use std::io;
use std::time::Duration;

use frazil_cache::peer::{PROLOGUE, is_ours};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::Config;

/// Connections that have not greeted yet, and such that wait to be taken, at most.
const WAITING_MAX: usize = 256;
/// How long a connection may take to show its magic.
const GREETING: Duration = Duration::from_secs(10);
/// The wait for the rest of a magic of which a part has arrived, which hardly ever happens.
const REST: Duration = Duration::from_millis(5);

/// Connections to one port, by who is meant.
#[derive(Debug)]
pub struct Sorted {
    /// For the voter.
    pub metadata: mpsc::Receiver<TcpStream>,
    /// For the gateway.
    pub gateway: mpsc::Receiver<TcpStream>,
}

/// The sorting of `listener`'s connections, to be run, and where they come out.
pub fn sort(
    listener: TcpListener,
    stop: CancellationToken,
) -> (impl Future<Output = io::Result<()>> + Send, Sorted) {
    let (to_metadata, metadata) = mpsc::channel(WAITING_MAX);
    let (to_gateway, gateway) = mpsc::channel(WAITING_MAX);
    let sorting = async move {
        let mut waiting = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = waiting.join_next() => {}
                accepted = listener.accept(), if waiting.len() < WAITING_MAX => match accepted {
                    Ok((stream, from)) => {
                        let (metadata, gateway) = (to_metadata.clone(), to_gateway.clone());
                        waiting.spawn(async move {
                            match tokio::time::timeout(GREETING, prologue(&stream)).await {
                                Ok(Ok(bytes)) => {
                                    let to = if is_ours(&bytes) { gateway } else { metadata };
                                    // Whoever is meant may have ended.
                                    let _ = to.send(stream).await;
                                }
                                Ok(Err(error)) => debug!(%from, %error, "nobody greeted"),
                                Err(_) => debug!(%from, "nobody greeted in time"),
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, "a connection of another node was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    };
    (sorting, Sorted { metadata, gateway })
}

async fn prologue(stream: &TcpStream) -> io::Result<[u8; PROLOGUE]> {
    let mut bytes = [0; PROLOGUE];
    loop {
        match stream.peek(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            PROLOGUE => return Ok(bytes),
            _ => tokio::time::sleep(REST).await,
        }
    }
}

/// Where other nodes reach this one, given the port that was really bound.
pub fn address(config: &Config, bound_port: u16) -> String {
    if let Some(own) = config.own_voter() {
        return own.address.to_string();
    }
    let mut address = config.peer_listen.clone();
    if address.is_wildcard() {
        // Whoever reaches the gateway as a client reaches this port too.
        address.host = config.advertised(0).host;
    }
    address.port = bound_port;
    address.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::{Sources, load};

    #[tokio::test]
    async fn connections_go_to_whom_they_greet_with_nothing_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (sorting, mut sorted) = sort(listener, stop.clone());
        let sorting = tokio::spawn(sorting);
        let mut greeting = [7; 30];
        greeting[12..20].copy_from_slice(b"FRZDATA\x01");
        // One that says nothing holds nobody up, one that is cut is not taken for anything.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut cut = TcpStream::connect(address).await.unwrap();
        cut.write_all(&greeting[..11]).await.unwrap();
        drop(cut);
        for (magic, is_gateway) in [
            (b"FRZDATA\x01", true),
            (b"FRZPEER\x01", false),
            (b"GET / HT", false),
        ] {
            let to = match is_gateway {
                true => &mut sorted.gateway,
                false => &mut sorted.metadata,
            };
            greeting[12..20].copy_from_slice(magic);
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&greeting[..15]).await.unwrap();
            client.flush().await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(&greeting[15..]).await.unwrap();
            let mut stream = to.recv().await.unwrap();
            let mut got = [0; 30];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(got, greeting);
        }
        stop.cancel();
        sorting.await.unwrap().unwrap();
        assert!(sorted.gateway.recv().await.is_none());
    }

    #[test]
    fn the_address_is_one_that_others_can_connect_to() {
        let address = |id: &str, roles: &str, listen: &str| {
            let settings = [
                ("node.id", id),
                ("roles", roles),
                ("peer.listen", listen),
                ("controller.quorum.voters", "7@voter:1,8@other:1"),
                ("advertised.listeners", "PLAINTEXT://broker:1234"),
                ("store.url", "s3://bucket/prefix"),
            ];
            let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let sources = Sources {
                set: settings.to_vec(),
                ..Sources::default()
            };
            super::address(&load(&sources).unwrap().config, 9)
        };
        assert_eq!(address("9", "gateway", "10.0.0.1:0"), "10.0.0.1:9");
        assert_eq!(address("9", "gateway", "0.0.0.0:0"), "broker:9");
        assert_eq!(address("8", "gateway,metadata", "0.0.0.0:1"), "other:1");
    }
}
