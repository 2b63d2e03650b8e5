//! A connection that speaks the protocol with hardly any cost of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection, one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    pub(crate) async fn to(broker: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(broker)
            .await
            .with_context(|| format!("cannot connect to {broker}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            correlation: 0,
        })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask<R>(&mut self, request: &R, version: i16) -> Result<R::Response>
    where
        R: Request + HeaderVersion,
        R::Response: HeaderVersion,
    {
        self.correlation += 1;
        let mut frame = BytesMut::zeroed(4);
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("frazil-bench")))
            .encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;

        let length = self.stream.read_i32().await? as usize;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await?;
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))?;
        ensure!(
            header.correlation_id == self.correlation,
            "an answer to another request"
        );
        let response = R::Response::decode(&mut frame, version)?;
        ensure!(!frame.has_remaining(), "an answer with more bytes");
        Ok(response)
    }
}

/// Lets this process have so many sockets at a time, if the system allows it.
pub(crate) fn allow_sockets(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = count + 200;
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit.current) {
        return Ok(());
    }
    ensure!(
        enough(limit.maximum),
        "the system allows this process {:?} open files, {wanted} are needed (ulimit -n)",
        limit.maximum
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}
