use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the cold path counts.
#[derive(Clone, Default, Debug)]
pub struct Metrics {
    /// Extents below a raised log start.
    pub expired_extents: Counter,
    /// Retired objects deleted.
    pub reclaimed: Counter,
    /// Orphaned objects deleted.
    pub orphans: Counter,
    /// Retired objects that wait for their grace period.
    pub waiting: Gauge,
    /// Rounds that ended with an error.
    pub failures: Counter,
}

impl Metrics {
    /// Registers everything under `frazil_compactor_…`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("frazil_compactor");
        r.register(
            "expired_extents",
            "Extents that retention put below the log start",
            self.expired_extents.clone(),
        );
        r.register(
            "reclaimed_objects",
            "Retired objects deleted",
            self.reclaimed.clone(),
        );
        r.register(
            "orphaned_objects",
            "Uploaded but never committed objects deleted",
            self.orphans.clone(),
        );
        r.register(
            "waiting_objects",
            "Retired objects seen waiting for their grace period",
            self.waiting.clone(),
        );
        r.register(
            "failures",
            "Rounds of a chore that ended with an error",
            self.failures.clone(),
        );
    }
}
