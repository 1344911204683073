//! `rackstrap serve`: its arguments. The program brings the daemon.

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rackstrap --config rackstrap.toml serve
  RACKSTRAP_LOG=debug rackstrap serve        logs every packet and why it got its answer

The daemon stays in the foreground and logs to standard error; systemd/rackstrap.service runs it as a service. SIGHUP
(`systemctl reload rackstrap` or `rackstrap reload`) makes it read the site file again. A faulty file changes nothing.")]
pub struct ServeArgs {}
