//! Which topic is converted next, and how many at once.
//!
//! When no topic is due, files are merged (a topic is looked at after some conversions), and tables
//! are looked after ([`upkeep`]), also those of topics that are no longer converted.
//!
//! When a topic is due and which one is next [`super::turns`] says. How long something has waited is counted
//! from when this process first saw it: timestamps are the producers' and may be anything. A topic that
//! fails is left alone for a while, longer each time, and the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::ports::{Catalog, TableRefusal};
use frazil_core::topic_config::{TableConfig, TopicConfig};
use frazil_core::{Offset, Topic, TopicId};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, error, info, warn};

use super::job::{self, Done};
use super::turns::{Most, Waiting};
use super::upkeep::{self, Kept};
use super::{Ctx, JobError, merge};

/// How long a topic is left alone after its first failure; doubled with each further one.
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a topic is left to another compactor.
const HELD: Duration = Duration::from_secs(5);

const FIRST_UPKEEP: Duration = Duration::from_secs(60);
/// Conversions of a topic between two looks at its files.
const MERGE_AFTER: u32 = 8;

/// Converts topics, for ever.
pub(crate) struct Freezer {
    ctx: Arc<Ctx>,
    catalog: Arc<dyn Catalog>,
    broker_defaults: BTreeMap<String, String>,
    topics: BTreeMap<TopicId, State>,
}

/// What is known of a topic that is to be converted.
#[derive(Debug)]
struct State {
    topic: Arc<Topic>,
    config: TableConfig,
    waiting: Waiting,
    busy: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// Conversions since its files were looked at.
    conversions: u32,
    /// When to look after the table.
    upkeep: Instant,
}

/// What is done for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Convert,
    Merge,
    Upkeep,
}

/// A job has ended: what it was for, of which topic, when it began, and what it did.
type Ended = (Work, Arc<Topic>, Instant, Result<Did, JobError>);

/// What has been done.
enum Did {
    Converted(Done),
    /// So many files.
    Merged(usize),
    Kept(Kept),
}

impl State {
    fn is_free(&self, now: Instant) -> bool {
        !self.busy && self.not_before.is_none_or(|at| at <= now)
    }

    fn is_due(&self, now: Instant, most: Most) -> bool {
        let freshness = Duration::from_millis(self.config.freshness_ms.max(0).unsigned_abs());
        self.config.mode.converts()
            && self.is_free(now)
            && self.waiting.is_due(freshness, most, now)
    }
}

impl Freezer {
    pub(crate) fn new(
        ctx: Arc<Ctx>,
        catalog: Arc<dyn Catalog>,
        broker_defaults: BTreeMap<String, String>,
    ) -> Self {
        Self {
            ctx,
            catalog,
            broker_defaults,
            topics: BTreeMap::new(),
        }
    }

    /// Runs until it is dropped.
    ///
    /// # Cancel safety
    /// May be dropped at any point: what jobs have written is then orphaned.
    pub(crate) async fn run(mut self) {
        let ctx = Arc::clone(&self.ctx);
        let mut ticks = tokio::time::interval(ctx.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if ctx.tables.enabled() {
                        self.look();
                    }
                }
                Some((work, topic, began, did)) = jobs.next() => {
                    self.ended(work, &topic, began, did);
                }
            }
            while jobs.len() < ctx.config.jobs.max(1)
                && let Some((work, topic, config)) = self.take()
            {
                let ctx = Arc::clone(&ctx);
                let began = Instant::now();
                let job = async move {
                    let did = match work {
                        Work::Convert => job::run(&ctx, &topic, config).await.map(Did::Converted),
                        Work::Merge => merge::run(&ctx, &topic, config).await.map(Did::Merged),
                        Work::Upkeep => upkeep::run(&ctx, &topic, config).await.map(Did::Kept),
                    };
                    (work, topic, began, did)
                };
                jobs.push(job.boxed());
            }
        }
    }

    /// Looks at what waits.
    fn look(&mut self) {
        let mut broker = self.broker_defaults.clone();
        broker.extend(self.catalog.broker_config(None));
        let mut wanted = BTreeMap::new();
        for topic in self.catalog.topics() {
            let config = TopicConfig::resolve(&topic.config, &broker).table;
            let table = self.ctx.tables.table(topic.id);
            if config.mode.converts() || table.is_some_and(|table| table.claim > 0) {
                wanted.insert(topic.id, (topic, config));
            }
        }
        self.topics
            .retain(|id, state| state.busy || wanted.contains_key(id));
        if wanted.is_empty() {
            self.ctx.metrics.waiting_bytes.set(0);
            return;
        }
        let now = Instant::now();
        // Bytes and extents.
        let mut waiting: BTreeMap<TopicId, (u64, u64)> = BTreeMap::new();
        for log in self.ctx.ledger.partitions() {
            let config = wanted.get(&log.partition.topic);
            if !config.is_some_and(|(_, config)| config.mode.converts()) {
                continue;
            }
            let cold = self.ctx.ledger.cold(&log.partition);
            let end = cold.as_ref().map_or(Offset::ZERO, |cold| cold.end);
            if end.max(log.bounds.log_start) < log.bounds.last_stable {
                let cold = cold.map_or(0, |cold| cold.bytes);
                let (bytes, extents) = waiting.entry(log.partition.topic).or_default();
                *bytes += log.bytes.saturating_sub(cold);
                *extents += log.extents;
            }
        }
        for (id, (topic, config)) in wanted {
            let state = self.topics.entry(id).or_insert_with(|| State {
                topic: Arc::clone(&topic),
                config,
                waiting: Waiting::default(),
                busy: false,
                failures: 0,
                not_before: None,
                // What an earlier process left.
                conversions: MERGE_AFTER,
                upkeep: now + self.ctx.config.upkeep.min(FIRST_UPKEEP),
            });
            (state.topic, state.config) = (topic, config);
            let found = waiting.get(&id).copied();
            let waiting = &mut state.waiting;
            (waiting.bytes, waiting.extents) = found.unwrap_or_default();
            match found {
                Some(_) => _ = waiting.since.get_or_insert(now),
                None if !state.busy => waiting.since = None,
                None => {}
            }
        }
        let all = self.topics.values().map(|state| state.waiting.bytes);
        let all = all.fold(0u64, u64::saturating_add);
        self.ctx
            .metrics
            .waiting_bytes
            .set(i64::try_from(all).unwrap_or(i64::MAX));
    }

    /// What to do next.
    fn take(&mut self) -> Option<(Work, Arc<Topic>, TableConfig)> {
        let now = Instant::now();
        let most = Most {
            bytes: self.ctx.config.waiting_bytes,
            extents: self.ctx.config.waiting_extents,
        };
        let states = self.topics.values_mut();
        let due = states.filter(|state| state.is_due(now, most));
        let (work, state) = match due.min_by_key(|state| state.waiting.turn()) {
            Some(state) => {
                state.waiting.served = Some(now);
                (Work::Convert, state)
            }
            None => {
                let work = |state: &State| match state.is_free(now) {
                    true if state.conversions >= MERGE_AFTER => Some(Work::Merge),
                    true if state.upkeep <= now => Some(Work::Upkeep),
                    _ => None,
                };
                let mut states = self.topics.values_mut();
                states.find_map(|state| Some((work(state)?, state)))?
            }
        };
        state.busy = true;
        Some((work, Arc::clone(&state.topic), state.config))
    }

    fn ended(&mut self, work: Work, topic: &Topic, began: Instant, did: Result<Did, JobError>) {
        let Some(state) = self.topics.get_mut(&topic.id) else {
            return;
        };
        state.busy = false;
        let now = Instant::now();
        let name = &topic.name;
        if did.is_ok() {
            state.failures = 0;
            state.not_before = None;
        }
        match did {
            Ok(Did::Converted(Done { bytes, more })) => {
                if !more {
                    // What came while it was at work has waited since then at most.
                    state.waiting.since = Some(began);
                    // Until the next look nothing is known to wait; there may be what cannot be
                    // converted yet.
                    (state.waiting.bytes, state.waiting.extents) = (0, 0);
                }
                self.ctx.metrics.jobs.inc();
                if bytes > 0 {
                    state.conversions = state.conversions.saturating_add(1);
                    info!(topic = %name, bytes, took = ?(now - began), "converted");
                } else {
                    // What waits is in write-ahead logs, or was seen before the last job took it:
                    // nothing changes until somebody looks again.
                    state.not_before = Some(now + self.ctx.config.interval);
                }
            }
            Ok(Did::Merged(0)) => state.conversions = 0,
            Ok(Did::Kept(kept)) => {
                state.upkeep = now + self.ctx.config.upkeep;
                if kept != Kept::default() {
                    info!(topic = %name, ?kept, took = ?(now - began), "looked after");
                }
            }
            // There may be another tier.
            Ok(Did::Merged(files)) => {
                info!(topic = %name, files, took = ?(now - began), "merged");
            }
            Err(JobError::Refused(refusal)) => {
                debug!(topic = %name, %refusal, "not done");
                self.ctx.metrics.refused_jobs.inc();
                state.not_before = match refusal {
                    TableRefusal::Held | TableRefusal::Superseded => Some(now + HELD),
                    TableRefusal::Changed | TableRefusal::UnknownTopic => {
                        Some(now + self.ctx.config.interval)
                    }
                };
            }
            Err(failure) => {
                // What else is wrong with a table must not keep records out of it.
                match work {
                    Work::Convert => {}
                    Work::Merge => state.conversions = 0,
                    Work::Upkeep => state.upkeep = now + self.ctx.config.upkeep,
                }
                let wait = BACKOFF
                    .saturating_mul(1 << state.failures.min(10))
                    .min(BACKOFF_MAX);
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(now + wait);
                self.ctx.metrics.failed_jobs.inc();
                if failure.is_passing() {
                    warn!(topic = %name, error = %failure, "not done; will be tried again");
                } else {
                    error!(
                        topic = %name, error = %failure,
                        "not done; its segments and files stay as they are, and it will be tried again"
                    );
                }
            }
        }
    }
}
