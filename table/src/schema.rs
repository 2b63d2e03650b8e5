//! The columns of a table, the same in Parquet and Iceberg.
//!
//! | field | column | type (Iceberg) | what it holds |
//! |---|---|---|---|
//! | 1 | `kafka_partition` | int | the partition's index |
//! | 2 | `kafka_offset` | long | the record's offset |
//! | 3 | `kafka_timestamp` | timestamptz? | its timestamp |
//! | 4 | `kafka_timestamp_raw` | long? | milliseconds, only where field 3 is null |
//! | 5 | `kafka_timestamp_type` | int | 0 CreateTime, 1 LogAppendTime |
//! | 6 | `kafka_key` | binary? | |
//! | 7 | `kafka_headers` | list of struct | in order, with repeated keys |
//! | 8 | `….element` | struct | |
//! | 9 | `….header_key` | string | as UTF-8, wrong bytes replaced |
//! | 10 | `….header_value` | binary? | |
//! | 11 | `….header_key_raw` | binary? | the key's bytes, only where field 9 is not them |
//! | 12 | `kafka_value` | binary? | |
//!
//! Names are reserved in no engine, also not inside the struct. What an engine's type cannot hold
//! is kept beside it in a column that is null otherwise, so nothing is lost and nothing that is
//! ordinary costs more: a timestamp that is missing (-1) or whose microseconds exceed 64 bits; a
//! header's key that is not UTF-8.
//!
//! Fields from 1000 on are kept for columns decoded from keys and values. **A field's id is never
//! used again.**
//!
//! Values come last, so that everything else of a row group lies together in front of them.

use frazil_core::batch::NO_TIMESTAMP;

/// Parquet's physical types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Physical {
    I32,
    I64,
    Bytes,
}

/// A column of a file: a leaf of the schema.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) field: u32,
    /// Path from the root.
    pub(crate) path: &'static [&'static str],
    pub(crate) physical: Physical,
    /// Largest definition level: how many things on the path may be absent.
    pub(crate) def_max: u8,
    /// Largest repetition level.
    pub(crate) rep_max: u8,
}

const LIST: [&str; 4] = ["kafka_headers", "list", "element", ""];

const fn leaf(field: u32, path: &'static [&'static str], physical: Physical, def_max: u8) -> Leaf {
    Leaf {
        field,
        path,
        physical,
        def_max,
        rep_max: 0,
    }
}

const fn header(field: u32, path: &'static [&'static str], def_max: u8) -> Leaf {
    Leaf {
        rep_max: 1,
        ..leaf(field, path, Physical::Bytes, def_max)
    }
}

pub(crate) const PARTITION: usize = 0;
pub(crate) const OFFSET: usize = 1;
pub(crate) const TIMESTAMP: usize = 2;
pub(crate) const TIMESTAMP_RAW: usize = 3;
pub(crate) const TIMESTAMP_TYPE: usize = 4;
pub(crate) const KEY: usize = 5;
pub(crate) const HEADER_KEY: usize = 6;
pub(crate) const HEADER_VALUE: usize = 7;
pub(crate) const HEADER_KEY_RAW: usize = 8;
pub(crate) const VALUE: usize = 9;
pub(crate) const LEAVES: usize = 10;

/// The columns, in the order in which they stand in a row group; the constants above index it.
pub(crate) static COLUMNS: [Leaf; LEAVES] = [
    leaf(1, &["kafka_partition"], Physical::I32, 0),
    leaf(2, &["kafka_offset"], Physical::I64, 0),
    leaf(3, &["kafka_timestamp"], Physical::I64, 1),
    leaf(4, &["kafka_timestamp_raw"], Physical::I64, 1),
    leaf(5, &["kafka_timestamp_type"], Physical::I32, 0),
    leaf(6, &["kafka_key"], Physical::Bytes, 1),
    header(9, &[LIST[0], LIST[1], LIST[2], "header_key"], 1),
    header(10, &[LIST[0], LIST[1], LIST[2], "header_value"], 2),
    header(11, &[LIST[0], LIST[1], LIST[2], "header_key_raw"], 2),
    leaf(12, &["kafka_value"], Physical::Bytes, 1),
];

/// Microseconds of a record's timestamp, if a timestamp of the table can be it.
pub(crate) fn micros(timestamp_ms: i64) -> Option<i64> {
    match timestamp_ms {
        NO_TIMESTAMP => None,
        other => other.checked_mul(1000),
    }
}

/// The table's Iceberg schema, as its metadata and the key `iceberg.schema` of every file hold it.
pub const ICEBERG_SCHEMA: &str = concat!(
    r#"{"type":"struct","schema-id":0,"fields":["#,
    r#"{"id":1,"name":"kafka_partition","required":true,"type":"int"},"#,
    r#"{"id":2,"name":"kafka_offset","required":true,"type":"long"},"#,
    r#"{"id":3,"name":"kafka_timestamp","required":false,"type":"timestamptz"},"#,
    r#"{"id":4,"name":"kafka_timestamp_raw","required":false,"type":"long"},"#,
    r#"{"id":5,"name":"kafka_timestamp_type","required":true,"type":"int"},"#,
    r#"{"id":6,"name":"kafka_key","required":false,"type":"binary"},"#,
    r#"{"id":7,"name":"kafka_headers","required":true,"type":{"type":"list","element-id":8,"#,
    r#""element-required":true,"element":{"type":"struct","fields":["#,
    r#"{"id":9,"name":"header_key","required":true,"type":"string"},"#,
    r#"{"id":10,"name":"header_value","required":false,"type":"binary"},"#,
    r#"{"id":11,"name":"header_key_raw","required":false,"type":"binary"}]}}},"#,
    r#"{"id":12,"name":"kafka_value","required":false,"type":"binary"}]}"#,
);
