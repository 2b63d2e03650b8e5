//! `frazil cluster voter`: the members of the metadata quorum, and changing them while it works.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use frazil_metadata::{Admin, Features, Members};
use serde::Serialize;

use super::output::{self, Table, or_dash};

/// How to reach the quorum.
#[derive(Debug, Args)]
pub(super) struct Quorum {
    /// The peer address (peer.listen) of any voter
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9093")]
    pub(super) peer: String,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// `frazil cluster voter …`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the voters and what they have acknowledged
    List(Quorum),
    /// Make a node a voter; it runs already, with roles=metadata and itself in its
    /// controller.quorum.voters
    Add {
        /// Its node.id and the address of its peer.listen
        #[arg(value_name = "ID@HOST:PORT", value_parser = voter)]
        voter: (u64, String),
        #[command(flatten)]
        quorum: Quorum,
    },
    /// Take a voter out of the quorum; stop its node afterwards. Its id is never used again
    Remove {
        /// Its node.id
        id: u64,
        #[command(flatten)]
        quorum: Quorum,
    },
}

/// Reads `ID@HOST:PORT`.
fn voter(text: &str) -> Result<(u64, String), String> {
    let parts = text.split_once('@').and_then(|(id, address)| {
        let id: i32 = id.parse().ok().filter(|id| *id >= 0)?;
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| (id as u64, format!("{host}:{port}")))
    });
    parts.ok_or_else(|| "expected ID@HOST:PORT".to_owned())
}

#[derive(Serialize)]
struct Row {
    id: u64,
    address: String,
    role: &'static str,
    acknowledged: Option<u64>,
    /// Entries that it has not acknowledged.
    lag: Option<u64>,
    /// Milliseconds since it was heard of.
    heard_ms: Option<u64>,
    /// The highest feature level that it knows.
    knows: Option<u8>,
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (quorum, members, features) = runtime.block_on(async {
        let (quorum, members) = match command {
            Command::List(quorum) => {
                let asked = Admin::new(&quorum.peer).members().await?;
                (quorum, leaders_view(asked).await)
            }
            Command::Add { voter, quorum } => {
                let (id, address) = voter.clone();
                (
                    quorum,
                    Admin::new(&quorum.peer).add_voter(id, address).await?,
                )
            }
            Command::Remove { id, quorum } => {
                (quorum, Admin::new(&quorum.peer).remove_voter(*id).await?)
            }
        };
        let features = Admin::new(&quorum.peer).features().await.ok();
        Ok::<_, frazil_metadata::Error>((quorum, members, features))
    })?;
    show(&members, features.as_ref(), quorum.json)
}

/// The members as the leader knows them, who alone knows what each has acknowledged, if it can be
/// asked.
async fn leaders_view(members: Members) -> Members {
    let leader = members.leader.filter(|leader| *leader != members.voter);
    match leader.and_then(|leader| members.voters.get(&leader)) {
        Some(address) => Admin::new(address).members().await.unwrap_or(members),
        None => members,
    }
}

fn show(members: &Members, features: Option<&Features>, json: bool) -> anyhow::Result<()> {
    let acknowledged = |id: &u64| match *id == members.voter {
        true => members.last_index,
        false => members.acknowledged.get(id).copied(),
    };
    let leads = members.leader == Some(members.voter);
    let row = |(id, address): (&u64, &String), role| Row {
        id: *id,
        address: address.clone(),
        role: match members.leader == Some(*id) {
            true => "leader",
            false => role,
        },
        acknowledged: acknowledged(id),
        lag: acknowledged(id)
            .zip(members.last_index)
            .map(|(acknowledged, last)| last.saturating_sub(acknowledged)),
        heard_ms: match leads && *id == members.voter {
            true => Some(0),
            false => members.heard_ms.get(id).copied(),
        },
        knows: features.and_then(|features| *features.voters.get(id)?),
    };
    let voters = members.voters.iter().map(|member| row(member, "voter"));
    let learners = members.learners.iter().map(|member| row(member, "learner"));
    let rows: Vec<Row> = voters.chain(learners).collect();
    if json {
        return output::json(&rows);
    }
    let mut table = Table::new(&[
        "ID",
        "ADDRESS",
        "ROLE",
        "ACKNOWLEDGED",
        "LAG",
        "HEARD MS AGO",
        "LEVEL",
    ]);
    for row in rows {
        table.row(vec![
            row.id.to_string(),
            row.address,
            row.role.to_owned(),
            or_dash(row.acknowledged),
            or_dash(row.lag),
            or_dash(row.heard_ms),
            or_dash(row.knows),
        ]);
    }
    output::text(&table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_written_as_in_the_configuration() {
        assert_eq!(voter("4@host:9093"), Ok((4, "host:9093".to_owned())));
        assert_eq!(voter("4@[::1]:9093"), Ok((4, "[::1]:9093".to_owned())));
        for wrong in [
            "host:9093",
            "4@host",
            "-1@host:1",
            "4@:1",
            "4@host:0",
            "x@host:1",
        ] {
            assert!(voter(wrong).is_err(), "{wrong}");
        }
    }
}
