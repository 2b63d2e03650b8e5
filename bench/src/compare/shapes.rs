//! Produce and consume at other sizes, numbers of partitions, acknowledgements and codecs than those
//! of the main figures: records of 1 KiB to 12 partitions, `acks=all`, not compressed.

use anyhow::Result;

use super::passes::{PARTITIONS, RECORD, RECORDS, Run};
use super::systems::{Server, Side};
use crate::load::batch::Codec;
use crate::load::{Flood, flood};
use crate::workload;

/// One way to produce.
pub(crate) struct Shape {
    pub title: &'static str,
    pub produce: &'static str,
    /// What was produced is then read, where that differs.
    pub consume: Option<&'static str>,
    size: usize,
    records: usize,
    partitions: i32,
    /// Partitions with a batch in a request: none is larger than 1 MiB, as with Kafka's producer.
    spread: i32,
    acks: i16,
    codec: Codec,
}

const USUAL: Shape = Shape {
    title: "",
    produce: "",
    consume: None,
    size: RECORD,
    records: RECORDS,
    partitions: PARTITIONS,
    spread: PARTITIONS,
    acks: -1,
    codec: Codec::None,
};

/// All of them. Batches are what Kafka's producer makes with its default `batch.size` of 16 KiB.
pub(crate) const SHAPES: [Shape; 9] = [
    Shape {
        title: "100 B",
        produce: "in 100 B",
        consume: Some("out 100 B"),
        size: 100,
        records: 150,
        ..USUAL
    },
    Shape {
        title: "10 KiB",
        produce: "in 10 KiB",
        consume: Some("out 10 KiB"),
        size: 10 << 10,
        records: 1,
        ..USUAL
    },
    Shape {
        title: "100 KiB",
        produce: "in 100 KiB",
        consume: Some("out 100 KiB"),
        size: 100 << 10,
        records: 1,
        spread: PARTITIONS / 2,
        ..USUAL
    },
    Shape {
        title: "1 partition",
        produce: "in 1 partition",
        partitions: 1,
        spread: 1,
        ..USUAL
    },
    Shape {
        title: "acks=1",
        produce: "in acks=1",
        acks: 1,
        ..USUAL
    },
    Shape {
        title: "gzip, bytes before compression",
        produce: "in gzip",
        codec: Codec::Gzip,
        ..USUAL
    },
    Shape {
        title: "snappy, bytes before compression",
        produce: "in snappy",
        codec: Codec::Snappy,
        ..USUAL
    },
    Shape {
        title: "lz4, bytes before compression",
        produce: "in lz4",
        codec: Codec::Lz4,
        ..USUAL
    },
    Shape {
        title: "zstd, bytes before compression",
        produce: "in zstd",
        codec: Codec::Zstd,
        ..USUAL
    },
];

/// All shapes, each with a topic of its own.
pub(crate) fn measure(run: &mut Run<'_>, server: &Server, side: Side) -> Result<()> {
    for shape in &SHAPES {
        let topic = run.topic(server, side, shape.partitions)?;
        let flow = flood(&Flood {
            acks: shape.acks,
            codec: shape.codec,
            size: shape.size,
            records: shape.records,
            spread: shape.spread,
            duration: run.times.shape,
            ..run.flood(server, &topic, shape.partitions)
        })?;
        run.samples.add(shape.produce, side, flow.rate(shape.size));
        if let Some(metric) = shape.consume {
            run.read(metric, (server, side), &topic, (flow.records, shape.size))?;
        }
        workload::delete_topic(server.address(), &topic)?;
        rustix::fs::sync();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_its_turn_and_requests_are_those_of_a_kafka_producer() {
        for shape in &SHAPES {
            assert_eq!(shape.partitions % shape.spread, 0, "{}", shape.title);
            let batch = shape.records * shape.size;
            assert!(batch <= 16 << 10 || shape.records == 1, "{}", shape.title);
            assert!(batch * shape.spread as usize <= 1 << 20, "{}", shape.title);
        }
    }
}
