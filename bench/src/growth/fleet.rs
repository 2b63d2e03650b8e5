//! A quorum of three voters: commits of more and more gateways, commands of more and more clients.
//!
//! All processes and the store are on this machine, and links go through proxies of this process, so
//! that more gateways also share its processors: the processor time of the voters per command tells
//! what they would take elsewhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

use super::Site;
use super::curve::{Curve, linear, log};
use crate::faults::fleet::{Fleet, GATEWAY, Plan, VOTERS};
use crate::faults::node::Role;
use crate::load::batch::Codec;
use crate::load::produce::first_ack;
use crate::load::{Flood, flood};
use crate::scale::{self, Joined};
use crate::sheet::milliseconds;
use crate::wire::Connection;
use crate::workload;

const GATEWAYS: [u32; 6] = [1, 2, 3, 4, 5, 6];
const CLIENTS: [u32; 7] = [1, 2, 4, 16, 64, 256, 512];
const PATIENCE: Duration = Duration::from_secs(60);

fn fleet(site: &Site, gateways: u32) -> Result<Fleet> {
    Fleet::start(&Plan {
        binary: &site.binary,
        dir: &site.dir,
        runtime: site.runtime.handle(),
        gateways,
        settings: &[],
    })
}

fn window(site: &Site) -> Duration {
    Duration::from_secs(if site.quick { 1 } else { 4 })
}

/// Processor time of the voters so far.
fn voters(fleet: &Fleet) -> Result<Duration> {
    VOTERS.iter().map(|id| fleet.nodes[id].cpu()).sum()
}

/// Commands whose outcomes the gateways know.
fn commits(fleet: &Fleet) -> Result<f64> {
    let gateways = fleet.ids(Role::Gateway);
    let of = |id: &u32| fleet.nodes[id].metric("frazil_metadata_commits_total");
    gateways.iter().map(of).sum()
}

pub(super) fn gateways(site: &Site) -> Result<Vec<Curve>> {
    let x = linear("gateways");
    let mut rate = Curve::new(
        "gateways-commits",
        "Commits of a quorum of three voters against gateways, all on this machine",
        x,
        linear("commits per second"),
    );
    let mut work = Curve::new(
        "gateways-work",
        "Processor time of all three voters per commit",
        x,
        linear("ms"),
    );
    let counts = if site.quick {
        &GATEWAYS[..2]
    } else {
        &GATEWAYS
    };
    for &count in counts {
        let mut fleet = fleet(site, count)?;
        let addresses: Vec<SocketAddr> = (GATEWAY..)
            .take(count as usize)
            .map(|id| fleet.nodes[&id].addresses.kafka)
            .collect();
        // Acknowledged from the log, so that no PUT stands between one commit and the next.
        let level = [("frazil.durability", "local"), ("frazil.table.mode", "off")];
        workload::create_topics(fleet.bootstrap(), &["t".to_owned()], 12, &level)?;
        for address in &addresses {
            first_ack(*address, "t", PATIENCE)?;
        }
        let (commits_before, cpu_before) = (commits(&fleet)?, voters(&fleet)?);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let loads: Vec<_> = addresses
                .iter()
                .map(|address| {
                    let load = Flood {
                        broker: *address,
                        topic: "t".to_owned(),
                        partitions: 12,
                        acks: -1,
                        codec: Codec::None,
                        size: 100,
                        records: 1,
                        spread: 1,
                        connections: 2,
                        in_flight: 5,
                        duration: window(site),
                        bytes: u64::MAX,
                    };
                    scope.spawn(move || flood(&load))
                })
                .collect();
            for load in loads {
                load.join()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let made = commits(&fleet)? - commits_before;
        let used = voters(&fleet)?.saturating_sub(cpu_before);
        rate.add("all gateways", f64::from(count), made / seconds);
        work.add("three voters", f64::from(count), milliseconds(used) / made);
        fleet.stop();
    }
    Ok(vec![rate, work])
}

pub(super) fn commands(site: &Site) -> Result<Vec<Curve>> {
    let x = log("commands at a time");
    let mut rate = Curve::new(
        "commands-rate",
        "Commands of a quorum of three voters: offsets committed, each by a group of its own",
        x,
        log("commands per second"),
    );
    let mut latency = Curve::new(
        "commands-latency",
        "Time of one command",
        x,
        log("ms, mean"),
    );
    let mut work = Curve::new(
        "commands-work",
        "Processor time of all three voters per command",
        x,
        linear("ms"),
    );
    let mut fleet = fleet(site, 1)?;
    let kafka = fleet.nodes[&GATEWAY].addresses.kafka;
    workload::create_topics(fleet.bootstrap(), &["scale-0".to_owned()], 12, &[])?;
    first_ack(kafka, "scale-0", PATIENCE)?;
    for count in site.sizes(&CLIENTS) {
        let cpu_before = voters(&fleet)?;
        let began = Instant::now();
        let until = began + window(site);
        let clients = (0..count).map(|number| client(kafka, number, until));
        let done: u64 = site
            .runtime
            .block_on(try_join_all(clients))?
            .into_iter()
            .sum();
        let seconds = began.elapsed().as_secs_f64();
        let used = voters(&fleet)?.saturating_sub(cpu_before);
        let size = f64::from(count);
        ensure!(done > 0, "no command was done");
        rate.add("three voters", size, done as f64 / seconds);
        latency.add("three voters", size, 1e3 * seconds * size / done as f64);
        work.add("three voters", size, milliseconds(used) / done as f64);
    }
    fleet.stop();
    Ok(vec![rate, latency, work])
}

/// Commits an offset of a group without members, again and again; how often.
async fn client(kafka: SocketAddr, number: u32, until: Instant) -> Result<u64> {
    let group = Joined {
        group: GroupId(StrBytes::from_string(format!("growth-{number}"))),
        member: StrBytes::default(),
        generation: -1,
    };
    let mut connection = Connection::to(kafka).await?;
    // The first one has the group loaded.
    let patience = Instant::now() + PATIENCE;
    while scale::commit(&mut connection, &group, 0).await? != 0 {
        ensure!(
            Instant::now() < patience,
            "group {number} has no coordinator"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut done = 0;
    while Instant::now() < until {
        let code = scale::commit(&mut connection, &group, done as u32 % 12).await?;
        ensure!(code == 0, "OffsetCommit: error {code}");
        done += 1;
    }
    Ok(done)
}
