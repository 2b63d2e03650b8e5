//! Many topics of one partition: making them, producing to some, and a start with all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::samples::Samples;
use super::systems::{Bench, Side};
use crate::load::batch::{Codec, batch};
use crate::load::frames::{self, Link};
use crate::load::produce::first_ack;
use crate::workload;

/// How many in a full run and in a quick one.
pub(crate) const TOPICS: (usize, usize) = (10_000, 1000);
/// Kafka answers that topics are made long before it has made their directories.
const PATIENCE: Duration = Duration::from_secs(600);
/// Topics that get a record.
const SAMPLE: usize = 500;

/// Adds what one side needs for them.
pub(crate) fn measure(
    bench: &Bench,
    side: Side,
    count: usize,
    samples: &mut Samples,
) -> Result<()> {
    let server = bench.start(side)?;
    let names: Vec<String> = (0..count).map(|n| format!("topic-{n}")).collect();
    let start = Instant::now();
    workload::create_topics(server.address(), &names, 1, side.topic())?;
    let last = names.last().context("some topics")?;
    first_ack(server.address(), last, PATIENCE)?;
    samples.add("topics created", side, start.elapsed().as_secs_f64());

    let batch = batch(1, 100, Codec::None)?;
    let mut link = Link::to(server.address())?;
    let start = Instant::now();
    for (n, name) in names.iter().step_by(count.div_ceil(SAMPLE)).enumerate() {
        let mut frame = frames::produce(name, -1, &[(0, &batch)]);
        link.send(&mut frame, n as i32)?;
        frames::produced(link.receive(n as i32)?, |_| ())?;
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    samples.add("topics produced", side, took);
    samples.add("topics rss", side, server.process().peak_rss_mib()?);

    let start = Instant::now();
    let stopped = server.stop()?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    samples.add("topics stopped", side, took);
    let (server, took) = bench.restart(side, stopped, &names[0])?;
    samples.add("topics first", side, took);
    server.discard()
}
