//! `cargo xtask bench store`: compares a cluster's inventory with the same nodes in files of other programs.

use super::{build_example, spread};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};
use testbed::{netns::Namespace, packages, paths, process::output};

/// Debian packages of the other program.
const NEEDED: &[&str] = &["dnsmasq-base", "iproute2"];

#[derive(Args)]
pub struct Bench {
    /// Measure each figure this many times; the programs take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Number of nodes of the cluster
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=25_000))]
    nodes: u32,
    /// Number of events on each node's timeline; a boot has about twenty
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=300))]
    events: u32,
}

/// One line of a table: its name for people, and the name of the figure.
type Line = (&'static str, &'static str);

const TABLES: &[(&str, &[Line])] = &[
    (
        "load, ms (files in the page cache)",
        &[
            ("rackstrap: open the store, index all nodes", "load-ms"),
            ("rackstrap: the same, with boots and timelines", "load-all-ms"),
            ("a JSON file: parse, index", "json-load-ms"),
            ("dnsmasq: start, read dhcp-hostsfile", "dnsmasq-ms"),
        ],
    ),
    (
        "decide by MAC, us",
        &[
            ("rackstrap: median", "decide-median-us"),
            ("rackstrap: p99", "decide-p99-us"),
        ],
    ),
    (
        "confirmed writes a second, each on disk",
        &[
            ("the disk: one page, synced", "disk-syncs-per-s"),
            ("rackstrap: changes of a node, with history", "changes-per-s"),
            ("a JSON file: rewritten, synced, renamed", "json-changes-per-s"),
            ("rackstrap: leases, one after the other", "lease-alone-per-s"),
            ("rackstrap: leases, 64 machines at once", "lease-of-64-per-s"),
            ("rackstrap: leases, 1,024 machines at once", "lease-of-1024-per-s"),
        ],
    ),
    (
        "backup",
        &[
            ("rackstrap: backup, ms", "backup-ms"),
            ("rackstrap: its size, MB", "backup-mb"),
            ("rackstrap: restore, ms", "restore-ms"),
        ],
    ),
];

impl Bench {
    pub fn run(self) -> Result<()> {
        packages::ensure_these(NEEDED, &mut |line| eprintln!("{line}"))?;
        eprintln!("building the store with the release profile");
        let ours = build_example("rackstrap", "store")?;
        // /tmp is not used, because it may be in memory.
        let dir = paths::cache_dir()?.join("bench-store");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut make = Command::new(&ours);
        make.arg("make").arg(&dir);
        let made = figures(make.args([self.nodes.to_string(), self.events.to_string()]))?;
        ensure!(
            made.get("dropped") == Some(&0.0),
            "the store dropped writes while it was filled"
        );
        let namespace = Namespace::empty()?;
        let mut results: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for _ in 0..self.rounds {
            let mut round = figures(Command::new(&ours).arg("measure").arg(&dir))?;
            round.insert("dnsmasq-ms".to_owned(), dnsmasq(&namespace, &dir.join("dhcp-hosts"))?);
            for (name, value) in round {
                results.entry(name).or_default().push(value);
            }
        }
        println!(
            "{} nodes, {} events each, added as one change in {:.0} ms; {} rounds; min / median / max",
            self.nodes, self.events, made["add-all-ms"], self.rounds
        );
        for (title, lines) in TABLES {
            println!("\n{title}");
            for (line, name) in *lines {
                let values = results.get(*name).with_context(|| format!("{name} was not measured"))?;
                println!("  {line:<48}{:>32}", spread(values.iter().copied()));
            }
        }
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
    }
}

/// The figures that a program prints, one `NAME VALUE` per line.
fn figures(command: &mut Command) -> Result<BTreeMap<String, f64>> {
    let text = output(command.stdin(Stdio::null()))?;
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').with_context(|| format!("not a figure: {line}"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// Milliseconds from the start of dnsmasq until it reports that it has read the hosts, in a namespace with only loopback.
fn dnsmasq(namespace: &Namespace, hosts: &Path) -> Result<f64> {
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--pid-file=",
        ])
        .args([
            "--user=root",
            "--port=0",
            "--leasefile-ro",
            "--interface=lo",
            "--bind-interfaces",
        ])
        .arg("--dhcp-range=10.5.0.0,static,255.255.0.0")
        .arg(format!("--dhcp-hostsfile={}", hosts.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let (mut child, begin) = namespace.inside(|| {
        let begin = Instant::now();
        command.spawn().map(|child| (child, begin))
    })??;
    let mut said = Vec::new();
    let mut read = None;
    if let Some(stderr) = child.stderr.take() {
        // This thread ends with the process, which only continues while its output is read.
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains(&format!("read {}", hosts.display())) {
                read = Some(begin.elapsed());
                break;
            }
            said.push(line);
        }
    }
    child.kill().and_then(|()| child.wait()).context("ending dnsmasq")?;
    match read {
        Some(time) => Ok(time.as_secs_f64() * 1e3),
        None => bail!("dnsmasq did not read the hosts; its output:\n{}", said.join("\n")),
    }
}
