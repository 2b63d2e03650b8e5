//! Checks a history again: `cargo run -p frazil-history < a-history.jsonl`. Exits with 1 if a
//! promise was broken.

use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

use frazil_history::{History, NotAHistory, check};

fn main() -> Result<ExitCode, NotAHistory> {
    let history = History::read(stdin().lock())?;
    let found = check(&history);
    let mut out = stdout().lock();
    for violation in &found {
        writeln!(out, "{}", violation.explain(&history))?;
    }
    let (events, broken) = (history.events.len(), found.len());
    writeln!(out, "{events} events, {broken} violations")?;
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
