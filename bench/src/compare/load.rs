//! Latency of one producer at shares of what the slowest of the systems can take from one producer,
//! measured in the same round: all get the same load, so their latencies can be compared.

use anyhow::{Context as _, Result};

use super::passes::{PARTITIONS, RECORD, Run};
use super::systems::{Server, Side};
use crate::load::produce::Steady;
use crate::load::{Flood, flood, steady};
use crate::workload;

/// A share of the least capacity.
pub(crate) struct Share {
    pub percent: u32,
    /// The metric of each quantile, and what it is called.
    pub quantiles: [(&'static str, f64, &'static str); 3],
}

/// What is measured.
pub(crate) const SHARES: [Share; 3] = [
    Share {
        percent: 10,
        quantiles: [
            ("10 % p50", 0.5, "p50"),
            ("10 % p99", 0.99, "p99"),
            ("10 % p99.9", 0.999, "p99.9"),
        ],
    },
    Share {
        percent: 50,
        quantiles: [
            ("50 % p50", 0.5, "p50"),
            ("50 % p99", 0.99, "p99"),
            ("50 % p99.9", 0.999, "p99.9"),
        ],
    },
    Share {
        percent: 80,
        quantiles: [
            ("80 % p50", 0.5, "p50"),
            ("80 % p99", 0.99, "p99"),
            ("80 % p99.9", 0.999, "p99.9"),
        ],
    },
];

/// Records that the steady producer gathers in a batch at most; a flood with as many is what it
/// comes to when it is always late.
const GATHERED: usize = 64;

/// MB/s of one producer.
pub(crate) fn capacity(run: &mut Run<'_>, server: &Server, side: Side) -> Result<()> {
    let topic = run.topic(server, side, PARTITIONS)?;
    let flow = flood(&Flood {
        connections: 1,
        records: GATHERED,
        duration: run.times.shape,
        ..run.flood(server, &topic, PARTITIONS)
    })?;
    run.samples.add("capacity", side, flow.rate(RECORD));
    workload::delete_topic(server.address(), &topic)
}

/// MB/s of the slowest, this round.
pub(crate) fn least(run: &Run<'_>, sides: &[Side]) -> Result<f64> {
    let last = |side: &Side| run.samples.of("capacity", *side).last().copied();
    let capacities = sides.iter().filter_map(last);
    capacities
        .min_by(f64::total_cmp)
        .context("no capacity was measured")
}

/// Latencies at shares of this many MB/s.
pub(crate) fn latencies(run: &mut Run<'_>, server: &Server, side: Side, least: f64) -> Result<()> {
    for share in &SHARES {
        let topic = run.topic(server, side, PARTITIONS)?;
        let acks = steady(&Steady {
            rate: records_a_second(least, share.percent),
            duration: run.times.steady / 2,
            ..run.steady(server, &topic)
        })?;
        for (metric, quantile, _) in share.quantiles {
            let value = acks.latency.value_at_quantile(quantile) as f64 / 1e3;
            run.samples.add(metric, side, value);
        }
        workload::delete_topic(server.address(), &topic)?;
        rustix::fs::sync();
    }
    Ok(())
}

fn records_a_second(megabytes: f64, percent: u32) -> f64 {
    megabytes * 1e6 / RECORD as f64 * f64::from(percent) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_records() {
        assert_eq!(records_a_second(102.4, 10), 10_000.0);
        assert_eq!(records_a_second(102.4, 80), 80_000.0);
    }

    #[test]
    fn metrics_are_named_by_their_share_and_quantile() {
        for share in &SHARES {
            for (metric, quantile, name) in share.quantiles {
                assert_eq!(metric, format!("{} % {name}", share.percent));
                assert_eq!(name, format!("p{}", (quantile * 1000.0).round() / 10.0));
            }
        }
    }
}
