//! A node's networks besides the boot network.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The name of the boot network where a network names its parent. A network cannot have it.
pub const BOOT_NETWORK: &str = "boot";

/// The modes of bonds; the index of each is its number (linux/if_bonding.h).
pub const BOND_MODES: [&str; 7] = [
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];

/// One network of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Name of the network, and of its interface on the node: `[a-z][a-z0-9-]*`, at most 15 bytes.
    pub name: String,
    /// What the interface is made of.
    pub kind: NetworkKind,
    /// Address and prefix length; none for members of bonds and bridges, and for parents of VLANs that carry nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<(Ipv4Addr, u8)>,
    /// MTU in bytes; none = as the card has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Default router, which counts if the boot network has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// Further routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<NetworkRoute>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// DNS search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The least speed in Mb/s; a slower link is a failed check. None = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
}

impl NetworkPlan {
    /// A network of that kind without an address, and with the card's own MTU.
    pub fn new(name: &str, kind: NetworkKind) -> Self {
        NetworkPlan {
            name: name.to_owned(),
            kind,
            address: None,
            mtu: None,
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            speed: None,
        }
    }
}

/// What an interface is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum NetworkKind {
    /// An Ethernet card.
    Ethernet {
        /// The card.
        card: CardMatch,
    },
    /// A port of an InfiniBand card, with IP over it (RFC 4391).
    Infiniband {
        /// The card.
        card: CardMatch,
    },
    /// A bond (Documentation/networking/bonding.rst of the kernel).
    Bond {
        /// Names of the networks that it joins.
        members: Vec<String>,
        /// The mode, as the kernel names it: `802.3ad`.
        mode: String,
    },
    /// A VLAN (IEEE 802.1Q).
    Vlan {
        /// The network below it, or [`BOOT_NETWORK`].
        parent: String,
        /// 1 to 4094.
        id: u16,
    },
    /// A bridge.
    Bridge {
        /// Names of the networks that it joins.
        members: Vec<String>,
    },
    /// A type that only a newer server knows.
    #[serde(other)]
    Unknown,
}

impl NetworkKind {
    /// The type, as in the site file.
    pub fn as_str(&self) -> &'static str {
        match self {
            NetworkKind::Ethernet { .. } => "ethernet",
            NetworkKind::Infiniband { .. } => "infiniband",
            NetworkKind::Bond { .. } => "bond",
            NetworkKind::Vlan { .. } => "vlan",
            NetworkKind::Bridge { .. } => "bridge",
            NetworkKind::Unknown => "unknown",
        }
    }

    /// The networks below it: members of a bond or a bridge, the parent of a VLAN.
    pub fn below(&self) -> &[String] {
        match self {
            NetworkKind::Bond { members, .. } | NetworkKind::Bridge { members } => members,
            NetworkKind::Vlan { parent, .. } => std::slice::from_ref(parent),
            NetworkKind::Ethernet { .. } | NetworkKind::Infiniband { .. } | NetworkKind::Unknown => &[],
        }
    }

    /// Whether it is a bond that the boot card is a member of.
    pub fn is_boot_bond(&self) -> bool {
        matches!(self, NetworkKind::Bond { members, .. } if members.iter().any(|member| member == BOOT_NETWORK))
    }

    /// Whether the agent itself makes the network `name` of this kind, and not the network service of the image: the bond of the boot card, its
    /// other members, and VLANs on the boot card or on that bond. `boot_bond` is that bond of the same node, with its name.
    pub fn is_made_by_agent(&self, name: &str, boot_bond: Option<(&str, &NetworkKind)>) -> bool {
        match self {
            NetworkKind::Vlan { parent, .. } => {
                parent == BOOT_NETWORK || boot_bond.is_some_and(|(bond, _)| bond == parent)
            }
            _ => boot_bond.is_some_and(|(bond, kind)| bond == name || kind.below().iter().any(|member| member == name)),
        }
    }

    /// The card; none for interfaces without one.
    pub fn card(&self) -> Option<&CardMatch> {
        match self {
            NetworkKind::Ethernet { card } | NetworkKind::Infiniband { card } => Some(card),
            _ => None,
        }
    }
}

/// Which card of a node is meant: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardMatch {
    /// Its kernel driver, `mlx5_core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its hardware address, in lower case with colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its PCI address, `0000:81:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Its name: the kernel's, or one of those that systemd derives from its place, `eno1`, `ens3f0`, `enp129s0f0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The firmware's name of it, `NIC 1`: printable ASCII.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of the cards for which all of the above hold, in the order of PCI address and port, the one with this number, from 1. None: only one
    /// card besides the boot card may remain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl std::fmt::Display for CardMatch {
    /// `driver mlx5_core, port 2`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts = [
            ("driver", &self.driver),
            ("MAC", &self.mac),
            ("PCI address", &self.pci),
            ("name", &self.name),
        ];
        let mut all: Vec<String> = texts
            .iter()
            .filter_map(|(what, text)| Some(format!("{what} {}", text.as_ref()?)))
            .collect();
        all.extend(self.label.as_ref().map(|label| format!("label \"{label}\"")));
        all.extend(self.port.map(|port| format!("port {port}")));
        f.write_str(&all.join(", "))
    }
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// The network that it leads to, with its prefix length.
    pub to: (Ipv4Addr, u8),
    /// The router, which is in the network.
    pub via: Ipv4Addr,
}

/// The networks of a plan, one line for each: `ib type=infiniband driver=mlx5_core port=1 address=10.6.1.3/16`. No value has a blank. Lines,
/// because the code by which serde reads the types above would add a fiftieth to the agent, which every node downloads at every boot.
pub(crate) mod lines {
    use super::{CardMatch, NetworkKind, NetworkPlan, NetworkRoute};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::{fmt::Display, net::Ipv4Addr};

    pub(crate) fn serialize<S: Serializer>(networks: &[NetworkPlan], serializer: S) -> Result<S::Ok, S::Error> {
        let lines: Vec<String> = networks.iter().map(write).collect();
        lines.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NetworkPlan>, D::Error> {
        let lines = Vec::<String>::deserialize(deserializer)?;
        Ok(lines.iter().map(|line| read(line)).collect())
    }

    pub(super) fn write(plan: &NetworkPlan) -> String {
        let mut line = format!("{} type={}", plan.name, plan.kind.as_str());
        let mut add = |key: &str, value: &dyn Display| line.push_str(&format!(" {key}={value}"));
        match &plan.kind {
            NetworkKind::Ethernet { card } | NetworkKind::Infiniband { card } => {
                let texts = [
                    ("driver", &card.driver),
                    ("mac", &card.mac),
                    ("pci", &card.pci),
                    ("card", &card.name),
                ];
                for (key, text) in texts {
                    text.iter().for_each(|text| add(key, text));
                }
                // A label may have blanks, and no tabs.
                card.label
                    .iter()
                    .for_each(|label| add("label", &label.replace(' ', "\t")));
                card.port.iter().for_each(|port| add("port", port));
            }
            NetworkKind::Bond { members, mode } => {
                add("mode", mode);
                members.iter().for_each(|member| add("member", member));
            }
            NetworkKind::Vlan { parent, id } => add("parent", &format!("{parent} id={id}")),
            NetworkKind::Bridge { members } => members.iter().for_each(|member| add("member", member)),
            NetworkKind::Unknown => {}
        }
        plan.address
            .iter()
            .for_each(|(address, prefix)| add("address", &format!("{address}/{prefix}")));
        plan.mtu.iter().for_each(|mtu| add("mtu", mtu));
        plan.router.iter().for_each(|router| add("router", router));
        for NetworkRoute { to, via } in &plan.routes {
            add("route", &format!("{}/{},{via}", to.0, to.1));
        }
        plan.dns.iter().for_each(|server| add("dns", server));
        plan.search.iter().for_each(|domain| add("search", domain));
        plan.speed.iter().for_each(|speed| add("speed", speed));
        line
    }

    /// Reads a line. Values that cannot be read, and keys of a newer server, are left out.
    pub(super) fn read(line: &str) -> NetworkPlan {
        let mut words = line.split(' ');
        let mut plan = NetworkPlan::new(words.next().unwrap_or_default(), NetworkKind::Unknown);
        let (mut card, mut members) = (CardMatch::default(), Vec::new());
        let (mut kind, mut mode, mut parent, mut id) = ("", "", "", 0);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let text = || Some(value.to_owned());
            match key {
                "type" => kind = value,
                "driver" => card.driver = text(),
                "mac" => card.mac = text(),
                "pci" => card.pci = text(),
                "card" => card.name = text(),
                "label" => card.label = Some(value.replace('\t', " ")),
                "port" => card.port = value.parse().ok(),
                "member" => members.push(value.to_owned()),
                "mode" => mode = value,
                "parent" => parent = value,
                "id" => id = value.parse().unwrap_or(0),
                "address" => plan.address = network(value),
                "mtu" => plan.mtu = value.parse().ok(),
                "router" => plan.router = value.parse().ok(),
                "route" => {
                    if let Some((to, via)) = value.split_once(',')
                        && let (Some(to), Ok(via)) = (network(to), via.parse())
                    {
                        plan.routes.push(NetworkRoute { to, via });
                    }
                }
                "dns" => plan.dns.extend(value.parse::<Ipv4Addr>().ok()),
                "search" => plan.search.push(value.to_owned()),
                "speed" => plan.speed = value.parse().ok(),
                _ => {}
            }
        }
        plan.kind = match kind {
            "ethernet" => NetworkKind::Ethernet { card },
            "infiniband" => NetworkKind::Infiniband { card },
            "bond" => NetworkKind::Bond {
                members,
                mode: mode.to_owned(),
            },
            "vlan" => NetworkKind::Vlan {
                parent: parent.to_owned(),
                id,
            },
            "bridge" => NetworkKind::Bridge { members },
            _ => NetworkKind::Unknown,
        };
        plan
    }

    /// `10.6.1.3/16`
    fn network(text: &str) -> Option<(Ipv4Addr, u8)> {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some((address.parse().ok()?, prefix))
    }
}

/// The name of a network's check among the results of a node's checks.
pub fn network_check(network: &str) -> String {
    format!("network {network}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_a_newer_type_is_unknown() {
        let plan = NetworkPlan {
            name: "ib".to_owned(),
            kind: NetworkKind::Infiniband {
                card: CardMatch {
                    driver: Some("mlx5_core".to_owned()),
                    port: Some(1),
                    ..CardMatch::default()
                },
            },
            address: Some(([10, 6, 1, 3].into(), 16)),
            mtu: Some(9000),
            router: None,
            routes: vec![NetworkRoute {
                to: ([10, 8, 0, 0].into(), 16),
                via: [10, 6, 0, 1].into(),
            }],
            dns: Vec::new(),
            search: Vec::new(),
            speed: Some(100_000),
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<NetworkPlan>(&text).unwrap(), plan, "{text}");
        assert_eq!(plan.kind.card().unwrap().to_string(), "driver mlx5_core, port 1");
        let line = lines::write(&plan);
        assert_eq!(
            line,
            "ib type=infiniband driver=mlx5_core port=1 address=10.6.1.3/16 mtu=9000 route=10.8.0.0/16,10.6.0.1 speed=100000"
        );
        assert_eq!(lines::read(&line), plan);
        let labelled = NetworkPlan::new(
            "left",
            NetworkKind::Ethernet {
                card: CardMatch {
                    label: Some("NIC 1 = left".to_owned()),
                    ..CardMatch::default()
                },
            },
        );
        assert_eq!(lines::read(&lines::write(&labelled)), labelled);
        for kind in [
            NetworkKind::Bond {
                members: vec!["left".to_owned(), "right".to_owned()],
                mode: "802.3ad".to_owned(),
            },
            NetworkKind::Vlan {
                parent: "fast".to_owned(),
                id: 100,
            },
            NetworkKind::Bridge { members: Vec::new() },
        ] {
            let plan = NetworkPlan {
                kind,
                dns: vec![[10, 6, 0, 3].into()],
                search: vec!["ib.example".to_owned()],
                router: Some([10, 6, 0, 1].into()),
                ..plan.clone()
            };
            assert_eq!(lines::read(&lines::write(&plan)), plan);
        }
        let odd = lines::read("x type=wireguard address=10.6.1.3/99 mtu=- route=1 dns=x key more=1");
        assert_eq!(
            (odd.kind, odd.address, odd.mtu, odd.routes.len()),
            (NetworkKind::Unknown, None, None, 0)
        );
        assert_eq!(lines::read("").name, "");
        let newer = text.replace("infiniband", "wireguard");
        assert_eq!(
            serde_json::from_str::<NetworkPlan>(&newer).unwrap().kind,
            NetworkKind::Unknown
        );
    }
}
