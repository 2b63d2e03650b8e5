//! An object store that throttles, loses answers, and does things late; and who judges what is
//! deleted from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_core::SegmentId;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_metadata::simulated::{Node, Quorum};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use parking_lot::Mutex;

use super::oracle::Oracle;

/// Percentages of requests to which something happens, and times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Turned away.
    pub(super) throttled: u64,
    /// Executed, and the answer lost.
    pub(super) unanswered: u64,
    /// Executed after up to [`Self::delay`], when nobody waits any more.
    pub(super) late: u64,
    pub(super) latency: Duration,
    pub(super) delay: Duration,
}

/// The objects, and what happens to those who ask for them.
pub(super) struct Shared {
    pub(super) quorum: Quorum,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) random: SeededIds,
    pub(super) weather: Mutex<Weather>,
}

/// The store as one process sees it, which may be stopped at any request.
pub(super) struct Bucket {
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

    /// A request arrives, or is turned away; what shall become of it.
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

    fn put(&self, path: &Path, bytes: Bytes) -> Result<PutResult> {
        let mut oracle = self.oracle.lock();
        if oracle.objects.contains_key(path) {
            return Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "412".into(),
            });
        }
        oracle.objects.insert(path.clone(), bytes);
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    fn delete(&self, path: &Path) {
        self.quorum.read(|state| {
            let mut oracle = self.oracle.lock();
            if oracle.objects.remove(path).is_some() {
                let id = SegmentId::from_object_key(path.as_ref()).expect("a segment");
                oracle.deleted(state, id);
            }
        });
    }
}

fn failed(what: &str) -> Error {
    Error::Generic {
        store: "bucket",
        source: what.into(),
    }
}

fn meta(path: &Path, size: usize) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: size as u64,
        e_tag: None,
        version: None,
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(options.mode, PutMode::Create, "contents never change");
        self.node.running().await;
        let bytes = Bytes::from(payload);
        let result = match self.shared.arrive().await? {
            Fate::Done => self.shared.put(path, bytes),
            Fate::Unanswered => {
                drop(self.shared.put(path, bytes));
                Err(failed("connection reset"))
            }
            Fate::Late(delay) => {
                let (shared, path) = (Arc::clone(&self.shared), path.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(shared.put(&path, bytes));
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
        Err(failed("segments are put whole"))
    }

    async fn get_opts(&self, path: &Path, _: GetOptions) -> Result<GetResult> {
        self.node.running().await;
        self.shared.arrive().await?;
        let found = self.shared.oracle.lock().objects.get(path).cloned();
        self.node.running().await;
        let bytes = found.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "404".into(),
        })?;
        Ok(GetResult {
            meta: meta(path, bytes.len()),
            range: 0..bytes.len() as u64,
            attributes: Default::default(),
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            extensions: Default::default(),
        })
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
                let found: BTreeMap<Path, usize> = {
                    let oracle = shared.oracle.lock();
                    let all = oracle.objects.iter();
                    all.filter(|(path, _)| path.prefix_matches(&prefix))
                        .filter(|(path, _)| after.as_ref().is_none_or(|after| *path > after))
                        .take(5)
                        .map(|(path, bytes)| (path.clone(), bytes.len()))
                        .collect()
                };
                node.running().await;
                let last = found.keys().next_back().cloned()?;
                let page = found.iter().map(|(path, size)| Ok(meta(path, *size)));
                Some((page.collect(), Some(last)))
            }
        };
        stream::unfold(Some(None), move |after| {
            let next = after.map(&page);
            async move {
                let (page, last) = next?.await?;
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
