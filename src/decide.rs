//! The one question: who is this, and what shall it boot?
//!
//! DHCP, TFTP, HTTP and NFS ask it; none of them knows why. It is pure: a [`World`], a
//! [`Requester`], an answer with its reasons, no clock, no file, no lock.

use crate::{
    config::{Site, Subnet},
    image::{Catalog, ImageVersion},
    inventory::{Inventory, Node},
};
use rackstrap_wire::{DiskPlan, HwAddr};
use std::{net::Ipv4Addr, sync::Arc};

/// Everything that decisions are made from; immutable, swapped as a whole when anything changes.
#[derive(Clone, Debug)]
pub struct World {
    /// The checked site file.
    pub site: Arc<Site>,
    /// All nodes.
    pub inventory: Arc<Inventory>,
    /// All sealed images.
    pub images: Arc<Catalog>,
}

/// The world that every task reads; a reader takes a snapshot once a packet.
pub type SharedWorld = Arc<arc_swap::ArcSwap<World>>;

/// What is known of whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// Hardware address: chaddr of DHCP, or the one in a boot script's URL.
    pub hwaddr: Option<HwAddr>,
    /// Sender address, where there is one.
    pub ipaddr: Option<Ipv4Addr>,
    /// Client architecture (RFC 4578 option 93, first value), where it was said.
    pub arch: Option<u16>,
    /// True if the sender is iPXE (user class 77 `iPXE`, or its options 175).
    pub ipxe: bool,
    /// True if the sender asked for HTTP boot (vendor class `HTTPClient`).
    pub http_client: bool,
}
/// The answer.
#[derive(Clone, Debug)]
pub enum Decision {
    /// A node of the inventory.
    Node(Box<NodeDecision>),
    /// Nobody that we know.
    Unknown {
        /// How that came about, one line a step.
        why: Vec<String>,
    },
}

/// What a node shall boot.
#[derive(Clone, Debug)]
pub struct NodeDecision {
    /// The node.
    pub node: Arc<Node>,
    /// The subnet of its address.
    pub subnet: Subnet,
    /// Image version; `Err` says why there is none.
    pub image: Result<Arc<ImageVersion>, String>,
    /// The disk.
    pub disk: Option<DiskPlan>,
    /// Kernel arguments of the site for this node.
    pub kernel_args: String,
    /// Overlay trees, in order.
    pub templates: Vec<String>,
    /// Public keys for root.
    pub authorized_keys: Vec<String>,
    /// Serial console or empty.
    pub console: String,
    /// PID 1.
    pub init: String,
    /// Size limit of the writable layer.
    pub ram_size: String,
    /// How it came about, one line a step, for `rackstrap explain`.
    pub why: Vec<String>,
}
