"""aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
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

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
WAIT = 30
TOPIC_ALREADY_EXISTS = 36


class Run:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.topic = unique("aiokafka")
        self.group = self.topic + "-group"
        self.ledger = Ledger()
        self.admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self.partitions = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]

    async def connect(self):
        await self.admin.start()

    async def create_topic(self):
        answer = await self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        equal("error code", answer.topic_errors[0][1], 0)

    async def create_again(self):
        answer = await self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        equal("error code", answer.topic_errors[0][1], TOPIC_ALREADY_EXISTS)

    async def metadata(self):
        check(self.topic in await self.admin.list_topics(), "topic not listed")
        (topic,) = await self.admin.describe_topics([self.topic])
        equal("error code", topic["error_code"], 0)
        equal("partitions", len(topic["partitions"]), PARTITIONS)
        cluster = await self.admin.describe_cluster()
        brokers = [broker["node_id"] for broker in cluster["brokers"]]
        check(cluster["controller_id"] in brokers, "controller is no broker")
        for partition in topic["partitions"]:
            check(partition["leader"] in brokers, f"leader {partition['leader']} is no broker")

    async def produce(self, codec, first=0, count=RECORDS, **settings):
        async with AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=codec,
            linger_ms=20,
            **{"acks": "all", **settings},
        ) as producer:
            sent = [
                (
                    record,
                    await producer.send(
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
                answer = await asyncio.wait_for(future, WAIT)
                self.ledger.acknowledged(record, answer.offset)

    def consumer(self, *topics, **settings):
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **settings,
        )

    async def drain(self, consumer, expected):
        received = {}
        clock = asyncio.get_running_loop().time
        deadline = clock() + WAIT
        while clock() < deadline:
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                for message in messages:
                    at = (message.partition, message.offset)
                    check(at not in received, f"{at} delivered twice")
                    received[at] = (
                        message.key,
                        message.value,
                        tuple(message.headers),
                        message.timestamp,
                    )
            if len(received) >= expected and deadline - clock() > 1:
                deadline = clock() + 0.5
        return received

    async def offsets(self):
        async with self.consumer() as consumer:
            equal(
                "beginning offsets",
                await consumer.beginning_offsets(self.partitions),
                {tp: 0 for tp in self.partitions},
            )
            equal(
                "end offsets",
                await consumer.end_offsets(self.partitions),
                {tp: self.ledger.end(tp.partition) for tp in self.partitions},
            )
            found = await consumer.offsets_for_times(
                {tp: Record.FIRST_TIMESTAMP + 4500 for tp in self.partitions}
            )
            for tp in self.partitions:
                equal(f"offset for time {tp.partition}", found[tp].offset, 5)
                equal("its timestamp", found[tp].timestamp, Record.FIRST_TIMESTAMP + 5000)

    async def consume_all(self):
        async with self.consumer(self.topic, group_id=self.group) as consumer:
            received = await self.drain(consumer, self.ledger.total())
            self.ledger.compare(received)
            await consumer.commit()
        return f"{len(received)} records"

    async def committed(self):
        want = {tp: self.ledger.end(tp.partition) for tp in self.partitions}
        listed = await self.admin.list_consumer_group_offsets(self.group)
        equal("listed offsets", {tp: o.offset for tp, o in listed.items()}, want)
        async with self.consumer(group_id=self.group) as consumer:
            consumer.assign(self.partitions)
            for tp in self.partitions:
                equal(f"committed {tp.partition}", await consumer.committed(tp), want[tp])

    async def resume(self):
        start = {p: self.ledger.end(p) for p in range(PARTITIONS)}
        await self.produce(None, first=1000, count=10)
        async with self.consumer(self.topic, group_id=self.group) as consumer:
            received = await self.drain(consumer, 10 * PARTITIONS)
            self.ledger.compare(received, start)
            await consumer.commit()

    async def groups(self):
        listed = await self.admin.list_consumer_groups()
        check(self.group in [group[0] for group in listed], "group not listed")
        async with self.consumer(self.topic, group_id=self.group) as consumer:
            await consumer.getmany(timeout_ms=500)
            (answer,) = await self.admin.describe_consumer_groups([self.group])
            code, name, state, kind, protocol, members = answer.groups[0][:6]
            equal("describe", (code, name, state, kind), (0, self.group, "Stable", "consumer"))
            equal("members", len(members), 1)
            check(protocol, "no protocol")
        (answer,) = await self.admin.describe_consumer_groups([self.group])
        equal("state after leaving", answer.groups[0][2], "Empty")

    async def configs(self):
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic)
        (answer,) = await self.admin.describe_configs([resource])
        entries = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        equal("cleanup.policy", entries.get("cleanup.policy"), "delete")

    async def delete_records(self):
        at = self.partitions[0]
        low = await self.admin.delete_records({at: RecordsToDelete(before_offset=30)})
        equal("low watermark", low, {at: 30})
        async with self.consumer() as consumer:
            consumer.assign([at])
            consumer.seek(at, 3)
            received = await self.drain(consumer, self.ledger.end(0) - 30)
            equal("first offset after a reset", min(o for _, o in received), 30)

    async def create_partitions(self):
        await self.admin.create_partitions({self.topic: NewPartitions(PARTITIONS + 2)})
        (topic,) = await self.admin.describe_topics([self.topic])
        equal("partitions", len(topic["partitions"]), PARTITIONS + 2)

    async def delete_topic(self):
        answer = await self.admin.delete_topics([self.topic])
        equal("error code", answer.topic_error_codes[0][1], 0)
        for _ in range(50):
            if self.topic not in await self.admin.list_topics():
                return
            await asyncio.sleep(0.2)
        check(False, "topic still listed after 10 s")


async def main():
    run = Run(arguments().bootstrap)
    driver = Driver("aiokafka")
    step = driver.step_async
    try:
        await step("connect", run.connect, essential=True)
        await step("create topic", run.create_topic, essential=True)
        await step("create topic again", run.create_again)
        await step("metadata", run.metadata)
        for codec in CODECS:
            await step(f"produce {codec or 'none'}", lambda codec=codec: run.produce(codec))
        await step(
            "produce idempotent", lambda: run.produce("gzip", enable_idempotence=True)
        )
        await step("produce acks=1", lambda: run.produce(None, acks=1))
        await step("list offsets", run.offsets)
        await step("consume all in a group", run.consume_all)
        await step("committed offsets", run.committed)
        await step("resume from the commit", run.resume)
        await step("list and describe groups", run.groups)
        await step("describe configs", run.configs)
        await step("delete records", run.delete_records)
        await step("create partitions", run.create_partitions)
        await step("delete topic", run.delete_topic)
    except Stop:
        pass
    await run.admin.close()
    driver.finish()


if __name__ == "__main__":
    asyncio.run(main())
