//! The generator by itself, against any broker.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::batch::Codec;
use super::consume::readable;
use super::produce::Steady;
use super::{Consumer, Consumers, Flood, flood, steady};
use crate::wire::allow_sockets;
use crate::workload;

#[derive(Args)]
pub(crate) struct Options {
    /// The broker
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The topic; it is created if it does not exist
    #[arg(long, default_value = "load")]
    topic: String,
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// A setting of the topic that is created, NAME=VALUE
    #[arg(long)]
    config: Vec<String>,
    /// Bytes of a value
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Produce as fast as it goes
    Flood {
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// End after so many MB of values instead
        #[arg(long)]
        megabytes: Option<u64>,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long, default_value_t = 5)]
        in_flight: usize,
        /// Records of a batch
        #[arg(long, default_value_t = 16)]
        records: usize,
        /// Partitions with a batch in one request
        #[arg(long, default_value_t = 12)]
        spread: i32,
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        acks: i16,
        #[arg(long, value_enum, default_value = "none")]
        codec: Codec,
    },
    /// Produce at a fixed rate, and measure from the moment each record was due
    Steady {
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Records a second
        #[arg(long, default_value_t = 1000.0)]
        rate: f64,
        #[arg(long, default_value_t = 5)]
        in_flight: usize,
    },
    /// Consume from offset 0
    Consume {
        /// How many records
        #[arg(long)]
        records: u64,
        #[arg(long, default_value_t = 1)]
        consumers: usize,
    },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let broker: SocketAddr = options
        .bootstrap
        .to_socket_addrs()?
        .next()
        .context("no such address")?;
    let topic = &options.topic;
    let settings: Vec<(&str, &str)> = options
        .config
        .iter()
        .map(|setting| setting.split_once('=').context("a setting is NAME=VALUE"))
        .collect::<Result<_>>()?;
    // One that exists already is as good.
    drop(workload::create_topics(
        broker,
        std::slice::from_ref(topic),
        options.partitions,
        &settings,
    ));
    readable(broker, topic, options.partitions)?;
    match &options.what {
        What::Flood {
            seconds,
            megabytes,
            connections,
            in_flight,
            records,
            spread,
            acks,
            codec,
        } => {
            allow_sockets(*connections as u64)?;
            let flow = flood(&Flood {
                broker,
                topic: topic.clone(),
                partitions: options.partitions,
                acks: *acks,
                codec: *codec,
                size: options.size,
                records: *records,
                spread: *spread,
                connections: *connections,
                in_flight: *in_flight,
                duration: match megabytes {
                    Some(_) => Duration::MAX,
                    None => Duration::from_secs(*seconds),
                },
                bytes: megabytes.map_or(u64::MAX, |mb| mb * 1_000_000),
            })?;
            println!(
                "{} records, {:.1} MB/s, {:.0} requests/s",
                flow.records,
                flow.rate(options.size),
                flow.requests as f64 / flow.seconds
            );
            latency(&flow.latency);
        }
        What::Steady {
            seconds,
            rate,
            in_flight,
        } => {
            let acks = steady(&Steady {
                broker,
                topic: topic.clone(),
                partitions: options.partitions,
                acks: -1,
                size: options.size,
                rate: *rate,
                in_flight: *in_flight,
                duration: Duration::from_secs(*seconds),
            })?;
            latency(&acks.latency);
        }
        What::Consume { records, consumers } => {
            let consumer = Consumer {
                broker,
                topic: topic.clone(),
                partitions: options.partitions,
                until: *records,
                arrivals: false,
            };
            for read in Consumers::start(*consumers, &consumer).join()? {
                let megabytes = read.records as f64 * options.size as f64 / 1e6;
                println!(
                    "{} records, {:.1} MB/s",
                    read.records,
                    megabytes / read.seconds
                );
            }
        }
    }
    Ok(())
}

fn latency(latency: &hdrhistogram::Histogram<u64>) {
    for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let micros = latency.value_at_quantile(quantile);
        println!("p{:<5} {:.2} ms", quantile * 100.0, micros as f64 / 1e3);
    }
}
