//! What the gateway counts. Names begin with `frazil_gateway_` once registered.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::Code;
use crate::versions;

/// The gateway's metrics. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) malformed: Counter,
    pub(crate) produced_bytes: Counter,
    pub(crate) fetched_bytes: Counter,
    pub(crate) topics_auto_created: Counter,
    errors: Family<ErrorLabels, Counter>,
    apis: BTreeMap<i16, ApiMetrics>,
}

#[derive(Clone, Debug)]
struct ApiMetrics {
    requests: Counter,
    seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    api: String,
    code: i16,
}

/// Seconds. A long poll takes as long as the client asked, 0.5 s by default.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

impl Metrics {
    /// Creates the metrics and registers them below the prefix `frazil_gateway`.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::<ApiLabels, Counter>::default();
        let seconds =
            Family::<ApiLabels, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let metrics = Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            malformed: Counter::default(),
            produced_bytes: Counter::default(),
            fetched_bytes: Counter::default(),
            topics_auto_created: Counter::default(),
            errors: Family::default(),
            apis: versions::SUPPORTED
                .iter()
                .map(|api| {
                    let labels = ApiLabels {
                        api: format!("{:?}", api.key),
                    };
                    let metrics = ApiMetrics {
                        requests: requests.get_or_create_owned(&labels),
                        seconds: seconds.get_or_create_owned(&labels),
                    };
                    (api.key as i16, metrics)
                })
                .collect(),
        };
        let registry = registry.sub_registry_with_prefix("frazil_gateway");
        let m = &metrics;
        for (name, help, counter) in [
            (
                "connections_accepted",
                "Connections accepted",
                &m.connections_accepted,
            ),
            (
                "connections_refused",
                "Connections closed at once because there were too many",
                &m.connections_refused,
            ),
            ("received_bytes", "Bytes of requests", &m.received_bytes),
            ("sent_bytes", "Bytes of responses", &m.sent_bytes),
            (
                "malformed_requests",
                "Connections closed because of bytes that are no request",
                &m.malformed,
            ),
            (
                "produced_bytes",
                "Bytes of record batches accepted",
                &m.produced_bytes,
            ),
            (
                "fetched_bytes",
                "Bytes of record batches sent",
                &m.fetched_bytes,
            ),
            (
                "topics_auto_created",
                "Topics created because a client asked for their metadata",
                &m.topics_auto_created,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("connections", "Open connections", m.connections.clone());
        registry.register("requests", "Requests answered, by API", requests);
        registry.register(
            "request_seconds",
            "Time from a request's last byte to its answer, by API",
            seconds,
        );
        registry.register(
            "errors",
            "Partitions, topics or requests answered with an error, by API and code",
            m.errors.clone(),
        );
        metrics
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, key: ApiKey, took: Duration) {
        if let Some(api) = self.apis.get(&(key as i16)) {
            api.requests.inc();
            api.seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts an error answered for one partition, topic or request.
    pub(crate) fn error(&self, key: ApiKey, code: Code) {
        self.errors
            .get_or_create(&ErrorLabels {
                api: format!("{key:?}"),
                code: code.code(),
            })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_scraped() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.answered(ApiKey::Metadata, Duration::from_millis(3));
        metrics.error(ApiKey::Produce, Code::CorruptMessage);
        metrics.received_bytes.inc_by(7);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "frazil_gateway_requests_total{api=\"Metadata\"} 1",
            "frazil_gateway_request_seconds_bucket{le=\"0.005\",api=\"Metadata\"} 1",
            "frazil_gateway_errors_total{api=\"Produce\",code=\"2\"} 1",
            "frazil_gateway_received_bytes_total 7",
            "frazil_gateway_connections 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
