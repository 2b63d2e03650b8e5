//! An Apache Kafka of our own: fetched by Maven, started on a fresh directory, stopped.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::broker::free_address;
use crate::process::Process;
use crate::report::write;

const POM: &str = include_str!("../../kafka/pom.xml");
const LOGGING: &str = include_str!("../../kafka/log4j2.yaml");
const SETTINGS: &str = include_str!("../../kafka/server.properties");
/// Any will do; the directory is new.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// What kafka-server-start.sh and kafka-run-class.sh give the broker.
const JVM: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// Kafka's programs.
#[derive(Clone, Debug)]
pub(crate) struct Kit {
    dir: PathBuf,
    pub version: String,
}

impl Kit {
    /// Has Maven copy what the committed pom names into a directory.
    pub(crate) fn fetch(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        write(&dir.join("pom.xml"), POM)?;
        write(&dir.join("log4j2.yaml"), LOGGING)?;
        let output = Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies"])
            .args(["-DincludeScope=runtime", "-DoutputDirectory=lib"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .context("cannot start mvn (Debian: apt install maven)")?;
        ensure!(
            output.status.success(),
            "mvn failed: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        let version = POM
            .split_once("<kafka.version>")
            .and_then(|(_, rest)| rest.split_once('<'))
            .context("the pom names no version")?
            .0;
        Ok(Self {
            dir: dir.to_owned(),
            version: version.to_owned(),
        })
    }

    /// `java` with Kafka's classes.
    pub(crate) fn java(&self) -> Command {
        let mut command = Command::new("java");
        command
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.dir.join("log4j2.yaml").display()
            ))
            .arg("-Djava.awt.headless=true")
            .args(["-cp", &format!("{}/lib/*", self.dir.display())])
            .stdin(Stdio::null());
        command
    }
}

/// A running broker. Dropping it kills the process.
pub(crate) struct Kafka {
    child: Child,
    pub address: SocketAddr,
}

/// A directory that a broker can be started on.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    settings: PathBuf,
    log: PathBuf,
    address: SocketAddr,
}

impl Prepared {
    /// Formats a directory, with further settings.
    pub(crate) fn new(kit: &Kit, data: &Path, settings: &[&str]) -> Result<Self> {
        let (address, controller) = (free_address()?, free_address()?);
        let file = data.with_extension("properties");
        let text = format!(
            "{SETTINGS}log.dirs={}\nlisteners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
             advertised.listeners=PLAINTEXT://{address}\n\
             controller.quorum.voters=1@{controller}\n{}\n",
            data.display(),
            settings.join("\n")
        );
        write(&file, &text)?;
        let output = kit
            .java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
            .arg(&file)
            .output()
            .context("cannot start java (Debian: apt install openjdk-17-jre-headless)")?;
        ensure!(
            output.status.success(),
            "kafka.tools.StorageTool failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            settings: file,
            log: data.with_extension("log"),
            address,
        })
    }

    /// One that was formatted before.
    pub(crate) fn of(data: &Path, address: SocketAddr) -> Self {
        Self {
            settings: data.with_extension("properties"),
            log: data.with_extension("log"),
            address,
        }
    }

    /// Starts the broker; it listens when this returns.
    pub(crate) fn start(&self, kit: &Kit) -> Result<Kafka> {
        let mut kafka = self.exec(kit)?;
        let started = Instant::now();
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            if let Some(status) = kafka.child.try_wait()? {
                bail!("Kafka ended with {status}; see {}", self.log.display());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(120),
                "Kafka did not listen within two minutes"
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(kafka)
    }

    /// Starts the broker and does not wait.
    pub(crate) fn exec(&self, kit: &Kit) -> Result<Kafka> {
        let mut options = std::fs::OpenOptions::new();
        let log = options.create(true).append(true).open(&self.log)?;
        let mut command = kit.java();
        let child = command
            .args(JVM)
            .arg("kafka.Kafka")
            .arg(&self.settings)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start java")?;
        Ok(Kafka {
            child,
            address: self.address,
        })
    }
}

impl Kafka {
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
