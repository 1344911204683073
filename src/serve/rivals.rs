//! Other DHCP servers on the networks: which are expected, which are reported, and whose offer a node took.

use rackstrap_base::{
    clock::Timestamp,
    sync::lock,
    warnings::{DHCP_SERVER, SiteWarnings},
};
use rackstrap_dhcp::{ASK_EVERY, Rival};
use rackstrap_site::Site;
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

/// How long a server is remembered after it was heard: until it did not answer two requests.
const REMEMBERED_MS: u64 = (2 * ASK_EVERY.as_secs() + 60) * 1000;

/// Servers of one interface that are remembered. Root on any machine can forge any number of them.
const MOST: usize = 64;

/// The interfaces on which other DHCP servers are looked for.
pub fn searched(site: &Site) -> BTreeSet<String> {
    if !site.server.look_for_dhcp_servers {
        return BTreeSet::new();
    }
    let subnets = site.subnets.iter();
    subnets.filter_map(|subnet| subnet.interface.clone()).collect()
}

/// The servers that were heard; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Rivals(Arc<Mutex<Heard>>);

/// By interface and address: the MAC address, and when it was heard last.
type Heard = BTreeMap<String, BTreeMap<Ipv4Addr, (HwAddr, Timestamp)>>;

impl Rivals {
    /// A server answered. Reports it, unless it is the one that gives the addresses there: in `status` and `explain` until it did not answer
    /// two requests, and once in the log.
    pub fn hear(&self, warnings: &SiteWarnings, site: &Site, rival: &Rival, now: Timestamp) {
        let mut heard = lock(&self.0);
        let known = heard.entry(rival.interface.clone()).or_default();
        known.retain(|_, (_, at)| now.is_within(REMEMBERED_MS, *at));
        if known.len() < MOST || known.contains_key(&rival.server) {
            known.insert(rival.server, (rival.hwaddr, now));
        }
        let all = known.clone();
        drop(heard);
        for (server, message) in judge(site, &rival.interface, &all, rival) {
            report(warnings, &rival.interface, &server, &message, now);
        }
    }

    /// `10.5.0.9 at 52:54:00:00:09:09`; the address alone if that server was not heard.
    pub fn name_of(&self, server: Ipv4Addr) -> String {
        let heard = lock(&self.0);
        let found = heard.values().find_map(|known| known.get(&server));
        match found {
            Some((hwaddr, _)) => format!("{server} at {hwaddr}"),
            None => server.to_string(),
        }
    }

    /// Takes away what was reported on interfaces where `site` does not look for other DHCP servers, or expects them.
    pub fn forget(&self, warnings: &SiteWarnings, site: &Site) {
        let searched = searched(site);
        lock(&self.0).retain(|interface, _| searched.contains(interface));
        warnings.retain_servers(|topic| {
            let mut words = topic.split(' ');
            let interface = words.next().unwrap_or_default();
            let server = words.next().and_then(|word| word.parse().ok());
            let expected = expected(site, interface);
            searched.contains(interface)
                && match expected {
                    None => true,
                    // Without a list it is known only after the next question which of them are too many.
                    Some(list) => !list.is_empty() && server.is_some_and(|server| !list.contains(&server)),
                }
        });
    }
}

/// The servers that give the addresses on an interface, as the site file names them; empty if it names none. None where the daemon gives them
/// itself.
fn expected(site: &Site, interface: &str) -> Option<BTreeSet<Ipv4Addr>> {
    let here = site
        .subnets
        .iter()
        .filter(|subnet| subnet.interface.as_deref() == Some(interface));
    let mut of_others = here.filter(|subnet| subnet.dhcp.is_of_another_server()).peekable();
    of_others.peek()?;
    Some(
        of_others
            .flat_map(|subnet| subnet.dhcp_servers.iter().copied())
            .collect(),
    )
}

/// Which of the servers `all` on an interface are to be reported now that `rival` was heard, each with the message.
fn judge(
    site: &Site,
    interface: &str,
    all: &BTreeMap<Ipv4Addr, (HwAddr, Timestamp)>,
    rival: &Rival,
) -> Vec<((Ipv4Addr, HwAddr), String)> {
    let one = |server: Ipv4Addr, hwaddr: HwAddr, why: &str| {
        let message = format!("another DHCP server answers on {interface}: {server} at {hwaddr}; {why}");
        ((server, hwaddr), message)
    };
    match expected(site, interface) {
        None => {
            let why = "a node that takes its offer does not boot from here";
            vec![one(rival.server, rival.hwaddr, why)]
        }
        Some(list) if list.contains(&rival.server) => Vec::new(),
        Some(list) if !list.is_empty() => {
            let named: Vec<String> = list.iter().map(Ipv4Addr::to_string).collect();
            let why = format!("'dhcp-servers' of the [[subnet]] names {}", named.join(", "));
            vec![one(rival.server, rival.hwaddr, &why)]
        }
        // The first one is taken for the one that gives the addresses.
        Some(_) if all.len() < 2 => Vec::new(),
        Some(_) => {
            let why = format!("{} servers answer there, and nodes take either's offer", all.len());
            all.iter()
                .map(|(server, (hwaddr, _))| one(*server, *hwaddr, &why))
                .collect()
        }
    }
}

fn report(warnings: &SiteWarnings, interface: &str, server: &(Ipv4Addr, HwAddr), message: &str, now: Timestamp) {
    let (server, hwaddr) = server;
    let help = format!(
        "stop it, or remove it from this network; the switch's MAC table shows its port under {hwaddr}. If it must \
         stay, exclude the nodes in its configuration, or with dhcp = \"proxy\" or \"off\" write it into 'dhcp-servers' of the [[subnet]]"
    );
    let topic = format!("{DHCP_SERVER}{interface} {server} {hwaddr}");
    if warnings.raise_for(now, REMEMBERED_MS / 1000, &topic, message, &help) {
        tracing::warn!("{message}; {help}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn site(subnet: &str) -> Site {
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\n\
             interface = \"eth1\"\nserver = \"10.5.0.1\"\n{subnet}"
        );
        let (site, _) = rackstrap_site::parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site
    }

    fn rival(last: u8) -> Rival {
        Rival {
            interface: "eth1".to_owned(),
            server: Ipv4Addr::new(10, 5, 0, last),
            hwaddr: HwAddr([0x52, 0x54, 0, 0, 9, last]),
        }
    }

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn messages(warnings: &SiteWarnings) -> Vec<String> {
        warnings.list(NOW).into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn where_the_daemon_gives_addresses_each_other_server_is_reported() {
        let (rivals, warnings, site) = (Rivals::default(), SiteWarnings::default(), site(""));
        assert_eq!(searched(&site), BTreeSet::from(["eth1".to_owned()]));
        rivals.hear(&warnings, &site, &rival(9), NOW);
        assert_eq!(
            messages(&warnings),
            [
                "another DHCP server answers on eth1: 10.5.0.9 at 52:54:00:00:09:09; a node that takes its offer does not boot from here"
            ]
        );
        assert_eq!(rivals.name_of(rival(9).server), "10.5.0.9 at 52:54:00:00:09:09");
        assert_eq!(rivals.name_of(rival(8).server), "10.5.0.8");
        rivals.forget(&warnings, &site);
        assert_eq!(messages(&warnings).len(), 1);
        rivals.forget(&warnings, &super::tests::site("dhcp = \"proxy\""));
        assert!(messages(&warnings).is_empty());
    }

    #[test]
    fn beside_another_server_a_second_one_is_reported_with_the_first() {
        for part in ["proxy", "off"] {
            let (rivals, warnings) = (Rivals::default(), SiteWarnings::default());
            let site = site(&format!("dhcp = \"{part}\""));
            assert_eq!(searched(&site).len(), 1);
            for _ in 0..3 {
                rivals.hear(&warnings, &site, &rival(9), NOW);
            }
            assert_eq!(messages(&warnings), [""; 0], "the one that gives the addresses");
            rivals.hear(&warnings, &site, &rival(8), NOW);
            let all = messages(&warnings);
            assert_eq!(all.len(), 2, "{all:?}");
            for (server, message) in [8, 9].into_iter().zip(&all) {
                let named = format!("10.5.0.{server} at 52:54:00:00:09:0{server}; 2 servers answer there");
                assert!(message.contains(&named), "{message}");
            }
        }
        // One that was replaced long ago is not counted.
        let (rivals, warnings) = (Rivals::default(), SiteWarnings::default());
        let site = site("dhcp = \"proxy\"");
        rivals.hear(&warnings, &site, &rival(9), NOW);
        rivals.hear(&warnings, &site, &rival(8), NOW.plus_secs(REMEMBERED_MS / 1000 + 1));
        assert!(warnings.list(NOW.plus_secs(REMEMBERED_MS / 1000 + 1)).is_empty());
    }

    #[test]
    fn servers_that_the_site_file_names_are_expected_and_no_others() {
        let (rivals, warnings) = (Rivals::default(), SiteWarnings::default());
        let site = site("dhcp = \"proxy\"\ndhcp-servers = [\"10.5.0.8\", \"10.5.0.9\"]");
        for last in [8, 9] {
            rivals.hear(&warnings, &site, &rival(last), NOW);
        }
        assert!(messages(&warnings).is_empty());
        rivals.hear(&warnings, &site, &rival(7), NOW);
        let all = messages(&warnings);
        assert!(
            all.len() == 1 && all[0].contains("10.5.0.7") && all[0].contains("names 10.5.0.8, 10.5.0.9"),
            "{all:?}"
        );
        rivals.forget(&warnings, &site);
        assert_eq!(messages(&warnings).len(), 1);
    }

    #[test]
    fn forged_servers_take_a_bounded_place() {
        let (rivals, warnings, site) = (Rivals::default(), SiteWarnings::default(), site("dhcp = \"proxy\""));
        for server in 0..1000u32 {
            let rival = Rival {
                server: Ipv4Addr::from(0x0a05_0000 + server),
                ..rival(1)
            };
            rivals.hear(&warnings, &site, &rival, NOW);
        }
        assert_eq!(lock(&rivals.0)["eth1"].len(), MOST);
        assert!(warnings.list(NOW).len() < 16);
    }
}
