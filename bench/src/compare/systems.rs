//! What is compared: a broker, and what its topics are told about durability.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::kafka::{Kafka, Kit, Prepared};
use super::nisshi::Nisshi;
use crate::broker::Broker;
use crate::load::consume::readable;
use crate::load::produce::first_ack;
use crate::process::Process;
use crate::workload;

/// How long a start may take: Kafka opens ten thousand partitions one after the other.
const PATIENCE: Duration = Duration::from_secs(600);

/// A system and the durability of its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Frazil with `frazil.durability=local`.
    Local,
    /// Frazil with `frazil.durability=object`, the store being a directory.
    Object,
    /// Kafka as it comes.
    Kafka,
    /// Kafka with `flush.messages=1`.
    KafkaSynced,
    /// Frazil with `frazil.durability=object`, the store being an S3 server.
    ObjectS3,
    /// Nisshi on an S3 server.
    NisshiS3,
    /// Nisshi that keeps nothing.
    NisshiMemory,
    /// Nisshi on a file of SQLite.
    NisshiSqlite,
    /// What three replicas of Kafka in three zones cost, by arithmetic.
    KafkaZones,
    /// No broker: a limit of the machine.
    Machine,
}

impl Side {
    /// All that acknowledge something.
    pub(crate) const BROKERS: [Self; 8] = [
        Self::Local,
        Self::Object,
        Self::Kafka,
        Self::KafkaSynced,
        Self::ObjectS3,
        Self::NisshiS3,
        Self::NisshiMemory,
        Self::NisshiSqlite,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "Frazil `local`",
            Self::Object => "Frazil `object`",
            Self::Kafka => "Kafka",
            Self::KafkaSynced => "Kafka `flush.messages=1`",
            Self::ObjectS3 => "Frazil `object` on S3",
            Self::NisshiS3 => "Nisshi on S3",
            Self::NisshiMemory => "Nisshi in memory",
            Self::NisshiSqlite => "Nisshi on SQLite",
            Self::KafkaZones => "Kafka, calculated",
            Self::Machine => "limit",
        }
    }

    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::Local => "acknowledged when synced to the local log and committed",
            Self::Object => "acknowledged when in the store, a directory here, synced",
            Self::Kafka => "acknowledged from the page cache, not synced",
            Self::KafkaSynced => "acknowledged when synced, each batch by itself",
            Self::ObjectS3 | Self::NisshiS3 => {
                "acknowledged when in the store, an S3 server here that syncs nothing"
            }
            Self::NisshiMemory => "acknowledged from its own memory, which ends with it",
            Self::NisshiSqlite => {
                "acknowledged from SQLite's log in the page cache (`synchronous = normal`), not synced"
            }
            Self::KafkaZones | Self::Machine => "",
        }
    }

    /// Batches of the load are the same in every run, so their time may be long ago.
    pub(crate) fn topic(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Local => &[("retention.ms", "-1"), ("frazil.durability", "local")],
            Self::Object | Self::ObjectS3 => {
                &[("retention.ms", "-1"), ("frazil.durability", "object")]
            }
            Self::NisshiS3 | Self::NisshiMemory | Self::NisshiSqlite => &[],
            Self::Kafka | Self::KafkaZones | Self::Machine => {
                &[("retention.ms", "-1"), ("file.delete.delay.ms", "1000")]
            }
            Self::KafkaSynced => &[
                ("retention.ms", "-1"),
                ("file.delete.delay.ms", "1000"),
                ("flush.messages", "1"),
            ],
        }
    }

    /// Whether its store is an S3 server.
    pub(crate) fn is_on_s3(self) -> bool {
        matches!(self, Self::ObjectS3 | Self::NisshiS3)
    }

    fn is_frazil(self) -> bool {
        matches!(self, Self::Local | Self::Object | Self::ObjectS3)
    }
}

/// Where the programs are, and where data may go.
pub(crate) struct Bench {
    pub frazil: PathBuf,
    pub kit: Option<Kit>,
    pub nisshi: Option<PathBuf>,
    pub dir: PathBuf,
    /// Processors of brokers and of this process, if there are enough to keep them apart.
    pub pins: Option<(String, String)>,
    pub count: std::cell::Cell<u32>,
}

/// One running broker.
pub(crate) enum Server {
    Frazil(Broker, PathBuf),
    Kafka(Kafka, PathBuf),
    Nisshi(Nisshi),
}

impl Bench {
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.dir.join(format!("{name}-{}", self.count.get()))
    }

    /// A system with nothing in it.
    pub(crate) fn start(&self, side: Side) -> Result<Server> {
        let server = if side.is_frazil() {
            let data = self.fresh("frazil");
            Server::Frazil(Broker::start(&self.frazil, &data)?, data)
        } else {
            let kit = self.kit.as_ref().context("no Kafka was asked for")?;
            let data = self.fresh("kafka");
            let settings = ["group.initial.rebalance.delay.ms=3000"];
            Server::Kafka(Prepared::new(kit, &data, &settings)?.start(kit)?, data)
        };
        self.pin(server.process())?;
        Ok(server)
    }

    pub(crate) fn pin(&self, process: Process) -> Result<()> {
        if let Some((brokers, _)) = &self.pins {
            let id = process.0.to_string();
            std::process::Command::new("taskset")
                .args(["-acp", brokers, &id])
                .stdout(std::process::Stdio::null())
                .status()
                .context("cannot start taskset")?;
        }
        Ok(())
    }

    /// Milliseconds from exec to the first acknowledgement of a record to a topic that is there.
    pub(crate) fn first_produce(&self, side: Side) -> Result<f64> {
        let topic = "first";
        let server = self.start(side)?;
        create(&server, side, topic, 1)?;
        first_ack(server.address(), topic, PATIENCE)?;
        let (server, took) = self.restart(side, server.stop()?, topic)?;
        server.discard()?;
        Ok(took)
    }

    /// Starts what was stopped; milliseconds from exec to the first acknowledgement of a record to
    /// this topic.
    pub(crate) fn restart(
        &self,
        side: Side,
        (data, address): (PathBuf, SocketAddr),
        topic: &str,
    ) -> Result<(Server, f64)> {
        let started;
        let server = if side.is_frazil() {
            started = Instant::now();
            Server::Frazil(Broker::exec(&self.frazil, &data, &[])?, data)
        } else {
            let kit = self.kit.as_ref().context("no Kafka was asked for")?;
            let prepared = Prepared::of(&data, address);
            started = Instant::now();
            Server::Kafka(prepared.exec(kit)?, data)
        };
        first_ack(server.address(), topic, PATIENCE)
            .with_context(|| format!("{} does not start: {}", side.name(), server.last_words()))?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        Ok((server, took))
    }
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Frazil(broker, _) => broker.kafka,
            Self::Kafka(kafka, _) => kafka.address,
            Self::Nisshi(nisshi) => nisshi.address,
        }
    }

    pub(crate) fn process(&self) -> Process {
        match self {
            Self::Frazil(broker, _) => broker.process(),
            Self::Kafka(kafka, _) => kafka.process(),
            Self::Nisshi(nisshi) => nisshi.process(),
        }
    }

    /// What it counts itself, if it is one of Frazil.
    pub(crate) fn counters(&self) -> Result<Option<BTreeMap<String, f64>>> {
        match self {
            Self::Frazil(broker, _) => broker.metrics().map(Some),
            Self::Kafka(..) | Self::Nisshi(_) => Ok(None),
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let data = match self {
            Self::Frazil(_, data) | Self::Kafka(_, data) => data,
            Self::Nisshi(_) => return String::new(),
        };
        let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends it as an operator would; what it had stays.
    pub(crate) fn stop(self) -> Result<(PathBuf, SocketAddr)> {
        let address = self.address();
        let data = match self {
            Self::Frazil(broker, data) => {
                broker.stop()?;
                data
            }
            Self::Kafka(kafka, data) => {
                kafka.stop()?;
                data
            }
            Self::Nisshi(_) => bail!("nothing of a Nisshi stays"),
        };
        Ok((data, address))
    }

    /// Kills it and removes what it had.
    pub(crate) fn discard(self) -> Result<()> {
        let data = match self {
            Self::Frazil(broker, data) => {
                broker.kill()?;
                data
            }
            Self::Kafka(kafka, data) => {
                drop(kafka);
                data
            }
            Self::Nisshi(nisshi) => return nisshi.discard(),
        };
        remove(&data)
    }
}

fn remove(data: &Path) -> Result<()> {
    std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))
}

/// A topic with the durability of this side.
pub(crate) fn create(server: &Server, side: Side, topic: &str, partitions: i32) -> Result<()> {
    workload::create_topics(
        server.address(),
        &[topic.to_owned()],
        partitions,
        side.topic(),
    )?;
    readable(server.address(), topic, partitions)
}
