//! `rackstrap node`: one file each for showing nodes, changing them, and importing and exporting them.

mod boot;
mod change;
mod edit;
mod history;
mod reprep;
mod restart;
mod settings;
mod show;
mod transfer;

pub use change::prospects;
pub use show::{boots_table, network_facts, settings_table};

use super::{
    connection::connect,
    hostlist::{HELP, Wanted},
    output::{self, Format},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use rackstrap_control::{Client, api};
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
    /// Names or hostlists, such as 'r[01-04]n*' [default: all nodes]
    #[arg(value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Print only the names, as one hostlist for Slurm and ClusterShell
    #[arg(long, conflicts_with = "json")]
    names: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Add a node: its name gives its address, its MAC address identifies the machine
    #[command(after_help = "\
The machine's next packet gets the node's answers. A machine that is already waiting boots within seconds.

Examples:
  rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01
  rackstrap node add r01n02 --hwaddr 52-54-00-01-01-02 --hwaddr 5254.0002.0102   (two cards)
  rackstrap node add r02n01 --hwaddr 52:54:00:02:01:01 --profile gpu --group big
  rackstrap node add r02n02 console=ttyS1,115200 --hwaddr 52:54:00:02:01:02    (a setting of its own)")]
    Add(change::AddArgs),
    /// List nodes
    #[command(after_help = format!("{HELP}\n\n\
Examples:
  rackstrap node list
  rackstrap node list 'r[01-02]n*' @gpu
  rackstrap node list @state:lost --names             (for pdsh -w \"$(rackstrap node list @gpu --names)\")
  rackstrap node list --json | jq -r '.[].ipaddr'"))]
    List(ListArgs),
    /// List the groups for hostlists: @gpu, @profile:compute, @rack:r03, @state:lost
    #[command(after_help = "\
`rackstrap node set` puts nodes into groups (--join) and takes them out (--leave). Groups with a colon are computed.

Example:
  rackstrap node groups")]
    Groups(Format),
    /// Show nodes: settings, hardware, state, boots
    #[command(after_help = "\
Examples:
  rackstrap node show r01n01
  rackstrap node show 'r01n[01-04]' --json | jq -r .hardware.serial")]
    Show(show::ShowArgs),
    /// Change profiles, groups, attributes, MAC addresses or settings of nodes
    #[command(after_help = "\
KEY is a key of a profile. The node's own value wins over those of its profiles. += adds to what its profiles have, also
after these change, and -= takes away what the node itself added; both are for kernel-args, templates, authorized-keys and
checks. Settings that are not named stay as they are. The change takes effect at the next boot, and is made for all of the
nodes or for none.

Examples:
  rackstrap node set r01n01 r01n02 --profile compute --profile gpu   (gpu wins over compute)
  rackstrap node set 'r[01-04]n[01-32]' --join big --leave test
  rackstrap node set r01n03 image=debian@2 console=ttyS1,115200 kernel-args+=hugepages=64
  rackstrap node set @gpu templates+=gpu checks+='unit nvidia-persistenced.service'
  rackstrap node set r01n01 --attr location='row 3'   (templates read node.attributes.location)
  rackstrap node set r01n01 --hwaddr 52:54:00:01:01:01 --hwaddr 52:54:00:01:01:81   (a second card)
  pdsh -w @new uname -m | awk -F: '/aarch64/ {print $1}' | rackstrap node set - --profile arm")]
    Set(change::SetArgs),
    /// Change nodes in an editor, as TOML
    #[command(after_help = "\
Opens $VISUAL, $EDITOR or vi. Text that you delete changes nothing; a new table adds a node. Errors are shown with
their lines, and you can edit again. Nothing changes before you confirm.

Examples:
  rackstrap node edit r01n01
  rackstrap node edit @rack:r03
  rackstrap node edit @rack:r03 --dry-run
  EDITOR='sed -i s/compute/gpu/' rackstrap node edit 'r01n[01-04]' --yes")]
    Edit(edit::EditArgs),
    /// Remove profiles, groups, attributes, MAC addresses or settings from nodes
    #[command(after_help = "\
Examples:
  rackstrap node unset r04n01 --profile wipe  (keeps its other profiles)
  rackstrap node unset @test --group test
  rackstrap node unset @test --attr location
  rackstrap node unset r01n03 console kernel-args     (those of its profiles hold again)
  rackstrap node unset r01n01 --profiles      (keeps the profile default)
  rackstrap node unset 'r01n[01-02]' --groups")]
    Unset(change::UnsetArgs),
    /// Give a node another machine: a new mainboard or network card
    #[command(after_help = "\
The node keeps its name, its address, its profiles and its ssh host keys.

Example:
  rackstrap node replace r01n07 --hwaddr 52:54:00:ab:cd:ef")]
    Replace(change::ReplaceArgs),
    /// Rename nodes; each gets the address of its new name
    #[command(after_help = "\
The node keeps its profiles, groups, ssh host keys and timeline. Switch it off first: a running node is not renamed,
because its root belongs to its address.

Examples:
  rackstrap node rename r01n07 r03n01
  rackstrap node rename 'r01n[01-32]' 'r03n[01-32]'    (a whole rack was moved)")]
    Rename(change::RenameArgs),
    /// Delete nodes, with their timelines and ssh host keys
    #[command(after_help = "\
The machine becomes an unknown machine. Switch it off first: a running node is not deleted, because it would lose its root.

Examples:
  rackstrap node delete r01n01
  rackstrap node delete @old --dry-run               (deletes nothing)
  rackstrap node delete r01n01 --yes                 (does not ask)
  rackstrap node delete r01n01 --yes --running       (although it is up; it hangs until it is restarted)")]
    Delete(change::DeleteArgs),
    /// Import nodes from a file: all of them or none
    #[command(after_help = "\
Files: TOML as `rackstrap node export` writes it, CSV (name,hwaddr,profiles,groups), ISC dhcpd.conf, dnsmasq's dhcp-host lines,
/etc/ethers, and a switch's MAC table as its terminal shows it, with a port map such as 'Gi1/0/[1-32] = r03n[01-32]'.

If the file has errors, all of them are shown with line and column, and nothing is imported. Existing nodes are
changed to what the file says; nodes that are not in the file stay as they are.

Examples:
  rackstrap node import nodes.csv --dry-run
  rackstrap node import /etc/dhcp/dhcpd.conf
  rackstrap node import mac-table.txt --ports rack3.map")]
    Import(transfer::ImportArgs),
    /// Print nodes as TOML, to keep in git, edit and import
    #[command(after_help = "\
Examples:
  rackstrap node export > nodes.toml
  rackstrap node export 'r01n*!r01n05'")]
    Export(transfer::ExportArgs),
    /// Restart running nodes, drained first and a few at a time
    #[command(after_help = format!("{HELP}\n\n\
First the site's drain program ([hooks] drain) takes the node out of service. The node gets the order with the answer
to its next heartbeat, and restarts like `systemctl reboot`. When it is ready and passes its checks, the resume
program puts it back. If a node does not come back in time, no further nodes restart.

Examples:
  rackstrap node restart r01n01
  rackstrap node restart 'r01n[01-32]' --max-down 4 --reason 'new kernel'
  rackstrap node restart @gpu --dry-run
  rackstrap node restart --list
  rackstrap node restart --cancel 'r01n[20-32]'"))]
    Restart(restart::RestartArgs),
    /// Order what the next boot does, once: a rescue shell, memtest, the own disk, another image
    #[command(after_help = format!("{HELP}\n\n\
The boot after it is as usual. The order does not restart the node, and attempts of the same boot have it, too.

  rescue          a shell on the console and by ssh; no disk is touched
  shell           a shell on the console only; no disk is touched
  local           the system on the node's own disk
  memtest         memtest86+, if the server has it
  script:FILE     a boot script in bootscripts-dir, such as script:flash.ipxe.j2
  image=NAME@N    another version of an image

Examples:
  rackstrap node boot r01n03 --once rescue && rackstrap node restart r01n03
  rackstrap node boot 'r01n[01-04]' --once image=debian@2
  rackstrap node boot r01n03 --once memtest
  rackstrap node boot r01n03 --cancel
  rackstrap node boot --list"))]
    Boot(boot::BootArgs),
    /// Prepare disks again at the next boot, or accept a replaced disk
    #[command(after_help = format!("{HELP}\n\n\
The order is for one boot and does not restart the node. If the disk of the last boot is missing, the node writes to
no other disk until you run this with --new-disk.

Examples:
  rackstrap node reprep r01n07                     (erases its disk and prepares it again)
  rackstrap node reprep r01n07 --partition tmp     (makes one file system again)
  rackstrap node reprep r01n07 --new-disk          (after a broken disk was replaced)
  rackstrap node reprep r01n07 --wipe-foreign      (erases data of another system)
  rackstrap node reprep r01n07 --cancel"))]
    Reprep(reprep::ReprepArgs),
    /// Show who changed a node, what and when
    #[command(after_help = "\
The history of deleted nodes is kept too.

Example:
  rackstrap node history r01n01")]
    History(history::HistoryArgs),
}

/// Runs the command.
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
        NodeCommand::Boot(args) => boot::run(&client, args)?,
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
