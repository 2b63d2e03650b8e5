"""Spark, on one machine, with Iceberg's runtime for it."""

import os

import adapter
from pyspark.sql import SparkSession


class Engine:
    def __init__(self, uri, store):
        settings = {
            "spark.jars": os.environ["SPARK_JARS"],
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.lake.type": "rest",
            "spark.sql.catalog.lake.uri": uri,
            # Otherwise a session sees a table as it was when it first saw it, for half a minute.
            "spark.sql.catalog.lake.cache-enabled": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "2",
            # So that the plan that ran is the plan that is asked for files.
            "spark.sql.adaptive.enabled": "false",
            "spark.driver.memory": "1g",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.log.level": "ERROR",
        }
        if store:
            settings["spark.sql.catalog.lake.io-impl"] = "org.apache.iceberg.aws.s3.S3FileIO"
        if "delegated" in store:
            delegation = "spark.sql.catalog.lake.header.X-Iceberg-Access-Delegation"
            settings[delegation] = "vended-credentials"
        elif store:
            settings |= {
                "spark.sql.catalog.lake.s3.endpoint": store["endpoint"],
                "spark.sql.catalog.lake.s3.path-style-access": "true",
                "spark.sql.catalog.lake.s3.access-key-id": store["key"],
                "spark.sql.catalog.lake.s3.secret-access-key": store["secret"],
                "spark.sql.catalog.lake.client.region": store["region"],
            }
        builder = SparkSession.builder.master("local[2]").appName("frazil")
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.session = builder.getOrCreate()
        self.version = f"Spark {self.session.version} (Iceberg {os.environ['ICEBERG_VERSION']})"

    def rows(self, sql):
        return [list(row) for row in self.session.sql(sql).collect()]

    @staticmethod
    def at(table, snapshot=None):
        of = "" if snapshot is None else f" VERSION AS OF {snapshot}"
        return f"lake.frazil.`{table}`{of}"

    def tables(self):
        return [row[1] for row in self.rows("SHOW TABLES IN lake.frazil")]

    def schema(self, table):
        return [(field.name, field.dataType.simpleString()) for field in self.session.table(self.at(table)).schema]

    def count(self, table, snapshot=None):
        return self.rows(f"SELECT count(*) FROM {self.at(table, snapshot)}")[0][0]

    def shape(self, table, snapshot=None):
        return self.rows(adapter.SHAPE.format(table=self.at(table, snapshot)))

    def between(self, table, start, end):
        frame = self.session.sql(
            f"SELECT kafka_offset FROM {self.at(table)} WHERE kafka_timestamp >= timestamp '{start}' "
            f"AND kafka_timestamp < timestamp '{end}'"
        )
        count = len(frame.collect())
        scan = frame._jdf.queryExecution().executedPlan().collectLeaves().head()
        return count, scan.metrics().apply("resultDataFiles").value()

    def text(self, table, key):
        return self.rows(
            "SELECT kafka_partition, kafka_offset, cast(kafka_value AS string) "
            f"FROM {self.at(table)} WHERE cast(kafka_key AS string) = '{key}' ORDER BY 1, 2"
        )

    def json(self, table, by, of):
        return self.rows(
            f"SELECT get_json_object(cast(kafka_value AS string), '$.{by}'), count(*), "
            f"sum(cast(get_json_object(cast(kafka_value AS string), '$.{of}') AS bigint)) "
            f"FROM {self.at(table)} WHERE kafka_value IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def headers(self, table, name):
        return self.rows(
            "SELECT cast(h.header_value AS string), count(*) "
            f"FROM (SELECT explode(kafka_headers) AS h FROM {self.at(table)}) "
            f"WHERE h.header_key = '{name}' GROUP BY 1 ORDER BY 1"
        )

    def snapshots(self, table):
        # Spark has them in the order of their making only by their times.
        rows = self.rows(f"SELECT snapshot_id FROM {self.at(table)}.snapshots ORDER BY committed_at, snapshot_id")
        return [row[0] for row in rows]

    def totals(self, table):
        sql = f"SELECT count(*), sum(octet_length(kafka_value)) FROM {self.at(table)}"
        return self.rows(sql)[0]

    def digests(self, table, prefix):
        return self.rows(
            "SELECT cast(kafka_key AS string), octet_length(kafka_value), sha2(kafka_value, 256) "
            f"FROM {self.at(table)} WHERE cast(kafka_key AS string) LIKE '{prefix}%' ORDER BY 1"
        )


if __name__ == "__main__":
    adapter.serve(Engine)
