//! The program's own log: to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::LogFormat;

/// Reads a filter such as `info` or `info,frazil_cache=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',').map(str::trim) {
        // The library takes a lone word that is no level for a module's name, which turns
        // "inof" into "nothing but the module inof".
        let lone = !directive.contains(['=', '[', ':']);
        if directive.is_empty()
            || lone && directive.parse::<tracing::metadata::LevelFilter>().is_err()
        {
            return Err(format!("{directive:?} is not a level"));
        }
    }
    // openraft tells each step of each election, some of it as warnings; what matters of it is in
    // our own words too. Who wants it names it.
    let quiet = match text.contains("openraft") {
        true => text.to_owned(),
        false => format!("{text},openraft=error"),
    };
    EnvFilter::try_new(quiet).map_err(|e| e.to_string())
}

/// Starts logging. Once per process.
///
/// # Errors
/// Somebody else has started it before.
pub fn start(format: LogFormat, filter: EnvFilter) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn levels_and_modules_are_understood_and_typing_errors_refused() {
        for good in [
            "info",
            "WARN",
            "info,frazil_cache=debug",
            "off",
            "a::b=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,frazil_cache", "info,a=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
