"""DuckDB, with its extension iceberg.

Where DuckDB's own server for extensions can be reached, `INSTALL iceberg; LOAD iceberg` does what
the packages duckdb-extension-… do here.
"""

import glob
import importlib
import os
import re

import adapter
import duckdb


class Engine:
    version = f"DuckDB {duckdb.__version__}"

    def __init__(self, uri, store):
        self.connection = duckdb.connect()
        for name in ("avro", "httpfs", "iceberg"):
            package = os.path.dirname(importlib.import_module(f"duckdb_extension_{name}").__file__)
            (file,) = glob.glob(f"{package}/extensions/*/*.duckdb_extension")
            self.connection.execute(f"LOAD '{file}'")
        self.connection.execute("SET TimeZone = 'UTC'")
        if "key" in store:
            host = store["endpoint"].removeprefix("http://")
            self.connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{store['key']}', SECRET '{store['secret']}', "
                f"REGION '{store['region']}', ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
            )
        self.connection.execute(
            f"ATTACH '' AS lake (TYPE iceberg, ENDPOINT '{uri}', AUTHORIZATION_TYPE 'none')"
        )

    def rows(self, sql):
        return self.connection.execute(sql).fetchall()

    @staticmethod
    def at(table, snapshot=None):
        of = "" if snapshot is None else f" AT (VERSION => {snapshot})"
        return f'lake.frazil."{table}"{of}'

    def tables(self):
        return [row[2] for row in self.rows("SHOW ALL TABLES") if row[0] == "lake"]

    def schema(self, table):
        return [row[:2] for row in self.rows(f"DESCRIBE {self.at(table)}")]

    def count(self, table, snapshot=None):
        return self.rows(f"SELECT count(*) FROM {self.at(table, snapshot)}")[0][0]

    def shape(self, table, snapshot=None):
        return self.rows(adapter.SHAPE.format(table=self.at(table, snapshot)))

    def between(self, table, start, end):
        sql = (
            f"SELECT count(*) FROM {self.at(table)} "
            f"WHERE kafka_timestamp >= '{start}+00:00' AND kafka_timestamp < '{end}+00:00'"
        )
        plan = self.rows(f"EXPLAIN ANALYZE {sql}")[0][1]
        return self.rows(sql)[0][0], int(re.search(r"Total Files Read: (\d+)", plan)[1])

    def text(self, table, key):
        return self.rows(
            "SELECT kafka_partition, kafka_offset, decode(kafka_value) "
            f"FROM {self.at(table)} WHERE decode(kafka_key) = '{key}' ORDER BY 1, 2"
        )

    def json(self, table, by, of):
        return self.rows(
            f"SELECT decode(kafka_value) ->> '$.{by}', count(*), "
            f"sum((decode(kafka_value) ->> '$.{of}')::BIGINT)::BIGINT "
            f"FROM {self.at(table)} WHERE kafka_value IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def headers(self, table, name):
        return self.rows(
            "SELECT decode(h.header_value), count(*) "
            f"FROM {self.at(table)}, UNNEST(kafka_headers) AS of(h) "
            f"WHERE h.header_key = '{name}' GROUP BY 1 ORDER BY 1"
        )

    def snapshots(self, table):
        sql = f"SELECT snapshot_id FROM iceberg_snapshots({self.at(table)}) ORDER BY sequence_number"
        return [row[0] for row in self.rows(sql)]

    def totals(self, table):
        sql = f"SELECT count(*), sum(octet_length(kafka_value))::BIGINT FROM {self.at(table)}"
        return self.rows(sql)[0]

    def digests(self, table, prefix):
        return self.rows(
            "SELECT decode(kafka_key), octet_length(kafka_value), sha256(kafka_value) "
            f"FROM {self.at(table)} WHERE starts_with(decode(kafka_key), '{prefix}') ORDER BY 1"
        )


if __name__ == "__main__":
    adapter.serve(Engine)
