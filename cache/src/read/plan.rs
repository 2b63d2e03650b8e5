//! Which blocks a read needs. Pure.
//!
//! Objects are read in aligned blocks, so that readers of neighbouring extents share them. A plan
//! names the blocks that hold the first `budget` bytes of some extents, one run per stretch of
//! adjacent blocks of one segment.

use std::ops::Range;

use frazil_core::{Extent, Location, SegmentId};

/// Bytes of a block (1 MiB); the last one of an object is shorter.
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;
/// Adjacent blocks that one GET fetches (5 MiB). A segment that is full has 8 MiB and a bit more: of
/// 4 MiB each it would be three, the last of a few bytes. Fewer bytes would cost more GETs, and more
/// of them memory and time: 5 MiB take some 60 ms on one connection of S3.
pub(crate) const STRIPE_BLOCKS: u32 = 5;

/// Adjacent blocks of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRun {
    pub(crate) id: SegmentId,
    pub(crate) first: u32,
    /// Inclusive.
    pub(crate) last: u32,
}

/// The first and the last block that hold bytes `start .. end` of an object, which are not empty.
pub(crate) fn blocks(start: u64, end: u64) -> (u32, u32) {
    (
        (start / BLOCK_BYTES) as u32,
        ((end - 1) / BLOCK_BYTES) as u32,
    )
}

/// The runs that hold the first `budget` bytes of `extents`, counting from byte `skip` of the
/// first one. Stops at the first extent that is not in a segment, or that is `at_hand`; passes over
/// those that are read `by_itself`.
pub(crate) fn plan(
    extents: &[Extent],
    skip: u64,
    budget: u64,
    at_hand: impl Fn(SegmentId) -> bool,
    by_itself: impl Fn(&Extent) -> bool,
) -> Vec<BlockRun> {
    let mut runs: Vec<BlockRun> = Vec::new();
    let mut left = budget.max(1);
    let mut skip = skip;
    for extent in extents {
        let Location::Segment { id, start, length } = extent.location else {
            break;
        };
        let skipped = std::mem::take(&mut skip).min(u64::from(length));
        let take = (u64::from(length) - skipped).min(left);
        if take == 0 || at_hand(id) {
            break;
        }
        let from = u64::from(start) + skipped;
        let (first, last) = blocks(from, from + take);
        match runs.last_mut() {
            _ if by_itself(extent) => {}
            Some(run) if run.id == id && (run.first..=run.last + 1).contains(&first) => {
                run.last = run.last.max(last);
            }
            _ => runs.push(BlockRun { id, first, last }),
        }
        left -= take;
        if left == 0 {
            break;
        }
    }
    runs
}

/// Extents with fewer bytes are read in blocks: many of them are in one.
pub(crate) const EXACT_MIN: u32 = 512 << 10;
/// Less than this is not read by itself for the sake of a limit.
pub(crate) const SCRAP: u64 = 64 << 10;

/// Whether a scan of a store in this machine reads the bytes of an extent by themselves.
pub(crate) fn is_long(extent: &Extent) -> bool {
    matches!(extent.location, Location::Segment { length, .. } if length >= EXACT_MIN)
}

/// The parts of long extents that are among the first `budget` bytes of `extents`, counting from byte
/// `skip` of the first one. Stops where [`plan`] does.
pub(crate) fn exact(
    extents: &[Extent],
    skip: u64,
    budget: u64,
    at_hand: impl Fn(SegmentId) -> bool,
) -> Vec<(SegmentId, Range<u64>)> {
    let mut parts = Vec::new();
    let mut left = budget.max(1);
    let mut skip = skip;
    for (number, extent) in extents.iter().enumerate() {
        let Location::Segment { id, start, length } = extent.location else {
            break;
        };
        let skipped = std::mem::take(&mut skip).min(u64::from(length));
        let take = (u64::from(length) - skipped).min(left);
        if take == 0 || at_hand(id) {
            break;
        }
        if is_long(extent) {
            if number > 0 && left < SCRAP {
                break;
            }
            let from = u64::from(start) + skipped;
            parts.push((id, from..from + take));
        }
        left -= take;
        if left == 0 {
            break;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use frazil_core::{BrokerEpoch, BrokerId, Offset};
    use proptest::prelude::*;

    use super::*;

    const MIB: u32 = 1 << 20;

    fn extent(number: u64, start: u32, length: u32) -> Extent {
        Extent {
            base: Offset(0),
            end: Offset(1),
            max_timestamp: 0,
            location: Location::Segment {
                id: SegmentId::new(BrokerEpoch(1), number),
                start,
                length,
            },
        }
    }

    fn check(extents: &[Extent], skip: u64, budget: u64, expected: &[(u64, u32, u32)]) {
        let runs = plan(extents, skip, budget, |_| false, |_| false);
        let runs: Vec<_> = runs
            .iter()
            .map(|run| (run.id.number, run.first, run.last))
            .collect();
        assert_eq!(runs, expected);
    }

    #[test]
    fn plans() {
        check(&[], 0, 100, &[]);
        check(&[extent(0, 16, 100)], 0, 100, &[(0, 0, 0)]);
        check(&[extent(0, 16, 3 * MIB)], 0, 100, &[(0, 0, 0)]);
        check(&[extent(0, 16, 3 * MIB)], u64::from(MIB), 100, &[(0, 1, 1)]);
        check(&[extent(0, MIB - 1, 2)], 0, 100, &[(0, 0, 1)]);
        check(&[extent(0, MIB - 1, 2)], 0, 1, &[(0, 0, 0)]);
        check(&[extent(0, MIB - 1, 2)], 0, 0, &[(0, 0, 0)]);
        // Extents of one segment share a run, those of several do not.
        check(
            &[extent(0, 16, 10), extent(0, MIB, 10), extent(1, 16, 10)],
            0,
            100,
            &[(0, 0, 1), (1, 0, 0)],
        );
        check(&[extent(0, 16, 10), extent(1, 16, 10)], 0, 10, &[(0, 0, 0)]);
        // A gap between blocks is not read.
        check(
            &[extent(0, 16, 10), extent(0, 5 * MIB, 10)],
            0,
            100,
            &[(0, 0, 0), (0, 5, 5)],
        );
    }

    #[test]
    fn a_scan_reads_what_it_wants_and_no_more() {
        let part = |extents: &[Extent], skip, budget| -> Vec<_> {
            let parts = exact(extents, skip, budget, |id| id.number == 9);
            let parts = parts.into_iter();
            parts
                .map(|(id, part)| (id.number, part.start, part.end))
                .collect()
        };
        let (mib, kib) = (u64::from(MIB), 1 << 10);
        let two = [extent(0, 16, MIB), extent(1, 32, MIB)];
        assert_eq!(part(&[], 0, mib), []);
        assert_eq!(part(&two, 0, mib), [(0, 16, 16 + mib)]);
        assert_eq!(
            part(&two, 600 * kib, mib),
            [(0, 16 + 600 * kib, 16 + mib), (1, 32, 32 + 600 * kib)]
        );
        // The rest of an extent is read however short it is, the beginning of one is not.
        assert_eq!(
            part(&two, mib - 5, mib),
            [(0, 16 + mib - 5, 16 + mib), (1, 32, 32 + mib - 5)]
        );
        assert_eq!(part(&two, 5, mib), [(0, 21, 16 + mib)]);
        assert_eq!(part(&two, 0, 5), [(0, 16, 21)]);
        assert_eq!(part(&two, 0, 0), [(0, 16, 17)]);
        // What is short is passed over, here or there; what is in memory ends it.
        let short = extent(1, 16, EXACT_MIN - 1);
        let rest = 9 * mib - u64::from(EXACT_MIN - 1);
        for (extents, expected, blocks) in [
            ([short, two[0]], vec![(0, 16, 16 + mib)], vec![(1, 0, 0)]),
            ([two[0], short], vec![(0, 16, 16 + mib)], vec![(1, 0, 0)]),
            (
                [two[0], extent(9, 16, MIB)],
                vec![(0, 16, 16 + mib)],
                vec![],
            ),
            ([extent(9, 16, MIB), two[0]], vec![], vec![]),
        ] {
            assert_eq!(part(&extents, 0, rest), expected);
            let runs = plan(&extents, 0, rest, |id| id.number == 9, is_long);
            let runs: Vec<_> = runs
                .iter()
                .map(|run| (run.id.number, run.first, run.last))
                .collect();
            assert_eq!(runs, blocks);
        }
    }

    #[test]
    fn a_plan_ends_where_memory_or_a_log_begins() {
        let wal = Extent {
            location: Location::Wal {
                broker: BrokerId(1),
                epoch: BrokerEpoch(1),
                start: 0,
                length: 10,
            },
            ..extent(0, 0, 0)
        };
        check(
            &[extent(0, 16, 10), wal, extent(1, 16, 10)],
            0,
            100,
            &[(0, 0, 0)],
        );
        let extents = [extent(0, 16, 10), extent(1, 16, 10), extent(2, 16, 10)];
        assert_eq!(
            plan(&extents, 0, 100, |id| id.number == 1, |_| false).len(),
            1
        );
    }

    proptest! {
        #[test]
        fn adjacent_extents_are_one_run_that_covers_the_budget(
            lengths in prop::collection::vec(1u32..4 * MIB, 1..6),
            budget in 1u64..8 * u64::from(MIB),
        ) {
            let mut start = 16;
            let extents: Vec<_> = lengths.iter().map(|&length| {
                let extent = extent(0, start, length);
                start += length;
                extent
            }).collect();
            let runs = plan(&extents, 0, budget, |_| false, |_| false);
            prop_assert_eq!(runs.len(), 1);
            let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
            let (first, last) = blocks(16, 16 + total.min(budget));
            prop_assert_eq!((runs[0].first, runs[0].last), (first, last));
        }
    }
}
