//! `frazil cluster`.

use clap::{Args, Subcommand};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::Serialize;

use super::client::{ClientArgs, Context};
use super::output::{self, Table, or_dash};
use super::{feature, gateway, voter};

/// `frazil cluster`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cluster {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What else there is to know of a cluster, or to do about it.
#[derive(Debug, Subcommand)]
enum Command {
    /// List, add and remove the voters of the metadata quorum
    #[command(subcommand)]
    Voter(voter::Command),
    /// Show the feature level in use, and the levels that every node knows
    Feature(voter::Quorum),
    /// Raise the feature level, when every node runs the new program. There is no way back
    Upgrade {
        /// The level; without it the highest that every node knows
        #[arg(long, value_name = "LEVEL")]
        to: Option<u8>,
        #[command(flatten)]
        quorum: voter::Quorum,
    },
    /// List gateways, and give up one that does not come back
    #[command(subcommand)]
    Gateway(gateway::Command),
}

#[derive(Serialize)]
struct Description {
    cluster_id: Option<String>,
    controller: Option<i32>,
    brokers: Vec<Broker>,
    topics: usize,
    partitions: usize,
}

#[derive(Serialize)]
struct Broker {
    id: i32,
    host: String,
    port: i32,
}

impl Cluster {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Some(Command::Voter(command)) => return voter::run(command),
            Some(Command::Feature(quorum)) => return feature::show(quorum),
            Some(Command::Upgrade { to, quorum }) => return feature::upgrade(*to, quorum),
            Some(Command::Gateway(command)) => return gateway::run(command),
            None => {}
        }
        let connection = self.client.connect()?;
        let metadata = &connection.metadata;
        let brokers = metadata.brokers().iter().map(|broker| Broker {
            id: broker.id(),
            host: broker.host().to_owned(),
            port: broker.port(),
        });
        let mut cluster = Description {
            cluster_id: connection
                .consumer
                .client()
                .fetch_cluster_id(connection.timeout),
            controller: controller(&connection.consumer, self.client.timeout),
            brokers: brokers.collect(),
            topics: metadata.topics().len(),
            partitions: metadata.topics().iter().map(|t| t.partitions().len()).sum(),
        };
        cluster.brokers.sort_by_key(|broker| broker.id);
        if self.json {
            return output::json(&cluster);
        }
        let mut text = format!(
            "cluster     {}\ncontroller  {}\ntopics      {}\npartitions  {}\n\n",
            or_dash(cluster.cluster_id),
            or_dash(cluster.controller),
            cluster.topics,
            cluster.partitions,
        );
        let mut table = Table::new(&["BROKER", "ADDRESS"]);
        for broker in cluster.brokers {
            let address = format!("{}:{}", broker.host, broker.port);
            table.row(vec![broker.id.to_string(), address]);
        }
        text.push_str(&table.render());
        output::text(&text)
    }
}

/// The controller's id, which the library knows and its Rust binding does not tell.
#[allow(unsafe_code, reason = "one call that the binding lacks")]
fn controller(consumer: &BaseConsumer<Context>, timeout_s: u32) -> Option<i32> {
    let timeout_ms = i32::try_from(timeout_s).unwrap_or(60).saturating_mul(1000);
    // SAFETY: the pointer is that of a live client for the duration of the call, which keeps
    // nothing of it.
    let id = unsafe {
        rdkafka::bindings::rd_kafka_controllerid(consumer.client().native_ptr(), timeout_ms)
    };
    (id >= 0).then_some(id)
}
