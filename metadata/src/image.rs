//! The image: the metadata state as this process knows it, shared by everyone who reads.
//!
//! On a voter the Raft state machine applies committed entries to it directly, so there is one copy
//! of the state. On an observer the [follower](crate::observer) does. Readers take a lock for as
//! long as they copy what they need.
//!
//! Invariant: state and applied index change together, under one lock. The published index is
//! never ahead of what a reader then sees.
//!
//! Invariant: a change wakes those who watch a partition it touched, and nobody else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use frazil_core::TopicPartition;
use frazil_core::ports::Watch;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Seen;
use crate::command::{Envelope, Outcome};
use crate::metrics::Metrics;
use crate::state::State;

/// The local copy of the metadata.
pub struct Image {
    /// The highest feature level that this program knows.
    knows: u8,
    /// Why this process cannot follow the quorum any more.
    end: watch::Sender<Option<String>>,
    content: RwLock<Content>,
    applied: watch::Sender<u64>,
    /// Who waits for an index, by index.
    waiting: Mutex<BTreeMap<(u64, u64), oneshot::Sender<()>>>,
    tickets: AtomicU64,
    interest: Arc<Interest>,
    metrics: Metrics,
}

struct Content {
    state: State,
    applied: u64,
    /// The state's time, and when it became known here.
    time: Seen,
}

impl Content {
    fn see_time(&mut self) {
        let ms = self.state.now_ms();
        if ms > self.time.ms {
            let at = Instant::now();
            self.time = Seen { ms, at };
        }
    }
}

impl Image {
    /// The image before the first entry, of a program that knows feature levels up to `knows`.
    pub fn new(knows: u8, metrics: Metrics) -> Self {
        Self {
            knows,
            end: watch::Sender::new(None),
            content: RwLock::new(Content {
                state: State::new(),
                applied: 0,
                time: Seen {
                    ms: 0,
                    at: Instant::now(),
                },
            }),
            applied: watch::Sender::new(0),
            waiting: Mutex::default(),
            tickets: AtomicU64::new(0),
            interest: Arc::default(),
            metrics,
        }
    }

    /// Reads the state. Commands wait meanwhile: copy, do not compute.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.content.read().state)
    }

    /// The highest feature level that this program knows.
    pub(crate) fn knows(&self) -> u8 {
        self.knows
    }

    /// The state's time, and when it became known here.
    pub(crate) fn time(&self) -> Seen {
        self.content.read().time
    }

    /// Notes that this process cannot follow the quorum any more, and why. The first reason stays.
    pub(crate) fn end(&self, why: impl FnOnce() -> String) {
        self.end.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why());
            }
            first
        });
    }

    /// Waits until [`Self::end`], and tells why.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&self) -> String {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => unreachable!("the sender is held by this image"),
        }
    }

    /// The index up to which the log is applied; 0 before the first command.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// The state with its index.
    pub(crate) fn copy(&self) -> (State, u64) {
        let content = self.content.read();
        (content.state.clone(), content.applied)
    }

    /// Follows the applied index.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Applies entries in order; those without an envelope only move the index. Answers the
    /// outcomes, one per entry. Entries that are applied already are skipped.
    pub fn apply(&self, entries: &[(u64, Option<Envelope>)]) -> Vec<Option<Outcome>> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut touched = Vec::new();
        let applied = {
            let mut content = self.content.write();
            for (index, envelope) in entries {
                // Index 0 is the first membership, which no envelope precedes.
                if *index <= content.applied {
                    outcomes.push(None);
                    continue;
                }
                outcomes.push(envelope.as_ref().map(|envelope| {
                    let (outcome, changes) = content.state.apply(*index, envelope);
                    touched.extend(changes.partitions);
                    outcome
                }));
                content.applied = *index;
            }
            content.see_time();
            content.applied
        };
        self.publish(applied);
        self.interest.wake(&touched);
        outcomes
    }

    /// Replaces the state by a later one.
    pub fn install(&self, state: State, applied: u64) {
        {
            let mut content = self.content.write();
            content.state = state;
            content.applied = applied;
            content.see_time();
        }
        self.publish(applied);
        self.interest.wake_all();
    }

    /// Waits until the entry at `index` is applied.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if self.applied() >= index {
                return;
            }
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            // Those who have gone are swept when there are many.
            if waiting.len() >= 1024 && waiting.len().is_power_of_two() {
                waiting.retain(|_, sender| !sender.is_closed());
            }
            waiting.insert((index, ticket), sender);
        }
        // The sender is only dropped after it has sent.
        let _ = receiver.await;
    }

    /// Watches partitions from now on.
    pub fn watch(&self, partitions: &[TopicPartition]) -> Box<dyn Watch> {
        Box::new(self.interest.watch(partitions))
    }

    fn publish(&self, applied: u64) {
        self.metrics.applied_index.set(applied as i64);
        self.applied.send_replace(applied);
        let due = {
            let mut waiting = self.waiting.lock();
            if waiting.is_empty() {
                return;
            }
            let later = waiting.split_off(&(applied + 1, 0));
            std::mem::replace(&mut *waiting, later)
        };
        for sender in due.into_values() {
            // The waiter may have gone.
            let _ = sender.send(());
        }
    }
}

/// Who watches which partition.
#[derive(Default)]
struct Interest {
    partitions: Mutex<HashMap<TopicPartition, Vec<Arc<Notify>>>>,
}

impl Interest {
    fn watch(self: &Arc<Self>, partitions: &[TopicPartition]) -> PartitionWatch {
        let bell = Arc::new(Notify::new());
        let mut watched = partitions.to_vec();
        watched.sort_unstable();
        watched.dedup();
        let mut interest = self.partitions.lock();
        for partition in &watched {
            interest
                .entry(*partition)
                .or_default()
                .push(Arc::clone(&bell));
        }
        drop(interest);
        PartitionWatch {
            interest: Arc::clone(self),
            partitions: watched,
            bell,
        }
    }

    fn wake(&self, touched: &[TopicPartition]) {
        if touched.is_empty() {
            return;
        }
        let interest = self.partitions.lock();
        for bell in touched.iter().filter_map(|p| interest.get(p)).flatten() {
            bell.notify_one();
        }
    }

    fn wake_all(&self) {
        for bell in self.partitions.lock().values().flatten() {
            bell.notify_one();
        }
    }
}

/// One registration of interest. A change rings the bell, and the bell keeps one ring.
struct PartitionWatch {
    interest: Arc<Interest>,
    partitions: Vec<TopicPartition>,
    bell: Arc<Notify>,
}

#[async_trait]
impl Watch for PartitionWatch {
    async fn changed(&mut self) {
        self.bell.notified().await;
    }
}

impl Drop for PartitionWatch {
    fn drop(&mut self) {
        let mut interest = self.interest.partitions.lock();
        for partition in &self.partitions {
            if let Some(bells) = interest.get_mut(partition) {
                bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
                if bells.is_empty() {
                    interest.remove(partition);
                }
            }
        }
    }
}
