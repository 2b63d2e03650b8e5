//! Consumers of cold records: through all of them, and some at random.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::input::{Numbers, PARTITIONS};
use crate::load::frames::{self, Link};
use crate::load::histogram;

/// What a record takes in a response, at most, compressed as these compress: so many are asked for
/// that there are as many as are wanted.
const RECORD_BYTES: i32 = 512;

/// Goes through all partitions of a topic, as one consumer; answers how long it took.
pub(super) fn scan(broker: SocketAddr, topic: &str, records: u64) -> Result<Duration> {
    let start = Instant::now();
    let mut link = Link::to(broker)?;
    let mut offsets: Vec<(i32, i64)> = (0..PARTITIONS).map(|p| (p, 0)).collect();
    let mut seen = 0;
    let mut last = Instant::now();
    for correlation in 0.. {
        link.send(&mut frames::fetch(topic, &offsets, 500), correlation)?;
        let mut served = Vec::new();
        frames::fetched(link.receive(correlation)?, |fetched| served.push(fetched))?;
        for fetched in served {
            let place = offsets.iter().position(|(p, _)| *p == fetched.partition);
            if let Some(place) = place {
                let (partition, next) = offsets.remove(place);
                ensure!(
                    next == fetched.first,
                    "offsets {next} to {} are missing",
                    fetched.first
                );
                // What was served goes to the end of the line, as in Kafka's own consumer.
                offsets.push((partition, fetched.next));
                seen += fetched.records;
                last = Instant::now();
            }
        }
        if seen >= records {
            break;
        }
        ensure!(
            last.elapsed() < Duration::from_secs(60),
            "{seen} of {records} records, then nothing for a minute"
        );
    }
    ensure!(seen == records, "{seen} records of {records}");
    Ok(start.elapsed())
}

/// Reads `wanted` records from random offsets on, `times` times; answers the latencies in
/// microseconds.
pub(super) fn random(
    broker: SocketAddr,
    topic: &str,
    (per_partition, wanted): (u64, u64),
    times: usize,
    numbers: &mut Numbers,
) -> Result<Histogram<u64>> {
    let mut link = Link::to(broker)?;
    let mut latency = histogram()?;
    let mut correlation = 0;
    for _ in 0..times {
        let partition = numbers.below(PARTITIONS as u64) as i32;
        let mut at = numbers.below(per_partition - wanted) as i64;
        let start = Instant::now();
        let mut left = wanted as i64;
        while left > 0 {
            let bytes = i32::try_from(left)? * RECORD_BYTES;
            let mut frame = fetch(topic, partition, at, bytes);
            correlation += 1;
            link.send(&mut frame, correlation)?;
            frames::fetched(link.receive(correlation)?, |fetched| {
                left -= fetched.next - at;
                at = fetched.next;
            })?;
        }
        latency.saturating_record(start.elapsed().as_micros() as u64);
    }
    Ok(latency)
}

/// As [`frames::fetch`], of one partition and so many bytes.
fn fetch(topic: &str, partition: i32, at: i64, bytes: i32) -> Vec<u8> {
    let mut frame = frames::fetch(topic, &[(partition, at)], 500);
    // Behind the partition's limit there are no forgotten topics (4 bytes) and no rack (2 bytes).
    let limit = frame.len() - 10;
    frame[limit..limit + 4].copy_from_slice(&bytes.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::{FetchRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable as _;

    #[test]
    fn another_implementation_reads_the_limit() {
        let mut frame = Bytes::from(super::fetch("topic", 3, 17, 4711)).split_off(4);
        RequestHeader::decode(&mut frame, 1).unwrap();
        let request = FetchRequest::decode(&mut frame, 11).unwrap();
        let partition = &request.topics[0].partitions[0];
        assert_eq!(
            (partition.partition, partition.partition_max_bytes),
            (3, 4711)
        );
    }
}
