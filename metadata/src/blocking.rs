//! Where work that blocks is done: on tokio's threads for it. With the feature `sim` there is one
//! thread for everything, and no order of threads: it is done in a task, and takes a millisecond.

use std::io;

use tokio::sync::mpsc;
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

/// Does what is asked for, as much at a time as waits and at most `max`, on a thread of its own
/// until nobody is left who could ask.
#[cfg(not(feature = "sim"))]
pub(crate) fn spawn_worker<T: Send + 'static>(
    name: &str,
    mut asked: mpsc::Receiver<T>,
    max: usize,
    mut work: impl FnMut(&mut Vec<T>) + Send + 'static,
) -> io::Result<()> {
    let run = move || {
        let mut batch = Vec::new();
        while asked.blocking_recv_many(&mut batch, max) > 0 {
            work(&mut batch);
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)?;
    Ok(())
}

/// The same in a task.
#[cfg(feature = "sim")]
pub(crate) fn spawn_worker<T: Send + 'static>(
    _: &str,
    mut asked: mpsc::Receiver<T>,
    max: usize,
    mut work: impl FnMut(&mut Vec<T>) + Send + 'static,
) -> io::Result<()> {
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while asked.recv_many(&mut batch, max).await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            work(&mut batch);
        }
    });
    Ok(())
}
