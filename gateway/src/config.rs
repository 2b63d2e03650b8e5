//! The gateway's settings, as plain values with units.

use std::collections::BTreeMap;
use std::time::Duration;

/// Settings of a gateway. [`Config::default`] gives Kafka's defaults where Kafka has them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest request in bytes (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Bytes of requests that may be in memory at once, over all connections: three quarters of it
    /// of Produce requests, a quarter of others. Connections wait before they read more.
    pub requests_in_flight_bytes_max: usize,
    /// Connections served at once; further ones are closed as soon as they are accepted.
    pub connections_max: usize,
    /// Produce requests of one connection that may be staged and not yet answered.
    pub pipelined_produce_max: usize,
    /// How long a new connection may take until its first request is complete.
    pub first_request_timeout: Duration,
    /// How long a request may take from its first byte to its last.
    pub request_timeout: Duration,
    /// How long a connection may be silent between requests (`connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// How long a client may take to accept a whole response.
    pub response_timeout: Duration,
    /// How long open connections are given to finish when the gateway drains.
    pub drain_timeout: Duration,
    /// Whether Metadata may create topics (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of topics whose creator names none (`num.partitions`).
    pub num_partitions: i32,
    /// What topics whose creator names none report (`default.replication.factor`).
    pub default_replication_factor: i16,
    /// What the broker was started with, by Kafka's names: reported, and where they stand for
    /// settings of topics (`log.retention.ms`, …) in force for topics that do not set these.
    pub broker_settings: BTreeMap<String, String>,
    /// Consumer groups.
    pub groups: crate::group::Config,
    /// The most bytes of records in one Fetch response (`fetch.max.bytes`); one batch may exceed
    /// it.
    pub fetch_bytes_max: usize,
    /// Bytes of records that Fetch responses may hold in memory at once, over all connections.
    pub fetches_in_flight_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 << 20,
            requests_in_flight_bytes_max: 512 << 20,
            connections_max: 10_000,
            pipelined_produce_max: 128,
            first_request_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            response_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            auto_create_topics: true,
            num_partitions: 1,
            default_replication_factor: 1,
            broker_settings: BTreeMap::new(),
            groups: crate::group::Config::default(),
            fetch_bytes_max: 55 << 20,
            fetches_in_flight_bytes_max: 512 << 20,
        }
    }
}
