//! The table of a document: rows of this run replace older ones, the others stay.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Outcome;
use super::fleet::{gateway_cap_mib, voter_cap_mib};
use super::measure::Figures;
use super::scenarios::{Aim, ELSEWHERE, SCENARIOS, Scenario};

const BEGIN: &str = "<!-- table of frazil-bench reliability: begin -->";
const END: &str = "<!-- table of frazil-bench reliability: end -->";
const HEADER: &str = "\
| name | fault | how | broken promises | errors told to producers, consumers | longest gap | 90 % back after | \
p99 before, during | RSS of a gateway, a voter | aims |
|---|---|---|---|---|---|---|---|---|---|
";
/// By how much memory may exceed what is configured.
const MEMORY_SLACK: f64 = 1.1;

/// Texts with how often each occurs.
pub(crate) fn counted(texts: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text.as_str()).or_default() += 1;
    }
    counts
}

fn seconds(milliseconds: f64) -> String {
    format!("{:.1} s", milliseconds / 1000.0)
}

fn is_met(aim: Aim, figures: &Figures, errors: usize) -> bool {
    match aim {
        Aim::Gap(limit) => figures.gap <= limit * 1000.0,
        Aim::Back(limit) => figures.back <= limit * 1000.0,
        Aim::Ratio(limit) => figures.p99_during <= figures.p99_before * limit,
        Aim::NoErrors => errors == 0,
    }
}

fn name(aim: Aim) -> String {
    match aim {
        Aim::Gap(limit) => format!("gap ≤ {limit} s"),
        Aim::Back(limit) => format!("back ≤ {limit} s"),
        Aim::Ratio(limit) => format!("p99 ≤ {limit}×"),
        Aim::NoErrors => "no errors".to_owned(),
    }
}

/// One row.
pub(crate) fn row(scenario: &Scenario, outcome: &Outcome) -> String {
    let figures = &outcome.figures;
    let errors = (outcome.delivery_errors.len(), outcome.consumer_errors.len());
    let mut missed: Vec<String> = scenario
        .aims
        .iter()
        .filter(|aim| !is_met(**aim, figures, errors.0 + errors.1))
        .map(|aim| name(*aim))
        .collect();
    if outcome.gateway_mib > gateway_cap_mib() as f64 * MEMORY_SLACK
        || outcome.voter_mib > voter_cap_mib() as f64 * MEMORY_SLACK
    {
        missed.push("memory".to_owned());
    }
    let aims = match missed.is_empty() {
        true => "met".to_owned(),
        false => format!("**missed**: {}", missed.join(", ")),
    };
    let mut how = scenario.how.to_owned();
    for note in &outcome.notes {
        how.push_str("; ");
        how.push_str(note);
    }
    format!(
        "| `{}` | {} | {how} | {} | {}, {} of {} | {} | {} | {:.0} ms, {:.0} ms ({:.1}×) | {:.0} MiB, {:.0} MiB | {aims} |",
        scenario.name,
        scenario.fault,
        outcome.violations.len(),
        errors.0,
        errors.1,
        outcome.records,
        seconds(figures.gap),
        seconds(figures.back),
        figures.p99_before,
        figures.p99_during,
        figures.p99_during / figures.p99_before,
        outcome.gateway_mib,
        outcome.voter_mib,
    )
}

/// The row of a scenario that could not be played to its end.
pub(crate) fn failed(scenario: &Scenario, reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default().replace('|', "/");
    let (name, fault, how) = (scenario.name, scenario.fault, scenario.how);
    format!("| `{name}` | {fault} | {how} | {line} | | | | | | |")
}

/// Puts a row into the table of a document.
pub(crate) fn update(document: &Path, name: &str, row: &str) -> Result<()> {
    let text = std::fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let updated = updated(&text, name, row)
        .with_context(|| format!("{} has no place for the table", document.display()))?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).truncate(true).open(document)?;
    std::io::Write::write_all(&mut { file }, updated.as_bytes())?;
    Ok(())
}

fn updated(text: &str, name: &str, row: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    for line in old.lines() {
        if let Some((known, _)) = line.strip_prefix("| `").and_then(|l| l.split_once('`')) {
            rows.insert(known, line);
        }
    }
    rows.insert(name, row);
    let mut table = format!("{BEGIN}\n\n{HEADER}");
    for scenario in SCENARIOS {
        if let Some(row) = rows.get(scenario.name) {
            table.push_str(row);
            table.push('\n');
        }
    }
    table.push('\n');
    for (name, why) in ELSEWHERE {
        table.push_str(&format!("Not here: `{name}`. {why}\n"));
    }
    Some(format!("{before}{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_and_the_others_stay_in_their_order() {
        let document = format!("Above.\n\n{BEGIN}\n{END}\n\nBelow.\n");
        let document = updated(&document, "drain", "| `drain` | old |").unwrap();
        let document = updated(&document, "calm", "| `calm` | 1 |").unwrap();
        let document = updated(&document, "drain", "| `drain` | new |").unwrap();
        let rows: Vec<&str> = document.lines().filter(|l| l.starts_with("| `")).collect();
        assert_eq!(rows, ["| `calm` | 1 |", "| `drain` | new |"]);
        assert!(document.starts_with("Above.\n") && document.ends_with("\nBelow.\n"));
        assert_eq!(updated("nothing", "calm", "| `calm` |"), None);
    }

    #[test]
    fn names_are_different() {
        let names: std::collections::BTreeSet<_> = SCENARIOS.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
    }
}
