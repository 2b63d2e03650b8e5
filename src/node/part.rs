//! The tasks of a node: each with its own way to be stopped, and what becomes of the node when one
//! ends that nobody has stopped.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A task with its own way to be stopped.
pub(super) struct Part {
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Part {
    /// Runs a part that the node cannot do without: its end, if nobody wanted it, is the node's.
    pub(super) fn supervised<E, F>(
        what: &'static str,
        broken: &Broken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let running = run(stop.clone());
        Self::with(what, broken, stop, running)
    }

    /// The same of what runs until `stop`.
    pub(super) fn with<E, F>(
        what: &'static str,
        broken: &Broken,
        stop: CancellationToken,
        running: F,
    ) -> Self
    where
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stopped, broken) = (stop.clone(), broken.clone());
        // In a task of its own: a node of which a part has panicked would accept what it can
        // never answer.
        let running = tokio::spawn(running);
        let task = tokio::spawn(async move {
            match running.await {
                Err(error) if error.is_panic() => broken.report(what, "panicked"),
                // The runtime is going down.
                Err(_) => {}
                Ok(Err(error)) => broken.report(what, error),
                Ok(Ok(())) if !stopped.is_cancelled() => broken.report(what, "ended by itself"),
                Ok(Ok(())) => {}
            }
        });
        Self { stop, task }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        // A panic of the task has been reported where it happened.
        let _ = self.task.await;
    }
}

/// The first reason why the node cannot go on.
#[derive(Clone)]
pub(super) struct Broken(watch::Sender<Option<String>>);

impl Broken {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Waits for it.
    pub(super) async fn reported(&self) -> String {
        match self.0.subscribe().wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "nobody is left to report a failure".to_owned(),
        }
    }

    pub(super) fn report(&self, what: &str, reason: impl std::fmt::Display) {
        let reason = format!("{what}: {reason}");
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(reason);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_unasked_breaks_the_node_however_it_ends() {
        async fn end(how: &'static str) -> Result<(), &'static str> {
            match how {
                "panic" => panic!("as the test wants it"),
                "error" => Err("as the test wants it"),
                _ => Ok(()),
            }
        }
        for (how, expected) in [
            ("panic", "it: panicked"),
            ("error", "it: as the test wants it"),
            ("end", "it: ended by itself"),
        ] {
            let broken = Broken::new();
            let part = Part::supervised("it", &broken, |_| end(how));
            part.task.await.unwrap();
            assert_eq!(broken.0.borrow().as_deref(), Some(expected));
        }
        let broken = Broken::new();
        let part = Part::supervised("it", &broken, |stop| async move {
            stop.cancelled().await;
            end("end").await
        });
        part.stop().await;
        assert_eq!(*broken.0.borrow(), None);
    }
}
