"""PyIceberg: plans by itself, reads with PyArrow, and what it has read is asked with PyArrow."""

import hashlib
import importlib.metadata
import json

import adapter
import pyarrow
import pyarrow.compute
from lake import Lake


class Engine(Lake):
    version = f"PyIceberg {importlib.metadata.version('pyiceberg')}"

    def scan(self, table, snapshot=None, **options):
        return self.table(table).scan(snapshot_id=snapshot, **options)

    def schema(self, table):
        return [(field.name, str(field.field_type)) for field in self.table(table).schema().fields]

    def count(self, table, snapshot=None):
        return self.scan(table, snapshot).count()

    def shape(self, table, snapshot=None):
        columns = ("kafka_partition", "kafka_offset")
        rows = self.scan(table, snapshot, selected_fields=columns).to_arrow()
        wanted = ("count", "count_distinct", "min", "max")
        groups = rows.group_by("kafka_partition")
        groups = groups.aggregate([("kafka_offset", of) for of in wanted])
        names = ["kafka_partition"] + [f"kafka_offset_{of}" for of in wanted]
        return sorted([row[name] for name in names] for row in groups.to_pylist())

    def between(self, table, start, end):
        start, end = (f"'{time.replace(' ', 'T')}+00:00'" for time in (start, end))
        times = f"kafka_timestamp >= {start} AND kafka_timestamp < {end}"
        scan = self.scan(table, row_filter=times, selected_fields=("kafka_timestamp",))
        return scan.to_arrow().num_rows, len(list(scan.plan_files()))

    def text(self, table, key):
        # PyIceberg's text form of filters has no literals for bytes, its objects do.
        from pyiceberg.expressions import EqualTo

        rows = self.scan(table, row_filter=EqualTo("kafka_key", key.encode())).to_arrow()
        values = pyarrow.compute.cast(rows["kafka_value"], pyarrow.string()).to_pylist()
        places = rows.select(["kafka_partition", "kafka_offset"]).to_pylist()
        return sorted([*place.values(), value] for place, value in zip(places, values))

    def json(self, table, by, of):
        rows = self.scan(table, row_filter="kafka_value IS NOT NULL").to_arrow()
        sums = {}
        for value in rows["kafka_value"].to_pylist():
            value = json.loads(value)
            count, amount = sums.get(value[by], (0, 0))
            sums[value[by]] = (count + 1, amount + (value[of] or 0))
        return sorted((group, *sums[group]) for group in sums)

    def headers(self, table, name):
        rows = self.scan(table, selected_fields=("kafka_headers",)).to_arrow()
        counts = {}
        for headers in rows["kafka_headers"].to_pylist():
            for header in headers:
                if header["header_key"] == name:
                    value = header["header_value"].decode()
                    counts[value] = counts.get(value, 0) + 1
        return sorted(counts.items())

    def batches(self, table, *columns):
        return self.scan(table, selected_fields=columns).to_arrow_batch_reader()

    def totals(self, table):
        rows = size = 0
        for batch in self.batches(table, "kafka_value"):
            rows += batch.num_rows
            size += pyarrow.compute.sum(pyarrow.compute.binary_length(batch["kafka_value"])).as_py() or 0
        return rows, size

    def digests(self, table, prefix):
        found = []
        for batch in self.batches(table, "kafka_key", "kafka_value"):
            for row in batch.to_pylist():
                key, value = row["kafka_key"], row["kafka_value"]
                if key.startswith(prefix.encode()):
                    found.append((key.decode(), len(value), hashlib.sha256(value).hexdigest()))
        return sorted(found)


if __name__ == "__main__":
    adapter.serve(Engine)
