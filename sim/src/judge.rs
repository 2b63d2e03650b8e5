//! Whether what was promised was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::ports::{ClaimStatus, SegmentStatus};
use frazil_core::{SegmentId, TopicId};
use frazil_history::{Event, History, Op, check, cold_reads};
use object_store::path::Path;
use parking_lot::Mutex;

use crate::node::{CHORES, GRACE, Shared};
use crate::run::Options;
use crate::tables::{Memory, Objects, roots};
use crate::{entropy, trace};

/// What came of a seed.
pub struct Verdict {
    /// What was broken; empty: nothing.
    pub broken: Vec<String>,
    /// Events of the history.
    pub events: usize,
    /// Batches that were acknowledged.
    pub acknowledged: usize,
    /// Reads that were answered with cold offsets, and with cold ones and others.
    pub cold: (usize, usize),
    /// Snapshots of tables, each partition counted, that were read.
    pub scans: usize,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// The same seed must give the same.
    pub digest: u64,
}

/// No object may be deleted that the newest state refers to, or has not long ceased to.
pub fn watch_deletions(shared: &Arc<Shared>) {
    let watching = Arc::downgrade(shared);
    shared.store.watch(Box::new(move |path: &Path| {
        let shared = watching.upgrade()?;
        if let Some((topic, object)) = table_object(path) {
            let may = may_go(&shared, topic, object);
            return may
                .err()
                .map(|why| format!("I34: {path} is deleted, and {why}"));
        }
        let id = SegmentId::from_object_key(path.as_ref())?;
        let image = shared.newest()?;
        let (status, waited) = image.read(|state| {
            let retired = state.retired_segments(usize::MAX);
            let since = retired.iter().find(|(known, _)| *known == id);
            (state.segment(id), since.map(|(_, at)| state.now_ms() - at))
        });
        let grace = GRACE.as_millis() as i64;
        let may = match status {
            SegmentStatus::Live | SegmentStatus::Pending => false,
            SegmentStatus::Retired => waited.is_some_and(|waited| waited >= grace),
            SegmentStatus::Orphan => true,
        };
        (!may).then(|| format!("I34: {path} is deleted while it is {status:?}, {waited:?} ms"))
    }));
}

/// The object of a table at a path of the store.
fn table_object(path: &Path) -> Option<(TopicId, TableObject)> {
    let (_, key) = path.as_ref().split_once('/')?;
    TableObject::parse(key)
}

/// What a topic's readers may read, as long as roots and pointer are these.
type Reach = (Vec<ObjectId>, BTreeSet<TableObject>);

/// What is known of the objects of tables.
#[derive(Default)]
pub struct Needed {
    reach: Mutex<BTreeMap<TopicId, Reach>>,
    memory: Mutex<Memory>,
    /// What a reader could meet at some time.
    named: Mutex<BTreeSet<(TopicId, TableObject)>>,
    /// When objects were first seen to be retired, of topics that have been deleted since too.
    retired: Mutex<BTreeMap<(TopicId, TableObject), u64>>,
    /// When topics were first seen to be dead.
    dead: Mutex<BTreeMap<TopicId, u64>>,
}

/// How late it may be seen that an object is retired.
const LATE_MS: u64 = 200;

/// Remembers what is retired, and what is named, by now: a topic that is deleted takes both along.
pub fn remember_retired(shared: &Shared) {
    if let Some(image) = shared.newest() {
        let topics: Vec<TopicId> =
            image.read(|state| state.topics().iter().map(|topic| topic.id).collect());
        for topic in topics {
            // What cannot be read is told when something is deleted, and at the end.
            let _ = shared.needed.reach_of(shared, topic);
        }
        let (retired, dead) =
            image.read(|state| (state.retired_objects(usize::MAX), state.dead_tables()));
        for (topic, _) in dead {
            let mut known = shared.needed.dead.lock();
            known.entry(topic).or_insert_with(trace::now_ms);
        }
        let retired = retired.into_iter();
        let mut known = shared.needed.retired.lock();
        for (topic, object, _) in retired {
            known.entry((topic, object)).or_insert_with(trace::now_ms);
        }
    }
}

impl Needed {
    /// Whether a reader of either kind can meet the object.
    fn names(&self, shared: &Shared, topic: TopicId, object: TableObject) -> Result<bool, String> {
        self.reach_of(shared, topic)?;
        let known = self.reach.lock();
        Ok(known
            .get(&topic)
            .is_some_and(|(_, reach)| reach.contains(&object)))
    }

    /// Looks at what readers can meet, if it is not known.
    fn reach_of(&self, shared: &Shared, topic: TopicId) -> Result<(), String> {
        let Some(image) = shared.newest() else {
            return Err("nobody has a state".to_owned());
        };
        let (cluster, roots, pointer) = image.read(|state| {
            let pointer = state.table(topic).and_then(|table| table.pointer);
            let cluster = state.cluster_id().unwrap_or_default().to_owned();
            (cluster, roots(state, topic), pointer)
        });
        let ids = roots.iter().map(|(_, root)| root.id);
        let ids: Vec<_> = ids.chain(pointer.map(|pointer| pointer.metadata)).collect();
        let mut known = self.reach.lock();
        if known.get(&topic).is_some_and(|(of, _)| *of == ids) {
            return Ok(());
        }
        let objects = Objects::new(&shared.store, &cluster, topic);
        let reach = objects.reachable(&roots, pointer, &mut self.memory.lock())?;
        let named = reach.iter().map(|object| (topic, *object));
        self.named.lock().extend(named);
        known.insert(topic, (ids, reach));
        Ok(())
    }

    /// Whether a reader could ever meet the object, as far as it was seen.
    fn has_named(&self, topic: TopicId, object: TableObject) -> bool {
        self.named.lock().contains(&(topic, object))
            || self.retired.lock().contains_key(&(topic, object))
    }
}

/// Whether an object of a table may be deleted by now, or why not.
fn may_go(shared: &Shared, topic: TopicId, object: TableObject) -> Result<(), String> {
    let grace = GRACE.as_millis() as i64;
    let waited = waited(shared, topic, object);
    // What a job left behind that was refused has no reader who would have to be waited for.
    let is_orphan = !shared.needed.has_named(topic, object) && is_past(shared, topic, object);
    if waited.is_some_and(|waited| waited < grace) && !is_orphan {
        return Err(format!("has waited {waited:?} ms"));
    }
    if waited.is_none() && !is_past(shared, topic, object) {
        return Err("its claim is the newest".to_owned());
    }
    match shared.needed.names(shared, topic, object)? {
        true => Err("somebody may read it".to_owned()),
        false => Ok(()),
    }
}

/// How long an object has been retired, or its topic dead.
fn waited(shared: &Shared, topic: TopicId, object: TableObject) -> Option<i64> {
    shared.newest()?.read(|state| {
        let dead = state.dead_tables().into_iter();
        let dead = dead.filter(|(id, _)| *id == topic).map(|(_, since)| since);
        let retired = state.retired_objects(usize::MAX).into_iter();
        let retired = retired.filter(|(id, known, _)| (*id, *known) == (topic, object));
        let since = dead.chain(retired.map(|(_, _, since)| since)).next()?;
        let waited = state.now_ms() - since;
        // A compactor may go by its own clock; and who has seen it on the list need not have heard
        // that the topic has been deleted since.
        let seen = shared.needed.retired.lock().get(&(topic, object)).copied();
        let died = shared.needed.dead.lock().get(&topic).copied();
        let seen = seen.into_iter().chain(died).min();
        let seen = seen.map(|seen| (trace::now_ms() - seen + LATE_MS) as i64);
        Some(seen.map_or(waited, |seen| seen.max(waited)))
    })
}

/// Whether nothing that was written with the object can be named any more, unless it is already.
fn is_past(shared: &Shared, topic: TopicId, object: TableObject) -> bool {
    shared.newest().is_some_and(|image| {
        let status = image.read(|state| state.claim_status(topic, object.id().claim));
        status != ClaimStatus::Current
    })
}

/// Objects of tables that should be gone.
fn table_remains(shared: &Shared) -> Vec<Path> {
    let late = (GRACE + CHORES * 3).as_millis() as i64;
    let objects = shared.store.objects();
    let mut remains = Vec::new();
    for (path, _) in objects {
        let Some((topic, object)) = table_object(&path) else {
            continue;
        };
        let due = match waited(shared, topic, object) {
            Some(waited) => waited > late,
            None => is_past(shared, topic, object),
        };
        if due && !shared.needed.names(shared, topic, object).unwrap_or(true) {
            remains.push(path);
        }
    }
    remains
}

/// Judges a run that has ended, well or not.
pub fn judge(
    options: &Options,
    history: &History,
    shared: &Shared,
    ended: Result<(), String>,
    leapt: bool,
) -> Verdict {
    let mut broken = Vec::new();
    for violation in check(history).iter().take(8) {
        broken.push(violation.explain(history));
    }
    broken.extend(shared.store.broken());
    let is_over = ended.is_ok();
    if let Err(why) = ended {
        broken.push(why);
    }
    states(shared, is_over, &mut broken);
    if is_over {
        objects(shared, leapt, &mut broken);
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        broken.push(format!(
            "there are {threads} threads: the seed does not determine them"
        ));
    }
    if !broken.is_empty()
        && let Some(dir) = &options.keep
    {
        let path = dir.join(format!("seed-{}.jsonl", options.seed));
        let kept = std::fs::create_dir_all(dir)
            .and_then(|()| File::create(&path))
            .and_then(|file| history.write(BufWriter::new(file)));
        broken.push(match kept {
            Ok(()) => format!("the history is in {}", path.display()),
            Err(error) => format!("the history could not be kept: {error}"),
        });
    }
    let produced = |op: &Op| matches!(op, Op::Produce { .. });
    let acknowledged = history.events.iter();
    let acknowledged =
        acknowledged.filter(|event| produced(&event.op) && event.outcome.answer().is_some());
    let scanned = |event: &&Event| matches!(event.op, Op::Scan { .. });
    let scans = history.events.iter().filter(scanned);
    let (hash, lines) = trace::digest();
    Verdict {
        broken,
        events: history.events.len(),
        acknowledged: acknowledged.count(),
        cold: cold_reads(history),
        scans: scans.count(),
        virtual_ms: trace::now_ms(),
        digest: hash ^ lines.rotate_left(32) ^ entropy::asked().rotate_left(48),
    }
}

/// Every state is sound, and states with the same log behind them are the same.
fn states(shared: &Shared, is_over: bool, broken: &mut Vec<String>) {
    let images = shared.images.lock();
    let mut newest: Option<(u64, &str, Vec<u8>)> = None;
    for (host, image) in &*images {
        let (checked, applied, bytes) =
            image.read(|state| (state.check(), state.applied(), state.snapshot()));
        if let Err(error) = checked {
            broken.push(format!("the state of {host} at {applied}: {error}"));
        }
        match &newest {
            Some((at, other, known)) if *at == applied && *known != bytes => {
                broken.push(format!("{host} and {other} differ at {applied}"));
            }
            Some((at, ..)) if *at >= applied => {}
            _ => newest = Some((applied, host, bytes)),
        }
    }
    if is_over && newest.is_none() {
        broken.push("nobody has a state".to_owned());
    }
}

/// How many objects are there that nothing refers to, nor will.
pub fn uncollected(shared: &Shared) -> usize {
    let Some(image) = shared.newest() else {
        return 0;
    };
    let objects = shared.store.objects();
    let segments = objects
        .iter()
        .filter_map(|(path, _)| SegmentId::from_object_key(path.as_ref()));
    let segments = image.read(|state| {
        let live: BTreeSet<SegmentId> = state.live_segments().collect();
        segments
            .filter(|id| !live.contains(id) && state.segment(*id) != SegmentStatus::Pending)
            .count()
    });
    segments + table_remains(shared).len()
}

/// What the state refers to is in the store, whole; what it does not refer to is gone, unless a
/// clock has leapt: time in the state does not go back, so the end of a grace period may be far.
fn objects(shared: &Shared, leapt: bool, broken: &mut Vec<String>) {
    let Some(image) = shared.newest() else {
        return;
    };
    let mut live: Vec<SegmentId> = image.read(|state| state.live_segments().collect());
    for (path, bytes) in shared.store.objects() {
        let Some(id) = SegmentId::from_object_key(path.as_ref()) else {
            continue;
        };
        let is_needed = shared.past_log_bytes.is_none() || live.contains(&id);
        // Of what nobody needs, a directory may have a part.
        if is_needed && let Err(error) = frazil_core::segment::open(&bytes) {
            broken.push(format!("I33: {path} is damaged: {error}"));
        }
        let position = live.iter().position(|known| *known == id);
        if let Some(position) = position {
            live.swap_remove(position);
        } else {
            let status = image.read(|state| state.segment(id));
            // What is neither committed nor finished belongs to a gateway that runs.
            if status != SegmentStatus::Pending && !leapt {
                broken.push(format!("I34: {path} is {status:?} and was not collected"));
            }
        }
    }
    if !leapt {
        let remains = table_remains(shared).into_iter();
        broken.extend(remains.map(|path| format!("I34: {path} was not collected")));
    }
    for id in live {
        broken.push(format!(
            "I33: segment {id} is referred to and is not in the store"
        ));
    }
}
