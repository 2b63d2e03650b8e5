package clients;

import static clients.Data.FIRST_TIMESTAMP;
import static clients.Data.PARTITIONS;
import static clients.Data.RECORDS;
import static clients.Steps.check;
import static clients.Steps.equal;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client: the idempotent producer (its default), a group of the classic protocol, a static
 * member, and these calls of Admin: createTopics, describeCluster, listTopics, describeTopics,
 * createPartitions, describeConfigs (topic and broker), incrementalAlterConfigs, listOffsets
 * (earliest, latest, max timestamp, by timestamp), listConsumerGroups, describeConsumerGroups,
 * listConsumerGroupOffsets, alterConsumerGroupOffsets, deleteConsumerGroupOffsets,
 * deleteConsumerGroups, removeMembersFromConsumerGroup, deleteRecords, describeLogDirs,
 * listPartitionReassignments, deleteTopics.
 */
public final class Main {
    private static final int WAIT_SECONDS = 30;

    private final String bootstrap;
    private final String topic = "java-" + UUID.randomUUID().toString().substring(0, 10);
    private final String group = topic + "-group";
    private final Data.Ledger ledger = new Data.Ledger();
    private final Admin admin;

    private Main(String bootstrap) {
        this.bootstrap = bootstrap;
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("default.api.timeout.ms", WAIT_SECONDS * 1000);
        settings.put("request.timeout.ms", WAIT_SECONDS * 1000 / 2);
        admin = Admin.create(settings);
    }

    public static void main(String[] arguments) {
        check(arguments.length == 2 && arguments[0].equals("--bootstrap"), "usage: --bootstrap HOST:PORT");
        Main run = new Main(arguments[1]);
        Steps steps = new Steps("java " + org.apache.kafka.common.utils.AppInfoParser.getVersion());
        if (steps.step("create topic", run::createTopic)) {
            steps.step("create topic again", run::createAgain);
            steps.step("describe cluster", run::describeCluster);
            steps.step("metadata", run::metadata);
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                steps.step("produce " + codec, () -> run.produce(codec, 0, RECORDS, Map.of()));
            }
            steps.step(
                    "produce without idempotence",
                    () -> run.produce("none", 0, RECORDS, Map.of("enable.idempotence", "false")));
            steps.step(
                    "produce acks=1",
                    () -> run.produce("lz4", 0, RECORDS, Map.of("enable.idempotence", "false", "acks", "1")));
            steps.step("produce too large", run::tooLarge);
            steps.step("list offsets", run::listOffsets);
            steps.step("consume all in a group", run::consumeAll);
            steps.step("committed offsets", run::committed);
            steps.step("resume from the commit", run::resume);
            steps.step("rebalance", run::rebalance);
            steps.step("static member", run::staticMember);
            steps.step("fetch from inside a batch", run::seekMiddle);
            steps.step("list and describe groups", run::groups);
            steps.step("alter and delete group offsets", run::alterOffsets);
            steps.step("topic configs", run::topicConfigs);
            steps.step("broker configs", run::brokerConfigs);
            steps.step("log dirs", run::logDirs);
            steps.step("partition reassignments", run::reassignments);
            steps.step("delete records", run::deleteRecords);
            steps.step("out of range without a reset", run::outOfRange);
            steps.step("create partitions", run::createPartitions);
            steps.step("delete group", run::deleteGroup);
            steps.step("delete topic", run::deleteTopic);
        }
        run.admin.close(Duration.ofSeconds(5));
        System.exit(steps.finish());
    }

    private static <T> T get(Future<T> future) throws Exception {
        return future.get(WAIT_SECONDS, TimeUnit.SECONDS);
    }

    /** The future fails with this exception. */
    private static void refused(Future<?> future, Class<? extends Exception> want) throws Exception {
        try {
            get(future);
        } catch (ExecutionException failure) {
            equal("error", failure.getCause().getClass().getSimpleName(), want.getSimpleName());
            return;
        }
        check(false, "succeeded, want " + want.getSimpleName());
    }

    private TopicPartition at(int partition) {
        return new TopicPartition(topic, partition);
    }

    private List<TopicPartition> partitions() {
        return List.of(at(0), at(1), at(2));
    }

    private void createTopic() throws Exception {
        var created = admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1)));
        get(created.all());
        equal("partitions in the answer", get(created.numPartitions(topic)), PARTITIONS);
        check(get(created.config(topic)).get("cleanup.policy") != null, "no configs in the answer");
    }

    private void createAgain() throws Exception {
        var again = List.of(new NewTopic(topic, PARTITIONS, (short) 1));
        refused(admin.createTopics(again).all(), TopicExistsException.class);
    }

    private void describeCluster() throws Exception {
        var cluster = admin.describeCluster();
        List<Integer> nodes = get(cluster.nodes()).stream().map(Node::id).toList();
        check(!get(cluster.clusterId()).isEmpty(), "no cluster id");
        check(nodes.contains(get(cluster.controller()).id()), "controller is no node");
    }

    private void metadata() throws Exception {
        check(get(admin.listTopics().names()).contains(topic), "topic not listed");
        TopicDescription described = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        equal("partitions", described.partitions().size(), PARTITIONS);
        check(!described.topicId().equals(org.apache.kafka.common.Uuid.ZERO_UUID), "no topic id");
        for (var partition : described.partitions()) {
            check(partition.leader() != null, "partition " + partition.partition() + " has no leader");
            check(partition.isr().size() >= 1, "partition " + partition.partition() + " has no replica in sync");
        }
        refused(
                admin.describeTopics(List.of(topic + "-none")).allTopicNames(),
                UnknownTopicOrPartitionException.class);
    }

    private KafkaProducer<byte[], byte[]> producer(String codec, Map<String, String> settings) {
        Properties all = new Properties();
        all.put("bootstrap.servers", bootstrap);
        all.put("compression.type", codec);
        all.put("linger.ms", "20");
        all.put("delivery.timeout.ms", "30000");
        all.put("request.timeout.ms", "15000");
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private void produce(String codec, int first, int count, Map<String, String> settings) throws Exception {
        record Sent(ProducerRecord<byte[], byte[]> record, Future<RecordMetadata> answer) {}
        List<Sent> sent = new ArrayList<>();
        try (var producer = producer(codec, settings)) {
            for (int i = 0; i < count; i++) {
                for (int p = 0; p < PARTITIONS; p++) {
                    var record = Data.record(topic, codec, p, first + i);
                    sent.add(new Sent(record, producer.send(record)));
                }
            }
            producer.flush();
            for (Sent one : sent) {
                RecordMetadata answer = get(one.answer());
                ledger.acknowledged(one.record(), answer.offset());
                equal("timestamp", answer.timestamp(), one.record().timestamp());
            }
        }
    }

    private void tooLarge() throws Exception {
        Map<String, String> settings = Map.of("max.request.size", "8000000");
        try (var producer = producer("none", settings)) {
            var record = new ProducerRecord<byte[], byte[]>(topic, 0, null, new byte[3_000_000]);
            refused(producer.send(record), RecordTooLargeException.class);
        }
    }

    private ListOffsetsResultInfo offset(int partition, OffsetSpec spec) throws Exception {
        return get(admin.listOffsets(Map.of(at(partition), spec)).partitionResult(at(partition)));
    }

    private void listOffsets() throws Exception {
        for (int p = 0; p < PARTITIONS; p++) {
            equal("earliest", offset(p, OffsetSpec.earliest()).offset(), 0L);
            equal("latest", offset(p, OffsetSpec.latest()).offset(), ledger.end(p));
            var newest = offset(p, OffsetSpec.maxTimestamp());
            equal("max timestamp", newest.timestamp(), FIRST_TIMESTAMP + (RECORDS - 1) * 1000L);
            equal("its offset, the first with it", newest.offset() % RECORDS, (long) RECORDS - 1);
            var found = offset(p, OffsetSpec.forTimestamp(FIRST_TIMESTAMP + 4500));
            equal("by timestamp", found.offset(), 5L);
            equal("its timestamp", found.timestamp(), FIRST_TIMESTAMP + 5000);
            equal("leader epoch known", found.leaderEpoch().isPresent(), true);
            equal("none as new", offset(p, OffsetSpec.forTimestamp(FIRST_TIMESTAMP * 2)).offset(), -1L);
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, String> settings) {
        Properties all = new Properties();
        all.put("bootstrap.servers", bootstrap);
        all.put("group.id", group);
        all.put("group.protocol", "classic");
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", "false");
        all.put("fetch.max.wait.ms", "200");
        all.put("default.api.timeout.ms", "30000");
        all.putAll(settings);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Polls until as many records came as expected, and a little longer for any too many. */
    private static List<ConsumerRecord<byte[], byte[]>> drain(
            KafkaConsumer<byte[], byte[]> consumer, int expected) {
        List<ConsumerRecord<byte[], byte[]>> received = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (received.size() < expected && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(200)).forEach(received::add);
        }
        consumer.poll(Duration.ofMillis(400)).forEach(received::add);
        return received;
    }

    private void consumeAll() {
        try (var consumer = consumer(Map.of())) {
            consumer.subscribe(List.of(topic));
            ledger.compare(drain(consumer, ledger.total()), Map.of());
            consumer.commitSync();
            for (int p = 0; p < PARTITIONS; p++) {
                equal("position", consumer.position(at(p)), ledger.end(p));
            }
        }
    }

    private Map<Integer, Long> listedOffsets() throws Exception {
        var listed = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        Map<Integer, Long> offsets = new TreeMap<>();
        listed.forEach((tp, offset) -> {
            if (offset != null) {
                offsets.put(tp.partition(), offset.offset());
            }
        });
        return offsets;
    }

    private void committed() throws Exception {
        equal("listed", listedOffsets(), ledger.ends());
        try (var consumer = consumer(Map.of())) {
            var offsets = consumer.committed(Set.copyOf(partitions()));
            for (int p = 0; p < PARTITIONS; p++) {
                equal("committed", offsets.get(at(p)).offset(), ledger.end(p));
            }
            equal("end offsets", consumer.endOffsets(partitions()).get(at(1)), ledger.end(1));
            equal("beginning offsets", consumer.beginningOffsets(partitions()).get(at(1)), 0L);
        }
    }

    private void resume() throws Exception {
        Map<Integer, Long> start = ledger.ends();
        produce("zstd", 1000, 10, Map.of());
        try (var consumer = consumer(Map.of())) {
            consumer.subscribe(List.of(topic));
            ledger.compare(drain(consumer, 10 * PARTITIONS), start);
            consumer.commitSync(Map.of(at(0), new OffsetAndMetadata(ledger.end(0), "a note")));
            consumer.commitSync();
        }
    }

    private void rebalance() throws Exception {
        var first = consumer(Map.of());
        var second = consumer(Map.of());
        try {
            first.subscribe(List.of(topic));
            second.subscribe(List.of(topic));
            settle(List.of(first, second), Set.of(1, 2));
            ConsumerGroupDescription described = describeGroup();
            equal("state", described.state().name(), "STABLE");
            equal("members", described.members().size(), 2);
            int assigned = described.members().stream()
                    .mapToInt(m -> m.assignment().topicPartitions().size())
                    .sum();
            equal("partitions assigned", assigned, PARTITIONS);
            check(
                    described.members().stream().allMatch(m -> !m.host().isEmpty() && !m.clientId().isEmpty()),
                    "a member without host or client id");
            second.close();
            settle(List.of(first), Set.of(PARTITIONS));
        } finally {
            first.close();
            second.close();
        }
    }

    private static void settle(List<KafkaConsumer<byte[], byte[]>> members, Set<Integer> want) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        List<Integer> sizes = List.of();
        while (System.nanoTime() < deadline) {
            members.forEach(member -> member.poll(Duration.ofMillis(100)));
            sizes = members.stream().map(member -> member.assignment().size()).toList();
            if (Set.copyOf(sizes).equals(want)) {
                return;
            }
        }
        check(false, "assignment sizes " + sizes + ", want " + want);
    }

    @SuppressWarnings("deprecation") // the successors are not in 3.9, which is driven too
    private ConsumerGroupDescription describeGroup() throws Exception {
        return get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    /** A static member that returns under its name keeps its partitions: no new generation. */
    private void staticMember() throws Exception {
        Map<String, String> name = Map.of("group.instance.id", "one");
        String before;
        try (var consumer = consumer(name)) {
            consumer.subscribe(List.of(topic));
            settle(List.of(consumer), Set.of(PARTITIONS));
            before = String.valueOf(consumer.groupMetadata().generationId());
        }
        try (var consumer = consumer(name)) {
            consumer.subscribe(List.of(topic));
            settle(List.of(consumer), Set.of(PARTITIONS));
            equal("generation", String.valueOf(consumer.groupMetadata().generationId()), before);
        }
        equal("members after closing", describeGroup().members().size(), 1);
        var members = new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one")));
        get(admin.removeMembersFromConsumerGroup(group, members).all());
        equal("members after the removal", describeGroup().members().size(), 0);
    }

    private void seekMiddle() {
        try (var consumer = consumer(Map.of())) {
            consumer.assign(List.of(at(1)));
            consumer.seek(at(1), 17);
            var received = drain(consumer, (int) ledger.end(1) - 17);
            ledger.compare(received, Map.of(0, ledger.end(0), 1, 17L, 2, ledger.end(2)));
        }
    }

    @SuppressWarnings("deprecation") // see describeGroup
    private void groups() throws Exception {
        var listed = get(admin.listConsumerGroups().all());
        check(listed.stream().anyMatch(g -> g.groupId().equals(group)), "group not listed");
        ConsumerGroupDescription described = describeGroup();
        equal("state", described.state().name(), "EMPTY");
        check(described.coordinator() != null, "no coordinator");
    }

    private void alterOffsets() throws Exception {
        var moved = Map.of(at(2), new OffsetAndMetadata(7, "moved"));
        get(admin.alterConsumerGroupOffsets(group, moved).all());
        equal("moved offset", listedOffsets().get(2), 7L);
        get(admin.deleteConsumerGroupOffsets(group, Set.of(at(2))).all());
        check(!listedOffsets().containsKey(2), "offset still there after its deletion");
    }

    private Config describe(ConfigResource resource) throws Exception {
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private void topicConfigs() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config before = describe(resource);
        for (String name : List.of(
                "cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas",
                "compression.type", "message.timestamp.type", "segment.bytes")) {
            check(before.get(name) != null, name + " not described");
        }
        equal("cleanup.policy", before.get("cleanup.policy").value(), "delete");
        alter(resource, new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
        ConfigEntry changed = describe(resource).get("retention.ms");
        equal("retention.ms", changed.value(), "7200000");
        equal("source", changed.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        alter(resource, new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE);
        equal("retention.ms", describe(resource).get("retention.ms").value(), before.get("retention.ms").value());
        try {
            alter(resource, new ConfigEntry("retention.ms", "never"), AlterConfigOp.OpType.SET);
            check(false, "retention.ms=never was accepted");
        } catch (ExecutionException failure) {
            equal("error", failure.getCause().getClass(), InvalidConfigurationException.class);
        }
    }

    private void alter(ConfigResource resource, ConfigEntry entry, AlterConfigOp.OpType kind) throws Exception {
        Map<ConfigResource, java.util.Collection<AlterConfigOp>> changes =
                Map.of(resource, List.of(new AlterConfigOp(entry, kind)));
        get(admin.incrementalAlterConfigs(changes).all());
    }

    private void brokerConfigs() throws Exception {
        String id = String.valueOf(get(admin.describeCluster().nodes()).iterator().next().id());
        Config config = describe(new ConfigResource(ConfigResource.Type.BROKER, id));
        check(!config.entries().isEmpty(), "no entries");
    }

    private void logDirs() throws Exception {
        List<Integer> nodes = get(admin.describeCluster().nodes()).stream().map(Node::id).toList();
        Map<Integer, Map<String, LogDirDescription>> all = get(admin.describeLogDirs(nodes).allDescriptions());
        long bytes = 0;
        for (var directories : all.values()) {
            for (LogDirDescription directory : directories.values()) {
                check(directory.error() == null, "error " + directory.error());
                for (var replica : directory.replicaInfos().entrySet()) {
                    if (replica.getKey().topic().equals(topic)) {
                        bytes += replica.getValue().size();
                    }
                }
            }
        }
        check(bytes > 0, "the topic has no size");
    }

    private void reassignments() throws Exception {
        KafkaFuture<?> none = admin.listPartitionReassignments().reassignments();
        equal("reassignments", get(none), Map.of());
    }

    private void deleteRecords() throws Exception {
        var deleted = admin.deleteRecords(Map.of(at(0), RecordsToDelete.beforeOffset(30)));
        equal("low watermark", get(deleted.lowWatermarks().get(at(0))).lowWatermark(), 30L);
        equal("earliest", offset(0, OffsetSpec.earliest()).offset(), 30L);
        refused(
                admin.deleteRecords(Map.of(at(0), RecordsToDelete.beforeOffset(1_000_000))).all(),
                OffsetOutOfRangeException.class);
    }

    private void outOfRange() {
        try (var consumer = consumer(Map.of("auto.offset.reset", "none"))) {
            consumer.assign(List.of(at(0)));
            consumer.seek(at(0), 3);
            for (int i = 0; i < 50; i++) {
                consumer.poll(Duration.ofMillis(200));
            }
        } catch (org.apache.kafka.clients.consumer.OffsetOutOfRangeException expected) {
            return;
        }
        check(false, "no error for a position below the log start");
    }

    private void createPartitions() throws Exception {
        get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(PARTITIONS + 2))).all());
        var described = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        equal("partitions", described.partitions().size(), PARTITIONS + 2);
        refused(
                admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all(),
                InvalidPartitionsException.class);
    }

    private void deleteGroup() throws Exception {
        get(admin.deleteConsumerGroups(List.of(group)).all());
        refused(admin.deleteConsumerGroups(List.of(group)).all(), GroupIdNotFoundException.class);
    }

    private void deleteTopic() throws Exception {
        get(admin.deleteTopics(List.of(topic)).all());
        for (int i = 0; i < 50 && get(admin.listTopics().names()).contains(topic); i++) {
            Thread.sleep(200);
        }
        check(!get(admin.listTopics().names()).contains(topic), "topic still listed after 10 s");
    }
}
