//! A site file and nodes for the tests of this package, and of packages that depend on it. The program does not use them.

use crate::inventory::{Change, NewNode, Node};
use rackstrap_site::{Site, parse};
use rackstrap_wire::HwAddr;
use std::path::Path;

/// A cluster whose racks are 10.5.RACK.SLOT, with one subnet behind a relay. All other settings have their defaults.
pub const CLUSTER: &str = r#"
[cluster]
name = "lab"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24"]

[[subnet]]
network = "10.5.0.0/16"
relayed = true
server = "10.5.0.1"
"#;

/// The site that `text` describes.
pub fn site(text: &str) -> Site {
    let (site, _) = parse(text, Path::new("/site.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    site
}

/// [`CLUSTER`] with the further lines `more`.
pub fn cluster(more: &str) -> Site {
    site(&[CLUSTER, more].concat())
}

/// The example's site file, after `change`.
pub fn example(change: impl Fn(String) -> String) -> Site {
    site(&change(include_str!("../../../rackstrap.example.toml").to_owned()))
}

/// The numbers in `r01n03`: rack and slot.
fn position(name: &str) -> (u8, u8) {
    let numbers = name.strip_prefix('r').and_then(|rest| rest.split_once('n'));
    let parsed = numbers.and_then(|(rack, slot)| Some((rack.parse().ok()?, slot.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{name} is not named as r01n03 is"))
}

/// The address of the network card of the node with that name.
pub fn card(name: &str) -> HwAddr {
    let (rack, slot) = position(name);
    HwAddr([0x52, 0x54, 0, 0, rack, slot])
}

/// A node at the position in its name: r01n03 has 10.5.1.3 and 52:54:00:00:01:03. It has no profiles and no groups.
pub fn node(name: &str) -> Node {
    let (rack, slot) = position(name);
    Node {
        name: name.to_owned(),
        hwaddrs: vec![card(name)],
        ipaddr: [10, 5, rack, slot].into(),
        profiles: Vec::new(),
        groups: Default::default(),
        attributes: Default::default(),
        settings: Default::default(),
    }
}

/// The same with another network card; `number` is the last byte of its address.
pub fn node_with_card(name: &str, number: u8) -> Node {
    Node {
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, number])],
        ..node(name)
    }
}

/// The change that adds that node to an inventory.
pub fn add(name: &str) -> Change {
    Change::Add(NewNode {
        name: name.to_owned(),
        hwaddrs: vec![card(name)],
        ..NewNode::default()
    })
}
