//! How many instructions each case takes, beside the figures accepted last (`bench/micro/counts.json`).
//!
//! Each case is run by itself under `valgrind --tool=callgrind`: once to fill caches and let the
//! linker resolve what it calls, then once counted.
//!
//! # What makes two counts differ that should not
//!
//! | | what is done about it |
//! |---|---|
//! | the load of the machine, its clock, its caches | nothing: instructions do not know them |
//! | threads | no case has any |
//! | seeds of `HashMap` | they are drawn per process; [`TOLERANCE`] is far above what they change |
//! | the allocator | glibc's, and its path is the same for the same calls |
//! | what the processor can (CRC-32C, `memcpy`, zstd choose by it) | valgrind shows one of its own, which depends only on whether the real one has AVX2: [`Accepted::machine`] |
//! | the compiler | `rust-toolchain.toml` names it; a new one means new figures |
//! | glibc and valgrind | a little; [`TOLERANCE`] |
//!
//! A count is not a time. Of long copies (`rep movsb`) valgrind counts every byte as an instruction, of
//! a byte that is not in the cache nothing. What a change is worth, a clock must tell.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How far a count may be from the accepted one, in percent. Runs of one binary on one machine did not
/// differ at all; this is for another glibc, and for what a change elsewhere in a crate does to
/// inlining. A loop that does something once more for each record shows as ten and more.
pub const TOLERANCE: f64 = 3.0;

/// The figures accepted last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// What kind of machine they are of, as [`machine`] tells it.
    pub machine: String,
    /// Instructions by case.
    pub counts: BTreeMap<String, u64>,
}

impl Accepted {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.json")
    }

    /// Reads them.
    ///
    /// # Errors
    /// If the file is missing or is something else.
    #[expect(clippy::disallowed_methods, reason = "a tool for this repository")]
    pub fn read() -> Result<Self> {
        let path = Self::path();
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Makes these the accepted ones.
    ///
    /// # Errors
    /// If the file cannot be written.
    #[expect(clippy::disallowed_methods, reason = "a tool for this repository")]
    pub fn write(&self) -> Result<()> {
        let path = Self::path();
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// What of this machine counts depend on.
pub fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        return "x86_64 with AVX2".to_owned();
    }
    std::env::consts::ARCH.to_owned()
}

/// Counts one case, which `program run NAME` runs.
///
/// # Errors
/// If there is no valgrind, or the case fails.
pub fn count(program: &Path, name: &str) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg("--collect-atstart=no")
        .arg("--toggle-collect=*run_that_is_counted*")
        .arg(program)
        .args(["run", name])
        .output()
        .context("starting valgrind, which counts the instructions; it must be installed")?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    #[expect(clippy::disallowed_methods, reason = "a tool for this repository")]
    let written = std::fs::read(&out).context("what callgrind wrote")?;
    total(&String::from_utf8_lossy(&written)).with_context(|| format!("{name}: no count"))
}

/// The sum in a file of callgrind's, if something was counted.
fn total(file: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok().filter(|count| *count > 0)
}

/// The outcome of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub struct Compared {
    /// A line for each case.
    pub table: String,
    /// Cases that take more than was accepted.
    pub worse: usize,
    /// Cases that take less.
    pub better: usize,
    /// Cases of which nothing was accepted.
    pub unknown: usize,
}

/// Compares counts with the accepted ones.
pub fn compare(accepted: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Compared {
    let width = counts.keys().map(String::len).max().unwrap_or(0);
    let mut compared = Compared {
        table: format!(
            "{:width$} {:>14} {:>14} {:>8}\n",
            "case", "accepted", "now", ""
        ),
        worse: 0,
        better: 0,
        unknown: 0,
    };
    for (name, &now) in counts {
        let (before, change, verdict) = match accepted.get(name) {
            None => {
                compared.unknown += 1;
                ("-".to_owned(), String::new(), "  new")
            }
            Some(&before) => {
                let percent = (now as f64 - before as f64) * 100.0 / before as f64;
                let verdict = if percent > TOLERANCE {
                    compared.worse += 1;
                    "  MORE"
                } else if percent < -TOLERANCE {
                    compared.better += 1;
                    "  less"
                } else {
                    ""
                };
                (before.to_string(), format!("{percent:+.1} %"), verdict)
            }
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            compared.table,
            "{name:width$} {before:>14} {now:>14} {change:>8}{verdict}"
        );
    }
    compared
}

impl Compared {
    /// What is to be done about it.
    ///
    /// # Errors
    /// If anything takes more than was accepted, or nothing was accepted of a case.
    pub fn judge(&self) -> Result<()> {
        const ACCEPT: &str = "cargo run --release -p frazil-micro -- count --accept";
        if self.better > 0 {
            println!(
                "{} cases take less. To hold them to it, commit what this writes: {ACCEPT}",
                self.better
            );
        }
        ensure!(
            self.worse == 0,
            "{} cases take more instructions than was accepted (beyond {TOLERANCE} %). Where that \
             is worth what it buys, commit what this writes, and say in the commit what it buys: \
             {ACCEPT}",
            self.worse
        );
        ensure!(
            self.unknown == 0,
            "{} cases are new. Commit what this writes: {ACCEPT}",
            self.unknown
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
        all.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn only_what_is_beyond_the_tolerance_counts() {
        let accepted = counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1000)]);
        let now = counts(&[("a", 1030), ("b", 1031), ("c", 970), ("d", 969)]);
        let compared = compare(&accepted, &now);
        assert_eq!(
            (compared.worse, compared.better, compared.unknown),
            (1, 1, 0)
        );
        assert!(compared.judge().is_err());
        let lines: Vec<&str> = compared.table.lines().collect();
        assert!(lines[2].starts_with('b') && lines[2].ends_with("+3.1 %  MORE"));
        assert!(lines[4].starts_with('d') && lines[4].ends_with("-3.1 %  less"));
    }

    #[test]
    fn less_is_fine_and_a_new_case_is_to_be_accepted() {
        let accepted = counts(&[("a", 1000)]);
        compare(&accepted, &counts(&[("a", 500)]))
            .judge()
            .expect("fine");
        let compared = compare(&accepted, &counts(&[("a", 1000), ("b", 1)]));
        assert_eq!(compared.unknown, 1);
        assert!(compared.judge().is_err());
    }

    #[test]
    fn nothing_counted_is_no_count() {
        assert_eq!(total("events: Ir\nfn=1\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
