//! Where work that blocks is done: on tokio's threads for it. In tests and with the feature `sim`
//! there is one thread for everything, and no order of threads: it is done in a task, and takes a
//! millisecond.

#[cfg(not(any(test, feature = "sim")))]
pub(crate) use tokio::task::spawn_blocking;

/// As tokio's function of that name.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn spawn_blocking<F, R>(work: F) -> tokio::task::JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        work()
    })
}
