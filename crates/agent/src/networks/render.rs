//! The files by which an image's network service sets the networks up (pure).

mod ifupdown;
mod network_manager;
mod networkd;

use super::Network;
use crate::network::METRIC;
use rackstrap_wire::{
    BOOT_NETWORK, NetworkKind, OverlayContent, OverlayFile,
    network_service::{Installed, Service, Services},
};

/// Said at the top of each file.
const MADE_BY: &str = "# From [[network]] of the site file, and made again at each boot.\n";
/// Longest packet of InfiniBand in datagram mode (IB_MTU_4096 without the header of 4 bytes).
const DATAGRAM: u16 = 4092;
/// Milliseconds between two looks at the links of a bond; the kernel's default is not to look at all.
const MIIMON: u32 = 100;

/// The files for `service`, and those that keep the image's other services away from the networks.
pub fn files(service: Service, services: Services, networks: &[Network<'_>]) -> Vec<OverlayFile> {
    let mut files: Vec<OverlayFile> = networks.iter().filter_map(link).collect();
    // NetworkManager and udev know the bond of the boot card and its members by their common address, and ifupdown manages only what it is told to.
    let (of_boot, networks): (Vec<_>, Vec<_>) = networks.iter().cloned().partition(|network| network.of_boot);
    let networks = &networks[..];
    if services.networkd != Installed::No {
        files.extend(networkd::unmanaged(&of_boot));
    }
    if networks.is_empty() {
        return files;
    }
    files.extend(modules(networks));
    if service == Service::Networkd {
        files.extend(networkd::files(networks));
        if services.networkd == Installed::Disabled {
            files.push(networkd::enabled());
        }
    } else if services.networkd != Installed::No {
        files.extend(networkd::unmanaged(networks));
    }
    if service == Service::NetworkManager {
        files.extend(network_manager::files(networks));
    } else if services.network_manager != Installed::No {
        files.push(network_manager::unmanaged(networks));
    }
    if service == Service::Ifupdown {
        files.push(ifupdown::file(networks));
    }
    files
}

/// Keeps networkd away from the interface of the boot network's VLAN: it has no permanent address of its own, by which the card's own file names
/// the card. NetworkManager and udev know both by their common address, and ifupdown manages only what it is told to.
pub fn boot_vlan(vlan: Option<u16>) -> Vec<OverlayFile> {
    vlan.map(|_| networkd::unmanaged_interface(BOOT_NETWORK))
        .into_iter()
        .collect()
}

fn text(path: String, mode: u32, text: String) -> OverlayFile {
    OverlayFile {
        path,
        mode,
        uid: 0,
        gid: 0,
        content: OverlayContent::Text(text),
    }
}

/// Names the card for udev. A VLAN has the address of the card below it, and a kind, which a card has not.
fn link(network: &Network<'_>) -> Option<OverlayFile> {
    let card = network.card?;
    let name = &network.plan.name;
    let place = match (card.mac, card.infiniband) {
        (Some(mac), false) => format!("PermanentMACAddress={mac}\nKind=!*\n"),
        (_, true) => format!("Path=pci-{}\nType=infiniband\n", card.pci),
        (None, false) => format!("Path=pci-{}\nKind=!*\n", card.pci),
    };
    let content = format!("{MADE_BY}[Match]\n{place}\n[Link]\nNamePolicy=\nName={name}\n");
    Some(text(
        format!("/etc/systemd/network/0-rackstrap-{name}.link"),
        0o644,
        content,
    ))
}

/// Modules that no device requests, and the bond that the module makes by itself.
fn modules(networks: &[Network<'_>]) -> Vec<OverlayFile> {
    let any = |is: fn(&NetworkKind) -> bool| networks.iter().any(|network| is(&network.plan.kind));
    let mut files = Vec::new();
    if any(|kind| matches!(kind, NetworkKind::Infiniband { .. })) {
        let content = format!("{MADE_BY}ib_ipoib\n");
        files.push(text(
            "/etc/modules-load.d/rackstrap-networks.conf".to_owned(),
            0o644,
            content,
        ));
    }
    if any(|kind| matches!(kind, NetworkKind::Bond { .. })) {
        let content = format!("{MADE_BY}options bonding max_bonds=0\n");
        files.push(text(
            "/etc/modprobe.d/rackstrap-networks.conf".to_owned(),
            0o644,
            content,
        ));
    }
    files
}

/// Names of the VLANs on this network.
fn vlans_on<'n>(network: &Network<'_>, all: &[Network<'n>]) -> Vec<(&'n str, u16)> {
    let vlan = |other: &Network<'n>| match &other.plan.kind {
        NetworkKind::Vlan { parent, id } if *parent == network.plan.name => Some((other.plan.name.as_str(), *id)),
        _ => None,
    };
    all.iter().filter_map(vlan).collect()
}

/// Whether InfiniBand needs connected mode.
fn is_connected(network: &Network<'_>) -> bool {
    network.mtu.is_some_and(|mtu| mtu > DATAGRAM)
}

#[cfg(test)]
pub(super) mod testing {
    use rackstrap_wire::{CardMatch, NetworkKind, NetworkPlan, NetworkRoute};

    /// Two cards, a bond of them, and a VLAN on the bond.
    pub fn plans() -> Vec<NetworkPlan> {
        let card = |port| NetworkKind::Ethernet {
            card: CardMatch {
                driver: Some("ixgbe".to_owned()),
                port: Some(port),
                ..CardMatch::default()
            },
        };
        let bond = NetworkKind::Bond {
            members: vec!["left".to_owned(), "right".to_owned()],
            mode: "802.3ad".to_owned(),
        };
        let vlan = NetworkKind::Vlan {
            parent: "fast".to_owned(),
            id: 100,
        };
        vec![
            NetworkPlan::new("left", card(2)),
            NetworkPlan::new("right", card(3)),
            NetworkPlan {
                address: Some(([10, 7, 1, 3].into(), 16)),
                mtu: Some(9000),
                router: Some([10, 7, 0, 1].into()),
                routes: vec![NetworkRoute {
                    to: ([10, 9, 0, 0].into(), 16),
                    via: [10, 7, 0, 2].into(),
                }],
                dns: vec![[10, 7, 0, 3].into()],
                search: vec!["fast.example".to_owned()],
                ..NetworkPlan::new("fast", bond)
            },
            NetworkPlan {
                address: Some(([10, 8, 1, 3].into(), 24)),
                mtu: Some(1500),
                ..NetworkPlan::new("v100", vlan)
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::resolve, *};
    use crate::networks::cards::Card;
    use rackstrap_wire::{CardMatch, HwAddr, NetworkPlan};

    fn shown(service: Service) -> String {
        let mut plans = testing::plans();
        plans.push(NetworkPlan {
            name: "ib".to_owned(),
            kind: NetworkKind::Infiniband {
                card: CardMatch {
                    driver: Some("mlx5_core".to_owned()),
                    ..CardMatch::default()
                },
            },
            address: Some(([10, 6, 1, 3].into(), 16)),
            mtu: Some(65520),
            ..plans[0].clone()
        });
        plans.push(NetworkPlan {
            name: "br".to_owned(),
            kind: NetworkKind::Bridge {
                members: vec!["v100".to_owned()],
            },
            address: Some(([10, 8, 1, 3].into(), 24)),
            ..plans[0].clone()
        });
        plans[3].address = None;
        let mut cards: Vec<Card> = (1..=3)
            .map(|last| Card {
                pci: format!("0000:00:0{last}.0"),
                driver: "ixgbe".to_owned(),
                mac: Some(HwAddr([0x52, 0x54, 0, 1, 1, last])),
                ..Card::default()
            })
            .collect();
        cards.push(Card {
            pci: "0000:81:00.0".to_owned(),
            driver: "mlx5_core".to_owned(),
            infiniband: true,
            ..Card::default()
        });
        let resolved = resolve(&plans, &cards, HwAddr([0x52, 0x54, 0, 1, 1, 1]));
        assert_eq!(resolved.problems, []);
        let all = Services {
            networkd: Installed::Disabled,
            network_manager: Installed::Enabled,
            ifupdown: Installed::Enabled,
        };
        let files = files(service, all, &resolved.networks);
        let one = |file: &OverlayFile| match &file.content {
            OverlayContent::Text(text) => format!("== {} {:o}\n{text}\n", file.path, file.mode),
            other => format!("== {} {other:?}\n", file.path),
        };
        files.iter().map(one).collect::<String>().replace(MADE_BY, "")
    }

    #[test]
    fn files_for_networkd() {
        insta::assert_snapshot!(shown(Service::Networkd));
    }

    #[test]
    fn files_for_network_manager() {
        insta::assert_snapshot!(shown(Service::NetworkManager));
    }

    #[test]
    fn files_for_ifupdown() {
        insta::assert_snapshot!(shown(Service::Ifupdown));
    }
}
