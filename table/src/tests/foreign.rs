//! What another implementation of Parquet makes of the files: the parquet crate.

use parquet::file::metadata::KeyValue;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::file::statistics::Statistics;
use parquet::record::{Field, Row as ForeignRow};

use super::*;
use crate::schema::ICEBERG_SCHEMA;

fn open(file: &File) -> SerializedFileReader<Bytes> {
    let options = ReadOptionsBuilder::new().with_page_index().build();
    SerializedFileReader::new_with_options(file.bytes.clone(), options).unwrap()
}

fn blob(field: &Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        Field::Str(text) => Some(text.clone().into_bytes()),
        Field::Null => None,
        other => panic!("{other:?}"),
    }
}

fn row(foreign: &ForeignRow) -> (i32, Row) {
    let fields: Vec<_> = foreign.get_column_iter().collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "kafka_partition",
            "kafka_offset",
            "kafka_timestamp",
            "kafka_timestamp_raw",
            "kafka_timestamp_type",
            "kafka_key",
            "kafka_headers",
            "kafka_value"
        ]
    );
    let fields: Vec<_> = fields.into_iter().map(|(_, field)| field).collect();
    let (Field::Int(partition), Field::Long(offset)) = (fields[0], fields[1]) else {
        panic!("{fields:?}");
    };
    let timestamp = match (fields[2], fields[3]) {
        (Field::TimestampMicros(micros), Field::Null) => micros.div_euclid(1000),
        (Field::Null, Field::Long(raw)) => *raw,
        other => panic!("{other:?}"),
    };
    let Field::ListInternal(headers) = fields[6] else {
        panic!("{fields:?}");
    };
    let headers = headers.elements().iter().map(|header| {
        let Field::Group(header) = header else {
            panic!("{header:?}");
        };
        let header: Vec<_> = header.get_column_iter().map(|(_, field)| field).collect();
        let key = blob(header[2]).or_else(|| blob(header[0]));
        (key.unwrap(), blob(header[1]))
    });
    let row = Row {
        offset: *offset,
        timestamp,
        append_time: *fields[4] == Field::Int(1),
        key: blob(fields[5]),
        value: blob(fields[7]),
        headers: headers.collect(),
    };
    (*partition, row)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn another_implementation_reads_the_same_rows(partitions in partitions()) {
        let (file, rows) = write(small(), &partitions);
        let reader = open(&file);
        let seen: Vec<_> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|foreign| row(&foreign.unwrap()))
            .collect();
        let expected: Vec<_> = rows
            .into_iter()
            .enumerate()
            .flat_map(|(partition, rows)| rows.into_iter().map(move |row| (partition as i32, row)))
            .collect();
        prop_assert_eq!(seen, expected);
    }

    /// Its page index and statistics say the same as ours.
    #[test]
    fn another_implementation_finds_offsets_without_scanning(partitions in partitions()) {
        let (file, rows) = write(small(), &partitions);
        let reader = open(&file);
        let metadata = reader.metadata();
        prop_assert_eq!(
            metadata.file_metadata().num_rows() as usize,
            rows.iter().map(Vec::len).sum::<usize>()
        );
        let groups: Vec<_> = file.groups.iter().filter(|group| group.records > 0).collect();
        prop_assert_eq!(metadata.num_row_groups(), groups.len());
        for (number, group) in groups.into_iter().enumerate() {
            let index = file.index(group);
            let chunks = metadata.row_group(number);
            prop_assert_eq!(chunks.num_rows() as u32, group.records);
            prop_assert_eq!(chunks.sorting_columns().map(Vec::len), Some(2));
            let Some(Statistics::Int32(partition)) = chunks.column(0).statistics() else {
                panic!("no statistics of partitions");
            };
            prop_assert_eq!(partition.min_opt(), Some(&group.partition));
            prop_assert_eq!(partition.max_opt(), Some(&group.partition));
            let first = index.pages[0].first.0;
            let Some(Statistics::Int64(offsets)) = chunks.column(1).statistics() else {
                panic!("no statistics of offsets");
            };
            prop_assert_eq!(offsets.min_opt(), Some(&first));
            prop_assert!(*offsets.max_opt().unwrap() < group.end.0);
            let ColumnIndexMetaData::INT64(offsets) = &metadata.column_index().unwrap()[number][1]
            else {
                panic!("no index of offsets");
            };
            let firsts: Vec<_> = offsets.min_values_iter().map(|min| *min.unwrap()).collect();
            let ours: Vec<_> = index.pages.iter().map(|page| page.first.0).collect();
            prop_assert_eq!(firsts, ours);
            for (column, places) in metadata.offset_index().unwrap()[number].iter().enumerate() {
                for (page, place) in places.page_locations().iter().enumerate() {
                    let ours = index.bytes(group, column, page..page + 1);
                    let end = place.offset + i64::from(place.compressed_page_size);
                    prop_assert_eq!(place.offset as u64..end as u64, ours);
                }
            }
        }
    }
}

#[test]
fn files_say_what_they_are() {
    let batch = BatchBuilder::new().record(1, None, None).build();
    let (file, _) = write(small(), &[vec![(batch, 0)]]);
    let reader = open(&file);
    let file = reader.metadata().file_metadata();
    assert_eq!(file.created_by(), Some("frazil version 1 (build 1)"));
    let value = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    assert_eq!(
        file.key_value_metadata(),
        Some(&vec![
            value("frazil.format", "1"),
            value("iceberg.schema", ICEBERG_SCHEMA),
        ])
    );
    let ids: Vec<_> = file
        .schema_descr()
        .columns()
        .iter()
        .map(|column| column.self_type().get_basic_info().id())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 9, 10, 11, 12]);
}
