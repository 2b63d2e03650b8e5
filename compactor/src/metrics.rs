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
    /// Conversions that were applied, or had nothing to do.
    pub jobs: Counter,
    /// Conversions that another compactor, or a change of the log, made vain.
    pub refused_jobs: Counter,
    /// Conversions that failed.
    pub failed_jobs: Counter,
    /// Bytes of segments converted.
    pub converted_bytes: Counter,
    /// Rows converted.
    pub converted_rows: Counter,
    /// Bytes of data files written.
    pub written_bytes: Counter,
    /// Merges of files that were applied.
    pub merges: Counter,
    /// Bytes of data files written by merges; besides those that conversions wrote.
    pub merged_bytes: Counter,
    /// Data files of the table that was looked at last.
    pub table_files: Gauge,
    /// Objects of tables deleted.
    pub deleted_objects: Counter,
    /// Searches for orphans of a table that were given up because something of it is damaged.
    pub unsound_tables: Counter,
    /// Bytes of segments that wait for conversion.
    pub waiting_bytes: Gauge,
    /// Commits to another catalog.
    pub published: Counter,
    /// Commits to another catalog that failed.
    pub publish_failures: Counter,
    /// Tables of which the other catalog does not have the newest snapshot.
    pub unpublished: Gauge,
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
            "published_tables",
            "Commits of tables to the other catalog (frazil.table.mode = copy)",
            self.published.clone(),
        );
        r.register(
            "publish_failures",
            "Attempts to bring a table in the other catalog up to date that failed",
            self.publish_failures.clone(),
        );
        r.register(
            "unpublished_tables",
            "Tables of which the other catalog does not have the newest snapshot",
            self.unpublished.clone(),
        );
        r.register(
            "failures",
            "Rounds of a chore that ended with an error",
            self.failures.clone(),
        );
        let r = registry.sub_registry_with_prefix("frazil_table");
        for (name, help, counter) in [
            (
                "jobs",
                "Conversions that were applied, or had nothing to do",
                &self.jobs,
            ),
            (
                "refused_jobs",
                "Conversions that another compactor, or a change of the log, made vain",
                &self.refused_jobs,
            ),
            ("failed_jobs", "Conversions that failed", &self.failed_jobs),
            (
                "converted_bytes",
                "Bytes of segments converted",
                &self.converted_bytes,
            ),
            ("converted_rows", "Rows converted", &self.converted_rows),
            (
                "written_bytes",
                "Bytes of data files written",
                &self.written_bytes,
            ),
        ] {
            r.register(name, help, counter.clone());
        }
        r.register(
            "files",
            "Data files of the table that was looked at last",
            self.table_files.clone(),
        );
        r.register(
            "waiting_bytes",
            "Bytes of segments that wait for conversion",
            self.waiting_bytes.clone(),
        );
    }
}
