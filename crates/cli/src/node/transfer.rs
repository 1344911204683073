//! `rackstrap node import` and `export`: the inventory as a file.

use super::change::send;
use crate::{
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_control::{Client, api};
use rackstrap_exchange::import::{self, FILE_BYTES, ImportError, Judged, Options, Places, Ports};
use rackstrap_model::inventory::{Changed, Inventory, Node};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// With `--only`, at most this many problems of other nodes are shown.
const PASSED_OVER: usize = 10;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File to read, or - for standard input
    file: PathBuf,
    /// Format of the file, if it is not recognised: toml, csv, dhcpd, dnsmasq, ethers, switch, warewulf, xcat, grendel, netbox,
    /// kea or json
    #[arg(long)]
    r#type: Option<import::Format>,
    /// Port map for a switch's MAC table: which port leads to which node
    #[arg(long, value_name = "FILE")]
    ports: Option<PathBuf>,
    /// Import only these nodes, and ignore errors in other lines: names or hostlists; repeat for more
    #[arg(long, value_name = "NODES")]
    only: Vec<String>,
    /// Ignore the file's addresses: each node gets the address of its name
    #[arg(long)]
    new_addresses: bool,
    /// Keep the file's addresses: a node whose name does not stand for its address gets it as its own setting ipaddr
    #[arg(long, conflicts_with = "new_addresses")]
    keep_addresses: bool,
    /// Print the file's profiles and networks as sections of the site file, and import nothing
    #[arg(long)]
    profiles: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

/// Imports all nodes of a file, or none.
pub fn import(config: &Path, client: &Client, args: &ImportArgs) -> Result<()> {
    let (site, _) = rackstrap_site::load(config)?;
    let text = read(&args.file)?;
    let ports = args
        .ports
        .as_ref()
        .map(|path| Ok::<_, anyhow::Error>((path, read(path)?)))
        .transpose()?;
    let ports = ports.as_ref().map(|(path, text)| (path.display().to_string(), text));
    let options = Options {
        format: args.r#type,
        naming: &site.cluster.naming,
        domain: &site.cluster.domain,
        ports: ports.as_ref().map(|(file, text)| Ports { file, text }),
    };
    let file = args.file.display().to_string();
    let mut reading = import::read_some(&file, &text, &options)?;
    if args.profiles {
        return print_profiles(&reading);
    }
    let has_profiles = !reading.profiles().is_empty();
    if args.new_addresses {
        reading.forget_addresses();
    }
    if args.keep_addresses {
        reading.keep_addresses(&site.cluster.naming);
    }
    let only = match args.only.is_empty() {
        true => None,
        false => Some(Wanted::new(args.only.clone())?.names_among(reading.names().map(str::to_owned))?),
    };
    let judged = reading.judge(&file, &inventory(client)?, &site, only.as_ref());
    let Judged {
        import: read,
        mut difference,
        passed_over,
    } = match judged {
        Ok(judged) => judged,
        Err(error) => {
            let profiles = match has_profiles {
                true => "\nhelp: `--profiles` prints the file's profiles and networks as sections of the site file",
                false => "",
            };
            bail!("{error}{}{profiles}", remedies(&error, &args.only))
        }
    };
    for problem in passed_over.iter().take(PASSED_OVER) {
        eprintln!("{problem}");
    }
    if !passed_over.is_empty() {
        let count = output::count(passed_over.len(), "problem");
        eprintln!("ignored: {count} in lines of nodes that --only does not name");
    }
    for warning in &read.warnings {
        eprintln!("{warning}");
    }
    if read.unmapped_hwaddrs > 0 {
        eprintln!(
            "left out: {} on {} that the port map does not name",
            output::count(read.unmapped_hwaddrs, "hardware address"),
            output::count(read.unmapped_ports, "port")
        );
    }
    // A dry run asks the daemon, too, because the daemon makes the final check.
    let changed = send(client, difference.changes.clone(), args.dry_run, false)?;
    // Only the daemon knows whether the value of a secret variable is another one.
    let changed = changed
        .into_iter()
        .map(Changed::from)
        .filter(|changed| !changed.is_nothing());
    let changed: Vec<Changed> = changed.collect();
    difference.unchanged += difference.changed.len().saturating_sub(changed.len());
    difference.changed = changed;
    if args.format.json {
        return output::print_json(&difference);
    }
    output::print(&format!(
        "{difference}{}",
        if args.dry_run {
            "\nnothing was changed: --dry-run"
        } else {
            ""
        }
    ))
}

/// Prints the file's profiles, and what of them has no place in the site file.
fn print_profiles(reading: &import::Reading) -> Result<()> {
    for warning in reading.warnings() {
        eprintln!("{warning}");
    }
    if reading.profiles().is_empty() {
        bail!(
            "the file has neither profiles nor networks\nhelp: --profiles is for nodes.conf of Warewulf and tables of xCAT"
        );
    }
    output::print(reading.profiles().trim_end())
}

/// The options with which more of a file can be imported.
fn remedies(error: &ImportError, only: &[String]) -> String {
    let mut lines = String::new();
    if error.keepable > 0 {
        lines += "\nhelp: `--keep-addresses` gives these nodes the addresses of the file as their own setting ipaddr";
    }
    if error.addresses > 0 {
        lines += "\nhelp: `--new-addresses` gives each node the address of its name";
    }
    if only.is_empty() && error.problems.len() + error.omitted > error.addresses {
        lines += "\nhelp: `--only NODES` imports some nodes of the file and ignores errors in its other lines";
    }
    lines
}

/// The inventory as it is now.
pub fn inventory(client: &Client) -> Result<Inventory> {
    let nodes: Vec<api::NodeRow> = client.get(api::paths::NODES)?;
    Ok(Inventory::new(nodes.into_iter().map(Node::from)))
}

/// Reads a file, unless it is too long for a file of nodes.
fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let mut text = Vec::new();
    let most = FILE_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut text)
    } else {
        let file = File::open(path).with_context(|| format!("opening {shown}"))?;
        file.take(most).read_to_end(&mut text)
    }
    .with_context(|| format!("reading {shown}"))?;
    String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!(
            "{shown}: byte {at} is not UTF-8\nhelp: convert the file first, such as with `iconv -f latin1 -t utf8`"
        )
    })
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Names or hostlists, such as 'r[01-04]n*' [default: all nodes]
    #[arg(value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
}

/// Prints nodes as TOML, which `import` reads.
pub fn export(client: &Client, args: &ExportArgs) -> Result<()> {
    let nodes = Wanted::new(args.nodes.clone())?.nodes(client)?;
    output::print(to_toml(&nodes).trim_end())
}

/// Nodes as TOML.
pub fn to_toml(nodes: &[api::NodeRow]) -> String {
    let entries: Vec<import::Entry> = nodes
        .iter()
        .map(|node| import::Entry {
            line: 0,
            name: node.name.clone(),
            hwaddrs: node.hwaddrs.clone(),
            ipaddr: None,
            profiles: Some(node.profiles.clone()),
            groups: Some(node.groups.iter().cloned().collect()),
            attributes: Some(node.attributes.clone()),
            settings: Some(node.settings.clone()),
            adds: false,
            places: Places::default(),
        })
        .collect();
    import::to_toml(&entries)
}
