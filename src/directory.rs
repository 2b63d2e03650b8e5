//! A directory as an object store: `object_store`'s own, but long objects are written past the page
//! cache ([`crate::env::Direct`]).
//!
//! A PUT leaves what `LocalFileSystem::put_opts` (0.14.2, `with_fsync(true)`) would leave, in the same
//! steps: a staged file `NAME#N`, which listing does not show, is written and synced, linked or
//! renamed to its name, and the directory is synced. A crash before that leaves the staged file. What
//! is short, needs a directory that is not there yet, or asks for something else is left to it.
//!
//! Segments are written under their names from the beginning: nobody looks at one before its PUT was
//! answered and committed, so that a part of one, which a crash may leave, is an object that nothing
//! refers to, like a whole one that was not committed. File and name are then in the same commit of the
//! file system's journal instead of in two (docs/adr/0048-segments-are-put-in-place.md). An attempt that
//! finds a part, left by one that failed, takes the name for taken, as it would elsewhere.
//!
//! Who creates what is there already may be repeating a PUT whose sync has failed, and takes the object for
//! durable now. So an object with the same bytes is put once more in its place before it is said to be there
//! (docs/adr/0054-what-a-failed-sync-leaves-is-written-anew.md).
//!
//! Long ranges are read past the page cache as well, few at a time and after syncs
//! (docs/adr/0044-long-reads-let-syncs-go-first.md); every error, and what has conditions, is left to it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_core::SegmentId;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use tokio::sync::Semaphore;

use crate::env::{self, Calls, Publish, Published, System};

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory<C = System> {
    inner: LocalFileSystem,
    calls: C,
    /// Long reads at a time.
    reads: Arc<Semaphore>,
}

impl Directory {
    /// Over a store that syncs.
    pub(crate) fn new(inner: LocalFileSystem) -> Self {
        Self::with(inner, System)
    }
}

impl<C: Calls> Directory<C> {
    /// The same, which writes with these calls.
    pub(crate) fn with(inner: LocalFileSystem, calls: C) -> Self {
        Self {
            inner,
            calls,
            reads: Arc::new(Semaphore::new(LONG_READS)),
        }
    }

    /// Puts an object with calls of our own. `false`: there is no directory for it.
    async fn put_ourselves(
        &self,
        location: &Path,
        payload: &PutPayload,
        publish: Publish,
    ) -> Result<bool> {
        let path = self.inner.path_to_filesystem(location)?;
        let (calls, bytes) = (self.calls.clone(), payload.clone());
        tokio::task::spawn_blocking(move || put(&calls, &path, &bytes, publish))
            .await
            .map_err(|source| Error::JoinError { source })?
    }

    /// Writes an object anew, if it is there with the same bytes. A sync alone would not do: after one that
    /// has failed, the next one succeeds whatever was lost.
    async fn again_if_same(&self, location: &Path, payload: &PutPayload) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let bytes = payload.clone();
        let is_same = move || {
            let length = bytes.content_length();
            env::read_file(&path, length as u64).is_ok_and(|found| {
                let mut rest = found.as_slice();
                let mut same = |bytes: &Bytes| match rest.split_at_checked(bytes.len()) {
                    Some((start, end)) if start == bytes.as_ref() => {
                        rest = end;
                        true
                    }
                    _ => false,
                };
                found.len() == length && bytes.iter().all(&mut same)
            })
        };
        let is_same = tokio::task::spawn_blocking(is_same)
            .await
            .map_err(|source| Error::JoinError { source })?;
        if is_same {
            self.put_ourselves(location, payload, Publish::Replace)
                .await?;
        }
        Ok(())
    }
}

impl<C> fmt::Display for Directory<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn put(
    calls: &impl Calls,
    path: &std::path::Path,
    payload: &PutPayload,
    publish: Publish,
) -> Result<bool> {
    match env::put_file(calls, path, payload, publish) {
        Ok(Published::Done) => Ok(true),
        Ok(Published::NoDirectory) => Ok(false),
        Ok(Published::Exists(source)) => Err(Error::AlreadyExists {
            path: path.display().to_string(),
            source: source.into(),
        }),
        Err(error) => Err(Error::Generic {
            store: "directory",
            source: error.into(),
        }),
    }
}

/// Ranges of this length are read past the page cache: of segments, which are not in it, and others.
const LONG_READ: (u64, u64) = (64 << 10, 1 << 20);
/// Long reads at a time: two keep a disk busy, more are in the way of syncs.
const LONG_READS: usize = 2;
/// Longer ones are not read this way.
const READ_MAX: u64 = 32 << 20;

/// The range that is asked for, if it is long, and nothing else is asked.
fn plain_range(location: &Path, options: &GetOptions) -> Option<Range<u64>> {
    let Some(GetRange::Bounded(range)) = &options.range else {
        return None;
    };
    let length = range.end.checked_sub(range.start)?;
    let plain = options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
        && !options.head;
    let long = match SegmentId::from_object_key(location.as_ref()) {
        Some(_) => LONG_READ.0,
        None => LONG_READ.1,
    };
    (plain && (long..=READ_MAX).contains(&length)).then(|| range.clone())
}

#[async_trait]
impl<C: Calls> ObjectStore for Directory<C> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let publish = match options.mode {
            PutMode::Create => Some(Publish::New),
            PutMode::Overwrite => Some(Publish::Replace),
            PutMode::Update(_) => None,
        };
        let segment = SegmentId::from_object_key(location.as_ref()).is_some();
        let publish = match publish {
            Some(Publish::New) if segment => Some(Publish::InPlace),
            other => other,
        };
        let ours = segment || payload.content_length() >= env::LONG_WRITE;
        let put = async {
            if let Some(publish) = publish.filter(|_| ours && options.attributes.is_empty())
                && self.put_ourselves(location, &payload, publish).await?
            {
                return Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: Default::default(),
                });
            }
            let options = options.clone();
            self.inner
                .put_opts(location, payload.clone(), options)
                .await
        };
        let result = put.await;
        // Whoever puts segments does the same (`cache/src/flush/upload.rs`).
        if !segment && matches!(result, Err(Error::AlreadyExists { .. })) {
            self.again_if_same(location, &payload).await?;
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(range) = plain_range(location, &options) {
            let path = self.inner.path_to_filesystem(location)?;
            let place = Arc::clone(&self.reads).acquire_owned().await;
            let read = move || {
                let _place = place;
                let (pieces, metadata) = env::read_long(&path, &range)?;
                let length: usize = pieces.iter().map(Bytes::len).sum();
                let read = range.start..range.start + length as u64;
                Some((read, pieces, metadata.len(), metadata.modified().ok()?))
            };
            if let Ok(Some((range, pieces, size, modified))) =
                tokio::task::spawn_blocking(read).await
            {
                let pieces = stream::iter(pieces.into_iter().map(Ok));
                return Ok(GetResult {
                    range,
                    payload: GetResultPayload::Stream(pieces.boxed()),
                    meta: ObjectMeta {
                        location: location.clone(),
                        last_modified: modified.into(),
                        size,
                        e_tag: None,
                        version: None,
                    },
                    attributes: Default::default(),
                    extensions: Default::default(),
                });
            }
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
#[path = "directory_faults.rs"]
mod faults;

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;

    use super::*;

    fn payload(byte: u8, length: usize) -> PutPayload {
        let bytes: Vec<u8> = (0..length).map(|n| byte ^ (n >> 9) as u8).collect();
        // In uneven pieces, as a segment may come.
        let mut pieces = Vec::new();
        let mut rest = Bytes::from(bytes);
        while rest.len() > 300_001 {
            pieces.push(rest.split_to(300_001));
        }
        pieces.push(rest);
        PutPayload::from_iter(pieces)
    }

    fn contents(payload: &PutPayload) -> Vec<u8> {
        payload.iter().flat_map(|bytes| bytes.to_vec()).collect()
    }

    #[tokio::test]
    async fn segments_are_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let inner = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let store = Directory::new(inner.with_fsync(true));
        for (number, length) in [5, 200_000, 1_000_003].into_iter().enumerate() {
            let id = SegmentId::new(frazil_core::BrokerEpoch(1), number as u64);
            let key = Path::from(format!("some/{}", id.object_key()));
            let create = || PutOptions::from(PutMode::Create);
            // With the first one, the directory is not there yet.
            for again in [false, true] {
                let put = payload(1, length);
                store.put_opts(&key, put.clone(), create()).await.unwrap();
                let found = store.get(&key).await.unwrap().bytes().await.unwrap();
                assert!(found == contents(&put), "{length}");
                let error = store.put_opts(&key, payload(2, length), create()).await;
                assert!(
                    matches!(error, Err(Error::AlreadyExists { .. })),
                    "{error:?}"
                );
                let found = store.get(&key).await.unwrap().bytes().await.unwrap();
                assert!(found == contents(&put), "{length}");
                let path = store.inner.path_to_filesystem(&key).unwrap();
                let files = std::fs::read_dir(path.parent().unwrap());
                assert_eq!(files.unwrap().count(), 1, "nothing else is left");
                if !again {
                    store.delete(&key).await.unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn long_objects_are_put_as_short_ones_are() {
        let dir = tempfile::tempdir().unwrap();
        let inner = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let store = Directory::new(inner.with_fsync(true));
        for (n, length) in [5, 200_000, 1_000_003].into_iter().enumerate() {
            let key = Path::from(format!("some/where-{n}/object"));
            let (first, second) = (payload(1, length), payload(2, length));
            let create = || PutOptions::from(PutMode::Create);
            store.put_opts(&key, first.clone(), create()).await.unwrap();
            let found = store.get(&key).await.unwrap().bytes().await.unwrap();
            assert!(found == contents(&first), "{length}");
            // The directory is there now.
            let error = store.put_opts(&key, second.clone(), create()).await;
            assert!(
                matches!(error, Err(Error::AlreadyExists { .. })),
                "{error:?}"
            );
            let found = store.get(&key).await.unwrap().bytes().await.unwrap();
            assert!(found == contents(&first), "{length}");
            let overwrite = PutOptions::from(PutMode::Overwrite);
            store
                .put_opts(&key, second.clone(), overwrite)
                .await
                .unwrap();
            let found = store.get(&key).await.unwrap().bytes().await.unwrap();
            assert!(found == contents(&second), "{length}");
        }
        // Ranges, long ones and short ones, within and past the end.
        let key = Path::from("some/where-2/object");
        let more = payload(3, 2_500_000);
        store.put(&key, more.clone()).await.unwrap();
        let long = contents(&more);
        for range in [
            0..10,
            3..1_500_000,
            100_000..2_499_999,
            1_000_000..9_000_000,
        ] {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                ..GetOptions::default()
            };
            let found = store.get_opts(&key, options).await.unwrap();
            let end = range.end.min(2_500_000);
            assert_eq!(found.range, range.start..end);
            assert_eq!(found.meta.size, 2_500_000);
            let bytes = found.bytes().await.unwrap();
            assert!(bytes == long[range.start as usize..end as usize]);
        }
        for (key, range) in [
            (&key, 2_500_000..9_000_000),
            (&Path::from("no"), 0..2_000_000),
        ] {
            let options = || GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                ..GetOptions::default()
            };
            let here = store.get_opts(key, options()).await.unwrap_err();
            let there = store.inner.get_opts(key, options()).await.unwrap_err();
            assert_eq!(here.to_string(), there.to_string());
        }
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 3);
        for n in 0..3 {
            let files = std::fs::read_dir(dir.path().join(format!("some/where-{n}")));
            assert_eq!(files.unwrap().count(), 1, "nothing staged stays");
        }
    }
}
