//! The table as Markdown and as JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::rows::ROWS;
use super::samples::{Figures, Samples, Spread};
use super::systems::{Bench, Side};

const BEGIN: &str = "<!-- table of frazil-bench compare: begin -->";
const END: &str = "<!-- table of frazil-bench compare: end -->";

/// Under which circumstances a run took place.
#[derive(Serialize)]
pub(crate) struct About {
    machine: String,
    versions: String,
    load_average: String,
    rounds: usize,
    quick: bool,
    minutes: f64,
}

fn first_line(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Some(text.lines().next()?.to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl About {
    pub(crate) fn of(bench: &Bench, rounds: usize, quick: bool, took: Duration) -> Self {
        let unknown = || "unknown".to_owned();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
            .unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let pins = match &bench.pins {
            Some((brokers, clients)) => format!("brokers on {brokers}, clients on {clients}"),
            None => "brokers and clients share them".to_owned(),
        };
        let machine = format!(
            "{cores} × {} ({pins}), {:.0} GiB of memory, Linux {}",
            field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            memory / f64::from(1 << 20),
            kernel.trim(),
        );
        let mut versions = first_line(&bench.frazil, "--version").unwrap_or_else(unknown);
        if let Some(kit) = &bench.kit {
            let java = first_line(Path::new("java"), "-version").unwrap_or_else(unknown);
            let _ = write!(versions, "; Apache Kafka {}, {java}", kit.version);
        }
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            machine,
            versions,
            load_average: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            rounds,
            quick,
            minutes: took.as_secs_f64() / 60.0,
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn spread(spread: Spread) -> String {
    format!(
        "{} ({}–{})",
        number(spread.median),
        number(spread.least),
        number(spread.most)
    )
}

fn figures(samples: &Samples) -> Vec<Figures> {
    ROWS.iter().filter_map(|row| row.figures(samples)).collect()
}

/// The whole as Markdown.
pub(crate) fn table(about: &About, samples: &Samples) -> String {
    let mut text = String::new();
    let quick = if about.quick { ", quick" } else { "" };
    let _ = write!(
        text,
        "{}. {}. {} rounds{quick} in {:.0} minutes, load average at the end {}. Each figure is the \
         median of the rounds, with the least and the most.\n\n",
        about.machine, about.versions, about.rounds, about.minutes, about.load_average
    );
    for side in [Side::Local, Side::Object, Side::Kafka, Side::KafkaSynced] {
        if samples.of("produce", side).is_empty() {
            continue;
        }
        let _ = writeln!(text, "- {}: {}.", side.name(), side.durability());
    }
    text.push_str(
        "\n| | unit | Frazil or a side | | beside | | ratio | aim |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in figures(samples) {
        let aim = match (&row.aim, row.met) {
            (Some(aim), Some(true)) => format!("{aim}: met"),
            (Some(aim), _) => format!("{aim}: **missed**"),
            (None, _) => String::new(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | **{}** ({}–{}) | {aim} |",
            row.title,
            row.unit,
            row.side,
            spread(row.value),
            row.reference,
            spread(row.reference_value),
            number(row.ratio.median),
            number(row.ratio.least),
            number(row.ratio.most),
        );
    }
    text
}

/// Rows and samples.
pub(crate) fn json(about: &About, samples: &Samples) -> Result<String> {
    #[derive(Serialize)]
    struct All<'a> {
        about: &'a About,
        rows: Vec<Figures>,
        samples: Vec<super::samples::Raw<'a>>,
    }
    Ok(serde_json::to_string_pretty(&All {
        about,
        rows: figures(samples),
        samples: samples.raw(),
    })?)
}

/// Replaces the table of a document.
pub(crate) fn update(document: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let updated = updated(&text, table)
        .with_context(|| format!("{} has no place for the table", document.display()))?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).truncate(true).open(document)?;
    std::io::Write::write_all(&mut { file }, updated.as_bytes())?;
    Ok(())
}

fn updated(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_of_a_document_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = updated(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(updated("without", "new"), None);
    }
}
