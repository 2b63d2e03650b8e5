//! What the metadata state takes and costs at a size. No process, no disk: the state machine alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_metadata::state::State;

use crate::cases::quorum::Gateway;

/// Partitions of a topic, at most.
const TOPIC: u32 = 1000;
/// Partitions that a segment has batches of.
const COMMITTED: u32 = 100;

/// A state of some size.
pub struct Grown {
    state: State,
    gateway: Gateway,
    topic: TopicId,
    committed: i32,
    segments: u64,
}

impl Grown {
    /// So many partitions in topics of 1 000, and so many segments, each with two batches of 16 KiB
    /// for each of the first 100 partitions (or as many as there are).
    pub fn new(partitions: u32, segments: u64) -> Self {
        let each = partitions.min(TOPIC);
        let topics = partitions.div_ceil(each);
        let committed = each.min(COMMITTED) as i32;
        let (mut state, mut gateway) = Gateway::begin(topics, each as i32, segments);
        gateway.commit_to(committed);
        for _ in 0..segments {
            let command = gateway.commit();
            gateway.apply(&mut state, command);
        }
        Self {
            topic: Gateway::topic(),
            state,
            gateway,
            committed,
            segments,
        }
    }

    /// Extents of all partitions.
    pub fn extents(&self) -> u64 {
        self.segments * self.committed as u64
    }

    /// Bytes of a snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.state.snapshot().len() as u64
    }

    /// Restoring a snapshot, with all checks.
    pub fn restore(&self) -> Duration {
        let bytes = self.state.snapshot();
        best(3, || {
            drop(black_box(State::restore(&bytes).expect("a snapshot")))
        })
    }

    /// Finding 1 MiB in the middle of a partition's log.
    pub fn locate(&self) -> Duration {
        let partition = TopicPartition::new(self.topic, self.committed / 2);
        let bounds = self.state.bounds(&partition).expect("a partition");
        let middle = Offset(bounds.high_watermark.0 / 2);
        const TIMES: u32 = 1000;
        best(5, || {
            for _ in 0..TIMES {
                black_box(self.state.locate(black_box(&partition), middle, 1 << 20));
            }
        }) / TIMES
    }

    /// Applying one more commit of two batches for each of up to 100 partitions. The state grows by
    /// five of them.
    pub fn commit(&mut self) -> Duration {
        let mut commands: Vec<_> = (0..5).map(|_| self.gateway.commit()).collect();
        let (state, gateway) = (&mut self.state, &mut self.gateway);
        best(5, || {
            if let Some(command) = (!commands.is_empty()).then(|| commands.remove(0)) {
                gateway.apply(state, command);
            }
        })
    }
}

fn best(times: u32, mut run: impl FnMut()) -> Duration {
    (0..times)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_size_that_was_asked_for() {
        let mut small = Grown::new(10, 3);
        let large = Grown::new(2000, 5);
        assert_eq!((small.extents(), large.extents()), (30, 500));
        assert!(small.snapshot_bytes() < large.snapshot_bytes());
        let before = small.snapshot_bytes();
        small.commit();
        assert!(small.snapshot_bytes() > before);
        small.restore();
        small.locate();
    }
}
