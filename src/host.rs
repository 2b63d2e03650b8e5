//! What a node needs of the machine before it starts: ports, a data directory of its own, signals.
//! Every error names the setting that decides it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Address;
use crate::env::DirLock;

/// Something that the machine refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("{key} = {address}: cannot listen: {}", explain(.source))]
    Bind {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("data.dir = {}: {reason}", .path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn explain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => e.to_string(),
    }
}

/// Listens on the address that setting `key` names.
///
/// # Errors
/// Names the setting and the address.
pub async fn bind(key: &'static str, address: &Address) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind((address.host.as_str(), address.port)).await;
    bound.map_err(|source| Error::Bind {
        key,
        address: address.clone(),
        source,
    })
}

/// Creates the data directory if need be, and takes it for this process alone for as long as the
/// answer lives. The file `lock` in it is what is locked; a crash releases it.
///
/// # Errors
/// It cannot be created or written, or another process has it.
pub fn claim_data_dir(path: &Path) -> Result<DirLock, Error> {
    let fail = |reason: String| Error::DataDir {
        path: path.to_owned(),
        reason,
    };
    match DirLock::take(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(fail("another process uses this directory".to_owned())),
        Err(e) => Err(fail(format!("cannot create or write the directory: {e}"))),
    }
}

/// The directory, with nothing in it: what an earlier process left there is removed.
///
/// # Errors
/// It cannot be removed or created.
pub fn emptied(path: &Path) -> Result<PathBuf, Error> {
    let removed = match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => std::fs::create_dir_all(path),
    };
    removed
        .map(|()| path.to_owned())
        .map_err(|e| Error::DataDir {
            path: path.to_owned(),
            reason: format!("cannot be emptied: {e}"),
        })
}

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process at once, with
/// the exit code that the signal gives a program which does not handle it.
///
/// # Errors
/// The handlers cannot be installed.
pub fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            let (name, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            if cancelled.is_cancelled() {
                tracing::warn!(signal = name, "second signal: exiting without finishing");
                std::process::exit(code);
            }
            tracing::info!(signal = name, "stopping; a second signal exits at once");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// Waits until the file appears. One that is there already is from before: it must go first.
///
/// # Cancel safety
/// Safe.
pub async fn appears(path: &Path) {
    const LOOK: Duration = Duration::from_millis(500);
    // Asked of the disk every time: a file on another machine's disk may come and go.
    let is_there = || path.try_exists().unwrap_or(false);
    if is_there() {
        tracing::warn!(
            file = %path.display(),
            "drain.notice.file is there already, and taken for an old notice"
        );
    }
    let mut was_there = true;
    loop {
        let there = is_there();
        if there && !was_there {
            return;
        }
        was_there = there;
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_occupied_port_names_setting_and_address() {
        let address = Address::parse("127.0.0.1:0").unwrap();
        let first = bind("listeners", &address).await.unwrap();
        let taken = Address {
            port: first.local_addr().unwrap().port(),
            ..address
        };
        assert_eq!(
            bind("listeners", &taken).await.unwrap_err().to_string(),
            format!("listeners = {taken}: cannot listen: another process listens there")
        );
    }

    #[tokio::test]
    async fn a_notice_is_a_file_that_appears() {
        let dir = tempfile::tempdir().unwrap();
        let notice = dir.path().join("notice");
        let write = || {
            let mut options = std::fs::File::options();
            options
                .create(true)
                .truncate(true)
                .write(true)
                .open(&notice)
        };
        write().unwrap();
        let mut waiting = std::pin::pin!(appears(&notice));
        let soon = async |waiting: &mut std::pin::Pin<&mut _>| {
            tokio::time::timeout(Duration::from_millis(700), waiting)
                .await
                .is_ok()
        };
        assert!(!soon(&mut waiting).await, "it was there before");
        // Not through the file's name, which may be gone at any time.
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(!soon(&mut waiting).await, "it is not there");
        std::fs::create_dir(dir.path()).unwrap();
        write().unwrap();
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap();
    }

    #[test]
    fn a_data_directory_belongs_to_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let lock = claim_data_dir(&path).unwrap();
        assert_eq!(
            claim_data_dir(&path).unwrap_err().to_string(),
            format!(
                "data.dir = {}: another process uses this directory",
                path.display()
            )
        );
        drop(lock);
        claim_data_dir(&path).unwrap();
        let file = path.join("lock/below-a-file");
        let e = claim_data_dir(&file).unwrap_err().to_string();
        assert!(e.contains("cannot create or write the directory"), "{e}");
    }
}
