//! `rackstrap check`: its arguments. The program brings the command itself.

/// Checks a site file and lists all its problems. It changes nothing and needs no daemon.
/// Exits with 0 if the file is valid (perhaps with warnings), with 1 if it is not, or if this machine keeps nodes
/// from booting.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rackstrap check                             checks /etc/rackstrap/rackstrap.toml
  rackstrap --config rackstrap.toml check
  rackstrap check --json                      for programs
  rackstrap check --file-only                 on a machine that is not the server, such as in CI")]
pub struct CheckArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Check only the site file with its templates and boot scripts, not this machine (for CI)
    #[arg(long)]
    pub file_only: bool,
}
