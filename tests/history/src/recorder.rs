//! Recording while clients run.
//!
//! Any number of threads and tasks share one recorder. An operation that is begun is recorded
//! whatever becomes of its client: a [`Pending`] that is dropped without an outcome, because its
//! task was cancelled or panicked, is an `Info`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{Answer, Client, Event, History, Op, Outcome, Time};

struct Shared {
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    events: Mutex<Vec<Event>>,
}

/// Collects events; clones share one history.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

impl Recorder {
    /// With a clock of the harness. It must not go backwards, for any two threads between which
    /// one operation happened before another.
    pub fn new(clock: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            clock: Box::new(clock),
            events: Mutex::default(),
        }))
    }

    /// With a counter: every instant is different, and their order is the real one.
    pub fn logical() -> Self {
        let next = AtomicU64::new(1);
        Self::new(move || next.fetch_add(1, Ordering::SeqCst))
    }

    /// Begins an operation; to be called before its request is sent.
    pub fn begin(&self, client: Client, op: Op) -> Pending {
        Pending {
            invoke: (self.0.clock)(),
            client,
            op: Some(op),
            recorder: self.clone(),
        }
    }

    /// An instant that can be handed to [`Pending::since`].
    pub fn now(&self) -> Time {
        (self.0.clock)()
    }

    /// What has ended so far.
    pub fn history(&self) -> History {
        History {
            events: self.0.events.lock().clone(),
        }
    }
}

/// An operation that has begun.
#[must_use = "an operation whose outcome is not recorded may have happened"]
pub struct Pending {
    invoke: Time,
    client: Client,
    op: Option<Op>,
    recorder: Recorder,
}

impl Pending {
    /// Says that the operation began earlier, at an instant taken with [`Recorder::now`].
    pub fn since(mut self, invoke: Time) -> Self {
        self.invoke = self.invoke.min(invoke);
        self
    }

    /// It ended; to be called after its answer was received.
    pub fn end(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    /// It happened.
    pub fn ok(self, answer: Answer) {
        self.end(Outcome::Ok(answer));
    }

    /// It may have happened: a timeout, or a lost connection.
    pub fn lost(self) {
        self.end(Outcome::Info(0));
    }

    fn record(&mut self, outcome: Outcome) {
        if let Some(op) = self.op.take() {
            let ret = (self.recorder.0.clock)();
            self.recorder.0.events.lock().push(Event {
                client: self.client,
                invoke: self.invoke,
                ret,
                op,
                outcome,
            });
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.record(Outcome::Info(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_may_have_happened_and_files_read_back() {
        let recorder = Recorder::logical();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let recorder = recorder.clone();
                std::thread::spawn(move || {
                    for i in 0..100 {
                        let pending = recorder.begin(Client(n), Op::InitProducer);
                        if i % 2 == 0 {
                            pending.ok(Answer::ProducerId(i64::from(n) * 100 + i));
                        }
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
        let history = recorder.history();
        assert_eq!(history.events.len(), 400);
        let lost = Outcome::Info(0);
        let count = history.events.iter().filter(|e| e.outcome == lost).count();
        assert_eq!(count, 200);
        assert!(history.events.iter().all(|e| e.invoke < e.ret));

        let mut file = Vec::new();
        history.write(&mut file).expect("memory is writable");
        assert_eq!(History::read(&file[..]).expect("reads back"), history);
    }

    #[test]
    fn what_is_no_event_is_named_by_its_line() {
        let recorder = Recorder::logical();
        recorder.begin(Client(0), Op::Healed).ok(Answer::Done);
        let mut file = Vec::new();
        recorder
            .history()
            .write(&mut file)
            .expect("memory is writable");
        file.extend_from_slice(b"{}\n");
        let error = History::read(&file[..]).expect_err("line 2 is not an event");
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }
}
