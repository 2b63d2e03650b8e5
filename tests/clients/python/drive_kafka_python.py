"""kafka-python 3."""

import time

from harness import (
    PARTITIONS,
    RECORDS,
    Driver,
    Ledger,
    Record,
    Stop,
    arguments,
    check,
    equal,
    records,
    unique,
)
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
WAIT = 30


class Run:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.topic = unique("kafka-python")
        self.group = self.topic + "-group"
        self.ledger = Ledger()
        self.partitions = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        self.admin = None

    def connect(self):
        self.admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create_topic(self):
        self.admin.create_topics(
            {self.topic: {"num_partitions": PARTITIONS, "replication_factor": 1}}
        )

    def create_again(self):
        try:
            self.admin.create_topics({self.topic: {"num_partitions": PARTITIONS}})
        except TopicAlreadyExistsError:
            return
        check(False, "creating the topic twice succeeded")

    def metadata(self):
        check(self.topic in self.admin.list_topics(), "topic not listed")
        (topic,) = self.admin.describe_topics([self.topic])
        equal("partitions", len(topic["partitions"]), PARTITIONS)
        cluster = self.admin.describe_cluster()
        brokers = [broker.get("broker_id", broker.get("node_id")) for broker in cluster["brokers"]]
        check(cluster["controller_id"] in brokers, "controller is no broker")

    def produce(self, codec, first=0, count=RECORDS, **settings):
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=codec,
            linger_ms=20,
            **settings,
        )
        sent = [
            (
                record,
                producer.send(
                    self.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=record.headers,
                    timestamp_ms=record.timestamp,
                ),
            )
            for record in records(codec or "none", first, count)
        ]
        for record, future in sent:
            self.ledger.acknowledged(record, future.get(timeout=WAIT).offset)
        producer.close()

    def consumer(self, *topics, **settings):
        return KafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **settings,
        )

    def drain(self, consumer, expected):
        received = {}
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            for messages in consumer.poll(timeout_ms=200).values():
                for message in messages:
                    at = (message.partition, message.offset)
                    check(at not in received, f"{at} delivered twice")
                    received[at] = (
                        message.key,
                        message.value,
                        tuple(message.headers),
                        message.timestamp,
                    )
            if len(received) >= expected and deadline - time.monotonic() > 1:
                deadline = time.monotonic() + 0.5
        return received

    def offsets(self):
        consumer = self.consumer()
        equal(
            "beginning offsets",
            consumer.beginning_offsets(self.partitions),
            {tp: 0 for tp in self.partitions},
        )
        equal(
            "end offsets",
            consumer.end_offsets(self.partitions),
            {tp: self.ledger.end(tp.partition) for tp in self.partitions},
        )
        found = consumer.offsets_for_times(
            {tp: Record.FIRST_TIMESTAMP + 4500 for tp in self.partitions}
        )
        for tp in self.partitions:
            equal(f"offset for time {tp.partition}", found[tp].offset, 5)
        consumer.close()
        listed = self.admin.list_partition_offsets(
            {tp: OffsetSpec.MAX_TIMESTAMP for tp in self.partitions}
        )
        for tp in self.partitions:
            equal(
                f"max timestamp {tp.partition}",
                listed[tp].timestamp,
                max(content[3] for content in self.ledger.log[tp.partition]),
            )

    def consume_all(self):
        consumer = self.consumer(self.topic, group_id=self.group)
        received = self.drain(consumer, self.ledger.total())
        self.ledger.compare(received)
        consumer.commit()
        consumer.close()
        return f"{len(received)} records"

    def committed(self):
        want = {tp: self.ledger.end(tp.partition) for tp in self.partitions}
        listed = self.admin.list_group_offsets(self.group)[self.group]
        equal("listed offsets", {tp: o.offset for tp, o in listed.items()}, want)

    def resume(self):
        start = {p: self.ledger.end(p) for p in range(PARTITIONS)}
        self.produce(None, first=1000, count=10)
        consumer = self.consumer(self.topic, group_id=self.group)
        received = self.drain(consumer, 10 * PARTITIONS)
        self.ledger.compare(received, start)
        consumer.commit()
        consumer.close()

    def groups(self):
        listed = self.admin.list_groups()
        check(self.group in [g["group_id"] for g in listed], "group not listed")
        described = self.admin.describe_groups([self.group])[self.group]
        equal("state", described["group_state"], "Empty")
        equal("members", described["members"], [])

    def alter_offsets(self):
        at = self.partitions[2]
        self.admin.alter_group_offsets(self.group, {at: OffsetAndMetadata(7, "moved", -1)})
        listed = self.admin.list_group_offsets(self.group)[self.group]
        equal("moved offset", (listed[at].offset, listed[at].metadata), (7, "moved"))
        self.admin.delete_group_offsets(self.group, [at])
        listed = self.admin.list_group_offsets(self.group)[self.group]
        check(at not in listed or listed[at].offset == -1, "offset still there after its deletion")

    def described_configs(self):
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic)
        answer = self.admin.describe_configs([resource], config_filter="all")
        return answer["topic"][self.topic]

    def configs(self):
        configs = self.described_configs()
        equal("cleanup.policy", configs["cleanup.policy"]["value"], "delete")
        self.admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, self.topic, configs={"retention.ms": "7200000"}
                )
            ]
        )
        equal("retention.ms", self.described_configs()["retention.ms"]["value"], "7200000")

    def delete_records(self):
        at = self.partitions[0]
        self.admin.delete_records({at: 30})
        consumer = self.consumer()
        equal("beginning offset", consumer.beginning_offsets([at]), {at: 30})
        consumer.assign([at])
        consumer.seek(at, 3)
        received = self.drain(consumer, self.ledger.end(0) - 30)
        consumer.close()
        equal("first offset after a reset", min(o for _, o in received), 30)

    def create_partitions(self):
        self.admin.create_partitions({self.topic: PARTITIONS + 2})
        (topic,) = self.admin.describe_topics([self.topic])
        equal("partitions", len(topic["partitions"]), PARTITIONS + 2)

    def delete_group(self):
        self.admin.delete_groups([self.group])
        listed = self.admin.list_groups()
        check(self.group not in [g["group_id"] for g in listed], "group still listed")

    def delete_topic(self):
        self.admin.delete_topics([self.topic])
        deadline = time.monotonic() + 10
        while self.topic in self.admin.list_topics():
            check(time.monotonic() < deadline, "topic still listed after 10 s")
            time.sleep(0.2)


def main():
    run = Run(arguments().bootstrap)
    driver = Driver("kafka-python")
    try:
        driver.step("connect", run.connect, essential=True)
        driver.step("create topic", run.create_topic, essential=True)
        driver.step("create topic again", run.create_again)
        driver.step("metadata", run.metadata)
        for codec in CODECS:
            driver.step(f"produce {codec or 'none'}", lambda codec=codec: run.produce(codec))
        driver.step(
            "produce without idempotence", lambda: run.produce(None, enable_idempotence=False)
        )
        driver.step(
            "produce acks=1",
            lambda: run.produce("gzip", enable_idempotence=False, acks=1),
        )
        driver.step("list offsets", run.offsets)
        driver.step("consume all in a group", run.consume_all)
        driver.step("committed offsets", run.committed)
        driver.step("resume from the commit", run.resume)
        driver.step("list and describe groups", run.groups)
        driver.step("alter and delete group offsets", run.alter_offsets)
        driver.step("configs", run.configs)
        driver.step("delete records", run.delete_records)
        driver.step("create partitions", run.create_partitions)
        driver.step("delete group", run.delete_group)
        driver.step("delete topic", run.delete_topic)
    except Stop:
        pass
    if run.admin is not None:
        run.admin.close()
    driver.finish()


if __name__ == "__main__":
    main()
