//! The classic consumer group as a pure machine: `(state, event, now) → effects`.
//!
//! ```text
//!            first join                    initial delay over, or
//!  Empty ───────────────► Preparing ◄──┐   all have rejoined, or the
//!    ▲                     │      │    │   rebalance timeout is over
//!    │   nobody is left    │      └────┼──────────────► Completing
//!    └─────────────────────┘           │                    │ the leader's assignment,
//!                                      │ a member joins,    │ persisted
//!                                      │ changes or goes    ▼
//!                                      └──────────────── Stable
//! ```
//!
//! # Invariants
//! - Every request is answered by exactly one effect, at once or later: a parked join or sync is
//!   answered when the phase ends, when its member goes, or when the member asks again.
//! - Within a generation all members have one protocol, exactly one of them is told that it leads,
//!   and an assignment is given out only under the generation it was made for.
//! - A rebalance ends: who does not come back within the largest rebalance timeout is dropped, and
//!   static members at the latest with their session.
//! - Effects are performed in order, those behind an [`Effect::Persist`] only once it succeeded,
//!   and no event is fed in between. So what a client is told of an assignment is what a
//!   coordinator finds that takes over later.
//!
//! # On a crash
//! The last persisted generation is loaded ([`Machine::load`]): members keep their ids and
//! generation, and get fresh session timers. A rebalance that was under way is forgotten; its
//! members rejoin when they are next told to, or are answered UNKNOWN_MEMBER_ID if they were new.
//! Its generation's number is used again, which is harmless: nobody had an assignment under it.
//!
//! Sources: KIP-62 (sessions and rebalance timeout), KIP-134 (initial delay), KIP-345 (static
//! members), KIP-394 (member id required), KIP-814 (skipped assignment), and the description of
//! the group protocol in Kafka's documentation.

mod events;
#[cfg(test)]
mod histories;
mod join;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use frazil_core::group::Group;
use frazil_core::sabotage::{self, Bug};

use super::GroupError;
use super::member::{MemberState, elect_protocol};

pub(crate) use events::{
    Effect, Event, Join, Joined, JoinedMember, Limits, Millis, State, Sync, Synced, Token,
};

/// The shortest time that members are given to rejoin and to sync, milliseconds. Clients may name
/// 0, and would be dropped before they could answer.
const REBALANCE_TIMEOUT_MS_MIN: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Preparing {
        ends: Millis,
        initial: Option<InitialDelay>,
    },
    Completing,
    Stable,
}

/// The wait of a group that was empty: every new member prolongs it by one delay, up to the
/// rebalance timeout in all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InitialDelay {
    remaining_ms: u64,
    grew: bool,
}

/// A classic group. See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    limits: Limits,
    phase: Phase,
    protocol_type: String,
    generation: i32,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, MemberState>,
    /// Member ids of static members by instance id.
    instances: HashMap<String, String>,
    /// Ids given out and not joined with yet, and when they are forgotten.
    pending: BTreeMap<String, Millis>,
    /// Members that have not asked for their assignment of this generation, and until when they
    /// may. Empty outside of `Completing` and `Stable`.
    unsynced: BTreeSet<String>,
    sync_ends: Millis,
    /// At or before the earliest deadline.
    wake: Option<Millis>,
}

impl Machine {
    /// A group as it was last persisted. Its members get fresh sessions from `now`.
    pub(crate) fn load(limits: Limits, group: &Group, now: Millis) -> Self {
        let members: BTreeMap<_, _> = group
            .members
            .iter()
            .map(|(id, member)| (id.clone(), MemberState::load(member, now)))
            .collect();
        let instances = members
            .iter()
            .filter_map(|(id, member)| Some((member.instance_id.clone()?, id.clone())))
            .collect();
        let leader = group.leader.clone().filter(|id| members.contains_key(id));
        let mut machine = Self {
            limits,
            phase: if members.is_empty() {
                Phase::Empty
            } else {
                Phase::Stable
            },
            protocol_type: group.protocol_type.clone(),
            generation: group.generation,
            protocol: group.protocol.clone().filter(|_| !members.is_empty()),
            leader: leader.or_else(|| members.keys().next().cloned()),
            members,
            instances,
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            sync_ends: 0,
            wake: None,
        };
        machine.find_wake();
        machine
    }

    /// When the next [`Event::Tick`] is due. Waking early does no harm.
    pub(crate) fn wake_at(&self) -> Option<Millis> {
        self.wake
    }

    /// Moves every deadline, after a time in which no request could be handled: it must not count
    /// against the members.
    pub(crate) fn defer(&mut self, by: Millis) {
        self.members.values_mut().for_each(|m| m.deadline += by);
        self.pending
            .values_mut()
            .for_each(|deadline| *deadline += by);
        self.sync_ends += by;
        if let Phase::Preparing { ends, .. } = &mut self.phase {
            *ends += by;
        }
        self.wake = self.wake.map(|at| at + by);
    }

    /// Whether nobody is in the group or about to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Empty && self.pending.is_empty()
    }

    /// Whether nothing distinguishes the group from one that never was, offsets aside.
    pub(crate) fn is_new(&self) -> bool {
        self.is_idle() && self.generation == 0
    }

    /// The group's phase.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Empty => State::Empty,
            Phase::Preparing { .. } => State::PreparingRebalance,
            Phase::Completing => State::CompletingRebalance,
            Phase::Stable => State::Stable,
        }
    }

    /// The group as it would be persisted now.
    pub(crate) fn image(&self) -> Group {
        Group {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self
                .members
                .iter()
                .map(|(id, m)| (id.clone(), m.save()))
                .collect(),
        }
    }

    /// Handles one event.
    pub(crate) fn on(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Join(token, join) => {
                if let Err(error) = self.join(token, join, now, &mut out) {
                    out.push(Effect::Joined(token, Err(error)));
                }
            }
            Event::Sync(token, sync) => {
                if let Err(error) = self.sync(token, sync, now, &mut out) {
                    out.push(Effect::Synced(token, Err(error)));
                }
            }
            Event::Heartbeat {
                token,
                member_id,
                instance_id,
                generation,
            } => {
                let result = self.heartbeat(&member_id, instance_id.as_deref(), generation, now);
                out.push(Effect::Heartbeat(token, result));
            }
            Event::Leave(token, members) => {
                let left = self.leave(&members, now, &mut out);
                out.push(Effect::Left(token, left));
            }
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// Whether a member, or a client outside of the group's membership, may commit offsets now;
    /// counts as a heartbeat. Answers what the state machine is to check again: generation and
    /// member id, or `None` if the group must be without members.
    pub(crate) fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<Option<(i32, String)>, GroupError> {
        if self.phase == Phase::Empty && generation < 0 {
            return Ok(None);
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member_id, instance_id)?;
        if !sabotage::on(Bug::StaleGenerationsCommit) {
            self.check_generation(generation)?;
        }
        self.beat(member_id, now);
        if self.phase == Phase::Completing {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(Some((generation, member_id.to_owned())))
    }

    // -----------------------------------------------------------------------------------------
    // Rebalancing.

    /// Begins a rebalance, or ends the one under way if this was all it waited for.
    fn rebalance_or_complete(&mut self, now: Millis, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Preparing {
                initial: Some(_), ..
            } => {}
            Phase::Preparing { .. } => self.complete_if_all_joined(now, out),
            Phase::Empty | Phase::Completing | Phase::Stable => self.prepare(now, out),
        }
    }

    fn prepare(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let rebalance_ms = self.rebalance_timeout();
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                member.deadline = now + member.session_timeout_ms as u64;
                out.push(Effect::Synced(token, Err(GroupError::RebalanceInProgress)));
            }
        }
        self.unsynced.clear();
        let delay_ms = self.limits.initial_delay_ms;
        let initial = (self.phase == Phase::Empty && delay_ms > 0).then_some(InitialDelay {
            remaining_ms: rebalance_ms.saturating_sub(delay_ms),
            grew: false,
        });
        let ends = now
            + if initial.is_some() {
                delay_ms
            } else {
                rebalance_ms
            };
        self.phase = Phase::Preparing { ends, initial };
        self.find_wake();
        self.rebalance_or_complete(now, out);
    }

    fn complete_if_all_joined(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some()) {
            self.complete(now, out);
        }
    }

    /// Ends `Preparing` with a new generation of those who are here.
    fn complete(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let missing: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.joining.is_none() && m.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.remove(&id, out);
        }
        if self.members.is_empty() {
            self.generation = self.generation.checked_add(1).unwrap_or(1);
            self.phase = Phase::Empty;
            self.protocol = None;
            self.leader = None;
            out.push(Effect::Persist(self.image()));
            self.find_wake();
            return;
        }
        let here = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(here) {
            let Some(leader) = self.members.keys().find(|id| here(id)).cloned() else {
                // Only static members, all away: wait on, until they or their sessions' ends come.
                let ends = now + self.rebalance_timeout();
                self.phase = Phase::Preparing {
                    ends,
                    initial: None,
                };
                self.find_wake();
                return;
            };
            self.leader = Some(leader);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = elect_protocol(&self.members, self.leader.as_deref());
        self.phase = Phase::Completing;
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_ends = now + self.rebalance_timeout();
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            member.is_new = false;
            member.deadline = now + member.session_timeout_ms as u64;
            member.assignment = Bytes::new();
            if let Some(token) = member.joining.take() {
                answers.push((token, id.clone()));
            }
        }
        for (token, id) in answers {
            let joined = self.joined(&id, self.leader.as_ref() == Some(&id), false);
            out.push(Effect::Joined(token, Ok(joined)));
        }
        self.find_wake();
    }

    fn rebalance_timeout(&self) -> u64 {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        let longest = timeouts.max().unwrap_or(0);
        u64::try_from(longest)
            .unwrap_or(0)
            .max(REBALANCE_TIMEOUT_MS_MIN)
    }

    /// Takes a member out, answering what it has parked. The caller sees to the rebalance.
    fn remove(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        member.answer_parked(&GroupError::UnknownMember, out);
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    // -----------------------------------------------------------------------------------------
    // Syncing, heartbeats, leaving.

    fn sync(
        &mut self,
        token: Token,
        sync: Sync,
        now: Millis,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let id = sync.member_id.as_str();
        self.check_member(id, sync.instance_id.as_deref())?;
        self.check_generation(sync.generation)?;
        let differs = |said: &Option<String>, is: Option<&str>| {
            said.as_deref().is_some_and(|said| Some(said) != is)
        };
        if matches!(self.phase, Phase::Preparing { .. }) {
            return Err(GroupError::RebalanceInProgress);
        }
        if differs(&sync.protocol_type, Some(&self.protocol_type))
            || differs(&sync.protocol, self.protocol.as_deref())
        {
            return Err(GroupError::InconsistentProtocol);
        }
        let leads = self.leader.as_deref() == Some(id);
        if leads && self.phase == Phase::Completing {
            let bytes: usize = sync.assignments.iter().map(|(_, bytes)| bytes.len()).sum();
            if bytes > self.limits.bytes {
                return Err(GroupError::GroupFull);
            }
        }
        self.unsynced.remove(id);
        self.beat(id, now);
        let Some(member) = self.members.get_mut(id) else {
            return Err(GroupError::UnknownMember);
        };
        if self.phase == Phase::Stable {
            let assignment = member.assignment.clone();
            out.push(Effect::Synced(token, Ok(self.synced(assignment))));
            return Ok(());
        }
        member.park_sync(token, out);
        if leads {
            for (id, assignment) in sync.assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = Bytes::copy_from_slice(&assignment);
                }
            }
            self.stabilise(now, out);
        }
        Ok(())
    }

    /// Everybody's assignment is there.
    fn stabilise(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.phase = Phase::Stable;
        out.push(Effect::Persist(self.image()));
        let mut answers = Vec::new();
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                member.deadline = now + member.session_timeout_ms as u64;
                answers.push((token, member.assignment.clone()));
            }
        }
        for (token, assignment) in answers {
            out.push(Effect::Synced(token, Ok(self.synced(assignment))));
        }
        self.find_wake();
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment,
        }
    }

    fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id)?;
        self.check_generation(generation)?;
        self.beat(member_id, now);
        match self.phase {
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Empty | Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    fn leave(
        &mut self,
        members: &[(String, Option<String>)],
        now: Millis,
        out: &mut Vec<Effect>,
    ) -> Vec<Result<(), GroupError>> {
        let before = (self.members.len(), self.pending.len());
        let left = members
            .iter()
            .map(|(id, instance)| self.leave_one(id, instance.as_deref(), out))
            .collect();
        if (self.members.len(), self.pending.len()) != before {
            self.go_on_without(self.members.len() < before.0, now, out);
        }
        left
    }

    fn leave_one(
        &mut self,
        id: &str,
        instance: Option<&str>,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let id = match instance {
            // An administrator removes a static member whose id need not be known.
            Some(instance) if id.is_empty() => self
                .instances
                .get(instance)
                .cloned()
                .ok_or(GroupError::UnknownMember)?,
            _ if self.pending.remove(id).is_some() => return Ok(()),
            _ => {
                self.check_member(id, instance)?;
                id.to_owned()
            }
        };
        self.remove(&id, out);
        Ok(())
    }

    /// After members (or only pending ids, whose going disturbs no generation) have gone.
    fn go_on_without(&mut self, members: bool, now: Millis, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => self.rebalance_or_complete(now, out),
            Phase::Completing | Phase::Stable if members => self.prepare(now, out),
            Phase::Completing | Phase::Stable => {}
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let pending = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        let mut gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.can_expire() && m.deadline <= now)
            .map(|(id, _)| id.clone())
            .collect();
        if !self.unsynced.is_empty() && self.sync_ends <= now {
            gone.extend(std::mem::take(&mut self.unsynced));
        }
        for id in &gone {
            self.remove(id, out);
        }
        if !gone.is_empty() || self.pending.len() < pending {
            self.go_on_without(!gone.is_empty(), now, out);
        }
        if let Phase::Preparing { ends, initial } = &mut self.phase
            && *ends <= now
        {
            match initial {
                Some(initial) if initial.grew && initial.remaining_ms > 0 => {
                    let delay_ms = self.limits.initial_delay_ms.min(initial.remaining_ms);
                    initial.grew = false;
                    initial.remaining_ms -= delay_ms;
                    *ends = now + delay_ms;
                }
                _ => self.complete(now, out),
            }
        }
        self.find_wake();
    }

    // -----------------------------------------------------------------------------------------
    // Checks and deadlines.

    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(known) = instance.and_then(|instance| self.instances.get(instance))
            && known != id
        {
            return Err(GroupError::FencedInstance);
        }
        let member = self.members.get(id).ok_or(GroupError::UnknownMember)?;
        match instance {
            Some(_) if member.instance_id.as_deref() != instance => Err(GroupError::UnknownMember),
            _ => Ok(()),
        }
    }

    fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// The member has been heard of.
    fn beat(&mut self, id: &str, now: Millis) {
        if let Some(member) = self.members.get_mut(id)
            && !member.is_new
        {
            member.deadline = now + member.session_timeout_ms as u64;
            let deadline = member.deadline;
            self.wake_by(deadline);
        }
    }

    fn wake_by(&mut self, deadline: Millis) {
        self.wake = Some(self.wake.map_or(deadline, |wake| wake.min(deadline)));
    }

    fn find_wake(&mut self) {
        let members = self
            .members
            .values()
            .filter(|m| m.can_expire())
            .map(|m| m.deadline);
        let syncs = (!self.unsynced.is_empty()).then_some(self.sync_ends);
        let join = match self.phase {
            Phase::Preparing { ends, .. } => Some(ends),
            Phase::Empty | Phase::Completing | Phase::Stable => None,
        };
        self.wake = members
            .chain(self.pending.values().copied())
            .chain(syncs)
            .chain(join)
            .min();
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
