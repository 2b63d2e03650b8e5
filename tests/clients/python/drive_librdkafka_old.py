"""An older librdkafka, for what it decides from the versions a broker advertises.

Up to 2.11 it takes a broker's features (compression, idempotence, headers) from
exact version ranges, so a range that begins too late silently loses one. Its admin
calls are fewer; this driver only produces and consumes.
"""

import time

import confluent_kafka
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from harness import PARTITIONS, Driver, Ledger, Stop, arguments, check, equal, records, unique

WAIT = 30


class Run:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.topic = unique("librdkafka")
        self.ledger = Ledger()
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(self):
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(WAIT)
        # Before 2.1 it does not wait for its own knowledge of the topic.
        deadline = time.monotonic() + WAIT
        while self.topic not in self.admin.list_topics(timeout=WAIT).topics:
            check(time.monotonic() < deadline, "topic not listed")
            time.sleep(0.1)

    def produce(self, codec, idempotence, first=0, count=40):
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "compression.type": codec,
                "enable.idempotence": idempotence,
                "linger.ms": 20,
                "message.timeout.ms": WAIT * 1000,
            }
        )
        delivered = []
        for record in records(codec, first, count):
            producer.produce(
                self.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
                timestamp=record.timestamp,
                on_delivery=lambda error, message, record=record: delivered.append(
                    (error, message, record)
                ),
            )
        check(producer.flush(WAIT) == 0, "records still undelivered after flush")
        for error, message, record in delivered:
            check(error is None, f"delivery failed: {error}")
            self.ledger.acknowledged(record, message.offset())

    def consume(self, start=None):
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": self.topic + "-group",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe([self.topic])
        expected = self.ledger.total() - sum((start or {}).values())
        received = {}
        deadline = time.monotonic() + WAIT
        while len(received) < expected and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=0.2):
                check(message.error() is None, f"consume: {message.error()}")
                received[message.partition(), message.offset()] = (
                    message.key(),
                    message.value(),
                    tuple(message.headers() or ()),
                    message.timestamp()[1],
                )
        self.ledger.compare(received, start)
        committed = consumer.commit(asynchronous=False)
        want = {p: self.ledger.end(p) for p in range(PARTITIONS)}
        equal("committed", {tp.partition: tp.offset for tp in committed}, want)
        consumer.close()

    def resume(self):
        start = {p: self.ledger.end(p) for p in range(PARTITIONS)}
        self.produce("none", False, first=1000, count=10)
        self.consume(start)

    def delete_topic(self):
        self.admin.delete_topics([self.topic])[self.topic].result(WAIT)


def main():
    run = Run(arguments().bootstrap)
    driver = Driver("librdkafka " + confluent_kafka.libversion()[0])
    try:
        driver.step("create topic", run.create_topic, essential=True)
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            driver.step(f"produce {codec}", lambda codec=codec: run.produce(codec, False))
            driver.step(
                f"produce {codec} idempotent", lambda codec=codec: run.produce(codec, True)
            )
        driver.step("consume all in a group", run.consume)
        driver.step("resume from the commit", run.resume)
        driver.step("delete topic", run.delete_topic)
    except Stop:
        pass
    driver.finish()


if __name__ == "__main__":
    main()
