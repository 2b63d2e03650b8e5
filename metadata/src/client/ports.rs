//! The ports of [`frazil_core::ports`]: reads on the image, commands through the quorum.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use frazil_core::cold::{NodeRef, TableObject};
use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::{
    Bounds, Broker, Catalog, CatalogRefusal, ClaimStatus, Commit, CommitOutcome, ConfigTarget,
    Gateway, Gateways, GroupClaim, GroupRefusal, GroupStore, Ledger, Located, LogIndex, NewTopic,
    PartitionSummary, Place, Replacement, SegmentStatus, Sequencer, Table, TableRefusal, Tables,
    Watch,
};
use frazil_core::{
    BrokerId, Extent, Offset, PortResult, ProducerId, SegmentId, Topic, TopicId, TopicPartition,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Client, unexpected};
use crate::command::{Command, Outcome};

#[async_trait]
impl Sequencer for Client {
    async fn commit(&self, commit: Commit) -> PortResult<CommitOutcome> {
        match self.execute(Command::Commit(commit)).await? {
            Outcome::Committed(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }
}

#[async_trait]
impl LogIndex for Client {
    fn bounds(&self, partition: &TopicPartition) -> Option<Bounds> {
        self.image().read(|state| state.bounds(partition))
    }

    fn locate(&self, partition: &TopicPartition, from: Offset, max_bytes: u64) -> Located {
        self.image()
            .read(|state| state.locate(partition, from, max_bytes))
    }

    fn locate_time(
        &self,
        partition: &TopicPartition,
        from: Offset,
        timestamp: i64,
    ) -> Option<Place> {
        self.image()
            .read(|state| state.locate_time(partition, from, timestamp))
    }

    fn locate_max_timestamp(&self, partition: &TopicPartition) -> Option<Place> {
        self.image()
            .read(|state| state.locate_max_timestamp(partition))
    }

    fn size_bytes(&self, partition: &TopicPartition) -> u64 {
        self.image().read(|state| state.size_bytes(partition))
    }

    fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)> {
        self.image().read(|state| state.wal_extents(broker))
    }

    fn watch(&self, partitions: &[TopicPartition]) -> Box<dyn Watch> {
        self.image().watch(partitions)
    }

    async fn barrier(&self) -> PortResult<()> {
        let deadline = Instant::now() + self.inner.link.config.deadline;
        self.inner.barrier_until(deadline).await
    }
}

#[async_trait]
impl Catalog for Client {
    fn cluster_id(&self) -> String {
        self.image()
            .read(|state| state.cluster_id().unwrap_or_default().to_owned())
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.image().read(|state| state.topic(name))
    }

    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.image().read(|state| state.topic_by_id(id))
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.image().read(|state| state.topics())
    }

    fn brokers(&self) -> Vec<Broker> {
        self.image().read(|state| state.brokers())
    }

    fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String> {
        self.image().read(|state| state.broker_config(broker))
    }

    fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogRefusal> {
        self.image().read(|state| state.check_new_topic(topic))
    }

    async fn create_topic(
        &self,
        topic: NewTopic,
    ) -> PortResult<Result<Arc<Topic>, CatalogRefusal>> {
        match self.execute(Command::CreateTopic(topic)).await? {
            Outcome::TopicCreated(created) => Ok(created.map(Arc::new)),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_topic(&self, id: TopicId) -> PortResult<Result<(), CatalogRefusal>> {
        self.catalog(Command::DeleteTopic { id }).await
    }

    async fn create_partitions(
        &self,
        id: TopicId,
        partitions: i32,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        self.catalog(Command::CreatePartitions { id, partitions })
            .await
    }

    async fn alter_config(
        &self,
        target: ConfigTarget,
        changes: Vec<(String, Option<String>)>,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        self.catalog(Command::AlterConfig { target, changes }).await
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        to: Option<Offset>,
    ) -> PortResult<Result<Offset, CatalogRefusal>> {
        match self
            .execute(Command::DeleteRecords { partition, to })
            .await?
        {
            Outcome::RecordsDeleted(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    async fn new_producer_id(&self) -> PortResult<ProducerId> {
        self.next_producer_id().await
    }
}

impl Gateways for Client {
    fn gateways(&self) -> Vec<Gateway> {
        self.image().read(|state| state.gateways())
    }
}

#[async_trait]
impl GroupStore for Client {
    fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)> {
        self.image().read(|state| state.group(group))
    }

    fn groups(&self, broker: Option<BrokerId>) -> Vec<String> {
        self.image().read(|state| state.groups(broker))
    }

    fn offsets(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.image().read(|state| state.offsets(group))
    }

    fn offset(&self, group: &str, partition: &TopicPartition) -> Option<CommittedOffset> {
        self.image().read(|state| state.offset(group, partition))
    }

    async fn claim(&self, group: &str) -> PortResult<(Coordinator, Group)> {
        let (broker, epoch) = self.registration()?;
        let group = group.to_owned();
        match self
            .execute(Command::ClaimGroup {
                group,
                broker,
                epoch,
            })
            .await?
        {
            Outcome::GroupClaimed { coordinator, group } => Ok((coordinator, group)),
            other => Err(unexpected(&other)),
        }
    }

    async fn save(&self, claim: &GroupClaim, group: Group) -> PortResult<Result<(), GroupRefusal>> {
        let claim = claim.clone();
        self.group_change(Command::SaveGroup { claim, group }).await
    }

    async fn commit_offsets(
        &self,
        claim: &GroupClaim,
        member: Option<(i32, String)>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        let claim = claim.clone();
        self.group_change(Command::CommitOffsets {
            claim,
            member,
            offsets,
        })
        .await
    }

    async fn delete_offsets(
        &self,
        claim: &GroupClaim,
        partitions: Vec<TopicPartition>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        let claim = claim.clone();
        self.group_change(Command::DeleteOffsets { claim, partitions })
            .await
    }

    async fn delete_group(&self, claim: &GroupClaim) -> PortResult<Result<(), GroupRefusal>> {
        let claim = claim.clone();
        self.group_change(Command::DeleteGroup { claim }).await
    }
}

#[async_trait]
impl Ledger for Client {
    fn now_ms(&self) -> i64 {
        self.image().read(|state| state.now_ms())
    }

    fn partitions(&self) -> Vec<PartitionSummary> {
        self.image().read(|state| state.partitions())
    }

    fn cold(&self, partition: &TopicPartition) -> Option<NodeRef> {
        self.image().read(|state| state.cold(partition))
    }

    fn oldest_extents(&self, partition: &TopicPartition, limit: usize) -> Vec<Extent> {
        self.image()
            .read(|state| state.oldest_extents(partition, limit))
    }

    fn retired_segments(&self, limit: usize) -> Vec<(SegmentId, i64)> {
        self.image().read(|state| state.retired_segments(limit))
    }

    fn segment(&self, id: SegmentId) -> SegmentStatus {
        self.image().read(|state| state.segment(id))
    }

    async fn claim_collector(&self) -> PortResult<u64> {
        match self.execute(Command::ClaimCollector).await? {
            Outcome::CollectorClaimed(epoch) => Ok(epoch),
            other => Err(unexpected(&other)),
        }
    }

    async fn raise_log_starts(&self, to: Vec<(TopicPartition, Offset)>) -> PortResult<()> {
        self.done(Command::RaiseLogStarts { to }).await
    }

    async fn forget_segments(&self, collector: u64, ids: Vec<SegmentId>) -> PortResult<bool> {
        self.forget(Command::ForgetSegments { collector, ids })
            .await
    }

    async fn expire(&self, producers_before_ms: i64, offsets_before_ms: i64) -> PortResult<()> {
        self.done(Command::Expire {
            producers_before_ms,
            offsets_before_ms,
        })
        .await?;
        // The image has that command: it is as new as it gets.
        self.seal_lost().await
    }
}

#[async_trait]
impl Tables for Client {
    fn enabled(&self) -> bool {
        self.image().read(|state| state.level()) >= Command::TABLES_LEVEL
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        self.image().read(|state| state.table(topic))
    }

    fn claim_status(&self, topic: TopicId, claim: u64) -> ClaimStatus {
        self.image().read(|state| state.claim_status(topic, claim))
    }

    fn retired_objects(&self, limit: usize) -> Vec<(TopicId, TableObject, i64)> {
        self.image().read(|state| state.retired_objects(limit))
    }

    fn dead_tables(&self) -> Vec<(TopicId, i64)> {
        self.image().read(|state| state.dead_tables())
    }

    async fn claim_table(
        &self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
    ) -> PortResult<Result<u64, TableRefusal>> {
        let command = Command::ClaimTable {
            topic,
            holder,
            lease_ms,
        };
        match self.execute(command).await? {
            Outcome::TableClaimed(claimed) => Ok(claimed),
            other => Err(unexpected(&other)),
        }
    }

    async fn replace(&self, replacement: Replacement) -> PortResult<Result<(), TableRefusal>> {
        match self.execute(Command::Replace(replacement)).await? {
            Outcome::Replaced(replaced) => Ok(replaced),
            other => Err(unexpected(&other)),
        }
    }

    async fn forget_objects(
        &self,
        collector: u64,
        topic: TopicId,
        objects: Vec<TableObject>,
    ) -> PortResult<bool> {
        self.forget(Command::ForgetTableObjects {
            collector,
            topic,
            objects,
        })
        .await
    }

    async fn forget_tables(&self, collector: u64, topics: Vec<TopicId>) -> PortResult<bool> {
        self.forget(Command::ForgetTables { collector, topics })
            .await
    }
}

impl Client {
    async fn catalog(&self, command: Command) -> PortResult<Result<(), CatalogRefusal>> {
        match self.execute(command).await? {
            Outcome::Catalog(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    async fn forget(&self, command: Command) -> PortResult<bool> {
        match self.execute(command).await? {
            Outcome::Forgotten(current) => Ok(current),
            other => Err(unexpected(&other)),
        }
    }

    async fn group_change(&self, command: Command) -> PortResult<Result<(), GroupRefusal>> {
        match self.execute(command).await? {
            Outcome::Group(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }
}
