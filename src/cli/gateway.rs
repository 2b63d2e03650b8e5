//! `frazil cluster gateway`: the gateways as the metadata knows them, and giving one up.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use frazil_core::{BrokerEpoch, BrokerId};
use frazil_metadata::state::{Registration, State};
use frazil_metadata::{Admin, Client, ClientConfig, Metrics, Observer};
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::output::{self, Table, or_dash};
use super::voter::Quorum;
use crate::env::Env;

/// How long the metadata may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// `frazil cluster gateway …`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the gateways, how they are, and what only their write-ahead logs have
    List(Quorum),
    /// Give up a gateway that does not come back: its registration ends, and records that only its
    /// write-ahead log had are lost for good
    Forget(Forget),
}

/// `frazil cluster gateway forget`.
#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The gateway's id
    id: i32,
    /// Give up the acknowledged records that only its write-ahead log has: consumers then skip them
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    quorum: Quorum,
}

/// What the metadata expects of a write-ahead log.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Expected {
    partitions: usize,
    offsets: u64,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    id: i32,
    epoch: u64,
    zone: Option<String>,
    address: String,
    state: &'static str,
    wal: Expected,
}

/// Offsets that are given up.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Range {
    topic: String,
    partition: i32,
    /// The first.
    from: i64,
    /// One past the last.
    to: i64,
    bytes: u64,
}

#[derive(Serialize)]
struct Forgotten {
    id: i32,
    epoch: u64,
    lost: Vec<Range>,
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::List(quorum) => list(quorum).boxed().await,
            Command::Forget(forget) => forget.run().boxed().await,
        }
    })
}

/// Follows the quorum for as long as the command takes.
async fn follow(quorum: &Quorum) -> anyhow::Result<(Observer, Client)> {
    let members = Admin::new(&quorum.peer).members().await?;
    let metrics = Metrics::register(&mut Registry::default());
    let observer = Observer::start(members.voters, Env::system().ids, metrics)?;
    let client = observer.client(ClientConfig::default());
    client
        .ready(PATIENCE)
        .boxed()
        .await
        .context("the metadata quorum does not answer")?;
    Ok((observer, client))
}

async fn list(quorum: &Quorum) -> anyhow::Result<()> {
    let (observer, client) = follow(quorum).await?;
    let rows: Vec<Row> = client.image().read(|state| {
        let known = state.registrations();
        known.map(|known| row(state, known)).collect()
    });
    observer.shutdown().await;
    if quorum.json {
        return output::json(&rows);
    }
    let mut table = Table::new(&[
        "ID",
        "EPOCH",
        "ZONE",
        "ADDRESS",
        "STATE",
        "WAL PARTITIONS",
        "OFFSETS",
        "BYTES",
    ]);
    for row in rows {
        table.row(vec![
            row.id.to_string(),
            row.epoch.to_string(),
            or_dash(row.zone),
            row.address,
            row.state.to_owned(),
            row.wal.partitions.to_string(),
            row.wal.offsets.to_string(),
            row.wal.bytes.to_string(),
        ]);
    }
    output::text(&table.render())
}

fn row(state: &State, known: &Registration) -> Row {
    let mut wal = Expected::default();
    let mut partitions = BTreeSet::new();
    for (partition, extent) in state.wal_extents(known.broker.id) {
        partitions.insert(partition);
        wal.offsets += extent.end.0.abs_diff(extent.base.0);
        wal.bytes += u64::from(extent.location.length());
    }
    wal.partitions = partitions.len();
    Row {
        id: known.broker.id.0,
        epoch: known.broker.epoch.0,
        zone: known.broker.rack.clone(),
        address: format!("{}:{}", known.broker.host, known.broker.port),
        state: condition(state, known),
        wal,
    }
}

fn condition(state: &State, known: &Registration) -> &'static str {
    match () {
        () if !state.is_current(&known.broker) => "sealed",
        () if known.lease_until_ms <= state.now_ms() => "lapsed",
        () if known.draining => "draining",
        () => "live",
    }
}

/// What is expected of a gateway's write-ahead log, adjacent offsets together.
fn expected(state: &State, broker: BrokerId) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (partition, extent) in state.wal_extents(broker) {
        let topic = state.topic_by_id(partition.topic);
        let topic = topic.map_or_else(|| partition.topic.to_string(), |t| t.name.to_string());
        let bytes = u64::from(extent.location.length());
        match ranges.last_mut() {
            Some(last)
                if (last.topic.as_str(), last.partition, last.to)
                    == (topic.as_str(), partition.partition, extent.base.0) =>
            {
                last.to = extent.end.0;
                last.bytes += bytes;
            }
            _ => ranges.push(Range {
                topic,
                partition: partition.partition,
                from: extent.base.0,
                to: extent.end.0,
                bytes,
            }),
        }
    }
    ranges
}

impl Forget {
    async fn run(&self) -> anyhow::Result<()> {
        let (observer, client) = follow(&self.quorum).await?;
        let done = self.forget(&client).await;
        observer.shutdown().await;
        let Forgotten { id, epoch, lost } = done?;
        if self.quorum.json {
            return output::json(&Forgotten { id, epoch, lost });
        }
        let mut text = format!("gateway {id} (epoch {epoch}) is given up\n");
        for Range {
            topic,
            partition,
            from,
            to,
            bytes,
        } in &lost
        {
            let count = to - from;
            writeln!(
                text,
                "lost: {topic}-{partition} offsets {from} to {} ({count} offsets, {bytes} bytes)",
                to - 1
            )?;
        }
        output::text(&text)
    }

    async fn forget(&self, client: &Client) -> anyhow::Result<Forgotten> {
        let broker = BrokerId(self.id);
        let (epoch, ranges) = client.image().read(|state| {
            let epoch = state.registration(broker).map(|known| known.broker.epoch);
            (epoch, expected(state, broker))
        });
        let epoch = epoch.ok_or_else(|| anyhow!("no gateway {broker} is known"))?;
        if !ranges.is_empty() && !self.accept_loss {
            bail!(
                "acknowledged records are only in the write-ahead log of gateway {broker}: {}. If \
                 its disk can be had, start it there; if not, --accept-loss gives them up for good",
                told(&ranges)
            );
        }
        // First the end of the registration: from then on nothing is added to what is expected and
        // nothing is moved, so that what is told is what is lost.
        self.command(client, epoch, false).await?;
        let lost = client.image().read(|state| expected(state, broker));
        if !lost.is_empty() {
            if !self.accept_loss {
                bail!(
                    "gateway {broker} has acknowledged more records meanwhile: {}",
                    told(&lost)
                );
            }
            self.command(client, epoch, true).await?;
        }
        Ok(Forgotten {
            id: broker.0,
            epoch: epoch.0,
            lost,
        })
    }

    async fn command(
        &self,
        client: &Client,
        epoch: BrokerEpoch,
        accept_loss: bool,
    ) -> anyhow::Result<()> {
        let broker = BrokerId(self.id);
        let asked = client.forget_gateway(broker, epoch, accept_loss);
        let asked = asked.boxed().await?;
        asked.map_err(|refusal| anyhow!("gateway {broker} cannot be given up: {refusal}"))
    }
}

fn told(ranges: &[Range]) -> String {
    const SHOWN: usize = 5;
    let shown = ranges.iter().take(SHOWN).map(|range| {
        let last = range.to - 1;
        format!(
            "{}-{} offsets {} to {last}",
            range.topic, range.partition, range.from
        )
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match ranges.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more ranges"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let range = |partition| Range {
            topic: "t".to_owned(),
            partition,
            from: 3,
            to: 5,
            bytes: 100,
        };
        assert_eq!(told(&[range(0)]), "t-0 offsets 3 to 4");
        let many: Vec<Range> = (0..9).map(range).collect();
        assert!(told(&many).ends_with("t-4 offsets 3 to 4, and 4 more ranges"));
    }
}
