//! What has become cold, as clients' history is to know it.
//!
//! Of the topics that are there from the first moment to the last: the others are made again under
//! the same names.

use std::collections::BTreeMap;

use frazil_core::TopicId;
use frazil_core::ports::Bounds;
use frazil_history::{Answer, Client, Op, Topic, TopicPartition};

use crate::client::{Crowd, PARTITIONS};
use crate::node::Shared;
use crate::tables::{Objects, roots};
use crate::trace;

/// Who tells.
const TELLER: Client = Client(1001);
/// Between two looks.
const EVERY_MS: u64 = 100;

/// How far offsets are known to be cold.
#[derive(Default)]
pub struct Frozen {
    ends: BTreeMap<TopicPartition, i64>,
    next_ms: u64,
}

impl Frozen {
    /// Records what is cold in the image of every gateway by now.
    pub fn look(&mut self, shared: &Shared, crowd: &Crowd) {
        if shared.freezing.is_none() || trace::now_ms() < self.next_ms {
            return;
        }
        self.next_ms = trace::now_ms() + EVERY_MS;
        let images: Vec<_> = {
            let images = shared.images.lock();
            let gateways = crowd.gateways.iter();
            let of = gateways.map(|host| images.get(&host.name).cloned());
            let Some(images) = of.collect() else {
                return;
            };
            images
        };
        for (number, name) in fixed(crowd) {
            for partition in 0..PARTITIONS {
                let ends = images.iter().map(|image| {
                    image.read(|state| {
                        let id = state.topic(&name)?.id;
                        let at = frazil_core::TopicPartition::new(id, partition);
                        Some(state.cold(&at)?.end.0)
                    })
                });
                let end = ends.map(|end| end.unwrap_or(0)).min().unwrap_or(0);
                let at = TopicPartition::new(number, partition);
                if end > self.ends.insert(at, end).unwrap_or(0) {
                    trace::note(format_args!("{at:?} is cold up to {end}"));
                    let telling = crowd.recorder.begin(TELLER, Op::Frozen { at, end });
                    telling.ok(Answer::Done);
                }
            }
        }
    }
}

/// The topics that stay, with their names.
fn fixed(crowd: &Crowd) -> Vec<(Topic, String)> {
    let topics = crowd.topics.lock();
    let names = topics.iter().take(crowd.fixed).cloned();
    (0..).map(Topic).zip(names).collect()
}

/// Whether all records are in tables.
pub fn is_all(shared: &Shared, crowd: &Crowd) -> bool {
    let Some(image) = shared.newest() else {
        return false;
    };
    image.read(|state| {
        fixed(crowd).iter().all(|(_, name)| {
            state.topic(name).is_some_and(|topic| {
                (0..PARTITIONS).all(|partition| {
                    let at = frazil_core::TopicPartition::new(topic.id, partition);
                    state.oldest_extents(&at, 1).is_empty()
                })
            })
        })
    })
}

/// Records what every snapshot of every table has.
///
/// # Errors
/// A table cannot be read, or ends elsewhere than the cold part of the log.
pub fn scan(shared: &Shared, crowd: &Crowd) -> Result<(), String> {
    let Some(image) = shared.newest() else {
        return Ok(());
    };
    let cluster = image.read(|state| state.cluster_id().unwrap_or_default().to_owned());
    for (number, name) in fixed(crowd) {
        let known = image.read(|state| {
            let id = state.topic(&name)?.id;
            let pointer = state.table(id)?.pointer?;
            let roots = roots(state, id);
            let bounds = roots.iter().map(|(at, _)| state.bounds(at));
            let bounds: Vec<Option<Bounds>> = bounds.collect();
            Some((id, pointer, roots, bounds))
        });
        let Some((id, pointer, roots, bounds)): Option<(TopicId, _, _, _)> = known else {
            continue;
        };
        let mut objects = Objects::new(&shared.store, &cluster, id);
        let mut snapshots = objects.snapshots(&pointer)?;
        if let Some(newest) = snapshots.last() {
            for ((at, root), bounds) in roots.iter().zip(bounds) {
                let rows = newest.rows.get(&at.partition);
                let end = rows.and_then(|rows| rows.last()).map(|row| row.offset + 1);
                let readable = bounds.is_some_and(|bounds| bounds.log_start < root.end);
                // Nothing is lost here, and nothing compacted.
                if readable && end != Some(root.end.0) {
                    return Err(format!(
                        "I38: the table {name} ends at {end:?} of {at}, whose cold offsets end at {}",
                        root.end
                    ));
                }
            }
        }
        trace::note(format_args!("{name} has {} snapshots", snapshots.len()));
        for snapshot in &mut snapshots {
            for partition in 0..PARTITIONS {
                let at = TopicPartition::new(number, partition);
                let sequence = snapshot.sequence;
                let rows = snapshot.rows.remove(&partition).unwrap_or_default();
                let scanning = crowd.recorder.begin(TELLER, Op::Scan { at, sequence });
                scanning.ok(Answer::Rows(rows));
            }
        }
    }
    Ok(())
}
