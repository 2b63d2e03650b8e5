//! What a fleet asks of the store, and what its nodes say to each other, for each GiB.
//!
//! ```text
//!   producer ─► gateway 11 ──┐           ┌── gateway 12 ─► consumer, at the tail
//!                            ├─► store ──┤
//!                            └► voters ◄─┘
//!                               1 2 3
//! ```
//!
//! As if zones were three: clients use the gateway of their zone, so what crosses is what nodes and
//! voters say to each other, all of which is counted; a third of a gateway's share stays at home in
//! truth. The store is that of the whole region.

use std::time::Duration;

use anyhow::{Context as _, Result};
use frazil_proxy::{Proxy, Way};
use frazil_store::{Counters, Operation};

use super::cloud::SETTLING;
use super::prices::PerGib;
use super::systems::Bench;
use crate::faults::fleet::{Fleet, GATEWAY, Plan};
use crate::load::consume::readable;
use crate::load::produce::Steady;
use crate::load::{Consumer, Consumers, steady};
use crate::workload;

const GIB: f64 = (1u64 << 30) as f64;
/// The defaults of what the fleet is given less of.
const SETTINGS: [&str; 6] = [
    "queued.max.request.bytes=128MiB",
    "fetch.memory.bytes=128MiB",
    "flush.buffer.bytes=64MiB",
    "cache.tail.bytes=64MiB",
    "cache.memory.bytes=64MiB",
    "wal.bytes=256MiB",
];

/// Bytes over a link, both ways.
fn bytes(link: &Proxy) -> u64 {
    link.bytes(Way::Up) + link.bytes(Way::Down)
}

/// Bytes between nodes so far.
fn between_nodes(fleet: &Fleet) -> u64 {
    let links = fleet.nodes.values().flat_map(|n| n.links.voters.values());
    links.map(bytes).sum()
}

fn per_gib(records: f64, (before, after): (&Counters, &Counters), crossed: u64) -> PerGib {
    let gib = records / GIB;
    let counted = |operations: &[Operation]| {
        let of = |counters: &Counters| operations.iter().map(|o| counters.of(*o)).sum::<u64>();
        of(after).saturating_sub(of(before)) as f64 / gib
    };
    PerGib {
        // Amazon asks as much for each of these as for a PUT.
        puts: counted(&[
            Operation::Put,
            Operation::PutPart,
            Operation::CreateUpload,
            Operation::CompleteUpload,
            Operation::Copy,
            Operation::List,
        ]),
        gets: counted(&[Operation::Get, Operation::Head]),
        bytes: crossed as f64 / gib,
    }
}

/// Produces at a rate through one gateway and consumes through the other.
pub(crate) fn measure(
    bench: &Bench,
    partitions: i32,
    (size, rate): (usize, f64),
    window: Duration,
) -> Result<PerGib> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut fleet = Fleet::start(&Plan {
        binary: &bench.frazil,
        dir: &bench.dir,
        runtime: runtime.handle(),
        gateways: 2,
        settings: &SETTINGS,
    })?;
    let here = fleet.node(GATEWAY)?.addresses.kafka;
    let there = fleet.node(GATEWAY + 1)?.addresses.kafka;
    let topic = "zones";
    let level = [("retention.ms", "-1"), ("frazil.durability", "object")];
    workload::create_topics(here, &[topic.to_owned()], partitions, &level)?;
    readable(here, topic, partitions)?;
    readable(there, topic, partitions)?;
    let consumer = Consumer {
        broker: there,
        topic: topic.to_owned(),
        partitions,
        until: u64::MAX,
        arrivals: false,
    };
    let consumers = Consumers::start(1, &consumer);
    let load = Steady {
        broker: here,
        topic: topic.to_owned(),
        partitions,
        acks: -1,
        size,
        rate,
        in_flight: 64,
        duration: SETTLING,
    };
    steady(&load).context("a fleet")?;
    let (before, crossed) = (fleet.store.counters(), between_nodes(&fleet));
    let acks = steady(&Steady {
        duration: window,
        ..load
    })
    .context("a fleet")?;
    let (after, crossed) = (
        fleet.store.counters(),
        between_nodes(&fleet).saturating_sub(crossed),
    );
    consumers.stop();
    consumers.join()?;
    let records = acks.latency.len() as f64 * size as f64;
    Ok(per_gib(records, (&before, &after), crossed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_was_counted_before_does_not_count() {
        let counters = |puts, gets| Counters {
            requests: BTreeMap::from([
                (Operation::Put, BTreeMap::from([(200, puts)])),
                (Operation::Get, BTreeMap::from([(200, gets), (404, 1)])),
            ]),
            ..Counters::default()
        };
        let counted = per_gib(GIB / 2.0, (&counters(10, 20), &counters(80, 50)), 1000);
        assert_eq!(counted.puts, 140.0);
        assert_eq!(counted.gets, 60.0);
        assert_eq!(counted.bytes, 2000.0);
    }
}
