//! `rackstrap`: parses, runs, prints the chain of errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    rackstrap::cli::run(std::env::args_os()).unwrap_or_else(|error| {
        eprintln!("rackstrap: {}", rackstrap::cli::error_line(&error));
        ExitCode::FAILURE
    })
}
