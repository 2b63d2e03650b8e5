//! From exec to the first acknowledgement, against what a gateway's write-ahead log has when it is
//! killed. The store does not answer while the log is filled, so that all of it is still there.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use frazil_store::{Faults, Options, Outage, Store};

use super::Site;
use super::curve::{Curve, linear};
use crate::broker::Broker;
use crate::load::batch::Codec;
use crate::load::produce::first_ack;
use crate::load::{Flood, flood};
use crate::sheet::milliseconds;
use crate::workload;

const MEGABYTES: [u32; 5] = [1, 25, 50, 75, 100];
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(site: &Site) -> Result<Vec<Curve>> {
    let mut start = Curve::new(
        "recovery-wal",
        "From exec to the first acknowledgement after kill -9, against bytes in the write-ahead log",
        linear("MB in the log"),
        linear("ms"),
    );
    let mut drained = Curve::new(
        "recovery-drain",
        "From exec until the log is in the store again (S3's latency)",
        linear("MB in the log"),
        linear("ms"),
    );
    for megabytes in site.sizes(&MEGABYTES) {
        let options = Options {
            faults: Faults::default().s3_latency(),
            ..Options::default()
        };
        let store = site.runtime.block_on(Store::start(options))?;
        let mut settings = vec![
            "store.url=s3://bench/growth".to_owned(),
            "wal.bytes=256MiB".to_owned(),
            "flush.buffer.bytes=256MiB".to_owned(),
        ];
        for (name, value) in store.settings() {
            settings.push(format!("store.options.{name}={value}"));
        }
        let data = site.dir.join(format!("recovery-{megabytes}"));
        let broker = Broker::with(&site.binary, &data, &settings)?;
        let level = [("frazil.durability", "local"), ("frazil.table.mode", "off")];
        workload::create_topics(broker.kafka, &["t".to_owned()], 12, &level)?;
        first_ack(broker.kafka, "t", PATIENCE)?;
        store.faults().outage(Some(Outage::Hang));
        let load = Flood {
            broker: broker.kafka,
            topic: "t".to_owned(),
            partitions: 12,
            acks: -1,
            codec: Codec::None,
            size: 1000,
            records: 16,
            spread: 12,
            connections: 1,
            in_flight: 2,
            duration: PATIENCE,
            bytes: u64::from(megabytes) * 1_000_000,
        };
        let flow = flood(&load)?;
        let x = flow.records as f64 / 1000.0;
        broker.kill()?;
        store.faults().outage(None);
        let began = Instant::now();
        let broker = Broker::exec(&site.binary, &data, &settings)?;
        first_ack(broker.kafka, "t", PATIENCE)?;
        start.add("first acknowledgement", x, milliseconds(began.elapsed()));
        // Everything that is moved is in one segment or another.
        while broker
            .metrics()?
            .get(WAITING)
            .is_none_or(|bytes| *bytes > 0.0)
        {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the log is not emptied");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drained.add("emptied", x, milliseconds(began.elapsed()));
        broker.kill()?;
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
    }
    Ok(vec![start, drained])
}

/// Bytes of the log that wait for their upload.
const WAITING: &str = "frazil_cache_wal_held_bytes";
