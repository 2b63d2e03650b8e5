//! One process of a fleet, and its links.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use frazil_proxy::Proxy;

use crate::process::Process;

/// How long a process may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Voter,
    Gateway,
    Compactor,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Voter => "metadata",
            Self::Gateway => "gateway",
            Self::Compactor => "compactor",
        }
    }
}

/// An address that was free a moment ago, and that nobody else in this process was given. It is
/// below the ports that systems give to outgoing connections and to listeners on port 0: a process
/// that is killed finds its own free when it comes back.
pub(crate) fn free_address() -> Result<SocketAddr> {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static TURN: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        // Programs that run at the same time begin at different ports.
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id().wrapping_mul(7919).wrapping_add(turn);
        let port = PORTS.start + place % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free")
}

/// Where the process listens, behind its links.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub kafka: SocketAddr,
    pub http: SocketAddr,
    pub peer: SocketAddr,
}

impl Addresses {
    pub(crate) fn free() -> Result<Self> {
        Ok(Self {
            kafka: free_address()?,
            http: free_address()?,
            peer: free_address()?,
        })
    }
}

/// The links of one process.
pub(crate) struct Links {
    /// From clients to this gateway.
    pub clients: Option<Proxy>,
    /// From this process to each voter but itself.
    pub voters: BTreeMap<u32, Proxy>,
    /// From this process to the store, if that is a server.
    pub store: Option<Proxy>,
}

/// A process.
pub(crate) struct Node {
    pub id: u32,
    pub role: Role,
    pub addresses: Addresses,
    pub links: Links,
    child: Option<Child>,
    binary: PathBuf,
    data: PathBuf,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    /// The most memory any of its lives has used, in KiB.
    peak_kib: u64,
}

impl Node {
    /// A process that has not been started.
    pub(crate) fn new(
        (id, role): (u32, Role),
        binary: &Path,
        dir: &Path,
        (addresses, links): (Addresses, Links),
        settings: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self {
            id,
            role,
            addresses,
            links,
            child: None,
            binary: binary.to_owned(),
            data: dir.join(format!("{}-{id}", role.name())),
            settings,
            environment,
            peak_kib: 0,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.role.name(), self.id)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process; it is not waited for.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--roles", self.role.name()])
            .args(["--set", &format!("node.id={}", self.id)])
            .args(["--set", &format!("data.dir={}", self.data.display())])
            .args(["--set", &format!("listeners={}", self.addresses.kafka)])
            .args(["--set", &format!("http.listen={}", self.addresses.http)])
            .args(["--set", &format!("peer.listen={}", self.addresses.peer)])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it serves.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while !matches!(self.get("/readyz"), Ok((200, _))) {
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended with {status}:\n{}",
                    self.name(),
                    self.end_of_log()
                );
            }
            if start.elapsed() > PATIENCE {
                bail!("{} is not ready:\n{}", self.name(), self.end_of_log());
            }
            park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_until_ready()
    }

    /// How it ended by itself, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.look_at_memory();
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Deletes its data, as a machine does that is not coming back.
    pub(crate) fn wipe(&self) -> Result<()> {
        if self.data.exists() {
            std::fs::remove_dir_all(&self.data)?;
        }
        Ok(())
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let status = Command::new("kill")
            .args([&format!("-{name}"), &child.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("kill -{name}: {status}");
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            self.look_at_memory();
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                bail!("{} does not end:\n{}", self.name(), self.end_of_log());
            }
            park_timeout(Duration::from_millis(10));
        }
    }

    /// Ends it as an operator does.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait()
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream =
            TcpStream::connect_timeout(&self.addresses.http, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: frazil\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// One sample of its metrics, by name with labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = self.get("/metrics")?;
        let found = body.lines().find_map(|line| {
            let (known, value) = line.rsplit_once(' ')?;
            (known == name).then(|| value.parse().ok()).flatten()
        });
        found.with_context(|| format!("{} has no metric {name}", self.name()))
    }

    /// Processor time of its present life.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let child = self.child.as_ref().context("it does not run")?;
        Process(child.id()).cpu()
    }

    /// Notes how much memory it has used at most.
    pub(crate) fn look_at_memory(&mut self) {
        let Some(child) = &self.child else {
            return;
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let peak = status.ok().and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
    }

    /// The most memory any of its lives has used, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak_kib as f64 / 1024.0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
