//! What each thing costs when there is more and more of it, as curves: partitions, connections, groups,
//! gateways, segments, commands at a time, bytes to recover.
//!
//! Where it can be, a curve shows bytes or processor time, which other work on the machine hardly
//! disturbs. Each picture is a file of its own (`docs/growth/*.svg`); the points are in the document
//! beside the folder (`docs/growth.md`), between two markers.

mod curve;
mod fleet;
mod one;
mod recovery;
mod state;
mod svg;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::broker::sibling;
use crate::report;
use curve::Curve;

const PLACE: [&str; 2] = [
    "<!-- curves of frazil-bench growth: begin -->",
    "<!-- curves of frazil-bench growth: end -->",
];

#[derive(Args)]
pub(crate) struct Options {
    /// The `frazil` binary; by default the one beside this program
    #[arg(long)]
    frazil: Option<PathBuf>,
    /// Where temporary data goes; by default the system's place for it
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A folder for the pictures. The document of its name (`docs/growth.md` for `docs/growth`) gets
    /// the tables
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these, separated by commas: state, partitions, connections, groups, recovery, gateways,
    /// commands. A document is only written when all are measured
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the sizes, for looking
    #[arg(long)]
    quick: bool,
}

/// What the measurements need to know.
pub(crate) struct Site {
    binary: PathBuf,
    dir: PathBuf,
    quick: bool,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    /// The sizes up to which it is measured: all, or those up to a tenth of the largest.
    fn sizes(&self, all: &[u32]) -> Vec<u32> {
        let most = all.iter().max().copied().unwrap_or(0);
        let most = if self.quick { most / 10 } else { most };
        all.iter().copied().filter(|size| *size <= most).collect()
    }
}

type Measure = fn(&Site) -> Result<Vec<Curve>>;

const ALL: [(&str, Measure); 7] = [
    ("state", state::measure),
    ("partitions", one::partitions),
    ("connections", one::connections),
    ("groups", one::groups),
    ("recovery", recovery::measure),
    ("gateways", fleet::gateways),
    ("commands", fleet::commands),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    for name in &options.only {
        ensure!(
            ALL.iter().any(|(known, _)| known == name),
            "there is no curve {name}"
        );
    }
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let site = Site {
        binary: options.frazil.clone().map_or_else(sibling, Ok)?,
        dir: dir.path().to_owned(),
        quick: options.quick,
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?,
    };
    let start = Instant::now();
    let load_before = report::load_average();
    let mut curves = Vec::new();
    for (name, measure) in ALL {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            curves.extend(measure(&site).with_context(|| name.to_owned())?);
        }
    }
    let Some(out) = &options.out else {
        return Ok(());
    };
    std::fs::create_dir_all(out)?;
    for curve in &curves {
        report::write(&out.join(format!("{}.svg", curve.id)), &svg::draw(curve))?;
    }
    if options.only.is_empty() {
        let folder = out.file_name().context("a folder with a name")?;
        let folder = folder.to_string_lossy();
        let mut text = format!(
            "Taken in {:.0} minutes{}; load average before {load_before}, after {}.\n",
            start.elapsed().as_secs_f64() / 60.0,
            if site.quick { " (`--quick`)" } else { "" },
            report::load_average()
        );
        for curve in &curves {
            text = text + "\n" + &curve.markdown(&folder);
        }
        report::update(&out.with_extension("md"), PLACE, &text)?;
    }
    Ok(())
}
