//! An object store that all hosts share, and that misbehaves as it is told.
//!
//! It is one thing outside of all hosts: a request that has reached it is done, whatever becomes of
//! the host. A PUT may be done although its answer is an error, or done later, when whoever asked
//! has given up, has tried again, or is gone.
//!
//! Or it is a directory on the disk of the gateways' logs ([`World::in_place`]): a segment grows under its
//! name, and counts when it has been synced. A host that goes down before leaves a part of it; of what
//! is written, and whose sync failed, everything can be read and nothing is kept: when the host that wrote
//! it goes down, all, a part or nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_core::SegmentId;
use frazil_history::Rng;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::trace;

/// Percentages of requests to which something happens, and their times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The request is turned away (503).
    pub throttled: u64,
    /// A PUT or DELETE is done, and its answer lost.
    pub unanswered: u64,
    /// A PUT is answered with an error, and done later.
    pub late: u64,
    /// A GET ends too early.
    pub truncated: u64,
    /// A request takes up to so many milliseconds.
    pub latency_ms: u64,
    /// Nothing is answered at all.
    pub outage: bool,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    objects: InMemory,
    state: Mutex<State>,
    watch: Mutex<Option<Watch>>,
}

/// Is told which object is about to be deleted, and says if that must not be.
pub type Watch = Box<dyn Fn(&Path) -> Option<String> + Send + Sync>;

struct State {
    rng: Rng,
    weather: Weather,
    /// Hosts that cannot reach it.
    cut_off: BTreeSet<String>,
    late: Vec<(u64, Path, PutPayload, PutOptions)>,
    broken: Vec<String>,
    /// Whether it is a directory.
    in_place: bool,
    /// Segments that are not durable, and whose host wrote them.
    unsynced: BTreeMap<Path, String>,
}

/// How often a request that gets no answer looks whether it does now.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a disk is busy that is.
const STALL: Duration = Duration::from_millis(400);

impl World {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            objects: InMemory::new(),
            state: Mutex::new(State {
                rng: Rng::new(seed),
                weather: Weather::default(),
                cut_off: BTreeSet::new(),
                late: Vec::new(),
                broken: Vec::new(),
                in_place: false,
                unsynced: BTreeMap::new(),
            }),
            watch: Mutex::new(None),
        }))
    }

    /// It is a directory from now on.
    pub fn in_place(&self) {
        self.0.state.lock().in_place = true;
    }

    /// A host has gone down, and with it what it had not synced.
    pub fn crash(&self, host: &str) {
        let mut lost = Vec::new();
        {
            let mut state = self.0.state.lock();
            let unsynced = std::mem::take(&mut state.unsynced);
            for (path, by) in unsynced {
                if by == host {
                    lost.push((path, state.rng.below(4)));
                } else {
                    state.unsynced.insert(path, by);
                }
            }
        }
        for (path, left) in lost {
            let Some(bytes) = self.object(&path) else {
                continue;
            };
            // Its length may have come to the disk, and its bytes not.
            let bytes = match left {
                0 => None,
                1 => Some(bytes.slice(..bytes.len() / 2)),
                2 => Some(vec![0; bytes.len()].into()),
                _ => Some(bytes),
            };
            trace::note(format_args!(
                "store {path} is left with {:?} bytes",
                bytes.as_ref().map(Bytes::len)
            ));
            match bytes {
                Some(bytes) => self.write(&path, bytes),
                None => {
                    let gone = self.0.objects.delete(&path).now_or_never();
                    gone.expect("memory does not wait").expect("memory deletes");
                }
            }
        }
    }

    fn write(&self, path: &Path, bytes: Bytes) {
        let put = self.0.objects.put(path, bytes.into()).now_or_never();
        put.expect("memory does not wait").expect("memory puts");
    }

    /// How it behaves from now on.
    pub fn set(&self, weather: Weather) {
        self.0.state.lock().weather = weather;
    }

    /// Whether a host reaches it.
    pub fn cut_off(&self, host: &str, is: bool) {
        let mut state = self.0.state.lock();
        if is {
            state.cut_off.insert(host.to_owned());
        } else {
            state.cut_off.remove(host);
        }
    }

    /// Who watches what is deleted.
    pub fn watch(&self, watch: Watch) {
        *self.0.watch.lock() = Some(watch);
    }

    /// What should not have been deleted.
    pub fn broken(&self) -> Vec<String> {
        self.0.state.lock().broken.clone()
    }

    /// Does the late PUTs that are due; all of them with `u64::MAX`.
    pub fn settle(&self, now_ms: u64) {
        let due: Vec<_> = {
            let mut state = self.0.state.lock();
            if state.late.is_empty() {
                return;
            }
            let (due, later) = std::mem::take(&mut state.late)
                .into_iter()
                .partition(|(at, ..)| *at <= now_ms);
            state.late = later;
            due
        };
        for (_, path, payload, options) in due {
            let put = self.0.objects.put_opts(&path, payload, options);
            let done = put.now_or_never().expect("memory does not wait");
            trace::note(format_args!("store late put {path} {}", done.is_ok()));
        }
    }

    /// Every object with its bytes.
    pub fn objects(&self) -> Vec<(Path, Bytes)> {
        let all = self
            .0
            .objects
            .list(None)
            .map(|found| found.expect("memory lists"));
        let all: Vec<ObjectMeta> = all.collect().now_or_never().expect("memory does not wait");
        let read = |meta: ObjectMeta| {
            let bytes = async {
                let found = self.0.objects.get(&meta.location).await?;
                found.bytes().await
            };
            let bytes = bytes.now_or_never().expect("memory does not wait");
            (meta.location.clone(), bytes.expect("a listed object"))
        };
        all.into_iter().map(read).collect()
    }

    /// An object's bytes.
    pub fn object(&self, path: &Path) -> Option<Bytes> {
        let read = async { self.0.objects.get(path).await?.bytes().await };
        read.now_or_never().expect("memory does not wait").ok()
    }

    /// The store as a host sees it.
    pub fn of(&self, host: &str) -> SimStore {
        SimStore {
            host: host.to_owned(),
            world: self.clone(),
        }
    }
}

/// One host's client of the store.
pub struct SimStore {
    host: String,
    world: World,
}

impl SimStore {
    fn inner(&self) -> &Inner {
        &self.world.0
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.inner().state.lock().rng.chance(percent)
    }

    fn latency(&self) -> Duration {
        let mut state = self.inner().state.lock();
        let max = state.weather.latency_ms;
        Duration::from_millis(1 + state.rng.below(max + 1))
    }

    /// A request is on its way to the store.
    async fn arrive(&self, what: &str, path: &Path) -> Result<Weather> {
        tokio::time::sleep(self.latency()).await;
        loop {
            let weather = {
                let state = self.inner().state.lock();
                let silent = state.weather.outage || state.cut_off.contains(&self.host);
                (!silent).then_some(state.weather)
            };
            if let Some(weather) = weather {
                if self.chance(weather.throttled) {
                    trace::note(format_args!("store {what} {path} 503"));
                    return Err(failed(path, "503 slow down"));
                }
                return Ok(weather);
            }
            // Whoever asked gives up by its own clock.
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl SimStore {
    /// Writes a segment under its name, a part before the rest.
    async fn grow(&self, path: &Path, payload: PutPayload) -> Result<PutResult> {
        let whole = Bytes::from(payload);
        let (part, fails) = {
            let mut state = self.inner().state.lock();
            let throttled = state.weather.throttled;
            let part = state.rng.below(whole.len() as u64 + 1) as usize;
            (part, throttled > 0 && state.rng.chance(throttled))
        };
        let objects = &self.inner().objects;
        let create = PutOptions::from(PutMode::Create);
        let part = PutPayload::from(whole.slice(..part));
        let created = objects.put_opts(path, part, create).await?;
        {
            let mut state = self.inner().state.lock();
            state.unsynced.insert(path.clone(), self.host.clone());
        }
        trace::note(format_args!("store put {path} has begun"));
        tokio::time::sleep(self.latency()).await;
        if self.chance(10) {
            // The disk has much else to do; a host may go down meanwhile.
            tokio::time::sleep(STALL).await;
        }
        if fails {
            self.inner().state.lock().unsynced.remove(path);
            objects.delete(path).await?;
            trace::note(format_args!("store put {path} failed"));
            return Err(failed(path, "no space left on device"));
        }
        self.world.write(path, whole);
        // The sync.
        tokio::time::sleep(self.latency()).await;
        Ok(created)
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::Generic {
        store: "simulated",
        source: format!("{path}: {what}").into(),
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.host)
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let weather = self.arrive("put", path).await?;
        if self.chance(weather.late) {
            let mut state = self.inner().state.lock();
            let at = trace::now_ms() + 50 + state.rng.below(4000);
            state.late.push((at, path.clone(), payload, options));
            trace::note(format_args!("store put {path} will be done at {at}"));
            return Err(failed(path, "500 internal error"));
        }
        let bytes = payload.content_length();
        let segment = SegmentId::from_object_key(path.as_ref()).is_some();
        let in_place = segment && self.inner().state.lock().in_place;
        let result = match options.mode {
            PutMode::Create if in_place => self.grow(path, payload).await,
            _ => self.inner().objects.put_opts(path, payload, options).await,
        };
        let lost = self.chance(weather.unanswered);
        let is_new = result.is_ok();
        if in_place && is_new {
            let mut state = self.inner().state.lock();
            // The file was written anew, but not its directory if the answer is an error.
            if lost {
                state.unsynced.insert(path.clone(), self.host.clone());
            } else {
                state.unsynced.remove(path);
            }
        }
        trace::note(format_args!(
            "store put {path} {bytes} new={is_new} lost={lost}"
        ));
        tokio::time::sleep(self.latency()).await;
        if lost {
            return Err(failed(path, "connection reset"));
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failed(path, "no multipart uploads here"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let weather = self.arrive("get", path).await?;
        let result = self.inner().objects.get_opts(path, options).await;
        let found = result.is_ok();
        trace::note(format_args!("store get {path} found={found} head={head}"));
        let mut result = result?;
        if !head && result.range.end > result.range.start && self.chance(weather.truncated) {
            let (start, end) = (result.range.start, result.range.end - 1);
            let whole = self.inner().objects.get(path).await?.bytes().await?;
            let part = whole.slice(start as usize..end as usize);
            let stream = futures_util::stream::once(async move { Ok(part) }).boxed();
            result.payload = GetResultPayload::Stream(stream);
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.world.of(&self.host);
        locations
            .then(move |location| {
                let store = store.world.of(&store.host);
                async move {
                    let path = location?;
                    let weather = store.arrive("delete", &path).await?;
                    if let Some(watch) = &*store.inner().watch.lock()
                        && let Some(broken) = watch(&path)
                    {
                        store.inner().state.lock().broken.push(broken);
                    }
                    let deleted = store.inner().objects.delete(&path).await;
                    let lost = store.chance(weather.unanswered);
                    trace::note(format_args!("store delete {path} lost={lost}"));
                    if lost {
                        return Err(failed(&path, "connection reset"));
                    }
                    deleted.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.world.of(&self.host);
        let prefix = prefix.cloned();
        let listed = async move {
            let at = prefix.clone().unwrap_or_default();
            if let Err(error) = store.arrive("list", &at).await {
                return futures_util::stream::iter(vec![Err(error)]);
            }
            let found: Vec<_> = store.inner().objects.list(prefix.as_ref()).collect().await;
            trace::note(format_args!("store list {at} {}", found.len()));
            futures_util::stream::iter(found)
        };
        listed.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        self.arrive("list", &at).await?;
        self.inner().objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed(from, "no copies here"))
    }
}
