//! What all client commands share: how to reach a broker, and how to say that it went wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

/// How to reach a broker.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// Any broker of the cluster, or several, separated by commas
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub bootstrap_server: String,
    /// A setting of the client library (librdkafka); may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = super::pair)]
    pub library: Vec<(String, String)>,
    /// How long to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub timeout: u32,
}

impl ClientArgs {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// The settings of a client: `own` first, so that the user's win.
    pub(super) fn settings(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_server);
        config.set("client.id", "frazil-cli");
        for (key, value) in own {
            config.set(*key, *value);
        }
        for (key, value) in &self.library {
            config.set(key, value);
        }
        config.set_log_level(RDKafkaLogLevel::Error);
        config
    }

    pub(super) fn create<T: FromClientConfigAndContext<Context>>(
        &self,
        own: &[(&str, &str)],
    ) -> anyhow::Result<(T, Context)> {
        let context = Context::default();
        let client = self.settings(own).create_with_context(context.clone());
        Ok((client.map_err(|e| explain(&e))?, context))
    }

    /// A consumer that belongs to no group and has seen the cluster.
    pub(super) fn connect(&self) -> anyhow::Result<Connection> {
        self.connect_as("frazil-cli", &[])
    }

    /// The same with more settings, under a group's name, which it does not join.
    pub(super) fn connect_as(
        &self,
        group: &str,
        own: &[(&str, &str)],
    ) -> anyhow::Result<Connection> {
        // A question about a topic must never create it, and a command should not wait for
        // longer than it takes the broker to come back.
        let mut settings = vec![
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("allow.auto.create.topics", "false"),
            ("reconnect.backoff.max.ms", "500"),
        ];
        settings.extend_from_slice(own);
        let (consumer, _) = self.create::<BaseConsumer<Context>>(&settings)?;
        let metadata = self.reach(&consumer)?;
        Ok(Connection {
            consumer,
            metadata,
            timeout: self.timeout(),
        })
    }

    fn reach(&self, consumer: &BaseConsumer<Context>) -> anyhow::Result<Metadata> {
        let deadline = Instant::now() + self.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let e = match consumer.fetch_metadata(None, left.min(Duration::from_secs(1))) {
                Ok(metadata) => return Ok(metadata),
                Err(e) => e,
            };
            // Nobody listens, or the name does not exist: waiting would not change that soon.
            let reason = self.why_unreachable();
            let hopeless = reason.as_deref().is_some_and(|reason| {
                ["refused", "resolve"]
                    .iter()
                    .any(|word| reason.contains(word))
            });
            if hopeless || Instant::now() >= deadline {
                let reason = reason.unwrap_or_else(|| explain(&e).to_string());
                return Err(anyhow!("cannot reach {}: {reason}", self.bootstrap_server));
            }
        }
    }

    /// What stands in the way of connecting. Of a consumer the binding tells no more than a code,
    /// so a producer has to try too.
    fn why_unreachable(&self) -> Option<String> {
        let (producer, context) = self.create::<BaseProducer<Context>>(&[]).ok()?;
        // Asking is what makes it connect; that it fails is the point.
        let _ = producer
            .client()
            .fetch_metadata(None, Duration::from_millis(500));
        producer.poll(Duration::from_millis(100));
        context.last_failure()
    }

    /// An administrative client, and its options.
    pub(super) fn admin(&self) -> anyhow::Result<(AdminClient<Context>, AdminOptions)> {
        let (client, _) = self.create::<AdminClient<Context>>(&[])?;
        let timeout = Some(self.timeout());
        let options = AdminOptions::new()
            .request_timeout(timeout)
            .operation_timeout(timeout);
        Ok((client, options))
    }
}

/// A cluster that has been reached.
pub(super) struct Connection {
    pub(super) consumer: BaseConsumer<Context>,
    /// All brokers and topics at the time of connecting.
    pub(super) metadata: Metadata,
    pub(super) timeout: Duration,
}

impl Connection {
    /// The number of partitions of a topic.
    pub(super) fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        let found = self.metadata.topics().iter().find(|t| t.name() == topic);
        let found = found.with_context(|| format!("there is no topic {topic}"))?;
        Ok(i32::try_from(found.partitions().len())?)
    }

    /// The offset of the first record and the one after the last.
    pub(super) fn bounds(&self, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
        self.consumer
            .fetch_watermarks(topic, partition, self.timeout)
            .map_err(|e| explain(&e).context(format!("{topic} [{partition}]")))
    }
}

/// Runs an administrative request to its end.
pub(super) fn wait<T>(request: impl Future<Output = Result<T, KafkaError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(request).map_err(|e| explain(&e))
}

/// Hears what the library has to say: keeps the last failure to connect, and counts deliveries.
#[derive(Clone, Debug, Default)]
pub(super) struct Context(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    failure: Option<String>,
    delivered: u64,
    delivered_bytes: u64,
    undelivered: u64,
    first_refusal: Option<String>,
    holds_partitions: bool,
}

/// What became of the records given to a producer.
#[derive(Clone, Debug)]
pub(super) struct Deliveries {
    pub(super) delivered: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    pub(super) failed: u64,
    /// Why the first of the failed ones was refused.
    pub(super) reason: Option<String>,
}

impl Context {
    pub(super) fn last_failure(&self) -> Option<String> {
        self.heard().failure.clone()
    }

    /// Whether partitions have been assigned by a group and not been taken back.
    pub(super) fn holds_partitions(&self) -> bool {
        self.heard().holds_partitions
    }

    pub(super) fn deliveries(&self) -> Deliveries {
        let heard = self.heard();
        Deliveries {
            delivered: heard.delivered,
            bytes: heard.delivered_bytes,
            failed: heard.undelivered,
            reason: heard.first_refusal.clone(),
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        // Counters and texts are whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    /// The library's own log says nothing that the errors do not.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, e: KafkaError, reason: &str) {
        // That all brokers are down follows each of the reasons why.
        if e.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.heard().failure = Some(last_part(reason));
        }
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.heard().holds_partitions = matches!(rebalance, Rebalance::Assign(_));
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut heard = self.heard();
        match result {
            Ok(message) => {
                heard.delivered += 1;
                heard.delivered_bytes += message.payload_len() as u64;
            }
            Err((e, message)) => {
                heard.undelivered += 1;
                if heard.first_refusal.is_none() {
                    let topic = message.topic();
                    heard.first_refusal = Some(format!("{topic}: {:#}", explain(e)));
                }
            }
        }
    }
}

/// Of `[thrd:…]: host:port/bootstrap: Connect to … failed: Connection refused (after 0ms in state
/// CONNECT)` what a person needs.
fn last_part(message: &str) -> String {
    let message = message
        .rsplit_once("/bootstrap: ")
        .map_or(message, |(_, rest)| rest);
    let message = message.split(" (after ").next().unwrap_or(message);
    message.trim().to_owned()
}

/// An error of the library as a person says it.
pub(super) fn explain(e: &KafkaError) -> anyhow::Error {
    let text = match e {
        KafkaError::ClientConfig(_, reason, key, value) => {
            format!("-X {key}={value}: {}", reason.trim_end_matches('.'))
        }
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => match other.rdkafka_error_code() {
            Some(code) => code_text(code),
            None => other.to_string(),
        },
    };
    anyhow!(text)
}

/// Of `UnknownTopic (Broker: Unknown topic or partition)` the sentence.
pub(super) fn code_text(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    let sentence = text
        .split_once(" (")
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    let sentence = sentence.unwrap_or(&text);
    let sentence = sentence
        .strip_prefix("Broker: ")
        .or_else(|| sentence.strip_prefix("Local: "))
        .unwrap_or(sentence);
    sentence.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_library_are_cut_to_what_a_person_needs() {
        assert_eq!(
            last_part(
                "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to \
                 ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)"
            ),
            "Connect to ipv4#127.0.0.1:1 failed: Connection refused"
        );
        assert_eq!(
            code_text(RDKafkaErrorCode::UnknownTopicOrPartition),
            "unknown topic or partition"
        );
    }

    #[test]
    fn a_broker_that_is_not_there_is_one_clear_error() {
        let args = ClientArgs {
            bootstrap_server: "127.0.0.1:1".to_owned(),
            library: Vec::new(),
            timeout: 5,
        };
        let e = args.connect().err().expect("nobody listens there");
        let text = format!("{e:#}");
        assert!(text.starts_with("cannot reach 127.0.0.1:1: "), "{text}");
        assert!(text.contains("refused"), "{text}");
    }

    #[test]
    fn a_setting_that_the_library_does_not_know_is_named() {
        let args = ClientArgs {
            bootstrap_server: "127.0.0.1:1".to_owned(),
            library: vec![("nonsense".to_owned(), "1".to_owned())],
            timeout: 1,
        };
        let e = args.connect().err().expect("refused").to_string();
        assert!(e.starts_with("-X nonsense=1: "), "{e}");
    }
}
