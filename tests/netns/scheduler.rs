//! A real Slurm, whose nodes the hook announces: the controller beside the daemon, `slurmd` on the node, and a job.

use anyhow::Context;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use rackstrap_exchange::export::{ExportNode, Format};
use rackstrap_hostlist::{Dialect, NoGroups, NodeSet, expand};
use rackstrap_wire::Hardware;
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use testbed::{
    Cluster, Namespace, Result, Site,
    played::Node,
    process::{Running, output},
    timeline::poll,
};

const LIMIT: Duration = Duration::from_secs(120);

/// A Slurm without security, with the nodes of `rackstrap export`.
fn configure(dir: &Path, hostname: &str) -> Result {
    let at = dir.display();
    for folder in ["state", "spool"] {
        fs::create_dir(dir.join(folder))?;
    }
    fs::write(
        dir.join("slurm.conf"),
        format!(
            "ClusterName=lab\nSlurmctldHost={hostname}(10.5.0.1)\nAuthType=auth/none\nCredType=cred/none\n\
             SlurmUser=root\nSlurmdUser=root\nStateSaveLocation={at}/state\nSlurmdSpoolDir={at}/spool\n\
             SlurmctldPidFile={at}/controller.pid\nSlurmdPidFile={at}/slurmd.pid\nProctrackType=proctrack/pgid\n\
             TaskPlugin=task/none\nSelectType=select/cons_tres\nMpiDefault=none\nReturnToService=2\n\
             include {at}/nodes.conf\nPartitionName=all Nodes=ALL Default=YES State=UP\n"
        ),
    )?;
    // Jobs are not confined: a test machine may have no control groups.
    fs::write(dir.join("cgroup.conf"), "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")?;
    Ok(())
}

/// A program of Slurm, which resolves names by rackstrap's exported hosts file.
fn slurm(namespace: &Namespace, dir: &Path, words: &[&str]) -> Command {
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(dir.join("hosts")).args(words);
    command.env("SLURM_CONF", dir.join("slurm.conf")).stdin(Stdio::null());
    command
}

fn log(dir: &Path, name: &str) -> Result<fs::File> {
    Ok(fs::File::create(dir.join(name))?)
}

/// Boots a node whose agent reports this machine's hardware. Returns the reported memory in MiB.
fn boot(node: &Node) -> Result<u64> {
    let tmp = json!({"name": "tmp", "device": "/dev/vda2", "fs": "ext4", "uuid": "", "mount": "/tmp", "options": "",
        "size": 20_u64 << 30});
    let disk = json!({"status": {"state": "kept", "layout": "scratch v1"}, "device": "vda", "size": 32_u64 << 30,
        "mounts": [tmp]});
    let hardware = rackstrap_agent::describe();
    let memory = hardware.memory_mib;
    node.boot()?.overlay(&disk, &json!(hardware))?;
    Ok(memory)
}

#[test]
fn slurm_gets_the_reported_hardware_of_the_nodes_and_runs_a_job() -> Result {
    let mut site = Site::demo();
    let mut cluster = Cluster::prepare(site.clone())?;
    let dir: PathBuf = cluster.dir().join("slurm");
    fs::create_dir(&dir)?;
    let hook = dir.join("on-change");
    let at = dir.display();
    let rackstrap = env!("CARGO_BIN_EXE_rackstrap");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh -e\n{rackstrap} export hosts --output {at}/hosts\n{rackstrap} export slurm --output {at}/nodes.conf\n\
             echo \"+$RACKSTRAP_ADDED ~$RACKSTRAP_CHANGED -$RACKSTRAP_DELETED\" >> {at}/told\n"
        ),
    )?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    site.on_change = vec![hook.display().to_string()];
    cluster.daemon.write_site(&site)?;
    cluster.start_daemon()?;
    let node = cluster.played("r02n07")?;
    cluster
        .daemon
        .cli(&["node", "add", "r02n08", "--hwaddr", "52:54:00:00:02:08"])?;
    let memory = boot(&node)?;

    // The hook ran once or twice: changes at the same time are passed together.
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let told = poll(LIMIT, || {
        let known = read("nodes.conf").contains("NodeName=r02n07") && read("told").contains("+r02n");
        Ok(known.then(|| read("told")))
    })?;
    let told = told.with_context(|| format!("the hook was not told: {}", cluster.daemon.log_tail(20)))?;
    assert!(told.starts_with("+ ~ -\n"), "once at the start: {told}");
    let nodes = read("nodes.conf");
    assert!(nodes.contains("before their first boot: r02n08"), "{nodes}");
    // 95 % of its partition, the usable part of a file system.
    assert!(
        nodes.contains(&format!("RealMemory={memory} TmpDisk=19455 State=UNKNOWN")),
        "{nodes}"
    );

    // Slurm reads the export: a controller, which refuses invalid lines, and slurmd on the node.
    let hostname = output(Command::new("hostname").arg("-s"))?;
    configure(&dir, hostname.trim())?;
    let conf = dir.join("slurm.conf").display().to_string();
    let mut command = slurm(&cluster.namespace, &dir, &["slurmctld", "-D", "-f", &conf]);
    let controller = log(&dir, "controller.log")?;
    let _controller = Running::start("slurmctld", command.stdout(controller.try_clone()?).stderr(controller))?;
    let mut command = slurm(&node.namespace, &dir, &["slurmd", "-D", "-N", "r02n07", "-f", &conf]);
    let slurmd = log(&dir, "slurmd.log")?;
    let _slurmd = Running::start("slurmd", command.stdout(slurmd.try_clone()?).stderr(slurmd))?;
    let mut last = String::new();
    let idle = poll(LIMIT, || {
        let shown = output(&mut slurm(
            &cluster.namespace,
            &dir,
            &["scontrol", "-o", "show", "node", "r02n07"],
        ));
        last = shown.unwrap_or_else(|error| format!("{error:#}"));
        Ok(last.contains("State=IDLE ").then_some(()))
    })?;
    if idle.is_none() {
        cluster.keep_files();
        anyhow::bail!("the node did not become idle; the logs are in {at}: {last}");
    }
    assert!(last.contains(&format!("RealMemory={memory} ")), "{last}");
    let mut command = slurm(
        &cluster.namespace,
        &dir,
        &["srun", "-w", "r02n07", "-n1", "sh", "-c", "echo on $SLURMD_NODENAME"],
    );
    assert_eq!(output(&mut command)?.trim(), "on r02n07");

    // The tool `nodeattr` of Genders, with the same nodes.
    cluster.daemon.cli(&["node", "set", "r02n[07-08]", "--join", "big"])?;
    cluster.daemon.cli(&[
        "export",
        "genders",
        "--output",
        &dir.join("genders").display().to_string(),
    ])?;
    let mut command = Command::new("nodeattr");
    let found = output(command.arg("-f").arg(dir.join("genders")).args(["-c", "big"]))?;
    assert_eq!(found.trim(), "r02n07,r02n08");
    // dnsmasq reads its export.
    let dnsmasq = dir.join("dnsmasq.conf");
    cluster
        .daemon
        .cli(&["dnsmasq", "--output", &dnsmasq.display().to_string()])?;
    assert_eq!(fs::read_to_string(&dnsmasq)?.matches("dhcp-host=").count(), 2);
    output(Command::new("dnsmasq").args(["--test", "-C"]).arg(&dnsmasq))?;
    Ok(())
}

/// A set of nodes with names as sites have them: racks with holes, a single rack, a single slot, growing widths, words
/// without numbers, and names with a suffix after their last number.
fn some_names() -> impl Strategy<Value = BTreeSet<String>> {
    let racked = (1u32..13, 1u32..41).prop_map(|(rack, slot)| format!("r{rack:02}n{slot:02}"));
    let one_slot = (1u32..13).prop_map(|rack| format!("r{rack:02}n01"));
    let enclosure = (1u32..4, 8u32..12, 1u32..5).prop_map(|(row, rack, slot)| format!("c{row}-{rack}-{slot}"));
    let plain = prop_oneof![(7u32..13).prop_map(|n| format!("gpu{n}")), Just("login".to_owned())];
    let behind = (1u32..5).prop_map(|n| format!("n{n}-big"));
    let one = prop_oneof![4 => racked, 3 => one_slot, 2 => enclosure, 1 => plain, 1 => behind];
    proptest::collection::btree_set(one, 1..60)
}

#[test]
fn slurm_reads_the_names_of_random_sets_and_its_controller_starts_with_them() -> Result {
    let mut runner = TestRunner::deterministic();
    let mut sets = Vec::new();
    for _ in 0..60 {
        let tree = some_names().new_tree(&mut runner);
        sets.push(tree.map_err(|why| anyhow::anyhow!("{why}"))?.current());
    }
    let dir = tempfile::tempdir()?;
    let at = dir.path();
    let namespace = Namespace::with_bridge()?;
    let hostname = output(Command::new("hostname").arg("-s"))?;
    configure(at, hostname.trim())?;
    // scontrol expands no hostlist without a configuration.
    fs::write(at.join("nodes.conf"), "")?;
    fs::write(at.join("hosts"), "")?;
    for names in &sets {
        let list = names
            .iter()
            .map(String::as_str)
            .collect::<NodeSet>()
            .fold_as(Dialect::Slurm);
        let shown = output(&mut slurm(&namespace, at, &["scontrol", "show", "hostnames", &list]))?;
        let shown: BTreeSet<String> = shown.lines().map(str::to_owned).collect();
        assert_eq!(&shown, names, "{list}");
    }

    // The same sets as nodes of different hardware, so that each line has a random part of the set.
    let all: BTreeSet<&String> = sets[..6].iter().flatten().collect();
    let nodes: Vec<ExportNode> = (all.iter().zip(0u32..))
        .map(|(name, number)| ExportNode {
            name: (*name).clone(),
            ipaddr: Ipv4Addr::from(0x0a05_0100 + number),
            hwaddrs: Vec::new(),
            domain: None,
            profiles: Vec::new(),
            groups: Vec::new(),
            hardware: Some(Hardware {
                cpus: 1 << sets.iter().position(|set| set.contains(*name)).unwrap_or(0),
                memory_mib: 64_000,
                ..Hardware::default()
            }),
            scratch: None,
            networks: Vec::new(),
            rack: String::new(),
            state: String::new(),
            image: None,
            attributes: Default::default(),
            settings: Default::default(),
            vars: Default::default(),
            host_keys: Vec::new(),
        })
        .collect();
    fs::write(at.join("nodes.conf"), Format::Slurm.write(&nodes, &[]))?;
    fs::write(at.join("hosts"), Format::Hosts.write(&nodes, &[]))?;
    let known = controller_knows(&namespace, at, all.len())?;
    assert_eq!(known.iter().collect::<BTreeSet<_>>(), all);
    Ok(())
}

/// Starts a controller, waits until it knows `count` nodes, stops it, and returns their names.
fn controller_knows(namespace: &Namespace, at: &Path, count: usize) -> Result<BTreeSet<String>> {
    let conf = at.join("slurm.conf").display().to_string();
    let mut command = slurm(namespace, at, &["slurmctld", "-D", "-f", &conf]);
    let controller = log(at, "controller.log")?;
    let _controller = Running::start("slurmctld", command.stdout(controller.try_clone()?).stderr(controller))?;
    let mut last = String::new();
    let known = poll(LIMIT, || {
        let shown = output(&mut slurm(namespace, at, &["scontrol", "-o", "show", "node"]));
        last = shown.unwrap_or_else(|error| format!("{error:#}"));
        let names = last
            .lines()
            .filter_map(|line| line.strip_prefix("NodeName=")?.split_whitespace().next());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        Ok((names.len() == count).then_some(names))
    })?;
    known.with_context(|| {
        let log = fs::read_to_string(at.join("controller.log")).unwrap_or_default();
        format!("slurmctld does not know the nodes: {last}\n{log}")
    })
}

/// Two equal nodes in two racks, at the same position: their names fold to a list whose last dimension has one value.
#[test]
fn two_equal_nodes_in_two_racks_start_the_controller() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let at = cluster.dir().join("slurm");
    fs::create_dir(&at)?;
    for name in ["r01n01", "r02n01"] {
        boot(&cluster.played(name)?)?;
    }
    for (format, file) in [("slurm", "nodes.conf"), ("hosts", "hosts")] {
        let file = at.join(file).display().to_string();
        cluster.daemon.cli(&["export", format, "--output", &file])?;
    }
    let exported = fs::read_to_string(at.join("nodes.conf"))?;
    assert!(exported.contains("\nNodeName=r[01-02]n[01] CPUs="), "{exported}");
    let hostname = output(Command::new("hostname").arg("-s"))?;
    configure(&at, hostname.trim())?;
    let known = controller_knows(&cluster.namespace, &at, 2)?;
    assert_eq!(known, BTreeSet::from(["r01n01".to_owned(), "r02n01".to_owned()]));

    // The line of an earlier export: Slurm accepts no text after the last bracket, and does not start.
    let case = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join("04-nodes.conf");
    fs::copy(&case, at.join("nodes.conf"))?;
    let conf = at.join("slurm.conf").display().to_string();
    let refused = slurm(&cluster.namespace, &at, &["slurmctld", "-D", "-f", &conf]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("r[01-02]n01"), "{refused:?}");
    // rackstrap itself reads such a list correctly, as people write it too.
    let text = fs::read_to_string(case)?;
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("NodeName=")?.split(' ').next());
    let meant = expand(list.context("a line with names")?, &NoGroups)?;
    assert_eq!(meant.fold_as(Dialect::Slurm), "r[01-02]n[01]");
    Ok(())
}
