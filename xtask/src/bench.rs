//! `cargo xtask bench`: our engines beside others, in the same minutes, on the same files.
//!
//! Figures of one run mean little on a machine that does other things too; ratios of rounds that take turns
//! mean something, and so the tables show both.

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
    /// The NFS engine beside nfs-ganesha: calls a second, bytes a second, processor time, and latency.
    Nfs(Nfs),
    /// The store and the inventory of a large cluster: loading, deciding, committing, beside a JSON file and dnsmasq.
    Store(store::Bench),
}

#[derive(Args)]
struct Nfs {
    /// How often each figure is taken; the servers take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds for which each server is asked in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections to a server; a Linux node has one.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Calls in flight on each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: u32,
    /// Only the figures whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Leave the peer out.
    #[arg(long)]
    alone: bool,
    /// Inside the namespace already, with this binary of ours.
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
        // Ten seconds for a figure of one server, however it is cut.
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

    /// Runs this program again in a namespace that has loopback only, and a `/run` of its own: nfs-ganesha
    /// registers with a port mapper, which must neither be the machine's nor be seen by it.
    fn enter(&self) -> Result<()> {
        packages::ensure_these(servers::NEEDED, &mut |line| eprintln!("{line}"))?;
        eprintln!("building the engine with the release profile");
        let ours = servers::build_ours()?;
        let namespace = Namespace::empty()?;
        // Without an address other than 127.0.0.1, getaddrinfo(3) finds none at all for rpcbind (AI_ADDRCONFIG).
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
        // On the disk that images are on; all of it is in the page cache when counting begins.
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
        // Figure by figure, server by server: neighbours in time are compared.
        let mut results = vec![vec![Vec::new(); servers.len()]; tree::FIGURES.len()];
        for round in 0..self.rounds {
            let figures = results.iter_mut().enumerate();
            for (figure, results) in figures.filter(|(i, _)| tree::FIGURES[*i].name.contains(&self.only)) {
                for i in 0..servers.len() {
                    // Who comes first changes from round to round.
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
        // Round by round, as both saw the same load of the machine then.
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

/// Least, median, greatest.
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
