//! Which extents a conversion takes, and in which order it reads them. Pure.
//!
//! ```text
//! partition 0   cold │ extent  extent  extent │ write-ahead log, or not stable yet
//! partition 1   cold │ extent          extent │
//! segment              A       B       C        ─► steps A, B, C ─► rounds of some megabytes
//! ```
//!
//! A segment is committed at once, so segments follow each other in the same order in all partitions
//! (but for runs that came from a write-ahead log), and steps of one segment each read every object
//! once.

use std::collections::{BTreeMap, VecDeque};

use frazil_core::cold::NodeRef;
use frazil_core::ports::Bounds;
use frazil_core::{Extent, Location, Offset, SegmentId};

/// What can be converted of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// The partition's index.
    pub(super) partition: i32,
    /// The root of its manifest.
    pub(super) cold: Option<NodeRef>,
    /// Where its log begins.
    pub(super) log_start: Offset,
    /// The extents, one behind the other. Never empty.
    pub(super) extents: Vec<Extent>,
}

/// Extents of one segment, or one that is lost, with their partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The segment; `None`: what stood there is lost.
    pub(super) segment: Option<SegmentId>,
    /// At most one per partition.
    pub(super) extents: Vec<(i32, Extent)>,
}

impl Step {
    /// Bytes of the extents.
    pub(super) fn bytes(&self) -> u64 {
        let lengths = self.extents.iter();
        lengths
            .map(|(_, extent)| u64::from(extent.location.length()))
            .sum()
    }
}

/// What can be converted of a partition whose manifest has the root `cold` and whose first extents
/// are `extents`: those from the beginning on that are in segments or lost, and stable.
///
/// `None`: nothing, or what was read does not fit together because the log has changed meanwhile.
pub(super) fn eligible(
    partition: i32,
    cold: Option<NodeRef>,
    bounds: Bounds,
    extents: &[Extent],
) -> Option<Input> {
    let base = extents.first()?.base;
    if let Some(cold) = &cold {
        let joined = cold.end == base;
        let passed = cold.end < base && cold.end <= bounds.log_start;
        if !joined && !passed {
            return None;
        }
    }
    let mut at = base;
    let fit = extents.iter().take_while(|extent| {
        let next = extent.base == at;
        at = extent.end;
        let durable = !matches!(extent.location, Location::Wal { .. });
        next && durable && extent.end <= bounds.last_stable
    });
    let extents: Vec<Extent> = fit.copied().collect();
    (!extents.is_empty()).then_some(Input {
        partition,
        cold,
        log_start: bounds.log_start,
        extents,
    })
}

/// The extents of all inputs by segment, in an order in which each partition's follow each other,
/// until `limit` bytes are reached. `true`: there is more.
pub(super) fn steps(inputs: &[Input], limit: u64) -> (Vec<Step>, bool) {
    let mut order = Order::new(inputs);
    let mut steps: Vec<Step> = Vec::new();
    let mut bytes = 0;
    while let Some((step, whose)) = order.next() {
        if !steps.is_empty() && bytes + step.bytes() > limit {
            return (steps, true);
        }
        bytes += step.bytes();
        steps.push(step);
        whose.into_iter().for_each(|which| order.pass(which));
    }
    (steps, false)
}

/// Which extents stand first in their partitions.
struct Order<'a> {
    inputs: &'a [Input],
    /// The first extent of each input that has not been taken.
    cursor: Vec<usize>,
    /// How many extents of each segment have not been taken.
    left: BTreeMap<SegmentId, usize>,
    /// The inputs whose first extent lies in a segment.
    heads: BTreeMap<SegmentId, Vec<usize>>,
    /// The inputs whose first extent is lost.
    lost: Vec<usize>,
    /// Segments of which every extent stands first.
    whole: VecDeque<SegmentId>,
}

impl<'a> Order<'a> {
    fn new(inputs: &'a [Input]) -> Self {
        let mut order = Self {
            inputs,
            cursor: vec![0; inputs.len()],
            left: BTreeMap::new(),
            heads: BTreeMap::new(),
            lost: Vec::new(),
            whole: VecDeque::new(),
        };
        for extent in inputs.iter().flat_map(|input| &input.extents) {
            if let Location::Segment { id, .. } = extent.location {
                *order.left.entry(id).or_default() += 1;
            }
        }
        (0..inputs.len()).for_each(|which| order.arrive(which));
        order
    }

    /// Notes the extent that now stands first in an input.
    fn arrive(&mut self, which: usize) {
        let first = self.inputs[which].extents.get(self.cursor[which]);
        match first.map(|extent| extent.location) {
            Some(Location::Segment { id, .. }) => {
                let heads = self.heads.entry(id).or_default();
                heads.push(which);
                if self.left.get(&id) == Some(&heads.len()) {
                    self.whole.push_back(id);
                }
            }
            Some(_) => self.lost.push(which),
            None => {}
        }
    }

    fn pass(&mut self, which: usize) {
        self.cursor[which] += 1;
        self.arrive(which);
    }

    /// The next step, and the inputs whose first extents it takes.
    fn next(&mut self) -> Option<(Step, Vec<usize>)> {
        let (segment, whose) = match self.lost.pop() {
            Some(which) => (None, vec![which]),
            None => {
                // Whole segments first; if there are none, since runs were moved, any.
                let next = self.whole.pop_front();
                let id = next.or_else(|| self.heads.keys().next().copied())?;
                let whose = self.heads.remove(&id).unwrap_or_default();
                if let Some(left) = self.left.get_mut(&id) {
                    *left -= whose.len();
                }
                (Some(id), whose)
            }
        };
        let extents = whose.iter().map(|which| {
            let input = &self.inputs[*which];
            (input.partition, input.extents[self.cursor[*which]])
        });
        let mut extents: Vec<_> = extents.collect();
        extents.sort_by_key(|(partition, _)| *partition);
        Some((Step { segment, extents }, whose))
    }
}

/// Groups steps so that each group has at most `bytes` bytes, or one step.
pub(super) fn rounds(steps: Vec<Step>, bytes: u64) -> Vec<Vec<Step>> {
    let mut rounds: Vec<Vec<Step>> = Vec::new();
    let mut filled = 0;
    for step in steps {
        match rounds.last_mut() {
            Some(round) if filled + step.bytes() <= bytes => {
                filled += step.bytes();
                round.push(step);
            }
            _ => {
                filled = step.bytes();
                rounds.push(vec![step]);
            }
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use frazil_core::cold::ObjectId;
    use frazil_core::{BrokerEpoch, BrokerId};
    use proptest::prelude::*;

    use super::*;

    fn segment(number: u64) -> SegmentId {
        SegmentId::new(BrokerEpoch(1), number)
    }

    fn extent(base: i64, count: i64, number: u64, length: u32) -> Extent {
        Extent {
            base: Offset(base),
            end: Offset(base + count),
            max_timestamp: 0,
            location: Location::Segment {
                id: segment(number),
                start: 16,
                length,
            },
        }
    }

    fn bounds(log_start: i64, last_stable: i64) -> Bounds {
        Bounds {
            log_start: Offset(log_start),
            last_stable: Offset(last_stable),
            high_watermark: Offset(last_stable + 5),
        }
    }

    fn cold(base: i64, end: i64) -> Option<NodeRef> {
        Some(NodeRef {
            base: Offset(base),
            end: Offset(end),
            id: ObjectId::new(1, 1),
            level: 0,
            length: 1,
            crc: 1,
            records: 1,
            bytes: 1,
            max_timestamp: 1,
        })
    }

    #[test]
    fn only_what_is_durable_stable_and_joined_is_taken() {
        let mut log = vec![
            extent(10, 5, 1, 100),
            extent(15, 5, 2, 100),
            extent(20, 5, 3, 100),
        ];
        let ends = |cold, bounds, log: &[Extent]| {
            eligible(0, cold, bounds, log).map(|input| {
                let last = input.extents.last().expect("never empty");
                (input.extents[0].base.0, last.end.0)
            })
        };
        assert_eq!(ends(None, bounds(10, 25), &log), Some((10, 25)));
        assert_eq!(ends(None, bounds(10, 24), &log), Some((10, 20)));
        assert_eq!(ends(None, bounds(10, 14), &log), None);
        assert_eq!(ends(cold(0, 10), bounds(0, 25), &log), Some((10, 25)));
        // All that is cold lies below the log start.
        assert_eq!(ends(cold(0, 8), bounds(10, 25), &log), Some((10, 25)));
        // The image has changed between two looks at it.
        assert_eq!(ends(cold(0, 8), bounds(0, 25), &log), None);
        assert_eq!(ends(cold(0, 15), bounds(0, 25), &log), None);
        assert_eq!(ends(None, bounds(0, 0), &[]), None);
        log[2].location = Location::Lost;
        assert_eq!(ends(None, bounds(10, 25), &log), Some((10, 25)));
        log[1].location = Location::Wal {
            broker: BrokerId(1),
            epoch: BrokerEpoch(1),
            start: 0,
            length: 5,
        };
        assert_eq!(ends(None, bounds(10, 25), &log), Some((10, 15)));
        log[0].location = log[1].location;
        assert_eq!(ends(None, bounds(10, 25), &log), None);
    }

    fn inputs(logs: &[&[u64]]) -> Vec<Input> {
        let input = |(partition, numbers): (usize, &&[u64])| Input {
            partition: partition as i32,
            cold: None,
            log_start: Offset(0),
            extents: numbers
                .iter()
                .enumerate()
                .map(|(i, number)| extent(i as i64, 1, *number, 10))
                .collect(),
        };
        logs.iter().enumerate().map(input).collect()
    }

    #[test]
    fn each_segment_is_read_once() {
        let inputs = inputs(&[&[1, 2, 5, 9], &[2, 4, 5], &[1, 4, 9]]);
        let (steps, more) = steps(&inputs, u64::MAX);
        assert!(!more);
        let read: Vec<_> = steps.iter().map(|step| step.segment.unwrap()).collect();
        assert_eq!(read, [1, 2, 4, 5, 9].map(segment));
        assert_eq!(steps[0].extents.len(), 2);
    }

    #[test]
    fn jobs_and_rounds_are_bounded_and_never_empty() {
        let inputs = inputs(&[&[1, 2, 3, 4, 5]]);
        let (some, more) = steps(&inputs, 25);
        assert_eq!((some.len(), more), (2, true));
        let (one, more) = steps(&inputs, 1);
        assert_eq!((one.len(), more), (1, true));
        let (all, more) = steps(&inputs, 50);
        assert_eq!((all.len(), more), (5, false));
        let sizes = |bytes| {
            let rounds = rounds(all.clone(), bytes);
            rounds.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(20), [2, 2, 1]);
        assert_eq!(sizes(1), [1; 5]);
        assert_eq!(sizes(1000), [5]);
    }

    proptest! {
        /// Also when the partitions disagree about the order of segments.
        #[test]
        fn everything_is_taken_once_and_in_order(
            logs in prop::collection::vec(prop::collection::vec(0u64..12, 1..8), 1..5),
            limit in 1u64..400,
        ) {
            let logs: Vec<Vec<u64>> = logs.into_iter().map(|log| {
                let mut seen = std::collections::BTreeSet::new();
                log.into_iter().filter(|number| seen.insert(*number)).collect()
            }).collect();
            let borrowed: Vec<&[u64]> = logs.iter().map(Vec::as_slice).collect();
            let mut inputs = inputs(&borrowed);
            for input in &mut inputs {
                // What is lost belongs to no segment.
                for extent in &mut input.extents {
                    if extent.location == (Location::Segment { id: segment(3), start: 16, length: 10 }) {
                        extent.location = Location::Lost;
                    }
                }
            }
            let (some, more) = steps(&inputs, limit);
            let mut taken: BTreeMap<i32, Vec<Extent>> = BTreeMap::new();
            for (partition, extent) in some.iter().flat_map(|step| &step.extents) {
                taken.entry(*partition).or_default().push(*extent);
            }
            let mut all = true;
            for input in &inputs {
                let got = taken.remove(&input.partition).unwrap_or_default();
                prop_assert!(input.extents.starts_with(&got));
                all &= got.len() == input.extents.len();
            }
            prop_assert_eq!(all, !more);
            let bytes: u64 = some.iter().map(Step::bytes).sum();
            prop_assert!(bytes <= limit || some.len() == 1 || some.iter().filter(|step| step.bytes() > 0).count() <= 1);
        }
    }
}
