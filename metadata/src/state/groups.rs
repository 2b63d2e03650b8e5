//! Consumer groups: who coordinates each, its last completed generation, its committed offsets.
//!
//! Every write carries the claim under which it is made, and is refused if another claim was made
//! since, or if the claimant's registration is no longer valid. A claim's epoch is the index of the
//! claiming command: no two claims of any group share one, deleted groups included.
//!
//! A group *exists* once a generation or an offset was stored; a claim alone makes none. Deleting a
//! group drops its claim too.

use std::collections::BTreeMap;

use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::{GroupClaim, GroupRefusal};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerId, TopicId, TopicPartition};
use minicbor::{Decode, Encode};

use super::Context;
use super::brokers::Brokers;
use super::topics::Topics;
use crate::command::{Command, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Entry {
    #[n(0)]
    group: Group,
    #[n(1)]
    coordinator: Coordinator,
    #[n(2)]
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// The state's time at which the last member went, or at which the entry was made.
    #[n(3)]
    empty_since_ms: i64,
    /// The state's time of the last claim.
    #[n(4)]
    claimed_ms: i64,
}

impl Entry {
    fn exists(&self) -> bool {
        !self.offsets.is_empty() || self.group != Group::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Groups(#[n(0)] BTreeMap<String, Entry>);

impl Groups {
    pub(super) fn apply(
        &mut self,
        command: &Command,
        at: Context,
        brokers: &Brokers,
        topics: &Topics,
    ) -> Outcome {
        match command {
            Command::ClaimGroup {
                group,
                broker,
                epoch,
            } => {
                if !brokers.is_current(*broker, *epoch) {
                    return Outcome::Fenced;
                }
                let coordinator = Coordinator {
                    broker: *broker,
                    broker_epoch: *epoch,
                    epoch: at.index,
                };
                Outcome::GroupClaimed {
                    coordinator,
                    group: self.claim(group, coordinator, at.now_ms),
                }
            }
            Command::SaveGroup { claim, group } => Outcome::Group(
                self.claimed(claim, brokers)
                    .and_then(|entry| entry.save(group, at.now_ms)),
            ),
            Command::CommitOffsets {
                claim,
                member,
                offsets,
            } => Outcome::Group(self.claimed(claim, brokers).and_then(|entry| {
                entry.admit(member.as_ref())?;
                for (partition, offset) in offsets {
                    if topics.log(partition).is_some() {
                        let committed_ms = at.now_ms;
                        let offset = CommittedOffset {
                            committed_ms,
                            ..offset.clone()
                        };
                        entry.offsets.insert(*partition, offset);
                    }
                }
                Ok(())
            })),
            Command::DeleteOffsets { claim, partitions } => {
                Outcome::Group(self.claimed(claim, brokers).and_then(|entry| {
                    if !entry.exists() {
                        return Err(GroupRefusal::UnknownGroup);
                    }
                    for partition in partitions {
                        entry.offsets.remove(partition);
                    }
                    Ok(())
                }))
            }
            Command::DeleteGroup { claim } => Outcome::Group(
                self.claimed(claim, brokers)
                    .map(|entry| (entry.exists(), entry.group.members.is_empty()))
                    .and_then(|state| match state {
                        (false, _) => Err(GroupRefusal::UnknownGroup),
                        (true, false) => Err(GroupRefusal::NotEmpty),
                        (true, true) => {
                            self.0.remove(&claim.group);
                            Ok(())
                        }
                    }),
            ),
            _ => Outcome::Invalid("not a command about groups".to_owned()),
        }
    }

    fn claim(&mut self, group: &str, coordinator: Coordinator, now_ms: i64) -> Group {
        if let Some(entry) = self.0.get_mut(group) {
            entry.coordinator = coordinator;
            entry.claimed_ms = now_ms;
            return entry.group.clone();
        }
        self.0.insert(
            group.to_owned(),
            Entry {
                group: Group::default(),
                coordinator,
                offsets: BTreeMap::new(),
                empty_since_ms: now_ms,
                claimed_ms: now_ms,
            },
        );
        Group::default()
    }

    /// The group, if the claim is its newest and the claimant may still act.
    fn claimed(
        &mut self,
        claim: &GroupClaim,
        brokers: &Brokers,
    ) -> Result<&mut Entry, GroupRefusal> {
        let Coordinator {
            broker,
            broker_epoch,
            ..
        } = claim.coordinator;
        self.0
            .get_mut(&claim.group)
            .filter(|entry| {
                entry.coordinator == claim.coordinator || sabotage::on(Bug::OldClaimsAct)
            })
            .filter(|_| brokers.is_current(broker, broker_epoch))
            .ok_or(GroupRefusal::NotCoordinator)
    }

    /// The offsets committed on a topic go with it.
    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        for entry in self.0.values_mut() {
            let of_topic =
                TopicPartition::new(topic, i32::MIN)..=TopicPartition::new(topic, i32::MAX);
            let partitions: Vec<_> = entry.offsets.range(of_topic).map(|(&p, _)| p).collect();
            for partition in partitions {
                entry.offsets.remove(&partition);
            }
        }
    }

    /// Drops the offsets of groups that have been empty, and the offsets idle, since before
    /// `before_ms`; then groups of which nothing is left.
    pub(super) fn expire(&mut self, before_ms: i64) {
        self.0.retain(|_, entry| {
            if !entry.group.members.is_empty() {
                return true;
            }
            if entry.empty_since_ms < before_ms {
                entry
                    .offsets
                    .retain(|_, offset| offset.committed_ms >= before_ms);
            }
            let idle_since_ms = entry.empty_since_ms.max(entry.claimed_ms);
            !entry.offsets.is_empty() || idle_since_ms >= before_ms
        });
    }

    pub(super) fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)> {
        let entry = self.0.get(group)?;
        Some((entry.group.clone(), Some(entry.coordinator)))
    }

    /// The groups that a gateway has claimed, or (`None`) that exist.
    pub(super) fn names(&self, broker: Option<BrokerId>) -> Vec<String> {
        let wanted = |entry: &Entry| match broker {
            Some(broker) => entry.coordinator.broker == broker,
            None => entry.exists(),
        };
        self.0
            .iter()
            .filter(|(_, entry)| wanted(entry))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn offsets(
        &self,
        group: &str,
    ) -> Option<&BTreeMap<TopicPartition, CommittedOffset>> {
        self.0.get(group).map(|entry| &entry.offsets)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn check(&self, topics: &Topics, applied: u64) -> Result<(), String> {
        for (name, entry) in &self.0 {
            if entry.coordinator.epoch > applied {
                return Err(format!("group {name:?} was claimed in the future"));
            }
            if let Some(gone) = entry.offsets.keys().find(|p| topics.log(p).is_none()) {
                return Err(format!(
                    "group {name:?} has an offset on {gone}, which is gone"
                ));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn save(&mut self, group: &Group, now_ms: i64) -> Result<(), GroupRefusal> {
        if group.generation < self.group.generation {
            return Err(GroupRefusal::StaleGeneration);
        }
        if group.members.is_empty() && !self.group.members.is_empty() {
            self.empty_since_ms = now_ms;
        }
        self.group = group.clone();
        Ok(())
    }

    /// Whether `member` (generation and id) may commit offsets.
    fn admit(&self, member: Option<&(i32, String)>) -> Result<(), GroupRefusal> {
        match member {
            None if self.group.members.is_empty() => Ok(()),
            None => Err(GroupRefusal::UnknownMember),
            Some((_, id)) if !self.group.members.contains_key(id) => {
                Err(GroupRefusal::UnknownMember)
            }
            Some(_) if sabotage::on(Bug::StaleGenerationsCommit) => Ok(()),
            Some((generation, _)) if *generation != self.group.generation => {
                Err(GroupRefusal::StaleGeneration)
            }
            Some(_) => Ok(()),
        }
    }
}
