//! `frazil produce`.

use std::io::{self, BufRead, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{ClientArgs, Context, explain};
use super::files::{self, Input};
use crate::env;

/// The largest record, and so the largest file, that is sent. Brokers usually accept less.
const RECORD_BYTES_MAX: u64 = 100_000_000;

/// Transfers shorter than this need no progress bar.
const PROGRESS_AFTER: Duration = Duration::from_millis(700);

/// `frazil produce`.
#[derive(Debug, Args)]
pub struct Produce {
    /// The topic to send to
    topic: String,
    /// What separates the key from the value in a line; without it, lines are values
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "files"])]
    key_separator: Option<String>,
    /// The partition to send to; without it, the key decides
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = super::pair)]
    header: Vec<(String, String)>,
    /// How batches are compressed
    #[arg(short = 'z', long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Who must have a record before it counts as sent
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Files to send instead of standard input, each as one record whose key is its path as given,
    /// without a leading '/', '.' and '..'
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "files")]
    file: Vec<PathBuf>,
    /// A directory whose files to send, each as one record whose key is its path below the
    /// directory
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// Nobody
    #[value(name = "0")]
    None,
    /// The broker that is asked
    #[value(name = "1")]
    One,
    /// As many as the topic's durability demands
    All,
}

impl Produce {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let inputs = self.inputs()?;
        let compression = self.compression.to_possible_value();
        let acks = self.acks.to_possible_value();
        let name = |value: &Option<clap::builder::PossibleValue>| {
            value
                .as_ref()
                .map_or("", |value| value.get_name())
                .to_owned()
        };
        let record_bytes_max = RECORD_BYTES_MAX.to_string();
        let mut settings = vec![
            ("compression.type", name(&compression)),
            ("acks", name(&acks)),
            // The broker judges the size of records, not this side of the wire.
            ("message.max.bytes", record_bytes_max),
            ("linger.ms", "5".to_owned()),
        ];
        if self.acks == Acks::All {
            settings.push(("enable.idempotence", "true".to_owned()));
        }
        let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();

        self.client.connect()?;
        let (producer, context) = self.client.create::<BaseProducer<Context>>(&settings)?;
        let mut sender = Sender::new(self, producer, context, inputs.as_deref());
        let sent = match &inputs {
            Some(inputs) => sender.send_files(inputs),
            None => sender.send_lines(io::stdin().lock()),
        };
        // What was handed over before an error still arrives, and is counted.
        let finished = sender.finish();
        sent.and(finished)
    }

    fn inputs(&self) -> anyhow::Result<Option<Vec<Input>>> {
        if let Some(dir) = &self.files {
            return files::below(dir).map(Some);
        }
        if self.file.is_empty() {
            return Ok(None);
        }
        let inputs = self.file.iter().map(|path| files::single(path));
        inputs.collect::<anyhow::Result<_>>().map(Some)
    }

    fn headers(&self) -> Option<OwnedHeaders> {
        let mut pairs = self.header.iter().peekable();
        pairs.peek()?;
        Some(pairs.fold(OwnedHeaders::new(), |headers, (key, value)| {
            let value = Some(value.as_bytes());
            headers.insert(Header { key, value })
        }))
    }
}

/// Hands records to the library and waits until it has delivered them.
struct Sender<'a> {
    args: &'a Produce,
    producer: BaseProducer<Context>,
    context: Context,
    progress: ProgressBar,
    started: Instant,
}

impl<'a> Sender<'a> {
    fn new(
        args: &'a Produce,
        producer: BaseProducer<Context>,
        context: Context,
        inputs: Option<&[Input]>,
    ) -> Self {
        let progress = match inputs {
            Some(inputs) => {
                let style = "{bar:30} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
                let bar = ProgressBar::new(inputs.iter().map(|input| input.bytes).sum());
                ProgressStyle::with_template(style).map_or(bar.clone(), |s| bar.with_style(s))
            }
            None => ProgressBar::new_spinner(),
        };
        // Nothing is drawn yet, and never if nobody looks: a person who types the lines does not
        // need a spinner between them.
        progress.set_draw_target(ProgressDrawTarget::hidden());
        Self {
            args,
            producer,
            context,
            progress,
            started: Instant::now(),
        }
    }

    fn send_lines(&mut self, mut lines: impl BufRead) -> anyhow::Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let (key, value) = match &self.args.key_separator {
                None => (None, line.as_slice()),
                Some(separator) => {
                    let at = find(&line, separator.as_bytes());
                    let at =
                        at.with_context(|| format!("line {number}: no {separator:?} in it"))?;
                    (Some(&line[..at]), &line[at + separator.len()..])
                }
            };
            self.send(key, value)?;
        }
        Ok(())
    }

    fn send_files(&mut self, inputs: &[Input]) -> anyhow::Result<()> {
        for input in inputs {
            let value = env::read_file(&input.path, RECORD_BYTES_MAX);
            let value = value.with_context(|| input.path.display().to_string())?;
            self.send(Some(input.key.as_bytes()), &value)?;
        }
        Ok(())
    }

    fn send(&mut self, key: Option<&[u8]>, value: &[u8]) -> anyhow::Result<()> {
        loop {
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.args.topic).payload(value);
            record.key = key;
            record.partition = self.args.partition;
            record.headers = self.args.headers();
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(100));
                }
                Err((e, _)) => return Err(explain(&e)),
            }
            self.show();
        }
        self.producer.poll(Duration::ZERO);
        self.show();
        // There is no point in reading on when records are being refused.
        match self.context.deliveries().reason {
            Some(_) => Err(anyhow!("stopped")),
            None => Ok(()),
        }
    }

    fn show(&mut self) {
        if self.progress.is_hidden()
            && self.started.elapsed() > PROGRESS_AFTER
            && io::stderr().is_terminal()
            && (self.progress.length().is_some() || !io::stdin().is_terminal())
        {
            self.progress.set_draw_target(ProgressDrawTarget::stderr());
        }
        let deliveries = self.context.deliveries();
        if self.progress.length().is_some() {
            self.progress.set_position(deliveries.bytes);
        } else {
            self.progress
                .set_message(format!("{} records", deliveries.delivered));
        }
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        // The library gives up on each record by itself (message.timeout.ms), so this ends.
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(100));
            self.show();
        }
        self.progress.finish_and_clear();
        let deliveries = self.context.deliveries();
        match deliveries.reason {
            None => Ok(()),
            Some(reason) => {
                let connection = self.context.last_failure();
                let connection = connection.map(|failure| format!(" ({failure})"));
                bail!(
                    "{} records sent, {} not: {reason}{}",
                    deliveries.delivered,
                    deliveries.failed,
                    connection.unwrap_or_default()
                )
            }
        }
    }
}

/// Where `needle` first stands in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn separators_are_found_where_they_first_stand() {
        assert_eq!(find(b"a::b::c", b"::"), Some(1));
        assert_eq!(find(b"::c", b"::"), Some(0));
        assert_eq!(find(b"a:b", b"::"), None);
        assert_eq!(find(b"", b":"), None);
        assert_eq!(find(b"a", b""), None);
    }
}
