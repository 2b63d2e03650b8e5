//! The peer protocol: what nodes say to voters.
//!
//! ```text
//! connection  greeting ►  ◄ greeting, then requests ► and ◄ replies in any order
//! frame       length u32 BE: bytes that follow | id u64 BE | body: postcard
//! ```
//!
//! A reply carries the id of its request; only `Follow` has more than one reply. Bodies are enums
//! whose variants are numbered by position: append only, and a change of an existing one is a new
//! [`VERSION`].
//!
//! Bytes from the wire never panic, and buffers grow with what has arrived, not with what a length
//! claims. A frame beyond [`FRAME_MAX`] ends the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::history::{History, superseded};
use crate::peer::Introduce;
use crate::raft::{Blob, SnapshotMeta, TypeConfig, Vote};

/// The largest frame, in bytes behind its length.
pub(crate) const FRAME_MAX: usize = 64 << 20;
/// The largest command, in encoded bytes.
pub(crate) const COMMAND_MAX: usize = 16 << 20;
/// What is said of a command beyond [`COMMAND_MAX`].
pub(crate) fn too_large(bytes: usize) -> String {
    format!("a command of {bytes} bytes, and at most {COMMAND_MAX} are taken")
}
/// Bytes of a snapshot that travel in one frame.
pub(crate) const SNAPSHOT_PART: usize = 1 << 20;
/// The largest snapshot that is taken from a peer, in bytes.
pub(crate) const SNAPSHOT_MAX: u64 = 8 << 30;
/// Bytes of log entries after which an append is cut.
pub(crate) const APPEND_BYTES: usize = 16 << 20;
/// As the target of a greeting: whichever voter it is.
pub(crate) const ANY_VOTER: u64 = u64::MAX;
/// The version that this program speaks.
pub(crate) const VERSION: u16 = 2;
/// The lowest version that this program can talk to.
const VERSION_MIN: u16 = 2;

const MAGIC: [u8; 8] = *b"FRZPEER\x01";
/// The id of greetings.
const GREETING: u64 = 0;

/// The first frame in either direction. Its layout is for all versions: further fields are appended,
/// and bytes behind those that are known are ignored. Two nodes speak the lower version of the two;
/// which variants of [`Request`] there are in it is the business of whoever speaks the higher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    magic: [u8; 8],
    pub(crate) version: u16,
    /// The cluster, if the sender knows it already.
    pub(crate) cluster: Option<String>,
    /// The sender, if it is a voter.
    pub(crate) voter: Option<u64>,
    /// The voter that the sender believes to talk to (in the answer: to be).
    pub(crate) target: u64,
    /// The highest feature level that the sender's program knows.
    pub(crate) knows: u8,
    /// The feature level that the sender has seen in use.
    pub(crate) level: u8,
    /// The history of the cluster that the sender has seen.
    pub(crate) history: Option<History>,
}

/// Why two nodes cannot talk.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Objection {
    pub(crate) why: String,
    /// This side has no place in the cluster until somebody does something about it.
    pub(crate) excludes_us: bool,
}

impl From<Objection> for io::Error {
    fn from(objection: Objection) -> Self {
        Self::new(io::ErrorKind::InvalidData, objection)
    }
}

impl Greeting {
    /// What `us` says to the voter `target`.
    pub(crate) fn of(us: &dyn Introduce, target: u64) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            cluster: us.cluster(),
            voter: us.voter(),
            target,
            knows: us.knows(),
            level: us.level(),
            history: us.history(),
        }
    }

    /// Why the two cannot talk, if so. `us` is this side's greeting.
    pub(crate) fn objection(&self, us: &Self) -> Option<Objection> {
        let object = |why: String, excludes_us| Some(Objection { why, excludes_us });
        if self.magic != MAGIC {
            return object("not a metadata peer".to_owned(), false);
        }
        if self.version < VERSION_MIN {
            let version = self.version;
            return object(
                format!("peer protocol version {version} is below {VERSION_MIN}"),
                false,
            );
        }
        if self.cluster.is_some() && self.cluster == us.cluster && self.history != us.history {
            // Whoever belongs to the later one goes on.
            return object(
                superseded(us.history, self.history),
                us.history < self.history,
            );
        }
        if self.target != us.target && self.target != ANY_VOTER && us.target != ANY_VOTER {
            return object(
                format!("voter {} is not voter {}", us.target, self.target),
                false,
            );
        }
        if let (Some(theirs), Some(ours)) = (&self.cluster, &us.cluster)
            && theirs != ours
        {
            return object(format!("cluster {theirs} is not cluster {ours}"), false);
        }
        if self.level > us.knows {
            let why = format!(
                "the cluster is at feature level {}, and this program knows levels up to {}: \
                 install a newer frazil on this node",
                self.level, us.knows
            );
            return object(why, true);
        }
        if us.level > self.knows {
            let why = format!(
                "the cluster is at feature level {}, and the other side knows levels up to {}",
                us.level, self.knows
            );
            return object(why, false);
        }
        None
    }
}

/// What a node asks of a voter. Append only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Raft: entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Raft: a vote.
    Vote(VoteRequest<TypeConfig>),
    /// Raft: whether a vote would be given.
    PreVote(VoteRequest<TypeConfig>),
    /// Raft: a snapshot of so many bytes follows on this connection.
    SnapshotBegin {
        vote: Vote,
        meta: SnapshotMeta,
        bytes: u64,
    },
    /// Raft: the next bytes of the snapshot.
    SnapshotPart(Blob),
    /// Raft: the snapshot is complete.
    SnapshotEnd,
    /// Raft: leadership is handed over.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// An encoded envelope for the log; the leader stamps its time.
    Propose(Blob),
    /// The index up to which an image must be applied to have everything acknowledged so far.
    ReadIndex,
    /// The applied log behind this index, for ever; a snapshot first if that is shorter.
    Follow { after: u64 },
    /// How the voter is.
    Status,
    /// Who the members are.
    Members,
    /// As `Propose`; a voter that does not lead hands it to the leader, once.
    ProposeAnywhere(Blob),
    /// As `ReadIndex`; a voter that does not lead asks the leader, once.
    ReadIndexAnywhere,
    /// A change of the members; a voter that does not lead hands it to the leader, unless it was
    /// relayed already.
    ChangeVoters { change: VoterChange, relayed: bool },
    /// Which feature levels there are.
    Features,
    /// The feature level is to be raised: to this, or to the highest that everyone knows. A voter
    /// that does not lead hands it to the leader, unless it was relayed already.
    Upgrade { to: Option<u8>, relayed: bool },
}

/// A change of the voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VoterChange {
    /// Another voter.
    Add { id: u64, address: String },
    /// One voter less.
    Remove { id: u64 },
}

/// What a voter answers. Append only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To `Append`.
    Appended(AppendEntriesResponse<TypeConfig>),
    /// To `Vote` and `PreVote`.
    Voted(VoteResponse<TypeConfig>),
    /// To the parts of a snapshot: go on.
    Continue,
    /// To `SnapshotEnd`.
    SnapshotInstalled(SnapshotResponse<TypeConfig>),
    /// To `TransferLeader`.
    Transferred(TransferLeaderResponse<TypeConfig>),
    /// To `Propose`: the encoded outcome, and the index of the entry.
    Proposed { index: u64, outcome: Blob },
    /// To `ReadIndex`.
    ReadIndex(u64),
    /// To `Propose` and `ReadIndex`: it did not happen; ask the leader, if one is known.
    NotLeader { leader: Option<u64> },
    /// It may have happened or not.
    Unknown(String),
    /// It did not happen.
    Refused(String),
    /// To `Status`.
    Status(Status),
    /// To `Follow`: a snapshot of so many bytes, at this index, follows in parts.
    FollowSnapshot { index: u64, bytes: u64 },
    /// To `Follow`: the next bytes of the snapshot.
    FollowPart(Blob),
    /// To `Follow`: the next entries, by index; those that are no commands without bytes.
    FollowEntries(Vec<(u64, Option<Blob>)>),
    /// To `Follow`: nothing new; the index applied.
    FollowIdle(u64),
    /// To `Members` and `ChangeVoters`.
    Members(Members),
    /// To `Propose`: it did not happen, and never will.
    Impossible(String),
    /// To `Features` and `Upgrade`.
    Features(Features),
}

/// Which feature levels there are in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// The level in use.
    pub level: u8,
    /// The highest level that each member of the quorum knows; `None`: it did not answer.
    pub voters: BTreeMap<u64, Option<u8>>,
    /// What the registered gateways know, by id.
    pub gateways: BTreeMap<i32, GatewayFeatures>,
}

/// What a gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFeatures {
    /// The highest level that its program knows.
    pub knows: u8,
    /// Whether it has been heard of lately; the others do not count.
    pub live: bool,
}

/// The members of the quorum, as one voter knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The voter asked.
    pub voter: u64,
    /// The leader it knows of.
    pub leader: Option<u64>,
    /// Term and index of the log entry that says so; `None` before the cluster is formed.
    pub set_by: Option<(u64, u64)>,
    /// The last entry in its log, if there is any.
    pub last_index: Option<u64>,
    /// Voters and their `host:port`.
    pub voters: BTreeMap<u64, String>,
    /// Those that have the log and do not vote (yet).
    pub learners: BTreeMap<u64, String>,
    /// If it leads: up to which index each other member has acknowledged the log to it.
    pub acknowledged: BTreeMap<u64, u64>,
    /// The ids of all voters that ever had the log.
    pub seen: BTreeSet<u64>,
    /// The highest feature level that this voter knows.
    pub knows: u8,
    /// If it leads: how many milliseconds ago each other member was heard of.
    pub heard_ms: BTreeMap<u64, u64>,
}

/// How a voter is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The voter asked.
    pub voter: u64,
    /// The leader it knows of.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// The last entry in its log, if there is any.
    pub last_index: Option<u64>,
    /// The index its image has applied.
    pub applied: u64,
    /// The voters of the cluster by its log; empty before the cluster is formed.
    pub voters: Vec<u64>,
    /// The cluster's id, once it has one.
    pub cluster_id: Option<String>,
    /// If it leads: up to which index each other voter has acknowledged the log to it.
    pub acknowledged: BTreeMap<u64, u64>,
}

/// A frame's bytes.
pub(crate) fn frame<T: Serialize>(id: u64, body: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 12];
    bytes[4..].copy_from_slice(&id.to_be_bytes());
    let mut bytes = postcard::to_extend(body, bytes).map_err(io::Error::other)?;
    let length = bytes.len() - 4;
    if length > FRAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {length} bytes"),
        ));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Reads the next frame: its id and its body's bytes. `None` if the peer has closed the connection
/// between two frames.
///
/// # Cancel safety
/// Not safe: a part of a frame may have been taken.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    from: &mut R,
) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(head) as usize;
    if !(8..=FRAME_MAX).contains(&length) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes"),
        ));
    }
    let mut id = [0; 8];
    from.read_exact(&mut id).await?;
    let length = length - id.len();
    let mut body = Vec::with_capacity(length.min(64 << 10));
    from.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((u64::from_be_bytes(id), body)))
}

/// The value that fills a frame's body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|error| invalid(error.to_string()))?;
    if !rest.is_empty() {
        return Err(invalid(format!("{} stray bytes in a frame", rest.len())));
    }
    Ok(value)
}

/// Sends a greeting.
pub(crate) async fn send_greeting<W: AsyncWrite + Unpin>(
    to: &mut W,
    greeting: &Greeting,
) -> io::Result<()> {
    to.write_all(&frame(GREETING, greeting)?).await?;
    to.flush().await
}

/// Reads a greeting.
pub(crate) async fn read_greeting<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Greeting> {
    // A greeting is small: whoever claims more is something else.
    let mut limited = from.take(4096);
    match read_frame(&mut limited).await? {
        Some((GREETING, body)) => match postcard::take_from_bytes(&body) {
            Ok((greeting, _)) => Ok(greeting),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                error.to_string(),
            )),
        },
        Some(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a request before the greeting",
        )),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let sent = Request::Propose(Blob::from(vec![7; 100_000]));
        let mut bytes = frame(42, &sent).unwrap();
        bytes.extend(frame(43, &Request::ReadIndex).unwrap());
        let mut from = &bytes[..];
        let (id, body) = read_frame(&mut from).await.unwrap().unwrap();
        assert_eq!(id, 42);
        assert!(
            matches!(parse(&body).unwrap(), Request::Propose(blob) if blob.0[..] == [7; 100_000])
        );
        assert_eq!(read_frame(&mut from).await.unwrap().unwrap().0, 43);
        assert!(read_frame(&mut from).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn lengths_beyond_the_limit_and_cut_frames_are_refused() {
        for length in [0, 7, FRAME_MAX as u32 + 1, u32::MAX] {
            let mut from = &length.to_be_bytes()[..];
            assert!(read_frame(&mut from).await.is_err(), "{length}");
        }
        let whole = frame(1, &Request::Status).unwrap();
        for cut in 4..whole.len() {
            let mut from = &whole[..cut];
            assert!(read_frame(&mut from).await.is_err(), "{cut}");
        }
    }

    fn greeting(cluster: Option<&str>, target: u64) -> Greeting {
        Greeting {
            magic: MAGIC,
            version: VERSION,
            cluster: cluster.map(str::to_owned),
            voter: None,
            target,
            knows: 3,
            level: 2,
            history: None,
        }
    }

    #[test]
    fn a_greeting_for_another_cluster_voter_or_version_is_objected_to() {
        let us = greeting(Some("a"), 1);
        let mut other = greeting(None, 1);
        assert!(other.objection(&us).is_none());
        // A later version speaks ours.
        other.version = VERSION + 1;
        assert!(other.objection(&us).is_none());
        other.version = VERSION_MIN - 1;
        assert!(other.objection(&us).is_some());
        assert!(greeting(Some("b"), 1).objection(&us).is_some());
        assert!(greeting(None, 2).objection(&us).is_some());
    }

    #[test]
    fn who_does_not_know_the_level_in_use_is_told_so() {
        let us = greeting(None, 1);
        let mut newer = greeting(None, 1);
        newer.level = 4;
        newer.knows = 4;
        let ours = newer.objection(&us).unwrap();
        assert!(ours.excludes_us, "{ours}");
        let theirs = us.objection(&newer).unwrap();
        assert!(!theirs.excludes_us, "{theirs}");
    }

    #[test]
    fn of_two_histories_the_earlier_one_ends() {
        let us = greeting(Some("a"), 1);
        let mut later = greeting(Some("a"), 5);
        later.history = Some(History {
            count: 1,
            id: [0; 16],
        });
        assert!(later.objection(&us).unwrap().excludes_us);
        assert!(!us.objection(&later).unwrap().excludes_us);
        // Who knows nothing of the cluster yet may come to know it.
        let newcomer = greeting(None, 5);
        assert!(later.objection(&newcomer).is_none());
    }

    #[tokio::test]
    async fn what_a_later_greeting_says_besides_is_ignored() {
        let mut bytes = frame(GREETING, &greeting(Some("a"), 7)).unwrap();
        bytes.extend([1, 2, 3]);
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let read = read_greeting(&mut &bytes[..]).await.unwrap();
        assert_eq!(read.target, 7);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_request_or_reply_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let request = parse::<Request>(&bytes);
            let reply = parse::<Reply>(&bytes);
            // Whatever is accepted can be sent again.
            if let Ok(request) = request {
                prop_assert!(frame(1, &request).is_ok());
            }
            if let Ok(reply) = reply {
                prop_assert!(frame(1, &reply).is_ok());
            }
        }
    }
}
