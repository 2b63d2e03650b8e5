"""See `run`."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

CLASSPATH, FRAZIL, DIRECTORY = sys.argv[1:]
DIRECTORY = pathlib.Path(DIRECTORY)
PARTITIONS = 3


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Program:
    """A program that answers HTTP at `url` once it is ready; it and nothing else is ended here."""

    def __init__(self, name, command, url, environment=None):
        self.name, self.command, self.url = name, [str(part) for part in command], url
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        log = open(DIRECTORY / f"{self.name}.log", "ab")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not start:\n{self.log()}")
            time.sleep(0.2)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def log(self):
        return (DIRECTORY / f"{self.name}.log").read_text(errors="replace")[-3000:]


class Rig:
    def __init__(self):
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        java = ["java", "-Xmx256m", "-cp", CLASSPATH, "org.apache.iceberg.rest.RESTCatalogServer"]
        self.other = Program(
            "catalog",
            java,
            f"{self.uri}/v1/config",
            {
                "CATALOG_REST_PORT": str(port),
                "CATALOG_WAREHOUSE": f"file://{DIRECTORY}/warehouse",
                "CATALOG_IO__IMPL": "org.apache.iceberg.hadoop.HadoopFileIO",
                "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog",
                "CATALOG_URI": f"jdbc:sqlite:{DIRECTORY}/catalog.db?busy_timeout=10000",
                # SQLite answers that the database is locked when several connections write.
                "CATALOG_CLIENTS": "1",
            },
        )
        self.kafka = f"127.0.0.1:{free_port()}"
        http = f"127.0.0.1:{free_port()}"
        self.http = f"http://{http}"
        settings = {
            "data.dir": DIRECTORY / "data",
            "listeners": self.kafka,
            "http.listen": http,
            "table.copy.catalog.uri": self.uri,
            "table.copy.catalog.namespace": "kafka.tables",
            "table.copy.interval.ms": "500",
        }
        serve = [FRAZIL, "serve"]
        for key, value in settings.items():
            serve += ["--set", f"{key}={value}"]
        self.frazil = Program("frazil", serve, f"{self.http}/readyz")
        self.sent = {}

    def frazil_command(self, *arguments, lines=()):
        command = [FRAZIL, *arguments, "--bootstrap-server", self.kafka]
        text = "".join(f"{line}\n" for line in lines)
        subprocess.run(command, input=text.encode(), check=True)

    def topic(self, name):
        settings = ["frazil.table.mode=copy", "frazil.table.freshness.ms=500"]
        settings = [part for setting in settings for part in ("-c", setting)]
        self.frazil_command("topic", "create", name, "-p", str(PARTITIONS), *settings)
        self.sent[name] = []

    def produce(self, name, count):
        first = len(self.sent[name])
        lines = [f"k{number}:value {number} of {name}" for number in range(first, first + count)]
        self.frazil_command("produce", name, "-k", ":", "--acks", "all", lines=lines)
        self.sent[name] += lines

    def catalog(self, ours=False):
        uri = f"{self.http}/iceberg" if ours else self.uri
        return load_catalog("x", type="rest", uri=uri)

    def load(self, name, ours=False):
        namespace = ("frazil",) if ours else ("kafka", "tables")
        return self.catalog(ours).load_table((*namespace, name))

    def metric(self, name):
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.split(" ")[0] == name:
                    return int(float(line.split(" ")[1]))
        raise SystemExit(f"there is no metric {name}")

    def wait(self, name, what):
        """Until the other catalog has every record of a topic, once, as Frazil's own has."""
        began = time.monotonic()
        while True:
            found = "no table"
            try:
                summary = self.load(name).current_snapshot().summary
                found = int(summary["total-records"])
                if found == len(self.sent[name]):
                    break
            except (NoSuchTableError, AttributeError):
                pass
            # A broker that is killed in the middle of a conversion holds its lease for five minutes.
            if time.monotonic() - began > 420:
                raise SystemExit(f"{what}: {name}: {found}\n{self.frazil.log()}\n{self.other.log()}")
            time.sleep(0.3)
        took = time.monotonic() - began
        theirs, ours = self.load(name), self.load(name, ours=True)
        rows = theirs.scan().to_arrow()
        values = [
            f"{key.decode()}:{value.decode()}"
            for key, value in zip(rows["kafka_key"].to_pylist(), rows["kafka_value"].to_pylist())
        ]
        assert sorted(values) == sorted(self.sent[name]), what
        places = list(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist()))
        assert len(set(places)) == len(values), what
        for partition in range(PARTITIONS):
            offsets = sorted(offset for of, offset in places if of == partition)
            assert offsets == list(range(len(offsets))), what
        assert str(theirs.metadata.table_uuid) == str(ours.metadata.table_uuid), what
        assert theirs.schema() == ours.schema(), what
        for spec in ours.metadata.partition_specs:
            assert theirs.specs()[spec.spec_id] == spec, what
        assert theirs.properties["gc.enabled"] == "false", what
        # A condition on the time is planned with the partitions and bounds of the manifests.
        filtered = theirs.scan(row_filter="kafka_timestamp >= '2020-01-01T00:00:00+00:00'").to_arrow()
        assert filtered.num_rows == len(values), what
        snapshots = len(theirs.metadata.snapshots)
        print(f"{what}: {name}: {len(values)} rows, {snapshots} snapshots, after {took:.1f} s", flush=True)

    def run(self):
        self.other.start()
        catalog = self.catalog()
        catalog.create_namespace(("kafka",))
        catalog.create_namespace(("kafka", "tables"))
        schema = Schema(NestedField(1, "n", LongType(), required=False))
        somebody = catalog.create_table(("kafka", "tables", "taken"), schema).metadata

        self.frazil.start()
        for name in ("orders", "pay.ments", "taken"):
            self.topic(name)
            self.produce(name, 1000)
        self.wait("orders", "published")
        self.wait("pay.ments", "published")
        assert self.load("taken").metadata == somebody
        for round in range(3):
            self.produce("orders", 500)
            self.wait("orders", "again")

        self.produce("orders", 1000)
        self.frazil.kill()
        self.frazil.start()
        self.wait("orders", "after kill -9")

        self.other.kill()
        for _ in range(3):
            self.produce("orders", 300)
            time.sleep(2)
        assert self.metric("frazil_compactor_unpublished_tables") > 0
        assert self.metric("frazil_compactor_publish_failures_total") > 0
        self.other.start()
        self.wait("orders", "after the catalog was away")

        self.other.kill()
        (DIRECTORY / "catalog.db").unlink()
        self.other.start()
        self.catalog().create_namespace(("kafka",))
        self.produce("orders", 10)
        self.wait("orders", "after the catalog has forgotten everything")
        # Of a table that does not change nobody would notice; a new process asks.
        self.frazil.kill()
        self.frazil.start()
        for name in ("pay.ments", "taken"):
            self.wait(name, "after the catalog has forgotten everything")
        print("the table of somebody else's: ", end="")
        self.catalog().drop_table(("kafka", "tables", "taken"))
        somebody = self.catalog().create_table(("kafka", "tables", "taken"), schema).metadata
        self.produce("taken", 10)
        deadline = time.monotonic() + 60
        while self.metric("frazil_compactor_unpublished_tables") != 1:
            assert time.monotonic() < deadline, self.frazil.log()
            time.sleep(0.5)
        assert self.load("taken").metadata == somebody
        print("left alone", flush=True)


if __name__ == "__main__":
    rig = Rig()
    try:
        rig.run()
    finally:
        rig.frazil.kill()
        rig.other.kill()
