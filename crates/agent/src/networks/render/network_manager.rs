//! NetworkManager: keyfiles, nm-settings-keyfile(5).

use super::{MADE_BY, METRIC, MIIMON, Network, is_connected, text};
use rackstrap_wire::{NetworkKind, OverlayFile};

/// `resolv.conf` is one of the node's files from the server, and has the name servers of all networks.
const CONF: &str = "[main]\ndns=none\n";

pub(super) fn files(networks: &[Network<'_>]) -> Vec<OverlayFile> {
    let conf = text(
        "/etc/NetworkManager/conf.d/~rackstrap-networks.conf".to_owned(),
        0o644,
        format!("{MADE_BY}{CONF}"),
    );
    networks.iter().map(connection).chain([conf]).collect()
}

/// Keeps NetworkManager away from the networks.
pub(super) fn unmanaged(networks: &[Network<'_>]) -> OverlayFile {
    let names: Vec<String> = networks
        .iter()
        .map(|network| format!("interface-name:={}", network.plan.name))
        .collect();
    let content = format!(
        "{MADE_BY}[device-rackstrap-networks]\nmatch-device={}\nmanaged=0\n",
        names.join(";")
    );
    text(
        "/etc/NetworkManager/conf.d/~rackstrap-networks.conf".to_owned(),
        0o644,
        content,
    )
}

/// A connection. NetworkManager ignores keyfiles that other users than root can read.
fn connection(network: &Network<'_>) -> OverlayFile {
    let plan = network.plan;
    let name = &plan.name;
    let mut out = format!(
        "{MADE_BY}[connection]\nid=rackstrap-{name}\ntype={}\ninterface-name={name}\nautoconnect=true\nautoconnect-priority=100\n",
        plan.kind.as_str()
    );
    let mut line = |key: &str, value: &dyn std::fmt::Display| out.push_str(&format!("{key}={value}\n"));
    if let Some(other) = network.joined_by {
        line("master", &other.name);
        line("slave-type", &other.kind.as_str());
    }
    if !network.members.is_empty() {
        line("autoconnect-slaves", &1);
    }
    match &plan.kind {
        NetworkKind::Bond { mode, .. } => line("\n[bond]\nmode", &format!("{mode}\nmiimon={MIIMON}")),
        NetworkKind::Vlan { parent, id } => line("\n[vlan]\nid", &format!("{id}\nparent={parent}\nflags=1")),
        NetworkKind::Bridge { .. } => line("\n[bridge]\nstp", &false),
        NetworkKind::Infiniband { .. } => {
            let mode = if is_connected(network) { "connected" } else { "datagram" };
            line("\n[infiniband]\ntransport-mode", &mode);
            if let Some(mtu) = network.mtu {
                line("mtu", &mtu);
            }
        }
        NetworkKind::Ethernet { .. } | NetworkKind::Unknown => {}
    }
    if let Some(mtu) = network
        .mtu
        .filter(|_| !matches!(plan.kind, NetworkKind::Infiniband { .. }))
    {
        line("\n[ethernet]\nmtu", &mtu);
    }
    // Members have no addresses, and no such sections.
    if network.joined_by.is_none() {
        match plan.address {
            Some((address, prefix)) => {
                line("\n[ipv4]\nmethod", &"manual");
                line("address1", &format!("{address}/{prefix}"));
                match plan.router {
                    Some(router) => line("gateway", &format!("{router}\nroute-metric={METRIC}")),
                    None => line("never-default", &true),
                }
                for (at, route) in (1..).zip(&plan.routes) {
                    line(
                        &format!("route{at}"),
                        &format!("{}/{},{}", route.to.0, route.to.1, route.via),
                    );
                }
                line("\n[ipv6]\nmethod", &"link-local");
            }
            None => line("\n[ipv4]\nmethod", &"disabled\n\n[ipv6]\nmethod=disabled"),
        }
    }
    let path = format!("/etc/NetworkManager/system-connections/rackstrap-{name}.nmconnection");
    text(path, 0o600, out)
}
