//! A disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::stage::Stage;

/// A tmpfs, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "frazil-fleet"])
            .arg(at)
            .status()
            .context("mount")?;
        if !status.success() {
            bail!("skipped: a tmpfs cannot be mounted here (it takes root)");
        }
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Puts a gateway on a small disk, fills it for a while, and empties it.
pub(crate) fn full(stage: &mut Stage<'_>) -> Result<()> {
    let victim = stage.victim();
    let node = stage.fleet.node(victim)?;
    let status = node.terminate()?;
    anyhow::ensure!(status.success(), "the gateway ended with {status}");
    let data = node.data().to_owned();
    node.wipe()?;
    let mount = Mount::new(&data, "40m")?;
    stage.start(victim)?;
    // Until the others have given their partitions back.
    stage.seconds(15);
    stage.inject();
    let filler = data.join("filler");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&filler)?;
    let block = vec![0; 64 << 10];
    // Until the disk is full.
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);
    stage.lasting(15);
    let gone = stage.fleet.node(victim)?.ended()?;
    std::fs::File::options()
        .write(true)
        .open(&filler)?
        .set_len(0)?;
    stage.heal();
    if let Some(status) = gone {
        stage
            .notes
            .push(format!("it ended ({status}) and was restarted"));
        stage.start(victim)?;
    }
    stage.seconds(15);
    stage.fleet.node(victim)?.terminate()?;
    drop(mount);
    stage.start(victim)
}
