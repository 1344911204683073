//! `rackstrap`: parses, runs, prints the chain of errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    if rackstrap::completion::answer() {
        return ExitCode::SUCCESS;
    }
    rackstrap::run(std::env::args_os()).unwrap_or_else(|error| {
        eprintln!("rackstrap: {}", rackstrap::error_line(&error));
        ExitCode::FAILURE
    })
}
