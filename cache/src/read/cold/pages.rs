//! Pages as record batches: made once, for everybody who wants them.
//!
//! ```text
//! pages wanted ─┬─ in memory
//!               ├─ being made: waited for
//!               └─ others ─► bytes: all of the row group | ranges ─► jobs ─► memory
//! ```
//!
//! Some pages are a job, which takes a thread for milliseconds; the pages of a job are ready one after
//! the other.

use std::sync::Arc;

use frazil_core::TopicPartition;
use frazil_core::batch::Codec;
use frazil_core::cold::TableObject;
use frazil_table::{GroupRef, Read};
use tokio::time::Instant;

use super::Cold;
use super::fetch::{Held, Loaded, Trouble};
use super::kept::{ColdItem, ColdKey, GroupKey, Head, Page, PageKey};
use crate::ReadError;
use crate::read::Class;
use crate::read::flights::{Flight, Landing};

/// Pages that one job makes at most.
const JOB_PAGES: usize = 8;

/// What pages are wanted for.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) partition: TopicPartition,
    pub(super) codec: Codec,
    pub(super) class: Class,
    /// The reader goes through the whole row group.
    pub(super) scan: bool,
}

/// A page that somebody wants.
pub(super) enum Wanted {
    Here(Arc<Page>),
    Coming(Flight<Arc<Page>>),
}

impl Wanted {
    pub(super) async fn page(self) -> Result<Arc<Page>, ReadError> {
        match self {
            Self::Here(page) => Ok(page),
            Self::Coming(flight) => flight.await,
        }
    }
}

/// A row group of which pages are made.
struct Job {
    wish: Wish,
    group: GroupRef,
    head: Arc<Head>,
}

type Landings = Vec<Landing<PageKey, Arc<Page>>>;

impl Cold {
    /// The pages of a read.
    pub(super) fn pages(
        self: &Arc<Self>,
        wish: Wish,
        group: &GroupRef,
        head: &Arc<Head>,
        loaded: Option<Loaded>,
        read: &Read<'_>,
    ) -> Vec<Wanted> {
        let key = GroupKey::of(wish.partition.topic, group);
        let mut landings = Vec::new();
        let wanted = read.split().map(|page| {
            let key = PageKey {
                group: key,
                first: page.offsets().start,
                codec: wish.codec,
            };
            if let Some(ColdItem::Page(page)) = self.shelf.cold(&ColdKey::Page(key)) {
                self.metrics.cold_hits.inc();
                return Wanted::Here(page);
            }
            let (flight, landing) = self.pages.join(key);
            if let Some(landing) = landing {
                self.metrics.cold_misses.inc();
                landings.push(landing);
            }
            Wanted::Coming(flight)
        });
        let wanted = wanted.collect();
        if !landings.is_empty() {
            let job = Job {
                wish,
                group: group.clone(),
                head: Arc::clone(head),
            };
            tokio::spawn(Arc::clone(self).make(job, landings, loaded));
        }
        wanted
    }

    async fn make(self: Arc<Self>, job: Job, landings: Landings, loaded: Option<Loaded>) {
        let held = match self.bytes(&job, &landings, loaded).await {
            Ok(held) => Arc::new(held),
            Err(error) => {
                for landing in landings {
                    landing.land(Err(error.clone()));
                }
                return;
            }
        };
        let job = Arc::new(job);
        let mut landings = landings.into_iter().peekable();
        while landings.peek().is_some() {
            let some: Landings = landings.by_ref().take(JOB_PAGES).collect();
            // In their order: whoever waits, waits for the first.
            let thread = Arc::clone(&self.threads).acquire_owned().await;
            let (cold, job, held) = (Arc::clone(&self), Arc::clone(&job), Arc::clone(&held));
            tokio::spawn(async move {
                let made = cold.make_some(&job, some, held).await;
                drop(thread);
                if let Err((rest, reason)) = made {
                    cold.make_again(&job, rest, &reason).await;
                }
            });
        }
    }

    /// The bytes that pages are made of.
    async fn bytes(
        self: &Arc<Self>,
        job: &Job,
        landings: &Landings,
        loaded: Option<Loaded>,
    ) -> Result<Held, ReadError> {
        let Job { wish, group, head } = job;
        let key = GroupKey::of(wish.partition.topic, group);
        if let Some(loaded) = loaded.or_else(|| self.group_at_hand(key)) {
            return Ok(Held::from((group, loaded)));
        }
        let ranges = self.ranges(job, landings);
        let needed: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // Who begins to scan wants all of it. Who is in the middle of it and does not find it any
        // more would have it fetched for others to push out again.
        let begins = landings
            .first()
            .is_some_and(|landing| landing.key().first == group.base);
        let length = u64::from(group.length);
        let whole = length <= self.whole_max && (wish.scan && begins || 2 * needed >= length);
        let flight = match whole {
            true => Some(self.whole(wish.partition, group, wish.class)),
            // It may be on its way for others.
            false => self.groups.get(&key),
        };
        if let Some(flight) = flight {
            return Ok(Held::from((group, flight.await?)));
        }
        let fetched = head.fetched();
        self.fill(wish.partition, group, fetched, &ranges, wish.class)
            .await
    }

    fn ranges(&self, job: &Job, landings: &Landings) -> Vec<std::ops::Range<u64>> {
        let pages = landings.iter().flat_map(|landing| {
            let first = landing.key().first;
            Read::from(&job.group, &job.head.index, first, 0).ranges()
        });
        let mut ranges: Vec<_> = pages.collect();
        ranges.sort_by_key(|range| range.start);
        frazil_table::read::coalesce(&ranges, 0)
    }

    /// Makes pages of bytes that are at hand. Those that cannot be made are given back, if that is
    /// because bytes are damaged.
    async fn make_some(
        self: &Arc<Self>,
        job: &Arc<Job>,
        landings: Landings,
        held: Arc<Held>,
    ) -> Result<(), (Landings, frazil_table::Error)> {
        let (cold, job) = (Arc::clone(self), Arc::clone(job));
        let work = move || {
            let began = Instant::now();
            let (group, index) = (&job.group, &job.head.index);
            let mut landings = landings.into_iter();
            while let Some(landing) = landings.next() {
                let key = landing.key();
                let read = Read::from(group, index, key.first, 0);
                let page = match read.batches(&held.fetched, key.codec) {
                    Ok(batches) => Arc::new(Page::new(batches)),
                    Err(error) => {
                        let rest = std::iter::once(landing).chain(landings);
                        return Err((rest.collect(), error));
                    }
                };
                cold.metrics.cold_decoded_bytes.inc_by(page.bytes as u64);
                let item = ColdItem::Page(Arc::clone(&page));
                cold.shelf
                    .keep_cold(ColdKey::Page(key), item, job.wish.class);
                landing.land(Ok(page));
            }
            let took = began.elapsed().as_secs_f64();
            cold.metrics.cold_decode_seconds.observe(took);
            Ok(())
        };
        match crate::blocking::spawn_blocking(work).await {
            Ok(Err(rest)) => Err(rest),
            // Given up with the runtime, or panicked: then the flights were given up too.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Makes pages of bytes that are fetched anew: the copy in memory was damaged.
    async fn make_again(
        self: &Arc<Self>,
        job: &Arc<Job>,
        landings: Landings,
        reason: &frazil_table::Error,
    ) {
        let Job { wish, group, .. } = &**job;
        let object = TableObject::Data(group.file);
        self.damaged(wish.partition, object, reason);
        let key = GroupKey::of(wish.partition.topic, group);
        self.shelf.forget_cold(&ColdKey::Group(key));
        self.shelf.forget_cold(&ColdKey::Head(key));
        let ranges = self.ranges(job, &landings);
        let nothing = frazil_table::Fetched::default();
        let filled = self.fill(wish.partition, group, nothing, &ranges, wish.class);
        let (rest, error) = match filled.await {
            Err(error) => (landings, error),
            Ok(held) => match self.make_some(job, landings, Arc::new(held)).await {
                Ok(()) => return,
                Err((rest, reason)) => {
                    let error = self.damaged(wish.partition, object, &reason);
                    (rest, error)
                }
            },
        };
        for landing in rest {
            landing.land(Err(error.clone()));
        }
    }

    /// Something of a row group's times.
    pub(super) async fn times<T: Send + 'static>(
        self: &Arc<Self>,
        partition: TopicPartition,
        group: &GroupRef,
        class: Class,
        look: impl Fn(&Read<'_>, &frazil_table::Fetched) -> Result<T, frazil_table::Error>
        + Clone
        + Send
        + 'static,
    ) -> Result<T, ReadError> {
        let (head, loaded) = self.head(partition, group, class).await?;
        let key = GroupKey::of(partition.topic, group);
        let ranges = Read::all(group, &head.index).time_ranges();
        let mut again = true;
        let mut held = match loaded.or_else(|| self.group_at_hand(key)) {
            Some(loaded) => Held::from((group, loaded)),
            None => {
                let fetched = head.fetched();
                self.fill(partition, group, fetched, &ranges, class).await?
            }
        };
        loop {
            let (own, group_of, look) = (Arc::clone(&head), group.clone(), look.clone());
            let work = move || look(&Read::all(&group_of, &own.index), &held.fetched);
            let reason = match super::fetch::work(work).await {
                Ok(found) => return Ok(found),
                Err(Trouble::Read(error)) => return Err(error),
                Err(Trouble::Table(reason)) => reason,
            };
            let error = self.damaged(partition, TableObject::Data(group.file), &reason);
            if !std::mem::take(&mut again) {
                return Err(error);
            }
            self.shelf.forget_cold(&ColdKey::Group(key));
            self.shelf.forget_cold(&ColdKey::Head(key));
            let nothing = frazil_table::Fetched::default();
            held = self.fill(partition, group, nothing, &ranges, class).await?;
        }
    }
}
