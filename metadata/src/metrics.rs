//! What the control plane counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The control plane's metrics. Cheap to clone; the clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) commits: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) barriers: Counter,
    pub(crate) syncs: Counter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) applied_index: Gauge,
    pub(crate) is_leader: Gauge,
    pub(crate) disk_full: Gauge,
    pub(crate) snapshots_built: Counter,
    pub(crate) snapshots_installed: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 µs to 13 s, and 10 µs to 2.6 s.
        Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 19)),
            barriers: Counter::default(),
            syncs: Counter::default(),
            sync_seconds: Histogram::new(exponential_buckets(10e-6, 2.0, 19)),
            applied_index: Gauge::default(),
            is_leader: Gauge::default(),
            disk_full: Gauge::default(),
            snapshots_built: Counter::default(),
            snapshots_installed: Counter::default(),
        }
    }
}

impl Metrics {
    /// New metrics, registered under `frazil_metadata_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("frazil_metadata");
        registry.register(
            "commits",
            "Commands of this node whose outcome became known",
            metrics.commits.clone(),
        );
        registry.register(
            "commit_seconds",
            "Time from issuing a command to its outcome being in the local image",
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "barriers",
            "Read indexes asked of the leader; one serves all waiters of the moment",
            metrics.barriers.clone(),
        );
        registry.register(
            "log_syncs",
            "Syncs of the Raft log and vote",
            metrics.syncs.clone(),
        );
        registry.register(
            "log_sync_seconds",
            "Time of one write and sync of the Raft log",
            metrics.sync_seconds.clone(),
        );
        registry.register(
            "applied_index",
            "Log index up to which the local image has applied",
            metrics.applied_index.clone(),
        );
        registry.register(
            "is_leader",
            "1 if this node leads the quorum",
            metrics.is_leader.clone(),
        );
        registry.register(
            "disk_full",
            "1 while this voter waits for room on its disk and acknowledges nothing",
            metrics.disk_full.clone(),
        );
        registry.register(
            "snapshots_built",
            "Snapshots of the state written by this node",
            metrics.snapshots_built.clone(),
        );
        registry.register(
            "snapshots_installed",
            "Snapshots of the state received from another node",
            metrics.snapshots_installed.clone(),
        );
        metrics
    }
}
