//! Whether what was promised was kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use frazil_core::SegmentId;
use frazil_core::ports::SegmentStatus;
use frazil_history::{History, Op, check};
use object_store::path::Path;

use crate::node::{GRACE, Shared};
use crate::run::Options;
use crate::{entropy, trace};

/// What came of a seed.
pub struct Verdict {
    /// What was broken; empty: nothing.
    pub broken: Vec<String>,
    /// Events of the history.
    pub events: usize,
    /// Batches that were acknowledged.
    pub acknowledged: usize,
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
    let (hash, lines) = trace::digest();
    Verdict {
        broken,
        events: history.events.len(),
        acknowledged: acknowledged.count(),
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
    image.read(|state| {
        let live: BTreeSet<SegmentId> = state.live_segments().collect();
        segments
            .filter(|id| !live.contains(id) && state.segment(*id) != SegmentStatus::Pending)
            .count()
    })
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
        if let Err(error) = frazil_core::segment::open(&bytes) {
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
    for id in live {
        broken.push(format!(
            "I33: segment {id} is referred to and is not in the store"
        ));
    }
}
