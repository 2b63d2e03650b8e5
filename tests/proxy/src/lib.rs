//! A TCP link between two programs of a test, whose faults are set while it runs.
//!
//! ```text
//!            ┌────────────────────── Proxy ──────────────────────┐
//!   client ──┤ up:   read ─► queue (stamped) ─► due? open? write ├──► server
//!          ◄─┤ down: write ◄─ due? open? ◄─ queue (stamped) read ├───
//!            └───────────────────────────────────────────────────┘
//! ```
//!
//! One proxy stands for one link: programs are told its address in the place of the server's. What
//! can be set, for each way on its own and at any time:
//!
//! - **held**: bytes wait in the proxy, as they do in the sender's kernel while a network swallows
//!   packets; they arrive late, after healing, even if their sender has given up. Connections are
//!   still accepted, and are silent.
//! - **delay and jitter**, in the order of sending; **bandwidth**.
//! - **a tripwire**: after so many more bytes the way is held, or the connection reset; whoever
//!   waits for it is told. That is how a process is killed in the middle of a request.
//!
//! And for the link as a whole: [`Proxy::cut`] resets every connection and refuses new ones, until
//! [`Proxy::heal`].
//!
//! A proxy decides nothing by itself: what is random (jitter) comes from a seed that is its port.

mod flow;
mod pump;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use flow::Switch;
pub use flow::{Flow, Then, Tripped};
use pump::End;

/// One way of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever connects to whoever listens: requests.
    Up,
    /// Back: responses.
    Down,
}

/// Whether connections are let in, and which of them may stay: those of this number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Door {
    open: bool,
    era: u64,
}

struct Shared {
    target: SocketAddr,
    up: Arc<Switch>,
    down: Arc<Switch>,
    door: watch::Sender<Door>,
    connections: AtomicU64,
}

/// A link. Dropping it closes the listener and every connection.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Proxy {
    /// A link to `target`, on a free port of the loopback, that lets everything through.
    ///
    /// # Errors
    /// No port.
    pub fn start(target: SocketAddr, runtime: &Handle) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let seed = u64::from(address.port());
        let shared = Arc::new(Shared {
            target,
            up: Arc::new(Switch::new(seed)),
            down: Arc::new(Switch::new(!seed)),
            door: watch::Sender::new(Door { open: true, era: 0 }),
            connections: AtomicU64::new(0),
        });
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        drop(entered);
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn switch(&self, way: Way) -> &Arc<Switch> {
        match way {
            Way::Up => &self.shared.up,
            Way::Down => &self.shared.down,
        }
    }

    /// Sets how one way flows from now on, also on the connections that there are.
    pub fn set(&self, way: Way, flow: Flow) {
        self.switch(way).set(flow);
    }

    /// Sets how both ways flow.
    pub fn set_both(&self, flow: Flow) {
        self.set(Way::Up, flow);
        self.set(Way::Down, flow);
    }

    /// Holds what goes one way.
    pub fn hold(&self, way: Way) {
        self.set(way, Flow::HELD);
    }

    /// Lays a tripwire: after `bytes` more have gone this way, over whichever connections, what
    /// `then` says happens to the connection that they went over. An earlier tripwire of that way
    /// is gone.
    pub fn trip(&self, way: Way, bytes: u64, then: Then) -> Tripped {
        self.switch(way).trip(bytes, then)
    }

    /// Resets every connection, and new ones until [`Self::heal`].
    pub fn cut(&self) {
        self.shared.door.send_modify(|door| {
            door.open = false;
            door.era += 1;
        });
    }

    /// Resets every connection; new ones are let in.
    pub fn reset(&self) {
        self.shared.door.send_modify(|door| door.era += 1);
    }

    /// Lets everything through again, and forgets tripwires. What was held arrives.
    pub fn heal(&self) {
        self.shared.up.heal();
        self.shared.down.heal();
        self.shared.door.send_modify(|door| door.open = true);
    }

    /// How many bytes have gone one way.
    pub fn bytes(&self, way: Way) -> u64 {
        self.switch(way).passed()
    }

    /// How many connections were let in.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    open.spawn(connection(client, Arc::clone(&shared)));
                }
                // Out of descriptors, for a moment: whoever connects waits in the backlog.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
        }
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let mut door = shared.door.subscribe();
    let entered = *door.borrow_and_update();
    if !entered.open {
        // Closed with a reset.
        let _ = client.set_zero_linger();
        return;
    }
    shared.connections.fetch_add(1, Ordering::Relaxed);
    // A network that swallows requests lets nobody connect.
    shared.up.opened().await;
    let Ok(server) = TcpStream::connect(shared.target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let left = async {
        // The sender lives as long as the proxy.
        let _ = door.wait_for(|now| now.era != entered.era).await;
    };
    let moved = tokio::select! {
        how = both_ways(&client, &server, &shared) => how,
        () = left => End::Reset,
    };
    if moved != End::Closed {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Moves bytes until both ways have ended, or one by a reset.
async fn both_ways(client: &TcpStream, server: &TcpStream, shared: &Shared) -> End {
    let up = pump::run(client, server, &shared.up);
    let down = pump::run(server, client, &shared.down);
    tokio::pin!(up, down);
    let (first, second) = tokio::select! {
        first = &mut up => match first {
            End::Reset => return End::Reset,
            first => (first, down.await),
        },
        first = &mut down => match first {
            End::Reset => return End::Reset,
            first => (first, up.await),
        },
    };
    match first {
        End::Closed => second,
        first => first,
    }
}

#[cfg(test)]
mod tests;
