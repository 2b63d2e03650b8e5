//! Which gateway clients are sent to: for a partition (its "leader"), for a group (its
//! coordinator), and as controller.
//!
//! Rendezvous hashing: every gateway computes a weight for (what, broker) from ids alone, the
//! largest wins. All gateways that see the same live brokers agree without talking, and when a
//! broker comes or goes, only what it wins or won moves.
//!
//! Nothing depends on the answer being right: any gateway serves any partition, and a group's
//! coordinator is fenced by its claim in the quorum.

use frazil_core::TopicPartition;
use frazil_core::ports::Broker;

/// The broker that clients are told leads a partition. `None` only without live brokers.
pub fn leader<'a>(brokers: &'a [Broker], partition: &TopicPartition) -> Option<&'a Broker> {
    let seed = hash(partition.topic.uuid().as_bytes(), 1) ^ mix(partition.partition as u64);
    winner(brokers, seed)
}

/// The brokers that may lead for a client in this zone: those in it, or all if there are none.
pub fn near(brokers: &[Broker], zone: Option<&str>) -> Vec<Broker> {
    let in_zone = |broker: &&Broker| zone.is_some() && broker.rack.as_deref() == zone;
    let near: Vec<Broker> = brokers.iter().filter(in_zone).cloned().collect();
    match near.is_empty() {
        true => brokers.to_vec(),
        false => near,
    }
}

/// The brokers reported as replicas: the leader among those that are `near`, and then others,
/// `wanted` in all, or all live ones if fewer.
pub fn replicas(
    brokers: &[Broker],
    near: &[Broker],
    partition: &TopicPartition,
    wanted: i16,
) -> Vec<i32> {
    let Some(leader) = leader(near, partition) else {
        return Vec::new();
    };
    let start = brokers
        .iter()
        .position(|broker| broker.id == leader.id)
        .unwrap_or(0);
    let count = (wanted.max(1) as usize).min(brokers.len());
    (0..count)
        .map(|i| brokers[(start + i) % brokers.len()].id.0)
        .collect()
}

/// The broker that coordinates a group.
pub fn coordinator<'a>(brokers: &'a [Broker], group: &str) -> Option<&'a Broker> {
    winner(brokers, hash(group.as_bytes(), 2))
}

/// The broker that clients are told is the controller: any one serves, the first is stable.
pub fn controller(brokers: &[Broker]) -> Option<&Broker> {
    brokers.first()
}

fn winner(brokers: &[Broker], seed: u64) -> Option<&Broker> {
    brokers
        .iter()
        .max_by_key(|broker| (mix(seed ^ mix(broker.id.0 as u64)), broker.id))
}

/// FNV-1a, finished by [`mix`].
fn hash(bytes: &[u8], kind: u64) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ kind, fold))
}

/// The finaliser of SplitMix64: every input bit changes every output bit with probability ½.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use frazil_core::{BrokerEpoch, BrokerId, TopicId};
    use uuid::Uuid;

    use super::*;

    fn brokers(ids: &[i32]) -> Vec<Broker> {
        ids.iter()
            .map(|&id| Broker {
                id: BrokerId(id),
                epoch: BrokerEpoch(1),
                host: "h".into(),
                port: 9092,
                rack: None,
            })
            .collect()
    }

    fn partitions() -> impl Iterator<Item = TopicPartition> {
        (0..30u128).flat_map(|topic| {
            let id = TopicId::new(Uuid::from_u128(topic * 77_777));
            (0..100).map(move |partition| TopicPartition::new(id, partition))
        })
    }

    #[test]
    fn leaders_are_spread_evenly() {
        let brokers = brokers(&[1, 2, 3]);
        let mut counts = [0; 4];
        for partition in partitions() {
            counts[leader(&brokers, &partition).unwrap().id.0 as usize] += 1;
        }
        for count in &counts[1..] {
            assert!((900..1100).contains(count), "{counts:?}");
        }
    }

    #[test]
    fn a_zone_has_leaders_of_its_own_while_it_has_brokers() {
        let mut all = brokers(&[1, 2, 3, 4]);
        for (broker, zone) in all.iter_mut().zip(["a", "a", "b", "b"]) {
            broker.rack = Some(zone.to_owned());
        }
        let ids = |zone| -> Vec<i32> { near(&all, zone).iter().map(|b| b.id.0).collect() };
        assert_eq!(ids(Some("a")), [1, 2]);
        assert_eq!(ids(Some("b")), [3, 4]);
        assert_eq!(ids(Some("c")), [1, 2, 3, 4]);
        assert_eq!(ids(None), [1, 2, 3, 4]);
        let mut counts = [0; 5];
        for partition in partitions() {
            let near = near(&all, Some("b"));
            let replicas = replicas(&all, &near, &partition, 3);
            assert_eq!(replicas.len(), 3);
            counts[replicas[0] as usize] += 1;
        }
        assert_eq!(counts[..3], [0; 3]);
        for count in &counts[3..] {
            assert!((1_350..1_650).contains(count), "{counts:?}");
        }
    }

    #[test]
    fn only_what_a_lost_broker_led_moves() {
        let before = brokers(&[1, 2, 3, 4]);
        let after = brokers(&[1, 2, 4]);
        for partition in partitions() {
            let old = leader(&before, &partition).unwrap().id;
            let new = leader(&after, &partition).unwrap().id;
            assert!(old == new || old == BrokerId(3));
        }
        for group in 0..1000 {
            let group = format!("group-{group}");
            let old = coordinator(&before, &group).unwrap().id;
            let new = coordinator(&after, &group).unwrap().id;
            assert!(old == new || old == BrokerId(3));
        }
    }

    #[test]
    fn replicas_are_distinct_and_begin_with_the_leader() {
        let brokers = brokers(&[1, 2, 3]);
        for partition in partitions().take(50) {
            for wanted in [1, 2, 3, 7] {
                let replicas = replicas(&brokers, &brokers, &partition, wanted);
                assert_eq!(replicas.len(), wanted.min(3) as usize);
                assert_eq!(replicas[0], leader(&brokers, &partition).unwrap().id.0);
                let distinct: std::collections::BTreeSet<_> = replicas.iter().collect();
                assert_eq!(distinct.len(), replicas.len());
            }
        }
        assert!(replicas(&[], &[], &partitions().next().unwrap(), 1).is_empty());
    }
}
