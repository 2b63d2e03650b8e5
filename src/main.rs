//! The `frazil` binary: understands the command line, does what it says, ends with a code.

use std::process::ExitCode;

use clap::Parser as _;
use frazil::cli::{self, Cli};

fn main() -> ExitCode {
    frazil::allocator::keep_few_arenas();
    // Everything that speaks TLS takes the process's default provider, and panics without one.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("error: a TLS provider was installed twice");
        return ExitCode::FAILURE;
    }
    match cli::run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if cli::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // Several problems are several lines of one error.
            eprintln!("error: {}", format!("{e:#}").replace('\n', "\n  "));
            ExitCode::FAILURE
        }
    }
}
