//! `rackstrap export`: the inventory for other programs.

use super::{connection::connect, hostlist::Wanted, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_control::{api, segment};
use rackstrap_exchange::export::{BootSubnet, ExportNode, Format};
use std::{
    collections::HashSet,
    fs::{File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `rackstrap export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Formats: hosts (/etc/hosts), ethers (/etc/ethers), slurm (NodeName lines, with the processors, memory and local disk that
each node's agent found), genders (/etc/genders), hostlist (all names on one line),
ansible (inventory as JSON), prometheus (targets for file_sd_configs as JSON), known_hosts (the host keys that the server keeps for
nodes), all (everything about nodes as JSON, which `rackstrap node import` reads). For a DHCP server that gives nodes their
addresses (dhcp = \"proxy\" or \"off\" in [[subnet]]): dhcpd, kea and dnsmasq, with a reservation for each node; and, except for
networks with \"proxy\", what firmware and iPXE load.

With --output the file changes only when its content does. [hooks] on-change in the site file writes it automatically.

Examples:
  rackstrap export hosts                                   (short: rackstrap hosts)
  rackstrap export kea --output /etc/kea/rackstrap.json    (and in \"Dhcp4\": <?include \"/etc/kea/rackstrap.json\"?>)
  rackstrap export slurm --output /etc/slurm/nodes.conf    (and in slurm.conf: include nodes.conf)
  rackstrap export ansible --output /etc/ansible/nodes.json    (and: ansible-inventory -i /etc/ansible/nodes.json --graph)
  rackstrap export known_hosts --output /etc/ssh/ssh_known_hosts
  rackstrap export prometheus --output /etc/prometheus/nodes.json
  rackstrap export all --json > nodes.json
  pdsh -w \"$(rackstrap export hostlist @gpu)\" uptime")]
pub struct ExportArgs {
    /// Format: hosts, ethers, dnsmasq, dhcpd, kea, slurm, genders, hostlist, ansible, prometheus, known_hosts or all
    format: Format,
    /// Print JSON; ansible, prometheus and all always do
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rest: ShortArgs,
}

/// Arguments of `rackstrap hosts` and the other short forms.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rackstrap hosts > hosts.cluster
  rackstrap ethers 'r01n*' --output /etc/ethers
  rackstrap dnsmasq")]
pub struct ShortArgs {
    /// Names or hostlists, such as 'r[01-04]n*' [default: all nodes]
    #[arg(value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Replace this file atomically, and only if its content changes
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Directory of jobs' temporary files (TmpFS in slurm.conf); TmpDisk is the size of the local disk below it
    #[arg(long, value_name = "DIRECTORY", default_value = "/tmp")]
    tmp_fs: String,
}

/// Runs `rackstrap export`.
pub fn run(config: &Path, args: ExportArgs) -> Result<ExitCode> {
    if args.json && !args.format.is_json() {
        bail!(
            "{} is not JSON, but the format of another program\nhelp: `rackstrap export all --json` prints everything about nodes",
            args.format
        );
    }
    run_short(config, args.format, args.rest)
}

/// Runs `rackstrap hosts` and the other short forms.
pub fn run_short(config: &Path, format: Format, args: ShortArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    let wanted = Wanted::new(args.nodes)?;
    let rows: Vec<api::ExportRow> = client.get(&format!(
        "{}?tmp={}&keys={}",
        api::paths::EXPORT,
        segment(&args.tmp_fs),
        format.has_host_keys()
    ))?;
    let mut nodes: Vec<ExportNode> = rows.into_iter().map(ExportNode::from).collect();
    if !wanted.is_all() {
        let names: HashSet<String> = wanted.nodes(&client)?.into_iter().map(|node| node.name).collect();
        nodes.retain(|node| names.contains(&node.name));
    }
    let subnets: Vec<api::ExportSubnet> = match format.is_of_dhcp() {
        true => client.get(api::paths::EXPORT_BOOT)?,
        false => Vec::new(),
    };
    let subnets: Vec<BootSubnet> = subnets.into_iter().map(BootSubnet::from).collect();
    let text = format.write(&nodes, &subnets);
    match &args.output {
        None => output::print(&text)?,
        Some(path) => replace(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces the file atomically, because other programs may read it at any time. Its owner and mode stay.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    match std::fs::read(path) {
        Ok(present) if present == text => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    // If the path is a symbolic link, its target is replaced.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = std::fs::metadata(&path).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    let mut name = path.file_name().context("the path has no file name")?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_it_is_different() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        replace(&path, b"one\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let first = inode();
        replace(&path, b"one\n").unwrap();
        assert_eq!(inode(), first, "not touched");
        replace(&path, b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        let error = replace(&dir.path().join("none/hosts"), b"").unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
