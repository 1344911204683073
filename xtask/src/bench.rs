//! `cargo xtask bench`: compares our engines with others, at the same time and on the same files.
//!
//! Absolute figures mean little on a machine that also does other things. Ratios of alternating rounds are meaningful, so the tables show
//! both.

mod load;
mod rpc;
mod servers;
mod store;
mod tree;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use load::{Load, Measured};
use rpc::Ask;
use servers::Server;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use testbed::{
    netns::Namespace,
    packages,
    paths::{self, RunDir},
    process::Running,
};

#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Compare the NFS engine with nfs-ganesha: calls and bytes per second, processor time, and latency.
    Nfs(Nfs),
    /// Compare the store and the inventory of a large cluster (load, decide, commit) with a JSON file and dnsmasq.
    Store(store::Bench),
}

#[derive(Args)]
struct Nfs {
    /// Measure each figure this many times; the servers take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Load each server for this many seconds in a round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Open this many connections to a server; a Linux node has one
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Keep this many calls in flight on each connection
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: u32,
    /// Measure only the figures whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Measure only our own server
    #[arg(long)]
    alone: bool,
    /// Run inside the namespace already, with this binary of ours
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Nfs(nfs) => nfs.run(),
            What::Store(store) => store.run(),
        }
    }
}

impl Nfs {
    fn run(self) -> Result<()> {
        // A figure of one server may take at most ten seconds.
        if !(0.1..=10.0 / f64::from(self.rounds)).contains(&self.seconds) {
            bail!(
                "{} rounds of {} s: a round takes 0.1 s at least, and all rounds 10 s at most",
                self.rounds,
                self.seconds
            );
        }
        match &self.inside {
            Some(ours) => self.measure(ours),
            None => self.enter(),
        }
    }

    /// Runs this program again in a namespace with only loopback and its own `/run`: nfs-ganesha registers with a port mapper, which must not
    /// be the machine's, and must not be visible to it.
    fn enter(&self) -> Result<()> {
        packages::ensure_these(servers::NEEDED, &mut |line| eprintln!("{line}"))?;
        eprintln!("building the engine with the release profile");
        let ours = servers::build_ours()?;
        let namespace = Namespace::empty()?;
        // Without an address other than 127.0.0.1, getaddrinfo(3) returns none for rpcbind (AI_ADDRCONFIG).
        namespace.ip(&["address", "add", "10.5.0.1/32", "dev", "lo"])?;
        let mut inside = namespace.command("unshare");
        inside
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs -o mode=755 tmpfs /run && exec \"$0\" \"$@\"")
            .arg(env::current_exe().context("finding this program")?)
            .args(["bench", "nfs", "--rounds", &self.rounds.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .args(["--connections", &self.connections.to_string()])
            .args(["--depth", &self.depth.to_string()])
            .args(["--only", &self.only])
            .args(self.alone.then_some("--alone"))
            .arg("--inside")
            .arg(&ours)
            .stdin(Stdio::null());
        if !Running::start("the benchmark", &mut inside)?.wait()?.success() {
            bail!("the benchmark ended early, see above");
        }
        Ok(())
    }

    fn measure(&self, ours: &Path) -> Result<()> {
        let run = RunDir::new()?;
        // The tree is on the disk of images. All of it is in the page cache when the measurement starts.
        let tree = tree::Tree::make(&paths::cache_dir()?.join("bench-nfs"))?;
        let mut servers = vec![Server::ours(ours, tree.path(), run.path())?];
        if !self.alone {
            servers.push(Server::ganesha(tree.path(), run.path())?);
        }
        println!(
            "{} connections, {} calls in flight on each; {} rounds of {} s; min / median / max",
            self.connections, self.depth, self.rounds, self.seconds
        );
        let asks = servers
            .iter()
            .map(|server| tree.asks(server))
            .collect::<Result<Vec<_>>>()?;
        let load = Load {
            connections: self.connections,
            depth: self.depth,
            time: Duration::from_secs_f64(self.seconds),
        };
        // The servers take turns for each figure, so that measurements at about the same time are compared.
        let mut results = vec![vec![Vec::new(); servers.len()]; tree::FIGURES.len()];
        for round in 0..self.rounds {
            let figures = results.iter_mut().enumerate();
            for (figure, results) in figures.filter(|(i, _)| tree::FIGURES[*i].name.contains(&self.only)) {
                for i in 0..servers.len() {
                    // The first server changes from round to round.
                    let i = (i + round as usize) % servers.len();
                    let server = &servers[i];
                    let asks: &[Ask] = &asks[i][figure];
                    let measured = load
                        .run(server.port, server.pid(), asks)
                        .with_context(|| format!("{} of {}", tree::FIGURES[figure].name, server.name))?;
                    results[i].push(measured);
                }
            }
        }
        let measured = tree::FIGURES.iter().zip(&results);
        for (figure, results) in measured.filter(|(figure, _)| figure.name.contains(&self.only)) {
            print_figure(figure, &servers, results);
        }
        Ok(())
    }
}

fn print_figure(figure: &tree::Figure, servers: &[Server], results: &[Vec<Measured>]) {
    println!(
        "\n{:<14}{:>32}{:>30}{:>30}",
        figure.name, figure.unit, "server CPU us/call", "p99 ms"
    );
    for (server, rounds) in servers.iter().zip(results) {
        println!(
            "  {:<12}{:>32}{:>30}{:>30}",
            server.name,
            spread(rounds.iter().map(|m| m.calls * figure.per_call)),
            spread(rounds.iter().map(|m| m.cpu)),
            spread(rounds.iter().map(|m| m.p99)),
        );
    }
    let ours = &results[0];
    for (server, peer) in servers.iter().zip(results).skip(1) {
        // Ratios are per round, because both servers had the same load of the machine then.
        let ratio = |of: fn(&Measured) -> f64| spread(ours.iter().zip(peer).map(|(a, b)| of(a) / of(b)));
        println!(
            "  {:<12}{:>32}{:>30}{:>30}",
            format!("ours/{}", server.name),
            ratio(|m| m.calls),
            ratio(|m| m.cpu),
            ratio(|m| m.p99),
        );
    }
}

/// Minimum, median and maximum.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let show = |value: f64| match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    };
    match values.as_slice() {
        [] => String::new(),
        [first, .., last] => format!(
            "{} / {} / {}",
            show(*first),
            show(values[values.len() / 2]),
            show(*last)
        ),
        [one] => show(*one),
    }
}

/// Builds an example of one of our packages with the release profile.
fn build_example(package: &str, name: &str) -> Result<PathBuf> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", package, "--example", name])
        .current_dir(paths::repo_root())
        .stdin(Stdio::null())
        .status()
        .context("running cargo")?;
    ensure!(
        status.success(),
        "building the example {name} of {package} failed ({status})"
    );
    Ok(paths::target_dir().join("release/examples").join(name))
}
