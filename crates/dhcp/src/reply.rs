//! Replies: which fields and options carry an answer, for which client.

use super::{
    authority::{Loader, NetRoot, NodeTerms},
    options::code,
    request::{Kind, Request},
};
use dhcproto::{
    Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption},
};
use rackstrap_base::{
    dhcp_option::{self, DhcpOption as SiteOption},
    firmware::{DISCOVERY_CONTROL, HTTP_CLIENT, PXE_CLIENT, RASPBERRY_PI, RASPBERRY_PI_MENU},
    subnet::Subnet,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// Port of clients.
pub const CLIENT_PORT: u16 = 68;
/// Port of boot servers (PXE 2.1, section 2.2.1): firmware asks there for its file when it has its address.
pub const PXE_PORT: u16 = 4011;
/// RFC 1542 section 2.1: BOOTP messages are at least 300 bytes; relays and old ROMs drop shorter ones.
const MIN_LEN: usize = 300;
/// IP and UDP headers, which option 57 counts (RFC 2132 section 9.10 speaks of the DHCP message; iPXE,
/// EDK2 and dhcpd all size IP datagrams by it, so the smaller reading is the safe one).
const HEADERS: usize = 28;
/// What every client takes (RFC 2131 section 2), as an IP datagram.
const DEFAULT_MAX: u16 = 576;
/// Replies are never fragmented: PXE ROMs do not reassemble.
const ETHERNET_MTU: u16 = 1500;

/// A reply and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The DHCP message, without IP and UDP headers.
    pub bytes: Vec<u8>,
    /// Where the message is sent, and how.
    pub destination: Destination,
    /// Source address: the server identifier.
    pub source: Ipv4Addr,
    /// Bytes of the relay's option 82 that could not be echoed, as the reply would have been larger than its client takes.
    pub left_out: Option<usize>,
}

/// Where a reply goes (RFC 2131 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a relay or to a client that has its address, by routing.
    Routed(SocketAddrV4),
    /// To 255.255.255.255 on the interface that the request came from.
    Broadcast,
    /// To an address that the client cannot answer ARP for yet, so in a frame to its hardware address.
    Frame {
        /// Hardware address that the frame is sent to.
        hwaddr: rackstrap_wire::HwAddr,
        /// The address that it is being given.
        ipaddr: Ipv4Addr,
    },
}

/// What an OFFER or ACK says.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Subnet that is answered for.
    pub subnet: &'a Subnet,
    /// DNS domain; may be empty.
    pub domain: &'a str,
    /// Address and lease time in seconds; none for INFORM.
    pub lease: Option<(Ipv4Addr, u32)>,
    /// Host name, if it is a node.
    pub hostname: Option<&'a str>,
    /// What the machine is told to load; none for an address only.
    pub loader: Option<&'a Loader>,
    /// The root of its system by NFS, if its own loader asks for it.
    pub root: Option<&'a NetRoot>,
    /// What it gets instead of the subnet's settings, if it is a node.
    pub settings: Option<&'a NodeTerms>,
}

impl Terms<'_> {
    fn mtu(&self) -> Option<u16> {
        self.settings.and_then(|settings| settings.mtu).or(self.subnet.mtu)
    }

    /// The options of the site file for this client: those that it asks for and those that are always sent. What it asks for first is first.
    fn options(&self, request: &Request) -> Vec<&SiteOption> {
        let own = self.settings.map_or(&[][..], |settings| &settings.options);
        let mut options = dhcp_option::merged(&self.subnet.options, own);
        options.retain(|option| option.always || request.wants(option.code));
        options.sort_by_key(|option| request.rank(option.code));
        options
    }
}

/// The server identifier that this client is told (RFC 5107 lets relays choose it).
pub fn server_id(request: &Request, subnet: &Subnet) -> Ipv4Addr {
    request.server_id_override().unwrap_or(subnet.server)
}

/// An OFFER, or an ACK to anything else than DISCOVER.
pub fn offer_or_ack(request: &Request, terms: &Terms<'_>) -> Reply {
    let subnet = terms.subnet;
    let kind = match request.kind {
        Kind::Discover => MessageType::Offer,
        _ => MessageType::Ack,
    };
    let mut message = header(request, kind, subnet);
    if let Some((address, lease_secs)) = terms.lease {
        message.set_yiaddr(address);
        let options = message.opts_mut();
        options.insert(DhcpOption::AddressLeaseTime(lease_secs));
        // RFC 2131 section 4.4.5.
        options.insert(DhcpOption::Renewal(lease_secs / 2));
        options.insert(DhcpOption::Rebinding((u64::from(lease_secs) * 7 / 8) as u32));
    }
    if matches!(request.kind, Kind::Extend { .. } | Kind::Inform) {
        message.set_ciaddr(request.ciaddr);
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::SubnetMask(subnet.network.netmask()));
    if let Some(router) = subnet.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    if request.wants(28) {
        options.insert(DhcpOption::BroadcastAddr(subnet.network.broadcast()));
    }
    if request.wants(6) && !subnet.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(subnet.dns.clone()));
    }
    if request.wants(42) && !subnet.ntp.is_empty() {
        options.insert(DhcpOption::NtpServers(subnet.ntp.clone()));
    }
    if request.wants(15) && !terms.domain.is_empty() {
        options.insert(DhcpOption::DomainName(terms.domain.to_owned()));
    }
    if request.wants(code::HOST_NAME)
        && let Some(hostname) = terms.hostname
    {
        options.insert(DhcpOption::Hostname(hostname.to_owned()));
    }
    if let Some(mtu) = terms.mtu().filter(|_| request.wants(dhcp_option::MTU)) {
        options.insert(DhcpOption::InterfaceMtu(mtu));
    }
    let of_site = terms.options(request);
    for option in &of_site {
        let value = option.value_with_router(subnet.router);
        options.insert(DhcpOption::Unknown(UnknownOption::new(
            OptionCode::from(option.code),
            value,
        )));
    }
    if let Some(loader) = terms.loader {
        boot(&mut message, request, loader, subnet.server);
    }
    if let Some(root) = terms.root {
        if terms.loader.is_none() {
            // libsa takes `siaddr` for the server of the root, before it reads the path (stand/libsa/bootp.c of FreeBSD).
            message.set_siaddr(subnet.server);
        }
        net_root(&mut message, request, root);
    }
    let spared: Vec<OptionCode> = of_site
        .iter()
        .rev()
        .map(|option| OptionCode::from(option.code))
        .collect();
    let (bytes, left_out) = encode(message, request, &spared);
    Reply {
        bytes,
        destination: destination(request, terms.lease.map(|(address, _)| address)),
        source: subnet.server,
        left_out,
    }
}

/// The boot part alone (PXE 2.1, section 2.2.2, ProxyDHCP): an OFFER, or an ACK to anything else than DISCOVER, without an
/// address, lease time or any other setting of the network. It goes `to` that place; none = to the relay or by broadcast.
pub fn boot_only(request: &Request, subnet: &Subnet, loader: &Loader, to: Option<SocketAddrV4>) -> Reply {
    let discover = request.kind == Kind::Discover;
    let kind = match discover {
        true => MessageType::Offer,
        false => MessageType::Ack,
    };
    let mut message = header(request, kind, subnet);
    if !discover {
        message.set_ciaddr(request.ciaddr);
    }
    let destination = match (to, request.giaddr) {
        (Some(to), _) => Destination::Routed(to),
        (None, Ipv4Addr::UNSPECIFIED) => Destination::Broadcast,
        (None, relay) => {
            // A relay passes a reply on to yiaddr, which is 0.0.0.0 here (RFC 1542 section 4.1.2).
            message.set_flags(Flags::from(request.flags).set_broadcast());
            Destination::Routed(SocketAddrV4::new(relay, SERVER_PORT))
        }
    };
    boot_file(&mut message, request, loader, subnet.server);
    let options = message.opts_mut();
    let http = request.http_client && !request.ipxe;
    let class = if http { HTTP_CLIENT } else { PXE_CLIENT };
    // iPXE looks for it as well: without it an offer without an address is no ProxyDHCP offer (dhcp_discovery_rx() in its
    // src/net/udp/dhcp.c). It then takes `siaddr` and the file name from the offer.
    options.insert(DhcpOption::ClassIdentifier(class.into()));
    let bios = !http && !request.ipxe && matches!(request.arch, None | Some(0));
    if bios && discover {
        // PXE 2.1, table 2-1, PXE_DISCOVERY_CONTROL, bit 3: load the file of this offer, ask no boot server. Only for a BIOS:
        // EDK2 drops ProxyDHCP offers with discovery control (PxeBcCacheDhcp4Offer() in NetworkPkg/UefiPxeBcDxe/PxeBcDhcp4.c
        // keeps an offer of the type ProxyPxe10 only as a second one). Without option 43 the offer counts as ProxyBinl, and
        // UEFI sends a REQUEST to port 4011 of `siaddr` for the file.
        options.insert(DhcpOption::VendorExtensions(DISCOVERY_CONTROL.to_vec()));
    } else if request.raspberry_pi {
        // "(optional) Receive DHCP proxy reply" in the documentation of its network boot.
        options.insert(DhcpOption::VendorExtensions(RASPBERRY_PI_MENU.to_vec()));
    }
    if !request.ipxe {
        echo_uuid(&mut message, request);
    }
    let (bytes, left_out) = encode(message, request, &[]);
    Reply {
        bytes,
        destination,
        source: subnet.server,
        left_out,
    }
}

/// A NAK; `why` goes into option 56.
pub fn nak(request: &Request, subnet: &Subnet, why: &str) -> Reply {
    let mut message = header(request, MessageType::Nak, subnet);
    message.opts_mut().insert(DhcpOption::Message(
        why.chars().filter(char::is_ascii).take(200).collect(),
    ));
    let destination = match request.giaddr {
        // RFC 2131 section 4.3.2: the client must not take the address it had for granted.
        Ipv4Addr::UNSPECIFIED => Destination::Broadcast,
        relay => {
            message.set_flags(Flags::from(request.flags).set_broadcast());
            Destination::Routed(SocketAddrV4::new(relay, SERVER_PORT))
        }
    };
    let (bytes, left_out) = encode(message, request, &[]);
    Reply {
        bytes,
        destination,
        source: subnet.server,
        left_out,
    }
}

fn header(request: &Request, kind: MessageType, subnet: &Subnet) -> Message {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(request.xid, zero, zero, zero, request.giaddr, &request.hwaddr.0);
    message.set_opcode(Opcode::BootReply).set_flags(request.flags.into());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(server_id(request, subnet)));
    if let Some(id) = &request.client_id {
        options.insert(DhcpOption::ClientIdentifier(id.clone()));
    }
    message
}

/// Says what to load, with the options by which firmware knows an offer as one to boot from.
fn boot(message: &mut Message, request: &Request, loader: &Loader, next_server: Ipv4Addr) {
    boot_file(message, request, loader, next_server);
    let options = message.opts_mut();
    if request.ipxe {
        // no-pxedhcp (0xb0) = 1: without it iPXE waits for a ProxyDHCP offer after every DHCP offer (1 to 3 s
        // in our captures, which show two DISCOVERs before each REQUEST).
        let data = vec![0xb0, 1, 1];
        options.insert(DhcpOption::Unknown(UnknownOption::new(
            OptionCode::from(code::IPXE),
            data,
        )));
    } else if request.arch == Some(RASPBERRY_PI) {
        options.insert(DhcpOption::ClassIdentifier(PXE_CLIENT.into()));
        options.insert(DhcpOption::VendorExtensions(RASPBERRY_PI_MENU.to_vec()));
        echo_uuid(message, request);
    } else if request.http_client {
        // UEFI 2.10 section 24.7.3.1: only an offer that says so is an HTTP boot offer.
        options.insert(DhcpOption::ClassIdentifier(HTTP_CLIENT.into()));
    } else if request.pxe_client {
        // PXE 2.1 section 2.4.5: an offer of class PXEClient without discovery control (tag 6) makes the ROM look for a boot
        // server on port 4011; bit 3 says to load the boot file of this offer at once. Without either option
        // SeaBIOS and OVMF load it as well (captures), other ROMs do not take the offer for a PXE one.
        options.insert(DhcpOption::ClassIdentifier(PXE_CLIENT.into()));
        options.insert(DhcpOption::VendorExtensions(DISCOVERY_CONTROL.to_vec()));
        echo_uuid(message, request);
    }
}

/// Says where the root is. Only FreeBSD's loader knows what the options above 249 mean to it.
fn net_root(message: &mut Message, request: &Request, root: &NetRoot) {
    let options = message.opts_mut();
    options.insert(DhcpOption::RootPath(root.path.clone()));
    if request.freebsd_loader {
        for (code, setting) in (NetRoot::FIRST_OPTION..u8::MAX).zip(root.settings.iter().take(NetRoot::MOST_SETTINGS)) {
            let data = setting.clone().into_bytes();
            options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), data)));
        }
    }
}

/// RFC 4578 section 2.3 wants the UUID of a PXE client echoed.
fn echo_uuid(message: &mut Message, request: &Request) {
    if let Some(uuid) = request.uuid {
        let mut id = vec![0];
        id.extend_from_slice(uuid.as_bytes());
        message.opts_mut().insert(DhcpOption::ClientMachineIdentifier(id));
    }
}

/// Says what to load in every place where some firmware looks for it.
fn boot_file(message: &mut Message, request: &Request, loader: &Loader, next_server: Ipv4Addr) {
    match loader {
        Loader::Tftp { server, file } => {
            message.set_siaddr(*server);
            let server = server.to_string();
            message.set_sname(server.as_bytes());
            set_file(message, file);
            message
                .opts_mut()
                .insert(DhcpOption::TFTPServerName(server.into_bytes()));
            let mut name = file.clone().into_bytes();
            if !request.ipxe {
                // Intel's ROMs read past a name that does not end in NUL (they then ask for "undionly.kpxe\xff"). dnsmasq ends it
                // so in all our captures; SeaBIOS's iPXE and OVMF take it off.
                name.push(0);
            }
            message.opts_mut().insert(DhcpOption::BootfileName(name));
        }
        Loader::Own { server } => {
            // U-Boot takes `siaddr`. A Raspberry Pi takes option 66 where it is, an address in text without NUL
            // (github.com/raspberrypi/firmware issue 871), or else the server identifier.
            message.set_siaddr(*server);
            message
                .opts_mut()
                .insert(DhcpOption::TFTPServerName(server.to_string().into_bytes()));
        }
        Loader::Url(url) => {
            // Unused by the URL itself, but iPXE scripts know it as ${next-server}.
            message.set_siaddr(next_server);
            set_file(message, url);
            message
                .opts_mut()
                .insert(DhcpOption::BootfileName(url.clone().into_bytes()));
        }
    }
}

/// The `file` field, where the name fits in with its NUL.
fn set_file(message: &mut Message, name: &str) {
    if name.len() < 128 {
        message.set_fname(name.as_bytes());
    }
}

fn destination(request: &Request, given: Option<Ipv4Addr>) -> Destination {
    let client = |address| Destination::Routed(SocketAddrV4::new(address, CLIENT_PORT));
    match (request.giaddr, request.ciaddr, given) {
        // RFC 2131 section 4.3.5: INFORM is answered to ciaddr whatever the way there.
        (_, ciaddr, _) if request.kind == Kind::Inform && !ciaddr.is_unspecified() => client(ciaddr),
        (relay, ..) if !relay.is_unspecified() => Destination::Routed(SocketAddrV4::new(relay, SERVER_PORT)),
        // Only to the address that it is being given: ciaddr of a DISCOVER can be anything.
        (_, ciaddr, given) if given == Some(ciaddr) => client(ciaddr),
        (_, _, Some(ipaddr)) if !request.wants_broadcast() => Destination::Frame {
            hwaddr: request.hwaddr,
            ipaddr,
        },
        _ => Destination::Broadcast,
    }
}

/// What can be left out of a reply that is too long for its client, least needed first, after the options of the site file.
const DISPENSABLE: [OptionCode; 11] = [
    OptionCode::InterfaceMtu,
    OptionCode::NtpServers,
    OptionCode::Message,
    OptionCode::DomainName,
    OptionCode::BroadcastAddr,
    OptionCode::TFTPServerName,
    OptionCode::ClientMachineIdentifier,
    OptionCode::Hostname,
    OptionCode::DomainNameServer,
    OptionCode::ClientIdentifier,
    OptionCode::VendorExtensions,
];

/// Largest DHCP message that `request`'s client takes, bytes: what it says in option 57, and never more than a frame holds.
pub fn largest(request: &Request) -> usize {
    usize::from(request.max_size.unwrap_or(DEFAULT_MAX).min(ETHERNET_MTU)) - HEADERS
}

/// The bytes of a reply, and how long an option 82 is that they leave out: RFC 3046 section 2.2 wants it echoed whole or not at
/// all, so what does not fit goes before anything else does.
fn encode(message: Message, request: &Request, spared: &[OptionCode]) -> (Vec<u8>, Option<usize>) {
    let Some(info) = &request.relay_info else {
        return (fit(message, request, &[], spared).0, None);
    };
    match fit(message.clone(), request, info, spared) {
        (bytes, true) => (bytes, None),
        (_, false) => (fit(message, request, &[], spared).0, Some(info.len())),
    }
}

/// Encodes a message in the bytes that its client takes, without what can be spared, `spared` first; and whether it fits.
fn fit(mut message: Message, request: &Request, relay_info: &[u8], spared: &[OptionCode]) -> (Vec<u8>, bool) {
    let max = largest(request);
    let mut bytes = Vec::with_capacity(max);
    let mut dispensable = spared.iter().chain(&DISPENSABLE);
    loop {
        bytes.clear();
        // Encoding fails only for names that are too long for their fields, and `boot` checks those.
        if let Err(error) = message.encode(&mut Encoder::new(&mut bytes)) {
            tracing::error!(hwaddr = %request.hwaddr, %error, "a DHCP reply could not be encoded");
        }
        append_relay_info(&mut bytes, relay_info);
        if bytes.len() <= max {
            break;
        }
        match dispensable.next() {
            Some(code) => message.opts_mut().remove(*code),
            None => break,
        };
    }
    let fits = bytes.len() <= max;
    bytes.resize(bytes.len().max(MIN_LEN), 0);
    (bytes, fits)
}

/// Option 82, byte for byte, behind all others (RFC 3046 section 2.1); pieces of 255 bytes where it is longer (RFC 3396).
/// dhcproto writes an option of raw bytes with this code twice.
fn append_relay_info(bytes: &mut Vec<u8>, info: &[u8]) {
    const END: u8 = 255;
    if info.is_empty() {
        return;
    }
    bytes.pop_if(|last| *last == END);
    for piece in info.chunks(255) {
        bytes.extend_from_slice(&[code::RELAY_INFO, piece.len() as u8]);
        bytes.extend_from_slice(piece);
    }
    bytes.push(END);
}
