//! What `rackstrap explain` shows about a machine or an address that belongs to no node.

use rackstrap_base::subnet::DhcpPart;
use rackstrap_model::decide::{Requester, World};
use rackstrap_registries::discovery::Owner;
use std::net::Ipv4Addr;

/// What will happen to the machine, and what its address is, one line for each step. `owner` is the node that the card
/// belongs to nevertheless; `full` are the pools without an address for it.
pub fn steps(
    world: &World,
    requester: &Requester,
    owner: Option<&Owner>,
    full: &[(Ipv4Addr, Ipv4Addr)],
) -> Vec<String> {
    if let Some(owner) = owner {
        return vec![
            format!("it is {owner}"),
            "it waits for nothing: its script ends, so that the firmware tries its next card".to_owned(),
            format!("to boot from it: {}", owner.remedy()),
            format!(
                "if it is another machine: rackstrap discover accept {} NAME",
                owner.card
            ),
        ];
    }
    match (requester.hwaddr, requester.ipaddr) {
        (None, Some(ipaddr)) => vec![place(world, ipaddr)],
        _ => pools(world, full),
    }
}

/// The answer to a machine that asks DHCP.
fn pools(world: &World, full: &[(Ipv4Addr, Ipv4Addr)]) -> Vec<String> {
    let pools: Vec<_> = world.site.subnets.iter().filter_map(|subnet| subnet.pool).collect();
    let (full, open): (Vec<_>, Vec<_>) = pools.into_iter().partition(|pool| full.contains(pool));
    let text = |pools: &[(Ipv4Addr, Ipv4Addr)]| {
        let pools: Vec<String> = pools.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        pools.join(" or ")
    };
    let mut steps = Vec::new();
    if !full.is_empty() {
        steps.push(format!(
            "the temporary pool {} is full: it gets no address there until a lease ends; to free the leases of machines that are gone: \
             rackstrap lease release ADDRESS",
            text(&full)
        ));
    }
    for subnet in &world.site.subnets {
        let network = subnet.network;
        match subnet.dhcp {
            DhcpPart::Full => {}
            DhcpPart::Proxy => steps.push(format!(
                "in {network} (dhcp = \"proxy\") it gets an address from another DHCP server, shows its hardware address on its screen, and waits"
            )),
            DhcpPart::Off => steps.push(format!(
                "in {network} (dhcp = \"off\") DHCP does not report it; add it by its MAC address: rackstrap node add NAME --hwaddr MAC"
            )),
        }
    }
    match (open.is_empty(), full.is_empty()) {
        (true, true) if !steps.is_empty() => {}
        (true, true) => {
            steps.push("no [[subnet]] has a pool for unknown machines: it gets no answer from DHCP".to_owned());
        }
        (true, false) => {}
        (false, _) => steps.push(format!(
            "it gets a temporary address ({}), shows its hardware address on its screen, and waits",
            text(&open)
        )),
    }
    steps
}

/// The meaning of an address in the site.
fn place(world: &World, ipaddr: Ipv4Addr) -> String {
    let Some(subnet) = world.site.subnet_of(ipaddr) else {
        return "it is in no [[subnet]] of the site file: a machine with it gets no answer".to_owned();
    };
    let cluster = &world.site.cluster;
    let naming = &cluster.naming;
    match naming.address_to_name(ipaddr) {
        _ if subnet.server == ipaddr => "it is this server's".to_owned(),
        _ if subnet.router == Some(ipaddr) => "it is the router's".to_owned(),
        _ if subnet
            .pool
            .is_some_and(|(first, last)| (first..=last).contains(&ipaddr)) =>
        {
            "it is in the pool for unknown machines".to_owned()
        }
        _ if cluster.reserved.iter().any(|net| net.contains(&ipaddr)) => {
            "it is reserved: no node can have it".to_owned()
        }
        Some(name) => {
            format!("it is the address of {name}, which has not been added yet: rackstrap node add {name} --hwaddr MAC")
        }
        None => format!("no node can have it: addresses follow {}", naming.address_pattern()),
    }
}
