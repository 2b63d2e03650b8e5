//! The sockets of this crate: tokio's, or with the feature `sim` those of a simulated network.

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
#[cfg(feature = "sim")]
pub(crate) use turmoil::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
