//! `rackstrap node`: a file for what shows nodes, what changes them, and what turns them into files and back.

mod change;
mod edit;
mod history;
mod reprep;
mod restart;
mod show;
mod transfer;

pub use change::prospects;
pub use show::boots_table;

use super::{
    connection::connect,
    hostlist::{HELP, Wanted},
    output::{self, Format},
};
use crate::control::{Client, api};
use anyhow::Result;
use clap::{Args, Subcommand};
use rackstrap_hostlist::{Dialect, NodeSet};
use std::{collections::BTreeMap, path::Path, process::ExitCode};

/// Arguments of `rackstrap node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Names or hostlists [default: all nodes]
    #[arg(value_name = "NODES", add = crate::cli::complete::nodes())]
    nodes: Vec<String>,
    /// Print only the names, as one hostlist that Slurm and ClusterShell read
    #[arg(long, conflicts_with = "json")]
    names: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Add a node: its name says where it is, its MAC which machine it is
    #[command(after_help = "\
Takes effect with the machine's next packet; a machine that waits is picked up by itself.

Examples:
  rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01
  rackstrap node add r01n02 --hwaddr 52-54-00-01-01-02 --hwaddr 5254.0002.0102   (two cards)
  rackstrap node add r02n01 --hwaddr 52:54:00:02:01:01 --profile gpu --group big")]
    Add(change::AddArgs),
    /// List nodes
    #[command(after_help = format!("{HELP}\n\n\
Examples:
  rackstrap node list
  rackstrap node list 'r[01-02]n*' @gpu
  rackstrap node list @state:lost --names             (as one hostlist: pdsh -w \"$(rackstrap node list @gpu --names)\")
  rackstrap node list --json | jq -r '.[].ipaddr'"))]
    List(ListArgs),
    /// List groups, as hostlists have them: @gpu, @profile:compute, @rack:r03, @state:lost
    #[command(after_help = "\
A node joins a group with node set --join, and leaves it with --leave. Groups with a colon follow from what a node is.

Example:
  rackstrap node groups")]
    Groups(Format),
    /// Show one node: settings, hardware, state, boots
    #[command(after_help = "\
Examples:
  rackstrap node show r01n01
  rackstrap node show 'r01n[01-04]' --json | jq -r .hardware.serial")]
    Show(show::ShowArgs),
    /// Change profiles, groups, attributes or hardware addresses of nodes
    #[command(after_help = "\
What is not named stays as it is. Takes effect at the next boot.

Examples:
  rackstrap node set r01n01 r01n02 --profile compute --profile gpu   (gpu wins over compute)
  rackstrap node set 'r[01-04]n[01-32]' --join big --leave test
  rackstrap node set r01n01 --attr location='row 3'   (templates read node.attributes.location)
  rackstrap node set r01n01 --hwaddr 52:54:00:01:01:01 --hwaddr 52:54:00:01:01:81   (a second card)
  pdsh -w @new uname -m | awk -F: '/aarch64/ {print $1}' | rackstrap node set - --profile arm")]
    Set(change::SetArgs),
    /// Change nodes in an editor, as TOML
    #[command(after_help = "\
Opens $VISUAL, $EDITOR or vi. What you take out of the text stays as it is; a new table is a new node. Everything that is wrong
is said with its line, and you may go on editing. Nothing is changed before you say yes.

Examples:
  rackstrap node edit r01n01
  rackstrap node edit @rack:r03
  rackstrap node edit @rack:r03 --dry-run
  EDITOR='sed -i s/compute/gpu/' rackstrap node edit 'r01n[01-04]' --yes")]
    Edit(edit::EditArgs),
    /// Take profiles, groups, attributes or hardware addresses away from nodes
    #[command(after_help = "\
Examples:
  rackstrap node unset r04n01 --profile wipe  (its other profiles stay)
  rackstrap node unset @test --group test
  rackstrap node unset @test --attr location
  rackstrap node unset r01n01 --profiles      (what remains is the profile default)
  rackstrap node unset 'r01n[01-02]' --groups")]
    Unset(change::UnsetArgs),
    /// Give a node another machine: a new mainboard or network card
    #[command(after_help = "\
The node keeps its name, its address, its profiles and its ssh host keys.

Example:
  rackstrap node replace r01n07 --hwaddr 52:54:00:ab:cd:ef")]
    Replace(change::ReplaceArgs),
    /// Give a machine that was moved its new name, and the address that belongs to it
    #[command(after_help = "\
Its profiles, groups, ssh host keys and timeline go along. A node that runs is not renamed, because its root belongs to its
address: switch it off first.

Examples:
  rackstrap node rename r01n07 r03n01
  rackstrap node rename 'r01n[01-32]' 'r03n[01-32]'    (a whole rack was moved)")]
    Rename(change::RenameArgs),
    /// Delete nodes, with their timelines and ssh host keys
    #[command(after_help = "\
The machine is unknown then. A node that runs is not deleted, because it would lose its root: switch it off first.

Examples:
  rackstrap node delete r01n01
  rackstrap node delete @old --dry-run               (only says what would happen)
  rackstrap node delete r01n01 --yes                 (does not ask)
  rackstrap node delete r01n01 --yes --running       (even if it is up: it hangs until it is restarted)")]
    Delete(change::DeleteArgs),
    /// Import nodes from a file: all of them or none
    #[command(after_help = "\
Files: TOML as node export writes it, CSV (name,hwaddr,profiles,groups), ISC dhcpd.conf, dnsmasq's dhcp-host lines,
/etc/ethers, and a switch's MAC table as its terminal shows it, with a port map such as 'Gi1/0/[1-32] = r03n[01-32]'.

Everything that is wrong is said at once, with its line and column, and then nothing is imported. Nodes that exist are changed to what
the file says; nodes that it does not name stay.

Examples:
  rackstrap node import nodes.csv --dry-run
  rackstrap node import /etc/dhcp/dhcpd.conf
  rackstrap node import mac-table.txt --ports rack3.map")]
    Import(transfer::ImportArgs),
    /// Print nodes as TOML, to be kept in git, edited and imported
    #[command(after_help = "\
Examples:
  rackstrap node export > nodes.toml
  rackstrap node export 'r01n*!r01n05'")]
    Export(transfer::ExportArgs),
    /// Restart nodes that run, drained before and a few at a time
    #[command(after_help = format!("{HELP}\n\n\
A node is told by the answer to its next heartbeat, and restarts the way its system does. Before that the site's drain program
([hooks] drain) takes it out of service, and when it is ready again, with all its checks, the resume program puts it back. If a node
does not come back in time, no more are restarted.

Examples:
  rackstrap node restart r01n01
  rackstrap node restart 'r01n[01-32]' --max-down 4 --reason 'new kernel'
  rackstrap node restart @gpu --dry-run
  rackstrap node restart --list
  rackstrap node restart --cancel 'r01n[20-32]'"))]
    Restart(restart::RestartArgs),
    /// Have disks prepared again at the next boot, or say that a disk was replaced
    #[command(after_help = format!("{HELP}\n\n\
The order holds for one boot, and does not restart the node. A node whose disk of the last boot is missing writes to no other
disk until --new-disk says that it is gone for good.

Examples:
  rackstrap node reprep r01n07                     (lose what is on its disk, and prepare it again)
  rackstrap node reprep r01n07 --new-disk          (its broken disk was replaced)
  rackstrap node reprep r01n07 --wipe-foreign      (its disk holds data of another system that nobody needs)
  rackstrap node reprep r01n07 --cancel"))]
    Reprep(reprep::ReprepArgs),
    /// Who changed what about a node, and when
    #[command(after_help = "\
Also of nodes that were deleted.

Example:
  rackstrap node history r01n01")]
    History(history::HistoryArgs),
}

/// Runs it.
pub fn run(config: &Path, args: NodeArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        NodeCommand::Add(args) => change::add(&client, args)?,
        NodeCommand::List(args) => list(&client, args)?,
        NodeCommand::Groups(format) => groups(&client, format)?,
        NodeCommand::Show(args) => show::run(&client, &args)?,
        NodeCommand::Set(args) => change::set(&client, args)?,
        NodeCommand::Edit(args) => edit::run(config, &client, args)?,
        NodeCommand::Unset(args) => change::unset(&client, args)?,
        NodeCommand::Replace(args) => change::replace(&client, args)?,
        NodeCommand::Rename(args) => change::rename(&client, args)?,
        NodeCommand::Delete(args) => change::delete(&client, &args)?,
        NodeCommand::Import(args) => transfer::import(config, &client, &args)?,
        NodeCommand::Export(args) => transfer::export(&client, &args)?,
        NodeCommand::Restart(args) => restart::run(&client, args)?,
        NodeCommand::Reprep(args) => reprep::run(&client, args)?,
        NodeCommand::History(args) => history::run(&client, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, args: ListArgs) -> Result<()> {
    let wanted = Wanted::new(args.nodes)?;
    let nodes = wanted.nodes(client)?;
    if args.names {
        let names: NodeSet = nodes.into_iter().map(|node| node.name).collect();
        return output::print(&names.fold_as(Dialect::Slurm));
    }
    if args.format.json {
        return output::print_json(&nodes);
    }
    if nodes.is_empty() {
        let all: Vec<api::NodeRow> = client.get(api::paths::NODES)?;
        return output::print(&wanted.matches_none(all.len()));
    }
    let mut table = output::table(["node", "address", "hwaddr", "profiles", "groups"]);
    for node in &nodes {
        table.add_row([
            &node.name,
            &node.ipaddr.to_string(),
            &output::list(&node.hwaddrs),
            &output::list(&node.profiles),
            &output::list(&node.groups),
        ]);
    }
    output::print(&output::render(&table))
}

fn groups(client: &Client, format: Format) -> Result<()> {
    let groups: BTreeMap<String, Vec<String>> = client.get(api::paths::GROUPS)?;
    if format.json {
        return output::print_json(&groups);
    }
    let mut table = output::table(["group", "count", "nodes"]);
    for (name, nodes) in groups {
        let count = output::right(nodes.len());
        let nodes: NodeSet = nodes.into_iter().collect();
        table.add_row(vec![
            format!("@{name}").into(),
            count,
            output::dash(&nodes.fold()).into(),
        ]);
    }
    output::print(&output::render(&table))
}
