//! The HTTP port: whether the process lives, whether it is ready, and its metrics.
//!
//! `/livez` answers as soon as the port is bound. `/readyz` answers 503 with one line for each
//! part that is not ready, and 200 when all are. `/metrics` is OpenMetrics text. `POST /drain` ends the
//! node as SIGTERM does; one with an `Origin`, which browsers add, is refused. Below `/iceberg` is
//! the table catalog, once the node follows the quorum.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, Catalog};

/// The table catalog: empty until the node can serve it.
pub type CatalogSlot = Arc<OnceLock<Catalog>>;

/// What stands between the node and being ready. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// Not ready until every one of `parts` has said so.
    pub fn waiting_for(parts: &[&'static str]) -> Self {
        let reasons = parts.iter().map(|part| (*part, "starting".to_owned()));
        Self(Arc::new(Mutex::new(reasons.collect())))
    }

    /// A part is ready.
    pub fn ready(&self, part: &'static str) {
        self.reasons().remove(part);
    }

    /// A part is not ready (any more).
    pub fn not_ready(&self, part: &'static str, reason: impl fmt::Display) {
        self.reasons().insert(part, reason.to_string());
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    fn reasons(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        // Every change is one call on the map, so that a panic elsewhere leaves it sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    readiness: Readiness,
    drain: CancellationToken,
}

/// Serves until `shutdown` is cancelled and the requests under way are answered. Cancels `drain` when
/// it is asked to. Without `catalog` there is no `/iceberg`.
///
/// # Errors
/// The listener failed.
///
/// # Cancel safety
/// Dropping it closes the port; requests under way are cut off.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    drain: CancellationToken,
    catalog: Option<CatalogSlot>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/drain", post(begin_drain))
        .with_state(Shared {
            registry,
            readiness,
            drain,
        });
    if let Some(catalog) = catalog {
        let below = Router::new().fallback(ask_catalog).with_state(catalog);
        router = router.nest("/iceberg", below);
    }
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let reasons = shared.readiness.reasons().clone();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let lines = reasons
        .iter()
        .map(|(part, reason)| format!("{part}: {reason}\n"));
    let body: String = lines.collect();
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn ask_catalog(State(catalog): State<CatalogSlot>, request: Request) -> Response {
    match catalog.get() {
        Some(catalog) => catalog.answer(request).await,
        None => catalog::not_yet(),
    }
}

async fn begin_drain(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    // Whatever page a browser on this machine shows could send this request.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not for browsers\n").into_response();
    }
    shared.drain.cancel();
    (StatusCode::ACCEPTED, "draining\n").into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, &shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}

/// Adds what every process can tell of itself: version, start, processor time, memory, open files.
pub fn register_process_metrics(registry: &mut Registry, started_ms: i64) {
    registry.register(
        "frazil_build",
        "The version of this program",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register_collector(Box::new(Process { started_ms }));
}

#[derive(Debug)]
struct Process {
    started_ms: i64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
            gauge.encode(metric)
        };
        let started = self.started_ms as f64 / 1000.0;
        gauge(
            "process_start_time",
            "When the process started, since the Unix epoch",
            Some(&Unit::Seconds),
            started,
        )?;
        if let Some(bytes) = resident_bytes() {
            gauge(
                "process_resident_memory",
                "Memory of the process that is in RAM",
                Some(&Unit::Bytes),
                bytes as f64,
            )?;
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory being read.
            let open = entries.count().saturating_sub(1);
            gauge(
                "process_open_fds",
                "Open files and sockets",
                None,
                open as f64,
            )?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let metric = encoder.encode_descriptor(
                "process_cpu",
                "Processor time of the process, user and system",
                Some(&Unit::Seconds),
                counter.metric_type(),
            )?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// From `/proc/self/status`; `None` where there is none.
fn resident_bytes() -> Option<u64> {
    let status = crate::env::read_text(Path::new("/proc/self/status"), 1 << 16).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// From `/proc/self/stat`; `None` where there is none.
fn cpu_seconds() -> Option<f64> {
    // The unit of these fields, USER_HZ, is 100 on every Linux that Rust runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = crate::env::read_text(Path::new("/proc/self/stat"), 1 << 16).ok()?;
    // The second field, the program's name in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(port: u16, path: &str) -> String {
        ask(port, &format!("GET {path} HTTP/1.1\r\n")).await
    }

    async fn ask(port: u16, head: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("{head}Host: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_parts_and_metrics_tell_of_the_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut registry = Registry::default();
        register_process_metrics(&mut registry, 1_500);
        let readiness = Readiness::waiting_for(&["gateway", "metadata"]);
        let stop = CancellationToken::new();
        let drain = CancellationToken::new();
        let server = tokio::spawn(serve(
            listener,
            Arc::new(registry),
            readiness.clone(),
            drain.clone(),
            Some(CatalogSlot::default()),
            stop.clone(),
        ));

        assert!(fetch(port, "/drain").await.starts_with("HTTP/1.1 405"));
        let from_page = "POST /drain HTTP/1.1\r\nOrigin: http://x\r\n";
        assert!(ask(port, from_page).await.starts_with("HTTP/1.1 403"));
        assert!(!drain.is_cancelled());
        let asked = ask(port, "POST /drain HTTP/1.1\r\n").await;
        assert!(asked.starts_with("HTTP/1.1 202"), "{asked}");
        assert!(drain.is_cancelled());
        assert!(fetch(port, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = fetch(port, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\ngateway: starting\nmetadata: starting\n"),
            "{answer}"
        );
        let catalog = fetch(port, "/iceberg/v1/config").await;
        assert!(catalog.starts_with("HTTP/1.1 503"), "{catalog}");
        assert!(catalog.contains("ServiceUnavailableException"), "{catalog}");
        readiness.ready("gateway");
        readiness.not_ready("metadata", "no leader");
        assert!(
            fetch(port, "/readyz")
                .await
                .ends_with("\r\n\r\nmetadata: no leader\n")
        );
        readiness.ready("metadata");
        assert!(readiness.is_ready());
        assert!(fetch(port, "/readyz").await.starts_with("HTTP/1.1 200"));

        let metrics = fetch(port, "/metrics").await;
        for line in [
            "process_start_time_seconds 1.5\n",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_open_fds ",
            "frazil_build_info{version=\"",
            "# EOF\n",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        assert!(fetch(port, "/other").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
