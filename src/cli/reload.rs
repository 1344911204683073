//! `rackstrap reload`

use super::{connection::connect, output};
use crate::control::api;
use anyhow::Result;
use clap::Args;
use std::{path::Path, process::ExitCode};

/// Arguments of `rackstrap reload`.
#[derive(Debug, Args)]
#[command(after_help = "\
A site file that is wrong is refused, and the daemon goes on with the old one. The same as 'systemctl reload rackstrap',
with the answer on your screen.

Example:
  rackstrap check && rackstrap reload")]
pub struct ReloadArgs {}

/// Runs it.
pub fn run(config: &Path, _args: ReloadArgs) -> Result<ExitCode> {
    let done: api::Done = connect(config)?.post(api::paths::RELOAD, &())?;
    output::print(&done.message)?;
    Ok(ExitCode::SUCCESS)
}
