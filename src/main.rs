//! `rackstrap`: parses, runs, prints the chain of errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    if rackstrap::cli::completion::answer() {
        return ExitCode::SUCCESS;
    }
    rackstrap::cli::run(std::env::args_os()).unwrap_or_else(|error| {
        eprintln!("rackstrap: {}", rackstrap::cli::error_line(&error));
        ExitCode::FAILURE
    })
}
