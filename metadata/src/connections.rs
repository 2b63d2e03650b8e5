//! Where a voter's connections come from.

use std::io;

use tokio::sync::mpsc;

use crate::net::{TcpListener, TcpStream};

/// Connections of other nodes: a port of the voter's own, or streams that were accepted by whoever
/// shares a port between several protocols, with nothing taken from them.
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
        match self {
            Self::Listener(listener) => Ok(Some(listener.accept().await?.0)),
            Self::Handed(streams) => Ok(streams.recv().await),
        }
    }
}

impl From<TcpListener> for Connections {
    fn from(listener: TcpListener) -> Self {
        Self::Listener(listener)
    }
}
