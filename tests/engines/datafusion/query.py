"""DataFusion, with the table provider of iceberg-rust that pyiceberg-core brings.

Its version of DataFusion must be that of pyiceberg-core. `Table.register_table` of PyIceberg 0.12
hands on properties that are no text, so the provider is made here.
"""

import importlib.metadata
import re

import adapter
import datafusion
from lake import Lake
from pyiceberg_core.datafusion import IcebergDataFusionTable

#: There is no function for the length of bytes.
LENGTH = "octet_length(encode(kafka_value, 'hex')) / 2"


class Engine(Lake):
    version = (
        f"DataFusion {datafusion.__version__} "
        f"(pyiceberg-core {importlib.metadata.version('pyiceberg-core')})"
    )

    def rows(self, sql, table):
        """The rows of a query whose table is `t`."""
        metadata = self.table(table)
        properties = metadata.io.properties.items()
        provider = IcebergDataFusionTable(
            identifier=metadata.name(),
            metadata_location=metadata.metadata_location,
            file_io_properties={key: value for key, value in properties if isinstance(value, str)},
        )
        context = datafusion.SessionContext()
        context.register_table("t", provider)
        batches = context.sql(sql).collect()
        return [list(row.values()) for batch in batches for row in batch.to_pylist()]

    @staticmethod
    def now(snapshot):
        if snapshot is not None:
            raise adapter.Cannot("no time travel: the provider reads the current snapshot only")

    def schema(self, table):
        rows = self.rows("DESCRIBE t", table)
        # The headers' type is told with metadata of its fields.
        return [(row[0], re.sub(r"\(.*", "", row[1])) for row in rows]

    def count(self, table, snapshot=None):
        self.now(snapshot)
        return self.rows("SELECT count(*) FROM t", table)[0][0]

    def shape(self, table, snapshot=None):
        self.now(snapshot)
        return self.rows(adapter.SHAPE.format(table="t"), table)

    def between(self, table, start, end):
        sql = (
            "SELECT count(*) FROM t "
            f"WHERE kafka_timestamp >= '{start}Z' AND kafka_timestamp < '{end}Z'"
        )
        # The provider is told no filters: all files are read, DataFusion filters the rows.
        return self.rows(sql, table)[0][0], None

    def text(self, table, key):
        return self.rows(
            "SELECT kafka_partition, kafka_offset, arrow_cast(kafka_value, 'Utf8') FROM t "
            f"WHERE arrow_cast(kafka_key, 'Utf8') = '{key}' ORDER BY 1, 2",
            table,
        )

    def json(self, table, by, of):
        # DataFusion has no functions for JSON of its own.
        field = "regexp_match(arrow_cast(kafka_value, 'Utf8'), '\"{}\": ?\"?([^\",}}]+)')[1]"
        by, of = field.format(by), f"nullif({field.format(of)}, 'null')"
        return self.rows(
            f"SELECT {by}, count(*), CAST(sum(CAST({of} AS BIGINT)) AS BIGINT) "
            "FROM t WHERE kafka_value IS NOT NULL GROUP BY 1 ORDER BY 1",
            table,
        )

    def headers(self, table, name):
        return self.rows(
            "SELECT arrow_cast(h['header_value'], 'Utf8'), count(*) "
            "FROM (SELECT unnest(kafka_headers) AS h FROM t) "
            f"WHERE h['header_key'] = '{name}' GROUP BY 1 ORDER BY 1",
            table,
        )

    def totals(self, table):
        sql = f"SELECT count(*), CAST(sum({LENGTH}) AS BIGINT) FROM t"
        return self.rows(sql, table)[0]

    def digests(self, table, prefix):
        return self.rows(
            f"SELECT arrow_cast(kafka_key, 'Utf8'), {LENGTH}, "
            "encode(sha256(kafka_value), 'hex') FROM t "
            f"WHERE starts_with(arrow_cast(kafka_key, 'Utf8'), '{prefix}') ORDER BY 1",
            table,
        )


if __name__ == "__main__":
    adapter.serve(Engine)
