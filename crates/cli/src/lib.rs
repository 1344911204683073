//! The command line: one file for each command. All commands except `serve`, `check`, `loaders`, `restore` and `completion` ask
//! the running daemon. `serve` and `check` need the daemon's own parts, so the program brings these two as [`Program`].

mod ask;
mod backup;
#[cfg(test)]
mod book;
mod check;
mod complete;
pub mod completion;
mod connection;
mod counters;
mod discover;
mod explain;
mod export;
mod help;
mod hostlist;
mod image;
mod layout;
mod lease;
mod loaders;
#[cfg(test)]
mod named;
mod node;
mod output;
mod overlay;
mod owners;
mod power;
mod reload;
mod restore;
mod rollout;
mod screen;
mod serve;
mod status;
mod store;
mod timeline;
mod users;
mod watching;

pub use check::CheckArgs;
pub use output::count;
pub use serve::ServeArgs;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rackstrap_exchange::export::Format;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The site file, unless `--config` or `RACKSTRAP_CONFIG` names another one.
pub const DEFAULT_CONFIG: &str = rackstrap_site::DEFAULT_PATH;

const JOURNEY: &str = "\
From nothing to a running node:
  1. write the site file                    /etc/rackstrap/rackstrap.toml
  2. check it                               rackstrap check
  3. make a root image                      rackstrap image import debian --from /srv/debian-root
  4. start the daemon                       systemctl start rackstrap   (or: rackstrap serve)
  5. fill a rack, from the bottom up        rackstrap discover start r01
     or say which machine is which          rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01
  6. switch it on, and watch it boot        rackstrap status --watch

When something is wrong:
  what will this machine get, and why?      rackstrap explain r01n01   (or a MAC, or an address)
  what happened to it?                      rackstrap timeline r01n01

`rackstrap COMMAND --help` explains a command, with examples.";

/// Boots clusters of diskless machines: addresses by MAC, boot loaders, and a root over NFS, from one daemon.
#[derive(Debug, Parser)]
#[command(name = "rackstrap", version, after_help = JOURNEY, arg_required_else_help = true)]
pub struct Cli {
    /// Site file [default: $RACKSTRAP_CONFIG, or /etc/rackstrap/rackstrap.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

// In the order in which a newcomer needs them; the help lists them like this.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check the site file; needs no daemon
    Check(CheckArgs),
    /// Run the daemon
    Serve(ServeArgs),
    /// Add, list, show, change, restart and delete nodes
    Node(node::NodeArgs),
    /// Rack new machines: list unknown machines, fill a rack in order, place one by hand
    Discover(discover::DiscoverArgs),
    /// Show the state of every node, one row each
    Status(status::StatusArgs),
    /// Show what a node, a MAC address or an IP address gets, and why
    Explain(explain::ExplainArgs),
    /// Show what happened to a node, step by step
    Timeline(timeline::TimelineArgs),
    /// Show whether nodes are on, and switch them on and off by their BMCs
    Power(power::PowerArgs),
    /// Print the inventory for other programs: hosts, ethers, dnsmasq, slurm, genders, hostlist
    Export(export::ExportArgs),
    /// Print the inventory as /etc/hosts: short for `export hosts`
    #[command(hide = true)]
    Hosts(export::ShortArgs),
    /// Print the inventory as /etc/ethers: short for `export ethers`
    #[command(hide = true)]
    Ethers(export::ShortArgs),
    /// Print the inventory as dnsmasq's dhcp-host lines: short for `export dnsmasq`
    #[command(hide = true)]
    Dnsmasq(export::ShortArgs),
    /// Import, copy, change, seal, compare and delete root images; choose the version that nodes boot
    Image(image::ImageArgs),
    /// Give a new version of an image to canaries first, then to all nodes in batches
    Rollout(rollout::RolloutArgs),
    /// List and release the addresses that unknown machines have from the pools
    Lease(lease::LeaseArgs),
    /// List boot loaders: files, packages, the firmware they are for, and what is missing
    Loaders(loaders::LoadersArgs),
    /// Show the disk layouts of the site file
    Layout(layout::LayoutArgs),
    /// Show the trees of templates, and render the files that a node gets
    Overlay(overlay::OverlayArgs),
    /// List the server's users that nodes get, and send changes to running nodes
    Users(users::UsersArgs),
    /// Send changed users to running nodes now: short for `users sync`
    #[command(hide = true, name = "sync-users")]
    SyncUsers(users::SyncArgs),
    /// Make the running daemon read the site file again
    Reload(reload::ReloadArgs),
    /// Show what the daemon has counted since it started
    Counters(counters::CountersArgs),
    /// Back up the store to a file, also while the daemon runs
    Backup(backup::BackupArgs),
    /// Restore the store from a backup
    Restore(restore::RestoreArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// The two commands that need parts of the daemon. This package has no engine below it, so that the daemon's parts and the commands
/// compile apart.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// `rackstrap check`, with the path of the site file.
    pub check: fn(&Path, CheckArgs) -> Result<ExitCode>,
    /// `rackstrap serve`, with the path of the site file. Returns when a signal has stopped the daemon.
    pub serve: fn(&Path, ServeArgs) -> Result<ExitCode>,
}

/// Runs the command line; `main` prints the error.
///
/// # Errors
/// The command failed. Usage errors are printed here, and end with exit code 2.
pub fn run(arguments: impl IntoIterator<Item = OsString>, program: Program) -> Result<ExitCode> {
    let mut grammar = help::fitting(Cli::command());
    let parsed = grammar
        .try_get_matches_from_mut(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar)));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors: 0. Usage errors: 2.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return Ok(ExitCode::from(code));
        }
    };
    let config = cli.config.unwrap_or_else(default_config);
    let result = dispatch(&config, cli.command, program);
    match result {
        // In `rackstrap status | head`, the reader has closed the pipe.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// The error with its causes. If a message ends with its cause, the cause is not repeated.
pub fn error_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

fn dispatch(config: &Path, command: Command, program: Program) -> Result<ExitCode> {
    match command {
        Command::Check(args) => (program.check)(config, args),
        Command::Serve(args) => (program.serve)(config, args),
        Command::Node(args) => node::run(config, args),
        Command::Discover(args) => discover::run(config, args),
        Command::Status(args) => status::run(config, args),
        Command::Explain(args) => explain::run(config, args),
        Command::Timeline(args) => timeline::run(config, args),
        Command::Power(args) => power::run(config, args),
        Command::Export(args) => export::run(config, args),
        Command::Hosts(args) => export::run_short(config, Format::Hosts, args),
        Command::Ethers(args) => export::run_short(config, Format::Ethers, args),
        Command::Dnsmasq(args) => export::run_short(config, Format::Dnsmasq, args),
        Command::Image(args) => image::run(config, args),
        Command::Rollout(args) => rollout::run(config, args),
        Command::Lease(args) => lease::run(config, args),
        Command::Loaders(args) => loaders::run(config, args),
        Command::Layout(args) => layout::run(config, args),
        Command::Overlay(args) => overlay::run(config, args),
        Command::Users(args) => users::run(config, args),
        Command::SyncUsers(args) => users::sync(config, &args),
        Command::Reload(args) => reload::run(config, args),
        Command::Counters(args) => counters::run(config, args),
        Command::Backup(args) => backup::run(config, args),
        Command::Restore(args) => restore::run(config, args),
        Command::Completion(args) => completion::run(config, args),
    }
}

fn default_config() -> PathBuf {
    match std::env::var_os("RACKSTRAP_CONFIG") {
        Some(path) if !path.is_empty() => path.into(),
        _ => DEFAULT_CONFIG.into(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_printed_once() {
        let cause = || std::io::Error::other("the disk is on fire");
        let plain = anyhow::Error::new(cause()).context("reading x").context("importing y");
        assert_eq!(error_line(&plain), "importing y: reading x: the disk is on fire");
        let told = anyhow::Error::new(cause()).context("reading x: the disk is on fire; call help");
        assert_eq!(error_line(&told), "reading x: the disk is on fire; call help");
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_help_and_an_example() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
                // A second text would hide the first one, and would not be wrapped to the terminal.
                let others = [
                    sub.get_before_help(),
                    sub.get_before_long_help(),
                    sub.get_after_long_help(),
                ];
                assert_eq!(others, [None; 3], "{} has more than one text", sub.get_name());
                for argument in sub.get_arguments().filter(|a| !a.is_hide_set()) {
                    assert!(
                        argument.get_help().is_some(),
                        "{} {} has no help",
                        sub.get_name(),
                        argument.get_id()
                    );
                }
                let group = sub.get_subcommands().any(|s| s.get_name() != "help");
                assert!(
                    group || sub.get_after_help().is_some(),
                    "{} has no example",
                    sub.get_name()
                );
                walk(sub);
            }
        }
        walk(&Cli::command());
    }
}
