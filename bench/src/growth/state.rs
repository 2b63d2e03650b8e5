//! The metadata state by itself: no process, no disk. Times are the best of a few.

use anyhow::Result;
use frazil_micro::state::Grown;

use super::Site;
use super::curve::{Curve, log};
use crate::sheet::milliseconds;

const PARTITIONS: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Segments with two batches for each of 100 partitions.
const SEGMENTS: [u32; 5] = [1, 10, 100, 1_000, 10_000];

pub(super) fn measure(site: &Site) -> Result<Vec<Curve>> {
    let mut bytes = Curve::new(
        "state-partitions",
        "Bytes of the quorum's state against partitions",
        log("partitions"),
        log("bytes of a snapshot"),
    );
    for count in site.sizes(&PARTITIONS) {
        let x = f64::from(count);
        let empty = Grown::new(count, 0);
        bytes.add("without records", x, empty.snapshot_bytes() as f64);
    }
    let mut extents = Curve::new(
        "state-segments",
        "Bytes of the quorum's state against what it points to",
        log("extents: segments × 100 partitions in each"),
        log("bytes of a snapshot"),
    );
    let mut times = Curve::new(
        "state-times",
        "Time of one reading and one writing of the state",
        log("extents: segments × 100 partitions in each"),
        log("µs"),
    );
    let mut restore = Curve::new(
        "state-restore",
        "Time to restore the state from a snapshot, with all checks",
        log("extents: segments × 100 partitions in each"),
        log("ms"),
    );
    for count in site.sizes(&SEGMENTS) {
        let mut state = Grown::new(100, u64::from(count));
        let x = state.extents() as f64;
        extents.add("snapshot", x, state.snapshot_bytes() as f64);
        times.add(
            "locate 1 MiB of a partition",
            x,
            1e3 * milliseconds(state.locate()),
        );
        restore.add("restore", x, milliseconds(state.restore()));
        times.add(
            "commit to 100 partitions",
            x,
            1e3 * milliseconds(state.commit()),
        );
    }
    Ok(vec![bytes, extents, times, restore])
}
