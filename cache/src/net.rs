//! The network of this crate: how connections to other gateways are made, and where theirs come
//! from. Sockets are tokio's, or with the feature `sim` those of a simulated network.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(not(feature = "sim"))]
pub use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
#[cfg(feature = "sim")]
pub use turmoil::net::{TcpListener, TcpStream};

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Makes connections.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// As connecting a socket.
    ///
    /// # Cancel safety
    /// The connection is given up.
    async fn dial(&self, address: &str) -> io::Result<Box<dyn Stream>>;
}

/// Makes connections over TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Connections of other gateways: a port of the gateway's own, or streams that were accepted by
/// whoever shares a port between several protocols, with nothing taken from them.
pub enum Connections {
    /// A port of its own.
    Listener(TcpListener),
    /// Accepted elsewhere. When the sender is gone, no more will come.
    Handed(mpsc::Receiver<TcpStream>),
}

impl Connections {
    /// The next connection. `None`: there will be none any more.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<TcpStream>> {
        let stream = match self {
            Self::Listener(listener) => Some(listener.accept().await?.0),
            Self::Handed(streams) => streams.recv().await,
        };
        if let Some(stream) = &stream {
            stream.set_nodelay(true)?;
        }
        Ok(stream)
    }
}

impl From<TcpListener> for Connections {
    fn from(listener: TcpListener) -> Self {
        Self::Listener(listener)
    }
}
