//! What the data plane counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The counters of one cache. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) puts: Counter,
    pub(crate) put_bytes: Counter,
    pub(crate) put_failures: Counter,
    pub(crate) put_seconds: Histogram,
    pub(crate) gets: Counter,
    pub(crate) get_bytes: Counter,
    pub(crate) get_failures: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) wal_syncs: Counter,
    pub(crate) wal_bytes: Counter,
    pub(crate) wal_sync_seconds: Histogram,
    pub(crate) tail_hits: Counter,
    pub(crate) block_hits: Counter,
    pub(crate) block_misses: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) peer_wal_reads: Counter,
    pub(crate) peer_failures: Counter,
    pub(crate) peer_blocks: Counter,
    pub(crate) peer_hedges: Counter,
    pub(crate) gets_hedged: Counter,
    pub(crate) peer_served: Counter,
    pub(crate) peer_bytes: Counter,
    pub(crate) peer_served_bytes: Counter,
    pub(crate) cold_reads: Counter,
    pub(crate) cold_hits: Counter,
    pub(crate) cold_misses: Counter,
    pub(crate) cold_gets: Counter,
    pub(crate) cold_get_bytes: Counter,
    pub(crate) cold_decoded_bytes: Counter,
    pub(crate) cold_decode_seconds: Histogram,
    pub(crate) tail_bytes: Gauge<u64, AtomicU64>,
    pub(crate) wal_held_bytes: Gauge<u64, AtomicU64>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// PUT requests sent.
    pub puts: u64,
    /// Bytes of segments uploaded.
    pub put_bytes: u64,
    /// PUT requests that failed.
    pub put_failures: u64,
    /// GET requests sent.
    pub gets: u64,
    /// Bytes received by GET requests.
    pub get_bytes: u64,
    /// Commits that were acknowledged by the quorum.
    pub commits: u64,
    /// Syncs of the write-ahead log.
    pub wal_syncs: u64,
    /// Bytes written into the write-ahead log.
    pub wal_bytes: u64,
    /// Reads that were answered from memory alone.
    pub tail_hits: u64,
    /// Blocks found in the block cache.
    pub block_hits: u64,
    /// Blocks that were not there.
    pub block_misses: u64,
    /// Reads that found their first records in a table.
    pub cold_reads: u64,
    /// Pages of tables found as record batches in memory.
    pub cold_hits: u64,
    /// Pages of tables that were not there as record batches.
    pub cold_misses: u64,
    /// GET requests for objects of tables; they are among `gets`.
    pub cold_gets: u64,
    /// Bytes received by them.
    pub cold_get_bytes: u64,
    /// Bytes of record batches made of tables.
    pub cold_decoded_bytes: u64,
    /// Extents read from write-ahead logs of other gateways.
    pub peer_wal_reads: u64,
    /// Blocks that another gateway had or fetched.
    pub peer_blocks: u64,
    /// Times that the store was asked because another gateway took long.
    pub peer_hedges: u64,
    /// Second GETs because the first took long; they are among `gets`.
    pub gets_hedged: u64,
    /// Requests to other gateways that were not answered, or with a failure.
    pub peer_failures: u64,
    /// Answers with bytes given to other gateways.
    pub peer_served: u64,
}

/// 0.1 ms to 26 s in steps of 2.
fn seconds() -> Histogram {
    Histogram::new((0..19).map(|n| 1e-4 * f64::from(1 << n)))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            puts: Counter::default(),
            put_bytes: Counter::default(),
            put_failures: Counter::default(),
            put_seconds: seconds(),
            gets: Counter::default(),
            get_bytes: Counter::default(),
            get_failures: Counter::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            commit_seconds: seconds(),
            wal_syncs: Counter::default(),
            wal_bytes: Counter::default(),
            wal_sync_seconds: seconds(),
            tail_hits: Counter::default(),
            block_hits: Counter::default(),
            block_misses: Counter::default(),
            corrupt: Counter::default(),
            peer_wal_reads: Counter::default(),
            peer_failures: Counter::default(),
            peer_blocks: Counter::default(),
            peer_hedges: Counter::default(),
            gets_hedged: Counter::default(),
            peer_served: Counter::default(),
            peer_bytes: Counter::default(),
            peer_served_bytes: Counter::default(),
            cold_reads: Counter::default(),
            cold_hits: Counter::default(),
            cold_misses: Counter::default(),
            cold_gets: Counter::default(),
            cold_get_bytes: Counter::default(),
            cold_decoded_bytes: Counter::default(),
            cold_decode_seconds: seconds(),
            tail_bytes: Gauge::default(),
            wal_held_bytes: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers the metrics under `frazil_cache_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("frazil_cache");
        let counters: [(&str, &str, &Counter); 27] = [
            ("puts", "PUT requests sent to the object store", &self.puts),
            (
                "put_failures",
                "PUT requests that failed",
                &self.put_failures,
            ),
            ("gets", "GET requests sent to the object store", &self.gets),
            (
                "get_failures",
                "GET requests that failed",
                &self.get_failures,
            ),
            (
                "commits",
                "Commits acknowledged by the metadata quorum",
                &self.commits,
            ),
            (
                "commit_failures",
                "Commits that failed",
                &self.commit_failures,
            ),
            ("wal_syncs", "Syncs of the write-ahead log", &self.wal_syncs),
            (
                "tail_hits",
                "Reads answered from memory alone",
                &self.tail_hits,
            ),
            (
                "block_hits",
                "Blocks found in the block cache",
                &self.block_hits,
            ),
            (
                "block_misses",
                "Blocks that were not in the block cache",
                &self.block_misses,
            ),
            (
                "corrupt",
                "Batches whose bytes did not match their checksum",
                &self.corrupt,
            ),
            (
                "peer_wal_reads",
                "Extents read from write-ahead logs of other gateways",
                &self.peer_wal_reads,
            ),
            (
                "peer_failures",
                "Requests to other gateways that failed",
                &self.peer_failures,
            ),
            (
                "peer_blocks",
                "Blocks that another gateway had or fetched",
                &self.peer_blocks,
            ),
            (
                "peer_hedges",
                "Times that the object store was asked because another gateway took long",
                &self.peer_hedges,
            ),
            (
                "gets_hedged",
                "Second GET requests because the first took long; they count as GETs too",
                &self.gets_hedged,
            ),
            (
                "peer_served",
                "Requests of other gateways answered with bytes",
                &self.peer_served,
            ),
            (
                "peer_received",
                "Bytes received from other gateways",
                &self.peer_bytes,
            ),
            (
                "peer_sent",
                "Bytes sent to other gateways",
                &self.peer_served_bytes,
            ),
            (
                "cold_reads",
                "Reads that found their first records in a table",
                &self.cold_reads,
            ),
            (
                "cold_hits",
                "Pages of tables found as record batches in memory",
                &self.cold_hits,
            ),
            (
                "cold_misses",
                "Pages of tables that were not there as record batches",
                &self.cold_misses,
            ),
            (
                "cold_gets",
                "GET requests for objects of tables; they are among all GETs",
                &self.cold_gets,
            ),
            (
                "cold_get",
                "Bytes received by GET requests for objects of tables",
                &self.cold_get_bytes,
            ),
            (
                "cold_decoded",
                "Bytes of record batches made of tables",
                &self.cold_decoded_bytes,
            ),
            ("put", "Bytes of segments uploaded", &self.put_bytes),
            ("get", "Bytes received by GET requests", &self.get_bytes),
        ];
        for (name, help, counter) in counters {
            if matches!(
                name,
                "put" | "get" | "peer_received" | "peer_sent" | "cold_get" | "cold_decoded"
            ) {
                registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
            } else {
                registry.register(name, help, counter.clone());
            }
        }
        registry.register_with_unit(
            "wal_written",
            "Bytes written into the write-ahead log",
            Unit::Bytes,
            self.wal_bytes.clone(),
        );
        registry.register_with_unit(
            "tail",
            "Bytes of recent segments held in memory",
            Unit::Bytes,
            self.tail_bytes.clone(),
        );
        registry.register_with_unit(
            "wal_held",
            "Bytes of batches in the write-ahead log that wait for their upload",
            Unit::Bytes,
            self.wal_held_bytes.clone(),
        );
        for (name, help, histogram) in [
            ("put", "Time of a successful PUT", &self.put_seconds),
            (
                "commit",
                "Time of a successful commit",
                &self.commit_seconds,
            ),
            (
                "cold_decode",
                "Time in which some pages of a table become record batches",
                &self.cold_decode_seconds,
            ),
            (
                "wal_sync",
                "Time of a write and sync of the write-ahead log",
                &self.wal_sync_seconds,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        Stats {
            puts: self.puts.get(),
            put_bytes: self.put_bytes.get(),
            put_failures: self.put_failures.get(),
            gets: self.gets.get(),
            get_bytes: self.get_bytes.get(),
            commits: self.commits.get(),
            wal_syncs: self.wal_syncs.get(),
            wal_bytes: self.wal_bytes.get(),
            tail_hits: self.tail_hits.get(),
            block_hits: self.block_hits.get(),
            block_misses: self.block_misses.get(),
            cold_reads: self.cold_reads.get(),
            cold_hits: self.cold_hits.get(),
            cold_misses: self.cold_misses.get(),
            cold_gets: self.cold_gets.get(),
            cold_get_bytes: self.cold_get_bytes.get(),
            cold_decoded_bytes: self.cold_decoded_bytes.get(),
            peer_wal_reads: self.peer_wal_reads.get(),
            peer_blocks: self.peer_blocks.get(),
            peer_hedges: self.peer_hedges.get(),
            gets_hedged: self.gets_hedged.get(),
            peer_failures: self.peer_failures.get(),
            peer_served: self.peer_served.get(),
        }
    }
}
