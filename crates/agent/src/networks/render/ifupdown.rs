//! ifupdown: interfaces(5). `ip` makes bonds, VLANs and bridges, so that the packages ifenslave, vlan and bridge-utils are not needed.

use super::{MADE_BY, METRIC, MIIMON, Network, is_connected, text};
use rackstrap_wire::{NetworkKind, OverlayFile};

pub(super) fn file(networks: &[Network<'_>]) -> OverlayFile {
    // Members come up with their bond or bridge.
    let own = networks
        .iter()
        .filter(|network| network.joined_by.is_none() || network.card.is_none());
    let all: Vec<String> = own.map(|network| stanza(network)).collect();
    text(
        "/etc/network/interfaces.d/rackstrap".to_owned(),
        0o644,
        format!("{MADE_BY}\n{}", all.join("\n")),
    )
}

fn stanza(network: &Network<'_>) -> String {
    let plan = network.plan;
    let name = &plan.name;
    let method = if plan.address.is_some() { "static" } else { "manual" };
    let mut out = format!("auto {name}\niface {name} inet {method}\n");
    let mut line = |key: &str, value: &str| out.push_str(&format!("    {key} {value}\n"));
    if let Some((address, prefix)) = plan.address {
        line("address", &format!("{address}/{prefix}"));
    }
    let made = match &plan.kind {
        NetworkKind::Bond { mode, .. } => Some(format!("name {name} type bond mode {mode} miimon {MIIMON}")),
        NetworkKind::Vlan { parent, id } => Some(format!("link {parent} name {name} type vlan id {id}")),
        NetworkKind::Bridge { .. } => Some(format!("name {name} type bridge stp_state 0")),
        _ => None,
    };
    if let Some(made) = &made {
        line(
            "pre-up",
            &format!("ip link show dev {name} > /dev/null 2>&1 || ip link add {made}"),
        );
    }
    if matches!(plan.kind, NetworkKind::Infiniband { .. }) {
        line("pre-up", "modprobe -q ib_ipoib || true");
        let mode = if is_connected(network) { "connected" } else { "datagram" };
        line("pre-up", &format!("echo {mode} > /sys/class/net/{name}/mode || true"));
    }
    if let Some(mtu) = network.mtu.filter(|_| network.members.is_empty()) {
        line("pre-up", &format!("ip link set dev {name} mtu {mtu}"));
    }
    for member in &network.members {
        // A bond takes only members that are down.
        let up = if matches!(plan.kind, NetworkKind::Bond { .. }) {
            "down"
        } else {
            "up"
        };
        line("pre-up", &format!("ip link set dev {member} {up}"));
        line("pre-up", &format!("ip link set dev {member} master {name}"));
    }
    // Members take the MTU of their bond; those of a bridge have their own.
    if let Some(mtu) = network.mtu.filter(|_| !network.members.is_empty()) {
        for member in &network.members {
            line("pre-up", &format!("ip link set dev {member} mtu {mtu} || true"));
        }
        line("pre-up", &format!("ip link set dev {name} mtu {mtu}"));
    }
    if plan.address.is_none() {
        line("up", &format!("ip link set dev {name} up"));
    }
    for route in &plan.routes {
        let (to, prefix) = route.to;
        line(
            "up",
            &format!("ip route replace {to}/{prefix} via {} dev {name}", route.via),
        );
    }
    if let Some(router) = plan.router {
        line(
            "up",
            &format!("ip route replace default via {router} dev {name} metric {METRIC}"),
        );
    }
    if made.is_some() {
        line("post-down", &format!("ip link del dev {name} || true"));
    }
    out
}
