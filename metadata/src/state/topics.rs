//! Topics with their partitions' logs, and settings.
//!
//! Names are unique, and so are names with `.` read as `_` (Kafka's metric names would collide).
//! The logs of a topic stand in a vector indexed by partition, so a log is found by one search in a
//! map with as many entries as there are topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use frazil_core::ports::{CatalogRefusal, ConfigTarget, NewTopic, TOPIC_PARTITIONS_MAX};
use frazil_core::{BrokerId, Location, Offset, Topic, TopicId, TopicName, TopicPartition};
use minicbor::{Decode, Encode};

use super::Changes;
use super::log::Log;
use super::segments::Segments;

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct Entry {
    #[cbor(n(0), with = "crate::codec::shared")]
    topic: Arc<Topic>,
    /// By partition.
    #[n(1)]
    logs: Vec<Log>,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Topics {
    #[n(0)]
    by_id: BTreeMap<TopicId, Entry>,
    /// Dynamic settings of one broker, or (`None`) of all.
    #[n(1)]
    broker_config: BTreeMap<Option<BrokerId>, BTreeMap<String, String>>,
    /// Derived.
    #[cbor(skip)]
    by_name: BTreeMap<TopicName, TopicId>,
    /// By [`TopicName::collision_key`]. Derived.
    #[cbor(skip)]
    by_key: BTreeMap<String, TopicId>,
}

impl Topics {
    /// Whether the topic could be created; `Ok(Some)`: this very topic exists.
    pub(super) fn check_new(&self, new: &NewTopic) -> Result<Option<&Arc<Topic>>, CatalogRefusal> {
        if let Some(entry) = self.by_id.get(&new.id) {
            return if entry.topic.name == new.name {
                Ok(Some(&entry.topic))
            } else {
                Err(CatalogRefusal::TopicExists)
            };
        }
        if self.by_name.contains_key(&new.name) {
            return Err(CatalogRefusal::TopicExists);
        }
        let collision = self.by_key.get(&new.name.collision_key());
        if let Some(other) = collision.and_then(|id| self.topic(*id)) {
            return Err(CatalogRefusal::NameCollision(other.name.to_string()));
        }
        if !(1..=TOPIC_PARTITIONS_MAX).contains(&new.partitions) {
            return Err(CatalogRefusal::PartitionCount(0));
        }
        Ok(None)
    }

    pub(super) fn create(&mut self, new: &NewTopic, now_ms: i64) -> Result<Topic, CatalogRefusal> {
        if let Some(topic) = self.check_new(new)? {
            return Ok(topic.as_ref().clone());
        }
        let topic = Topic {
            id: new.id,
            name: new.name.clone(),
            partitions: new.partitions,
            replication_factor: new.replication_factor,
            config: new.config.clone(),
            created_ms: now_ms,
        };
        self.by_name.insert(topic.name.clone(), topic.id);
        self.by_key.insert(topic.name.collision_key(), topic.id);
        let mut logs = Vec::new();
        logs.resize_with(topic.partitions as usize, Log::default);
        self.by_id.insert(
            topic.id,
            Entry {
                topic: Arc::new(topic.clone()),
                logs,
            },
        );
        Ok(topic)
    }

    pub(super) fn delete(
        &mut self,
        id: TopicId,
        segments: &mut Segments,
        now_ms: i64,
        changes: &mut Changes,
    ) -> Result<(), CatalogRefusal> {
        let entry = self.by_id.remove(&id).ok_or(CatalogRefusal::UnknownTopic)?;
        self.by_name.remove(&entry.topic.name);
        self.by_key.remove(&entry.topic.name.collision_key());
        for (index, log) in (0..).zip(&entry.logs) {
            log.release(segments, now_ms);
            changes.partitions.push(TopicPartition::new(id, index));
        }
        changes.catalog = true;
        Ok(())
    }

    pub(super) fn grow(&mut self, id: TopicId, partitions: i32) -> Result<(), CatalogRefusal> {
        let entry = self
            .by_id
            .get_mut(&id)
            .ok_or(CatalogRefusal::UnknownTopic)?;
        let present = entry.topic.partitions;
        if partitions <= present || partitions > TOPIC_PARTITIONS_MAX {
            return Err(CatalogRefusal::PartitionCount(present));
        }
        Arc::make_mut(&mut entry.topic).partitions = partitions;
        entry.logs.resize_with(partitions as usize, Log::default);
        Ok(())
    }

    pub(super) fn alter_config(
        &mut self,
        target: ConfigTarget,
        changes: &[(String, Option<String>)],
    ) -> Result<(), CatalogRefusal> {
        let config = match target {
            ConfigTarget::Topic(id) => {
                let entry = self
                    .by_id
                    .get_mut(&id)
                    .ok_or(CatalogRefusal::UnknownTopic)?;
                &mut Arc::make_mut(&mut entry.topic).config
            }
            ConfigTarget::Broker(id) => self.broker_config.entry(id).or_default(),
        };
        for (name, value) in changes {
            match value {
                Some(value) => config.insert(name.clone(), value.clone()),
                None => config.remove(name),
            };
        }
        self.broker_config.retain(|_, config| !config.is_empty());
        Ok(())
    }

    pub(super) fn delete_records(
        &mut self,
        partition: &TopicPartition,
        to: Option<Offset>,
        segments: &mut Segments,
        now_ms: i64,
        changes: &mut Changes,
    ) -> Result<Offset, CatalogRefusal> {
        let log = self
            .log_mut(partition)
            .ok_or(CatalogRefusal::UnknownTopic)?;
        let to = to.unwrap_or(log.high_watermark());
        if to < Offset::ZERO || to > log.high_watermark() {
            return Err(CatalogRefusal::OffsetOutOfRange);
        }
        if log.raise_start(to, segments, now_ms) {
            changes.partitions.push(*partition);
        }
        Ok(log.bounds().log_start)
    }

    /// Forgets idle producers. Answers whose write-ahead logs extents still refer to, since both
    /// need a look at every log.
    pub(super) fn expire_producers(&mut self, before_ms: i64) -> BTreeSet<BrokerId> {
        let mut holders = BTreeSet::new();
        for entry in self.by_id.values_mut() {
            for log in &mut entry.logs {
                log.producers_mut().expire(before_ms);
                holders.extend(
                    log.extents()
                        .iter()
                        .filter_map(|extent| match extent.location {
                            Location::Wal { broker, .. } => Some(broker),
                            Location::Segment { .. } | Location::Lost => None,
                        }),
                );
            }
        }
        holders
    }

    /// Gives up everything in the write-ahead log of a gateway. Visits every extent.
    pub(super) fn give_up_wal(&mut self, holder: BrokerId, changes: &mut Changes) {
        for (id, entry) in &mut self.by_id {
            for (index, log) in (0..).zip(&mut entry.logs) {
                if log.give_up(holder, Offset::ZERO..Offset(i64::MAX)) {
                    changes.partitions.push(TopicPartition::new(*id, index));
                }
            }
        }
    }

    pub(super) fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id).map(|entry| &entry.topic)
    }

    pub(super) fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name).and_then(|id| self.topic(*id))
    }

    /// All topics, by name.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values().filter_map(|id| self.topic(*id))
    }

    pub(super) fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String> {
        self.broker_config.get(&broker).cloned().unwrap_or_default()
    }

    pub(super) fn log(&self, partition: &TopicPartition) -> Option<&Log> {
        let index = usize::try_from(partition.partition).ok()?;
        self.by_id.get(&partition.topic)?.logs.get(index)
    }

    pub(super) fn log_mut(&mut self, partition: &TopicPartition) -> Option<&mut Log> {
        let index = usize::try_from(partition.partition).ok()?;
        self.by_id.get_mut(&partition.topic)?.logs.get_mut(index)
    }

    /// Every log, by topic id and partition.
    pub(super) fn logs(&self) -> impl Iterator<Item = (TopicPartition, &Arc<Topic>, &Log)> {
        self.by_id.iter().flat_map(|(id, entry)| {
            (0..)
                .zip(&entry.logs)
                .map(|(index, log)| (TopicPartition::new(*id, index), &entry.topic, log))
        })
    }

    pub(super) fn rebuild(&mut self) {
        for entry in self.by_id.values_mut() {
            entry.logs.iter_mut().for_each(Log::rebuild);
        }
        let topics = || self.by_id.values().map(|entry| &entry.topic);
        self.by_name = topics()
            .map(|topic| (topic.name.clone(), topic.id))
            .collect();
        self.by_key = topics()
            .map(|topic| (topic.name.collision_key(), topic.id))
            .collect();
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (id, Entry { topic, logs }) in &self.by_id {
            if topic.id != *id || self.by_name.get(&topic.name) != Some(id) {
                return Err(format!("topic {id} cannot be found by its name"));
            }
            if self.by_key.get(&topic.name.collision_key()) != Some(id) {
                return Err(format!("topic {} collides with another", topic.name));
            }
            if usize::try_from(topic.partitions) != Ok(logs.len())
                || !(1..=TOPIC_PARTITIONS_MAX).contains(&topic.partitions)
            {
                return Err(format!("topic {} has {} logs", topic.name, logs.len()));
            }
        }
        if self.by_name.len() != self.by_id.len() || self.by_key.len() != self.by_id.len() {
            return Err("a name of a topic that does not exist".to_owned());
        }
        for (partition, _, log) in self.logs() {
            log.check()
                .map_err(|problem| format!("partition {partition}: {problem}"))?;
        }
        Ok(())
    }
}
