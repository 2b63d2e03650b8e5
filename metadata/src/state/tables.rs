//! Tables: who may change them, which object is their metadata, and which objects wait for
//! collection.
//!
//! ```text
//!              claim (index of the command)
//!                │        a newer claim, or the topic deleted: refused
//!  none ─────► claimed ──replace──► roots, extents and pointer change at once
//!                │                        │
//!                │                        └─ objects retired ──(grace, deleted)──► forgotten
//!                └─topic deleted─► dead ──(every object deleted)──► forgotten
//! ```
//!
//! A replacement is checked as a whole before anything is changed. It is refused as `Changed` when
//! it was planned on what is no more, and as invalid when it cannot have been planned on anything
//! that ever was. A lease keeps others from claiming, and nothing else: what counts is the claim.
//!
//! A topic that has a table's entry of the dead is never created again under its id, since
//! everything below its prefix is deleted.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::cold::TableObject;
use frazil_core::ports::{ClaimStatus, Replacement, Table, TablePointer, TableRefusal};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{TopicId, TopicPartition};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::log::{Misfit, check_move};
use super::{Changes, Context, State};
use crate::command::Outcome;

/// A topic's table, once it has been claimed.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Entry {
    /// The newest claim.
    #[n(0)]
    claim: u64,
    #[n(1)]
    lease: Option<Lease>,
    #[n(2)]
    pointer: Option<TablePointer>,
    /// Objects that nothing needs, with the state's time at which that was noted.
    #[n(3)]
    retired: BTreeMap<TableObject, i64>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct Lease {
    #[cbor(n(0), with = "crate::codec::uuid")]
    holder: Uuid,
    #[n(1)]
    until_ms: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Tables {
    #[n(0)]
    by_topic: BTreeMap<TopicId, Entry>,
    /// Deleted topics that had been claimed, with the state's time of the deletion.
    #[n(1)]
    dead: BTreeMap<TopicId, i64>,
    /// The retired objects, oldest first. Derived.
    #[cbor(skip)]
    queue: BTreeSet<(i64, TopicId, TableObject)>,
}

impl Tables {
    /// A new claim on the table of a topic that exists.
    fn claim(
        &mut self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
        at: Context,
    ) -> Result<u64, TableRefusal> {
        let entry = self.by_topic.entry(topic).or_default();
        let held = entry.lease.as_ref();
        if held.is_some_and(|lease| lease.holder != holder && lease.until_ms > at.now_ms) {
            return Err(TableRefusal::Held);
        }
        entry.claim = at.index;
        entry.lease = Some(Lease {
            holder,
            until_ms: at.now_ms.saturating_add(lease_ms.into()),
        });
        Ok(at.index)
    }

    fn retire(&mut self, topic: TopicId, object: TableObject, now_ms: i64) {
        let Some(entry) = self.by_topic.get_mut(&topic) else {
            return;
        };
        // The older time stays: from then on nothing has needed it.
        entry.retired.entry(object).or_insert_with(|| {
            self.queue.insert((now_ms, topic, object));
            now_ms
        });
    }

    /// Objects are deleted. Only retired ones can be forgotten.
    pub(super) fn forget_objects(&mut self, topic: TopicId, objects: &[TableObject]) {
        let Some(entry) = self.by_topic.get_mut(&topic) else {
            return;
        };
        for object in objects {
            if let Some(since) = entry.retired.remove(object) {
                self.queue.remove(&(since, topic, *object));
            }
        }
    }

    /// The topic is deleted: whatever it has in the store may be too.
    pub(super) fn bury(&mut self, topic: TopicId, now_ms: i64) {
        if let Some(entry) = self.by_topic.remove(&topic) {
            for (object, since) in entry.retired {
                self.queue.remove(&(since, topic, object));
            }
            self.dead.insert(topic, now_ms);
        }
    }

    /// A deleted topic has nothing in the store any more.
    pub(super) fn forget(&mut self, topic: TopicId) {
        self.dead.remove(&topic);
    }

    pub(super) fn is_dead(&self, topic: TopicId) -> bool {
        self.dead.contains_key(&topic)
    }

    fn retired(&self) -> impl Iterator<Item = (TopicId, TableObject, i64)> {
        self.queue
            .iter()
            .map(|&(since, topic, object)| (topic, object, since))
    }

    /// How many tables there are, dead ones, and retired objects.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.by_topic.len(), self.dead.len(), self.queue.len())
    }

    pub(super) fn rebuild(&mut self) {
        let retired = self.by_topic.iter().flat_map(|(&topic, entry)| {
            let objects = entry.retired.iter();
            objects.map(move |(&object, &since)| (since, topic, object))
        });
        self.queue = retired.collect();
    }
}

impl State {
    pub(super) fn claim_table(
        &mut self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
        at: Context,
    ) -> Result<u64, TableRefusal> {
        if self.topics.topic(topic).is_none() {
            return Err(TableRefusal::UnknownTopic);
        }
        let tables = self.tables.get_or_insert_default();
        tables.claim(topic, holder, lease_ms, at)
    }

    pub(super) fn replace(
        &mut self,
        replacement: &Replacement,
        at: Context,
        changes: &mut Changes,
    ) -> Outcome {
        let counts = match self.plan_replacement(replacement) {
            Ok(counts) => counts,
            Err(Misfit::Refused(refusal)) => return Outcome::Replaced(Err(refusal)),
            Err(Misfit::Nonsense(why)) => return Outcome::Invalid(why.to_owned()),
        };
        let topic = replacement.topic;
        for (moved, count) in replacement.moves.iter().zip(counts) {
            let partition = TopicPartition::new(topic, moved.partition);
            if let Some(log) = self.topics.log_mut(&partition) {
                log.apply_cold(moved, count, &mut self.segments, at.now_ms);
                changes.partitions.push(partition);
            }
        }
        let tables = self.tables.get_or_insert_default();
        if let Some(entry) = tables.by_topic.get_mut(&topic) {
            let table = replacement.table.as_ref();
            if let Some(table) = table.filter(|_| !sabotage::on(Bug::PointerIsLeftBehind)) {
                entry.pointer = Some(table.new);
            }
            entry.lease = entry
                .lease
                .take()
                .filter(|_| replacement.lease_ms > 0)
                .map(|lease| Lease {
                    until_ms: at.now_ms.saturating_add(replacement.lease_ms.into()),
                    ..lease
                });
        }
        for object in &replacement.retired {
            tables.retire(topic, *object, at.now_ms);
        }
        Outcome::Replaced(Ok(()))
    }

    /// How many extents each move releases, if all of the replacement can be.
    fn plan_replacement(&self, replacement: &Replacement) -> Result<Vec<usize>, Misfit> {
        let nonsense = |why| Err(Misfit::Nonsense(why));
        let Replacement { topic, claim, .. } = *replacement;
        if self.topics.topic(topic).is_none() {
            return Err(Misfit::Refused(TableRefusal::UnknownTopic));
        }
        let entry = self.tables.as_ref().and_then(|t| t.by_topic.get(&topic));
        let entry = match entry {
            Some(entry) if claim == entry.claim => entry,
            Some(entry) if claim > 0 && sabotage::on(Bug::PastClaimsReplace) => entry,
            Some(entry) if claim < entry.claim && claim > 0 => {
                return Err(Misfit::Refused(TableRefusal::Superseded));
            }
            _ => return nonsense("a replacement under a claim that nobody made"),
        };

        // In itself.
        let mut roots = BTreeMap::new();
        for moved in &replacement.moves {
            check_move(moved, claim)?;
            if roots.insert(moved.partition, &moved.root).is_some() {
                return nonsense("two moves of one partition");
            }
        }
        if let Some(table) = &replacement.table {
            let id = table.new.metadata;
            if id.claim == 0 || id.claim > claim || table.expected == Some(id) {
                return nonsense("table metadata of another claim, or in place of itself");
            }
        }

        // What it was planned on.
        let mut logs = Vec::with_capacity(replacement.moves.len());
        for moved in &replacement.moves {
            let partition = TopicPartition::new(topic, moved.partition);
            let Some(log) = self.topics.log(&partition) else {
                // Partitions only become more.
                return nonsense("a move of a partition that does not exist");
            };
            logs.push(log);
        }
        let pointer = entry.pointer.map(|pointer| pointer.metadata);
        let table = replacement.table.as_ref();
        let changed = table.is_some_and(|table| table.expected != pointer)
            || (replacement.moves.iter().zip(&logs))
                .any(|(moved, log)| moved.expected != log.cold().map(|root| root.id));
        if changed && !sabotage::on(Bug::ReplacesWhatHasChanged) {
            return Err(Misfit::Refused(TableRefusal::Changed));
        }
        let counts = replacement.moves.iter().zip(&logs);
        let counts = counts
            .map(|(moved, log)| log.plan_cold(moved))
            .collect::<Result<Vec<_>, _>>()?;

        // What is named afterwards is not retired, and the reverse.
        let pointer = table.map_or(pointer, |table| Some(table.new.metadata));
        let root_of = |partition: i32| match roots.get(&partition) {
            Some(root) => root.as_ref().map(|root| root.id),
            None => {
                let log = self.topics.log(&TopicPartition::new(topic, partition));
                log.and_then(|log| log.cold()).map(|root| root.id)
            }
        };
        let named = |object: &TableObject| match *object {
            TableObject::Manifest(partition, id) => root_of(partition) == Some(id),
            TableObject::Metadata(id) => pointer == Some(id),
            TableObject::Data(_) | TableObject::List(_) | TableObject::Files(_) => false,
        };
        for object in &replacement.retired {
            let id = object.id();
            if id.claim == 0 || id.claim > claim || named(object) {
                return nonsense("an object is retired and needed, or of another claim");
            }
        }
        let new_roots = replacement.moves.iter().filter_map(|moved| {
            let root = moved.root.as_ref()?;
            Some(TableObject::Manifest(moved.partition, root.id))
        });
        let new_table = table.map(|table| TableObject::Metadata(table.new.metadata));
        if new_roots
            .chain(new_table)
            .any(|object| entry.retired.contains_key(&object))
        {
            return nonsense("an object is named that has been retired");
        }
        Ok(counts)
    }

    // ----- ports::Tables

    /// What is known of a topic's table.
    pub fn table(&self, topic: TopicId) -> Option<Table> {
        self.topics.topic(topic)?;
        let entry = self.tables.as_ref().and_then(|t| t.by_topic.get(&topic));
        Some(entry.map_or_else(Table::default, |entry| Table {
            claim: entry.claim,
            lease: entry.lease.as_ref().map(|l| (l.holder, l.until_ms)),
            pointer: entry.pointer,
        }))
    }

    /// What is known of a claim.
    pub fn claim_status(&self, topic: TopicId, claim: u64) -> ClaimStatus {
        if claim > self.applied {
            // Of a time that this state does not know yet.
            return ClaimStatus::Current;
        }
        match self.table(topic) {
            Some(table) if claim < table.claim => ClaimStatus::Past,
            Some(_) => ClaimStatus::Current,
            // The claim was made while the topic was there.
            None => ClaimStatus::Gone,
        }
    }

    /// Objects of tables that nothing needs, oldest first, with the state's time of that.
    pub fn retired_objects(&self, limit: usize) -> Vec<(TopicId, TableObject, i64)> {
        let tables = self.tables.as_ref();
        tables.map_or_else(Vec::new, |t| t.retired().take(limit).collect())
    }

    /// Deleted topics that may have objects in the store, with the state's time of the deletion.
    pub fn dead_tables(&self) -> Vec<(TopicId, i64)> {
        let dead = self.tables.iter().flat_map(|tables| &tables.dead);
        dead.map(|(&topic, &since)| (topic, since)).collect()
    }

    /// Checks that claims, roots, pointers, retired objects and dead tables fit.
    pub(super) fn check_tables(&self) -> Result<(), String> {
        let none = Tables::default();
        let tables = self.tables.as_ref().unwrap_or(&none);
        for (topic, entry) in &tables.by_topic {
            if self.topics.topic(*topic).is_none() {
                return Err(format!("a table of the unknown topic {topic}"));
            }
            if entry.claim == 0 || entry.claim > self.applied {
                return Err(format!("claim {} on the table of {topic}", entry.claim));
            }
            let pointer = entry.pointer.map(|pointer| pointer.metadata);
            let retired = entry.retired.keys().map(|object| object.id());
            if let Some(id) = pointer
                .into_iter()
                .chain(retired)
                .find(|id| id.claim == 0 || id.claim > entry.claim)
            {
                return Err(format!("object {id} of topic {topic} is of no claim"));
            }
            if pointer.is_some_and(|id| entry.retired.contains_key(&TableObject::Metadata(id))) {
                return Err(format!("the metadata of the table of {topic} is retired"));
            }
        }
        if let Some(topic) = tables
            .dead
            .keys()
            .find(|id| self.topics.topic(**id).is_some())
        {
            return Err(format!("topic {topic} exists and is dead"));
        }
        let mut rebuilt = tables.clone();
        rebuilt.rebuild();
        if rebuilt.queue != tables.queue {
            return Err("the queue of retired objects is not in step".to_owned());
        }
        for (partition, _, log) in self.topics.logs() {
            let Some(root) = log.cold() else {
                continue;
            };
            let entry = tables.by_topic.get(&partition.topic);
            let object = TableObject::Manifest(partition.partition, root.id);
            if !entry.is_some_and(|entry| {
                (1..=entry.claim).contains(&root.id.claim) && !entry.retired.contains_key(&object)
            }) {
                return Err(format!("{partition} has the root {} of no claim", root.id));
            }
        }
        Ok(())
    }
}
