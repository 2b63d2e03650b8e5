//! What Linux counts for a process.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Bytes that were written so far to the disk that a directory is on, by everybody: what a process is
/// charged with is pages, of which a small write to a file may dirty two megabytes' worth in the
/// books and four kilobytes on the disk.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    let device = std::fs::metadata(dir)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))
        .with_context(|| format!("{} is on no disk", dir.display()))?;
    let sectors = stat.split_whitespace().nth(6).context("no such field")?;
    Ok(sectors.parse::<u64>()? * 512)
}

/// A process that is being measured, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub u32);

impl Process {
    fn proc(self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.0))?)
    }

    fn field(self, file: &str, field: &str) -> Result<u64> {
        let text = self.proc(file)?;
        let line = text
            .lines()
            .find(|line| line.starts_with(field))
            .context("no such field")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .context("no value")?
            .parse()?)
    }

    /// Resident memory now, in MiB.
    pub(crate) fn rss_mib(self) -> Result<f64> {
        Ok(self.field("status", "VmRSS:")? as f64 / 1024.0)
    }

    /// The most resident memory so far, in MiB.
    pub(crate) fn peak_rss_mib(self) -> Result<f64> {
        Ok(self.field("status", "VmHWM:")? as f64 / 1024.0)
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("no name")?
            .1
            .split_whitespace()
            .collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // Linux reports in hundredths of a second, whatever the kernel's own tick is.
        Ok(Duration::from_millis(ticks * 10))
    }
}
