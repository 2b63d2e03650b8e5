//! `frazil group`.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::groups::GroupList;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Serialize;

use super::client::{ClientArgs, Connection, code_text, explain, wait};
use super::output::{self, Table, or_dash};

/// `frazil group …`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the consumer groups
    List(List),
    /// Show members, committed offsets and lag of a group
    Describe(Describe),
    /// Move the committed offsets of a group without members; says what it would do unless
    /// --execute is given
    ResetOffsets(ResetOffsets),
    /// Delete groups without members, with their offsets
    Delete(Delete),
}

/// `frazil group list`.
#[derive(Debug, Args)]
pub struct List {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil group describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// Its id
    group: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil group reset-offsets`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub struct ResetOffsets {
    /// The group's id
    group: String,
    /// A topic to reset; may be repeated; without it, all that the group has offsets on
    #[arg(long)]
    topic: Vec<String>,
    /// To the first record
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To this offset, or the nearest there is
    #[arg(long, group = "target", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record that is not older: 2026-11-20T08:30:00Z, or milliseconds since 1970
    #[arg(long, group = "target", value_name = "TIME", value_parser = super::time::parse_ms)]
    to_datetime: Option<i64>,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `frazil group delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Their ids
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::ResetOffsets(command) => command.run(),
        Command::Delete(command) => command.run(),
    }
}

fn fetch_groups(connection: &Connection, group: Option<&str>) -> anyhow::Result<GroupList> {
    let list = connection
        .consumer
        .fetch_group_list(group, connection.timeout);
    list.map_err(|e| explain(&e))
}

/// A group that no broker knows is "Dead", or missing from the answer.
const UNKNOWN: &str = "Dead";

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    protocol_type: String,
    members: usize,
}

impl List {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect()?;
        let mut groups: BTreeMap<String, Listed> = BTreeMap::new();
        for group in fetch_groups(&connection, None)?.groups() {
            // Every broker is asked; some tell of the same group.
            groups.insert(
                group.name().to_owned(),
                Listed {
                    group: group.name().to_owned(),
                    state: group.state().to_owned(),
                    protocol_type: group.protocol_type().to_owned(),
                    members: group.members().len(),
                },
            );
        }
        let groups: Vec<Listed> = groups.into_values().collect();
        if self.json {
            return output::json(&groups);
        }
        let mut table = Table::new(&["GROUP", "STATE", "TYPE", "MEMBERS"]);
        for g in groups {
            table.row(vec![
                g.group,
                g.state,
                g.protocol_type,
                g.members.to_string(),
            ]);
        }
        table.print()
    }
}

#[derive(Serialize)]
struct Description {
    group: String,
    state: String,
    protocol: String,
    members: Vec<Member>,
    offsets: Vec<Position>,
    total_lag: i64,
}

#[derive(Serialize)]
struct Member {
    member_id: String,
    client_id: String,
    host: String,
    /// Partitions by topic; `None` if the member's assignment is not a consumer's.
    assignment: Option<BTreeMap<String, Vec<i32>>>,
}

#[derive(Serialize)]
struct Position {
    topic: String,
    partition: i32,
    committed: i64,
    end_offset: i64,
    lag: i64,
    member_id: Option<String>,
}

impl Describe {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect_as(&self.group, &[])?;
        let description = describe(&connection, &self.group)?;
        if self.json {
            return output::json(&description);
        }
        let mut text = format!(
            "group   {}\nstate   {}\nlag     {}\n",
            description.group, description.state, description.total_lag
        );
        let mut members = Table::new(&["MEMBER", "CLIENT", "HOST", "PARTITIONS"]);
        for m in &description.members {
            let count = m
                .assignment
                .as_ref()
                .map(|a| a.values().map(Vec::len).sum::<usize>());
            let cells = [&m.member_id, &m.client_id, &m.host];
            let mut cells: Vec<String> = cells.into_iter().cloned().collect();
            cells.push(or_dash(count));
            members.row(cells);
        }
        let mut offsets = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"]);
        for p in description.offsets {
            offsets.row(vec![
                p.topic,
                p.partition.to_string(),
                p.committed.to_string(),
                p.end_offset.to_string(),
                p.lag.to_string(),
                or_dash(p.member_id),
            ]);
        }
        if !description.members.is_empty() {
            text.push('\n');
            text.push_str(&members.render());
        }
        text.push('\n');
        text.push_str(&offsets.render());
        output::text(&text)
    }
}

fn describe(connection: &Connection, name: &str) -> anyhow::Result<Description> {
    let list = fetch_groups(connection, Some(name))?;
    let known = list.groups().iter().find(|group| group.name() == name);
    let known = known.filter(|group| group.state() != UNKNOWN);
    let members: Vec<Member> = known
        .into_iter()
        .flat_map(|group| group.members())
        .map(|member| Member {
            member_id: member.id().to_owned(),
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
            assignment: member.assignment().and_then(parse_assignment),
        })
        .collect();
    let owner = |topic: &str, partition: i32| {
        let owns = |member: &&Member| {
            let assignment = member.assignment.as_ref();
            assignment
                .and_then(|a| a.get(topic))
                .is_some_and(|p| p.contains(&partition))
        };
        members
            .iter()
            .find(owns)
            .map(|member| member.member_id.clone())
    };
    let mut offsets = Vec::new();
    for ((topic, partition), committed) in committed(connection)? {
        let (_, end_offset) = connection.bounds(&topic, partition)?;
        offsets.push(Position {
            member_id: owner(&topic, partition),
            lag: (end_offset - committed).max(0),
            topic,
            partition,
            committed,
            end_offset,
        });
    }
    if known.is_none() && offsets.is_empty() {
        bail!("there is no group {name}");
    }
    Ok(Description {
        group: name.to_owned(),
        state: known.map_or("Empty", |group| group.state()).to_owned(),
        protocol: known.map_or("", |group| group.protocol()).to_owned(),
        total_lag: offsets.iter().map(|p| p.lag).sum(),
        members,
        offsets,
    })
}

/// The offsets that the connection's group has committed on topics that exist.
fn committed(connection: &Connection) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
    let mut list = TopicPartitionList::new();
    for topic in connection.metadata.topics() {
        for partition in topic.partitions() {
            list.add_partition(topic.name(), partition.id());
        }
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let list = connection
        .consumer
        .committed_offsets(list, connection.timeout);
    let list = list.map_err(|e| explain(&e))?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error().map_err(|e| explain(&e))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

/// Reads the assignment of a member of a consumer group: version i16, then topics (count i32) of
/// name (length i16), partitions (count i32) of i32. Source: Kafka's ConsumerProtocolAssignment.
fn parse_assignment(bytes: &[u8]) -> Option<BTreeMap<String, Vec<i32>>> {
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(n)?;
        *bytes = rest;
        Some(head)
    }
    fn i16(bytes: &mut &[u8]) -> Option<i16> {
        Some(i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?))
    }
    fn i32(bytes: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    let mut rest = bytes;
    i16(&mut rest)?;
    let mut topics = BTreeMap::new();
    for _ in 0..i32(&mut rest)? {
        let length = usize::try_from(i16(&mut rest)?).ok()?;
        let name = std::str::from_utf8(take(&mut rest, length)?).ok()?;
        let partitions: &mut Vec<i32> = topics.entry(name.to_owned()).or_default();
        for _ in 0..i32(&mut rest)? {
            partitions.push(i32(&mut rest)?);
        }
    }
    Some(topics)
}

#[derive(Serialize)]
struct Reset {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    new: i64,
}

impl ResetOffsets {
    fn run(&self) -> anyhow::Result<()> {
        let connection = self.client.connect_as(&self.group, &[])?;
        let list = fetch_groups(&connection, Some(&self.group))?;
        if list
            .groups()
            .iter()
            .any(|g| g.name() == self.group && !g.members().is_empty())
        {
            bail!("group {} has members; stop them first", self.group);
        }
        let mut resets = self.plan(&connection)?;
        if resets.is_empty() {
            bail!(
                "group {} has committed no offsets; name a topic with --topic",
                self.group
            );
        }
        resets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if self.execute {
            let mut offsets = TopicPartitionList::new();
            for reset in &resets {
                offsets
                    .add_partition_offset(&reset.topic, reset.partition, Offset::Offset(reset.new))
                    .map_err(|e| explain(&e))?;
            }
            connection
                .consumer
                .commit(&offsets, CommitMode::Sync)
                .map_err(|e| explain(&e).context(format!("group {}", self.group)))?;
        } else {
            eprintln!("nothing is changed without --execute");
        }
        if self.json {
            return output::json(&resets);
        }
        let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "NEW"]);
        for reset in resets {
            table.row(vec![
                reset.topic,
                reset.partition.to_string(),
                or_dash(reset.committed),
                reset.new.to_string(),
            ]);
        }
        table.print()
    }

    fn plan(&self, connection: &Connection) -> anyhow::Result<Vec<Reset>> {
        let present = committed(connection)?;
        let mut wanted: Vec<(String, i32)> = Vec::new();
        if self.topic.is_empty() {
            wanted.extend(present.keys().cloned());
        }
        for topic in &self.topic {
            let partitions = 0..connection.partitions(topic)?;
            wanted.extend(partitions.map(|partition| (topic.clone(), partition)));
        }
        let by_time = self.offsets_at(connection, &wanted)?;
        let mut resets = Vec::new();
        for key in wanted {
            let (start, end) = connection.bounds(&key.0, key.1)?;
            let new = if self.to_earliest {
                start
            } else if let Some(offset) = self.to_offset {
                offset.clamp(start, end)
            } else {
                // Of a time behind the last record the offset is the end, as for --to-latest.
                by_time.get(&key).copied().unwrap_or(end)
            };
            resets.push(Reset {
                committed: present.get(&key).copied(),
                topic: key.0,
                partition: key.1,
                new,
            });
        }
        Ok(resets)
    }

    /// The offset of the first record of each partition that is not older than the time asked for.
    fn offsets_at(
        &self,
        connection: &Connection,
        partitions: &[(String, i32)],
    ) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
        let mut found = BTreeMap::new();
        let Some(time_ms) = self.to_datetime else {
            return Ok(found);
        };
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            let time = Offset::Offset(time_ms);
            list.add_partition_offset(topic, *partition, time)
                .map_err(|e| explain(&e))?;
        }
        let list = connection
            .consumer
            .offsets_for_times(list, connection.timeout);
        for element in list.map_err(|e| explain(&e))?.elements() {
            element.error().map_err(|e| explain(&e))?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(found)
    }
}

impl Delete {
    fn run(&self) -> anyhow::Result<()> {
        self.client.connect()?;
        let (admin, options) = self.client.admin()?;
        let names: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        let mut failed = Vec::new();
        for result in wait(admin.delete_groups(&names, &options))? {
            if let Err((group, code)) = result {
                failed.push(format!("group {group}: {}", code_text(code)));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(anyhow!(failed.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_and_lies_about_counts_are_not_believed() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.extend([0xff; 4]);
        let expected = BTreeMap::from([("ab".to_owned(), vec![0, 5])]);
        assert_eq!(parse_assignment(&bytes), Some(expected));
        for cut in 0..22 {
            assert_eq!(parse_assignment(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(parse_assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(parse_assignment(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None);
    }
}
