//! Which gateway of a zone fetches which part of a segment. Pure.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1996): every gateway computes a weight for (stripe,
//! gateway) from ids alone and the largest wins. Gateways that see the same neighbours agree
//! without talking, and when one comes or goes only what it wins or won has another owner.

use frazil_core::{BrokerId, SegmentId};

/// The owner of a stripe among some gateways.
pub(crate) fn owner(
    among: impl IntoIterator<Item = BrokerId>,
    id: SegmentId,
    stripe: u32,
) -> Option<BrokerId> {
    let seed = mix(mix(mix(id.epoch.0) ^ id.number) ^ u64::from(stripe));
    let weight = |broker: &BrokerId| (mix(seed ^ mix(broker.0 as u64)), *broker);
    among.into_iter().max_by_key(weight)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014). Gateways of different versions must
/// agree on it.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use frazil_core::BrokerEpoch;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> SegmentId {
        SegmentId::new(BrokerEpoch(7), number)
    }

    #[test]
    fn owners_are_the_same_everywhere_and_for_ever() {
        let all = [1, 2, 3].map(BrokerId);
        let owners: Vec<_> = (0..8)
            .map(|n| owner(all, id(n / 2), n as u32 % 2).unwrap().0)
            .collect();
        assert_eq!(owners, [1, 1, 3, 3, 2, 1, 1, 3]);
        assert_eq!(owner([], id(1), 0), None);
    }

    #[test]
    fn every_gateway_owns_its_share() {
        let all = [1, 2, 3, 1001].map(BrokerId);
        let mut shares = BTreeMap::new();
        for number in 0..4000 {
            let owner = owner(all, id(number / 2), number as u32 % 2).unwrap();
            *shares.entry(owner).or_insert(0) += 1;
        }
        let fair = |share: &i32| (850..1150).contains(share);
        assert!(shares.len() == 4 && shares.values().all(fair), "{shares:?}");
    }

    proptest! {
        #[test]
        fn only_what_the_one_that_goes_owns_moves(
            brokers in prop::collection::btree_set(0..100i32, 2..10),
            gone in any::<prop::sample::Index>(),
            number in any::<u64>(),
            stripe in 0..4u32,
        ) {
            let all: Vec<_> = brokers.into_iter().map(BrokerId).collect();
            let gone = all[gone.index(all.len())];
            let left = all.iter().copied().filter(|broker| *broker != gone);
            let before = owner(all.iter().copied(), id(number), stripe);
            let after = owner(left, id(number), stripe);
            prop_assert!(before == after || before == Some(gone));
            let backwards = owner(all.iter().rev().copied(), id(number), stripe);
            prop_assert_eq!(before, backwards);
        }
    }
}
