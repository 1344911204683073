//! `rackstrap serve`: the daemon.

use anyhow::Result;
use rackstrap_cli::ServeArgs;
use std::{path::Path, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Runs the daemon until a signal stops it.
pub fn run(config: &Path, _args: ServeArgs) -> Result<ExitCode> {
    let filter = EnvFilter::try_from_env("RACKSTRAP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours only on a terminal: a journal would keep the escape sequences.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(crate::serve::run(config))?;
    Ok(ExitCode::SUCCESS)
}
