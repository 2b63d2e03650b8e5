"""`frazil serve` and, if asked for, the store under it, for as long as a run takes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORE = {"key": "frazil", "secret": "frazil-secret", "region": "us-east-1"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def cargo(package):
    """A program of this repository, built if it is not; or the one in $ENGINES_BIN."""
    if directory := os.environ.get("ENGINES_BIN"):
        return pathlib.Path(directory) / package
    build = ["cargo", "build", "--quiet", "--locked", "--package", package]
    subprocess.run(build, cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    answer = subprocess.run(metadata, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return pathlib.Path(json.loads(answer.stdout)["target_directory"]) / "debug" / package


class Broker:
    """Serves from `directory`, or over an S3 bucket of tests/store: then engines bring a key, or
    get one from the catalog if the store is `s3-delegated`."""

    def __init__(self, directory, store="directory"):
        self.directory = pathlib.Path(directory)
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.http = f"http://127.0.0.1:{free_port()}"
        self.catalog = f"{self.http}/iceberg"
        self.processes = []
        self.store = {}
        settings = {
            "data.dir": self.directory / "data",
            "listeners": self.bootstrap,
            "http.listen": self.http.removeprefix("http://"),
        }
        if store != "directory":
            command = [cargo("frazil-store"), "--directory", self.directory / "store"]
            process = self.start(command, stdout=subprocess.PIPE)
            endpoint = process.stdout.readline().decode().strip()
            self.store = STORE | {"endpoint": endpoint}
            settings |= {
                "store.url": "s3://tables/frazil",
                "store.options.aws_endpoint": endpoint,
                "store.options.allow_http": "true",
                "store.options.aws_region": STORE["region"],
                "store.options.aws_access_key_id": STORE["key"],
                "store.options.aws_secret_access_key": STORE["secret"],
            }
        if store == "s3-delegated":
            self.store = {"delegated": True}
            settings |= {
                "catalog.credentials": "static",
                "catalog.access.key.id": STORE["key"],
                "catalog.secret.access.key": STORE["secret"],
            }
        command = [cargo("frazil"), "serve"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        self.log = open(self.directory / "log", "wb")
        self.process = self.start(command, stdout=self.log, stderr=self.log)
        self.wait_until_ready()

    def start(self, command, **options):
        process = subprocess.Popen([str(part) for part in command], **options)
        self.processes.append(process)
        return process

    def wait_until_ready(self):
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.http}/readyz", timeout=5)
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the broker does not start:\n{self.tail()}")
            time.sleep(0.1)

    def tail(self):
        return (self.directory / "log").read_text(errors="replace")[-8000:]

    def end(self):
        """Whether the broker ended well."""
        self.process.send_signal(signal.SIGTERM)
        try:
            well = self.process.wait(60) == 0
        except subprocess.TimeoutExpired:
            well = False
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        return well

    def metadata(self, topic):
        """The table's metadata, as the catalog has it; None before there is a table."""
        url = f"{self.catalog}/v1/namespaces/frazil/tables/{topic}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["metadata"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def current(self, topic):
        """(rows, files, snapshots, how many of them replaced files) of a table."""
        metadata = self.metadata(topic) or {"snapshots": []}
        snapshots = metadata["snapshots"]
        if not snapshots:
            return 0, 0, 0, 0
        summary = snapshots[-1]["summary"]
        replaced = [snapshot["summary"]["operation"] != "append" for snapshot in snapshots]
        files = int(summary["total-data-files"])
        return int(summary["total-records"]), files, len(snapshots), sum(replaced)

    def wait_for_rows(self, topic, rows, seconds=180):
        """Until the table of the topic has so many rows; how long that took."""
        began = time.monotonic()
        while True:
            found = self.current(topic)[0]
            if found == rows:
                return time.monotonic() - began
            if found > rows or time.monotonic() - began > seconds:
                raise SystemExit(f"{topic}: {found} rows in the table, not {rows}\n{self.tail()}")
            time.sleep(0.2)
