//! The commands that need parts of the daemon. All others are in the package `rackstrap-cli`, which depends on no engine.

mod check;
mod names;
mod networks;
mod serve;

use anyhow::Result;
use rackstrap_cli::Program;
use std::{ffi::OsString, process::ExitCode};

/// Runs the command line; `main` prints the error.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let program = Program {
        check: check::run,
        serve: serve::run,
    };
    rackstrap_cli::run(arguments, program)
}
