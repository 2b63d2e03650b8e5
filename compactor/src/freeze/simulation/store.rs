//! The bucket as one process sees it: it throttles, loses answers, does things late, and the process
//! may be stopped at any request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_metadata::simulated::{Node, Quorum};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::oracle::Oracle;

/// Percentages of requests to which something happens, and times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) throttled: u64,
    pub(super) unanswered: u64,
    pub(super) late: u64,
    pub(super) latency: Duration,
    pub(super) delay: Duration,
}

/// What all processes share.
pub(super) struct Shared {
    pub(super) objects: Arc<InMemory>,
    pub(super) quorum: Quorum,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) random: SeededIds,
    pub(super) weather: Mutex<Weather>,
}

/// The store of one process.
pub(super) struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
}

enum Fate {
    Done,
    Unanswered,
    Late(Duration),
}

impl Shared {
    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.random.random() % 100 < percent
    }

    fn up_to(&self, most: Duration) -> Duration {
        Duration::from_micros(self.random.random() % (most.as_micros() as u64 + 1))
    }

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

    fn put(&self, path: &Path, payload: PutPayload) -> PutResult {
        if let Some(there) = get(&self.objects, path) {
            let again: Vec<u8> = payload.iter().flatten().copied().collect();
            assert!(
                there == again,
                "{path} is written again, with other content"
            );
        }
        let put = self.objects.put(path, payload).now_or_never();
        put.expect("in memory").expect("in memory")
    }

    fn delete(&self, path: &Path) {
        if get(&self.objects, path).is_some() {
            self.quorum
                .read(|state| self.oracle.lock().deleted(state, path));
            let deleted = self.objects.delete(path).now_or_never();
            deleted.expect("in memory").expect("it is there");
        }
    }
}

/// An object's bytes.
pub(super) fn get(objects: &InMemory, path: &Path) -> Option<bytes::Bytes> {
    let found = objects.get(path).now_or_never().expect("in memory").ok()?;
    found.bytes().now_or_never().expect("in memory").ok()
}

fn failed(what: &str) -> Error {
    Error::Generic {
        store: "bucket",
        source: what.into(),
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.node.running().await;
        let result = match self.shared.arrive().await? {
            Fate::Done => Ok(self.shared.put(path, payload)),
            Fate::Unanswered => {
                self.shared.put(path, payload);
                Err(failed("connection reset"))
            }
            Fate::Late(delay) => {
                let (shared, path) = (Arc::clone(&self.shared), path.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    shared.put(&path, payload);
                });
                Err(failed("timeout"))
            }
        };
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

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.node.running().await;
        self.shared.arrive().await?;
        let found = self.shared.objects.get_opts(path, options).await;
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
                    let result = match shared.arrive().await? {
                        Fate::Done => {
                            shared.delete(&path);
                            Ok(path)
                        }
                        Fate::Unanswered => {
                            shared.delete(&path);
                            Err(failed("connection reset"))
                        }
                        Fate::Late(delay) => {
                            let shared = Arc::clone(&shared);
                            tokio::spawn(async move {
                                tokio::time::sleep(delay).await;
                                shared.delete(&path);
                            });
                            Err(failed("timeout"))
                        }
                    };
                    node.running().await;
                    result
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(&self.node));
        let prefix = prefix.cloned();
        let listed = async move {
            node.running().await;
            if let Err(error) = shared.arrive().await {
                return stream::iter(vec![Err(error)]);
            }
            let found = shared.objects.list(prefix.as_ref()).collect().await;
            node.running().await;
            stream::iter::<Vec<Result<ObjectMeta>>>(found)
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failed("nobody lists folders"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed("nobody copies"))
    }
}
