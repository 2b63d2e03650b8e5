//! Deletes objects of tables: those that are retired, those of deleted topics, and orphans.
//!
//! | what | why it may go | when |
//! |---|---|---|
//! | retired | a replacement said that nothing needs it | after the grace period |
//! | below a deleted topic's prefix | the state says that the topic is gone for good | after the grace period |
//! | of a past claim, named by nothing | nothing will ever name it: see below | a grace period after it was first found so |
//!
//! # Orphans
//! A job that is stopped, or whose replacement is refused, leaves objects behind. An object is an
//! orphan if its claim was over *before* the roots were read, and nothing names it that the state's
//! roots lead to: the partitions' manifests, and the table's metadata with all its snapshots. Only
//! the newest claim can name anything new, and others only what was named before; so an orphan stays
//! one. Everything on the way is read and checked, once (see [`super::reach`]), and whatever is named
//! must be there; if anything is not as it should be, nothing of the topic is deleted.
//!
//! The list of the store only tells where to look. Absence is never a reason to delete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use frazil_core::TopicId;
use frazil_core::cold::TableObject;
use frazil_core::ports::{ClaimStatus, Table};
use frazil_core::sabotage::{self, Bug};
use futures_util::TryStreamExt;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::reach::Memory;
use super::{Ctx, JobError};
use crate::bucket::Stamp;
use crate::reclaim::delete;

/// How many objects are deleted, and forgotten, at once.
const PAGE: usize = 1000;

/// Deletes and forgets what has been retired for `grace`. Answers how many objects are gone;
/// `None`: another process has become the collector.
pub(crate) async fn retired(
    ctx: &Ctx,
    grace: Duration,
    collector: u64,
) -> Result<Option<u64>, JobError> {
    let mut total = 0;
    loop {
        let mut before_ms = ctx.ledger.now_ms().saturating_sub(millis(grace));
        if sabotage::on(Bug::TablesHaveNoGrace) {
            before_ms = ctx.ledger.now_ms();
        }
        let mut due: BTreeMap<TopicId, Vec<TableObject>> = BTreeMap::new();
        let all = ctx.tables.retired_objects(PAGE).into_iter();
        for (topic, object, _) in all.take_while(|(_, _, since)| *since <= before_ms) {
            due.entry(topic).or_default().push(object);
        }
        if due.is_empty() {
            return Ok(Some(total));
        }
        for (topic, objects) in due {
            let (gone, failed) = ctx.delete(topic, objects).await;
            total += gone.len() as u64;
            if !gone.is_empty() && !ctx.tables.forget_objects(collector, topic, gone).await? {
                return Ok(None);
            }
            if let Some(failed) = failed {
                return Err(failed.into());
            }
        }
    }
}

/// Deletes everything of topics that have been deleted for `grace`, and forgets those of which
/// nothing is left. Answers as [`retired`].
pub(crate) async fn dead(
    ctx: &Ctx,
    grace: Duration,
    collector: u64,
) -> Result<Option<u64>, JobError> {
    let before_ms = ctx.ledger.now_ms().saturating_sub(millis(grace));
    let mut total = 0;
    let mut empty = Vec::new();
    for (topic, since) in ctx.tables.dead_tables() {
        if since > before_ms {
            continue;
        }
        let (objects, foreign) = listed(ctx, topic).await?;
        let (gone, failed) = ctx.delete(topic, objects.into_keys().collect()).await;
        total += gone.len() as u64;
        if let Some(failed) = failed {
            return Err(failed.into());
        }
        if foreign > 0 {
            info!(%topic, foreign, "files that are not ours stay where the topic's table was");
        }
        empty.push(topic);
    }
    if !empty.is_empty() && !ctx.tables.forget_tables(collector, empty).await? {
        return Ok(None);
    }
    Ok(Some(total))
}

/// What is found below a topic's prefix, and how many other things.
async fn listed(
    ctx: &Ctx,
    topic: TopicId,
) -> Result<(BTreeMap<TableObject, Stamp>, u64), JobError> {
    let mut objects = BTreeMap::new();
    let mut foreign = 0;
    let mut found = ctx.bucket.list(&format!("tables/{topic}"));
    while let Some((key, stamp)) = found.try_next().await? {
        match TableObject::parse(&key) {
            Some((of, object)) if of == topic => _ = objects.insert(object, stamp),
            _ => foreign += 1,
        }
    }
    Ok((objects, foreign))
}

/// Looks for orphans. Remembers since when each has been known, and what named objects name.
#[derive(Clone, Default)]
pub(crate) struct Orphans {
    known: BTreeMap<(TopicId, TableObject), Instant>,
    memory: Memory,
}

impl Orphans {
    /// One round over everything below `tables/`. Answers how many objects are gone. A topic whose
    /// objects are not as they should be is left alone, with an error in the log.
    pub(crate) async fn round(&mut self, ctx: &Ctx, grace: Duration) -> Result<u64, JobError> {
        let mut total = 0;
        let mut seen = BTreeSet::new();
        let topics = topics(ctx).await?;
        self.memory.keep(&topics);
        for topic in topics {
            let orphans = match self.of(ctx, topic).await {
                Ok(orphans) => orphans,
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    ctx.metrics.unsound_tables.inc();
                    error!(%topic, %error, "nothing of the topic's table is collected");
                    continue;
                }
            };
            let now = Instant::now();
            let mut due = Vec::new();
            for object in orphans {
                let since = *self.known.entry((topic, object)).or_insert(now);
                seen.insert((topic, object));
                if now - since >= grace {
                    due.push(object);
                }
            }
            let (gone, failed) = ctx.delete(topic, due).await;
            total += gone.len() as u64;
            if let Some(failed) = failed {
                return Err(failed.into());
            }
        }
        self.known.retain(|key, _| seen.contains(key));
        ctx.metrics.orphans.inc_by(total);
        Ok(total)
    }

    /// The orphans of one topic.
    async fn of(&mut self, ctx: &Ctx, topic: TopicId) -> Result<Vec<TableObject>, JobError> {
        // Before anything else: what is past now can name nothing from now on.
        let Some(Table { claim, lease, .. }) = ctx.tables.table(topic) else {
            let (objects, _) = listed(ctx, topic).await?;
            let gone = |object: &TableObject| {
                ctx.tables.claim_status(topic, object.id().claim) == ClaimStatus::Gone
            };
            return Ok(objects.into_keys().filter(gone).collect());
        };
        let (listed, _) = listed(ctx, topic).await?;
        let named = self.memory.reach(ctx, topic, &listed).await?;
        for object in named.iter().filter(|object| !listed.contains_key(object)) {
            // Written since it was listed, or its name is damaged.
            if !ctx.bucket.exists(&ctx.bucket.table(topic, *object)).await? {
                return Err(JobError::Object {
                    key: object.key(topic),
                    what: "that it is named and not in the store",
                });
            }
        }
        let unnamed = listed.into_keys().filter(|object| !named.contains(object));
        let over_early = u64::from(sabotage::on(Bug::RunningClaimIsOrphaned));
        let (past, newest): (Vec<_>, Vec<_>) = unnamed
            .filter(|object| object.id().claim <= claim)
            .partition(|object| object.id().claim < claim + over_early);
        let over = lease.is_none_or(|(_, until_ms)| until_ms < ctx.ledger.now_ms());
        if !newest.is_empty() && over {
            // Left by a job that was stopped, with none after it. A new claim puts an end to it.
            let claimed = ctx.tables.claim_table(topic, ctx.holder, 0).await?;
            debug!(%topic, ?claimed, "a stopped job's claim is over");
        }
        Ok(past)
    }
}

/// Every topic of which there is an object.
async fn topics(ctx: &Ctx) -> Result<BTreeSet<TopicId>, JobError> {
    let mut topics = BTreeSet::new();
    let mut found = ctx.bucket.list("tables");
    while let Some((key, _)) = found.try_next().await? {
        if let Some((topic, _)) = TableObject::parse(&key) {
            topics.insert(topic);
        }
    }
    Ok(topics)
}

impl Ctx {
    /// Deletes objects. Answers those that are gone, and the first error.
    async fn delete(
        &self,
        topic: TopicId,
        objects: Vec<TableObject>,
    ) -> (Vec<TableObject>, Option<object_store::Error>) {
        let mut gone = Vec::new();
        for page in objects.chunks(PAGE) {
            let paths: Vec<_> = page
                .iter()
                .map(|object| (*object, self.bucket.table(topic, *object)))
                .collect();
            let (some, failed) = delete(self.bucket.store(), self.bucket.retries(), paths).await;
            self.metrics.deleted_objects.inc_by(some.len() as u64);
            gone.extend(some);
            if failed.is_some() {
                return (gone, failed);
            }
        }
        (gone, None)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
