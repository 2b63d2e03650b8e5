package clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

/** The records a driver sends, and the ledger of what was acknowledged. */
final class Data {
    static final int PARTITIONS = 3;
    static final int RECORDS = 40;
    /**
     * Timestamps step by one second from here, so a lookup by time has one answer. Not long ago:
     * older records would fall to retention while the driver runs.
     */
    static final long FIRST_TIMESTAMP = (System.currentTimeMillis() / 1000 - 7200) * 1000;

    private Data() {}

    static ProducerRecord<byte[], byte[]> record(String topic, String codec, int partition, int number) {
        String tag = codec + "/" + partition + "/" + number;
        int kind = number % 10;
        byte[] key = kind == 8 ? null : tag.getBytes();
        byte[] value =
                switch (kind) {
                    case 7 -> null;
                    case 9 -> new byte[0];
                    default -> (tag + " ").repeat(1 + number % 50).getBytes();
                };
        var record = new ProducerRecord<>(topic, partition, FIRST_TIMESTAMP + number * 1000L, key, value);
        if (kind != 9) {
            record.headers().add("n", String.valueOf(number).getBytes());
            record.headers().add("n", "again".getBytes());
            record.headers().add("empty", new byte[0]);
            record.headers().add("null", null);
        }
        return record;
    }

    static String content(byte[] key, byte[] value, Iterable<Header> headers, Long timestamp) {
        StringBuilder text = new StringBuilder();
        text.append(shown(key)).append('|').append(shown(value)).append('|').append(timestamp);
        for (Header header : headers) {
            text.append('|').append(header.key()).append('=').append(shown(header.value()));
        }
        return text.toString();
    }

    private static String shown(byte[] bytes) {
        return bytes == null ? "<null>" : new String(bytes);
    }

    /** Per partition, the content expected at each offset. */
    static final class Ledger {
        private final Map<Integer, List<String>> log = new TreeMap<>();

        Ledger() {
            for (int p = 0; p < PARTITIONS; p++) {
                log.put(p, new ArrayList<>());
            }
        }

        void acknowledged(ProducerRecord<byte[], byte[]> record, long offset) {
            List<String> partition = log.get(record.partition());
            Steps.equal("acknowledged offset in " + record.partition(), offset, (long) partition.size());
            partition.add(content(record.key(), record.value(), record.headers(), record.timestamp()));
        }

        long end(int partition) {
            return log.get(partition).size();
        }

        Map<Integer, Long> ends() {
            Map<Integer, Long> ends = new TreeMap<>();
            log.forEach((partition, records) -> ends.put(partition, (long) records.size()));
            return ends;
        }

        int total() {
            return log.values().stream().mapToInt(List::size).sum();
        }

        /** Everything from {@code start} on was received, once, as it was sent. */
        void compare(List<ConsumerRecord<byte[], byte[]>> received, Map<Integer, Long> start) {
            Map<Integer, List<ConsumerRecord<byte[], byte[]>>> byPartition = new HashMap<>();
            received.forEach(r -> byPartition.computeIfAbsent(r.partition(), p -> new ArrayList<>()).add(r));
            log.forEach((partition, expected) -> {
                var got = byPartition.getOrDefault(partition, new ArrayList<>());
                got.sort(Comparator.comparingLong(ConsumerRecord::offset));
                long first = start.getOrDefault(partition, 0L);
                long[] offsets = got.stream().mapToLong(ConsumerRecord::offset).toArray();
                long[] wanted = java.util.stream.LongStream.range(first, expected.size()).toArray();
                Steps.equal(
                        "offsets of partition " + partition, Arrays.toString(offsets), Arrays.toString(wanted));
                for (var r : got) {
                    Steps.equal(
                            "partition " + partition + " offset " + r.offset(),
                            content(r.key(), r.value(), r.headers(), r.timestamp()),
                            expected.get((int) r.offset()));
                }
            });
        }
    }
}
