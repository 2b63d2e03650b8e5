//! A network in memory, of gateways and of others that only look like some.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use frazil_core::BrokerId;
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

use crate::net::{Dial, Stream};
use crate::peer::Server;
use crate::peer::wire::{Greeting, REQUEST_MAX, Request, read_frame};

/// What a made-up gateway answers: frames' bytes, or nothing.
pub(crate) type Script = Arc<dyn Fn(u64, Request) -> Vec<u8> + Send + Sync>;

/// Who is at an address.
#[derive(Clone)]
pub(crate) enum Host {
    /// A gateway.
    Gateway(Server),
    /// It takes connections and nothing else.
    Mute,
    /// It greets as the gateway of that id and then follows a script.
    Scripted(BrokerId, Script),
}

#[derive(Default)]
pub(crate) struct MemNet {
    hosts: Mutex<HashMap<String, (Host, JoinSet<()>)>>,
    dials: AtomicU64,
}

impl MemNet {
    /// Puts a host at an address. Connections to whoever was there break.
    pub(crate) fn set(&self, address: &str, host: Host) {
        let entry = (host, JoinSet::new());
        self.hosts.lock().insert(address.to_owned(), entry);
    }

    /// Nobody is at an address any more.
    pub(crate) fn remove(&self, address: &str) {
        self.hosts.lock().remove(address);
    }

    /// How often somebody tried to connect.
    pub(crate) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Dial for MemNet {
    async fn dial(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let mut hosts = self.hosts.lock();
        let Some((host, tasks)) = hosts.get_mut(address) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let host = host.clone();
        tasks.spawn(async move {
            match host {
                Host::Gateway(server) => drop(server.serve(theirs).await),
                Host::Mute => {
                    std::future::pending::<()>().await;
                    drop(theirs);
                }
                Host::Scripted(broker, script) => drop(play(theirs, broker, script).await),
            }
        });
        Ok(Box::new(ours))
    }
}

async fn play(mut stream: DuplexStream, broker: BrokerId, script: Script) -> io::Result<()> {
    let theirs = Greeting::read(&mut stream).await?;
    let ours = Greeting::new(&theirs.cluster, broker, theirs.sender);
    ours.send(&mut stream).await?;
    while let Some((id, body)) = read_frame(&mut stream, REQUEST_MAX).await? {
        let answer = script(id, Request::parse(&body)?);
        stream.write_all(&answer).await?;
    }
    Ok(())
}
