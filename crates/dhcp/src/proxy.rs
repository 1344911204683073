//! The boot part alone, beside another DHCP server that gives the addresses (pure).
//!
//! PXE 2.1, sections 2.2.2 and 2.2.3: a network boot's DISCOVER gets an OFFER without an address ([`proxy`]), and a REQUEST at
//! port 4011 the file ([`boot_server`]). A BIOS and iPXE take the file from the OFFER, UEFI asks at port 4011, and UEFI's HTTP
//! boot takes the URL from the OFFER (UEFI 2.10 section 24.7.3.1). [`reply::boot_only`] has the options that make them do so.

use super::{
    authority::{Answer, AnswerKind, Authority, Loader, Network},
    engine::{Ingress, Verdict, ask, wrong_network},
    reply::{self, Reply},
    request::{Kind, Request},
};
use rackstrap_base::{
    firmware,
    subnet::{DhcpPart, Subnet, wrong_address},
};

/// Why a packet is left to the DHCP server that gives the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The subnet has `dhcp = "off"`.
    Off,
    /// A DISCOVER of a system that does not boot from the network.
    NotABoot,
    /// A DISCOVER of U-Boot, which would take an offer without an address for the whole answer.
    UBoot,
    /// It is about an address.
    Address,
    /// Firmware for which the site has no loader.
    NoLoader,
    /// A packet at port 4011 that is not a REQUEST of firmware in a subnet with `dhcp = "proxy"`.
    BootRequest,
}

/// The verdict, the reply, and whether it is about a node.
type Decided = (Verdict, Option<Reply>, bool);

fn left(part: DhcpPart, why: Left, reason: impl Into<std::borrow::Cow<'static, str>>) -> Verdict {
    Verdict {
        part,
        left: Some(why),
        ..Verdict::silent(reason)
    }
}

/// Answers a packet at port 67 from a machine in `subnets`, at least one, in none of which the daemon gives addresses.
pub(super) fn proxy(request: &Request, from: Ingress<'_>, subnets: &[&Subnet], authority: &dyn Authority) -> Decided {
    let link_subnet = subnets[0];
    let part = link_subnet.dhcp;
    if part == DhcpPart::Off {
        let reason = format!("dhcp = \"off\" in {}", link_subnet.network);
        return (left(part, Left::Off, reason), None, false);
    }
    let answer = authority.ask(&ask(request, from, link_subnet));
    let (node, loader) = match &answer {
        Answer::Silent(reason) => {
            let verdict = Verdict {
                part,
                ..Verdict::silent(reason.clone())
            };
            return (verdict, None, false);
        }
        Answer::Node {
            ipaddr,
            hostname,
            loader,
            ..
        } => (Some((*ipaddr, hostname)), loader),
        Answer::Unknown { loader, .. } => (None, loader),
    };
    let known = node.is_some();
    let subnet = match node {
        None => link_subnet,
        Some((ipaddr, name)) => match subnets.iter().find(|s| s.network.contains(&ipaddr)) {
            Some(subnet) => subnet,
            None => {
                let verdict = Verdict {
                    part,
                    ..wrong_network(ipaddr, name, link_subnet)
                };
                return (verdict, None, known);
            }
        },
    };
    if request.kind != Kind::Discover {
        let node = node.filter(|_| request.is_network_boot());
        return (about_an_address(request, node), None, known);
    }
    if !request.is_network_boot() {
        let reason = "not a network boot; the other DHCP server gives it an address";
        return (left(part, Left::NotABoot, reason), None, known);
    }
    if request.u_boot {
        // U-Boot takes the first offer, also one without an address (dhcp_handler() in its net/bootp.c).
        let reason =
            "U-Boot takes no ProxyDHCP offer: set next-server of the DHCP server that gives its address to this server";
        return (left(part, Left::UBoot, reason), None, known);
    }
    let Some(loader) = loader else {
        return (no_loader(request), None, known);
    };
    let name = node.map_or("an unknown machine", |(_, name)| name);
    let verdict = Verdict {
        part,
        ..Verdict::new(
            AnswerKind::Offer,
            None,
            format!(
                "what {name} boots, {}; its address comes from another server",
                file(loader)
            ),
        )
    };
    (verdict, Some(reply::boot_only(request, subnet, loader, None)), known)
}

/// A packet to the other server. `node` has its own address and name; none for unknown machines and running systems.
fn about_an_address(request: &Request, node: Option<(std::net::Ipv4Addr, &String)>) -> Verdict {
    let (address, server) = match request.kind {
        Kind::Selecting { address, server } => (address, Some(server)),
        Kind::InitReboot { address } | Kind::Extend { address } => (address, None),
        Kind::Decline { .. } | Kind::Release { .. } | Kind::Inform | Kind::Discover => {
            let reason = format!("{} left to the DHCP server that gives the addresses", request.kind);
            return left(DhcpPart::Proxy, Left::Address, reason);
        }
    };
    let whose = server.map_or("another server".to_owned(), |server| {
        format!("the DHCP server {server}")
    });
    let mut verdict = left(DhcpPart::Proxy, Left::Address, format!("takes {address} from {whose}"));
    verdict.address = Some(address);
    match node {
        // A node's boot, root and files belong to the address of its name, so it cannot boot with this one.
        Some((ipaddr, name)) if ipaddr != address => {
            verdict.reason = format!("{} ({whose} gave it)", wrong_address(name, address, ipaddr)).into();
            verdict.alarm()
        }
        _ => verdict,
    }
}

/// The authority reports it with the remedy, as where this server gives the addresses.
fn no_loader(request: &Request) -> Verdict {
    let arch = firmware::or_bios(request.arch);
    let why = format!(
        "no loader for {}, {}",
        firmware::name_and_number(arch),
        firmware::name(arch)
    );
    left(DhcpPart::Proxy, Left::NoLoader, why)
}

fn file(loader: &Loader) -> &str {
    match loader {
        Loader::Tftp { file, .. } => file,
        Loader::Url(url) => url,
        Loader::Own { .. } => "its own files",
    }
}

/// Answers a packet at port 4011: firmware has its address and asks for its file. The answer goes only to the address
/// that the packet came from. No field of the packet can name another one.
pub(super) fn boot_server(
    request: &Request,
    from: Ingress<'_>,
    network: &Network,
    authority: &dyn Authority,
) -> Decided {
    let address = *from.source.ip();
    let subnet = network.subnets.iter().find(|s| s.network.contains(&address));
    let refused = |reason: String| {
        let part = subnet.map_or(DhcpPart::Proxy, |subnet| subnet.dhcp);
        (left(part, Left::BootRequest, reason), None, false)
    };
    let Some(subnet) = subnet else {
        return refused(format!(
            "{address} at port 4011, which is in no subnet of the site file"
        ));
    };
    if subnet.dhcp != DhcpPart::Proxy {
        return refused(format!(
            "port 4011 is for subnets with dhcp = \"proxy\", and {} has dhcp = \"{}\"",
            subnet.network, subnet.dhcp
        ));
    }
    if !request.giaddr.is_unspecified() {
        return refused(format!("a relay, {}, sent it to port 4011", request.giaddr));
    }
    if authority.is_node_address(address) && !authority.is_card_of(request.hwaddr, address) {
        return refused(format!(
            "{address}, a node's address, asks at port 4011 for another machine"
        ));
    }
    if !request.ciaddr.is_unspecified() && request.ciaddr != address {
        return refused(format!("{address} asks at port 4011 in the name of {}", request.ciaddr));
    }
    // RFC 2131 calls it an extension, as it names its address and no server; iPXE names this server.
    let asks = matches!(
        request.kind,
        Kind::Selecting { .. } | Kind::InitReboot { .. } | Kind::Extend { .. }
    );
    if !asks {
        return refused(format!("port 4011 answers a request only, not a {}", request.kind));
    }
    if !request.pxe_client && !request.ipxe {
        return refused("at port 4011 without the class PXEClient (option 60)".to_owned());
    }
    if let Some(item) = request.boot_item {
        // This server offers no menu.
        return refused(format!(
            "asks for entry {item} of a boot menu, which another ProxyDHCP server sent; stop that server"
        ));
    }
    let from = Ingress {
        interface: subnet.interface.as_deref().unwrap_or(from.interface),
        ..from
    };
    let (name, loader) = match authority.ask(&ask(request, from, subnet)) {
        Answer::Silent(reason) => return refused(reason.into_owned()),
        Answer::Node { hostname, loader, .. } => (Some(hostname), loader),
        Answer::Unknown { loader, .. } => (None, loader),
    };
    let known = name.is_some();
    let Some(loader) = loader else {
        // Anybody can send any architecture here; the firmware's DISCOVER has reported the real one.
        let reason = "no loader for the firmware that asks at port 4011";
        return (left(DhcpPart::Proxy, Left::NoLoader, reason), None, known);
    };
    let name = name.unwrap_or_else(|| "an unknown machine".to_owned());
    let reason = format!("what {name} boots, {}, asked for at port 4011", file(&loader));
    let verdict = Verdict {
        part: DhcpPart::Proxy,
        ..Verdict::new(AnswerKind::Ack, Some(address), reason)
    };
    let reply = reply::boot_only(request, subnet, &loader, Some(from.source));
    (verdict, Some(reply), known)
}
