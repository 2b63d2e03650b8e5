//! The flush service: performs what the [pipeline](pipeline) decides.
//!
//! One task owns the pipeline and the batches. Appends reach it through an inbox that is filled
//! synchronously, in the order of the calls; uploads and commits run beside it and report back;
//! the write-ahead log has a thread of its own.

pub(crate) mod commit;
pub(crate) mod pipeline;
pub(crate) mod policy;
pub(crate) mod upload;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use frazil_core::ports::BatchInfo;
use frazil_core::segment::BATCH_MAX;
use frazil_core::{BrokerEpoch, SegmentId, TopicPartition};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::budget::{Budget, Reservation};
use crate::metrics::Metrics;
use crate::tail::Tail;
use crate::wal::{Recovery, Wal, WalEvent};
use crate::{AppendBatch, AppendError, Appended, Error};
use commit::{Committed, Committer};
use pipeline::{Effect, Pipeline, Recovered, Ticket};
use upload::{Uploaded, Uploader};

type Answer = Result<Appended, AppendError>;

// ---------------------------------------------------------------------------------------------
// The way in.

/// Where appends wait for the service. The byte budget bounds it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    batches: Vec<Incoming>,
    flushes: Vec<oneshot::Sender<()>>,
    closed: Option<AppendError>,
}

#[derive(Debug)]
struct Incoming {
    batch: AppendBatch,
    reservation: Reservation,
    answer: oneshot::Sender<Answer>,
}

/// The answer to an append that is under way.
///
/// # Cancel safety
/// Dropping it does not cancel the append.
#[derive(Debug)]
#[must_use = "the append is acknowledged by this future only"]
pub struct Pending {
    answer: oneshot::Receiver<Answer>,
    deadline: Pin<Box<Sleep>>,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Poll::Ready(answer) = self.answer.poll_unpin(cx) {
            return Poll::Ready(answer.unwrap_or_else(|_| {
                Err(AppendError::Indeterminate("the cache has stopped".into()))
            }));
        }
        self.deadline.poll_unpin(cx).map(|()| {
            Err(AppendError::Indeterminate(
                "the append takes longer than it may, and goes on".into(),
            ))
        })
    }
}

impl Inbox {
    pub(crate) fn append(
        &self,
        batch: AppendBatch,
        reservation: Reservation,
        timeout: Duration,
    ) -> Pending {
        assert_eq!(
            batch.bytes.len(),
            batch.info.length as usize,
            "an append is one whole batch"
        );
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        let refusal = if batch.bytes.len() > BATCH_MAX {
            Some(AppendError::Unavailable(format!(
                "a batch of {} bytes fits no segment",
                batch.bytes.len()
            )))
        } else {
            queue.closed.clone()
        };
        match refusal {
            // The receiver is at hand: this cannot fail.
            Some(error) => drop(answer.send(Err(error))),
            None => queue.batches.push(Incoming {
                batch,
                reservation,
                answer,
            }),
        }
        drop(queue);
        self.notify.notify_one();
        Pending {
            answer: receiver,
            deadline: Box::pin(tokio::time::sleep(timeout)),
        }
    }

    /// Waits until everything appended before is settled, or cannot be.
    pub(crate) async fn flush(&self) {
        let (done, settled) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.closed.is_some() {
                return;
            }
            queue.flushes.push(done);
        }
        self.notify.notify_one();
        // An error means that the service has ended, and that nothing is pending any more.
        drop(settled.await);
    }

    fn close(&self, error: AppendError) {
        let mut queue = self.queue.lock();
        for incoming in queue.batches.drain(..) {
            drop(incoming.answer.send(Err(error.clone())));
        }
        queue.flushes.clear();
        queue.closed = Some(error);
    }
}

// ---------------------------------------------------------------------------------------------
// The service.

/// What the service is made of.
pub(crate) struct ServiceParts {
    pub(crate) epoch: BrokerEpoch,
    pub(crate) pipeline: Pipeline,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) budget: Budget,
    pub(crate) tail: Arc<Tail>,
    pub(crate) uploader: Uploader,
    pub(crate) committer: Committer,
    pub(crate) metrics: Metrics,
    pub(crate) wal: Option<Wal>,
    pub(crate) recovery: Recovery,
}

/// Uploads, commits and acknowledges what is appended. Nothing happens unless it [runs](Self::run).
pub struct Service {
    epoch: BrokerEpoch,
    pipeline: Pipeline,
    inbox: Arc<Inbox>,
    budget: Budget,
    tail: Arc<Tail>,
    uploader: Arc<Uploader>,
    committer: Arc<Committer>,
    metrics: Metrics,
    wal: Option<Wal>,
    recovery: Option<Recovery>,

    began: Instant,
    next_ticket: Ticket,
    batches: HashMap<Ticket, Held>,
    uploads: JoinSet<Upload>,
    /// The batches of the write of the log that is under way.
    writing: Vec<Ticket>,
    commit: OptionFuture<BoxFuture<'static, Committed>>,
    /// Who waits for everything below a seal to be settled.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    /// Why the service has to end.
    failure: Option<Error>,
    fenced: bool,
    /// There was no room for the write-ahead log when it was last written to.
    wal_full: bool,
}

/// An upload that has ended.
struct Upload {
    seal: u64,
    id: SegmentId,
    tickets: Vec<Ticket>,
    result: Uploaded,
}

/// A batch whose segment is not settled.
struct Held {
    partition: TopicPartition,
    info: BatchInfo,
    bytes: Bytes,
    /// Until it is answered.
    waiting: Option<(oneshot::Sender<Answer>, Reservation)>,
}

/// What the service's task waits for.
enum Next {
    Inbox,
    Timer,
    Shutdown,
    Uploaded(Upload),
    Committed(Committed),
    Wal(WalEvent),
}

impl Service {
    pub(crate) fn new(parts: ServiceParts) -> Self {
        Self {
            epoch: parts.epoch,
            pipeline: parts.pipeline,
            inbox: parts.inbox,
            budget: parts.budget,
            tail: parts.tail,
            uploader: Arc::new(parts.uploader),
            committer: Arc::new(parts.committer),
            metrics: parts.metrics,
            wal: parts.wal,
            recovery: Some(parts.recovery),
            began: Instant::now(),
            next_ticket: 0,
            batches: HashMap::new(),
            uploads: JoinSet::new(),
            writing: Vec::new(),
            commit: OptionFuture::default(),
            flushes: Vec::new(),
            failure: None,
            fenced: false,
            wal_full: false,
        }
    }

    /// Runs until `shutdown`; then refuses what comes, settles what is there, and ends.
    ///
    /// # Errors
    /// The service ends by itself, and answers everything that waits, when this node has been
    /// superseded. When the write-ahead log has failed, it settles what is there and ends.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome of everything that is not acknowledged unknown, as
    /// a crash would; what the write-ahead log holds is recovered at the next start.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let result = self.serve(shutdown).await;
        let last = match &result {
            Err(Error::Fenced(reason)) => AppendError::Fenced(reason.clone()),
            Err(error) => AppendError::Unavailable(error.to_string()),
            Ok(()) => AppendError::Unavailable("the cache is shutting down".into()),
        };
        self.inbox.close(last);
        self.budget.close();
        self.flushes.clear();
        if let Some(wal) = self.wal.take() {
            wal.close(result.is_ok()).await;
        }
        result
    }

    async fn serve(&mut self, shutdown: CancellationToken) -> Result<(), Error> {
        self.stage_recovered();
        let mut closing = false;
        loop {
            let wake = self.act();
            if self.fenced {
                return Err(self.failure.take().expect("it was fenced for a reason"));
            }
            if self.failure.is_some() && !closing {
                closing = true;
                self.close_door("the write-ahead log has failed");
                continue;
            }
            if closing && self.batches.is_empty() {
                return self.failure.take().map_or(Ok(()), Err);
            }
            match self.next(wake, &shutdown, closing).await {
                Next::Inbox => self.take_inbox(),
                Next::Timer => {}
                Next::Shutdown => {
                    closing = true;
                    self.close_door("the cache is shutting down");
                }
                Next::Uploaded(upload) => self.on_uploaded(upload),
                Next::Committed(committed) => self.on_committed(committed),
                Next::Wal(event) => self.on_wal(event),
            }
        }
    }

    /// Waits for the next thing to do. Nothing is lost if a branch is not taken: each of them
    /// keeps what it has until it is asked again.
    async fn next(
        &mut self,
        wake: Option<Duration>,
        shutdown: &CancellationToken,
        closing: bool,
    ) -> Next {
        let began = self.began;
        let timer: OptionFuture<_> = wake
            .map(|wake| tokio::time::sleep_until(began + wake))
            .into();
        let wal: OptionFuture<_> = self.wal.as_mut().map(Wal::event).into();
        tokio::select! {
            Some(joined) = self.uploads.join_next() => match joined {
                Ok(upload) => Next::Uploaded(upload),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            Some(committed) = &mut self.commit => Next::Committed(committed),
            Some(event) = wal => Next::Wal(event),
            () = self.inbox.notify.notified() => Next::Inbox,
            Some(()) = timer => Next::Timer,
            () = shutdown.cancelled(), if !closing => Next::Shutdown,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    // -- events ------------------------------------------------------------------------------

    fn stage_recovered(&mut self) {
        let now = self.now();
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        for extent in std::mem::take(&mut recovery.extents) {
            let mut recovered = Vec::with_capacity(extent.batches.len());
            for (offset, info, bytes) in extent.batches {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                recovery.outstanding.insert(ticket);
                let partition = extent.partition;
                recovered.push(Recovered {
                    ticket,
                    partition,
                    info,
                    offset,
                });
                self.batches.insert(
                    ticket,
                    Held {
                        partition,
                        info,
                        bytes,
                        waiting: None,
                    },
                );
            }
            self.pipeline.stage_recovered(recovered, now);
        }
        self.finish_recovery();
    }

    fn take_inbox(&mut self) {
        let (incoming, flushes) = {
            let mut queue = self.inbox.queue.lock();
            (
                std::mem::take(&mut queue.batches),
                std::mem::take(&mut queue.flushes),
            )
        };
        let now = self.now();
        for Incoming {
            batch,
            reservation,
            answer,
        } in incoming
        {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let AppendBatch {
                partition,
                info,
                bytes,
                durability,
            } = batch;
            if let Err(error) = self
                .pipeline
                .stage(ticket, partition, info, durability, now)
            {
                drop(answer.send(Err(error)));
                continue;
            }
            self.batches.insert(
                ticket,
                Held {
                    partition,
                    info,
                    bytes,
                    waiting: Some((answer, reservation)),
                },
            );
        }
        for done in flushes {
            let seal = self.pipeline.flush();
            self.flushes.push((seal, done));
        }
    }

    fn close_door(&mut self, reason: &str) {
        // What is in the inbox came before.
        self.take_inbox();
        self.inbox
            .close(AppendError::Unavailable(reason.to_owned()));
        self.budget.close();
        self.pipeline.flush();
    }

    fn on_uploaded(&mut self, upload: Upload) {
        let Upload {
            seal, id, tickets, ..
        } = upload;
        match upload.result {
            Uploaded::Done { object, starts } => {
                let positions = starts.iter().map(|start| u64::from(*start));
                self.hold_from(&tickets, positions, &object);
                let bytes = object.len() as u64;
                // Before the commit, so that nobody who sees it has to fetch it.
                self.tail.insert(id, object);
                self.pipeline.uploaded(seal, starts, bytes);
            }
            Uploaded::NameTaken => {
                let again = self.pipeline.name_taken(seal);
                self.perform(again);
            }
        }
    }

    /// Lets batches be slices of a copy that is kept anyway, so that the buffers they came in,
    /// which may be much larger, are free again.
    fn hold_from(
        &mut self,
        tickets: &[Ticket],
        positions: impl Iterator<Item = u64>,
        copy: &Bytes,
    ) {
        for (ticket, position) in tickets.iter().zip(positions) {
            if let Some(held) = self.batches.get_mut(ticket) {
                let start = position as usize;
                held.bytes = copy.slice(start..start + held.info.length as usize);
            }
        }
    }

    fn on_committed(&mut self, committed: Committed) {
        self.commit = OptionFuture::default();
        let now = self.now();
        let effects = match committed {
            Committed::Done(outcome) => self.pipeline.committed(&outcome),
            Committed::Unknown { reason, wal } => {
                let effects = self.pipeline.commit_unknown(&reason, &wal, now);
                // What has not moved is in the open segment now, behind the seals that are waited
                // for.
                if !self.flushes.is_empty() {
                    let seal = self.pipeline.flush();
                    for (awaited, _) in &mut self.flushes {
                        *awaited = seal.max(*awaited);
                    }
                }
                effects
            }
            Committed::Fenced { reason, unknown } => {
                error!(%reason, "this node has been superseded and can commit nothing any more");
                let effects = self.pipeline.fenced(&reason, unknown);
                self.fenced = true;
                self.failure = Some(Error::Fenced(reason));
                effects
            }
        };
        for effect in effects {
            self.perform(effect);
        }
    }

    fn on_wal(&mut self, event: WalEvent) {
        match event {
            WalEvent::Synced {
                start,
                frames,
                positions,
            } => {
                if std::mem::take(&mut self.wal_full) {
                    info!("the write-ahead log has room again");
                }
                let end = start + frames.len() as u64;
                let tickets = std::mem::take(&mut self.writing);
                self.hold_from(&tickets, positions.iter().map(|at| at - start), &frames);
                self.tail.insert_wal(self.epoch, start, frames);
                self.pipeline.wal_synced(&positions, end);
            }
            WalEvent::Failed { error, for_good } => {
                let now = self.now();
                self.pipeline.wal_failed(for_good, now);
                if for_good {
                    error!(%error, "the write-ahead log has failed");
                    self.failure = Some(error);
                } else {
                    if !std::mem::replace(&mut self.wal_full, true) {
                        warn!(
                            %error,
                            "batches go to the object store, past the write-ahead log, until there \
                             is room in data.dir"
                        );
                    }
                }
            }
        }
    }

    // -- effects -----------------------------------------------------------------------------

    /// Does what is to be done, and says when to ask again.
    fn act(&mut self) -> Option<Duration> {
        if self.fenced {
            return None;
        }
        let now = self.now();
        let (effects, wake) = self.pipeline.pump(now);
        for effect in effects {
            self.perform(effect);
        }
        self.metrics.wal_held_bytes.set(self.pipeline.wal_held());
        let settled = self.pipeline.settled_below();
        let (done, waiting) = std::mem::take(&mut self.flushes)
            .into_iter()
            .partition(|(seal, _)| *seal <= settled);
        self.flushes = waiting;
        for (_, done) in done {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
        wake
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Upload { seal, id, batches } => {
                let tickets = batches.iter().map(|(ticket, _)| *ticket).collect();
                let batches = self.collect(&batches);
                let uploader = Arc::clone(&self.uploader);
                self.uploads.spawn(async move {
                    Upload {
                        seal,
                        id,
                        tickets,
                        result: uploader.upload(id, batches).await,
                    }
                });
            }
            Effect::WriteWal(batches) => {
                self.writing = batches.iter().map(|(ticket, _)| *ticket).collect();
                let batches = self.collect(&batches);
                let wal = self.wal.as_mut();
                let wal = wal.expect("without a write-ahead log no batch is local");
                wal.write(batches);
            }
            Effect::Commit(commit) => {
                let committer = Arc::clone(&self.committer);
                let commit = async move { committer.commit(commit).await };
                self.commit = Some(commit.boxed()).into();
            }
            Effect::Answer(ticket, answer) => {
                let held = self.batches.get_mut(&ticket);
                if let Some((sender, reservation)) = held.and_then(|held| held.waiting.take()) {
                    // Whoever waited may have gone.
                    drop(sender.send(answer));
                    drop(reservation);
                }
            }
            Effect::Settled { tickets } => {
                for ticket in tickets {
                    self.batches.remove(&ticket);
                    if let Some(recovery) = &mut self.recovery {
                        recovery.outstanding.remove(&ticket);
                    }
                }
                self.finish_recovery();
            }
            Effect::TruncateWal(below) => {
                self.tail.truncate_wal(self.epoch, below);
                if let Some(wal) = &mut self.wal {
                    wal.truncate(below);
                }
            }
        }
    }

    /// When all that was recovered stands in the store, the files it came from can go.
    fn finish_recovery(&mut self) {
        if self
            .recovery
            .as_ref()
            .is_some_and(|r| r.outstanding.is_empty())
            && let Some(recovery) = self.recovery.take()
        {
            if !recovery.epochs.is_empty() {
                info!("everything recovered from the write-ahead log is in the object store");
            }
            for epoch in &recovery.epochs {
                self.tail.truncate_wal(*epoch, u64::MAX);
            }
            if let Some(wal) = &mut self.wal {
                wal.remove(recovery.files);
            }
        }
    }

    fn collect(&self, batches: &[(Ticket, TopicPartition)]) -> upload::Batches {
        batches
            .iter()
            .map(|(ticket, partition)| {
                let held = &self.batches[ticket];
                assert_eq!(held.partition, *partition, "ticket {ticket}");
                (held.partition, held.bytes.clone(), held.info)
            })
            .collect()
    }
}
