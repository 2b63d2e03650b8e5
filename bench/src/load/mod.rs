//! A load generator that costs little itself, so that what is measured is the broker.
//!
//! Batches are built once; a request differs from the one before in its correlation id. Connections
//! are blocking sockets with threads of their own. Three kinds of load:
//!
//! - [`flood`]: every connection keeps a number of requests on the way, as fast as it goes;
//! - [`steady`]: records are due at fixed times, whatever the broker does. What is due while too
//!   many requests are on the way gathers into larger batches, as in Kafka's own producer with
//!   `linger.ms=0`; the latency of each record counts from the moment it was due, so a broker that
//!   stalls does not hide what it delayed (no coordinated omission);
//! - [`Consumers`]: consumers with one request on the way, as Kafka's own.

pub(crate) mod batch;
pub(crate) mod command;
pub(crate) mod consume;
pub(crate) mod frames;
pub(crate) mod produce;

pub(crate) use consume::{Consumer, Consumers};
pub(crate) use produce::{Flood, flood, steady};

use hdrhistogram::Histogram;

/// Latencies in microseconds, up to two minutes.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 3)?)
}
