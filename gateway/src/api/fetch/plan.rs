//! How the bytes of a Fetch response are shared out among its partitions. Pure.
//!
//! In the request's order, which clients rotate, each partition gets what it has, up to its own
//! limit and what the ones before it have left. Limits are soft in one way only (KIP-74): the
//! first partition that has anything gets at least one batch, however large, if the response has
//! none yet; a consumer would otherwise be stuck before a large batch for ever.

/// What a partition has to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Available {
    /// Its bytes, or somewhat more.
    pub(super) bytes: usize,
    /// How many of them the client wants at most.
    pub(super) bytes_max: usize,
}

/// What may be read of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allotment {
    /// At most this many bytes,
    pub(super) bytes_max: usize,
    /// but one batch in any case.
    pub(super) min_one: bool,
}

/// Shares `budget` out. `nothing_yet`: the response has no batch so far.
pub(super) fn allot(available: &[Available], budget: usize, nothing_yet: bool) -> Vec<Allotment> {
    let mut left = budget;
    let mut first = nothing_yet;
    available
        .iter()
        .map(|partition| {
            let bytes_max = partition.bytes.min(partition.bytes_max).min(left);
            left -= bytes_max;
            let min_one = first && partition.bytes > 0;
            first &= !min_one;
            Allotment { bytes_max, min_one }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(available: &[(usize, usize)], budget: usize, expected: &[(usize, bool)]) {
        let available: Vec<_> = available
            .iter()
            .map(|&(bytes, bytes_max)| Available { bytes, bytes_max })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(bytes_max, min_one)| Allotment { bytes_max, min_one })
            .collect();
        assert_eq!(allot(&available, budget, true), expected);
    }

    #[test]
    fn partitions_are_served_in_order_within_both_limits() {
        check(
            &[(100, 60), (100, 60), (100, 60)],
            130,
            &[(60, true), (60, false), (10, false)],
        );
    }

    #[test]
    fn the_first_with_anything_gets_a_batch_whatever_the_limits() {
        check(
            &[(0, 9), (100, 0), (100, 0)],
            0,
            &[(0, false), (0, true), (0, false)],
        );
        let later = [Available {
            bytes: 5,
            bytes_max: 5,
        }];
        let allotted = allot(&later, 0, false);
        assert_eq!(
            allotted,
            [Allotment {
                bytes_max: 0,
                min_one: false
            }]
        );
    }

    proptest! {
        #[test]
        fn limits_hold(
            available in prop::collection::vec((0usize..1000, 0usize..1000), 0..20),
            budget in 0usize..5000,
        ) {
            let available: Vec<_> = available
                .into_iter()
                .map(|(bytes, bytes_max)| Available { bytes, bytes_max })
                .collect();
            let allotted = allot(&available, budget, true);
            prop_assert!(allotted.iter().map(|a| a.bytes_max).sum::<usize>() <= budget);
            prop_assert!(allotted.iter().filter(|a| a.min_one).count() <= 1);
            for (a, b) in allotted.iter().zip(&available) {
                prop_assert!(a.bytes_max <= b.bytes.min(b.bytes_max));
            }
        }
    }
}
