//! Where work is done that takes all of a processor: on threads that stand behind all others, since
//! nobody waits for tables as producers and consumers wait for answers. On a machine that has nothing
//! to spare they get about a tenth of what a thread of the broker gets, on any other all they can use.
//!
//! In tests and with the feature `sim` there is one thread for everything, and no order of threads:
//! the work is done in a task, and takes a millisecond.

use crate::freeze::JobError;

/// How far behind: what `nice` does by default.
#[cfg(not(any(test, feature = "sim")))]
const NICE: i32 = 10;

/// Does the work on a thread of its own, which is nothing beside pieces of work of many milliseconds.
///
/// # Errors
/// [`JobError::Panicked`], and if there can be no thread.
///
/// # Cancel safety
/// The work is done to its end all the same.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) async fn in_background<F, R>(work: F) -> Result<R, JobError>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("frazil-table".to_owned());
    thread
        .spawn(move || {
            // Of this thread only. Who may not do even that works as fast as all.
            let _ = rustix::process::setpriority_process(None, NICE);
            // Whoever waited may have gone.
            let _ = done.send(work());
        })
        .map_err(|error| JobError::Panicked(format!("no thread: {error}")))?;
    let result = result.await;
    result.map_err(|_| JobError::Panicked("see the log".to_owned()))
}

/// Does the work in a task.
#[cfg(any(test, feature = "sim"))]
pub(crate) async fn in_background<F, R>(work: F) -> Result<R, JobError>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let task = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        work()
    });
    task.await
        .map_err(|error| JobError::Panicked(error.to_string()))
}
