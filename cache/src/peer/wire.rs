//! The protocol between gateways.
//!
//! ```text
//! connection  greeting ►  ◄ greeting, then requests ► and ◄ replies in any order
//! frame       length u32: bytes that follow | id u64 | body               all big-endian
//! greeting    id 0 | magic 8 | version u16 | sender i32 | target i32 | cluster: the rest, UTF-8
//! request     1 | epoch u64 | start u64 | length u32        bytes of the receiver's write-ahead log
//!             2 | epoch u64 | number u64 | block u32 | flags u8       a block of a segment
//! reply       0 | the bytes
//!             1                it is not there
//!             2 | UTF-8        it could not be had, and why
//!             3                it is being fetched; another reply follows
//! ```
//!
//! A reply carries the id of its request. The magic stands where the protocol of the metadata
//! quorum has its own, so that one port can serve both ([`is_ours`]).
//!
//! Bytes from the wire never panic, and buffers grow with what has arrived, not with what a length
//! claims. A frame beyond the limit of its direction ends the connection.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use frazil_core::{BrokerEpoch, BrokerId, SegmentId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::read::plan::BLOCK_BYTES;

/// The version that this program speaks.
const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"FRZDATA\x01";
/// The id of greetings.
const GREETING: u64 = 0;
/// The largest payload of a reply: a block.
pub(crate) const PAYLOAD_MAX: usize = BLOCK_BYTES as usize;
/// The largest frames, in bytes behind their length.
pub(crate) const REPLY_MAX: usize = PAYLOAD_MAX + 64;
pub(crate) const REQUEST_MAX: usize = 64;
const GREETING_MAX: usize = 1024;
/// The longest explanation that is sent.
const TEXT_MAX: usize = 512;
/// Bytes of a connection that tell whose protocol it speaks.
pub const PROLOGUE: usize = 20;

/// Whether a connection that begins with these bytes is one of another gateway.
pub fn is_ours(prologue: &[u8; PROLOGUE]) -> bool {
    prologue[12..] == MAGIC
}

/// The first frame in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: u16,
    /// Who speaks.
    pub(crate) sender: BrokerId,
    /// Whom the sender believes to talk to.
    pub(crate) target: BrokerId,
    pub(crate) cluster: String,
}

impl Greeting {
    pub(crate) fn new(cluster: &str, sender: BrokerId, target: BrokerId) -> Self {
        Self {
            version: VERSION,
            sender,
            target,
            cluster: cluster.to_owned(),
        }
    }

    /// Why the two cannot talk, if so; asked by whoever is `us` in the cluster.
    pub(crate) fn objection(&self, cluster: &str, us: BrokerId) -> Option<String> {
        if self.version != VERSION {
            return Some(format!(
                "version {} of the protocol between gateways is not {VERSION}",
                self.version
            ));
        }
        if self.cluster != cluster {
            return Some(format!("cluster {} is not cluster {cluster}", self.cluster));
        }
        (self.target != us).then(|| format!("broker {us} is not broker {}", self.target))
    }

    fn parse(mut body: &[u8]) -> io::Result<Self> {
        if body.len() < 18 || body[..8] != MAGIC {
            return Err(invalid("not a gateway"));
        }
        body.advance(8);
        Ok(Self {
            version: body.get_u16(),
            sender: BrokerId(body.get_i32()),
            target: BrokerId(body.get_i32()),
            cluster: text(body)?,
        })
    }

    /// Sends it.
    pub(crate) async fn send<W: AsyncWrite + Unpin>(&self, to: &mut W) -> io::Result<()> {
        let mut body = BytesMut::with_capacity(64);
        body.put_slice(&MAGIC);
        body.put_u16(self.version);
        body.put_i32(self.sender.0);
        body.put_i32(self.target.0);
        body.put_slice(self.cluster.as_bytes());
        to.write_all(&head(GREETING, body.len())).await?;
        to.write_all(&body).await?;
        to.flush().await
    }

    /// Reads one.
    pub(crate) async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Self> {
        match read_frame(from, GREETING_MAX).await? {
            Some((GREETING, body)) => Self::parse(&body),
            Some(_) => Err(invalid("a request before the greeting")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What a gateway asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Bytes of a write-ahead log, at most [`PAYLOAD_MAX`].
    Wal {
        epoch: BrokerEpoch,
        start: u64,
        length: u32,
    },
    /// A block of a segment. `scan`: for a reader that is far behind.
    Block {
        id: SegmentId,
        block: u32,
        scan: bool,
    },
}

impl Request {
    /// A frame's bytes.
    pub(crate) fn frame(&self, id: u64) -> Bytes {
        let mut body = BytesMut::with_capacity(REQUEST_MAX);
        match *self {
            Self::Wal {
                epoch,
                start,
                length,
            } => {
                body.put_u8(1);
                body.put_u64(epoch.0);
                body.put_u64(start);
                body.put_u32(length);
            }
            Self::Block { id, block, scan } => {
                body.put_u8(2);
                body.put_u64(id.epoch.0);
                body.put_u64(id.number);
                body.put_u32(block);
                body.put_u8(u8::from(scan));
            }
        }
        let mut frame = BytesMut::with_capacity(12 + body.len());
        frame.put_slice(&head(id, body.len()));
        frame.put_slice(&body);
        frame.freeze()
    }

    pub(crate) fn parse(mut body: &[u8]) -> io::Result<Self> {
        let request = match (body.first(), body.len()) {
            (Some(1), 21) => {
                body.advance(1);
                Self::Wal {
                    epoch: BrokerEpoch(body.get_u64()),
                    start: body.get_u64(),
                    length: body.get_u32(),
                }
            }
            (Some(2), 22) => {
                body.advance(1);
                Self::Block {
                    id: SegmentId::new(BrokerEpoch(body.get_u64()), body.get_u64()),
                    block: body.get_u32(),
                    // Other flags are hints that this version does not know.
                    scan: body.get_u8() & 1 != 0,
                }
            }
            _ => return Err(invalid("not a request")),
        };
        Ok(request)
    }
}

/// What a gateway answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// What was asked for.
    Bytes(Bytes),
    /// It is not there: of a write-ahead log, not any more or never; of a segment, the store says
    /// so.
    NotHere,
    /// It could not be had.
    Failed(String),
    /// It is being fetched. Another reply follows.
    Working,
}

impl Reply {
    /// A frame's bytes, in two pieces so that payloads are not copied.
    pub(crate) fn frame(self, id: u64) -> (Bytes, Bytes) {
        let (tag, body) = match self {
            Self::Bytes(bytes) => (0, bytes),
            Self::NotHere => (1, Bytes::new()),
            Self::Failed(mut reason) => {
                let end = reason.floor_char_boundary(TEXT_MAX);
                reason.truncate(end);
                (2, Bytes::from(reason))
            }
            Self::Working => (3, Bytes::new()),
        };
        let mut frame = BytesMut::with_capacity(13);
        frame.put_slice(&head(id, 1 + body.len()));
        frame.put_u8(tag);
        (frame.freeze(), body)
    }

    pub(crate) fn parse(mut body: Bytes) -> io::Result<Self> {
        if body.is_empty() {
            return Err(invalid("an empty reply"));
        }
        match (body.get_u8(), body.len()) {
            (0, _) => Ok(Self::Bytes(body)),
            (1, 0) => Ok(Self::NotHere),
            (2, _) => Ok(Self::Failed(text(&body)?)),
            (3, 0) => Ok(Self::Working),
            _ => Err(invalid("not a reply")),
        }
    }
}

/// Reads the next frame of at most `max` bytes: its id and its body. `None` if the other side has
/// closed the connection between two frames.
///
/// # Cancel safety
/// Not safe: a part of a frame may have been taken.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    from: &mut R,
    max: usize,
) -> io::Result<Option<(u64, Bytes)>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(head) as usize;
    if !(8..=max).contains(&length) {
        return Err(invalid(&format!("a frame of {length} bytes")));
    }
    let mut id = [0; 8];
    from.read_exact(&mut id).await?;
    let length = length - id.len();
    let mut body = Vec::with_capacity(length.min(64 << 10));
    from.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((u64::from_be_bytes(id), body.into())))
}

fn head(id: u64, body: usize) -> [u8; 12] {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&(8 + body as u32).to_be_bytes());
    head[4..].copy_from_slice(&id.to_be_bytes());
    head
}

fn text(bytes: &[u8]) -> io::Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(invalid("text that is not UTF-8")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> [Request; 3] {
        let id = SegmentId::new(BrokerEpoch(7), u64::MAX);
        [
            Request::Wal {
                epoch: BrokerEpoch(9),
                start: 1 << 40,
                length: 77,
            },
            Request::Block {
                id,
                block: 3,
                scan: true,
            },
            Request::Block {
                id,
                block: u32::MAX,
                scan: false,
            },
        ]
    }

    #[tokio::test]
    async fn what_is_sent_arrives() {
        let mut sent = Vec::new();
        let greeting = Greeting::new("cluster", BrokerId(1), BrokerId(2));
        greeting.send(&mut sent).await.unwrap();
        assert!(is_ours(sent[..PROLOGUE].try_into().unwrap()));
        assert!(!is_ours(&[0; PROLOGUE]));
        for (id, request) in (5..).zip(requests()) {
            sent.extend(request.frame(id));
        }
        let mut from = &sent[..];
        assert_eq!(Greeting::read(&mut from).await.unwrap(), greeting);
        for (id, request) in (5..).zip(requests()) {
            let frame = read_frame(&mut from, REQUEST_MAX).await.unwrap();
            let (got, body) = frame.unwrap();
            assert_eq!((got, Request::parse(&body).unwrap()), (id, request));
        }
        assert!(read_frame(&mut from, REQUEST_MAX).await.unwrap().is_none());
        for reply in [
            Reply::Bytes(Bytes::from(vec![7; PAYLOAD_MAX])),
            Reply::Bytes(Bytes::new()),
            Reply::NotHere,
            Reply::Working,
            Reply::Failed("why".into()),
        ] {
            let (head, body) = reply.clone().frame(3);
            let bytes = [head, body].concat();
            let frame = read_frame(&mut &bytes[..], REPLY_MAX).await.unwrap();
            let (id, body) = frame.unwrap();
            assert_eq!((id, Reply::parse(body).unwrap()), (3, reply));
        }
        let (_, long) = Reply::Failed("ö".repeat(1000)).frame(3);
        assert!(long.len() <= TEXT_MAX && text(&long).is_ok());
    }

    #[tokio::test]
    async fn lengths_beyond_the_limit_and_cut_frames_are_refused() {
        for length in [0, 7, REPLY_MAX as u32 + 1, u32::MAX] {
            let mut from = &length.to_be_bytes()[..];
            let read = read_frame(&mut from, REPLY_MAX).await;
            assert!(read.is_err(), "{length}");
        }
        let whole = requests()[0].frame(1);
        for cut in 4..whole.len() {
            assert!(read_frame(&mut &whole[..cut], REQUEST_MAX).await.is_err());
        }
        // Nothing comes after a great promise, which is not believed.
        let claim = (REPLY_MAX as u32).to_be_bytes();
        assert!(read_frame(&mut &claim[..], REPLY_MAX).await.is_err());
    }

    #[test]
    fn strangers_are_refused_in_words() {
        let ours = || Greeting::new("cluster", BrokerId(1), BrokerId(2));
        assert_eq!(ours().objection("cluster", BrokerId(2)), None);
        let old = Greeting {
            version: 0,
            ..ours()
        };
        for (greeting, cluster, us, word) in [
            (ours(), "other", 2, "cluster"),
            (ours(), "cluster", 3, "broker 3"),
            (old, "cluster", 2, "version"),
        ] {
            let objection = greeting.objection(cluster, BrokerId(us)).unwrap();
            assert!(objection.contains(word), "{objection}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            drop(Greeting::parse(&bytes));
            drop(Request::parse(&bytes));
            drop(Reply::parse(bytes.into()));
        }
    }
}
