"""What PyArrow, DuckDB and Polars make of data files of tables.

Run by tests/engines/files. Of the golden file every value is known; of other files
the engines must agree with each other.
"""

import pathlib
import sys

import duckdb
import polars
import pyarrow.compute
import pyarrow.parquet
import pyiceberg.table

GOLDEN = (
    pathlib.Path(__file__).resolve().parents[2]
    / "tests" / "formats" / "golden" / "table-file-v1.parquet"
)

#: Every name unquoted, as a user writes it.
QUERY = """
    SELECT kafka_partition, kafka_offset, epoch_us(kafka_timestamp) AS micros,
           kafka_timestamp_raw, kafka_timestamp_type, kafka_key,
           list_transform(kafka_headers, lambda h: h.header_key) AS header_keys,
           list_transform(kafka_headers, lambda h: h.header_value) AS header_values,
           list_transform(kafka_headers, lambda h: h.header_key_raw) AS header_keys_raw,
           kafka_value
    FROM read_parquet(?)
    ORDER BY kafka_partition, kafka_offset
"""

TYPES = {
    "kafka_partition": "int32",
    "kafka_offset": "int64",
    "kafka_timestamp": "timestamp[us, tz=UTC]",
    "kafka_timestamp_raw": "int64",
    "kafka_timestamp_type": "int32",
    "kafka_key": "binary",
    "kafka_headers": "list<element: struct<header_key: string not null, "
    "header_value: binary, header_key_raw: binary> not null>",
    "kafka_value": "binary",
}

FIELD_IDS = [1, 2, 3, 4, 5, 6, 7, 12]


def expected_rows():
    """The rows of table/src/tests.rs, golden_rows()."""
    headers = (
        ["h", "h", "", "\ufffd\ufffd"],
        [b"1", None, b"", b"not UTF-8"],
        [None, None, None, b"\xff\xfe"],
    )

    def batch(partition, base, append_time):
        offset = base
        far = 2**63 - 1 - 1_700_000_000_001
        for time, key in [(1_700_000_000_000, b"key"), (-1, None), (-5, b"")]:
            for time, value, lists in [(time, b"\x07" * 100, ([], [], [])), (far, None, headers)]:
                # With LogAppendTime all records have the batch's largest timestamp.
                time = far if append_time else time
                plain = time != -1 and abs(time) < 2**63 // 1000
                micros, raw = (time * 1000, None) if plain else (None, time)
                yield (partition, offset, micros, raw, int(append_time), key, *lists, value)
                offset += 1

    return [
        *batch(0, 1000, False),
        *batch(0, 1006, True),
        *batch(0, 1015, False),
        *batch(2, 1000, True),
    ]


def with_duckdb(file):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute(QUERY, [str(file)]).fetchall()


def with_pyarrow(file):
    # Checksums of pages are only looked at when asked for.
    table = pyarrow.parquet.read_table(file, page_checksum_verification=True)
    types = {field.name: str(field.type) for field in table.schema}
    assert types == TYPES, types
    ids = [int(field.metadata[b"PARQUET:field_id"]) for field in table.schema]
    assert ids == FIELD_IDS, ids
    micros = pyarrow.compute.cast(table["kafka_timestamp"], "int64").to_pylist()
    return rows(table.drop_columns("kafka_timestamp").to_pylist(), micros)


def with_polars(file):
    table = polars.read_parquet(file)
    micros = table["kafka_timestamp"].to_physical().to_list()
    return rows(table.drop("kafka_timestamp").to_dicts(), micros)


def rows(dicts, micros):
    parts = ("header_key", "header_value", "header_key_raw")
    return [
        (
            row["kafka_partition"],
            row["kafka_offset"],
            time,
            row["kafka_timestamp_raw"],
            row["kafka_timestamp_type"],
            row["kafka_key"],
            *([header[part] for header in row["kafka_headers"]] for part in parts),
            row["kafka_value"],
        )
        for row, time in zip(dicts, micros, strict=True)
    ]


def check_pruning(file):
    """An offset's row group is found by statistics."""
    metadata = pyarrow.parquet.read_metadata(file)
    last = None
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        partition, offsets = (group.column(column).statistics for column in (0, 1))
        assert partition.min == partition.max, "a row group mixes partitions"
        assert last is None or last < (partition.min, offsets.min), "row groups are not in order"
        last = (partition.max, offsets.max)
        for column in range(group.num_columns):
            assert group.column(column).has_offset_index, "no offset index"
    count = "SELECT count(*) FROM read_parquet(?) WHERE kafka_partition = ? AND kafka_offset = ?"
    if last is not None:
        assert duckdb.execute(count, [str(file), *last]).fetchone() == (1,)


#: Spec and partition of the files in each version: two days, then one file with rows of both.
DAYS = [
    [(1, "{'kafka_timestamp_day': datetime.date(2023, 11, 14)}")],
    [
        (1, "{'kafka_timestamp_day': datetime.date(2023, 11, 14)}"),
        (1, "{'kafka_timestamp_day': datetime.date(2023, 11, 15)}"),
    ],
    [(0, "{'kafka_timestamp_day': None}")],
]


def check_table(metadata):
    """The table that table/examples/write_table.rs makes, of which these are the versions."""
    for version, (location, count) in enumerate(zip(metadata, [5000, 10000, 10000], strict=True)):
        table = pyiceberg.table.StaticTable.from_metadata(location)
        rows = table.scan().to_arrow()
        offsets = sorted(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist()))
        expected = [(partition, offset) for partition in (0, 1) for offset in range(count // 2)]
        assert offsets == expected, f"version {version} has other offsets"
        for row in rows.slice(0, 10).to_pylist():
            value = f'{{"partition":{row["kafka_partition"]},"offset":{row["kafka_offset"]}}}'
            assert row["kafka_value"].decode() == value, row
            assert [header["header_key"] for header in row["kafka_headers"]] == ["h", "h"], row
        files = table.inspect.files().to_pylist()
        days = sorted((file["spec_id"], str(file["partition"])) for file in files)
        assert days == DAYS[version], days
        # Files whose bounds exclude it are not even opened.
        plan = list(table.scan(row_filter="kafka_offset = 2600").plan_files())
        assert len(plan) == [0, 1, 1][version], plan
        time = "kafka_timestamp < '2023-11-14T22:13:20.100+00:00'"
        assert table.scan(row_filter=time).to_arrow().num_rows == 200
        time = "kafka_timestamp >= '2023-11-15T00:00:00+00:00'"
        plan = list(table.scan(row_filter=time).plan_files())
        assert len(plan) == [0, 1, 1][version], plan
        assert table.scan(row_filter=time).to_arrow().num_rows == [0, 5000, 5000][version]
    print(f"{location}: the same rows with PyIceberg in all three versions")


def main(files):
    if files[:1] == [pathlib.Path("table")]:
        check_table([str(location) for location in sys.argv[2:]])
        return
    for file in files or [GOLDEN]:
        seen = {read.__name__: read(file) for read in (with_duckdb, with_pyarrow, with_polars)}
        expected = expected_rows() if file == GOLDEN else seen["with_duckdb"]
        for name, found in seen.items():
            assert len(found) == len(expected), f"{name}: {len(found)} rows, not {len(expected)}"
            for row, other in zip(found, expected, strict=True):
                assert row == other, f"{name}: {row}, not {other}"
        check_pruning(file)
        print(f"{file}: {len(expected)} rows, the same with DuckDB, PyArrow and Polars")


if __name__ == "__main__":
    main([pathlib.Path(file) for file in sys.argv[1:]])
