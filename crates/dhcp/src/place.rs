//! Where a machine belongs, and what a node of a VLAN gets where its firmware starts: in a subnet without a tag (pure).

use super::{
    authority::{AnswerKind, Network},
    engine::Verdict,
};
use std::net::Ipv4Addr;

/// A node of a VLAN, whose firmware cannot set the tag, keeps an address of the pool at least this long, in seconds: it loads its loader, kernel and
/// initramfs with it, and loaders do not extend leases.
pub const UNTAGGED_SECS: u32 = 900;

/// Where a machine belongs, among the subnets of the link that it asks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the subnet with that index.
    Here(usize),
    /// In that VLAN, whose tag its firmware cannot set: it starts in the subnet with that index.
    Untagged { subnet: usize, vlan: u16 },
    /// In none of them.
    Nowhere,
}

impl Place {
    /// The index of the subnet that it is served in.
    pub fn subnet(self) -> Option<usize> {
        match self {
            Place::Here(index) | Place::Untagged { subnet: index, .. } => Some(index),
            Place::Nowhere => None,
        }
    }
}

/// Where the firmware of the node with the address `ipaddr`, which is in none of the `candidates`, starts.
pub fn starts_untagged(network: &Network, ipaddr: Ipv4Addr, candidates: &[usize]) -> Place {
    let own = network.subnets.iter().find(|subnet| subnet.network.contains(&ipaddr));
    let start = candidates.iter().find(|i| network.subnets[**i].starts_untagged());
    match (own.and_then(|own| own.vlan), start) {
        (Some(vlan), Some(index)) => Place::Untagged { subnet: *index, vlan },
        _ => Place::Nowhere,
    }
}

/// What a node of VLAN `id` gets of the pool, said as what it is.
pub fn of_untagged(verdict: Verdict, name: &str, ipaddr: Ipv4Addr, id: u16) -> Verdict {
    let reason = match verdict.answer {
        AnswerKind::Offer | AnswerKind::Ack => {
            format!("pool address to start {name} without a tag; in VLAN {id} it is {ipaddr}").into()
        }
        AnswerKind::Nak | AnswerKind::Silent => format!("{name}, without a tag: {}", verdict.reason).into(),
    };
    Verdict { reason, ..verdict }
}
