//! `frazil cluster feature` and `upgrade`: what the cluster's nodes know, and what they may use.

use anyhow::Context as _;
use frazil_metadata::{Admin, Features};
use serde::Serialize;

use super::output::{self, Table, or_dash};
use super::voter::Quorum;

#[derive(Serialize)]
struct Description {
    level: u8,
    nodes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    node: String,
    knows: Option<u8>,
    live: bool,
}

/// Shows the level in use and what every node knows.
pub(super) fn show(quorum: &Quorum) -> anyhow::Result<()> {
    let features = wait(async { Admin::new(&quorum.peer).features().await })?;
    print(&features, quorum.json)
}

/// Raises the level.
pub(super) fn upgrade(to: Option<u8>, quorum: &Quorum) -> anyhow::Result<()> {
    let features = wait(async { Admin::new(&quorum.peer).upgrade(to).await })?;
    print(&features, quorum.json)
}

fn wait<T>(ask: impl Future<Output = Result<T, frazil_metadata::Error>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(ask)?)
}

fn print(features: &Features, json: bool) -> anyhow::Result<()> {
    let voters = features.voters.iter().map(|(id, knows)| Row {
        node: format!("voter {id}"),
        knows: *knows,
        live: knows.is_some(),
    });
    let gateways = features.gateways.iter().map(|(id, gateway)| Row {
        node: format!("gateway {id}"),
        knows: Some(gateway.knows),
        live: gateway.live,
    });
    let description = Description {
        level: features.level,
        nodes: voters.chain(gateways).collect(),
    };
    if json {
        return output::json(&description);
    }
    let mut table = Table::new(&["NODE", "KNOWS", "LIVE"]);
    for row in description.nodes {
        let live = if row.live { "yes" } else { "no" };
        table.row(vec![row.node, or_dash(row.knows), live.to_owned()]);
    }
    output::text(&format!(
        "feature level  {}\n\n{}",
        description.level,
        table.render()
    ))
}
