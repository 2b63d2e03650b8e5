//! The objects, in memory or in a directory.
//!
//! In a directory, each object is one file named by a number that grows: the length of the header
//! (u32, little-endian), the header (JSON), the body. Of two files with one key the higher number
//! holds. A file gets its name while the lock is held under which the condition of its PUT was
//! checked, so conditional writes have one winner, also across a kill of the server. Nothing is
//! synced: it is not a store to keep anything in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// S3's minimum for every part of an upload but the last, in bytes.
const PART_MIN: usize = 5 << 20;

/// Why something was not done, as S3 says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
}

impl Refusal {
    pub(crate) const NO_SUCH_KEY: Self = Self::new(404, "NoSuchKey");
    pub(crate) const NO_SUCH_BUCKET: Self = Self::new(404, "NoSuchBucket");
    pub(crate) const NO_SUCH_UPLOAD: Self = Self::new(404, "NoSuchUpload");
    pub(crate) const PRECONDITION: Self = Self::new(412, "PreconditionFailed");

    pub(crate) const fn new(status: u16, code: &'static str) -> Self {
        Self { status, code }
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::new(500, "InternalError")
    }
}

/// On what a write depends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: ETAG`
    Is(String),
}

/// What is known of an object besides its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    bucket: String,
    key: String,
    pub(crate) etag: String,
    /// Whole seconds, as HTTP dates are.
    modified: u64,
    /// Headers that came with it and go with it.
    pub(crate) headers: Vec<(String, String)>,
}

impl Meta {
    pub(crate) fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.modified)
    }
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) meta: Meta,
    pub(crate) size: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Memory(Bytes),
    File { path: PathBuf, start: u64 },
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Arc<Object>)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins.
    pub(crate) next: Option<String>,
}

/// What is asked of a listing.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    pub(crate) start_after: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) max: usize,
}

#[derive(Debug)]
pub(crate) struct Objects {
    directory: Option<PathBuf>,
    /// The only buckets there are; none: any name is a bucket.
    buckets: BTreeSet<String>,
    next: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    uploads: BTreeMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    headers: Vec<(String, String)>,
    parts: BTreeMap<u32, (String, Bytes)>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "dates of objects are only shown; there is nothing to simulate here"
)]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Objects {
    pub(crate) async fn open(
        directory: Option<PathBuf>,
        buckets: BTreeSet<String>,
    ) -> io::Result<Self> {
        let (mut inner, mut next) = (Inner::default(), 0);
        if let Some(directory) = &directory {
            tokio::fs::create_dir_all(directory).await?;
            let mut files = BTreeMap::new();
            let mut entries = tokio::fs::read_dir(directory).await?;
            while let Some(entry) = entries.next_entry().await? {
                let name = entry.file_name();
                match name.to_str().and_then(|name| name.parse::<u64>().ok()) {
                    Some(number) => _ = files.insert(number, entry.path()),
                    None => tokio::fs::remove_file(entry.path()).await?,
                }
            }
            for (number, path) in files {
                next = number + 1;
                let object = load(path).await?;
                let bucket = inner.objects.entry(object.meta.bucket.clone()).or_default();
                let old = bucket.insert(object.meta.key.clone(), Arc::new(object));
                remove(old.as_deref()).await;
            }
        }
        Ok(Self {
            directory,
            buckets,
            next: AtomicU64::new(next),
            inner: Mutex::new(inner),
        })
    }

    pub(crate) fn check_bucket(&self, bucket: &str) -> Result<(), Refusal> {
        if self.buckets.is_empty() || self.buckets.contains(bucket) {
            Ok(())
        } else {
            Err(Refusal::NO_SUCH_BUCKET)
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns the ETag.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        headers: Vec<(String, String)>,
        condition: &Condition,
    ) -> Result<String, Refusal> {
        self.check_bucket(bucket)?;
        let number = self.number();
        let meta = Meta {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            etag: format!("\"{number:x}-{:x}\"", body.len()),
            modified: now(),
            headers,
        };
        let (etag, size) = (meta.etag.clone(), body.len() as u64);
        let Some(directory) = &self.directory else {
            let body = Body::Memory(body);
            let mut inner = self.inner.lock().await;
            inner.check(bucket, key, condition)?;
            inner.insert(Object { meta, size, body });
            return Ok(etag);
        };
        let header = serde_json::to_vec(&meta).map_err(io::Error::from)?;
        let start = 4 + header.len() as u64;
        let mut file = Vec::with_capacity(start as usize + body.len());
        file.extend((header.len() as u32).to_le_bytes());
        file.extend(header);
        file.extend(&body);
        let (new, path) = (
            directory.join(format!("{number}.new")),
            directory.join(number.to_string()),
        );
        tokio::fs::write(&new, file).await?;
        let mut inner = self.inner.lock().await;
        if let Err(refusal) = inner.check(bucket, key, condition) {
            drop(inner);
            tokio::fs::remove_file(&new).await?;
            return Err(refusal);
        }
        tokio::fs::rename(&new, &path).await?;
        let body = Body::File { path, start };
        let old = inner.insert(Object { meta, size, body });
        remove(old.as_deref()).await;
        Ok(etag)
    }

    pub(crate) async fn find(&self, bucket: &str, key: &str) -> Result<Arc<Object>, Refusal> {
        self.check_bucket(bucket)?;
        let inner = self.inner.lock().await;
        inner.find(bucket, key).ok_or(Refusal::NO_SUCH_KEY)
    }

    /// `None`: it was deleted or replaced since it was found.
    pub(crate) async fn read(
        object: &Object,
        start: u64,
        end: u64,
    ) -> Result<Option<Bytes>, Refusal> {
        use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
        match &object.body {
            Body::Memory(bytes) => Ok(Some(bytes.slice(start as usize..end as usize))),
            Body::File { path, start: body } => {
                let mut file = match tokio::fs::File::open(path).await {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => file?,
                };
                file.seek(io::SeekFrom::Start(body + start)).await?;
                let mut bytes = Vec::new();
                file.take(end - start).read_to_end(&mut bytes).await?;
                Ok(Some(bytes.into()))
            }
        }
    }

    pub(crate) async fn delete(&self, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.check_bucket(bucket)?;
        let mut inner = self.inner.lock().await;
        let objects = inner.objects.get_mut(bucket);
        let old = objects.and_then(|objects| objects.remove(key));
        remove(old.as_deref()).await;
        Ok(())
    }

    pub(crate) async fn list(&self, bucket: &str, listing: &Listing) -> Result<Page, Refusal> {
        self.check_bucket(bucket)?;
        let inner = self.inner.lock().await;
        let mut page = Page::default();
        let Some(objects) = inner.objects.get(bucket) else {
            return Ok(page);
        };
        // A token is the last key or common prefix of the page before.
        let after = listing.token.as_deref().or(listing.start_after.as_deref());
        let from = match after {
            Some(after) if after >= listing.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(listing.prefix.as_str()),
        };
        let mut last: Option<String> = None;
        for (key, object) in objects.range::<str, _>((from, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(&listing.prefix) else {
                break;
            };
            let delimiter = listing.delimiter.as_deref().filter(|text| !text.is_empty());
            let folded = delimiter.and_then(|delimiter| {
                let end = rest.find(delimiter)? + delimiter.len();
                Some(&key[..listing.prefix.len() + end])
            });
            if let Some(prefix) = folded {
                let told = page.prefixes.last().is_some_and(|told| told == prefix);
                if told || listing.token.as_deref() == Some(prefix) {
                    continue;
                }
            }
            if page.objects.len() + page.prefixes.len() == listing.max {
                page.next = last;
                break;
            }
            if let Some(prefix) = folded {
                page.prefixes.push(prefix.to_owned());
                last = Some(prefix.to_owned());
            } else {
                page.objects.push((key.clone(), Arc::clone(object)));
                last = Some(key.clone());
            }
        }
        Ok(page)
    }

    /// Returns the upload's id.
    pub(crate) async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        headers: Vec<(String, String)>,
    ) -> Result<String, Refusal> {
        self.check_bucket(bucket)?;
        let id = format!("upload-{}", self.number());
        let upload = Upload {
            key: key.to_owned(),
            headers,
            parts: BTreeMap::new(),
        };
        self.inner.lock().await.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Returns the part's ETag.
    pub(crate) async fn put_part(
        &self,
        id: &str,
        number: u32,
        body: Bytes,
    ) -> Result<String, Refusal> {
        let etag = format!("\"{:x}-part\"", self.number());
        let mut inner = self.inner.lock().await;
        let upload = inner.uploads.get_mut(id).ok_or(Refusal::NO_SUCH_UPLOAD)?;
        upload.parts.insert(number, (etag.clone(), body));
        Ok(etag)
    }

    /// Returns the object's ETag.
    pub(crate) async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        parts: &[(u32, String)],
        condition: &Condition,
    ) -> Result<String, Refusal> {
        const INVALID: Refusal = Refusal::new(400, "InvalidPart");
        let (body, headers) = {
            let inner = self.inner.lock().await;
            let upload = inner.uploads.get(id);
            let upload = upload.filter(|upload| upload.key == key);
            let upload = upload.ok_or(Refusal::NO_SUCH_UPLOAD)?;
            if parts.is_empty() || !parts.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(Refusal::new(400, "InvalidPartOrder"));
            }
            let mut body = Vec::new();
            for (at, (number, etag)) in parts.iter().enumerate() {
                let (is, bytes) = upload.parts.get(number).ok_or(INVALID)?;
                if is.trim_matches('"') != etag.trim_matches('"') {
                    return Err(INVALID);
                }
                if bytes.len() < PART_MIN && at + 1 < parts.len() {
                    return Err(Refusal::new(400, "EntityTooSmall"));
                }
                body.extend_from_slice(bytes);
            }
            (body.into(), upload.headers.clone())
        };
        let etag = self.put(bucket, key, body, headers, condition).await?;
        self.inner.lock().await.uploads.remove(id);
        Ok(etag)
    }

    pub(crate) async fn abort_upload(&self, id: &str) -> Result<(), Refusal> {
        let removed = self.inner.lock().await.uploads.remove(id);
        removed.map(|_| ()).ok_or(Refusal::NO_SUCH_UPLOAD)
    }

    /// All keys of a bucket.
    pub(crate) async fn keys(&self, bucket: &str) -> Vec<String> {
        let inner = self.inner.lock().await;
        let objects = inner.objects.get(bucket);
        objects.map_or_else(Vec::new, |objects| objects.keys().cloned().collect())
    }
}

impl Inner {
    fn find(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.objects.get(bucket)?.get(key).cloned()
    }

    fn check(&self, bucket: &str, key: &str, condition: &Condition) -> Result<(), Refusal> {
        match (condition, self.find(bucket, key)) {
            (Condition::Absent, Some(_)) => Err(Refusal::PRECONDITION),
            (Condition::Is(_), None) => Err(Refusal::NO_SUCH_KEY),
            (Condition::Is(etag), Some(object)) if object.meta.etag != *etag => {
                Err(Refusal::PRECONDITION)
            }
            _ => Ok(()),
        }
    }

    fn insert(&mut self, object: Object) -> Option<Arc<Object>> {
        let bucket = self.objects.entry(object.meta.bucket.clone()).or_default();
        bucket.insert(object.meta.key.clone(), Arc::new(object))
    }
}

async fn load(path: PathBuf) -> io::Result<Object> {
    use tokio::io::AsyncReadExt as _;
    let mut file = tokio::fs::File::open(&path).await?;
    let length = file.metadata().await?.len();
    let start = 4 + u64::from(file.read_u32_le().await?);
    let size = length
        .checked_sub(start)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut header = Vec::new();
    file.take(start - 4).read_to_end(&mut header).await?;
    let meta = serde_json::from_slice(&header)?;
    let body = Body::File { path, start };
    Ok(Object { meta, size, body })
}

/// Removes the file of an object that is no more. If that fails the file stays until a later start
/// finds the newer one, or for ever; no answer depends on it.
async fn remove(object: Option<&Object>) {
    if let Some(Object {
        body: Body::File { path, .. },
        ..
    }) = object
    {
        let _ = tokio::fs::remove_file(path).await;
    }
}
