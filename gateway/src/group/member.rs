//! A member of a group while its group is coordinated, and the vote on the protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use frazil_core::group::Member;

use super::GroupError;
use super::machine::{Effect, Join, Millis, Token};

/// What the coordinator knows of a member.
#[derive(Clone, Debug)]
pub(super) struct MemberState {
    pub(super) instance_id: Option<String>,
    client_id: String,
    client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    /// Name and metadata, most preferred first. Copies: a slice would pin the request's frame.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Not yet in any generation.
    pub(super) is_new: bool,
    /// When the session ends, unless something is parked.
    pub(super) deadline: Millis,
    /// The join that waits for the generation.
    pub(super) joining: Option<Token>,
    /// The sync that waits for the assignment.
    pub(super) syncing: Option<Token>,
}

impl MemberState {
    pub(super) fn new(join: Join, deadline: Millis) -> Self {
        let mut member = Self {
            instance_id: join.instance_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
            deadline,
            joining: None,
            syncing: None,
        };
        member.update(join);
        member
    }

    pub(super) fn load(member: &Member, now: Millis) -> Self {
        let protocols = member
            .protocols
            .iter()
            .map(|(name, data)| (name.clone(), Bytes::copy_from_slice(data)))
            .collect();
        Self {
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols,
            assignment: Bytes::copy_from_slice(&member.assignment),
            is_new: false,
            deadline: now + member.session_timeout_ms.max(0) as u64,
            joining: None,
            syncing: None,
        }
    }

    pub(super) fn save(&self) -> Member {
        Member {
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocols: self
                .protocols
                .iter()
                .map(|(name, data)| (name.clone(), data.to_vec().into()))
                .collect(),
            assignment: self.assignment.to_vec().into(),
        }
    }

    /// Takes over what a join says. Who the member is stays.
    pub(super) fn update(&mut self, join: Join) {
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = match join.rebalance_timeout_ms {
            ms if ms < 0 => join.session_timeout_ms,
            ms => ms,
        };
        if self.protocols != join.protocols {
            self.protocols = join
                .protocols
                .into_iter()
                .map(|(name, data)| (name, Bytes::copy_from_slice(&data)))
                .collect();
        }
    }

    /// Bytes of its protocols.
    pub(super) fn bytes(&self) -> usize {
        self.protocols
            .iter()
            .map(|(name, data)| name.len() + data.len())
            .sum()
    }

    pub(super) fn offers(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Its metadata for a protocol; empty if it does not offer it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, data)| data.clone()).unwrap_or_default()
    }

    /// Whether silence ends its membership: not while it waits for an answer, except that a new
    /// member must not wait for ever.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || self.joining.is_none() && self.syncing.is_none()
    }

    /// Parks a join. One parked before is of a client that has given up on it.
    pub(super) fn park_join(&mut self, token: Token, out: &mut Vec<Effect>) {
        if let Some(old) = self.joining.replace(token) {
            out.push(Effect::Joined(old, Err(GroupError::RebalanceInProgress)));
        }
    }

    /// Parks a sync. One parked before is of a client that has given up on it.
    pub(super) fn park_sync(&mut self, token: Token, out: &mut Vec<Effect>) {
        if let Some(old) = self.syncing.replace(token) {
            out.push(Effect::Synced(old, Err(GroupError::RebalanceInProgress)));
        }
    }

    /// Answers everything parked with an error.
    pub(super) fn answer_parked(&mut self, error: &GroupError, out: &mut Vec<Effect>) {
        if let Some(token) = self.joining.take() {
            out.push(Effect::Joined(token, Err(error.clone())));
        }
        if let Some(token) = self.syncing.take() {
            out.push(Effect::Synced(token, Err(error.clone())));
        }
    }
}

/// The protocol with the most votes. Each member votes for the first of its protocols that all
/// offer; of equals, the one that the leader likes better wins.
pub(super) fn elect_protocol(
    members: &BTreeMap<String, MemberState>,
    leader: Option<&str>,
) -> Option<String> {
    let first = leader
        .and_then(|id| members.get(id))
        .or_else(|| members.values().next())?;
    let common = |name: &str| members.values().all(|m| m.offers(name));
    let candidates: Vec<&str> = first
        .protocols
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| common(name))
        .collect();
    let mut votes = vec![0usize; candidates.len()];
    for member in members.values() {
        let vote = member
            .protocols
            .iter()
            .find_map(|(name, _)| candidates.iter().position(|candidate| candidate == name));
        if let Some(vote) = vote {
            votes[vote] += 1;
        }
    }
    // The last of equals wins `max_by_key`, so the leader's order is walked backwards.
    let winner = (0..candidates.len())
        .rev()
        .max_by_key(|index| votes[*index])?;
    Some(candidates[winner].to_owned())
}
