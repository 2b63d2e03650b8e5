//! Partitions by time: which value of the table's partition spec a row has, and a file.
//!
//! | `frazil.table.partition.by` | spec | field | values count from 1970 |
//! |---|---|---|---|
//! | none | 0 | | |
//! | day | 1 | 1000 `kafka_timestamp_day` | days |
//! | hour | 2 | 1001 `kafka_timestamp_hour` | hours |
//! | month | 3 | 1002 `kafka_timestamp_month` | months |
//! | year | 4 | 1003 `kafka_timestamp_year` | years |
//!
//! The ids are the same in every table, so a setting that goes and comes back finds its spec again.
//!
//! Invariant: a file is in a partition only if all its rows are. Others are in spec 0, where the
//! bounds of `kafka_timestamp` alone say what they hold.
//!
//! Source: Apache Iceberg table spec, "Partition Transforms".

use frazil_core::batch::NO_TIMESTAMP;
pub use frazil_core::topic_config::PartitionBy;
use serde_json::{Value, json};

use crate::manifest::GroupRef;
use crate::schema::{COLUMNS, TIMESTAMP, micros};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The partition of a row or a file: its spec and the value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    by: PartitionBy,
    value: Option<i32>,
}

impl Partition {
    /// Of files that are in none.
    pub const NONE: Self = Self {
        by: PartitionBy::None,
        value: None,
    };

    /// The partition of a row with this timestamp in milliseconds. That of a row whose
    /// `kafka_timestamp` is null has the value null. [`Self::NONE`] if the value of the time has no
    /// place in 32 bits, as hours after the year 246 000 have none.
    pub fn of(by: PartitionBy, timestamp_ms: i64) -> Self {
        let Some(micros) = micros(timestamp_ms) else {
            return Self::null(by);
        };
        let day = (micros / 1000).div_euclid(DAY_MS);
        let value = match by {
            PartitionBy::None => return Self::NONE,
            PartitionBy::Hour => (micros / 1000).div_euclid(HOUR_MS),
            PartitionBy::Day => day,
            PartitionBy::Month => month(day),
            PartitionBy::Year => month(day).div_euclid(12),
        };
        i32::try_from(value).map_or(Self::NONE, |value| Self {
            by,
            value: Some(value),
        })
    }

    /// The one partition of all rows whose timestamps are in `min_ms..=max_ms`; [`Self::NONE`] if
    /// they may be in several.
    pub fn of_range(by: PartitionBy, min_ms: i64, max_ms: i64) -> Self {
        let ends = [min_ms, max_ms].map(|end| Self::of(by, end));
        // Between two times of one value no time is null, but for the one that means none; between
        // two nulls every time may lie.
        let between = match ends[0].value {
            Some(_) => !(min_ms..=max_ms).contains(&NO_TIMESTAMP),
            None => min_ms == max_ms || (min_ms > 0) == (max_ms > 0) && max_ms != NO_TIMESTAMP,
        };
        if ends[0] == ends[1] && between {
            ends[0]
        } else {
            Self::NONE
        }
    }

    /// The one partition of all rows of these row groups; [`Self::NONE`] if they may be in several,
    /// or there is no row.
    pub fn of_groups<'a>(by: PartitionBy, groups: impl IntoIterator<Item = &'a GroupRef>) -> Self {
        let groups = groups.into_iter().filter(|group| group.records > 0);
        let parts =
            groups.map(|group| Self::of_range(by, group.min_timestamp, group.max_timestamp));
        let one = parts.map(Some).reduce(|a, b| if a == b { a } else { None });
        one.flatten().unwrap_or(Self::NONE)
    }

    fn null(by: PartitionBy) -> Self {
        Self { by, value: None }
    }

    /// The spec.
    pub fn by(self) -> PartitionBy {
        self.by
    }

    /// What the spec's transform makes of the times; `None` is null. Of [`Self::NONE`] it is `None`.
    pub fn value(self) -> Option<i32> {
        self.value
    }

    /// One that a manifest of spec `by` has.
    pub(super) fn read(by: PartitionBy, value: Option<i32>) -> Self {
        Self { by, value }
    }
}

/// The month, from 1970 on, of a day, from 1970 on, in the proleptic Gregorian calendar.
fn month(day: i64) -> i64 {
    // Years that begin in March have their leap day at their end, and eras of 400 of them all have
    // 146 097 days.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day = day.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    (era * 400 + year - 1970) * 12 + march + 2
}

/// A partition spec: how it is named in metadata and manifests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) by: PartitionBy,
    pub(super) id: i32,
    transform: &'static str,
    /// As Avro has the value.
    avro: &'static str,
}

const FIRST_FIELD: i32 = 1000;

impl Spec {
    pub(super) const ALL: [Self; 5] = [
        Self::new(PartitionBy::None, 0, "", ""),
        // Iceberg's libraries have days as dates, which are the same integers.
        Self::new(
            PartitionBy::Day,
            1,
            "day",
            r#"{"type":"int","logicalType":"date"}"#,
        ),
        Self::new(PartitionBy::Hour, 2, "hour", r#""int""#),
        Self::new(PartitionBy::Month, 3, "month", r#""int""#),
        Self::new(PartitionBy::Year, 4, "year", r#""int""#),
    ];

    const fn new(by: PartitionBy, id: i32, transform: &'static str, avro: &'static str) -> Self {
        Self {
            by,
            id,
            transform,
            avro,
        }
    }

    pub(super) fn of(by: PartitionBy) -> Self {
        let spec = Self::ALL.into_iter().find(|spec| spec.by == by);
        spec.expect("each has one")
    }

    pub(super) fn with_id(id: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|spec| i64::from(spec.id) == id)
    }

    /// The id of its last field, or the one before the first there can be.
    pub(super) fn last_field(self) -> i32 {
        FIRST_FIELD - 1 + self.id
    }

    fn name(self) -> String {
        format!("{}_{}", COLUMNS[TIMESTAMP].path[0], self.transform)
    }

    /// Its fields as JSON.
    pub(super) fn fields(self) -> Value {
        if self.by == PartitionBy::None {
            return json!([]);
        }
        json!([{
            "name": self.name(),
            "transform": self.transform,
            "source-id": COLUMNS[TIMESTAMP].field,
            "field-id": self.last_field(),
        }])
    }

    pub(super) fn json(self) -> Value {
        json!({"spec-id": self.id, "fields": self.fields()})
    }

    /// The fields of the Avro record that holds a partition's values.
    pub(super) fn avro_fields(self) -> String {
        if self.by == PartitionBy::None {
            return "[]".to_owned();
        }
        format!(
            r#"[{{"name":"{}","type":["null",{}],"default":null,"field-id":{}}}]"#,
            self.name(),
            self.avro,
            self.last_field(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [PartitionBy; 4] = [
        PartitionBy::Hour,
        PartitionBy::Day,
        PartitionBy::Month,
        PartitionBy::Year,
    ];
    const FAR: i64 = i64::MAX / 1000;

    fn values(timestamp_ms: i64) -> [Option<i32>; 4] {
        ALL.map(|by| {
            let partition = Partition::of(by, timestamp_ms);
            assert!(partition.by() == by || partition == Partition::NONE);
            partition.value()
        })
    }

    #[test]
    fn rows_have_the_values_that_the_transforms_say() {
        let far_day = 106_751_991;
        for (timestamp, expected) in [
            (0, [0, 0, 0, 0]),
            // 2017-11-16T22:31:08, the example of the table spec's appendix.
            (1_510_871_468_000, [419_686, 17_486, 574, 47]),
            // The last day of February 2000, and the first of March.
            (951_782_400_000, [264_384, 11_016, 361, 30]),
            (951_868_800_000, [264_408, 11_017, 362, 30]),
            // Before 1970 values are rounded down, not towards 0.
            (-2, [-1, -1, -1, -1]),
            (-DAY_MS, [-24, -1, -1, -1]),
            (-DAY_MS - 1, [-25, -2, -1, -1]),
            // 1969-01-01 and the moment before.
            (-365 * DAY_MS, [-365 * 24, -365, -12, -1]),
            (-365 * DAY_MS - 1, [-365 * 24 - 1, -366, -13, -2]),
        ] {
            assert_eq!(values(timestamp), expected.map(Some), "{timestamp}");
        }
        // No such hour in 32 bits.
        assert_eq!(values(FAR)[..2], [None, Some(far_day)]);
        assert_eq!(Partition::of(PartitionBy::Hour, FAR), Partition::NONE);
        for nothing in [-1, FAR + 1, -FAR - 1, i64::MIN, i64::MAX] {
            assert_eq!(values(nothing), [None; 4], "{nothing}");
            assert_eq!(
                Partition::of(PartitionBy::Hour, nothing).by(),
                PartitionBy::Hour
            );
        }
        assert_eq!(Partition::of(PartitionBy::None, 5), Partition::NONE);
    }

    #[test]
    fn a_range_of_times_is_in_a_partition_or_in_several() {
        let day = |min, max| Partition::of_range(PartitionBy::Day, min, max);
        let null = Partition::null(PartitionBy::Day);
        assert_eq!(day(0, DAY_MS - 1).value(), Some(0));
        assert_eq!(day(0, DAY_MS), Partition::NONE);
        assert_eq!(day(-DAY_MS, -2).value(), Some(-1));
        // -1 is no time.
        assert_eq!(day(-DAY_MS, -1), Partition::NONE);
        assert_eq!(day(-1, 5), Partition::NONE);
        assert_eq!(day(-1, -1), null);
        assert_eq!(day(i64::MAX - 5, i64::MAX), null);
        assert_eq!(day(i64::MIN, -FAR - 1), null);
        // Everything may lie between.
        assert_eq!(day(i64::MIN, i64::MAX), Partition::NONE);
        assert_eq!(day(-1, i64::MAX), Partition::NONE);
        assert_eq!(day(i64::MIN, -1), Partition::NONE);
    }

    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![
            -3i64..3,
            -2 * DAY_MS..2 * DAY_MS,
            0..100 * 365 * DAY_MS,
            FAR - 2..FAR + 3,
            -FAR - 2..-FAR + 3,
            any::<i64>(),
        ]
    }

    proptest! {
        /// Also times between those of the rows that were looked at.
        #[test]
        fn all_times_of_a_range_are_in_its_partition(
            mut times in [time(), time(), time()],
            near in any::<bool>(),
            by in prop::sample::select(ALL.to_vec()),
        ) {
            if near {
                times[2] = times[0].saturating_add(times[2] % (2 * DAY_MS));
                times[1] = times[0].saturating_add(times[1] % (2 * DAY_MS));
            }
            times.sort();
            let all = Partition::of_range(by, times[0], times[2]);
            if all != Partition::NONE {
                for time in times {
                    prop_assert_eq!(Partition::of(by, time), all);
                }
            }
        }

        #[test]
        fn months_and_years_begin_when_the_calendar_says(year in -290_000i64..290_000) {
            // Days before a year, counted the plain way.
            let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
            let leap = leaps(year) - leaps(year - 1);
            let mut day = 365 * (year - 1970) + leaps(year - 1) - leaps(1969);
            for (index, length) in [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
                .into_iter()
                .enumerate()
            {
                let expected = (year - 1970) * 12 + index as i64;
                prop_assert_eq!(month(day), expected);
                prop_assert_eq!(month(day + length - 1), expected);
                day += length;
            }
        }
    }
}
