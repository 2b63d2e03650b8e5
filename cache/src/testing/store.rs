//! An object store in memory that is slow, throttles, and loses answers.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// Percentages of requests to which something happens, and their times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The request is turned away.
    pub(crate) throttled: u64,
    /// A PUT is executed, and its answer lost.
    pub(crate) unanswered: u64,
    /// A PUT fails, and is executed up to ten seconds later.
    pub(crate) late: u64,
    /// A PUT is executed, and answered as if another one had been there before or is under way.
    pub(crate) contradicted: u64,
    /// A PUT is not executed, because another one is said to be under way.
    pub(crate) contended: u64,
    /// A GET ends too early.
    pub(crate) truncated: u64,
    /// A GET has a wrong bit.
    pub(crate) flipped: u64,
    /// A GET does not find what is there.
    pub(crate) missed: u64,
    /// No percentage: of so many GETs one is not answered for a minute; 0: none.
    pub(crate) stuck: u64,
    /// A request takes up to so long.
    pub(crate) latency: Duration,
}

impl Weather {
    /// Nothing happens.
    pub(crate) const FAIR: Self = Self {
        throttled: 0,
        unanswered: 0,
        late: 0,
        contradicted: 0,
        contended: 0,
        truncated: 0,
        flipped: 0,
        missed: 0,
        stuck: 0,
        latency: Duration::ZERO,
    };
}

impl Default for Weather {
    fn default() -> Self {
        Self::FAIR
    }
}

pub(crate) struct FaultyStore {
    pub(crate) objects: Arc<InMemory>,
    ids: SeededIds,
    weather: Mutex<Weather>,
    gets: AtomicU64,
}

impl FaultyStore {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            objects: Arc::new(InMemory::new()),
            ids: SeededIds::new(seed),
            weather: Mutex::default(),
            gets: AtomicU64::new(0),
        }
    }

    /// How many GETs there were, of all gateways.
    pub(crate) fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    async fn arrive(&self, path: &Path) -> Result<Weather> {
        let weather = *self.weather.lock();
        let latency = weather.latency.as_micros() as u64 + 1;
        tokio::time::sleep(Duration::from_micros(self.ids.random() % latency)).await;
        if self.chance(weather.throttled) {
            return Err(failed(path, "503 slow down"));
        }
        Ok(weather)
    }

    fn chance(&self, percent: u64) -> bool {
        self.ids.random() % 100 < percent
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::Generic {
        store: "faulty",
        source: format!("{path}: {what}").into(),
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let weather = self.arrive(path).await?;
        let conflict = |what: &str| Error::AlreadyExists {
            path: path.to_string(),
            source: what.into(),
        };
        if self.chance(weather.contended) {
            return Err(conflict("409 ConditionalRequestConflict"));
        }
        if self.chance(weather.late) {
            let after = Duration::from_millis(self.ids.random() % 10_000);
            let (objects, path) = (Arc::clone(&self.objects), path.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                // Nobody hears of it any more.
                drop(objects.put_opts(&path, payload, options).await);
            });
            return Err(failed(&Path::default(), "timed out"));
        }
        let result = self.objects.put_opts(path, payload, options).await;
        if self.chance(weather.unanswered) {
            return Err(failed(path, "connection reset"));
        }
        if self.chance(weather.contradicted) {
            return Err(match self.chance(50) {
                true => conflict("409 ConditionalRequestConflict"),
                false => Error::Precondition {
                    path: path.to_string(),
                    source: "412 PreconditionFailed".into(),
                },
            });
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let mut number = 0;
        let weather = if head {
            Weather::default()
        } else {
            number = self.gets.fetch_add(1, Ordering::Relaxed) + 1;
            self.arrive(path).await?
        };
        if self.chance(weather.missed) {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "404 NoSuchKey".into(),
            });
        }
        if number > 0 && weather.stuck > 0 && number.is_multiple_of(weather.stuck) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let mut result = self.objects.get_opts(path, options).await?;
        let truncated = !head && self.chance(weather.truncated);
        let flipped = !head && self.chance(weather.flipped);
        if (truncated || flipped) && !result.range.is_empty() {
            let range: Range<u64> = result.range.clone();
            let bytes = self.objects.get_opts(path, GetOptions::default()).await?;
            let bytes: Bytes = bytes.bytes().await?;
            let mut part = bytes[range.start as usize..range.end as usize].to_vec();
            if flipped {
                let at = self.ids.random() as usize % part.len();
                part[at] ^= 1 << (self.ids.random() % 8);
            }
            if truncated {
                part.pop();
            }
            let stream = futures_util::stream::once(async move { Ok(part.into()) }).boxed();
            result.payload = GetResultPayload::Stream(stream);
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
