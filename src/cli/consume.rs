//! `frazil consume`.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::json;

use super::client::{ClientArgs, Context, explain};
use super::{files, output};

/// `frazil consume`.
#[derive(Debug, Args)]
pub struct Consume {
    /// The topic to receive from
    topic: String,
    /// Begin with the first record instead of the next one to come
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Where to begin: an offset, -N for the last N records of each partition, 'earliest' or
    /// 'latest'
    #[arg(short, long, allow_hyphen_values = true, conflicts_with = "group")]
    offset: Option<Start>,
    /// A partition to read; may be repeated; without it, all
    #[arg(short, long, conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Read as a member of this consumer group, from where it stopped
    #[arg(short, long)]
    group: Option<String>,
    /// Stop after this many records
    #[arg(short = 'n', long)]
    max_messages: Option<u64>,
    /// Stop when the end of every partition has been reached
    #[arg(short = 'e', long)]
    until_end: bool,
    /// How to print a record: %k key, %v value, %t topic, %p partition, %o offset, %T timestamp in
    /// ms, %h headers, %% percent, \t, \n, \\. A newline follows
    #[arg(short, long, default_value = "%v", conflicts_with_all = ["json", "files_to"])]
    format: Format,
    /// Print every record as one line of JSON; bytes that are no text as {"base64": …}
    #[arg(long, conflicts_with = "files_to")]
    json: bool,
    /// Write every record's value to a file below this directory that its key names, instead of
    /// printing it. Keys that lead out of the directory are refused; null values are skipped
    #[arg(long, value_name = "DIR")]
    files_to: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start(Offset);

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let offset = match text {
            "earliest" | "beginning" => Offset::Beginning,
            "latest" | "end" => Offset::End,
            number => match number.parse::<i64>() {
                Ok(n) if n >= 0 => Offset::Offset(n),
                Ok(n) => Offset::OffsetTail(n.checked_neg().ok_or("out of range")?),
                Err(_) => return Err("expected a number, 'earliest' or 'latest'".to_owned()),
            },
        };
        Ok(Self(offset))
    }
}

impl Consume {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let stop = stop_on_signal()?;
        let reset = if self.from_beginning {
            "earliest"
        } else {
            "latest"
        };
        let group = self.group.as_deref().unwrap_or("frazil-cli");
        let settings = [
            ("enable.partition.eof", "true"),
            ("enable.auto.offset.store", "false"),
            (
                "enable.auto.commit",
                if self.group.is_some() {
                    "true"
                } else {
                    "false"
                },
            ),
            (
                "auto.offset.reset",
                if self.group.is_some() { reset } else { "error" },
            ),
        ];
        let connection = self.client.connect_as(group, &settings)?;
        let partitions = connection.partitions(&self.topic)?;
        let consumer = &connection.consumer;
        if self.group.is_some() {
            consumer
                .subscribe(&[&self.topic])
                .map_err(|e| explain(&e))?;
        } else {
            let assignment = self.assignment(partitions)?;
            consumer.assign(&assignment).map_err(|e| explain(&e))?;
        }
        let mut sink = Sink::new(self);
        let received = self.receive(consumer, &mut sink, &stop);
        let flushed = sink.out.flush().map_err(anyhow::Error::from);
        if self.group.is_some() {
            // Only what has been written was stored, so a failure above loses nothing.
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(e) => return received.and(flushed).and(Err(explain(&e))),
            }
            leave(consumer);
        }
        received.and(flushed)
    }

    fn assignment(&self, partitions: i32) -> anyhow::Result<TopicPartitionList> {
        let begin = match self.offset {
            Some(Start(offset)) => offset,
            None if self.from_beginning => Offset::Beginning,
            None => Offset::End,
        };
        let wanted: BTreeSet<i32> = if self.partition.is_empty() {
            (0..partitions).collect()
        } else {
            self.partition.iter().copied().collect()
        };
        let mut list = TopicPartitionList::new();
        for partition in wanted {
            if partition >= partitions {
                bail!("topic {} has no partition {partition}", self.topic);
            }
            list.add_partition_offset(&self.topic, partition, begin)
                .map_err(|e| explain(&e))?;
        }
        Ok(list)
    }

    fn receive(
        &self,
        consumer: &BaseConsumer<Context>,
        sink: &mut Sink<'_>,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut ended = BTreeSet::new();
        let mut received = 0;
        while self.max_messages != Some(received) && !stop.load(Ordering::Relaxed) {
            // While records stream in they are written in blocks; before waiting, all are.
            let event = match consumer.poll(Duration::ZERO) {
                Some(event) => event,
                None => {
                    sink.out.flush()?;
                    match consumer.poll(Duration::from_millis(100)) {
                        Some(event) => event,
                        None => continue,
                    }
                }
            };
            match event {
                Ok(message) => {
                    sink.take(&message)?;
                    ended.remove(&message.partition());
                    received += 1;
                    if self.group.is_some() {
                        consumer
                            .store_offset_from_message(&message)
                            .map_err(|e| explain(&e))?;
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    ended.insert(partition);
                    if self.until_end && all_ended(consumer, &ended)? {
                        return Ok(());
                    }
                }
                Err(e) if passes(&e) => {}
                Err(e) => return Err(explain(&e).context(self.topic.clone())),
            }
        }
        Ok(())
    }
}

/// Leaves the group, so that its other members need not wait until this one is missed. Closing
/// alone ends before the library has asked for the partitions back, while records wait to be read.
fn leave(consumer: &BaseConsumer<Context>) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    consumer.unsubscribe();
    while consumer.context().holds_partitions() && start.elapsed() < PATIENCE {
        // What still arrives is not ours any more.
        let _ = consumer.poll(Duration::from_millis(10));
    }
}

/// Whether every partition that is assigned now has ended.
fn all_ended(consumer: &BaseConsumer<Context>, ended: &BTreeSet<i32>) -> anyhow::Result<bool> {
    let assigned = consumer.assignment().map_err(|e| explain(&e))?;
    Ok(assigned
        .elements()
        .iter()
        .all(|element| ended.contains(&element.partition())))
}

/// Whether the library gets over it by itself.
fn passes(e: &KafkaError) -> bool {
    matches!(
        e,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}

/// A flag that SIGINT and SIGTERM raise, so that a group is left in order.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let token = {
        let _entered = runtime.enter();
        crate::host::shutdown_on_signal()?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                token.cancelled().await;
                raised.store(true, Ordering::Relaxed);
                // A second signal ends the process from within.
                std::future::pending::<()>().await;
            });
        })?;
    Ok(stop)
}

/// Where records go.
struct Sink<'a> {
    args: &'a Consume,
    out: BufWriter<io::StdoutLock<'static>>,
}

impl<'a> Sink<'a> {
    fn new(args: &'a Consume) -> Self {
        Self {
            args,
            out: BufWriter::new(io::stdout().lock()),
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        if let Some(dir) = &self.args.files_to {
            let Some(value) = message.payload() else {
                return Ok(());
            };
            let written = files::write(dir, message.key(), value);
            let (partition, offset) = (message.partition(), message.offset());
            return written
                .map(|_| ())
                .with_context(|| format!("partition {partition}, offset {offset}"));
        }
        if self.args.json {
            serde_json::to_writer(&mut self.out, &to_json(message)).map_err(io::Error::from)?;
        } else {
            self.args
                .format
                .write(&mut self.out, &Fields::of(message))?;
        }
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

fn to_json(message: &BorrowedMessage<'_>) -> serde_json::Value {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    let headers: Vec<_> = headers
        .map(|h| json!({ "key": h.key, "value": h.value.map(output::bytes_json) }))
        .collect();
    json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": message.key().map(output::bytes_json),
        "value": message.payload().map(output::bytes_json),
        "headers": headers,
    })
}

/// What a format can speak of.
struct Fields<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Fields<'a> {
    fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: headers.map(|h| (h.key, h.value)).collect(),
        }
    }
}

/// How to print a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Key,
    Value,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Headers,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match (
                c,
                if matches!(c, '%' | '\\') {
                    chars.next()
                } else {
                    None
                },
            ) {
                ('%', Some('k')) => Piece::Key,
                ('%', Some('v')) => Piece::Value,
                ('%', Some('t')) => Piece::Topic,
                ('%', Some('p')) => Piece::Partition,
                ('%', Some('o')) => Piece::Offset,
                ('%', Some('T')) => Piece::Timestamp,
                ('%', Some('h')) => Piece::Headers,
                (c, escaped) => {
                    plain.push(match (c, escaped) {
                        ('%', Some('%')) => '%',
                        ('\\', Some('n')) => '\n',
                        ('\\', Some('t')) => '\t',
                        ('\\', Some('r')) => '\r',
                        ('\\', Some('0')) => '\0',
                        ('\\', Some('\\')) => '\\',
                        ('%' | '\\', Some(other)) => {
                            return Err(format!("there is no {c}{other}"));
                        }
                        ('%' | '\\', None) => return Err(format!("a lone {c} at the end")),
                        (c, _) => c,
                    });
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl Format {
    /// Bytes are written as they are; a key or value that is null is written as nothing.
    fn write(&self, out: &mut impl Write, fields: &Fields<'_>) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text.as_bytes())?,
                Piece::Key => out.write_all(fields.key.unwrap_or_default())?,
                Piece::Value => out.write_all(fields.value.unwrap_or_default())?,
                Piece::Topic => out.write_all(fields.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", fields.partition)?,
                Piece::Offset => write!(out, "{}", fields.offset)?,
                Piece::Timestamp => write!(out, "{}", fields.timestamp.unwrap_or(-1))?,
                Piece::Headers => {
                    for (i, (name, value)) in fields.headers.iter().enumerate() {
                        let comma = if i > 0 { "," } else { "" };
                        write!(out, "{comma}{name}=")?;
                        out.write_all(value.unwrap_or_default())?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_fill_in_the_record() {
        let fields = Fields {
            topic: "t",
            partition: 3,
            offset: 42,
            timestamp: Some(1000),
            key: Some(b"key"),
            value: Some(&[0xff, b'v']),
            headers: vec![("a", Some(b"1")), ("b", None)],
        };
        let check = |format: &str, expected: &[u8]| {
            let mut out = Vec::new();
            format
                .parse::<Format>()
                .unwrap()
                .write(&mut out, &fields)
                .unwrap();
            assert_eq!(out, expected, "{format}");
        };
        check("%v", &[0xff, b'v']);
        check(
            "%t-%p@%o (%T) %k\\t%h%%\\\\",
            b"t-3@42 (1000) key\ta=1,b=%\\",
        );
        check("", b"");
        for bad in ["%x", "%", "a\\", "\\q"] {
            assert!(bad.parse::<Format>().is_err(), "{bad}");
        }
    }

    #[test]
    fn places_to_begin_are_read() {
        assert_eq!("12".parse(), Ok(Start(Offset::Offset(12))));
        assert_eq!("-5".parse(), Ok(Start(Offset::OffsetTail(5))));
        assert_eq!("earliest".parse(), Ok(Start(Offset::Beginning)));
        assert_eq!("latest".parse(), Ok(Start(Offset::End)));
        for bad in ["", "first", "1.5", "-9223372036854775808"] {
            assert!(bad.parse::<Start>().is_err(), "{bad}");
        }
    }
}
