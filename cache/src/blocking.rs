//! Where work that blocks is done: on tokio's threads for it. With the feature `sim` there is one
//! thread for everything, and no order of threads: it is done in a task, and takes a millisecond.

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::task::spawn_blocking;

/// As tokio's function of that name.
#[cfg(feature = "sim")]
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

/// How many threads there are for work that takes all of one.
pub(crate) fn threads() -> usize {
    match cfg!(feature = "sim") {
        // The same in every run.
        true => 2,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    }
}
