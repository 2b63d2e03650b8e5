//! The rows of the tables, with what is wanted of each.

use super::load::{SHARES, Share};
use super::samples::Aim::{self, AtLeast, AtMost, Seen};
use super::samples::{Metric, Row};
use super::shapes::{SHAPES, Shape};
use super::systems::Side::{
    self, Kafka, KafkaSynced, KafkaZones, Local, Machine, NisshiMemory, NisshiS3, NisshiSqlite,
    Object, ObjectS3,
};

/// The rows of one pass.
pub(crate) struct Section {
    /// What `--only` calls it.
    pub pass: &'static str,
    pub title: &'static str,
    pub rows: Vec<Row>,
}

fn row(
    title: impl Into<String>,
    unit: &'static str,
    of: Metric,
    by: Option<Metric>,
    aim: Aim,
) -> Row {
    Row {
        title: title.into(),
        unit,
        of,
        by,
        aim,
    }
}

/// One metric of some pairs of sides.
fn sides(
    title: &str,
    unit: &'static str,
    metric: &'static str,
    pairs: &[(Side, Side, Aim)],
) -> Vec<Row> {
    pairs
        .iter()
        .map(|(of, by, aim)| row(title, unit, (metric, *of), Some((metric, *by)), *aim))
        .collect()
}

/// Two metrics of the same side, for some sides.
fn against_itself(
    title: &str,
    unit: &'static str,
    (of, by): (&'static str, &'static str),
    each: &[(Side, Aim)],
) -> Vec<Row> {
    each.iter()
        .map(|(side, aim)| row(title, unit, (of, *side), Some((by, *side)), *aim))
        .collect()
}

/// Both levels of Frazil beside Kafka, without an aim.
const BOTH: [(Side, Side, Aim); 2] = [(Local, Kafka, Seen), (Object, Kafka, Seen)];

/// All of them, in the order of the document.
pub(crate) fn sections() -> Vec<Section> {
    let section = |pass, title, rows: Vec<Vec<Row>>| Section {
        pass,
        title,
        rows: rows.concat(),
    };
    vec![
        section("throughput", "As fast as it goes", throughput()),
        section("tables", "With the table that becomes of it", tables()),
        section("shapes", "Sizes, partitions, acks, codecs", shapes()),
        section("tail", "Consumers at the tail", tail()),
        section("latency", "Latency at a low rate", latency()),
        section("load", "Latency under load", load()),
        section("small", "Many small producers", small()),
        section("clients", "Clients that others wrote", clients()),
        section("partitions", "1 000 partitions", partitions()),
        section("groups", "Consumer groups", groups()),
        section("first", "Start", first()),
        section("topics", "10 000 topics (quick: 1 000)", topics()),
        section("nisshi", "Nisshi", nisshi()),
        section("limits", "The machine's limits", limits()),
        section("cloud", "A store with S3's latency", cloud()),
    ]
}

fn throughput() -> Vec<Vec<Row>> {
    let aims = |local, object| [(Local, Kafka, local), (Object, Kafka, object)];
    let low = aims(AtMost(0.5), AtMost(0.5));
    vec![
        sides(
            "produce, 1 KiB × 12 partitions, acks=all",
            "MB/s",
            "produce",
            &[
                (Local, Kafka, AtLeast(1.5)),
                (Local, KafkaSynced, AtLeast(5.0)),
                (Object, Kafka, AtLeast(1.0)),
                (Object, KafkaSynced, Seen),
            ],
        ),
        sides(
            "consume from offset 0",
            "MB/s",
            "catch-up",
            &aims(AtLeast(1.2), AtLeast(1.2)),
        ),
        sides("broker CPU per GiB produced", "s", "cpu in", &low),
        sides("broker CPU per GiB consumed", "s", "cpu out", &low),
        sides(
            "bytes written to the disk, by all, per byte produced",
            "",
            "disk",
            &BOTH,
        ),
    ]
}

fn tables() -> Vec<Vec<Row>> {
    let made = "cpu in, as a table";
    let rows = [Local, Object].map(|side| {
        let beside = |title, by| row(title, "s", (made, side), Some(("cpu in", by)), Seen);
        vec![
            beside(
                "broker CPU per GiB produced and made into a table, and only produced",
                side,
            ),
            beside("the same, and Kafka's per GiB produced", Kafka),
            row(
                "peak RSS of that",
                "MiB",
                ("rss, as a table", side),
                None,
                Seen,
            ),
        ]
    });
    rows.to_vec()
}

fn shapes() -> Vec<Vec<Row>> {
    let produced = |shape: &Shape| {
        let title = format!("produce, {}", shape.title);
        sides(&title, "MB/s", shape.produce, &BOTH)
    };
    let consumed = |shape: &Shape| {
        let title = format!("consume from offset 0, {}", shape.title);
        let metric = shape.consume?;
        Some(sides(&title, "MB/s", metric, &BOTH))
    };
    let produced = SHAPES.iter().map(produced);
    produced.chain(SHAPES.iter().filter_map(consumed)).collect()
}

fn tail() -> Vec<Vec<Row>> {
    let aims = [(Local, Kafka, AtLeast(1.2)), (Object, Kafka, AtLeast(1.2))];
    vec![
        sides("consume the tail at full speed", "MB/s", "tail", &aims),
        sides(
            "consume the tail, four consumers, all together",
            "MB/s",
            "fan-out",
            &BOTH,
        ),
        against_itself(
            "four consumers at the tail all together, and one",
            "MB/s",
            ("fan-out", "tail"),
            &[(Local, Seen), (Object, Seen), (Kafka, Seen)],
        ),
        sides(
            "produced meanwhile, beside one consumer",
            "MB/s",
            "tail in",
            &BOTH,
        ),
        sides(
            "produced meanwhile, beside four consumers",
            "MB/s",
            "fan-out in",
            &BOTH,
        ),
    ]
}

fn latency() -> Vec<Vec<Row>> {
    vec![
        sides(
            "ack p50 at 1 000 records/s",
            "ms",
            "ack p50",
            &[
                (Local, Kafka, Seen),
                (Local, KafkaSynced, Seen),
                (Object, Kafka, Seen),
            ],
        ),
        sides(
            "ack p99 at 1 000 records/s",
            "ms",
            "ack p99",
            &[(Local, KafkaSynced, AtMost(1.0)), (Local, Kafka, Seen)],
        ),
        vec![row(
            "ack p99 at 1 000 records/s, and two syncs at the median",
            "ms",
            ("ack p99", Local),
            Some(("two syncs p50", Machine)),
            AtMost(3.0),
        )],
        [
            (
                "ack p99 at 1 000 records/s, and of two syncs at that rate, p99",
                "paced syncs p99",
            ),
            (
                "ack p99 at 1 000 records/s, and of two syncs at that rate beside files made and synced, p99",
                "paced syncs beside p99",
            ),
        ]
        .map(|(title, by)| row(title, "ms", ("ack p99", Local), Some((by, Machine)), Seen))
        .to_vec(),
        sides(
            "end to end p50 at 1 000 records/s",
            "ms",
            "end to end p50",
            &[(Local, Kafka, Seen)],
        ),
        sides(
            "end to end p99 at 1 000 records/s",
            "ms",
            "end to end p99",
            &[(Local, Kafka, Seen), (Local, KafkaSynced, Seen)],
        ),
        against_itself(
            "ack p99 beside a consumer from offset 0, and without, in turns",
            "ms",
            ("backfill p99", "alone p99"),
            &[(Local, AtMost(1.5)), (Object, AtMost(1.5)), (Kafka, Seen)],
        ),
    ]
}

fn load() -> Vec<Vec<Row>> {
    let mut rows = vec![sides(
        "capacity with one producer",
        "MB/s",
        "capacity",
        &BOTH,
    )];
    for Share {
        percent, quantiles, ..
    } in SHARES
    {
        for (metric, _, quantile) in quantiles {
            let title = format!("ack {quantile} at {percent} % of the least capacity");
            rows.push(sides(&title, "ms", metric, &BOTH));
        }
    }
    rows
}

fn small() -> Vec<Vec<Row>> {
    vec![sides(
        "200 producers, a record a request",
        "requests/s",
        "small",
        &[(Local, Kafka, Seen), (Local, KafkaSynced, Seen)],
    )]
}

fn clients() -> Vec<Vec<Row>> {
    vec![
        sides(
            "kafka-producer-perf-test, 1 KiB, acks=all",
            "MB/s",
            "java in",
            &BOTH,
        ),
        sides(
            "kafka-consumer-perf-test, from offset 0, fetching",
            "MB/s",
            "java out",
            &BOTH,
        ),
        sides("librdkafka, produce, 1 KiB", "MB/s", "librdkafka in", &BOTH),
        sides(
            "librdkafka, consume from offset 0",
            "MB/s",
            "librdkafka out",
            &BOTH,
        ),
    ]
}

fn partitions() -> Vec<Vec<Row>> {
    let aim = AtMost(0.25);
    vec![
        against_itself(
            "produce to 1 000 partitions, and to 10",
            "MB/s",
            ("many", "few"),
            &[(Local, AtLeast(0.8)), (Object, AtLeast(0.8)), (Kafka, Seen)],
        ),
        sides(
            "peak RSS, 1 000 partitions under load",
            "MiB",
            "rss",
            &[(Local, Kafka, aim), (Object, Kafka, aim)],
        ),
    ]
}

fn groups() -> Vec<Vec<Row>> {
    let beside = [(Local, Kafka, Seen)];
    vec![
        sides(
            "a member joins ten, until all have partitions, median",
            "ms",
            "group join",
            &beside,
        ),
        sides(
            "a member leaves eleven, until all have partitions, median",
            "ms",
            "group leave",
            &beside,
        ),
    ]
}

fn first() -> Vec<Vec<Row>> {
    vec![sides(
        "exec to first acknowledgement",
        "ms",
        "first",
        &[(Local, Kafka, AtMost(0.1))],
    )]
}

fn topics() -> Vec<Vec<Row>> {
    let beside = [(Local, Kafka, Seen)];
    vec![
        sides(
            "creating them, 100 a request, until the last takes a record",
            "s",
            "topics created",
            &beside,
        ),
        sides(
            "peak RSS after a record to each of 500",
            "MiB",
            "topics rss",
            &beside,
        ),
        sides(
            "a record to each of 500 of them, one after the other",
            "ms",
            "topics produced",
            &beside,
        ),
        sides("SIGTERM to exit", "ms", "topics stopped", &beside),
        sides(
            "exec to first acknowledgement, with them",
            "ms",
            "topics first",
            &beside,
        ),
        against_itself(
            "exec to first acknowledgement, and with one topic",
            "ms",
            ("topics first", "first"),
            &[(Local, Seen), (Kafka, Seen)],
        ),
    ]
}

fn nisshi() -> Vec<Vec<Row>> {
    let aims = |aim| {
        [
            (ObjectS3, NisshiS3, aim),
            (Local, NisshiSqlite, aim),
            (Local, NisshiMemory, Seen),
        ]
    };
    let (five, seen) = (aims(AtLeast(5.0)), aims(Seen));
    vec![
        sides(
            "16 connections produce, 1 KiB × 12 partitions, acks=all",
            "MB/s",
            "nisshi in",
            &five,
        ),
        sides("consume from offset 0", "MB/s", "nisshi out", &five),
        sides("PUTs per GiB produced", "", "nisshi puts", &seen[..1]),
        sides("broker CPU per GiB produced", "s", "nisshi cpu in", &seen),
        sides("broker CPU per GiB consumed", "s", "nisshi cpu out", &seen),
        sides("ack p50 at 1 000 records/s", "ms", "nisshi p50", &seen),
        sides("ack p99 at 1 000 records/s", "ms", "nisshi p99", &seen),
        sides("peak RSS of that", "MiB", "nisshi rss", &seen),
    ]
}

fn limits() -> Vec<Vec<Row>> {
    let beside = |title, metric, aim| {
        let by = Some((metric, Machine));
        row(title, "MB/s", ("produce", Local), by, aim)
    };
    vec![vec![
        beside(
            "produce, and loopback echo of the same frames",
            "loopback echo",
            AtLeast(0.35),
        ),
        beside(
            "produce, and loopback of the same frames with short answers",
            "loopback",
            Seen,
        ),
        beside(
            "produce, and a sequential write with ten syncs a second",
            "sequential write",
            Seen,
        ),
        beside(
            "produce, and two sequential writes past the page cache",
            "direct write",
            Seen,
        ),
        beside(
            "produce, and files of 1 MiB made and synced, four at a time",
            "files",
            Seen,
        ),
        beside("produce, and CRC-32C of one core", "crc-32c", Seen),
        beside("produce, and memcpy of one core", "memcpy", Seen),
    ]]
}

fn cloud() -> Vec<Vec<Row>> {
    let beside = |title, metric, put, aim| {
        let by = Some((put, Machine));
        row(title, "ms", (metric, Object), by, aim)
    };
    let calculated = [(Object, KafkaZones, Seen)];
    let figure = |title, unit, metric, side, aim| row(title, unit, (metric, side), None, aim);
    vec![
        vec![
            beside(
                "ack p50 of a lone producer, and a PUT's p50",
                "lone p50",
                "put p50",
                AtMost(1.3),
            ),
            beside(
                "ack p99 at 25 MiB/s, half the load, and a PUT's p99",
                "half p99",
                "put p99",
                AtMost(2.0),
            ),
            beside(
                "ack p99 at 50 MiB/s, and a PUT's p99",
                "full p99",
                "put p99",
                Seen,
            ),
            beside(
                "ack p50 at 1 000 records/s, five requests on the way, and a PUT's p50",
                "low p50",
                "put p50",
                Seen,
            ),
            beside(
                "ack p99 at 1 000 records/s, five requests on the way, and a PUT's p99",
                "low p99",
                "put p99",
                Seen,
            ),
        ],
        vec![
            figure(
                "PUTs per GiB at 50 MiB/s, after its first three seconds",
                "",
                "puts",
                Object,
                AtMost(140.0),
            ),
            figure("the same of a fleet", "", "fleet puts", Object, Seen),
            figure("PUTs per GiB at 25 MiB/s", "", "half puts", Object, Seen),
            figure(
                "GETs per GiB, a consumer at the tail of another gateway",
                "",
                "fleet gets",
                Object,
                Seen,
            ),
            figure("for the PUTs of a TiB", "$", "put dollars", Object, Seen),
            figure("for the GETs of a TiB", "$", "get dollars", Object, Seen),
        ],
        sides("bytes across zones per GiB", "MiB", "crossing", &calculated),
        sides(
            "for the bytes of a TiB across zones",
            "$",
            "zone dollars",
            &calculated,
        ),
        sides(
            "for a TiB, requests and zones together",
            "$",
            "dollars",
            &calculated,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compare::PASSES;

    #[test]
    fn every_pass_has_its_rows_and_every_section_is_a_pass() {
        let of_sections: BTreeSet<_> = sections().iter().map(|section| section.pass).collect();
        assert_eq!(of_sections, BTreeSet::from(PASSES));
        for section in sections() {
            assert!(!section.rows.is_empty(), "{}", section.title);
        }
    }

    #[test]
    fn no_row_is_there_twice() {
        let mut seen = BTreeSet::new();
        for row in sections().iter().flat_map(|section| &section.rows) {
            assert!(seen.insert((row.of, row.by)), "{}", row.title);
        }
    }
}
