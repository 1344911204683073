//! systemd-networkd: systemd.netdev(5), systemd.network(5). Names of files begin with 0-, which comes before those of an image.

use super::{MADE_BY, METRIC, MIIMON, Network, is_connected, text, vlans_on};
use rackstrap_wire::{NetworkKind, OverlayContent, OverlayFile};

const UNIT: &str = "/usr/lib/systemd/system/systemd-networkd.service";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";

pub(super) fn files(networks: &[Network<'_>]) -> Vec<OverlayFile> {
    let netdevs = networks.iter().filter_map(netdev);
    netdevs
        .chain(networks.iter().map(|network| settings(network, networks)))
        .collect()
}

/// Starts networkd in an image that has it and does not use it.
pub(super) fn enabled() -> OverlayFile {
    OverlayFile {
        path: WANTS.to_owned(),
        mode: 0o777,
        uid: 0,
        gid: 0,
        content: OverlayContent::Symlink(UNIT.to_owned()),
    }
}

/// Keeps networkd away from the networks.
pub(super) fn unmanaged(networks: &[Network<'_>]) -> Vec<OverlayFile> {
    let one = |network: &Network<'_>| unmanaged_interface(&network.plan.name);
    networks.iter().map(one).collect()
}

/// Keeps networkd away from an interface.
pub(super) fn unmanaged_interface(name: &str) -> OverlayFile {
    let content = format!("{MADE_BY}[Match]\nName={name}\n\n[Link]\nUnmanaged=yes\nRequiredForOnline=no\n");
    text(
        format!("/etc/systemd/network/0-rackstrap-{name}.network"),
        0o644,
        content,
    )
}

/// The virtual device of a bond, VLAN or bridge.
fn netdev(network: &Network<'_>) -> Option<OverlayFile> {
    let name = &network.plan.name;
    let (kind, more) = match &network.plan.kind {
        NetworkKind::Bond { mode, .. } => ("bond", format!("\n[Bond]\nMode={mode}\nMIIMonitorSec={MIIMON}ms\n")),
        NetworkKind::Vlan { id, .. } => ("vlan", format!("\n[VLAN]\nId={id}\n")),
        NetworkKind::Bridge { .. } => ("bridge", "\n[Bridge]\nSTP=no\n".to_owned()),
        _ => return None,
    };
    let mtu = network.mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
    let content = format!("{MADE_BY}[NetDev]\nName={name}\nKind={kind}\n{mtu}{more}");
    Some(text(
        format!("/etc/systemd/network/0-rackstrap-{name}.netdev"),
        0o644,
        content,
    ))
}

fn settings(network: &Network<'_>, all: &[Network<'_>]) -> OverlayFile {
    let plan = network.plan;
    let mut out = format!("{MADE_BY}[Match]\nName={}\n\n[Link]\n", plan.name);
    let mut line = |key: &str, value: &dyn std::fmt::Display| out.push_str(&format!("{key}={value}\n"));
    if let Some(mtu) = network.mtu {
        line("MTUBytes", &mtu);
    }
    line("RequiredForOnline", &"no\n\n[Network]");
    line("DHCP", &"no");
    line("IPv6AcceptRA", &"no");
    if plan.address.is_none() {
        line("LinkLocalAddressing", &"no");
    }
    if let Some(other) = network.joined_by {
        let key = if matches!(other.kind, NetworkKind::Bond { .. }) {
            "Bond"
        } else {
            "Bridge"
        };
        line(key, &other.name);
    }
    for (vlan, _) in vlans_on(network, all) {
        line("VLAN", &vlan);
    }
    if let Some((address, prefix)) = plan.address {
        line("Address", &format!("{address}/{prefix}"));
    }
    for server in &plan.dns {
        line("DNS", server);
    }
    if !plan.search.is_empty() {
        line("Domains", &plan.search.join(" "));
    }
    if matches!(plan.kind, NetworkKind::Infiniband { .. }) && network.mtu.is_some() {
        let mode = if is_connected(network) { "connected" } else { "datagram" };
        line("\n[IPoIB]\nMode", &mode);
    }
    if let Some(router) = plan.router {
        line("\n[Route]\nGateway", &router);
        line("Metric", &METRIC);
    }
    for route in &plan.routes {
        line("\n[Route]\nDestination", &format!("{}/{}", route.to.0, route.to.1));
        line("Gateway", &route.via);
    }
    text(
        format!("/etc/systemd/network/0-rackstrap-{}.network", plan.name),
        0o644,
        out,
    )
}
