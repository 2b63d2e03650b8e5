//! Raft's calls to other voters, over the peer protocol.
//!
//! Each of openraft's clients (replication, heartbeats, snapshots) has a connection of its own, so
//! that a large transfer does not delay a heartbeat.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{BasicNode, EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::Instant;

use super::{Blob, TypeConfig, Vote};
use crate::peer::{CallError, Introduce, Peer};
use crate::wire::{APPEND_BYTES, Reply, Request, SNAPSHOT_PART};

/// Makes clients for other voters.
pub(crate) struct Network {
    us: Arc<dyn Introduce>,
    addresses: BTreeMap<u64, String>,
}

impl Network {
    /// `addresses` are the configured ones: they win over those in the log, so that a voter can
    /// move.
    pub(crate) fn new(us: Arc<dyn Introduce>, addresses: BTreeMap<u64, String>) -> Self {
        Self { us, addresses }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let address = self.addresses.get(&target).unwrap_or(&node.addr);
        Link {
            peer: Peer::new(target, address.clone(), Arc::clone(&self.us)),
        }
    }
}

/// A client of one voter.
pub(crate) struct Link {
    peer: Peer,
}

fn rpc_error(error: &CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::NotSent(_) => RPCError::Unreachable(Unreachable::from_string(error)),
        CallError::Lost(_) => RPCError::Network(NetworkError::from_string(error)),
    }
}

fn unexpected(what: &str, reply: &Reply) -> RPCError<TypeConfig> {
    let detail = match reply {
        Reply::Refused(why) | Reply::Unknown(why) => why.as_str(),
        _ => "a reply of another kind",
    };
    RPCError::Network(NetworkError::new(&io::Error::other(format!(
        "{what}: {detail}"
    ))))
}

impl Link {
    async fn call(&self, request: &Request, ttl: Duration) -> Result<Reply, RPCError<TypeConfig>> {
        self.peer
            .call(request, Instant::now() + ttl)
            .await
            .map_err(|error| rpc_error(&error))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
        ttl: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let bytes = snapshot.snapshot;
        let begin = Request::SnapshotBegin {
            vote,
            meta: snapshot.meta,
            bytes: bytes.len() as u64,
        };
        let mut requests = vec![begin];
        requests.extend(
            (0..bytes.len())
                .step_by(SNAPSHOT_PART)
                .map(|start| bytes.slice(start..bytes.len().min(start + SNAPSHOT_PART)))
                .map(|part| Request::SnapshotPart(Blob(part))),
        );
        for request in &requests {
            let reply = self.call(request, ttl).await?;
            if !matches!(reply, Reply::Continue) {
                return Err(unexpected("snapshot", &reply));
            }
        }
        match self.call(&Request::SnapshotEnd, ttl).await? {
            Reply::SnapshotInstalled(response) => Ok(response),
            reply => Err(unexpected("snapshot", &reply)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // What does not fit goes with the next request.
        let mut bytes = 0;
        let fits = rpc
            .entries
            .iter()
            .take_while(|entry| {
                let before = bytes;
                if let EntryPayload::Normal(command) = &entry.payload {
                    bytes += command.0.len();
                }
                before == 0 || bytes <= APPEND_BYTES
            })
            .count();
        let cut = fits < rpc.entries.len();
        rpc.entries.truncate(fits);
        let last = rpc.entries.last().map(|entry| entry.log_id);
        match self.call(&Request::Append(rpc), option.soft_ttl()).await? {
            Reply::Appended(AppendEntriesResponse::Success) if cut => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            Reply::Appended(response) => Ok(response),
            reply => Err(unexpected("append", &reply)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&Request::Vote(rpc), option.soft_ttl()).await? {
            Reply::Voted(response) => Ok(response),
            reply => Err(unexpected("vote", &reply)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&Request::PreVote(rpc), option.soft_ttl()).await? {
            Reply::Voted(response) => Ok(response),
            reply => Err(unexpected("pre-vote", &reply)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot, option.soft_ttl()) => {
                sent.map_err(StreamingError::from)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self
            .call(&Request::TransferLeader(req), option.soft_ttl())
            .await?
        {
            Reply::Transferred(response) => Ok(response),
            reply => Err(unexpected("transfer", &reply)),
        }
    }
}
