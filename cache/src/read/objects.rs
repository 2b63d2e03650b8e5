//! GETs: so many at a time, again after a failure, and a second one for one that takes long.
//!
//! Readers that are far behind have places of their own, so that however many there are, the others
//! find one.

use std::fmt;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::cold::TableObject;
use frazil_core::{SegmentId, TopicId};
use frazil_objects::{Failure, Retries};
use futures_util::TryStreamExt as _;
use futures_util::future::select_ok;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Class;
use super::hedge::Hedge;
use crate::ReadError;
use crate::config::Config;
use crate::metrics::Metrics;

/// After this time a request is taken for lost. Half of what a read may take, so that one that is
/// lost does not fail the read.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// For so long an object that the index names is looked for. Stores have answered 404 for what
/// was there.
const MISSING_PATIENCE: Duration = Duration::from_secs(2);
/// No second request goes out before this time, and at the latest after that.
const HEDGE_FLOOR: Duration = Duration::from_millis(20);
const HEDGE_CAP: Duration = Duration::from_secs(1);

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Object {
    /// A segment.
    Segment(SegmentId),
    /// An object of a topic's table.
    Table(TopicId, TableObject),
}

impl Object {
    fn path(self, prefix: &Path) -> Path {
        let key = match self {
            Self::Segment(id) => id.object_key(),
            Self::Table(topic, object) => object.key(topic),
        };
        let own = key.split('/').map(Into::into);
        Path::from_iter(prefix.parts().chain(own))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "segment {id}"),
            Self::Table(topic, object) => f.write_str(&object.key(*topic)),
        }
    }
}

/// See the module.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Requests at a time of readers that are near the end, and of the others.
    near: Semaphore,
    far: Semaphore,
    timeout: Duration,
    retries: Retries,
    /// `None`: the store is in this machine, where nothing is gained by asking twice.
    hedge: Option<Mutex<Hedge>>,
    metrics: Metrics,
}

impl Objects {
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        retries: Retries,
        metrics: Metrics,
    ) -> Self {
        let hedge = Hedge::new(HEDGE_FLOOR, HEDGE_CAP);
        Self {
            store,
            prefix,
            near: Semaphore::new(config.cold_reads_max),
            far: Semaphore::new((config.cold_reads_max / 2).max(1)),
            timeout: config.read_timeout,
            retries,
            hedge: (!config.local_store).then(|| Mutex::new(hedge)),
            metrics,
        }
    }

    /// Reads a range of an object, cut at the object's end.
    pub(crate) async fn fetch(
        &self,
        object: Object,
        range: Range<u64>,
        class: Class,
    ) -> Result<Bytes, ReadError> {
        let pieces = self.fetch_pieces(object, range, class).await?;
        Ok(join(pieces))
    }

    /// The same in the pieces in which it came.
    pub(crate) async fn fetch_pieces(
        &self,
        object: Object,
        range: Range<u64>,
        class: Class,
    ) -> Result<Vec<Bytes>, ReadError> {
        let places = match class {
            Class::Near => &self.near,
            Class::Far => &self.far,
        };
        let _place = places.acquire().await;
        let path = object.path(&self.prefix);
        let cold = matches!(object, Object::Table(..));
        let deadline = Instant::now() + self.timeout;
        let missing = (Instant::now() + MISSING_PATIENCE).min(deadline);
        let mut attempts = self.retries.begin();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, self.hedged(&path, &range, cold));
            let error = match attempt.await {
                Ok(Ok(pieces)) => {
                    attempts.done();
                    return Ok(pieces);
                }
                Ok(Err(error)) => error,
                Err(elapsed) => object_store::Error::Generic {
                    store: "frazil",
                    source: elapsed.into(),
                },
            };
            self.metrics.get_failures.inc();
            let is_missing = Failure::of(&error) == Failure::NotFound;
            let until = if is_missing { missing } else { deadline };
            if attempts.again_before(&error, until).await {
                continue;
            }
            return Err(if is_missing {
                ReadError::NotFound {
                    what: object.to_string(),
                }
            } else {
                ReadError::Store(error.to_string())
            });
        }
    }

    /// One request, or two: what comes first.
    async fn hedged(
        &self,
        path: &Path,
        range: &Range<u64>,
        cold: bool,
    ) -> object_store::Result<Vec<Bytes>> {
        let mut first = pin!(self.get(path, range, cold));
        let Some(hedge) = &self.hedge else {
            return first.await;
        };
        let delay = hedge.lock().begin();
        if let Ok(result) = tokio::time::timeout(delay, &mut first).await {
            return result;
        }
        if !hedge.lock().spend() {
            return first.await;
        }
        self.metrics.gets_hedged.inc();
        let second = pin!(self.get(path, range, cold));
        let (pieces, _) = select_ok([first, second]).await?;
        Ok(pieces)
    }

    async fn get(
        &self,
        path: &Path,
        range: &Range<u64>,
        cold: bool,
    ) -> object_store::Result<Vec<Bytes>> {
        self.metrics.gets.inc();
        if cold {
            self.metrics.cold_gets.inc();
        }
        let began = Instant::now();
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(path, options).await?;
        // The store must say that it sends what was asked for, and send what it says.
        let expected = range.start..range.end.min(result.meta.size);
        let got = result.range.clone();
        let pieces: Vec<Bytes> = match result.payload {
            GetResultPayload::Stream(pieces) => pieces.try_collect().await?,
            // In one go; as a stream it would come in very small ones.
            GetResultPayload::File(..) => vec![result.bytes().await?],
        };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if got != expected || length as u64 != expected.end - expected.start {
            return Err(object_store::Error::Generic {
                store: "frazil",
                source: format!(
                    "asked for bytes {range:?} of {path}, got {length} bytes of {got:?}"
                )
                .into(),
            });
        }
        self.metrics.get_bytes.inc_by(length as u64);
        if cold {
            self.metrics.cold_get_bytes.inc_by(length as u64);
        }
        if let Some(hedge) = &self.hedge {
            hedge.lock().record(began.elapsed());
        }
        Ok(pieces)
    }
}

/// All pieces as one.
pub(crate) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}
