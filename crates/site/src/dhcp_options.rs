//! `mtu` and `dhcp-options`, which subnets and profiles have.

use super::{diagnostic::Report, section::Section};
use ipnet::Ipv4Net;
use rackstrap_base::dhcp_option::{DhcpOption, merged};
use toml::Spanned;

pub(super) const KEY: &str = "dhcp-options";
pub(super) const MTU_KEY: &str = "mtu";
/// 576: every host takes datagrams of that size (RFC 791 section 3.1), and file servers expect it. 9,216: the largest frames that switches
/// pass on.
const MTU: std::ops::RangeInclusive<u64> = 576..=9216;
/// A reply of 576 bytes, which every client takes, has room for less.
const MOST: usize = 32;

pub(super) fn read_mtu(report: &mut Report<'_>, section: &Section<'_>) -> Option<u16> {
    let mtu = section.integer(report, MTU_KEY, MTU, 9000)?;
    u16::try_from(mtu.into_inner()).ok()
}

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Option<Vec<DhcpOption>> {
    let example = "[\"routes 10.6.0.0/16 via 10.5.0.2\"]";
    let all = section.list(report, KEY, example, DhcpOption::parse)?;
    if all.len() > MOST {
        let message = format!("there are {} entries in '{KEY}', at most {MOST}", all.len());
        report.error(section.key_at(KEY), message, "leave some out");
    }
    for (i, one) in all.iter().enumerate().take(MOST) {
        let code = one.get_ref().code;
        if all[..i].iter().any(|other| other.get_ref().code == code) {
            let message = format!("option {code} is in '{KEY}' twice");
            report.error(one.span(), message, "write all its values in one entry");
        }
    }
    Some(all.into_iter().map(Spanned::into_inner).collect())
}

/// Puts the options of `from` after those of `to`, instead of those with the same code.
pub(super) fn add(to: &mut Option<Vec<DhcpOption>>, from: &Option<Vec<DhcpOption>>) {
    let to = to.get_or_insert_default();
    let more = from.as_deref().unwrap_or_default();
    *to = merged(to, more).into_iter().cloned().collect();
}

/// Warns of routers that the subnet's machines cannot reach.
pub(super) fn check_routers(report: &mut Report<'_>, section: &Section<'_>, options: &[DhcpOption], network: Ipv4Net) {
    let routers = options.iter().flat_map(|option| &option.routers);
    for router in routers.filter(|router| !network.contains(*router)) {
        let message = format!("the router {router} of a route is not in {network}, so nodes cannot reach it");
        report.warn(section.key_at(KEY), message, "name a router in the subnet");
    }
}
