//! What is counted about requests that fail.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The counters of one store. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Requests that failed.
    pub failures: Counter,
    /// Of those, such that will fail until somebody changes something.
    pub permanent: Counter,
    /// Requests sent again.
    pub retries: Counter,
    /// Of those, such that the budget made wait.
    pub exhausted: Counter,
}

impl Metrics {
    /// Registers the metrics under `frazil_store_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("frazil_store");
        for (name, help, counter) in [
            (
                "failures",
                "Requests to the object store that failed",
                &self.failures,
            ),
            (
                "permanent_failures",
                "Requests that the object store refuses until settings, credentials or bucket change",
                &self.permanent,
            ),
            (
                "retries",
                "Requests to the object store that were sent again",
                &self.retries,
            ),
            (
                "retry_budget_exhausted",
                "Requests that waited for the retry budget before they were sent again",
                &self.exhausted,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}
