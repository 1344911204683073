//! `rackstrap check`: its arguments. The program brings the command itself.

/// Checks a site file and lists all its problems. It changes nothing and needs no daemon.
/// Exits with 0 if the daemon can use the file and boot nodes with it, with 1 if the file is invalid or no node can
/// boot from this machine. Errors that concern only some profiles or machines are shown and leave the status 0, so that
/// `rackstrap check && rackstrap reload` works while an image is still to be made; with --strict they are a 1.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rackstrap check                             checks /etc/rackstrap/rackstrap.toml
  rackstrap --config rackstrap.toml check
  rackstrap check --json                      for programs
  rackstrap check --strict                    fails also if only one profile cannot boot
  rackstrap check --file-only                 on a machine that is not the server, such as in CI")]
pub struct CheckArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Check only the site file with its templates and boot scripts, not this machine (for CI)
    #[arg(long)]
    pub file_only: bool,
    /// Exit with 1 also if only some profiles or machines cannot boot
    #[arg(long)]
    pub strict: bool,
}
