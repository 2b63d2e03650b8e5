"""A few Kafka requests to one chosen broker.

A client library sends a request to the broker that metadata names as leader; what
is asked here is what *another* broker answers. So: one connection, one request at
a time, old versions of the protocol with a simple encoding (not flexible).
"""

import itertools
import socket
import struct

from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 9, 10
INIT_PRODUCER_ID = 22
LATEST = -1


class WireError(Exception):
    def __init__(self, what, code):
        super().__init__(f"{what}: error code {code}")
        self.code = code


def string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


class Answer:
    """Reads fields of an answer in order."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, form):
        values = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def bytes(self, form="i"):
        length = self.take(form)
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at]

    def string(self):
        data = self.bytes("h")
        return None if data is None else data.decode()


def batch(values, producer=None):
    """A batch of these values; `producer`: (id, epoch, first sequence)."""
    identity = producer or (-1, -1, -1)
    builder = DefaultRecordBatchBuilder(2, 0, 0, *identity, 1 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, None, None, value, [])
    return bytes(builder.build())


def checksummed(data):
    """The batch with its checksum computed anew: CRC-32C of all from the attributes on."""
    data = bytearray(data)
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def produce_body(topic, partition, records, acks):
    data = struct.pack(">ii", partition, len(records)) + records
    return struct.pack(">hhi", -1, acks, 15000) + array([string(topic) + array([data])])


class Broker:
    """A connection to the broker at HOST:PORT. Not shared between threads."""

    def __init__(self, address, timeout=20):
        self.address = address
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.numbers = itertools.count(1)

    def close(self):
        self.socket.close()

    def send(self, key, version, body):
        number = next(self.numbers)
        header = struct.pack(">hhi", key, version, number) + string("rig")
        self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        return number

    def call(self, key, version, body):
        number = self.send(key, version, body)
        (length,) = struct.unpack(">i", self._receive(4))
        answer = Answer(self._receive(length))
        got = answer.take("i")
        assert got == number, f"correlation id {got}, want {number}"
        return answer

    def _receive(self, length):
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError(f"{self.address} closed the connection")
            data += part
        return bytes(data)

    def produce(self, topic, partition, records, acks=-1):
        """Produce v3; the base offset."""
        answer = self.call(PRODUCE, 3, produce_body(topic, partition, records, acks))
        answer.take("i"), answer.string(), answer.take("i")
        index, code, offset, _time = answer.take("ihqq")
        if code:
            raise WireError(f"produce to {topic}-{partition} at {self.address}", code)
        return offset

    def send_produce(self, topic, partition, records, acks):
        """Produce v3 without waiting for an answer."""
        self.send(PRODUCE, 3, produce_body(topic, partition, records, acks))

    def latest(self, topic, partition):
        """ListOffsets v1; the offset after the last record."""
        body = struct.pack(">i", -1)
        body += array([string(topic) + array([struct.pack(">iq", partition, LATEST)])])
        answer = self.call(LIST_OFFSETS, 1, body)
        answer.take("i"), answer.string(), answer.take("i")
        _index, code, _time, offset = answer.take("ihqq")
        if code:
            raise WireError(f"latest offset of {topic}-{partition} at {self.address}", code)
        return offset

    def fetch(self, topic, partition, offset, wait_ms=5000):
        """Fetch v4 of at least a byte; (high watermark, records)."""
        body = struct.pack(">iiiib", -1, wait_ms, 1, 1 << 20, 0)
        body += array([string(topic) + array([struct.pack(">iqi", partition, offset, 1 << 20)])])
        answer = self.call(FETCH, 4, body)
        answer.take("ii"), answer.string(), answer.take("i")
        _index, code, high_watermark, _stable = answer.take("ihqq")
        for _ in range(max(answer.take("i"), 0)):
            answer.take("qq")
        if code:
            raise WireError(f"fetch of {topic}-{partition} at {self.address}", code)
        return high_watermark, answer.bytes() or b""

    def topic(self, name):
        """Metadata v4 without auto-create; (error code, number of partitions)."""
        answer = self.call(METADATA, 4, array([string(name)]) + b"\0")
        answer.take("i")
        for _ in range(answer.take("i")):
            answer.take("i"), answer.string(), answer.take("i"), answer.string()
        answer.string(), answer.take("i"), answer.take("i")
        code = answer.take("h")
        answer.string(), answer.take("b")
        return code, answer.take("i")

    def brokers(self):
        """Metadata v4 of no topic; (cluster id, {node id: address})."""
        answer = self.call(METADATA, 4, array([]) + b"\0")
        answer.take("i")
        nodes = {}
        for _ in range(answer.take("i")):
            number, host, port = answer.take("i"), answer.string(), answer.take("i")
            nodes[number] = f"{host}:{port}"
            answer.string()
        return answer.string(), nodes

    def coordinator(self, group):
        """FindCoordinator v0; its address."""
        answer = self.call(FIND_COORDINATOR, 0, string(group))
        code = answer.take("h")
        answer.take("i")
        if code:
            raise WireError(f"coordinator of {group} at {self.address}", code)
        return f"{answer.string()}:{answer.take('i')}"

    def committed(self, group, topic, partition):
        """OffsetFetch v1; the committed offset, -1 for none."""
        body = string(group) + array([string(topic) + array([struct.pack(">i", partition)])])
        answer = self.call(OFFSET_FETCH, 1, body)
        answer.take("i"), answer.string(), answer.take("i")
        _index, offset = answer.take("iq")
        answer.string()
        code = answer.take("h")
        if code:
            raise WireError(f"committed offset of {group} at {self.address}", code)
        return offset

    def init_producer_id(self):
        """InitProducerId v0; (producer id, epoch)."""
        answer = self.call(INIT_PRODUCER_ID, 0, struct.pack(">hi", -1, 60000))
        answer.take("i")
        code, number, epoch = answer.take("hqh")
        if code:
            raise WireError(f"producer id at {self.address}", code)
        return number, epoch
