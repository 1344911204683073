//! The inventory in the formats of other programs, with one file for each format.
//!
//! Text in, text out: the caller supplies the data of each node ([`ExportNode`]). Names, domains and groups were checked
//! by the inventory and the site file. The output is in natural order and contains no date, so an unchanged inventory exports
//! to the same bytes, and files can be compared before a program reloads.

mod all;
mod ansible;
mod boot;
mod dhcpd;
mod dnsmasq;
mod ethers;
mod genders;
mod hostlist;
mod hosts;
mod kea;
mod known_hosts;
mod prometheus;
mod slurm;
#[cfg(test)]
mod tests;

pub use boot::{BootFile, BootSubnet};
use rackstrap_hostlist::natural_cmp;
use rackstrap_wire::{Hardware, HwAddr};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

/// The data of an exported node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportNode {
    /// Name, `r01n03`.
    pub name: String,
    /// Address on the boot network.
    pub ipaddr: Ipv4Addr,
    /// Hardware addresses; the first is the card that boots.
    pub hwaddrs: Vec<HwAddr>,
    /// Domain of the site; none if it has none.
    pub domain: Option<String>,
    /// Profiles, as the node names them.
    pub profiles: Vec<String>,
    /// The groups that the node is in.
    pub groups: Vec<String>,
    /// What its agent found; none before its first boot.
    pub hardware: Option<Hardware>,
    /// Size in bytes of the local partition for jobs' temporary files (Slurm's `TmpFS`), not of the whole disk: Slurm drains
    /// a node that has less than was promised. None without such a partition, or if its size is unknown.
    pub scratch: Option<u64>,
    /// Its names and addresses in further networks: `r01n03-ib`.
    pub networks: Vec<(String, Ipv4Addr)>,
    /// The rack that its name says; empty if it says none.
    pub rack: String,
    /// Its state in a word.
    pub state: String,
    /// The image version that it boots or booted; none if it never booted.
    pub image: Option<String>,
    /// Attributes that administrators set, by name.
    pub attributes: BTreeMap<String, String>,
    /// Its own settings, by key, without the values of secret variables.
    pub settings: BTreeMap<String, Value>,
    /// The variables of the node and its profiles that are not secret, by name.
    pub vars: BTreeMap<String, Value>,
    /// Public host keys of its sshd, as in a `.pub` file; empty before its first boot.
    pub host_keys: Vec<String>,
}

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lines for `/etc/hosts`, hosts(5).
    Hosts,
    /// Lines for `/etc/ethers`, ethers(5).
    Ethers,
    /// `dhcp-host=` lines and boot options, dnsmasq(8).
    Dnsmasq,
    /// Hosts and boot options, dhcpd.conf(5).
    Dhcpd,
    /// Reservations and classes, for the map `Dhcp4` of Kea's configuration.
    Kea,
    /// `NodeName=` lines, slurm.conf(5).
    Slurm,
    /// Lines for `/etc/genders`, libgenders(3).
    Genders,
    /// All names on one line, [`rackstrap_hostlist`].
    Hostlist,
    /// An inventory as JSON, for Ansible.
    Ansible,
    /// Targets as JSON, for Prometheus' `file_sd_configs`.
    Prometheus,
    /// Lines for `/etc/ssh/ssh_known_hosts`, sshd(8).
    KnownHosts,
    /// Everything about nodes as JSON, which an import reads.
    All,
}

impl Format {
    /// Whether it is for a DHCP server, which also needs to know what the networks boot.
    pub fn is_of_dhcp(self) -> bool {
        matches!(self, Format::Dnsmasq | Format::Dhcpd | Format::Kea)
    }

    /// Whether the text is JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Ansible | Format::Prometheus | Format::All)
    }

    /// Whether it has the nodes' host keys.
    pub fn has_host_keys(self) -> bool {
        matches!(self, Format::KnownHosts | Format::All)
    }

    /// All formats, as `--help` lists them.
    pub const ALL: [Format; 12] = [
        Format::Hosts,
        Format::Ethers,
        Format::Dnsmasq,
        Format::Dhcpd,
        Format::Kea,
        Format::Slurm,
        Format::Genders,
        Format::Hostlist,
        Format::Ansible,
        Format::Prometheus,
        Format::KnownHosts,
        Format::All,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Hosts => "hosts",
            Format::Ethers => "ethers",
            Format::Dnsmasq => "dnsmasq",
            Format::Dhcpd => "dhcpd",
            Format::Kea => "kea",
            Format::Slurm => "slurm",
            Format::Genders => "genders",
            Format::Hostlist => "hostlist",
            Format::Ansible => "ansible",
            Format::Prometheus => "prometheus",
            Format::KnownHosts => "known_hosts",
            Format::All => "all",
        }
    }

    /// `nodes` in this format; every line ends in a line feed.
    ///
    /// All formats except [`Format::Hostlist`] and JSON begin with a comment that names the command. A hostlist is used in
    /// other commands (`pdsh -w "$(rackstrap export hostlist)"`), and contains only the list. The formats of DHCP servers have
    /// the boot options of `subnets`.
    pub fn write(self, nodes: &[ExportNode], subnets: &[BootSubnet]) -> String {
        let mut sorted: Vec<&ExportNode> = nodes.iter().collect();
        sorted.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        match self {
            Format::Hosts => hosts::write(&sorted),
            Format::Ethers => ethers::write(&sorted),
            Format::Dnsmasq => dnsmasq::write(&sorted, subnets),
            Format::Dhcpd => dhcpd::write(&sorted, subnets),
            Format::Kea => kea::write(&sorted, subnets),
            Format::Slurm => slurm::write(&sorted),
            Format::Genders => genders::write(&sorted),
            Format::Hostlist => hostlist::write(&sorted),
            Format::Ansible => ansible::write(&sorted),
            Format::Prometheus => prometheus::write(&sorted),
            Format::KnownHosts => known_hosts::write(&sorted),
            Format::All => all::write(&sorted),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Format::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| {
            let all = Format::ALL.map(Format::as_str).join(", ");
            format!(
                "'{}' is not an export format; write one of {all}",
                text.escape_default()
            )
        })
    }
}

/// A value as JSON for people and programs.
fn json_text(value: &impl Serialize) -> String {
    // Cannot fail: all keys are texts.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The comment that names the command.
fn header(format: Format, nodes: &[&ExportNode]) -> String {
    let count = match nodes.len() {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    format!(
        "# Made by 'rackstrap export {format}' from its inventory ({count}). Change the inventory, not this: the next export \
         replaces it.\n"
    )
}

/// Text from outside, for a comment: on one line, and short.
fn comment(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}
