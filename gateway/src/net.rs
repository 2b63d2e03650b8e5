//! The sockets of this crate: tokio's, or with the feature `sim` those of a simulated network.

use std::io;

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::net::{TcpListener, TcpStream};
#[cfg(feature = "sim")]
pub(crate) use turmoil::net::{TcpListener, TcpStream};

/// Has the operating system notice that a client's machine is gone.
#[cfg(not(feature = "sim"))]
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_keepalive(true)
}

/// A simulated connection sends no keep-alives: it lasts until an end closes it.
#[cfg(feature = "sim")]
pub(crate) fn keep_alive(_: &TcpStream) -> io::Result<()> {
    Ok(())
}
