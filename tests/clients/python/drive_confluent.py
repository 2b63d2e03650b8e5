"""librdkafka, through confluent-kafka."""

import time

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka import ConsumerGroupTopicPartitions
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

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
WAIT = 30


def result(futures):
    """The one future in the mapping that every admin call returns."""
    (future,) = futures.values()
    return future.result(WAIT)


class Run:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.topic = unique("confluent")
        self.group = self.topic + "-group"
        self.ledger = Ledger()
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(self):
        result(self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)]))

    def create_again(self):
        try:
            result(self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)]))
        except KafkaException as error:
            equal("error", error.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS)
            return
        check(False, "creating the topic twice succeeded")

    def metadata(self):
        topics = self.admin.list_topics(timeout=WAIT)
        check(self.topic in topics.topics, "topic missing from the list of all topics")
        partitions = topics.topics[self.topic].partitions
        equal("partitions", sorted(partitions), list(range(PARTITIONS)))
        for partition in partitions.values():
            check(partition.leader in topics.brokers, f"leader {partition.leader} is no broker")
            check(partition.leader in partition.replicas, "leader is no replica")
        check(topics.controller_id in topics.brokers, "controller is no broker")
        described = result(self.admin.describe_topics(TopicCollection([self.topic])))
        equal("described partitions", len(described.partitions), PARTITIONS)

    def cluster(self):
        cluster = self.admin.describe_cluster().result(WAIT)
        check(cluster.cluster_id, "no cluster id")
        check(len(cluster.nodes) >= 1, "no nodes")
        return f"{len(cluster.nodes)} node(s)"

    def produce(self, codec, first=0, count=RECORDS, **settings):
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "compression.type": codec,
                "linger.ms": 20,
                "acks": "all",
                "message.timeout.ms": WAIT * 1000,
                **settings,
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
        equal("delivery reports", len(delivered), count * PARTITIONS)
        for error, message, record in delivered:
            check(error is None, f"delivery failed: {error}")
            self.ledger.acknowledged(record, message.offset())

    def too_large(self):
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "message.max.bytes": 8_000_000,
                "message.timeout.ms": WAIT * 1000,
            }
        )
        errors = []
        producer.produce(
            self.topic,
            value=bytes(3_000_000),
            partition=0,
            on_delivery=lambda error, _: errors.append(error),
        )
        check(producer.flush(WAIT) == 0, "no answer to a record above max.message.bytes")
        check(errors[0] is not None, "a record above max.message.bytes was accepted")
        equal("error", errors[0].code(), KafkaError.MSG_SIZE_TOO_LARGE)

    def list_offsets(self):
        for partition in range(PARTITIONS):
            at = TopicPartition(self.topic, partition)
            isolation = IsolationLevel.READ_UNCOMMITTED
            for spec, want in (
                (OffsetSpec.earliest(), 0),
                (OffsetSpec.latest(), self.ledger.end(partition)),
                # The first record at or after the time of number 5: every codec
                # starts again from the first timestamp, so it is in the first.
                (OffsetSpec.for_timestamp(Record.FIRST_TIMESTAMP + 4500), 5),
            ):
                got = result(self.admin.list_offsets({at: spec}, isolation_level=isolation))
                equal(f"partition {partition} {spec._value}", got.offset, want)

    def consumer(self, **settings):
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": self.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "check.crcs": True,
                **settings,
            }
        )

    def drain(self, consumers, expected, seconds=WAIT):
        """Polls until `expected` records came, and a little longer for any too many."""
        received = {}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for consumer in consumers:
                for message in consumer.consume(500, timeout=0.1):
                    check(message.error() is None, f"consume: {message.error()}")
                    at = (message.partition(), message.offset())
                    check(at not in received, f"{at} delivered twice")
                    received[at] = (
                        message.key(),
                        message.value(),
                        tuple(message.headers() or ()),
                        message.timestamp()[1],
                    )
            if len(received) >= expected and deadline - time.monotonic() > 1:
                deadline = time.monotonic() + 0.5
        return received

    def consume_all(self):
        consumer = self.consumer()
        consumer.subscribe([self.topic])
        received = self.drain([consumer], self.ledger.total())
        self.ledger.compare(received)
        committed = consumer.commit(asynchronous=False)
        equal(
            "committed",
            {tp.partition: tp.offset for tp in committed},
            {p: self.ledger.end(p) for p in range(PARTITIONS)},
        )
        consumer.close()
        return f"{len(received)} records"

    def watermarks(self):
        consumer = self.consumer()
        for p in range(PARTITIONS):
            low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, p), timeout=WAIT)
            equal(f"watermarks of {p}", (low, high), (0, self.ledger.end(p)))
        consumer.close()

    def committed(self):
        consumer = self.consumer()
        asked = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        got = {tp.partition: tp.offset for tp in consumer.committed(asked, timeout=WAIT)}
        consumer.close()
        equal("committed offsets", got, {p: self.ledger.end(p) for p in range(PARTITIONS)})
        listed = result(
            self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.group)])
        )
        got = {tp.partition: tp.offset for tp in listed.topic_partitions}
        equal("listed offsets", got, {p: self.ledger.end(p) for p in range(PARTITIONS)})

    def resume(self):
        start = {p: self.ledger.end(p) for p in range(PARTITIONS)}
        self.produce("none", first=1000, count=10)
        consumer = self.consumer()
        consumer.subscribe([self.topic])
        received = self.drain([consumer], 10 * PARTITIONS)
        self.ledger.compare(received, start)
        consumer.commit(asynchronous=False)
        consumer.close()

    def rebalance(self):
        """Two members share the partitions; when one leaves the other takes all."""
        members = [self.consumer() for _ in range(2)]
        for member in members:
            member.subscribe([self.topic])

        def settle(polled, want):
            deadline = time.monotonic() + WAIT
            while time.monotonic() < deadline:
                for member in polled:
                    member.poll(0.1)
                sizes = sorted(len(member.assignment()) for member in polled)
                if sizes == want:
                    return
            check(False, f"assignment sizes {sizes}, want {want}")

        settle(members, [1, 2])
        described = result(self.admin.describe_consumer_groups([self.group]))
        equal("members", len(described.members), 2)
        equal("state", described.state.name, "STABLE")
        members[0].close()
        settle(members[1:], [PARTITIONS])
        members[1].close()

    def seek_middle(self):
        """A fetch from inside a batch must yield that record first, not the batch's first."""
        consumer = self.consumer()
        consumer.assign([TopicPartition(self.topic, 1, 17)])
        received = self.drain([consumer], self.ledger.end(1) - 17)
        consumer.close()
        self.ledger.compare(
            received, {0: self.ledger.end(0), 1: 17, 2: self.ledger.end(2)}
        )

    def groups(self):
        listed = self.admin.list_consumer_groups().result(WAIT)
        check(not listed.errors, f"errors: {listed.errors}")
        check(self.group in [g.group_id for g in listed.valid], "group not listed")
        described = result(self.admin.describe_consumer_groups([self.group]))
        equal("state", described.state.name, "EMPTY")
        equal("members", len(described.members), 0)

    def configs(self):
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        described = result(self.admin.describe_configs([resource]))
        for name in ("cleanup.policy", "retention.ms", "max.message.bytes"):
            check(name in described, f"{name} not described")
        equal("cleanup.policy", described["cleanup.policy"].value, "delete")
        change = ConfigResource(
            ResourceType.TOPIC,
            self.topic,
            incremental_configs=[
                ConfigEntry(
                    "retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET
                )
            ],
        )
        result(self.admin.incremental_alter_configs([change]))
        described = result(self.admin.describe_configs([resource]))
        equal("retention.ms", described["retention.ms"].value, "7200000")
        check(not described["retention.ms"].is_default, "a changed value is shown as a default")

    def delete_records(self):
        at = TopicPartition(self.topic, 0, 30)
        deleted = result(self.admin.delete_records([at]))
        equal("low watermark", deleted.low_watermark, 30)
        got = result(self.admin.list_offsets({TopicPartition(self.topic, 0): OffsetSpec.earliest()}))
        equal("earliest", got.offset, 30)

    def reset_below_start(self):
        """A position below the log start is answered OFFSET_OUT_OF_RANGE: reset to earliest."""
        consumer = self.consumer()
        consumer.assign([TopicPartition(self.topic, 0, 3)])
        received = self.drain([consumer], self.ledger.end(0) - 30)
        consumer.close()
        equal("first offset", min(offset for _, offset in received), 30)

    def create_partitions(self):
        result(self.admin.create_partitions([NewPartitions(self.topic, PARTITIONS + 2)]))
        described = result(self.admin.describe_topics(TopicCollection([self.topic])))
        equal("partitions", len(described.partitions), PARTITIONS + 2)

    def delete_group(self):
        result(self.admin.delete_consumer_groups([self.group]))
        listed = self.admin.list_consumer_groups().result(WAIT)
        check(self.group not in [g.group_id for g in listed.valid], "group still listed")

    def delete_topic(self):
        result(self.admin.delete_topics([self.topic]))
        deadline = time.monotonic() + 10
        while self.topic in self.admin.list_topics(timeout=WAIT).topics:
            check(time.monotonic() < deadline, "topic still listed after 10 s")
            time.sleep(0.2)


def main():
    run = Run(arguments().bootstrap)
    driver = Driver("confluent")
    try:
        driver.step("create topic", run.create_topic, essential=True)
        driver.step("create topic again", run.create_again)
        driver.step("metadata", run.metadata)
        driver.step("describe cluster", run.cluster)
        for codec in CODECS:
            driver.step(f"produce {codec}", lambda codec=codec: run.produce(codec))
        driver.step(
            "produce idempotent", lambda: run.produce("lz4", **{"enable.idempotence": True})
        )
        driver.step("produce acks=1", lambda: run.produce("none", acks="1"))
        driver.step("produce too large", run.too_large)
        driver.step("list offsets", run.list_offsets)
        driver.step("watermarks", run.watermarks)
        driver.step("consume all in a group", run.consume_all)
        driver.step("committed offsets", run.committed)
        driver.step("resume from the commit", run.resume)
        driver.step("rebalance", run.rebalance)
        driver.step("fetch from inside a batch", run.seek_middle)
        driver.step("list and describe groups", run.groups)
        driver.step("configs", run.configs)
        driver.step("delete records", run.delete_records)
        driver.step("reset below the log start", run.reset_below_start)
        driver.step("create partitions", run.create_partitions)
        driver.step("delete group", run.delete_group)
        driver.step("delete topic", run.delete_topic)
    except Stop:
        pass
    driver.finish()


if __name__ == "__main__":
    main()
