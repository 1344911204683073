//! A request, checked: the only form in which the engine sees one.

use super::{
    guard::{self, Malformed},
    options::{Options, code, sub_option},
};
use rackstrap_base::firmware;
use rackstrap_wire::HwAddr;
use std::{fmt, net::Ipv4Addr};
use uuid::Uuid;

/// Longest host name that is kept for people, in bytes.
const MAX_HOST_NAME: usize = 64;

/// A well-formed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the client wants.
    pub kind: Kind,
    /// Transaction id, which the reply repeats.
    pub xid: u32,
    /// Seconds since the client began; copied nowhere, of use to people.
    pub secs: u16,
    /// The 16 flag bits as sent.
    pub flags: u16,
    /// Address that the client has and answers ARP for, or 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// Address of the relay, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// Number of relays that passed the request on.
    pub hops: u8,
    /// Hardware address of the client (`chaddr`).
    pub hwaddr: HwAddr,
    /// Server identifier, where given.
    pub server_id: Option<Ipv4Addr>,
    /// Requested address, where given.
    pub requested: Option<Ipv4Addr>,
    /// Largest message that the client takes (option 57), at least 576.
    pub max_size: Option<u16>,
    /// Parameter request list; none = the client did not say.
    pub parameters: Option<Vec<u8>>,
    /// Client identifier, echoed (RFC 6842) and otherwise ignored: firmware, loader and
    /// system of one machine send three different ones.
    pub client_id: Option<Vec<u8>>,
    /// Relay agent information, echoed byte for byte (RFC 3046).
    pub relay_info: Option<Vec<u8>>,
    /// Client architecture: of option 93 (RFC 4578), or else the one in the vendor class.
    pub arch: Option<u16>,
    /// Vendor class (option 60) by [`firmware::class_text`]; empty if it was not sent.
    pub vendor_class: String,
    /// The machine's UUID as the firmware says it, wire order; may be all zeros or another machine's as well.
    pub uuid: Option<Uuid>,
    /// `iPXE` in option 77, or option 175.
    pub ipxe: bool,
    /// True for an iPXE that lists its features and HTTP is none of them (some cards' ROMs).
    pub ipxe_without_http: bool,
    /// True for FreeBSD's boot loader: `FreeBSD` in option 77 (`bootp_fill_request` in stand/libsa/bootp.c of its sources).
    pub freebsd_loader: bool,
    /// GRUB asks for an address by itself, as the one on a disk does (`net_bootp`). Its DISCOVER says nothing of the sender; its REQUEST has
    /// a list of parameters that no other client has.
    pub grub: bool,
    /// Vendor class begins with `PXEClient`.
    pub pxe_client: bool,
    /// Vendor class begins with `HTTPClient` (UEFI 2.10 section 24.7).
    pub http_client: bool,
    /// The boot ROM or EEPROM of a Raspberry Pi sent it. The architecture is 41 then.
    pub raspberry_pi: bool,
    /// U-Boot sent it.
    pub u_boot: bool,
    /// Type of the entry of a boot menu (PXE 2.1, table 2-1, PXE_BOOT_ITEM: option 43, tag 71) that the client chose; none if
    /// it saw no menu, or chose the entry 0, which is the first one of each menu.
    pub boot_item: Option<u16>,
    /// Host name that the client claims, for people.
    pub host_name: Option<String>,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DHCPDISCOVER: the client looks for servers.
    Discover,
    /// DHCPREQUEST after an OFFER: option 54 names the chosen server (RFC 2131 section 4.3.2).
    Selecting {
        /// Server identifier of the chosen server (option 54).
        server: Ipv4Addr,
        /// The offered address.
        address: Ipv4Addr,
    },
    /// DHCPREQUEST of a restarted client that remembers an address.
    InitReboot {
        /// The remembered address.
        address: Ipv4Addr,
    },
    /// DHCPREQUEST that extends a lease: RENEWING and REBINDING differ only in how they were sent.
    Extend {
        /// The address in use.
        address: Ipv4Addr,
    },
    /// DHCPDECLINE: somebody else answers ARP for the address.
    Decline {
        /// The address that another machine uses.
        address: Ipv4Addr,
    },
    /// DHCPRELEASE: the client gives its address back.
    Release {
        /// The address given back.
        address: Ipv4Addr,
    },
    /// DHCPINFORM: options without an address.
    Inform,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Discover => "discover",
            Kind::Selecting { .. } => "request",
            Kind::InitReboot { .. } => "request (init-reboot)",
            Kind::Extend { .. } => "request (renewing)",
            Kind::Decline { .. } => "decline",
            Kind::Release { .. } => "release",
            Kind::Inform => "inform",
        })
    }
}

/// The architecture of option 93 and the vendor class.
///
/// Firmware that runs several types names the one that it prefers first (RFC 5970 section 3.3), in one option or in several: the first
/// type of the registry counts, or else the first one. PXE 2.1 wants option 93 and the class; some UEFI firmware and proxies send
/// the class only, or an option 93 of one byte.
fn arch_of(option: Option<&[u8]>, class: &[u8]) -> Option<u16> {
    let types = || {
        option
            .unwrap_or_default()
            .chunks_exact(2)
            .map(|b| u16::from_be_bytes([b[0], b[1]]))
    };
    let known = types().find(|number| firmware::arch_type(*number).is_some());
    known
        .or_else(|| types().next())
        .or_else(|| firmware::arch_of_class(class))
}

/// Whether this is a REQUEST of GRUB: netmask, router, DNS, domain, host name, root path, extensions path (`send_dhcp_packet` in
/// grub-core/net/bootp.c, since 2.04), with Debian's further vendor class (tests/captures/uefi-grub-on-disk.pcap); and nothing of itself.
fn is_grub(options: &Options<'_>) -> bool {
    let parameters = options.get(code::PARAMETERS);
    let asks = matches!(
        parameters.as_deref(),
        Some([1, 3, 6, 15, 12, 17, 18] | [1, 3, 6, 15, 12, 17, 18, 60])
    );
    let own = [
        code::VENDOR_CLASS,
        code::CLIENT_ID,
        code::USER_CLASS,
        code::HOST_NAME,
        code::MAX_SIZE,
    ];
    asks && own.into_iter().all(|code| options.get(code).is_none())
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn given(address: Ipv4Addr) -> Option<Ipv4Addr> {
    Some(address).filter(|a| !a.is_unspecified())
}

/// What the client wants (RFC 2131 section 4.3). `in_use` is the address that it has already.
fn kind_of(
    options: &Options<'_>,
    in_use: Option<Ipv4Addr>,
    server_id: Option<Ipv4Addr>,
    requested: Option<Ipv4Addr>,
) -> Result<Kind, Malformed> {
    let in_use = in_use.ok_or(Malformed::NoAddress);
    Ok(match options.get(code::MESSAGE_TYPE).as_deref() {
        None => return Err(Malformed::NoMessageType),
        Some([1]) => Kind::Discover,
        Some([3]) => match (server_id, requested) {
            // Some clients put the offered address into ciaddr instead of option 50.
            (Some(server), requested) => Kind::Selecting {
                server,
                address: requested.map_or(in_use, Ok)?,
            },
            (None, Some(address)) if in_use.is_err() => Kind::InitReboot { address },
            (None, _) => Kind::Extend { address: in_use? },
        },
        Some([4]) => Kind::Decline {
            address: requested.ok_or(Malformed::NoAddress)?,
        },
        Some([7]) => Kind::Release { address: in_use? },
        Some([8]) => Kind::Inform,
        Some(_) => return Err(Malformed::BadMessageType),
    })
}

/// The machine's GUID. RFC 4578 section 2.3 wants type 0 and 16 bytes. Some boards send another length, or leave it out.
fn guid_of(options: &Options<'_>) -> Option<[u8; 16]> {
    match options.get(code::MACHINE_ID).as_deref() {
        Some([0, guid @ ..]) => guid.try_into().ok(),
        _ => None,
    }
}

/// The boot item that firmware asks a PXE boot server for (PXE 2.1, section 2.4.4).
fn boot_item_of(options: &Options<'_>) -> Option<u16> {
    match options.get(code::VENDOR).as_deref().and_then(|o| sub_option(o, 71)) {
        Some([a, b, ..]) => Some(u16::from_be_bytes([*a, *b])).filter(|item| *item != 0),
        _ => None,
    }
}

impl Request {
    /// Reads a datagram from port 67.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        guard::check(bytes)?;
        let options = Options::scan(bytes)?;
        let ciaddr = address(&bytes[12..]);
        let requested = options
            .fixed(code::REQUESTED_ADDRESS)?
            .map(Ipv4Addr::from)
            .and_then(given);
        let server_id = options.fixed(code::SERVER_ID)?.map(Ipv4Addr::from).and_then(given);
        let kind = kind_of(&options, given(ciaddr), server_id, requested)?;
        let vendor_class = options.get(code::VENDOR_CLASS).unwrap_or_default();
        let class_text = firmware::class_text(&vendor_class);
        let hwaddr = HwAddr([bytes[28], bytes[29], bytes[30], bytes[31], bytes[32], bytes[33]]);
        let guid = guid_of(&options);
        let ipxe_options = options.get(code::IPXE);
        // RFC 3004 wants length-prefixed items, iPXE sends its bare name; both are seen.
        let ipxe =
            ipxe_options.is_some() || matches!(options.get(code::USER_CLASS).as_deref(), Some(b"iPXE" | b"\x04iPXE"));
        let said = arch_of(options.get(code::ARCHITECTURE).as_deref(), &vendor_class);
        let raspberry_pi = !ipxe && firmware::is_raspberry_pi(hwaddr, said, &class_text, guid.as_ref());
        // The REQUEST of a Raspberry Pi 4 may have nothing by which it is told from one of a running system. Either can use the answer.
        let like_raspberry_pi = said.is_none() && class_text.is_empty() && firmware::is_raspberry_pi_card(hwaddr);
        let owned = |code| options.get(code).map(|v| v.into_owned());
        Ok(Request {
            kind,
            xid: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            secs: u16::from_be_bytes([bytes[8], bytes[9]]),
            flags: u16::from_be_bytes([bytes[10], bytes[11]]),
            ciaddr,
            giaddr: address(&bytes[24..]),
            hops: bytes[3],
            hwaddr,
            server_id,
            requested,
            max_size: match options.get(code::MAX_SIZE).as_deref() {
                Some(&[a, b]) => Some(u16::from_be_bytes([a, b]).max(576)),
                _ => None,
            },
            parameters: owned(code::PARAMETERS),
            client_id: owned(code::CLIENT_ID),
            relay_info: owned(code::RELAY_INFO).filter(|v| !v.is_empty()),
            arch: match raspberry_pi || (like_raspberry_pi && !ipxe) {
                true => Some(firmware::RASPBERRY_PI),
                false => said,
            },
            u_boot: !ipxe && firmware::is_u_boot(said, &class_text),
            raspberry_pi,
            vendor_class: class_text,
            uuid: guid.map(Uuid::from_bytes),
            ipxe,
            freebsd_loader: matches!(
                options.get(code::USER_CLASS).as_deref(),
                Some(b"FreeBSD" | b"\x07FreeBSD")
            ),
            grub: is_grub(&options),
            // Feature 19 (0x13) is HTTP, 20 HTTPS, in iPXE's src/include/ipxe/features.h.
            ipxe_without_http: ipxe_options.is_some_and(|o| sub_option(&o, 19).is_none() && !o.is_empty()),
            pxe_client: vendor_class.starts_with(firmware::PXE_CLIENT.as_bytes()),
            http_client: vendor_class.starts_with(firmware::HTTP_CLIENT.as_bytes()),
            boot_item: boot_item_of(&options),
            host_name: options
                .get(code::HOST_NAME)
                .map(|v| String::from_utf8_lossy(&v[..v.len().min(MAX_HOST_NAME)]).into_owned()),
        })
    }

    /// True for firmware and loaders that boot from the network, by what they say of themselves.
    pub fn is_network_boot(&self) -> bool {
        self.ipxe || self.pxe_client || self.http_client || self.raspberry_pi || self.u_boot || self.grub
    }

    /// True if the client cannot take unicast before it has its address (RFC 2131 section 4.1).
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// True if the client asks for an option, or does not say what it wants.
    pub fn wants(&self, code: u8) -> bool {
        self.parameters.as_ref().is_none_or(|list| list.contains(&code))
    }

    /// Circuit id of the relay or switch port (RFC 3046 section 3.1).
    pub fn circuit_id(&self) -> Option<&[u8]> {
        sub_option(self.relay_info.as_deref()?, 1)
    }

    /// Remote id (RFC 3046 section 3.2).
    pub fn remote_id(&self) -> Option<&[u8]> {
        sub_option(self.relay_info.as_deref()?, 2)
    }

    /// The network that a relay says the client is on, where giaddr only says how to reach the relay (RFC 3527).
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        self.relay_address(5)
    }

    /// Place of an option in the list of those that the client asks for; options that are not there come last.
    pub fn rank(&self, code: u8) -> usize {
        let list = self.parameters.as_deref().unwrap_or_default();
        list.iter().position(|one| *one == code).unwrap_or(usize::MAX)
    }

    /// The address that a relay wants clients to take for the server's (RFC 5107).
    pub fn server_id_override(&self) -> Option<Ipv4Addr> {
        self.relay_address(11)
    }

    fn relay_address(&self, sub: u8) -> Option<Ipv4Addr> {
        // Without giaddr only the client itself vouches for option 82.
        given(self.giaddr)?;
        let value = sub_option(self.relay_info.as_deref()?, sub)?;
        <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from).and_then(given)
    }
}

/// True if `uuid` can tell machines apart. QEMU without `-uuid` says all zeros (seen in our captures), boards that
/// nobody programmed say their BIOS vendor's sample.
pub fn trustworthy(uuid: &Uuid) -> bool {
    const SAMPLES: [u128; 6] = [
        // American Megatrends' sample, in wire and in printed byte order.
        0x0002_0003_0004_0005_0006_0007_0008_0009,
        0x0300_0200_0400_0500_0006_0007_0008_0009,
        0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc,
        0x7856_3412_3412_7856_90ab_cdde_efaa_bbcc,
        0xfefe_fefe_fefe_fefe_fefe_fefe_fefe_fefe,
        // Of each Raspberry Pi 3 (a capture in the documentation of its network boot).
        0x4444_4444_4444_4444_4444_4444_4444_4444,
    ];
    let bits = uuid.as_u128();
    bits != 0 && bits != u128::MAX && !SAMPLES.contains(&bits)
}
