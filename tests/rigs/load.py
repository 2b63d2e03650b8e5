"""A steady producer and a group, and what must be true of them at the end."""

import collections
import threading
import time
import uuid

from harness import check, equal

PARTITIONS = 6
QUIET = {"log_level": 2, "reconnect.backoff.max.ms": 500}


class Load:
    """The producer: numbers from 0 in each partition, about `rate` records a second."""

    def __init__(self, bootstrap, topic, rate):
        from confluent_kafka import Producer

        self.topic = topic
        self.interval = 1 / rate
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "linger.ms": 5,
                **QUIET,
            }
        )
        self.sent = [0] * PARTITIONS
        self.acknowledged = 0
        self.failures = []
        self.longest_wait = 0.0
        self.last = [time.monotonic()] * PARTITIONS
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def delivered(self, error, message):
        now = time.monotonic()
        self.longest_wait = max(self.longest_wait, now - self.last[message.partition()])
        self.last[message.partition()] = now
        if error is None:
            self.acknowledged += 1
        else:
            self.failures.append(str(error))

    def run(self):
        turn = 0
        while not self.stopping.is_set():
            partition = turn % PARTITIONS
            turn += 1
            self.producer.produce(
                self.topic,
                partition=partition,
                value=str(self.sent[partition]),
                on_delivery=self.delivered,
            )
            self.sent[partition] += 1
            self.producer.poll(0)
            time.sleep(self.interval)
        self.producer.flush(120)


class Member:
    """One member of the group; what it was given, and what it committed."""

    def __init__(self, bootstrap, topic, group, shared):
        from confluent_kafka import Consumer

        self.shared = shared
        self.problems = []
        self.next = {}
        self.assignments = 0
        self.stopping = threading.Event()
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 30_000,
                **QUIET,
            }
        )
        self.consumer.subscribe([topic], on_assign=self.assigned)
        self.thread = threading.Thread(target=self.run)

    def assigned(self, _consumer, _partitions):
        self.assignments += 1
        self.next = {}

    def run(self):
        from confluent_kafka import KafkaException

        while not self.stopping.is_set():
            messages = self.consumer.consume(200, timeout=0.2)
            for message in messages:
                if message.error() is None:
                    self.take(message)
            if messages:
                try:
                    self.consumer.commit(asynchronous=False)
                except KafkaException:
                    pass  # while the broker is away; the next one covers it
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            from confluent_kafka import KafkaError

            if error.args[0].code() != KafkaError._NO_OFFSET:
                self.problems.append(f"last commit: {error}")
        self.consumer.close()

    def take(self, message):
        partition, offset = message.partition(), message.offset()
        if offset < self.next.get(partition, 0):
            self.problems.append(f"partition {partition} went back to {offset}")
        self.next[partition] = offset + 1
        if int(message.value()) != offset:
            self.problems.append(f"partition {partition} offset {offset} holds {message.value()}")
        self.shared[partition][offset] += 1


class Steady:
    """One producer and one group of two on a topic of their own."""

    def __init__(self, bootstrap, rate):
        self.bootstrap = bootstrap
        self.rate = rate
        self.topic = f"steady-{uuid.uuid4().hex[:8]}"
        self.group = self.topic + "-group"
        self.seen = [collections.Counter() for _ in range(PARTITIONS)]
        self.parts = []

    def start(self):
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(60)
        self.load = Load(self.bootstrap, self.topic, self.rate)
        self.members = [Member(self.bootstrap, self.topic, self.group, self.seen) for _ in range(2)]
        self.parts = [self.load, *self.members]
        for part in self.parts:
            part.thread.start()

    def check(self, driver):
        """The steps at the end; they also end the threads."""
        driver.step("all acknowledged", self.finish)
        driver.step("the log holds each once, in order", self.log)
        driver.step("the group got all", self.delivered)
        driver.step("committed to the end", self.committed)

    def stop(self):
        for part in self.parts:
            part.stopping.set()

    def finish(self):
        self.load.stopping.set()
        self.load.thread.join(180)
        total = sum(self.load.sent)
        equal("failed deliveries", self.load.failures[:3], [])
        equal("records acknowledged", self.load.acknowledged, total)
        return f"{total} records, a partition was at most {self.load.longest_wait:.1f} s without"

    def log(self):
        """The whole log, read without the group."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.group + "-check", **QUIET}
        )
        consumer.assign([TopicPartition(self.topic, p, 0) for p in range(PARTITIONS)])
        log = [[] for _ in range(PARTITIONS)]
        deadline = time.monotonic() + 60
        while sum(map(len, log)) < sum(self.load.sent) and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.5):
                check(message.error() is None, f"consume: {message.error()}")
                log[message.partition()].append(int(message.value()))
        for partition, numbers in enumerate(log):
            low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=30)
            equal(f"bounds of {partition}", (low, high), (0, self.load.sent[partition]))
            wrong = next((i for i, n in enumerate(numbers) if i != n), None)
            check(wrong is None, f"partition {partition} offset {wrong} holds {numbers[wrong or 0]}")
            equal(f"records of {partition}", len(numbers), self.load.sent[partition])
        consumer.close()

    def delivered(self):
        deadline = time.monotonic() + 90
        missing = None
        while time.monotonic() < deadline:
            missing = sum(self.load.sent) - sum(map(len, self.seen))
            if missing == 0:
                break
            time.sleep(0.2)
        for member in self.members:
            member.stopping.set()
        for member in self.members:
            member.thread.join(60)
        equal("records missing", missing, 0)
        for member in self.members:
            equal("problems", member.problems[:3], [])
        again = sum(count - 1 for counter in self.seen for count in counter.values())
        rounds = [member.assignments for member in self.members]
        return f"{again} records again, assignments of each member: {rounds}"

    def committed(self):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.group, **QUIET}
        )
        asked = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        got = [tp.offset for tp in consumer.committed(asked, timeout=30)]
        consumer.close()
        equal("committed offsets", got, self.load.sent)
