//! `frazil recover`: a new quorum, made of what is in the bucket.
//!
//! What was committed after the archive's last entry is in segments that the metadata does not
//! know. Footers say which records they hold, not at which offsets, and not in which order
//! different gateways committed them: so they are reported, and not committed again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use frazil_core::ports::SegmentStatus;
use frazil_core::segment::{self, Footer, FooterError};
use frazil_core::{SegmentId, TopicPartition};
use frazil_metadata::{Recovery, state::State};
use frazil_objects::Retries;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::{ConfigArgs, output, time};
use crate::archive::StoreArchive;
use crate::config::Config;
use crate::env::Env;
use crate::{host, store};

/// Bytes that are read of a segment's end at first.
const FOOTER_GUESS: u64 = 64 << 10;

/// `frazil recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// The cluster's id: the directory below store.url
    #[arg(long, value_name = "ID")]
    cluster_id: String,
    #[command(flatten)]
    settings: ConfigArgs,
}

impl Recover {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.settings.load()?.config;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let report = runtime.block_on(recover(&config, &self.cluster_id))?;
        output::text(&report)
    }
}

async fn recover(config: &Config, cluster: &str) -> anyhow::Result<String> {
    let env = Env::system();
    if cluster.is_empty() || cluster.contains('/') {
        bail!("--cluster-id: {cluster:?} is no cluster's id");
    }
    let dir = crate::node::quorum_dir(config);
    let listed = env.disk.list(&dir);
    if listed.is_ok_and(|names| !names.is_empty()) {
        bail!(
            "{} is not empty: a quorum is only recovered into a new directory",
            dir.display()
        );
    }
    let opened = store::open(config, &*env.disk)?;
    let prefix = Path::from(cluster);
    let retries = Retries::new(Arc::clone(&env.ids), Default::default());
    let archive = StoreArchive::new(Arc::clone(&opened.client), retries, prefix.clone());
    let mut recovery = Recovery::read(&archive).await.with_context(|| {
        format!(
            "store.url = {}: cluster {cluster} cannot be recovered",
            opened.url()
        )
    })?;
    if recovery.state().cluster_id() != Some(cluster) {
        bail!("the metadata below {cluster} is that of another cluster");
    }
    let segments = segments(&*opened.client, &prefix).await?;
    let used = segments.keys().map(|id| id.epoch.0).max().unwrap_or(0);
    let unknown = unknown(&opened, &prefix, recovery.state(), &segments).await?;

    let _lock = host::claim_data_dir(&config.data_dir)?;
    let quorum = crate::node::lone_voter(config);
    let base = recovery
        .write(&archive, &quorum, used, env.disk, env.ids)
        .await?;
    Ok(report(&recovery, &segments, &unknown, base, &dir))
}

/// The segments in the bucket, and their sizes.
async fn segments(
    store: &dyn ObjectStore,
    prefix: &Path,
) -> anyhow::Result<BTreeMap<SegmentId, u64>> {
    let mut found = BTreeMap::new();
    let mut objects = store.list(Some(&prefix.clone().join("segments")));
    while let Some(object) = objects.try_next().await.context("cannot list the bucket")? {
        if let Some(id) = SegmentId::from_object_key(object.location.as_ref()) {
            found.insert(id, object.size);
        }
    }
    Ok(found)
}

/// What a segment that the metadata does not know holds: records by partition, or why that cannot
/// be said.
type Content = Result<BTreeMap<TopicPartition, u64>, String>;

/// Segments that may have been committed after the last archived entry.
async fn unknown(
    opened: &store::Store,
    prefix: &Path,
    state: &State,
    segments: &BTreeMap<SegmentId, u64>,
) -> anyhow::Result<BTreeMap<SegmentId, Content>> {
    let mut unknown = BTreeMap::new();
    for (&id, &size) in segments {
        if state.segment(id) == SegmentStatus::Pending {
            let object = Path::from(format!("{prefix}/{}", id.object_key()));
            let content = content(&*opened.client, opened.kind, &object, size).await;
            unknown.insert(id, content.map_err(|error| format!("{error:#}")));
        }
    }
    Ok(unknown)
}

/// What a segment of `size` bytes holds.
async fn content(
    store: &dyn ObjectStore,
    kind: store::Kind,
    object: &Path,
    size: u64,
) -> anyhow::Result<BTreeMap<TopicPartition, u64>> {
    let footer = match kind {
        // A crash may have left a part of it, with its end and without what is before (ADR 0048).
        store::Kind::Directory => segment::open(&store.get(object).await?.bytes().await?)?.0,
        store::Kind::Memory | store::Kind::Cloud => footer(store, object, size).await?,
    };
    let mut records = BTreeMap::new();
    for extent in footer.extents {
        *records.entry(extent.partition).or_default() += extent.records;
    }
    Ok(records)
}

async fn footer(store: &dyn ObjectStore, object: &Path, size: u64) -> anyhow::Result<Footer> {
    let mut length = FOOTER_GUESS.min(size);
    loop {
        let end = store.get_range(object, size - length..size).await?;
        match Footer::parse(&end, size) {
            Ok(footer) => return Ok(footer),
            Err(FooterError::NeedMore { need }) if need as u64 > length => length = need as u64,
            Err(error) => return Err(anyhow!(error)),
        }
    }
}

fn report(
    recovery: &Recovery,
    segments: &BTreeMap<SegmentId, u64>,
    unknown: &BTreeMap<SegmentId, Content>,
    base: u64,
    dir: &std::path::Path,
) -> String {
    let state = recovery.state();
    let counts = state.counts();
    let mut text = format!(
        "recovered up to index {}, leader time {} ({} ms)\n",
        recovery.index(),
        time::format_ms(state.now_ms()),
        state.now_ms(),
    );
    let from = match recovery.snapshot {
        Some(index) => format!("the snapshot at index {index}"),
        None => "the first entry".to_owned(),
    };
    // Writing to a string cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{args}");
    };
    line(format_args!(
        "from {from}: {} topics, {} partitions, {} segments, {} groups",
        counts.topics, counts.partitions, counts.segments, counts.groups
    ));
    line(format_args!(
        "written to {}; its log goes on at index {base}",
        dir.display()
    ));
    for damaged in &recovery.damaged {
        line(format_args!("unusable: {damaged}"));
    }
    if let Some(beyond) = recovery.beyond {
        line(format_args!(
            "MISSING: entries behind index {}; later ones, up to {beyond}, are in the bucket and \
             cannot be used",
            recovery.index()
        ));
    }
    let gone: BTreeSet<_> = state
        .live_segments()
        .filter(|id| !segments.contains_key(id))
        .collect();
    if !gone.is_empty() {
        line(format_args!(
            "MISSING: {} segments that the metadata refers to are not in the bucket",
            gone.len()
        ));
        gone.iter().for_each(|id| line(format_args!("  {id}")));
    }
    let local: BTreeSet<i32> = state
        .registrations()
        .map(|known| known.broker.id)
        .filter(|id| !state.wal_extents(*id).is_empty())
        .map(|id| id.0)
        .collect();
    if !local.is_empty() {
        line(format_args!(
            "records that are only on the disks of gateways {local:?} come back with those gateways"
        ));
    }
    if unknown.is_empty() {
        line(format_args!(
            "no segment in the bucket is unknown to the metadata"
        ));
    } else {
        line(format_args!(
            "MAY BE MISSING: {} segments were uploaded and are unknown to the metadata: committed \
             after index {}, or never. They are not committed again, and those of gateways that \
             register again are collected: copy them first if they matter",
            unknown.len(),
            recovery.index()
        ));
        for (id, content) in unknown {
            match content {
                Err(why) => line(format_args!("  {}: {why}", id.object_key())),
                Ok(records) => {
                    line(format_args!("  {}", id.object_key()));
                    for (partition, count) in records {
                        let topic = state.topic_by_id(partition.topic);
                        let name = topic.map_or_else(
                            || partition.topic.to_string(),
                            |topic| topic.name.to_string(),
                        );
                        line(format_args!(
                            "    {name}-{}: {count} records",
                            partition.partition
                        ));
                    }
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use frazil_core::ports::BatchInfo;
    use frazil_core::segment::SegmentBuilder;
    use frazil_core::{BrokerEpoch, TopicId};
    use object_store::local::LocalFileSystem;
    use uuid::Uuid;

    use super::*;

    /// A power failure may leave any part of a segment in a directory, in the end with zeroes for what the
    /// disk did not get.
    #[tokio::test]
    async fn parts_of_segments_in_a_directory_are_told_as_such() {
        let mut builder = SegmentBuilder::new();
        let partition = TopicPartition::new(TopicId::new(Uuid::from_u128(1)), 0);
        let info = BatchInfo {
            length: 9000,
            records: 3,
            max_timestamp: 0,
            producer: None,
        };
        let batch = Bytes::from(vec![7; 9000]);
        builder.push(partition, batch, info).unwrap();
        let id = SegmentId::new(BrokerEpoch(1), 1);
        let whole = builder.finish(id, Uuid::from_u128(2), "cluster").bytes;
        let mut holed = whole.to_vec();
        holed[4096..8192].fill(0);
        let mut headless = whole.to_vec();
        headless[..4096].fill(0);
        let mut tailless = whole.to_vec();
        tailless[8192..].fill(0);

        let dir = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let object = Path::from(id.object_key());
        let found = async |bytes: Vec<u8>| {
            let size = bytes.len() as u64;
            store.put(&object, bytes.into()).await.unwrap();
            content(&store, store::Kind::Directory, &object, size).await
        };
        let records = found(whole.to_vec()).await.unwrap();
        assert_eq!(records, BTreeMap::from([(partition, 3)]));
        let cut = [0, 10, 4096, whole.len() - 1].map(|length| whole[..length].to_vec());
        for part in cut.into_iter().chain([holed, headless, tailless]) {
            let records = found(part).await;
            assert!(records.is_err(), "{records:?}");
        }
    }
}
