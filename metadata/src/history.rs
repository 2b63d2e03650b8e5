//! Which history of a cluster a quorum belongs to: `frazil recover` begins a new one.
//!
//! ```text
//!  quorum A ──► archive ──────────────────── recover ──► quorum B
//!      │                                        │
//!      │                          quorum/history/0000000000000001-<id>
//!      └─ comes back ──► finds that, or B in a greeting ──► ends
//! ```
//!
//! A quorum that is made from the archive has another history than the one that the archive is of:
//! what that had committed after its last archived entry does not exist, and what the new one
//! commits the old one does not have. If voters of the old one come back, or nodes that follow them,
//! they would serve clients what is not, and acknowledge what nobody will find. So each recovery
//! leaves its mark in the bucket before it writes anything else, and the new state carries it.
//!
//! Invariant: of two histories of one cluster, the one with the larger mark is the cluster's. A node
//! whose state carries a smaller one ends as soon as it learns of the larger: when it starts and
//! the archive says so, when a leader looks (when it is elected, and every minute), and when a node
//! of the later history greets it.

use std::io;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::Archive;
use crate::error::Error;
use crate::image::Image;

/// Where the marks are.
const MARKS: &str = "quorum/history/";

/// The mark of a recovery.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
)]
pub struct History {
    /// How many recoveries there have been.
    #[n(0)]
    pub count: u64,
    /// Chosen by this one.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub id: [u8; 16],
}

impl History {
    fn key(self) -> String {
        format!(
            "{MARKS}{:016x}-{}",
            self.count,
            Uuid::from_bytes(self.id).simple()
        )
    }

    fn parse(key: &str) -> Option<Self> {
        let (count, id) = key.strip_prefix(MARKS)?.split_once('-')?;
        let count = u64::from_str_radix(count, 16).ok()?;
        let id = Uuid::try_parse(id).ok()?.into_bytes();
        let history = Self { count, id };
        (history.key() == key).then_some(history)
    }

    /// The newest in the archive.
    pub(crate) async fn newest(archive: &dyn Archive) -> io::Result<Option<Self>> {
        let keys = archive.list(MARKS).await?;
        Ok(keys.iter().filter_map(|key| Self::parse(key)).max())
    }

    /// Leaves a mark that is larger than all there are, and than `known`.
    pub(crate) async fn begin(
        archive: &dyn Archive,
        known: Option<Self>,
        id: Uuid,
    ) -> io::Result<Self> {
        let newest = Self::newest(archive).await?.max(known);
        let count = newest.map_or(0, |newest| newest.count) + 1;
        let id = id.into_bytes();
        let history = Self { count, id };
        let text = b"frazil recover has begun a new history of this cluster\n";
        archive.put(&history.key(), text.as_slice().into()).await?;
        Ok(history)
    }
}

/// What is said to a node of an earlier history.
pub(crate) fn superseded(ours: Option<History>, theirs: Option<History>) -> String {
    let count = |history: Option<History>| history.map_or(0, |history| history.count);
    format!(
        "frazil recover has made a new quorum for this cluster (recovery {}), and this node belongs \
         to the one before ({}): start it with the new quorum in controller.quorum.voters; a voter's \
         quorum directory must be removed first, and its node.id not be used for a voter again",
        count(theirs),
        count(ours)
    )
}

/// Checks that a node's image is of the cluster's newest history.
///
/// # Errors
/// It is not, and the node must end; or the archive cannot be read.
pub async fn check_history(archive: &dyn Archive, image: &Image) -> Result<(), Error> {
    let newest = History::newest(archive).await?;
    let ours = image.read(|state| state.history());
    match newest > ours {
        true => Err(Error::Directory(superseded(ours, newest))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::{check_golden, golden};

    use super::*;
    use crate::archive::tests::MemArchive;
    use crate::state::State;

    #[tokio::test]
    async fn every_recovery_leaves_a_larger_mark() {
        let archive = MemArchive::default();
        assert_eq!(History::newest(&archive).await.unwrap(), None);
        let first = History::begin(&archive, None, Uuid::from_u128(9))
            .await
            .unwrap();
        assert_eq!(first.count, 1);
        // Of a state that is older than the archive, and of one that is newer.
        let second = History::begin(&archive, None, Uuid::from_u128(3))
            .await
            .unwrap();
        assert_eq!(second.count, 2);
        let far = History { count: 7, ..first };
        let third = History::begin(&archive, Some(far), Uuid::from_u128(1))
            .await
            .unwrap();
        assert_eq!(third.count, 8);
        assert_eq!(History::newest(&archive).await.unwrap(), Some(third));
        assert!(third > second && second > first && Some(first) > None);
        archive.put("quorum/history/x", "".into()).await.unwrap();
        assert_eq!(History::newest(&archive).await.unwrap(), Some(third));
    }

    #[test]
    fn the_mark_in_the_state_is_written_as_ever() {
        let mut state = State::new();
        state.begin_history(History {
            count: 300,
            id: *Uuid::from_u128(0xABC).as_bytes(),
        });
        check_golden("metadata-snapshot-v1-history.bin", &state.snapshot());
        let restored = State::restore(&golden("metadata-snapshot-v1-history.bin"));
        assert_eq!(restored.unwrap(), state);
    }
}
