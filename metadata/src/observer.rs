//! Keeps the image of a node that is no voter: follows the applied log of any voter.
//!
//! Invariant: the image only moves forward. After a connection ends, the next one continues behind
//! what is applied, at the same voter or another; what a voter has applied is committed, so all of
//! them tell the same log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use frazil_core::env::Ids;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::command::{Envelope, LEVEL};
use crate::config::ClientConfig;
use crate::directory::Directory;
use crate::error::{Corrupt, Error};
use crate::image::Image;
use crate::metrics::Metrics;
use crate::node::Us;
use crate::peer::dial;
use crate::state::State;
use crate::wire::{Reply, Request, SNAPSHOT_MAX, frame, parse, read_frame};

/// A voter that has said nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(8);
/// A voter without news for this long is left for the next: it may have been removed from the
/// quorum without knowing it.
const NO_NEWS: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A node that follows the quorum.
pub struct Observer {
    directory: Arc<Directory>,
    image: Arc<Image>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Whoever waits for a task that panics would wait for ever.
struct EndOnPanic(Arc<Image>);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .end(|| "following the quorum has panicked".to_owned());
        }
    }
}

/// Why following a voter ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    /// The connection, or the voter: another may do better.
    #[error(transparent)]
    Link(#[from] io::Error),
    /// This program does not understand what the quorum has committed.
    #[error("{0}")]
    Unknown(String),
}

impl Observer {
    /// Begins to follow. `voters` are the voters' ids and `host:port`.
    ///
    /// # Errors
    /// No voters.
    pub fn start(
        voters: BTreeMap<u64, String>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        Self::knowing(LEVEL, voters, ids, metrics)
    }

    /// Follows as a program does that knows feature levels up to `knows`.
    pub(crate) fn knowing(
        knows: u8,
        voters: BTreeMap<u64, String>,
        ids: Arc<dyn Ids>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        if voters.is_empty() {
            return Err(Error::Config("no voters".to_owned()));
        }
        let image = Arc::new(Image::new(knows, metrics.clone()));
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let us = Us {
            image: Arc::clone(&image),
            voter: None,
        };
        let directory = Arc::new(Directory::new(Arc::new(us), voters));
        // Observers spread over the voters.
        let follower = follow_for_ever(Arc::clone(&directory), ids.random(), Arc::clone(&image));
        let learning = Arc::clone(&directory).learn_for_ever();
        let keeping = async move {
            tokio::select! {
                reason = follower => reason,
                // It has no end.
                () = learning => String::new(),
            }
        };
        let failing = Arc::clone(&image);
        let task = tokio::spawn(async move {
            let _guard = EndOnPanic(Arc::clone(&failing));
            if let Some(reason) = stopping.run_until_cancelled(keeping).await {
                tracing::error!(reason, "this node no longer follows the quorum");
                failing.end(|| reason);
            }
        });
        Ok(Self {
            directory,
            image,
            ids,
            metrics,
            stop,
            task,
        })
    }

    /// The image.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// A client of the quorum that reads from this image.
    pub fn client(&self, config: ClientConfig) -> Client {
        Client::new(
            Arc::clone(&self.image),
            None,
            Arc::clone(&self.directory),
            config,
            &*self.ids,
            self.metrics.clone(),
        )
    }

    /// Waits until following has ended for good, because the quorum does what this program does not
    /// know, and tells why. The process should then end.
    pub async fn failed(&self) -> String {
        self.image.ended().await
    }

    /// Stops following.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // A panic of the task has been reported where it happened.
        let _ = self.task.await;
    }
}

async fn follow_for_ever(directory: Arc<Directory>, first: u64, image: Arc<Image>) -> String {
    let mut backoff = BACKOFF_MIN;
    for turn in (0..).map(|turn: u64| first.wrapping_add(turn)) {
        let voters = directory.peers();
        let preferred = directory.preferred().and_then(|voter| voters.get(&voter));
        let in_turn = || voters.values().nth(turn as usize % voters.len().max(1));
        let Some(peer) = preferred.or_else(in_turn) else {
            unreachable!("an observer was given voters, and keeps them");
        };
        let before = image.applied();
        let (voter, address) = (peer.id(), peer.address());
        let followed = tokio::select! {
            followed = follow(voter, address, &image, &directory) => followed,
            () = directory.another_is_preferred(voter) => Ok(()),
        };
        match followed {
            Ok(()) => {}
            Err(FollowError::Unknown(reason)) => return reason,
            Err(error) => tracing::debug!(voter, %error, "following a metadata voter ended"),
        }
        backoff = if image.applied() > before {
            BACKOFF_MIN
        } else {
            (backoff * 2).min(BACKOFF_MAX)
        };
        tokio::time::sleep(backoff).await;
    }
    unreachable!("there are more turns than time")
}

async fn follow(
    voter: u64,
    address: &str,
    image: &Arc<Image>,
    directory: &Directory,
) -> Result<(), FollowError> {
    let us = Us {
        image: Arc::clone(image),
        voter: None,
    };
    let (mut reader, mut writer) = dial(voter, address, &us).await?;
    let after = image.applied();
    writer
        .write_all(&frame(1, &Request::Follow { after })?)
        .await?;
    writer.flush().await?;

    let mut news = Instant::now();
    // A snapshot that is being received: its index, its length, its bytes.
    let mut snapshot: Option<(u64, u64, BytesMut)> = None;
    loop {
        let next = tokio::time::timeout(SILENCE, read_frame(&mut reader))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let Some((_, body)) = next else {
            return Ok(());
        };
        match parse::<Reply>(&body)? {
            Reply::FollowEntries(entries) => {
                news = Instant::now();
                if entries.iter().any(|(_, command)| command.is_none()) {
                    // A new leader, or other members.
                    directory.look_again();
                }
                apply(image, entries)?;
            }
            Reply::FollowIdle(_) if news.elapsed() < NO_NEWS => {}
            Reply::FollowIdle(_) => return Ok(()),
            Reply::FollowSnapshot { index, bytes } if bytes <= SNAPSHOT_MAX => {
                snapshot = Some((index, bytes, BytesMut::new()));
            }
            Reply::FollowPart(part) => {
                let Some((_, bytes, received)) = &mut snapshot else {
                    return Err(corrupt("a part of no snapshot"));
                };
                received.extend_from_slice(&part.0);
                if (received.len() as u64) < *bytes {
                    continue;
                }
                if let Some((index, _, received)) = snapshot.take() {
                    install(image, index, received).await?;
                }
            }
            _ => return Err(corrupt("a reply that does not belong to following")),
        }
    }
}

fn corrupt(what: impl Into<String>) -> FollowError {
    FollowError::Link(Corrupt::new(what).into())
}

fn apply(image: &Image, entries: Vec<(u64, Option<crate::raft::Blob>)>) -> Result<(), FollowError> {
    let mut decoded = Vec::with_capacity(entries.len());
    for (expected, (index, bytes)) in (image.applied() + 1..).zip(entries) {
        if index != expected {
            return Err(corrupt(format!("entry {index} instead of {expected}")));
        }
        let envelope = bytes
            .map(|bytes| Envelope::decode_knowing(image.knows(), &bytes.0))
            .transpose()
            .map_err(|error| FollowError::Unknown(format!("entry {index}: {error}")))?;
        decoded.push((index, envelope));
    }
    image.apply(&decoded);
    Ok(())
}

async fn install(image: &Image, index: u64, bytes: BytesMut) -> Result<(), FollowError> {
    if index <= image.applied() {
        return Err(corrupt(format!("a snapshot at {index} goes back")));
    }
    let knows = image.knows();
    let state = crate::blocking::spawn_blocking(move || State::restore_knowing(knows, &bytes))
        .await
        .map_err(io::Error::other)?
        .map_err(|error| FollowError::Unknown(format!("snapshot at {index}: {error}")))?;
    image.install(state, index);
    Ok(())
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::SeededIds;
    use tokio::net::TcpListener;

    use super::*;
    use crate::raft::Blob;
    use crate::wire::{Greeting, read_greeting, send_greeting};

    #[tokio::test]
    async fn an_entry_of_a_later_version_ends_it_and_is_not_skipped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // A voter of a later version.
        let voter = tokio::spawn(async move {
            let later = Blob::from(vec![LEVEL + 1, 0]);
            let told = Reply::FollowEntries(vec![(1, None), (2, Some(later)), (3, None)]);
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                read_greeting(&mut stream).await.unwrap();
                let image = Arc::new(Image::new(crate::command::LEVEL, Metrics::default()));
                let voter = Some(1);
                let ours = Greeting::of(&Us { image, voter }, 1);
                send_greeting(&mut stream, &ours).await.unwrap();
                stream.write_all(&frame(1, &told).unwrap()).await.unwrap();
                open.push(stream);
            }
        });
        let voters = BTreeMap::from([(1, address)]);
        let ids = Arc::new(SeededIds::new(1));
        let observer = Observer::start(voters, ids, Metrics::default()).unwrap();
        let failed = tokio::time::timeout(Duration::from_secs(20), observer.failed());
        let reason = failed.await.unwrap();
        let later = format!("feature level {}", LEVEL + 1);
        assert!(
            reason.contains("entry 2") && reason.contains(&later),
            "{reason}"
        );
        assert_eq!(observer.image().applied(), 0);
        observer.shutdown().await;
        voter.abort();
    }
}
