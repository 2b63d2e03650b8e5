//! A broker process of a test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tempfile::TempDir;

/// How long a test waits for what should take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running broker; dropping it kills the process and removes its data.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    settings: Vec<String>,
    pub(crate) kafka: SocketAddr,
    http: SocketAddr,
}

/// An address that was free a moment ago, and that no other test of this process has been given. It
/// is below the ports that systems give to outgoing connections and to listeners on port 0: a broker
/// that is killed finds its own free when it comes back.
pub(crate) fn free_address() -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static TURN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different ports.
    let first = std::process::id().wrapping_mul(7919);
    let mut turns = std::iter::repeat_with(|| TURN.fetch_add(1, Ordering::Relaxed));
    let mut ports = turns.by_ref().take(PORTS.len()).map(|turn| {
        let port = PORTS.start + first.wrapping_add(turn) % (PORTS.end - PORTS.start);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16))
    });
    ports
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// The command that serves on `data`.
pub(crate) fn serve(
    data: &Path,
    kafka: SocketAddr,
    http: SocketAddr,
    settings: &[String],
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frazil"));
    command
        .arg("serve")
        .args(["--set", &format!("data.dir={}", data.display())])
        .args(["--set", &format!("listeners={kafka}")])
        .args(["--set", &format!("http.listen={http}")])
        .args(["--set", "group.initial.rebalance.delay.ms=0"])
        .current_dir(data.parent().unwrap())
        .stdin(Stdio::null());
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

impl Server {
    /// Starts a broker with defaults.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a broker with further settings, each `key=value`.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self::begin(settings);
        server.wait_until_ready();
        server
    }

    /// Starts a node that may need others to be ready.
    pub(crate) fn begin(settings: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (kafka, http) = (free_address(), free_address());
        let child = Self::spawn(&dir, kafka, http, &settings);
        Self {
            child,
            dir,
            settings,
            kafka,
            http,
        }
    }

    fn spawn(dir: &TempDir, kafka: SocketAddr, http: SocketAddr, settings: &[String]) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.path().join("log"))
            .unwrap();
        serve(&dir.path().join("data"), kafka, http, settings)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Waits until it answers that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while self.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended with {status}:\n{}", self.log());
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the broker is not ready:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What the broker has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// An HTTP request: status and body.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        self.http("GET", path)
    }

    /// The same that changes something.
    pub(crate) fn post(&self, path: &str) -> Option<(u16, String)> {
        self.http("POST", path)
    }

    fn http(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// A counter of the broker.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, metrics) = self.get("/metrics").unwrap();
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops or continues the process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let mut kill = Command::new("kill");
        let status = kill.args([&format!("-{name}"), &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Starts the process again, on the same data and addresses.
    pub(crate) fn revive(&mut self) {
        self.child = Self::spawn(&self.dir, self.kafka, self.http, &self.settings);
        self.wait_until_ready();
    }

    /// Starts the process again with further settings, and does not wait until it is ready.
    pub(crate) fn begin_again(&mut self, further: &[&str]) {
        let further = further.iter().map(|&setting| setting.to_owned());
        let settings: Vec<String> = self.settings.iter().cloned().chain(further).collect();
        self.child = Self::spawn(&self.dir, self.kafka, self.http, &settings);
    }

    /// SIGTERM, then waits; answers the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until the process has ended by itself; answers the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the broker does not end:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// librdkafka's settings for this broker.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.to_string());
        config.set("broker.address.family", "v4");
        config
    }

    /// An admin client.
    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Creates a topic.
    pub(crate) async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) {
        let topic = settings.iter().fold(
            NewTopic::new(name, partitions, TopicReplication::Fixed(1)),
            |topic, (key, value)| topic.set(key, value),
        );
        let results = self
            .admin()
            .create_topics([&topic], &AdminOptions::new())
            .await
            .unwrap();
        results.into_iter().for_each(|result| {
            result.unwrap();
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("broker: {line}");
            }
        }
    }
}
