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
    /// Registers everything: chores under `frazil_compactor_…`, tables under `frazil_table_…`.
    pub fn register(&self, registry: &mut Registry) {
        // By name, so that none is forgotten.
        let Self {
            expired_extents,
            reclaimed,
            orphans,
            waiting,
            failures,
            jobs,
            refused_jobs,
            failed_jobs,
            converted_bytes,
            converted_rows,
            written_bytes,
            merges,
            merged_bytes,
            table_files,
            deleted_objects,
            unsound_tables,
            waiting_bytes,
            published,
            publish_failures,
            unpublished,
        } = self;
        let chores = registry.sub_registry_with_prefix("frazil_compactor");
        let counters = [
            (
                "expired_extents",
                "Extents that retention put below the log start",
                expired_extents,
            ),
            ("reclaimed_objects", "Retired objects deleted", reclaimed),
            (
                "orphaned_objects",
                "Uploaded but never committed objects deleted",
                orphans,
            ),
            (
                "published_tables",
                "Commits of tables to the other catalog (frazil.table.mode = copy)",
                published,
            ),
            (
                "publish_failures",
                "Attempts to bring a table in the other catalog up to date that failed",
                publish_failures,
            ),
            (
                "failures",
                "Rounds of a chore that ended with an error",
                failures,
            ),
        ];
        for (name, help, counter) in counters {
            chores.register(name, help, counter.clone());
        }
        chores.register(
            "waiting_objects",
            "Retired objects seen waiting for their grace period",
            waiting.clone(),
        );
        chores.register(
            "unpublished_tables",
            "Tables of which the other catalog does not have the newest snapshot",
            unpublished.clone(),
        );
        let tables = registry.sub_registry_with_prefix("frazil_table");
        let counters = [
            (
                "jobs",
                "Conversions that were applied, or had nothing to do",
                jobs,
            ),
            (
                "refused_jobs",
                "Conversions that another compactor, or a change of the log, made vain",
                refused_jobs,
            ),
            ("failed_jobs", "Conversions that failed", failed_jobs),
            (
                "converted_bytes",
                "Bytes of segments converted",
                converted_bytes,
            ),
            ("converted_rows", "Rows converted", converted_rows),
            (
                "written_bytes",
                "Bytes of data files written by conversions",
                written_bytes,
            ),
            ("merges", "Merges of data files that were applied", merges),
            (
                "merged_bytes",
                "Bytes of data files written by merges",
                merged_bytes,
            ),
            (
                "deleted_objects",
                "Objects of tables deleted",
                deleted_objects,
            ),
            (
                "unsound_tables",
                "Searches for orphans that were given up because something of the table is damaged",
                unsound_tables,
            ),
        ];
        for (name, help, counter) in counters {
            tables.register(name, help, counter.clone());
        }
        tables.register(
            "files",
            "Data files of the table that was looked at last",
            table_files.clone(),
        );
        tables.register(
            "waiting_bytes",
            "Bytes of segments that wait for conversion",
            waiting_bytes.clone(),
        );
    }
}
