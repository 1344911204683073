//! `rackstrap completion`

use super::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::{io::Write, path::Path, process::ExitCode};

/// Arguments of `rackstrap completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rackstrap completion bash > /etc/bash_completion.d/rackstrap
  rackstrap completion zsh > /usr/local/share/zsh/site-functions/_rackstrap
  rackstrap completion fish > /etc/fish/completions/rackstrap.fish")]
pub struct CompletionArgs {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Runs it.
pub fn run(_config: &Path, args: CompletionArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rackstrap", &mut script);
    let written = std::io::stdout().lock().write_all(&script);
    written.context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}
