//! `/etc/ethers` (ethers(5)): one hardware address and one name or address on each line.

use super::{
    Draft, mac,
    report::{Report, shown, words},
};
use std::net::Ipv4Addr;

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (offset, line) in report.lines() {
        // Here a comment needs no blank before it, because addresses and names contain no '#'.
        let line = line.split('#').next().unwrap_or_default();
        let all: Vec<_> = words(line, offset).collect();
        let [(mac_at, mac_text), rest @ ..] = all.as_slice() else {
            continue;
        };
        let whole = mac_at.start..all.last().map_or(mac_at.end, |(at, _)| at.end);
        let Some(hwaddr) = mac::hwaddr(mac_text) else {
            match rest.first().and_then(|(_, word)| mac::hwaddr(word)) {
                Some(hwaddr) => report.error(
                    whole,
                    format!("'{}' is where the hardware address should be", shown(mac_text)),
                    format!("write {hwaddr} {}", shown(mac_text)),
                ),
                None => report.error(mac_at.clone(), mac::wrong(mac_text), mac::HELP),
            }
            continue;
        };
        match rest {
            [(at, host)] => {
                let ipaddr: Option<Ipv4Addr> = host.parse().ok();
                drafts.push(Draft {
                    at: at.clone(),
                    name: ipaddr.is_none().then(|| (*host).to_owned()),
                    hwaddrs: vec![(mac_at.clone(), hwaddr)],
                    ipaddr,
                    card: true,
                    ..Draft::default()
                });
            }
            [] => report.error(
                whole,
                "a hardware address without a name",
                format!("write whose it is: {hwaddr} r01n01"),
            ),
            [_, (at, second), ..] => report.error(
                at.clone(),
                format!("'{}' is one word too many", shown(second)),
                "a line is a hardware address and one name or address",
            ),
        }
    }
    drafts
}
