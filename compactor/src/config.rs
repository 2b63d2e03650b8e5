use std::collections::BTreeMap;
use std::time::Duration;

/// When and how the chores run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Between two rounds of retention (`log.retention.check.interval.ms`).
    pub retention_interval: Duration,
    /// Between two rounds of deleting retired objects.
    pub reclaim_interval: Duration,
    /// Between two searches for orphans, each of which lists the store. The first one comes after
    /// `reclaim_interval`, if that is shorter.
    pub sweep_interval: Duration,
    /// How long an object stays after the last reference to it has gone. Longer than the longest
    /// read, so that no reader meets a missing object.
    pub grace: Duration,
    /// Idle time after which an idempotent producer is forgotten (`producer.id.expiration.ms`).
    pub producer_expiration: Duration,
    /// Idle time after which an empty group's offsets are forgotten
    /// (`offsets.retention.minutes`).
    pub offsets_retention: Duration,
    /// The settings that topics fall back to, by the brokers' names.
    pub broker_defaults: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention_interval: Duration::from_secs(300),
            reclaim_interval: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(3600),
            grace: Duration::from_secs(600),
            producer_expiration: Duration::from_secs(24 * 3600),
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            broker_defaults: BTreeMap::new(),
        }
    }
}
