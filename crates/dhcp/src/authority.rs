//! What the engine asks of the rest of the program.

use super::{infiniband::Port, pool::Lease, proxy::Left, request::Kind};
use ipnet::Ipv4Net;
use rackstrap_base::{
    clock::Timestamp,
    dhcp_option::DhcpOption,
    firmware::RASPBERRY_PI,
    subnet::{DhcpPart, Subnet},
};
use rackstrap_wire::HwAddr;
use std::{borrow::Cow, net::Ipv4Addr, sync::Arc};
use uuid::Uuid;

/// Knows nodes, and what machines shall load. Every method is called on the packet path: from memory, in microseconds.
pub trait Authority: Send + Sync + 'static {
    /// Who is this, and what shall it get?
    fn ask(&self, who: &Ask<'_>) -> Answer;

    /// Told after every well-formed packet, once its answer is certain (a lease is stored).
    fn observe(&self, event: &DhcpEvent);

    /// The subnets as they are now; the same `Arc` until they change. Interfaces are watched every few
    /// seconds: new ones are listened on, others left.
    fn network(&self) -> Arc<Network>;

    /// Port 4011 of the daemon's address `server` could not be opened, and `why`; it is tried again. Without `why` it is open now, or is
    /// not needed any more.
    fn boot_server(&self, _server: Ipv4Addr, _why: Option<&str>) {}

    /// An InfiniBand card asks on `interface` for an address, and gets none.
    fn infiniband(&self, _port: &Port, _interface: &str) {}

    /// True if it is a node's: its requests overtake those of others.
    fn is_node(&self, hwaddr: HwAddr) -> bool;

    /// The machine that does not exist, which asks for other servers: a relay may bring its question here.
    fn asker(&self) -> Option<HwAddr> {
        None
    }

    /// True if the address is a node's, so that the pool does not hand it out.
    fn is_node_address(&self, address: Ipv4Addr) -> bool;

    /// True if `hwaddr` is a card of the node that has `address`.
    fn is_card_of(&self, hwaddr: HwAddr, address: Ipv4Addr) -> bool;
}

/// Where pool leases are kept. Called from the lease thread only, never from async code.
pub trait LeaseStore: Send + Sync + 'static {
    /// All leases, at start.
    fn load(&self) -> anyhow::Result<Vec<Lease>>;
    /// Stores leases by address, replacing what was there: all or none, durable on return. One call
    /// serves all the requests that were waiting.
    fn commit(&self, leases: &[Lease]) -> anyhow::Result<()>;
    /// Removes what is stored for these addresses; durable on return.
    fn forget(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()>;
}

/// The part of the site that DHCP reads.
#[derive(Clone, Debug)]
pub struct Network {
    /// All subnets that DHCP answers for.
    pub subnets: Vec<Subnet>,
    /// DNS domain for option 15; may be empty.
    pub domain: String,
}

/// What a request says of the machine that sent it.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Hardware address of the client (`chaddr`).
    pub hwaddr: HwAddr,
    /// Client architecture (RFC 4578): 0 BIOS, 7 and 9 x64 UEFI, 11 arm64 UEFI, 16 x64 UEFI by HTTP.
    pub arch: Option<u16>,
    /// Vendor class (option 60) as [`rackstrap_base::firmware::class_text`]; empty if it was not sent.
    pub vendor_class: &'a str,
    /// True if this is iPXE already.
    pub ipxe: bool,
    /// True for an iPXE that says it was built without HTTP.
    pub ipxe_without_http: bool,
    /// True if this is FreeBSD's boot loader already.
    pub freebsd_loader: bool,
    /// True if this is GRUB already, which needs the address of the server and no file.
    pub grub: bool,
    /// True if the firmware asks for HTTP boot: only a [`Loader::Url`] helps it.
    pub http_client: bool,
    /// UUID of the machine as sent (may be all zeros).
    pub uuid: Option<Uuid>,
    /// Relay's circuit id.
    pub circuit_id: Option<&'a [u8]>,
    /// Relay's remote id.
    pub remote_id: Option<&'a [u8]>,
    /// Interface, relay and subnet that the request came through.
    pub link: Link<'a>,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Interface that received it.
    pub interface: &'a str,
    /// Relay, if any.
    pub relay: Option<Ipv4Addr>,
    /// The subnet that is answered for.
    pub network: Ipv4Net,
    /// The daemon's address in it.
    pub server: Ipv4Addr,
}

/// What a machine gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is a node.
    Node {
        /// The IP address that belongs to the node.
        ipaddr: Ipv4Addr,
        /// Its name, option 12.
        hostname: String,
        /// What to load; none = just an address.
        loader: Option<Loader>,
        /// The root of its system by NFS, for a system whose own loader asks for it; none for others.
        root: Option<NetRoot>,
        /// What its answers say instead of its subnet's.
        settings: NodeTerms,
    },
    /// An unknown machine: it gets an address of the pool.
    Unknown {
        /// What the machine is told to load; none for an address only.
        loader: Option<Loader>,
        /// Whether it is a further card of a node: its script ends at once, so that it needs the address for minutes only.
        further_card: bool,
    },
    /// No answer at all, and why.
    Silent(Cow<'static, str>),
}

/// What the answers to a node say instead of its subnet's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerms {
    /// MTU in bytes (option 26); none = that of the subnet.
    pub mtu: Option<u16>,
    /// Options in addition to the subnet's, or instead of those with the same code.
    pub options: Vec<DhcpOption>,
}

/// The root that FreeBSD's boot loader and kernel mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetRoot {
    /// Option 17: `10.5.0.1:/freebsd@3`.
    pub path: String,
    /// Variables for the loader and the kernel, `name=value`; at most [`NetRoot::MOST_SETTINGS`].
    pub settings: Vec<String>,
}

impl NetRoot {
    /// The first option of which FreeBSD's loader makes a variable (`dhcp_opt` in stand/libsa/bootp.c of its sources).
    pub const FIRST_OPTION: u8 = 250;
    /// Options 250 to 254 are variables.
    pub const MOST_SETTINGS: usize = 5;
}

/// What firmware or loader is to load next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loader {
    /// A file by TFTP.
    Tftp {
        /// Address of the TFTP server (`siaddr`).
        server: Ipv4Addr,
        /// Path of the file on that server.
        file: String,
    },
    /// A URL: a script for iPXE, an EFI program for HTTP boot.
    Url(String),
    /// Nothing that is named here: U-Boot and Raspberry Pi ask TFTP for names of their own.
    Own {
        /// Address of the TFTP server (`siaddr`).
        server: Ipv4Addr,
    },
}

/// One well-formed packet and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpEvent {
    /// When the packet came, by the clock of the server.
    pub at: Timestamp,
    /// Hardware address of the client (`chaddr`).
    pub hwaddr: HwAddr,
    /// UUID of the machine as sent, which may be all zeros; none if the client sent none.
    pub uuid: Option<Uuid>,
    /// Client architecture (RFC 4578); none if the client did not say.
    pub arch: Option<u16>,
    /// Vendor class (option 60) as [`rackstrap_base::firmware::class_text`]; empty if it was not sent.
    pub vendor_class: String,
    /// Transaction id: the packets of one attempt to get an address share it (RFC 2131 section 4.4.1).
    pub xid: u32,
    /// True if iPXE sent it.
    pub ipxe: bool,
    /// True if FreeBSD's boot loader sent it.
    pub freebsd_loader: bool,
    /// True if GRUB sent it.
    pub grub: bool,
    /// True for UEFI HTTP boot.
    pub http_client: bool,
    /// True for firmware or a loader (PXE, HTTP or iPXE) that sends as only these do, false for an operating system.
    pub booting: bool,
    /// Host name that it claims.
    pub host_name: Option<String>,
    /// Interface that received it.
    pub interface: String,
    /// Relay, if any.
    pub relay: Option<Ipv4Addr>,
    /// Relay's circuit id (RFC 3046): the switch port.
    pub circuit_id: Option<Vec<u8>>,
    /// Relay's remote id: the switch.
    pub remote_id: Option<Vec<u8>>,
    /// The kind of message that was asked.
    pub message: Kind,
    /// The kind of message that went out, if one did.
    pub answer: AnswerKind,
    /// Why, for people.
    pub reason: Cow<'static, str>,
    /// Address that it is about.
    pub address: Option<Ipv4Addr>,
    /// True if it is a node of the inventory.
    pub known: bool,
    /// True if somebody should look at it: a node's address is used by another machine, a pool is full.
    pub alarm: bool,
    /// The subnet whose pool had no address left for it.
    pub pool_full: Option<(Ipv4Net, Timestamp)>,
    /// Which part of DHCP is answered in the subnet of the machine.
    pub part: DhcpPart,
    /// True if it came to port 4011. Programs of ordinary users can send there, and such a packet does not say where its machine is
    /// plugged in: `interface` is empty, and there is no relay.
    pub boot_server: bool,
    /// Why the packet is left to the DHCP server that gives the addresses; none if it is answered, or has no answer for
    /// another reason.
    pub left: Option<Left>,
}

impl DhcpEvent {
    /// True if firmware or a loader got the last packet that it needs of this server before it asks for files. In a proxy
    /// subnet that is the OFFER: the REQUEST goes to the server that gives the address.
    pub fn completes_boot(&self) -> bool {
        self.booting
            && match self.part {
                // The ROM of a Raspberry Pi 3 takes the address of an OFFER without a REQUEST, and the REQUEST of a Raspberry Pi 4 may say
                // nothing of a boot. The address of a node is its own in either case.
                DhcpPart::Full if self.arch == Some(RASPBERRY_PI) => {
                    matches!(self.answer, AnswerKind::Offer | AnswerKind::Ack)
                }
                DhcpPart::Full => self.answer == AnswerKind::Ack,
                // GRUB does not know such offers, and asks the server by its address.
                DhcpPart::Proxy => self.answer == AnswerKind::Offer || (self.grub && self.takes_address()),
                DhcpPart::Off => false,
            }
    }

    /// True if firmware or a loader takes an address from another DHCP server. A DECLINE, RELEASE or INFORM is left to that server, too,
    /// and takes none.
    pub fn takes_address(&self) -> bool {
        let asks = matches!(
            self.message,
            Kind::Selecting { .. } | Kind::InitReboot { .. } | Kind::Extend { .. }
        );
        self.booting && asks && self.left == Some(Left::Address) && self.address.is_some()
    }
}

/// How a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// A DHCPOFFER went out.
    Offer,
    /// A DHCPACK went out.
    Ack,
    /// A DHCPNAK went out.
    Nak,
    /// Nothing went out.
    Silent,
}
