//! `[cluster]`: names and addresses.

use super::{
    Cluster,
    diagnostic::{Report, quote},
    naming,
    section::Section,
    vars,
};
use ipnet::Ipv4Net;
use std::{net::Ipv4Addr, ops::Range};

pub(super) const EXAMPLE: &str =
    "write [cluster], and below it node-name = \"r{rack:02}n{slot:02}\" and node-address = \"10.5.{rack}.{slot}\"";

/// More reserved ranges than this are an error.
const MOST_RESERVED: usize = 256;

/// The checked section, with the places of values that other checks refer to.
pub(super) struct Read {
    pub value: Cluster,
    /// The places of `node-address`, in the order of the naming's patterns.
    pub node_addresses: Vec<Range<usize>>,
}

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Option<Read> {
    let name = section.parsed(report, "name", "\"lab\"", |text| {
        match text.len() <= 64 && !text.chars().any(char::is_control) && !text.trim().is_empty() {
            true => Ok(text.to_owned()),
            false => Err((
                format!("{} is not a cluster name", quote(text)),
                "write a word or a few, at most 64 bytes, such as name = \"lab\"".to_owned(),
            )),
        }
    });
    let domain = section.parsed(report, "domain", "\"cluster.example\"", read_domain);
    let reserved = section
        .list(report, "reserved", "[\"10.5.0.0/24\"]", |text| {
            read_network(text, "10.5.0.0/24")
        })
        .unwrap_or_default();
    if reserved.len() > MOST_RESERVED {
        let message = format!("there are {} reserved ranges, at most {MOST_RESERVED}", reserved.len());
        report.error(
            section.key_at("reserved"),
            message,
            "join some of them to larger ranges",
        );
    }

    let vars = vars::read(report, section);
    let written = naming::read(report, section)?;
    Some(Read {
        value: Cluster {
            name: name.map_or_else(|| super::DEFAULT_CLUSTER.to_owned(), |n| n.into_inner()),
            domain: domain.map(|d| d.into_inner()).unwrap_or_default(),
            naming: written.naming,
            reserved: reserved
                .into_iter()
                .take(MOST_RESERVED)
                .map(|r| r.into_inner())
                .collect(),
            vars,
        },
        node_addresses: written.node_addresses,
    })
}

pub(super) fn read_domain(text: &str) -> Result<String, (String, String)> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    // With the longest node name (63) and its dot, the whole name must fit in 253 characters (RFC 1035 section 2.3.4).
    if text.is_empty() || (text.len() <= 189 && text.split('.').all(label)) {
        return Ok(text.to_owned());
    }
    let likely = text.trim_matches('.').to_ascii_lowercase();
    let help = match likely != text && likely.len() <= 189 && likely.split('.').all(label) {
        true => format!("write domain = \"{likely}\""),
        false => {
            "write labels of a-z, 0-9 and - with dots between them, such as domain = \"cluster.example\"".to_owned()
        }
    };
    Err((format!("{} is not a DNS domain", quote(text)), help))
}

/// A network in CIDR notation without host bits. A single address is a network of one address.
pub(super) fn read_network(text: &str, example: &str) -> Result<Ipv4Net, (String, String)> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.into());
    }
    match text.parse::<Ipv4Net>() {
        Ok(network) if network == network.trunc() => Ok(network),
        Ok(network) => Err((
            format!(
                "'{network}' has bits set after its prefix of {} bits",
                network.prefix_len()
            ),
            format!("write \"{}\"", network.trunc()),
        )),
        Err(_) => Err((
            format!("{} is not an IPv4 network", quote(text)),
            format!("write address/prefix, such as \"{example}\""),
        )),
    }
}
