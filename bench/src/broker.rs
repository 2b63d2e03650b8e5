//! A `frazil serve` of our own: started, watched, measured, stopped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// A running broker. Dropping it kills the process.
pub(crate) struct Broker {
    child: Child,
    pub kafka: SocketAddr,
    http: SocketAddr,
    /// From exec to the first positive answer of `/readyz`.
    pub ready_after: Duration,
}

/// The `frazil` binary beside this program.
pub(crate) fn sibling() -> Result<PathBuf> {
    Ok(std::env::current_exe()?
        .parent()
        .context("a folder")?
        .join("frazil"))
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Broker {
    /// Starts `binary` on `data`, and waits until it is ready.
    pub(crate) fn start(binary: &Path, data: &Path) -> Result<Self> {
        Self::with(binary, data, &[])
    }

    /// The same with further settings, each `key=value`.
    pub(crate) fn with(binary: &Path, data: &Path, settings: &[String]) -> Result<Self> {
        let started = Instant::now();
        let mut broker = Self::exec(binary, data, settings)?;
        loop {
            if broker.get("/readyz").is_ok_and(|(status, _)| status == 200) {
                broker.ready_after = started.elapsed();
                return Ok(broker);
            }
            if let Some(status) = broker.child.try_wait()? {
                bail!(
                    "the broker ended with {status}; see {}",
                    data.with_extension("log").display()
                );
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("the broker was not ready within a minute");
            }
            // Polling is what bounds the precision of the figure.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn exec(binary: &Path, data: &Path, settings: &[String]) -> Result<Self> {
        let (kafka, http) = (free_address()?, free_address()?);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .context("the broker's log")?;
        let child = Command::new(binary)
            .arg("serve")
            .args(["--set", &format!("data.dir={}", data.display())])
            .args(["--set", &format!("listeners={kafka}")])
            .args(["--set", &format!("http.listen={http}")])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self {
            child,
            kafka,
            http,
            ready_after: Duration::ZERO,
        })
    }

    /// Status and body of what `path` of its HTTP port is.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
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

    /// All samples of `/metrics`, by name with labels.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let (_, body) = self.get("/metrics")?;
        Ok(body
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// Where the system counts for it.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Resident memory now, in MiB.
    pub(crate) fn rss_mib(&self) -> Result<f64> {
        self.process().rss_mib()
    }

    /// The most resident memory so far, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> Result<f64> {
        self.process().peak_rss_mib()
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.process().cpu()
    }

    /// Whether the process runs, and never was another one.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// kill -9.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the process as an operator would, and waits for it.
    pub(crate) fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the broker ended with {status} after SIGTERM");
        }
        Ok(asked.elapsed())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
