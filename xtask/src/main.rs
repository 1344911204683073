//! `cargo xtask`: the project's own commands, which install all that they need.

mod attach;
mod bench;
mod demo;
mod directions;
mod dist;
mod docs;
mod efi;
mod suite;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Commands for developers besides cargo's own. Demo and tests install the Debian packages that they need, make their own network
/// namespaces, and remove them again. They run as root.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot virtual nodes with blank disks, show how they boot, and log in on the console of the first one
    Demo(demo::Demo),
    /// Run all tests, including those with virtual machines
    Test(suite::Test),
    /// Build the programs for machines of one architecture, below target/dist
    Dist(dist::Dist),
    /// Compare an engine with others of its kind, on loopback
    Bench(bench::Bench),
    /// Check the rules of docs/contributing/architecture.md that a program can check
    Tidy,
    /// Compile the EFI programs of bootscripts/efi, which disks of nodes carry
    Efi,
    /// Build the book and the code's documentation with warnings as errors, and check the licences of all crates
    Docs,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(demo) => demo.run().map(|()| ExitCode::SUCCESS),
        Command::Test(test) => test.run(),
        Command::Dist(dist) => dist.run().map(|()| ExitCode::SUCCESS),
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Tidy => tidy::run().map(|()| ExitCode::SUCCESS),
        Command::Efi => efi::run().map(|()| ExitCode::SUCCESS),
        Command::Docs => docs::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
