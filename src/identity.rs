//! Which gateway a data directory belongs to.
//!
//! ```text
//! <data.dir>/gateway/identity   a small file (frazil_metadata::small_file), magic "FRZGWID\x01"
//!                               payload: CBOR [cluster id: text, broker id: i32]
//! ```
//!
//! A gateway that is not told its id is given one by the quorum when it first registers, and keeps
//! it here. What its write-ahead log holds is expected under that id, so the file is written before
//! the log is: a directory with a log and no identity is from before there was this file, when the
//! id was 1 unless the settings said otherwise.
//!
//! # Crash
//! Between the registration and the file: the id is not used again, its registration lapses. Later:
//! the file is there, whole.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use frazil_core::BrokerId;
use frazil_core::env::Disk;
use frazil_metadata::small_file;
use minicbor::{Decode, Encode};

const FILE: &str = "identity";
const MAGIC: [u8; 8] = *b"FRZGWID\x01";

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Identity {
    /// The cluster that gave the id.
    #[n(0)]
    pub(crate) cluster: String,
    /// The id.
    #[n(1)]
    pub(crate) broker: BrokerId,
}

/// Where the identity is, below the data directory.
fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("gateway")
}

/// What the directory remembers; `None`: nothing.
///
/// # Errors
/// It cannot be read, or is damaged.
pub(crate) fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Identity>> {
    let dir = directory(data_dir);
    let path = dir.join(FILE);
    let payload = small_file::read(disk, &dir, FILE, MAGIC)
        .with_context(|| format!("cannot read {}", path.display()))?;
    match payload {
        Some(payload) => minicbor::decode(&payload)
            .map(Some)
            .with_context(|| format!("{} is no identity", path.display())),
        // Of a log, not of its files: a log in which nothing is kept has none.
        None if disk.list(&dir.join("wal")).is_ok() => Ok(Some(Identity {
            cluster: String::new(),
            broker: BrokerId(1),
        })),
        None => Ok(None),
    }
}

/// Remembers the identity, durably.
///
/// # Errors
/// Those of the disk.
pub(crate) fn write(disk: &dyn Disk, data_dir: &Path, identity: &Identity) -> Result<()> {
    let dir = directory(data_dir);
    let payload = minicbor::to_vec(identity).expect("writing to memory does not fail");
    disk.create_dir_all(&dir)
        .and_then(|()| small_file::replace(disk, &dir, FILE, MAGIC, &payload))
        .with_context(|| format!("cannot write {}", dir.join(FILE).display()))
}

/// The id to register with; `None`: one that the quorum gives.
///
/// `expected`: whether the metadata still expects something of a gateway's write-ahead log.
///
/// # Errors
/// The directory belongs to another cluster, or to a gateway whose records in it would be lost if
/// it started as another.
pub(crate) fn choose(
    configured: Option<BrokerId>,
    remembered: Option<&Identity>,
    cluster: &str,
    expected: impl Fn(BrokerId) -> bool,
) -> Result<Option<BrokerId>> {
    let Some(identity) = remembered else {
        return Ok(configured);
    };
    if !identity.cluster.is_empty() && identity.cluster != cluster {
        bail!(
            "data.dir belongs to gateway {} of cluster {}, and this is cluster {cluster}",
            identity.broker,
            identity.cluster
        );
    }
    match configured {
        Some(id) if id != identity.broker && !identity.cluster.is_empty() => {
            if expected(identity.broker) {
                bail!(
                    "node.id = {id}: data.dir has acknowledged records of gateway {0} that are not \
                     in the object store yet; start it with node.id = {0} until they are",
                    identity.broker
                );
            }
            Ok(Some(id))
        }
        Some(id) => Ok(Some(id)),
        None => Ok(Some(identity.broker)),
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::env::testing::{MemDisk, check_golden, golden};

    use super::*;

    fn identity(cluster: &str, broker: i32) -> Identity {
        Identity {
            cluster: cluster.to_owned(),
            broker: BrokerId(broker),
        }
    }

    #[test]
    fn the_identity_is_written_as_ever() {
        let disk = MemDisk::new();
        let dir = Path::new("/data");
        assert_eq!(read(&disk, dir).unwrap(), None);
        let known = identity("q1Sh-9_ISia_zwGINzRvyQ", 1001);
        write(&disk, dir, &known).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), Some(known));
        let path = Path::new("/data/gateway/identity");
        let bytes = disk.contents(path).unwrap();
        check_golden("gateway-identity-v1.bin", &bytes);
        assert_eq!(bytes, golden("gateway-identity-v1.bin"));
        disk.rot(path, 14, 1);
        let refused = read(&disk, dir).unwrap_err();
        assert!(format!("{refused:#}").contains("checksum"), "{refused:#}");
    }

    #[test]
    fn a_log_from_before_there_were_identities_is_that_of_gateway_1() {
        let disk = MemDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(&dir.join("gateway/wal")).unwrap();
        let found = read(&disk, dir).unwrap();
        let chosen = |configured| choose(configured, found.as_ref(), "a", |_| true).unwrap();
        assert_eq!(chosen(None), Some(BrokerId(1)));
        assert_eq!(chosen(Some(BrokerId(11))), Some(BrokerId(11)));
    }

    #[test]
    fn settings_decide_then_the_directory_then_the_quorum() {
        let known = identity("a", 1001);
        let choose = |configured: Option<i32>, remembered, expected| {
            choose(configured.map(BrokerId), remembered, "a", |_| expected)
                .map(|id| id.map(|id| id.0))
                .map_err(|error| error.to_string())
        };
        assert_eq!(choose(None, None, true), Ok(None));
        assert_eq!(choose(Some(7), None, true), Ok(Some(7)));
        assert_eq!(choose(None, Some(&known), true), Ok(Some(1001)));
        assert_eq!(choose(Some(1001), Some(&known), true), Ok(Some(1001)));
        assert_eq!(choose(Some(7), Some(&known), false), Ok(Some(7)));
        let refused = choose(Some(7), Some(&known), true).unwrap_err();
        assert!(
            refused.contains("start it with node.id = 1001"),
            "{refused}"
        );
        let foreign = identity("b", 1001);
        for configured in [None, Some(1001)] {
            let refused = choose(configured, Some(&foreign), false).unwrap_err();
            assert!(refused.contains("of cluster b"), "{refused}");
        }
    }
}
