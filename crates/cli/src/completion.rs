//! `rackstrap completion`

use super::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::env::CompleteEnv;
use std::{io::Write, path::Path, process::ExitCode};

/// Arguments of `rackstrap completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rackstrap completion bash > /etc/bash_completion.d/rackstrap
  rackstrap completion zsh > /usr/local/share/zsh/site-functions/_rackstrap
  rackstrap completion fish > /etc/fish/completions/rackstrap.fish")]
pub struct CompletionArgs {
    /// Shell to complete for, such as bash
    shell: clap_complete::Shell,
}

/// The variable by which a shell asks `rackstrap` for completions.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks for completions; false if none asks. The script that `completion` prints asks like this, so that
/// names that only the daemon knows can be completed.
pub fn answer() -> bool {
    let words = std::env::args_os();
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("rackstrap");
    asked.try_complete(words, here.as_deref()).unwrap_or(true)
}

/// Runs the command.
pub fn run(_config: &Path, args: CompletionArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    let shells = clap_complete::env::Shells::builtins();
    let name = args.shell.to_string();
    let shell = shells
        .completer(&name)
        .with_context(|| format!("completion of '{name}' failed"))?;
    shell
        .write_registration(VARIABLE, "rackstrap", "rackstrap", "rackstrap", &mut script)
        .context("writing the script")?;
    let written = std::io::stdout().lock().write_all(&script);
    written.context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}
