use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What the catalog counts.
#[derive(Clone, Default, Debug)]
pub struct Metrics {
    /// Requests.
    pub requests: Counter,
    /// Requests that asked for what does not exist or is not allowed.
    pub refusals: Counter,
    /// Requests that could not be answered.
    pub failures: Counter,
    /// Metadata objects read from the store.
    pub fetched: Counter,
    /// Memory for metadata.
    pub cached: Gauge,
}

impl Metrics {
    /// Registers everything under `frazil_catalog_…`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("frazil_catalog");
        r.register(
            "requests",
            "Requests to the table catalog",
            self.requests.clone(),
        );
        r.register(
            "refusals",
            "Requests to the table catalog for what does not exist or is not allowed",
            self.refusals.clone(),
        );
        r.register(
            "failures",
            "Requests to the table catalog that could not be answered",
            self.failures.clone(),
        );
        r.register(
            "metadata_reads",
            "Tables' metadata objects read from the object store",
            self.fetched.clone(),
        );
        r.register_with_unit(
            "metadata_cache",
            "Tables' metadata in memory",
            Unit::Bytes,
            self.cached.clone(),
        );
    }
}
