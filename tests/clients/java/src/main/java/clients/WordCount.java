package clients;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Materialized;

/**
 * A word count with Kafka Streams, at least once: it makes its own repartition and changelog topics,
 * joins a group of the protocol type "stream", deletes records that it has repartitioned, and, when
 * its local state is gone, restores it from the changelog.
 */
public final class WordCount {
    private static final int PARTITIONS = 3;
    private static final int WAIT_SECONDS = 90;
    private static final List<String> WORDS = List.of("ice", "water", "frazil", "slush", "river");

    private final String bootstrap;
    private final String name = "streams-" + UUID.randomUUID().toString().substring(0, 8);
    private final String input = name + "-in";
    private final String output = name + "-out";
    private final Map<String, Long> expected = new TreeMap<>();
    private final Admin admin;
    private volatile Throwable failure;
    private Path state;
    private KafkaStreams streams;

    private WordCount(String bootstrap) throws Exception {
        this.bootstrap = bootstrap;
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        state = Files.createTempDirectory("streams");
    }

    public static void main(String[] arguments) throws Exception {
        Steps.check(arguments.length == 2 && arguments[0].equals("--bootstrap"), "usage: --bootstrap HOST:PORT");
        WordCount run = new WordCount(arguments[1]);
        Steps steps = new Steps("java-streams " + AppInfoParser.getVersion());
        if (steps.step("create topics", run::createTopics)) {
            steps.step("start", run::start);
            steps.step("count", () -> run.count(3000));
            steps.step("internal topics", run::internalTopics);
            steps.step("stop", run::stop);
            steps.step("lose the state, start again", run::startWithoutState);
            steps.step("count on", () -> run.count(2000));
            steps.step("stop again", run::stop);
            steps.step("delete topics", run::deleteTopics);
        }
        run.admin.close(Duration.ofSeconds(5));
        System.exit(steps.finish());
    }

    private void createTopics() throws Exception {
        var topics = List.of(new NewTopic(input, PARTITIONS, (short) 1), new NewTopic(output, PARTITIONS, (short) 1));
        admin.createTopics(topics).all().get(WAIT_SECONDS, TimeUnit.SECONDS);
    }

    private void start() throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(input)
                .groupBy((key, word) -> word)
                .count(Materialized.as("counts"))
                .toStream()
                .mapValues(String::valueOf)
                .to(output);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put("auto.offset.reset", "earliest");
        // Streams does not leave its group when it stops; the next start waits for this.
        settings.put("session.timeout.ms", 8000);
        streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(thrown -> {
            failure = thrown;
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (streams.state() != KafkaStreams.State.RUNNING) {
            Steps.check(failure == null, "thread died: " + failure);
            Steps.check(System.nanoTime() < deadline, "state is " + streams.state());
            Thread.sleep(50);
        }
    }

    private void startWithoutState() throws Exception {
        remove(state);
        state = Files.createTempDirectory("streams");
        start();
    }

    /** Sends more words, and waits until the output tells the right number of each. */
    private void count(int words) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < words; i++) {
                String word = WORDS.get((i * i) % WORDS.size());
                producer.send(new ProducerRecord<>(input, String.valueOf(i), word));
                expected.merge(word, 1L, Long::sum);
            }
        }
        Map<String, Object> reading = Map.of("bootstrap.servers", bootstrap, "fetch.max.wait.ms", 200);
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions =
                    consumer.partitionsFor(output).stream().map(p -> new TopicPartition(output, p.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<String, Long> counts = new TreeMap<>();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
            while (!counts.equals(expected)) {
                Steps.check(failure == null, "thread died: " + failure);
                Steps.check(System.nanoTime() < deadline, "counts " + counts + ", want " + expected);
                consumer.poll(Duration.ofMillis(200)).forEach(r -> counts.put(r.key(), Long.valueOf(r.value())));
            }
        }
    }

    private void internalTopics() throws Exception {
        var names = new TreeSet<>(admin.listTopics().names().get(WAIT_SECONDS, TimeUnit.SECONDS));
        names.removeIf(topic -> !topic.startsWith(name + "-counts-"));
        Steps.equal("internal topics", names, new TreeSet<>(List.of(name + "-counts-changelog", name + "-counts-repartition")));
        var described = admin.describeTopics(names).allTopicNames().get(WAIT_SECONDS, TimeUnit.SECONDS);
        Map<String, Integer> sizes = new HashMap<>();
        described.forEach((topic, d) -> sizes.put(topic, d.partitions().size()));
        for (String topic : names) {
            Steps.equal("partitions of " + topic, sizes.get(topic), PARTITIONS);
        }
    }

    private void stop() throws Exception {
        Steps.check(streams.close(Duration.ofSeconds(30)), "did not stop in 30 s");
        Steps.check(failure == null, "thread died: " + failure);
    }

    private void deleteTopics() throws Exception {
        var names = new TreeSet<>(admin.listTopics().names().get(WAIT_SECONDS, TimeUnit.SECONDS));
        names.removeIf(topic -> !topic.startsWith(name));
        admin.deleteTopics(names).all().get(WAIT_SECONDS, TimeUnit.SECONDS);
        remove(state);
    }

    private static void remove(Path directory) throws Exception {
        try (var paths = Files.walk(directory)) {
            paths.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
        }
    }
}
