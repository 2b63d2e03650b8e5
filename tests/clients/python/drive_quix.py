"""Quix Streams, at least once: a transformed copy of a topic and a running total.

The application reads one topic and writes two: each number doubled (stateless),
and the total so far of each key (stateful). Its totals lie in a local store whose
changes go to a compacted changelog topic, which the application creates. It is
stopped and started again with its store lost, so that it must resume from the
committed offsets and restore the totals from the changelog: a record missed or
counted twice shows in them.
"""

import collections
import json
import logging
import os
import shutil
import tempfile
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from harness import PARTITIONS, Driver, Stop, arguments, check, equal, unique
from quixstreams import Application

WAIT = 30
KEYS = [f"key-{n}" for n in range(7)]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


class Run:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.name = unique("quix")
        self.input = f"{self.name}-in"
        self.doubled = f"{self.name}-doubled"
        self.totals = f"{self.name}-totals"
        self.topics = [self.input, self.doubled, self.totals]
        self.group = f"{self.name}-group"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.state = tempfile.mkdtemp(prefix="quix-")
        self.sent = []
        self.processed = 0

    def create_topics(self):
        made = self.admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in self.topics])
        for future in made.values():
            future.result(WAIT)

    def produce(self, codec, count=60):
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "compression.type": codec, "linger.ms": 20}
        )
        failures = []
        for _ in range(count):
            number = len(self.sent)
            key = KEYS[number % len(KEYS)]
            producer.produce(
                self.input,
                key=key,
                value=json.dumps({"number": number}),
                on_delivery=lambda error, _: error and failures.append(error),
            )
            self.sent.append((key, number))
        check(producer.flush(WAIT) == 0, "records still undelivered after flush")
        equal("failed deliveries", failures, [])

    def process(self, codec):
        """Runs the application until it has processed everything sent, and stops it."""
        expected = len(self.sent) - self.processed
        seen = []
        app = Application(
            broker_address=self.bootstrap,
            consumer_group=self.group,
            auto_offset_reset="earliest",
            state_dir=self.state,
            commit_interval=0.5,
            processing_guarantee="at-least-once",
            producer_extra_config={"compression.type": codec},
            on_message_processed=lambda topic, partition, offset: seen.append((partition, offset)),
            loglevel=logging.ERROR,
        )
        numbers = app.dataframe(app.topic(self.input, value_deserializer="json", key_deserializer="str"))
        doubled = numbers.apply(lambda value: {"doubled": value["number"] * 2})
        doubled.to_topic(app.topic(self.doubled, value_serializer="json", key_serializer="str"))

        def add(value, state):
            total = state.get("total", 0) + value["number"]
            state.set("total", total)
            return {"total": total}

        totals = numbers.apply(add, stateful=True)
        totals.to_topic(app.topic(self.totals, value_serializer="json", key_serializer="str"))
        # Until nothing came for some seconds: a record delivered again would be seen.
        app.run(timeout=4, collect=False)
        equal("distinct records processed", len(set(seen)), expected)
        equal("records processed", len(seen), expected)
        self.processed = len(self.sent)
        return f"{len(seen)} records"

    def read(self, topic):
        """Per key, the values in `topic` in order of offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"{self.name}-reader"})
        try:
            parts = [TopicPartition(topic, p, 0) for p in range(PARTITIONS)]
            missing = sum(consumer.get_watermark_offsets(p, WAIT)[1] for p in parts)
            consumer.assign(parts)
            values = collections.defaultdict(list)
            deadline = time.monotonic() + WAIT
            while missing:
                check(time.monotonic() < deadline, f"{topic}: {missing} records missing")
                message = consumer.poll(0.5)
                if message is None:
                    continue
                check(message.error() is None, f"{topic}: {message.error()}")
                values[message.key().decode()].append(json.loads(message.value()))
                missing -= 1
            return dict(values)
        finally:
            consumer.close()

    def outputs(self):
        doubled = collections.defaultdict(list)
        totals = collections.defaultdict(list)
        running = collections.Counter()
        for key, number in self.sent:
            running[key] += number
            doubled[key].append({"doubled": number * 2})
            totals[key].append({"total": running[key]})
        equal("doubled", self.read(self.doubled), dict(doubled))
        equal("totals", self.read(self.totals), dict(totals))

    def changelogs(self):
        # Other runs may share the broker: only what bears this group's name.
        topics = self.admin.list_topics(timeout=WAIT).topics
        return {name: t for name, t in topics.items() if name.startswith("changelog__" + self.group)}

    def changelog(self):
        changelogs = self.changelogs()
        equal("changelog topics", len(changelogs), 1)
        [(name, topic)] = changelogs.items()
        equal("partitions", len(topic.partitions), PARTITIONS)
        [future] = self.admin.describe_configs([ConfigResource("topic", name)]).values()
        equal("cleanup.policy", future.result(WAIT)["cleanup.policy"].value, "compact")

    def committed(self):
        request = [ConsumerGroupTopicPartitions(self.group)]
        [future] = self.admin.list_consumer_group_offsets(request).values()
        offsets = {
            p.partition: p.offset for p in future.result(WAIT).topic_partitions if p.topic == self.input
        }
        equal("sum of committed offsets", sum(offsets.values()), len(self.sent))

    def groups(self):
        listed = self.admin.list_consumer_groups().result(WAIT)
        check(self.group in [g.group_id for g in listed.valid], "group not listed")
        described = self.admin.describe_consumer_groups([self.group])[self.group].result(WAIT)
        equal("state", described.state.name, "EMPTY")
        equal("members", len(described.members), 0)

    def lose_state(self):
        check(os.listdir(self.state), "there is no local state to lose")
        shutil.rmtree(self.state)
        os.mkdir(self.state)

    def delete(self):
        self.admin.delete_consumer_groups([self.group])[self.group].result(WAIT)
        for future in self.admin.delete_topics([*self.topics, *self.changelogs()]).values():
            future.result(WAIT)
        deadline = time.monotonic() + WAIT
        while left := [t for t in self.admin.list_topics(timeout=WAIT).topics if self.name in t]:
            check(time.monotonic() < deadline, f"topics still listed: {left}")
            time.sleep(0.2)


def main():
    run = Run(arguments().bootstrap)
    driver = Driver("quix")
    try:
        driver.step("create topics", run.create_topics, essential=True)
        for codec in CODECS:
            driver.step(f"produce {codec}", lambda codec=codec: run.produce(codec))
        driver.step("process", lambda: run.process("none"))
        driver.step("outputs", run.outputs)
        driver.step("changelog topic", run.changelog)
        driver.step("committed offsets", run.committed)
        driver.step("produce more", lambda: run.produce("none"))
        driver.step("resume", lambda: run.process("gzip"))
        driver.step("outputs after resuming", run.outputs)
        driver.step("lose the state", run.lose_state)
        driver.step("produce yet more", lambda: run.produce("none"))
        driver.step("resume with the state lost", lambda: run.process("zstd"))
        driver.step("outputs after restoring", run.outputs)
        driver.step("committed offsets at the end", run.committed)
        driver.step("list and describe groups", run.groups)
        driver.step("delete group and topics", run.delete)
    except Stop:
        pass
    finally:
        shutil.rmtree(run.state, ignore_errors=True)
    driver.finish()


if __name__ == "__main__":
    main()
