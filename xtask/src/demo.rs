//! `cargo xtask demo`: makes a cluster from nothing, and shows how it boots.

use crate::attach;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    io::{IsTerminal, stdin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use testbed::{
    Cluster, Event, Node, Site, binaries,
    image::{Image, Kernel},
    packages,
    timeline::now_ms,
};

/// Size of a node's blank disk. The file is sparse.
const DISK: u64 = 2 << 30;

/// The demo ends if no timeline has a new event for this long.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Demo {
    /// Boot this many nodes, from r01n01 on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    nodes: u8,
    /// Stop when all nodes are ready, instead of logging in on the first one's console
    #[arg(long)]
    once: bool,
    /// Print the nodes' timelines as JSON on stdout at the end; implies --once
    #[arg(long)]
    json: bool,
    /// Keep site file, state, logs and disks of this run, and print where they are
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, interrupted.clone()).context("catching signals")?;
        }
        packages::ensure_these(packages::DEMO, &mut say)?;
        say("building the daemon and the agent");
        let binaries = binaries::Binaries {
            daemon: binaries::build_daemon()?,
            agent: binaries::build_agent()?,
        };
        let debian = Image::debian(&binaries, Kernel::Cloud, &mut say)?;
        stop_if(&interrupted)?;

        let mut cluster = Cluster::with_images(&binaries, &Site::demo(), vec![debian])?;
        if self.keep {
            cluster.keep_files();
        }
        cluster.start_daemon()?;
        say(&format!(
            "the daemon runs in the network namespace {}; try: {} --config {} status",
            cluster.namespace.name(),
            binaries.daemon.display(),
            cluster.daemon.config().display()
        ));
        let mut nodes = Vec::new();
        for slot in 1..=self.nodes {
            let processors = if self.nodes == 1 { 2 } else { 1 };
            let node = cluster.node(&format!("r01n{slot:02}")).processors(processors);
            let node = node.blank_disk(DISK)?;
            node.power_on()?;
            say(&format!("{} ({}) is switched on", node.name(), node.hwaddr()));
            nodes.push(node);
        }
        let summaries = watch(&cluster, &nodes, &interrupted)?;
        for summary in &summaries {
            say(summary);
        }
        if self.json {
            let timelines: Result<Map<String, Value>> = nodes
                .iter()
                .map(|node| Ok((node.name().to_owned(), cluster.daemon.json(&["timeline", node.name()])?)))
                .collect();
            println!("{}", serde_json::to_string_pretty(&timelines?)?);
        } else if !self.once && stdin().is_terminal() {
            say(&format!(
                "the console of {} follows; Ctrl-] ends the demo",
                nodes[0].name()
            ));
            attach::attach(nodes[0].console().socket(), &interrupted)?;
        }
        Ok(())
    }
}

/// Progress goes to stderr, so that stdout has only the output of `--json`.
fn say(line: &str) {
    eprintln!("{line}");
}

fn stop_if(interrupted: &AtomicBool) -> Result<()> {
    ensure!(
        !interrupted.load(Ordering::Relaxed),
        "interrupted; everything was taken down"
    );
    Ok(())
}

/// Prints events until all nodes are ready. Returns one closing line for each node.
fn watch(cluster: &Cluster, nodes: &[Node], interrupted: &AtomicBool) -> Result<Vec<String>> {
    let mut shown = vec![0; nodes.len()];
    let mut summaries = vec![None; nodes.len()];
    let mut last_news = Instant::now();
    while summaries.iter().any(Option::is_none) {
        stop_if(interrupted)?;
        for (index, node) in nodes.iter().enumerate() {
            if summaries[index].is_some() {
                continue;
            }
            node.check_alive()?;
            let events = node.events()?;
            for event in events.iter().skip(shown[index]).filter(|event| is_news(event)) {
                say(&line(node, event));
                last_news = Instant::now();
            }
            shown[index] = events.len();
            if let Some(ready) = events.iter().find(|event| event.step == "ready") {
                summaries[index] = Some(summary(cluster, node, &events, ready)?);
            }
        }
        if last_news.elapsed() > PATIENCE {
            let stuck = nodes.iter().zip(&summaries).filter(|(_, summary)| summary.is_none());
            let evidence: Vec<String> = stuck.map(|(node, _)| node.evidence()).collect();
            bail!("nothing happened for {} s\n{}", PATIENCE.as_secs(), evidence.join("\n"));
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(summaries.into_iter().flatten().collect())
}

/// True unless the event is the start of a phase, whose end says more.
fn is_news(event: &Event) -> bool {
    !(event.step.starts_with("agent ") && event.took_ms.is_none() && event.detail == "started")
}

fn line(node: &Node, event: &Event) -> String {
    let at = seconds(event.at, node.powered_on_at());
    let took = event.took_ms.filter(|_| event.step != "ready");
    let took = took
        .map(|ms| format!(" ({:.1} s)", ms as f64 / 1000.0))
        .unwrap_or_default();
    format!("{at:>6.1} s  {}  {event}{took}", node.name())
}

/// `r01n01 ready in 48.3 s: debian@1, root nfs, /tmp and /var on vda (prepared: blank -> scratch v1)`
fn summary(cluster: &Cluster, node: &Node, events: &[Event], ready: &Event) -> Result<String> {
    let row = cluster.status(node.name())?;
    let field = |name: &str| {
        row[name]
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or("unknown")
            .to_owned()
    };
    // The root is the one that was mounted, not the one in the plan.
    let root = if events.iter().any(|event| event.step == "nfs mount") {
        "nfs"
    } else {
        "not by nfs"
    };
    Ok(format!(
        "{} {} in {:.1} s: {}, root {root}, {}",
        node.name(),
        field("state"),
        seconds(ready.at, node.powered_on_at()),
        field("image"),
        field("disk"),
    ))
}

fn seconds(at: u64, begin: u64) -> f64 {
    at.min(now_ms()).saturating_sub(begin) as f64 / 1000.0
}
