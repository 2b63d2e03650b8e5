//! The store as the processes of a simulation see it: it throttles, loses answers, and does things
//! late, and a process may be stopped at any request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_metadata::simulated::{self, Node};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What is in the store, and who judges what happens to it. All of it happens at once.
pub(crate) trait Objects: Send + Sync + 'static {
    fn put(&self, path: &Path, payload: PutPayload, how: &PutOptions) -> Result<PutResult>;
    fn get(&self, path: &Path, how: GetOptions) -> Result<GetResult>;
    fn delete(&self, path: &Path);
    /// The first ones below `prefix`, in order, that come after `after`. None: there are no more.
    fn page(&self, prefix: &Path, after: Option<&Path>) -> Vec<ObjectMeta>;
}

/// Percentages of requests to which something happens, and times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Turned away.
    pub(crate) throttled: u64,
    /// Executed, and the answer lost.
    pub(crate) unanswered: u64,
    /// Executed after up to [`Self::delay`], when nobody waits any more.
    pub(crate) late: u64,
    pub(crate) latency: Duration,
    pub(crate) delay: Duration,
}

/// What all processes share.
pub(crate) struct Shared<O> {
    pub(crate) objects: O,
    random: SeededIds,
    pub(crate) weather: Mutex<Weather>,
}

/// The store of one process.
pub(crate) struct Bucket<O> {
    pub(crate) shared: Arc<Shared<O>>,
    pub(crate) node: Arc<Node>,
}

/// What becomes of a request.
enum Fate {
    Done,
    Unanswered,
    Late(Duration),
}

pub(crate) fn failed(what: &str) -> Error {
    Error::Generic {
        store: "bucket",
        source: what.into(),
    }
}

/// Bad weather on the way to the voters; `below` draws a number.
pub(crate) fn storm(below: impl Fn(u64) -> u64) -> simulated::Weather {
    simulated::Weather {
        refused: below(15),
        lost: below(8),
        unanswered: below(15),
        late: below(8),
        repeated: below(15),
        elections: below(5),
        latency: Duration::from_millis(below(50)),
        lag: Duration::from_millis(below(3_000)),
        delay: Duration::from_secs(below(60)),
        skew: Duration::from_millis(below(2_000)),
    }
}

impl<O: Objects> Shared<O> {
    pub(crate) fn new(objects: O, random: SeededIds) -> Self {
        Self {
            objects,
            random,
            weather: Mutex::default(),
        }
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.random.random() % 100 < percent
    }

    fn up_to(&self, most: Duration) -> Duration {
        Duration::from_micros(self.random.random() % (most.as_micros() as u64 + 1))
    }

    /// A request arrives, or is turned away.
    async fn arrive(&self) -> Result<Fate> {
        let weather = *self.weather.lock();
        tokio::time::sleep(self.up_to(weather.latency)).await;
        if self.chance(weather.throttled) {
            return Err(failed("503 slow down"));
        }
        Ok(if self.chance(weather.late) {
            Fate::Late(self.up_to(weather.delay))
        } else if self.chance(weather.unanswered) {
            Fate::Unanswered
        } else {
            Fate::Done
        })
    }

    /// A request that changes something.
    async fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&O) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.arrive().await? {
            Fate::Done => change(&self.objects),
            Fate::Unanswered => {
                drop(change(&self.objects));
                Err(failed("connection reset"))
            }
            Fate::Late(delay) => {
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(change(&shared.objects));
                });
                Err(failed("timeout"))
            }
        }
    }
}

impl<O> fmt::Debug for Bucket<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

impl<O> fmt::Display for Bucket<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

#[async_trait]
impl<O: Objects> ObjectStore for Bucket<O> {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        how: PutOptions,
    ) -> Result<PutResult> {
        self.node.running().await;
        let to = path.clone();
        let put = move |objects: &O| objects.put(&to, payload, &how);
        let result = self.shared.change(put).await;
        self.node.running().await;
        result
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("objects are put whole"))
    }

    async fn get_opts(&self, path: &Path, how: GetOptions) -> Result<GetResult> {
        self.node.running().await;
        self.shared.arrive().await?;
        let found = self.shared.objects.get(path, how);
        self.node.running().await;
        found
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(&self.node));
        paths
            .then(move |path| {
                let (shared, node) = (Arc::clone(&shared), Arc::clone(&node));
                async move {
                    let path = path?;
                    node.running().await;
                    let gone = path.clone();
                    let delete = move |objects: &O| {
                        objects.delete(&gone);
                        Ok(gone)
                    };
                    let result = shared.change(delete).await;
                    node.running().await;
                    result
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(&self.node));
        // Page by page, each as old as it may be when it is looked at.
        let page = move |after: Option<Path>| {
            let (shared, node) = (Arc::clone(&shared), Arc::clone(&node));
            let prefix = prefix.clone();
            async move {
                node.running().await;
                if let Err(error) = shared.arrive().await {
                    return Some((vec![Err(error)], None));
                }
                let found = shared.objects.page(&prefix, after.as_ref());
                node.running().await;
                let last = found.last()?.location.clone();
                Some((found.into_iter().map(Ok).collect(), Some(last)))
            }
        };
        stream::unfold(Some(None), move |after| {
            let next = after.map(&page);
            async move {
                let (page, last): (Vec<_>, _) = next?.await?;
                // After an error there is nothing more.
                Some((stream::iter(page), last.map(Some)))
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failed("nobody lists folders"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed("nobody copies"))
    }
}
