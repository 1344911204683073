//! `[bmc]`: the controllers that switch the nodes' power, and the settings by which a profile or a node differs.

use super::{
    Bmc, BmcDriver, Cluster, Network,
    diagnostic::{Report, quote},
    network,
    section::Section,
    server::read_path,
};
use rackstrap_base::subnet::Subnet;
use rackstrap_hostlist::naming::{Naming, Pattern};
use std::{net::Ipv4Addr, path::Path};
use toml::Spanned;

/// The settings of profiles and nodes.
pub const ADDRESS: &str = "bmc-address";
/// The user.
pub const USER: &str = "bmc-user";
/// The file with the password.
pub const PASSWORD_FILE: &str = "bmc-password-file";

/// The end of a BMC's name: `r01n03-bmc`.
pub const SUFFIX: &str = "bmc";

/// Most bytes of a user's name (22.28 of "IPMI Specification, v2.0, rev. 1.1").
const MOST_NAME: usize = 16;

type Problem = (String, String);

/// The parts of the site that BMCs depend on.
pub(super) struct Rest<'a> {
    pub cluster: &'a Cluster,
    pub subnets: &'a [Subnet],
    pub networks: &'a [Network],
    pub directory: &'a Path,
}

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>, rest: &Rest<'_>) -> Bmc {
    let patterns = network::addresses(report, section, "address", &rest.cluster.naming, SUFFIX).unwrap_or_default();
    collisions(report, section, &patterns, rest);
    let driver = section.parsed(report, "driver", "\"ipmi\"", read_driver);
    let user = section.parsed(report, "user", "\"admin\"", read_user);
    let path = |text: &str| read_path(text, rest.directory);
    let file = section.parsed(report, "password-file", "\"/etc/rackstrap/bmc.password\"", path);
    Bmc {
        hosts: match patterns.is_empty() {
            true => None,
            false => Naming::of(patterns).ok(),
        },
        driver: driver.map(Spanned::into_inner).unwrap_or_default(),
        user: user.map(Spanned::into_inner).unwrap_or_default(),
        password_file: file.map(Spanned::into_inner),
    }
}

/// Reports addresses of BMCs that another host has. BMCs may be in a subnet of the nodes.
fn collisions(report: &mut Report<'_>, section: &Section<'_>, patterns: &[Pattern], rest: &Rest<'_>) {
    let at = section.key_at("address");
    let nodes = rest.cluster.naming.patterns().iter();
    let of_networks = rest.networks.iter().filter_map(|network| network.hosts.as_ref());
    let all: Vec<Pattern> = nodes
        .chain(of_networks.flat_map(|hosts| hosts.patterns()))
        .chain(patterns)
        .cloned()
        .collect();
    let own = all.len() - patterns.len();
    let clashes = Naming::of(all).err().unwrap_or_default();
    if let Some(clash) = clashes.into_iter().find(|clash| clash.second >= own) {
        let message = format!("{}: {}", clash.kind, clash.message);
        let help = "give the BMCs addresses of their own, such as address = \"10.6.{rack}.{slot}\"";
        report.error(at, message, help);
        return;
    }
    for subnet in rest.subnets {
        let hosts = [
            (Some(subnet.server), "the daemon's own"),
            (subnet.router, "the router's"),
        ];
        let pool = subnet.pool.map(|(first, _)| first);
        let of_host = hosts.into_iter().find_map(|(address, what)| {
            let name = patterns.iter().find_map(|pattern| pattern.address_to_name(address?))?;
            Some(format!("{name} would have {}, which is {what}", address?))
        });
        let of_pool = || {
            let (first, last) = subnet.pool?;
            let (from, to) = (u32::from(first), u32::from(last));
            // A pool has 65,536 addresses at most: a larger one is checked at its beginning.
            let mut addresses = (from..=to).take(1 << 16).map(Ipv4Addr::from);
            addresses.find_map(|address| {
                let name = patterns.iter().find_map(|pattern| pattern.address_to_name(address))?;
                Some(format!(
                    "{name} would have {address}, which is in the pool that begins with {}",
                    pool?
                ))
            })
        };
        if let Some(message) = of_host.or_else(of_pool) {
            let help = "choose another address, or a pattern with an offset, such as 10.6.{rack}.{slot+10}";
            report.error(at.clone(), message, help);
            return;
        }
    }
}

fn read_driver(text: &str) -> Result<BmcDriver, Problem> {
    match text {
        "ipmi" => Ok(BmcDriver::Ipmi),
        other => Err((
            format!("{} is not a driver of BMCs", quote(other)),
            "write driver = \"ipmi\", for IPMI 2.0 over LAN".to_owned(),
        )),
    }
}

/// An empty text means that the node has no BMC, for a node in a site with `[bmc]`.
pub(super) fn read_address(text: &str) -> Result<String, Problem> {
    let host = |address: &Ipv4Addr| !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast();
    match text.is_empty() || text.parse().as_ref().is_ok_and(host) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not the IPv4 address of a BMC", quote(text)),
            format!("write {ADDRESS} = \"10.6.200.3\", or \"\" for a node without a BMC"),
        )),
    }
}

pub(super) fn read_user(text: &str) -> Result<String, Problem> {
    match text.len() <= MOST_NAME && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not a user of a BMC", quote(text)),
            format!("write at most {MOST_NAME} letters, digits and signs without blanks, such as \"admin\""),
        )),
    }
}

pub(super) fn read_file(text: &str) -> Result<String, Problem> {
    let plain = text.starts_with('/') && text.len() <= 4095 && !text.chars().any(char::is_control);
    match plain {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not the path of a file on this server", quote(text)),
            format!("write it from the root, such as {PASSWORD_FILE} = \"/etc/rackstrap/bmc.password\""),
        )),
    }
}
