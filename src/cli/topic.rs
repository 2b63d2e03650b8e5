//! `frazil topic`.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use rdkafka::admin::{
    ConfigResource, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use super::client::{ClientArgs, Connection, code_text, wait};
use super::incremental;
use super::output::{self, Table, or_dash};

/// `frazil topic …`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a topic
    Create(Create),
    /// List the topics
    List(List),
    /// Show partitions, offsets and settings of topics
    Describe(Describe),
    /// Change settings, or add partitions
    Alter(Alter),
    /// Delete topics with all their records
    Delete(Delete),
}

/// `frazil topic create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    topic: String,
    /// How many partitions; without it, the broker decides
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// The replication factor to report; without it, the broker decides
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    replication_factor: Option<i32>,
    /// A setting of the topic; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = super::pair)]
    config: Vec<(String, String)>,
    /// Succeed if the topic exists
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil topic list`.
#[derive(Debug, Args)]
pub struct List {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil topic describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// Their names
    #[arg(required = true)]
    topics: Vec<String>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil topic alter`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["partitions", "config", "delete_config"])]
pub struct Alter {
    /// Its name
    topic: String,
    /// The number of partitions to grow to
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting to change; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = super::pair)]
    config: Vec<(String, String)>,
    /// A setting to return to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil topic delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Their names
    #[arg(required = true)]
    topics: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::Alter(command) => command.run(),
        Command::Delete(command) => command.run(),
    }
}

/// The outcome for one topic of a request about several.
fn outcome(result: Result<String, (String, RDKafkaErrorCode)>) -> anyhow::Result<()> {
    result
        .map(|_| ())
        .map_err(|(topic, code)| anyhow!("topic {topic}: {}", code_text(code)))
}

impl Create {
    fn run(&self) -> anyhow::Result<()> {
        self.client.connect()?;
        let (admin, options) = self.client.admin()?;
        let replication = TopicReplication::Fixed(self.replication_factor.unwrap_or(-1));
        let mut topic = NewTopic::new(&self.topic, self.partitions.unwrap_or(-1), replication);
        for (key, value) in &self.config {
            topic = topic.set(key, value);
        }
        for result in wait(admin.create_topics([&topic], &options))? {
            match result {
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if self.if_not_exists => {}
                result => outcome(result)?,
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
}

impl List {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect()?;
        let topics = connection.metadata.topics().iter().map(|topic| Listed {
            topic: topic.name().to_owned(),
            partitions: topic.partitions().len(),
        });
        let mut topics: Vec<Listed> = topics.collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        if self.json {
            return output::json(&topics);
        }
        let mut table = Table::new(&["TOPIC", "PARTITIONS"]);
        for topic in topics {
            table.row(vec![topic.topic, topic.partitions.to_string()]);
        }
        table.print()
    }
}

#[derive(Serialize)]
struct Description {
    topic: String,
    partitions: Vec<Partition>,
    /// Settings that differ from the defaults.
    config: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    leader: Option<i32>,
    start_offset: i64,
    end_offset: i64,
}

impl Describe {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect()?;
        let described = self
            .topics
            .iter()
            .map(|topic| self.describe(&connection, topic));
        let described = described.collect::<anyhow::Result<Vec<Description>>>()?;
        if self.json {
            return output::json(&described);
        }
        let mut text = String::new();
        for topic in described {
            let mut table =
                Table::new(&["TOPIC", "PARTITION", "LEADER", "START", "END", "RECORDS"]);
            for p in &topic.partitions {
                table.row(vec![
                    topic.topic.clone(),
                    p.partition.to_string(),
                    or_dash(p.leader),
                    p.start_offset.to_string(),
                    p.end_offset.to_string(),
                    (p.end_offset - p.start_offset).to_string(),
                ]);
            }
            text.push_str(&table.render());
            for (key, value) in &topic.config {
                text.push_str(&format!(
                    "{key} = {}\n",
                    value.as_deref().unwrap_or("(hidden)")
                ));
            }
            text.push('\n');
        }
        output::text(text.strip_suffix('\n').unwrap_or(&text))
    }

    fn describe(&self, connection: &Connection, name: &str) -> anyhow::Result<Description> {
        connection.partitions(name)?;
        let topics = connection.metadata.topics();
        let mut partitions = Vec::new();
        for p in topics
            .iter()
            .filter(|t| t.name() == name)
            .flat_map(|t| t.partitions())
        {
            let (start_offset, end_offset) = connection.bounds(name, p.id())?;
            partitions.push(Partition {
                partition: p.id(),
                leader: (p.leader() >= 0).then_some(p.leader()),
                start_offset,
                end_offset,
            });
        }
        partitions.sort_by_key(|p| p.partition);
        let config = own_settings(&settings(&self.client, name)?);
        Ok(Description {
            topic: name.to_owned(),
            partitions,
            config,
        })
    }
}

/// All settings of a topic.
fn settings(client: &ClientArgs, topic: &str) -> anyhow::Result<ConfigResource> {
    let (admin, options) = client.admin()?;
    let specifier = ResourceSpecifier::Topic(topic);
    let results = wait(admin.describe_configs([&specifier], &options))?;
    match results.into_iter().next() {
        Some(Ok(resource)) => Ok(resource),
        Some(Err(code)) => bail!("topic {topic}: {}", code_text(code)),
        None => bail!("topic {topic}: the broker's answer does not speak of it"),
    }
}

/// The settings that were made on the topic itself.
fn own_settings(resource: &ConfigResource) -> BTreeMap<String, Option<String>> {
    let own = resource.entries.iter();
    let own = own.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.map(|entry| (entry.name.clone(), entry.value.clone()))
        .collect()
}

impl Alter {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect()?;
        let present = connection.partitions(&self.topic)?;
        let set = self
            .config
            .iter()
            .map(|(key, value)| (key.as_str(), Some(value.as_str())));
        let unset = self.delete_config.iter().map(|key| (key.as_str(), None));
        let changes: Vec<(&str, Option<&str>)> = set.chain(unset).collect();
        if !changes.is_empty() {
            incremental::alter_topic(&connection, &self.topic, &changes)?;
        }
        // Asking for what is there already is fine, so that the command can be repeated.
        if let Some(partitions) = self.partitions.filter(|wanted| *wanted != present) {
            let (admin, options) = self.client.admin()?;
            let wanted = NewPartitions::new(&self.topic, usize::try_from(partitions)?);
            for result in wait(admin.create_partitions([&wanted], &options))? {
                outcome(result)?;
            }
        }
        Ok(())
    }
}

impl Delete {
    fn run(&self) -> anyhow::Result<()> {
        self.client.connect()?;
        let (admin, options) = self.client.admin()?;
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let results = wait(admin.delete_topics(&names, &options))?;
        // The others are gone already; say what is not.
        let failed: Vec<String> = results
            .into_iter()
            .filter_map(|result| outcome(result).err())
            .map(|e| e.to_string())
            .collect();
        if !failed.is_empty() {
            bail!(failed.join("; "));
        }
        Ok(())
    }
}
