//! What Linux counts for a process.

use std::time::Duration;

use anyhow::{Context, Result};

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

    /// Bytes that it made the kernel write to a disk, less what it truncated before that.
    pub(crate) fn disk_bytes(self) -> Result<u64> {
        let written = self.field("io", "write_bytes:")?;
        Ok(written.saturating_sub(self.field("io", "cancelled_write_bytes:")?))
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
