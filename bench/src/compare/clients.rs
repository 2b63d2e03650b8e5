//! The same records with clients that others wrote: librdkafka, and the performance tests that come with
//! Kafka.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::passes::{PARTITIONS, RECORD, Run};
use super::systems::{Server, Side};
use crate::workload;

/// MB/s of each client, in and out.
pub(crate) fn measure(run: &mut Run<'_>, server: &Server, side: Side) -> Result<()> {
    let records = run.times.records;
    let topic = run.topic(server, side, PARTITIONS)?;
    let rate = workload::produce(server.address(), &topic, records, RECORD)?;
    run.samples.add("librdkafka in", side, rate);
    let rate = workload::consume(server.address(), &topic, PARTITIONS, records)?;
    run.samples.add("librdkafka out", side, rate);
    workload::delete_topic(server.address(), &topic)?;
    let Some(kit) = &run.bench.kit else {
        return Ok(());
    };
    let topic = run.topic(server, side, PARTITIONS)?;
    let mut producer = kit.java();
    producer
        .args(["org.apache.kafka.tools.ProducerPerformance", "--topic"])
        .arg(&topic)
        .args(["--num-records", &records.to_string()])
        .args(["--record-size", &RECORD.to_string()])
        .args(["--throughput", "-1", "--producer-props", "acks=all"])
        .arg(format!("bootstrap.servers={}", server.address()));
    let rate = ask(&mut producer, produced)?;
    let megabytes = |rate: f64| rate * RECORD as f64 / 1e6;
    run.samples.add("java in", side, megabytes(rate));
    let mut consumer = kit.java();
    consumer
        .args(["org.apache.kafka.tools.ConsumerPerformance", "--topic"])
        .arg(&topic)
        .args(["--num-records", &records.to_string()])
        .args(["--bootstrap-server", &server.address().to_string()]);
    let rate = ask(&mut consumer, consumed)?;
    run.samples.add("java out", side, megabytes(rate));
    workload::delete_topic(server.address(), &topic)
}

/// Runs a performance test to its end; records a second, as it says itself.
fn ask(test: &mut Command, rate: impl Fn(&str) -> Option<f64>) -> Result<f64> {
    let output = test
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start java")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "the performance test failed: {text}"
    );
    rate(&text).with_context(|| format!("the performance test said {text}"))
}

/// Of the last line, which is about the whole: `… records sent, 123.4 records/sec (1.23 MB/sec), …`.
fn produced(text: &str) -> Option<f64> {
    let mut lines = text.lines();
    let whole = lines.rfind(|line| line.contains("records/sec"))?;
    let rate = whole.split("records sent, ").nth(1)?.split(' ').next()?;
    rate.parse().ok()
}

/// Of a heading and a line with as many columns. What counts is the rate of fetching: joining the group
/// takes the broker's `group.initial.rebalance.delay.ms`.
fn consumed(text: &str) -> Option<f64> {
    let mut lines = text.lines().map(|line| line.split(", "));
    let heading = lines.find(|line| line.clone().any(|column| column == "fetch.nMsg.sec"))?;
    let mut columns = heading.zip(lines.next()?);
    let (_, rate) = columns.find(|(name, _)| *name == "fetch.nMsg.sec")?;
    rate.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_whole_run() {
        let text = "99 records sent, 19.8 records/sec (0.02 MB/sec), 1.0 ms avg latency.\n\
                    500 records sent, 86073.3 records/sec (84.06 MB/sec), 226.50 ms avg latency.\n";
        assert_eq!(produced(text), Some(86073.3));
        assert_eq!(produced("nothing"), None);
        let text = "start.time, end.time, rebalance.time.ms, fetch.MB.sec, fetch.nMsg.sec\n\
                    2026-11-21 00:49:25:233, 2026-11-21 00:49:29:710, 3288, 410.6, 420521.4\n";
        assert_eq!(consumed(text), Some(420521.4));
        assert_eq!(consumed("WARN: nothing came"), None);
    }
}
