"""Polars: `scan_iceberg` with a table of PyIceberg."""

import datetime
import hashlib
import re

import adapter
import polars
from lake import Lake


def moment(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


class Engine(Lake):
    version = f"Polars {polars.__version__}"

    def scan(self, table, snapshot=None):
        table = self.table(table)
        options = None
        if self.store:
            # What PyIceberg was told, or was given by the catalog, must be handed on.
            known = table.io.properties
            options = {
                "aws_endpoint_url": known["s3.endpoint"],
                "aws_access_key_id": known["s3.access-key-id"],
                "aws_secret_access_key": known["s3.secret-access-key"],
                "aws_region": known["s3.region"],
                "aws_allow_http": "true",
            }
        return polars.scan_iceberg(table, snapshot_id=snapshot, storage_options=options)

    def schema(self, table):
        return [(name, str(of)) for name, of in self.scan(table).collect_schema().items()]

    def count(self, table, snapshot=None):
        return self.scan(table, snapshot).select(polars.len()).collect().item()

    def shape(self, table, snapshot=None):
        offset = polars.col("kafka_offset")
        groups = self.scan(table, snapshot).group_by("kafka_partition")
        groups = groups.agg(
            polars.len(), offset.n_unique().alias("n"), offset.min().alias("a"), offset.max().alias("z")
        )
        return groups.sort("kafka_partition").collect().rows()

    def between(self, table, start, end):
        time = polars.col("kafka_timestamp")
        rows = self.scan(table).filter(time >= moment(start), time < moment(end))
        plan = rows.explain()
        # "SCAN [file]" or "SCAN [file, ... 3 other sources]".
        shown = re.search(r"SCAN \[(.*?)\]", plan)
        more = re.search(r"(\d+) other", shown[1])
        files = shown[1].count(".parquet") + (int(more[1]) if more else 0)
        return rows.select(polars.len()).collect().item(), files

    def text(self, table, key):
        rows = self.scan(table).filter(polars.col("kafka_key") == polars.lit(key.encode()))
        rows = rows.select(
            "kafka_partition", "kafka_offset", polars.col("kafka_value").cast(polars.String)
        )
        return rows.sort("kafka_partition", "kafka_offset").collect().rows()

    def json(self, table, by, of):
        value = polars.col("kafka_value").cast(polars.String).str
        rows = self.scan(table).filter(polars.col("kafka_value").is_not_null())
        rows = rows.select(
            value.json_path_match(f"$.{by}").alias("by"),
            value.json_path_match(f"$.{of}").cast(polars.Int64).alias("of"),
        )
        rows = rows.group_by("by").agg(polars.len(), polars.col("of").sum())
        return rows.sort("by").collect().rows()

    def headers(self, table, name):
        rows = self.scan(table).select("kafka_headers").explode("kafka_headers").unnest("kafka_headers")
        rows = rows.filter(polars.col("header_key") == name)
        rows = rows.group_by(polars.col("header_value").cast(polars.String)).agg(polars.len())
        return rows.sort("header_value").collect().rows()

    def totals(self, table):
        size = polars.col("kafka_value").bin.size().sum()
        return self.scan(table).select(polars.len(), size).collect().row(0)

    def digests(self, table, prefix):
        key = polars.col("kafka_key")
        rows = self.scan(table).filter(key.bin.starts_with(prefix.encode()))
        rows = rows.select(key.cast(polars.String), "kafka_value").sort("kafka_key")
        return [
            (key, len(value), hashlib.sha256(value).hexdigest())
            for key, value in rows.collect().rows()
        ]


if __name__ == "__main__":
    adapter.serve(Engine)
