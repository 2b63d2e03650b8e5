//! The table as Markdown and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::rows::sections;
#[cfg(test)]
use super::samples::Sources;
use super::samples::{Figures, Metric, Row, Samples, Spread};
use super::systems::{Bench, Side};
use crate::report;

/// Where the table stands in its document.
pub(crate) const PLACE: [&str; 2] = [
    "<!-- table of frazil-bench compare: begin -->",
    "<!-- table of frazil-bench compare: end -->",
];

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
        if let Some(binary) = &bench.nisshi {
            let nisshi = first_line(binary, "--version").unwrap_or_else(unknown);
            let _ = write!(versions, "; {nisshi}");
        }
        Self {
            machine,
            versions,
            load_average: report::load_average(),
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
        value if value >= 0.01 || value == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
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

/// The rows of one pass that were measured.
#[derive(Serialize)]
struct Part {
    pass: &'static str,
    title: &'static str,
    rows: Vec<Figures>,
    notes: Vec<String>,
}

/// Rows that differ in what stands beside are one, if none of it was measured; those of which nothing
/// was measured beside give way to others.
fn figures(rows: &[Row], samples: &Samples) -> Vec<Figures> {
    let measured: Vec<(Metric, Figures)> = rows
        .iter()
        .filter_map(|row| Some((row.of, row.figures(samples)?)))
        .collect();
    let compared = measured.iter().filter(|(_, row)| row.beside.is_some());
    let mut shown: BTreeSet<Metric> = compared.map(|(of, _)| *of).collect();
    let rows = measured.into_iter();
    rows.filter_map(|(of, row)| (row.beside.is_some() || shown.insert(of)).then_some(row))
        .collect()
}

/// Where the bytes of rows about consuming came from.
fn sources(rows: &[Row], samples: &Samples) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let rows = rows.iter().filter(|row| seen.insert(row.of));
    rows.filter_map(|row| {
        let sources = samples.sources(row.of)?;
        Some(format!(
            "{}, {}: {:.0} % from memory, {:.0} % from segments in the store, {:.0} % from tables",
            row.title,
            row.of.1.name(),
            sources.memory() * 100.0,
            sources.segments * 100.0,
            sources.tables * 100.0,
        ))
    })
    .collect()
}

fn parts(samples: &Samples) -> Vec<Part> {
    let part = |section: super::rows::Section| Part {
        pass: section.pass,
        title: section.title,
        rows: figures(&section.rows, samples),
        notes: sources(&section.rows, samples),
    };
    let parts = sections().into_iter().map(part);
    parts.filter(|part| !part.rows.is_empty()).collect()
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
    for side in Side::BROKERS {
        if samples.has(side) {
            let _ = writeln!(text, "- {}: {}.", side.name(), side.durability());
        }
    }
    for part in parts(samples) {
        let _ = write!(
            text,
            "\n### {} (`--only {}`)\n\n\
             | | unit | of | | beside | | ratio | aim |\n|---|---|---|---|---|---|---|---|\n",
            part.title, part.pass
        );
        for row in part.rows {
            text.push_str(&line(&row));
        }
        if !part.notes.is_empty() {
            text.push_str("\nWhere what was consumed came from:\n\n");
        }
        for note in part.notes {
            let _ = writeln!(text, "- {note}.");
        }
    }
    text
}

fn line(row: &Figures) -> String {
    let aim = match (&row.aim, row.met) {
        (Some(aim), Some(true)) => format!("{aim}: met"),
        (Some(aim), _) => format!("{aim}: **missed**"),
        (None, _) => String::new(),
    };
    let beside = match &row.beside {
        Some(beside) => format!(
            "{} | {} | **{}** ({}–{})",
            beside.side,
            spread(beside.value),
            number(beside.ratio.median),
            number(beside.ratio.least),
            number(beside.ratio.most),
        ),
        None => " | |".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {beside} | {aim} |\n",
        row.title,
        row.unit,
        row.side,
        spread(row.value),
    )
}

/// Rows and samples.
pub(crate) fn json(about: &About, samples: &Samples) -> Result<String> {
    #[derive(Serialize)]
    struct All<'a> {
        about: &'a About,
        parts: Vec<Part>,
        samples: Vec<super::samples::Raw<'a>>,
    }
    Ok(serde_json::to_string_pretty(&All {
        about,
        parts: parts(samples),
        samples: samples.raw(),
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_the_heading_of_their_pass() {
        let about = About {
            machine: "a machine".to_owned(),
            versions: "two programs".to_owned(),
            load_average: "0".to_owned(),
            rounds: 1,
            quick: false,
            minutes: 1.0,
        };
        let mut samples = Samples::default();
        samples.add("first", Side::Local, 50.0);
        samples.add("first", Side::Kafka, 2000.0);
        samples.add("puts", Side::Object, 150.0);
        samples.add("catch-up", Side::Local, 900.0);
        let sources = Sources {
            segments: 0.25,
            tables: 0.0,
        };
        samples.add_sources("catch-up", Side::Local, sources);
        let text = table(&about, &samples);
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str| lines.iter().position(|l| *l == line).unwrap();
        let start = at("### Start (`--only first`)");
        assert_eq!(
            lines[start + 4],
            "| exec to first acknowledgement | ms | Frazil `local` | 50.0 (50.0–50.0) | Kafka | \
             2000 (2000–2000) | **0.03** (0.03–0.03) | ≤ 0.1: met |"
        );
        let cloud = at("### A store with S3's latency (`--only cloud`)");
        assert_eq!(
            lines[cloud + 4],
            "| PUTs per GiB at 50 MiB/s, after its first three seconds |  | Frazil `object` | 150 (150–150) \
             |  | | | \
             ≤ 140: **missed** |"
        );
        assert!(lines.contains(
            &"- consume from offset 0, Frazil `local`: 75 % from memory, 25 % from segments in the store, \
              0 % from tables."
        ));
        assert!(!text.contains("--only tail"));
        assert!(text.contains("- Kafka: acknowledged from the page cache"));
        assert!(!text.contains("- Kafka `flush.messages=1`"));
        // As many cells in a row as in the head.
        for line in lines.iter().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 9, "{line}");
        }
    }

    #[test]
    fn a_side_alone_is_shown_once() {
        let mut samples = Samples::default();
        samples.add("produce", Side::Local, 400.0);
        let parts = parts(&samples);
        assert_eq!(parts[0].pass, "throughput");
        assert_eq!(parts[0].rows.len(), 1);
        assert_eq!(parts[0].rows[0].aim, None);
        // Kafka that syncs is the second that it is compared with.
        samples.add("produce", Side::KafkaSynced, 40.0);
        let rows = &super::parts(&samples)[0].rows;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].beside.as_ref().unwrap().ratio.median, 10.0);
    }

    #[test]
    fn small_ratios_are_not_nothing() {
        let numbers = [1234.5, 12.34, 1.234, 0.0, 0.00096].map(number);
        assert_eq!(numbers, ["1234", "12.3", "1.23", "0.00", "0.0010"]);
    }
}
