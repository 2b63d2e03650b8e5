"""What the Python drivers share: steps with a name, and the records they send.

A driver is a list of steps. Each prints one line, `ok` or `FAIL` with what
differed; a failed step does not stop the ones after it unless it is marked
essential, so that one run shows everything that is wrong. The exit code is
non-zero when any step failed.
"""

import argparse
import sys
import time
import traceback
import uuid

#: Partitions of the topic each driver creates.
PARTITIONS = 3
#: Records sent to each partition for each codec.
RECORDS = 40


class Mismatch(Exception):
    """The broker answered, but not with what was expected."""


class Stop(Exception):
    """An essential step failed; nothing after it can mean anything."""


def check(condition, message):
    if not condition:
        raise Mismatch(message)


def equal(what, got, want):
    if got != want:
        raise Mismatch(f"{what}: got {short(got)}, want {short(want)}")


def short(value, limit=400):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


class Driver:
    """Runs steps and remembers which failed."""

    def __init__(self, client):
        self.client = client
        self.failed = []

    def step(self, name, action, essential=False):
        started = time.monotonic()
        try:
            note = action()
        except Exception as error:  # every failure of a step is its result
            self._report_failure(name, error)
            if essential:
                raise Stop(name) from error
            return None
        self._report_success(name, note, started)
        return note

    async def step_async(self, name, action, essential=False):
        started = time.monotonic()
        try:
            note = await action()
        except Exception as error:
            self._report_failure(name, error)
            if essential:
                raise Stop(name) from error
            return None
        self._report_success(name, note, started)
        return note

    def _report_success(self, name, note, started):
        took = (time.monotonic() - started) * 1000
        detail = f": {note}" if isinstance(note, str) else ""
        print(f"ok   {self.client}  {name}{detail}  ({took:.0f} ms)", flush=True)

    def _report_failure(self, name, error):
        self.failed.append(name)
        where = ""
        if not isinstance(error, Mismatch):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f" [{type(error).__name__} at {frame.name}:{frame.lineno}]"
        print(f"FAIL {self.client}  {name}: {error}{where}", flush=True)

    def finish(self):
        if self.failed:
            print(f"{self.client}: {len(self.failed)} failed: {', '.join(self.failed)}")
            sys.exit(1)
        print(f"{self.client}: all steps passed")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    return parser.parse_args()


def unique(client):
    """A name no earlier run used: the drivers may share one broker."""
    return f"{client}-{uuid.uuid4().hex[:10]}"


class Record:
    """One record to send, and what must come back for it.

    The set covers what a broker can lose: duplicate header keys and their
    order, null against empty (key, value, header), timestamps, and values that
    compress well next to values that do not.
    """

    #: Timestamps step by one second from here, so a lookup by time has one answer.
    #: Not long ago: older records would fall to retention while the driver runs.
    FIRST_TIMESTAMP = (int(time.time()) - 7200) * 1000

    def __init__(self, codec, partition, number):
        self.partition = partition
        self.timestamp = self.FIRST_TIMESTAMP + number * 1000
        tag = f"{codec}/{partition}/{number}"
        self.key = tag.encode()
        self.value = (tag + " ").encode() * (1 + number % 50)
        self.headers = [("n", str(number).encode()), ("n", b"again"), ("empty", b"")]
        kind = number % 10
        if kind == 7:
            self.value = None
        elif kind == 8:
            self.key = None
        elif kind == 9:
            self.value = b""
            self.headers = []

    def content(self):
        return (self.key, self.value, tuple(self.headers), self.timestamp)


def records(codec, first=0, count=RECORDS):
    """`count` records for each partition, in the order they are sent."""
    return [
        Record(codec, partition, first + i)
        for i in range(count)
        for partition in range(PARTITIONS)
    ]


class Ledger:
    """What was acknowledged: per partition, the content expected at each offset."""

    def __init__(self):
        self.log = {p: [] for p in range(PARTITIONS)}

    def acknowledged(self, record, offset):
        log = self.log[record.partition]
        check(
            offset == len(log),
            f"partition {record.partition}: acknowledged offset {offset}, expected {len(log)}",
        )
        log.append(record.content())

    def end(self, partition):
        return len(self.log[partition])

    def total(self):
        return sum(len(log) for log in self.log.values())

    def compare(self, received, start=None):
        """`received`: (partition, offset) -> content. Everything from `start` on, once."""
        for partition, log in self.log.items():
            first = (start or {}).get(partition, 0)
            offsets = sorted(o for p, o in received if p == partition)
            equal(f"partition {partition}: consumed offsets", offsets, list(range(first, len(log))))
            for offset in offsets:
                equal(
                    f"partition {partition} offset {offset}",
                    received[partition, offset],
                    log[offset],
                )
