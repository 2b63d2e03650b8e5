//! The rows of the main table, with what is wanted of each.

use super::samples::Aim::{AtLeast, AtMost, None};
use super::samples::{Aim, Row};
use super::systems::Side::{self, Kafka, KafkaSynced, Local, Machine, Object};

const fn row(
    title: &'static str,
    unit: &'static str,
    metric: &'static str,
    (of, by): (Side, Side),
    aim: Aim,
) -> Row {
    Row {
        title,
        unit,
        of: (metric, of),
        by: (metric, by),
        aim,
    }
}

const fn between(
    title: &'static str,
    unit: &'static str,
    of: (&'static str, Side),
    by: (&'static str, Side),
    aim: Aim,
) -> Row {
    Row {
        title,
        unit,
        of,
        by,
        aim,
    }
}

const PRODUCE: &str = "produce, 1 KiB × 12 partitions, acks=all";
const CATCHUP: &str = "consume from offset 0";
const TAIL: &str = "consume the tail at full speed";
const FAN: &str = "consume the tail, four consumers, all together";
const CPU_IN: &str = "broker CPU per GiB produced";
const CPU_OUT: &str = "broker CPU per GiB consumed";
const RSS: &str = "peak RSS, 1 000 partitions under load";
const FIRST: &str = "exec to first acknowledgement";
const P50: &str = "ack p50 at 1 000 records/s";
const P99: &str = "ack p99 at 1 000 records/s";
const E50: &str = "end to end p50 at 1 000 records/s";
const E99: &str = "end to end p99 at 1 000 records/s";
const BACKFILL: &str = "ack p99 beside a consumer from offset 0, and without";
const MANY: &str = "produce to 1 000 partitions, and to 10";
const SMALL: &str = "200 producers, a record a request";
const DISK: &str = "bytes written to the disk, by all, per byte produced";
const JAVA: &str = "kafka-producer-perf-test, 1 KiB, acks=all";
const LIBRDKAFKA: &str = "librdkafka, produce, 1 KiB";
const LIBRDKAFKA_READ: &str = "librdkafka, consume from offset 0";

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    row(PRODUCE, "MB/s", "produce", (Local, Kafka), AtLeast(1.5)),
    row(
        PRODUCE,
        "MB/s",
        "produce",
        (Local, KafkaSynced),
        AtLeast(5.0),
    ),
    row(PRODUCE, "MB/s", "produce", (Object, Kafka), AtLeast(1.0)),
    row(PRODUCE, "MB/s", "produce", (Object, KafkaSynced), None),
    row(CATCHUP, "MB/s", "catch-up", (Local, Kafka), AtLeast(1.2)),
    row(CATCHUP, "MB/s", "catch-up", (Object, Kafka), AtLeast(1.2)),
    row(TAIL, "MB/s", "tail", (Local, Kafka), AtLeast(1.2)),
    row(TAIL, "MB/s", "tail", (Object, Kafka), AtLeast(1.2)),
    row(FAN, "MB/s", "fan-out", (Local, Kafka), None),
    row(FAN, "MB/s", "fan-out", (Object, Kafka), None),
    row(CPU_IN, "s", "cpu in", (Local, Kafka), AtMost(0.5)),
    row(CPU_IN, "s", "cpu in", (Object, Kafka), AtMost(0.5)),
    row(CPU_OUT, "s", "cpu out", (Local, Kafka), AtMost(0.5)),
    row(CPU_OUT, "s", "cpu out", (Object, Kafka), AtMost(0.5)),
    row(RSS, "MiB", "rss", (Local, Kafka), AtMost(0.25)),
    row(RSS, "MiB", "rss", (Object, Kafka), AtMost(0.25)),
    row(FIRST, "ms", "first", (Local, Kafka), AtMost(0.1)),
    row(P50, "ms", "ack p50", (Local, Kafka), None),
    row(P50, "ms", "ack p50", (Local, KafkaSynced), None),
    row(P50, "ms", "ack p50", (Object, Kafka), None),
    row(P99, "ms", "ack p99", (Local, KafkaSynced), AtMost(1.0)),
    row(P99, "ms", "ack p99", (Local, Kafka), None),
    between(
        "ack p99 at 1 000 records/s, and two syncs at the median",
        "ms",
        ("ack p99", Local),
        ("two syncs p50", Machine),
        AtMost(3.0),
    ),
    row(E50, "ms", "end to end p50", (Local, Kafka), None),
    row(E99, "ms", "end to end p99", (Local, Kafka), None),
    row(E99, "ms", "end to end p99", (Local, KafkaSynced), None),
    between(
        BACKFILL,
        "ms",
        ("backfill p99", Local),
        ("ack p99", Local),
        AtMost(1.5),
    ),
    between(
        BACKFILL,
        "ms",
        ("backfill p99", Object),
        ("ack p99", Object),
        AtMost(1.5),
    ),
    between(
        BACKFILL,
        "ms",
        ("backfill p99", Kafka),
        ("ack p99", Kafka),
        None,
    ),
    between(MANY, "MB/s", ("many", Local), ("few", Local), AtLeast(0.8)),
    between(
        MANY,
        "MB/s",
        ("many", Object),
        ("few", Object),
        AtLeast(0.8),
    ),
    between(MANY, "MB/s", ("many", Kafka), ("few", Kafka), None),
    row(SMALL, "requests/s", "small", (Local, Kafka), None),
    row(SMALL, "requests/s", "small", (Local, KafkaSynced), None),
    row(DISK, "", "disk", (Local, Kafka), None),
    row(DISK, "", "disk", (Object, Kafka), None),
    row(JAVA, "MB/s", "java", (Local, Kafka), None),
    row(JAVA, "MB/s", "java", (Object, Kafka), None),
    row(LIBRDKAFKA, "MB/s", "librdkafka in", (Local, Kafka), None),
    row(LIBRDKAFKA, "MB/s", "librdkafka in", (Object, Kafka), None),
    row(
        LIBRDKAFKA_READ,
        "MB/s",
        "librdkafka out",
        (Local, Kafka),
        None,
    ),
    between(
        "produce, and loopback echo of the same frames",
        "MB/s",
        ("produce", Local),
        ("loopback echo", Machine),
        AtLeast(0.35),
    ),
    between(
        "produce, and loopback of the same frames with short answers",
        "MB/s",
        ("produce", Local),
        ("loopback", Machine),
        None,
    ),
    between(
        "produce, and a sequential write with ten syncs a second",
        "MB/s",
        ("produce", Local),
        ("sequential write", Machine),
        None,
    ),
    between(
        "produce, and CRC-32C of one core",
        "MB/s",
        ("produce", Local),
        ("crc-32c", Machine),
        None,
    ),
    between(
        "produce, and memcpy of one core",
        "MB/s",
        ("produce", Local),
        ("memcpy", Machine),
        None,
    ),
    between(
        "S3's latency: ack p50 of a lone producer, and a PUT's p50",
        "ms",
        ("lone p50", Object),
        ("put p50", Machine),
        AtMost(1.3),
    ),
    between(
        "S3's latency: ack p99 at 25 MiB/s, and a PUT's p99",
        "ms",
        ("half p99", Object),
        ("put p99", Machine),
        AtMost(2.0),
    ),
    between(
        "S3's latency: ack p99 at 50 MiB/s, and a PUT's p99",
        "ms",
        ("full p99", Object),
        ("put p99", Machine),
        None,
    ),
    between(
        "PUTs per GiB at 50 MiB/s",
        "",
        ("puts", Object),
        ("one", Machine),
        AtMost(140.0),
    ),
    between(
        "dollars for the PUTs of a TiB",
        "$",
        ("dollars", Object),
        ("one", Machine),
        None,
    ),
];
