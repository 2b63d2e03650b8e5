//! How a topic becomes a table: the settings `frazil.table.…`.

/// What becomes of cold records: `frazil.table.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableMode {
    /// They move into the files of the table, which are their only copy.
    #[default]
    Shared,
    /// The same, and the table is published in another catalog too.
    Copy,
    /// Nothing moves any more. What has moved stays where it is.
    Off,
}

impl TableMode {
    /// Whether records become part of the table.
    pub const fn converts(self) -> bool {
        !matches!(self, Self::Off)
    }
}

/// By which part of the record's time files are partitioned: `frazil.table.partition.by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionBy {
    /// By none.
    None,
    /// By the hour.
    Hour,
    /// By the day.
    #[default]
    Day,
    /// By the month.
    Month,
    /// By the year.
    Year,
}

/// How long records stay in the table: `frazil.table.retention.ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableRetention {
    /// As long as in the log.
    #[default]
    AsLog,
    /// For ever.
    Forever,
    /// So many milliseconds, counted from the largest timestamp of their file.
    Ms(i64),
}

/// The settings of a topic's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// What becomes of cold records.
    pub mode: TableMode,
    /// How files are partitioned.
    pub partition_by: PartitionBy,
    /// Milliseconds after which a record should be in the table, not negative.
    pub freshness_ms: i64,
    /// How long records stay in it.
    pub retention: TableRetention,
    /// Milliseconds for which a snapshot stays after the next one was made, not negative.
    pub snapshot_retention_ms: i64,
}

impl TableConfig {
    /// The settings, as `integer` and `text` know them by their names.
    pub(super) fn resolve(
        integer: impl Fn(&'static str) -> i64,
        text: impl Fn(&'static str) -> String,
    ) -> Self {
        Self {
            mode: match text("frazil.table.mode").as_str() {
                "off" => TableMode::Off,
                "copy" => TableMode::Copy,
                _ => TableMode::Shared,
            },
            partition_by: match text("frazil.table.partition.by").as_str() {
                "none" => PartitionBy::None,
                "hour" => PartitionBy::Hour,
                "month" => PartitionBy::Month,
                "year" => PartitionBy::Year,
                _ => PartitionBy::Day,
            },
            freshness_ms: integer("frazil.table.freshness.ms"),
            retention: match integer("frazil.table.retention.ms") {
                -2 => TableRetention::AsLog,
                -1 => TableRetention::Forever,
                ms => TableRetention::Ms(ms),
            },
            snapshot_retention_ms: integer("frazil.table.snapshot.retention.ms"),
        }
    }
}
