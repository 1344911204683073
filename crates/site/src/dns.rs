//! `[dns]`: the daemon as the cluster's name server, and the effect on subnets.

use super::{
    Cluster, Dns,
    diagnostic::{Report, quote},
    section::Section,
    subnet,
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
};
use toml::Spanned;

/// The server's name if the section names none; `templates/base/etc/hosts.j2` uses the same name.
const NAME: &str = "rackstrap";
/// Port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// More forwarders than this are an error: a question that no forwarder answers is given up before the fourth one is asked.
const MOST_FORWARDERS: usize = 8;

/// The section, with the places of its values.
pub(super) struct Read {
    at: Range<usize>,
    name: String,
    name_at: Range<usize>,
    forward: Vec<Spanned<SocketAddrV4>>,
}

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Read {
    if cfg!(not(feature = "dns")) {
        let message = "this build of rackstrap has no name server";
        let help = "build it with the feature dns (cargo build --release --features dns), or remove [dns]";
        report.error(section.at.clone(), message, help);
    }
    let name = section.parsed(report, "name", "\"rackstrap\"", read_label);
    let forward = section
        .list(report, "forward", "[\"10.0.0.53\"]", read_forwarder)
        .unwrap_or_default();
    if forward.len() > MOST_FORWARDERS {
        let message = format!(
            "there are {} servers in 'forward', at most {MOST_FORWARDERS}",
            forward.len()
        );
        report.error(section.key_at("forward"), message, "keep the nearest ones");
    }
    Read {
        at: section.at.clone(),
        name: name.map_or_else(|| NAME.to_owned(), Spanned::into_inner),
        name_at: section.key_at("name"),
        forward,
    }
}

/// The checks that need the rest of the site. Subnets without a list of name servers get their own server's address.
pub(super) fn settle(report: &mut Report<'_>, read: Read, cluster: &Cluster, subnets: &mut [subnet::Read]) -> Dns {
    if cluster.domain.is_empty() {
        let message = "[dns] answers for the names in the cluster's domain, but [cluster] has no 'domain'";
        let help = "write domain = \"cluster.example\" in [cluster], with your own domain";
        report.error(read.at.clone(), message, help);
    }
    if cluster.domain == "arpa" || cluster.domain.ends_with(".arpa") {
        let message = format!("{} is the domain of reverse lookups", quote(&cluster.domain));
        report.error(read.at.clone(), message, "give the cluster another domain in [cluster]");
    }
    if let Ok(address) = cluster.naming.name_to_address(&read.name) {
        let message = format!("{} is also the name of the node at {address}", quote(&read.name));
        let help = "give the server a name that does not follow node-name, such as name = \"rackstrap\"";
        report.error(read.name_at.clone(), message, help);
    }
    let servers: BTreeSet<Ipv4Addr> = subnets.iter().map(|s| s.value.server).collect();
    let mut forward = Vec::new();
    for forwarder in &read.forward {
        let address = *forwarder.get_ref();
        if forward.contains(&address) {
            let message = format!("the forwarder {address} is written twice");
            report.error(forwarder.span(), message, "remove one of the two");
        } else if address.port() == PORT && servers.contains(address.ip()) {
            let message = format!("{} is this server, which would forward to itself", address.ip());
            let help = "write other name servers, such as forward = [\"10.0.0.53\"]";
            report.error(forwarder.span(), message, help);
        }
        forward.push(address);
    }
    for subnet in subnets.iter_mut().filter(|s| !s.dns_given) {
        subnet.value.dns = vec![subnet.value.server];
    }
    let only_us = |s: &&subnet::Read| !s.value.dns.is_empty() && s.value.dns.iter().all(|a| servers.contains(a));
    if let Some(subnet) = subnets.iter().find(only_us).filter(|_| forward.is_empty()) {
        let message = format!(
            "names outside {} will not resolve on nodes in {}",
            cluster.domain, subnet.value.network
        );
        let help =
            "write forward = [\"10.0.0.53\"] with your name servers, or give the subnet a 'dns' list that has one";
        report.warn(read.at.clone(), message, help);
    }
    Dns {
        name: read.name,
        forward,
    }
}

/// One label of a host name (RFC 1123 section 2.1), in lower case.
fn read_label(text: &str) -> Result<String, (String, String)> {
    let fits = (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-');
    let clean = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if fits && text.bytes().all(clean) {
        return Ok(text.to_owned());
    }
    let help = match text.contains('.') {
        true => "leave the domain out: it is that of [cluster]",
        false => "write at most 63 of a-z, 0-9 and -, such as name = \"rackstrap\"",
    };
    Err((format!("{} is not a host's name", quote(text)), help.to_owned()))
}

/// An address, with or without a port.
fn read_forwarder(text: &str) -> Result<SocketAddrV4, (String, String)> {
    let help =
        || "write an address, with a port if it is not 53, such as \"10.0.0.53\" or \"10.0.0.53:5353\"".to_owned();
    let address = text.parse::<SocketAddrV4>();
    let Ok(address) = address.or_else(|_| text.parse().map(|ip: Ipv4Addr| SocketAddrV4::new(ip, PORT))) else {
        return Err((
            format!("{} is not the IPv4 address of a name server", quote(text)),
            help(),
        ));
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || address.port() == 0 {
        return Err((format!("no name server can be at {address}"), help()));
    }
    Ok(address)
}

#[cfg(all(test, feature = "dns"))]
mod tests {
    use crate::{ConfigError, Site, parse};
    use std::path::Path;

    const SMALL: &str = r#"[cluster]
domain = "cluster.example"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24", "10.5.255.0/24"]
[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"
"#;

    fn site(text: &str) -> (Site, Vec<String>) {
        let (site, warnings) = parse(text, Path::new("site.toml")).unwrap_or_else(|e| panic!("{e}"));
        (site, warnings.iter().map(ToString::to_string).collect())
    }

    /// The diagnostics of the small file with `from` replaced and `more` appended.
    fn said(from: &str, to: &str, more: &str) -> String {
        let text = format!("{}{more}\n", SMALL.replace(from, to));
        match parse(&text, Path::new("site.toml")) {
            Ok((_, warnings)) => warnings.iter().map(|w| format!("warning: {w}\n")).collect(),
            Err(error @ ConfigError::Invalid { .. }) => error.to_string(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn without_the_section_nothing_changes() {
        let (site, warnings) = site(SMALL);
        assert!(site.dns.is_none() && site.subnets[0].dns.is_empty() && warnings.is_empty());
    }

    #[test]
    fn subnets_without_dns_servers_use_this_one() {
        let text = format!(
            "{SMALL}[[subnet]]\nnetwork = \"10.6.0.0/16\"\ninterface = \"eth2\"\nserver = \"10.6.0.1\"\ndns = [\"10.6.0.53\"]\n\
             [[subnet]]\nnetwork = \"10.7.0.0/16\"\ninterface = \"eth3\"\nserver = \"10.7.0.1\"\ndns = []\n\
             [[subnet]]\nnetwork = \"10.8.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\nrouter = \"10.8.0.1\"\n\
             [dns]\nforward = [\"10.0.0.53\", \"10.0.0.54:5353\"]\n"
        );
        let (site, warnings) = site(&text);
        let servers: Vec<Vec<String>> = site
            .subnets
            .iter()
            .map(|s| s.dns.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(servers, [vec!["10.5.0.1"], vec!["10.6.0.53"], vec![], vec!["10.5.0.1"]]);
        let dns = site.dns.unwrap();
        assert_eq!(dns.name, "rackstrap");
        let forward: Vec<String> = dns.forward.iter().map(ToString::to_string).collect();
        assert_eq!(forward, ["10.0.0.53:53", "10.0.0.54:5353"]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn nodes_that_would_know_no_other_names_are_warned_of() {
        let outside = "names outside cluster.example will not resolve on nodes in 10.5.0.0/16";
        assert!(said("", "", "[dns]").contains(outside));
        let server = "server = \"10.5.0.1\"";
        let with = |dns: &str| said(server, &format!("{server}\ndns = [{dns}]"), "[dns]");
        assert!(
            with("\"10.5.0.1\"").contains(outside),
            "only this server, by its address"
        );
        assert_eq!(with("\"10.5.0.1\", \"10.5.0.53\""), "");
        // These nodes resolve no names by DNS, as before.
        assert_eq!(with(""), "");
        assert_eq!(said("", "", "[dns]\nforward = [\"10.0.0.53\"]"), "");
    }

    #[test]
    fn the_examples_section_can_be_used() {
        let example = include_str!("../../../rackstrap.example.toml");
        let used = ["# [dns]", "# name = \"rackstrap\"", "# forward = "]
            .iter()
            .fold(example.to_owned(), |text, line| text.replace(line, &line[2..]));
        let (site, warnings) = site(&used);
        let forward = vec!["10.0.0.53:53".parse().unwrap()];
        let name = "rackstrap".to_owned();
        assert_eq!(site.dns, Some(crate::Dns { name, forward }));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            ("domain = \"cluster.example\"\n", "", "[dns]"),
            ("cluster.example", "10.in-addr.arpa", "[dns]"),
            (
                "",
                "",
                "[dns]\nname = \"r01n03\"\nforward = [\"10.5.0.1\", \"10.0.0.53\", \"10.0.0.53:53\"]",
            ),
            ("", "", "[dns]\nname = \"rackstrap.cluster.example\"\nforwards = []"),
            ("", "", "[dns]\nname = \"Über\"\nforward = \"10.0.0.53\""),
            (
                "",
                "",
                "[dns]\nforward = [\"dns.example\", \"::1\", \"10.0.0.53:0\", \"224.0.0.251\", \"10.0.0.53:99999\"]",
            ),
            ("", "", "[[dns]]\nname = \"a\""),
        ];
        let all: String = cases
            .iter()
            .map(|(from, to, more)| format!("=== {}\n{}\n\n", more.replace('\n', " | "), said(from, to, more)))
            .collect();
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
        let many: Vec<String> = (0..9).map(|i| format!("\"10.0.0.{i}\"")).collect();
        let many = said("", "", &format!("[dns]\nforward = [{}]", many.join(", ")));
        assert!(many.contains("there are 9 servers in 'forward', at most 8"), "{many}");
    }
}

#[cfg(all(test, not(feature = "dns")))]
mod tests {
    #[test]
    fn a_build_without_dns_refuses_the_section() {
        let text = format!("{}\n[dns]\n", include_str!("../../../rackstrap.example.toml"));
        let error = crate::parse(&text, std::path::Path::new("site.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("this build of rackstrap has no name server"), "{error}");
    }
}
