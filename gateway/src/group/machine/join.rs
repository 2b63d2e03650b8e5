//! Joining: who is let in, who comes back, and who takes the place of a static member.

use super::*;

/// How long a new member may be parked in a join before it is given up, milliseconds. Its client
/// cannot heartbeat meanwhile, so the session timeout does not apply.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 300_000;

/// Protocols that a member may offer: electing one compares all with all.
const PROTOCOLS_MAX: usize = 64;

impl Machine {
    pub(super) fn join(
        &mut self,
        token: Token,
        join: Join,
        now: Millis,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let (min, max) = self.limits.session_timeout_ms;
        if !(min..=max).contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if !join.member_id.is_empty()
            && !self.members.contains_key(&join.member_id)
            && !self.pending.contains_key(&join.member_id)
        {
            // Before anything else: whether the group has room is nothing to one who cannot join.
            return Err(match &join.instance_id {
                Some(instance) if self.instances.contains_key(instance) => {
                    GroupError::FencedInstance
                }
                _ => GroupError::UnknownMember,
            });
        }
        if !self.has_room(&join) {
            let id = join.member_id.as_str();
            self.pending.remove(id);
            if self.members.contains_key(id) {
                self.remove(id, out);
                self.rebalance_or_complete(now, out);
            }
            return Err(GroupError::GroupFull);
        }
        if !self.supports(&join) {
            return Err(GroupError::InconsistentProtocol);
        }
        if join.member_id.is_empty() {
            self.join_new(token, join, now, out)
        } else if self.pending.contains_key(&join.member_id) {
            let id = join.member_id.clone();
            self.add(token, id, join, now, out);
            Ok(())
        } else {
            self.check_member(&join.member_id, join.instance_id.as_deref())?;
            self.rejoin(token, join, now, out);
            Ok(())
        }
    }

    fn has_room(&self, join: &Join) -> bool {
        let member = self.members.get(&join.member_id);
        let replaced = member.or_else(|| {
            let id = self.instances.get(join.instance_id.as_ref()?)?;
            self.members.get(id)
        });
        let others: usize = self.members.values().map(MemberState::bytes).sum();
        let bytes = others - replaced.map_or(0, MemberState::bytes);
        let own: usize = join
            .protocols
            .iter()
            .map(|(name, data)| name.len() + data.len())
            .sum();
        if bytes + own > self.limits.bytes {
            return false;
        }
        match self.phase {
            _ if join.member_id.is_empty() && self.pending.len() >= self.limits.members => false,
            Phase::Empty => true,
            Phase::Preparing { .. } => {
                replaced.is_some_and(|m| m.joining.is_some())
                    || self
                        .members
                        .values()
                        .filter(|m| m.joining.is_some())
                        .count()
                        < self.limits.members
            }
            Phase::Completing | Phase::Stable => {
                replaced.is_some() || self.members.len() < self.limits.members
            }
        }
    }

    /// Whether the joining member shares a protocol with everybody.
    fn supports(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || !(1..=PROTOCOLS_MAX).contains(&join.protocols.len()) {
            return false;
        }
        self.members.is_empty()
            || join.protocol_type == self.protocol_type
                && join
                    .protocols
                    .iter()
                    .any(|(name, _)| self.members.values().all(|m| m.offers(name)))
    }

    fn join_new(
        &mut self,
        token: Token,
        join: Join,
        now: Millis,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let stem = join.instance_id.as_ref().unwrap_or(&join.client_id);
        let id = format!("{stem}-{}", join.fresh);
        if let Some(instance) = &join.instance_id {
            if let Some(old) = self.instances.get(instance).cloned() {
                self.replace_static(token, &old, &id, join, now, out);
                return Ok(());
            }
        } else if join.id_required {
            let deadline = now + join.session_timeout_ms as u64;
            self.pending.insert(id.clone(), deadline);
            self.wake_by(deadline);
            return Err(GroupError::MemberIdRequired(id));
        }
        self.add(token, id, join, now, out);
        Ok(())
    }

    fn add(&mut self, token: Token, id: String, join: Join, now: Millis, out: &mut Vec<Effect>) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type.clone();
        }
        let mut member = MemberState::new(join, now + NEW_MEMBER_JOIN_TIMEOUT_MS);
        member.joining = Some(token);
        self.wake_by(member.deadline);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.members.insert(id, member);
        if let Phase::Preparing {
            initial: Some(initial),
            ..
        } = &mut self.phase
        {
            initial.grew = true;
        }
        self.rebalance_or_complete(now, out);
    }

    /// A known member joins again.
    fn rejoin(&mut self, token: Token, join: Join, now: Millis, out: &mut Vec<Effect>) {
        let id = join.member_id.clone();
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let unchanged = member.protocols == join.protocols;
        let leads = self.leader.as_ref() == Some(&id);
        let answer_now = match self.phase {
            Phase::Empty | Phase::Preparing { .. } => false,
            // Its answer got lost.
            Phase::Completing => unchanged,
            // A leader that rejoins wants to assign anew.
            Phase::Stable => unchanged && !leads,
        };
        if answer_now {
            self.beat(&id, now);
            let joined = self.joined(&id, leads, false);
            out.push(Effect::Joined(token, Ok(joined)));
            return;
        }
        member.update(join);
        member.park_join(token, out);
        self.beat(&id, now);
        self.rebalance_or_complete(now, out);
    }

    /// A static member comes back without its member id (KIP-345): it gets a new one, the old one
    /// is fenced, and a stable group stays so if its protocol does.
    fn replace_static(
        &mut self,
        token: Token,
        old: &str,
        id: &str,
        join: Join,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(old) else {
            return;
        };
        let can_skip_assignment = join.can_skip_assignment;
        member.answer_parked(&GroupError::FencedInstance, out);
        member.update(join);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.to_owned());
        }
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.to_owned());
        }
        self.members.insert(id.to_owned(), member);
        self.beat(id, now);
        if self.phase == Phase::Stable
            && self.protocol == elect_protocol(&self.members, self.leader.as_deref())
        {
            let mut joined =
                self.joined(id, led && can_skip_assignment, can_skip_assignment && led);
            if led && !can_skip_assignment {
                // A client that cannot skip must not find itself the leader, or it would assign
                // and the others would never hear of it.
                joined.leader = old.to_owned();
            }
            out.push(Effect::Persist(self.image()));
            out.push(Effect::Joined(token, Ok(joined)));
            return;
        }
        if let Some(member) = self.members.get_mut(id) {
            member.park_join(token, out);
        }
        self.rebalance_or_complete(now, out);
    }

    pub(super) fn joined(&self, id: &str, with_members: bool, skip_assignment: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self
            .members
            .iter()
            .filter(|_| with_members)
            .map(|(id, m)| JoinedMember {
                member_id: id.clone(),
                instance_id: m.instance_id.clone(),
                metadata: m.metadata(&protocol),
            });
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            skip_assignment,
            members: members.collect(),
            protocol,
        }
    }
}
