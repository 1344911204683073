//! The parts that unit tests share, each built in one place.

use crate::serve::{self, Shared};
use rackstrap_base::{clock::Timestamp, subnet::DhcpPart, warnings::SiteWarnings};
use rackstrap_dhcp::{AnswerKind, DhcpEvent, Kind};
use rackstrap_model::testing::cluster;
use rackstrap_wire::HwAddr;
use std::{net::Ipv4Addr, path::Path};

/// A whole daemon with its state in `dir`, as [`serve::open`] has it before it binds a port:
/// [`CLUSTER`](rackstrap_model::testing::CLUSTER), and `more` of a site file.
pub fn daemon(dir: &Path, more: &str) -> Shared {
    serve::open(
        cluster(&format!("[server]\nstate-dir = {dir:?}\n{more}")),
        SiteWarnings::default(),
    )
    .unwrap()
}

/// A system of the node with the card `hwaddr` extends the lease of `address`, and the daemon answers with an ACK.
pub fn dhcp_ack(hwaddr: HwAddr, address: Ipv4Addr) -> DhcpEvent {
    DhcpEvent {
        at: Timestamp::now(),
        hwaddr,
        uuid: None,
        arch: None,
        vendor_class: String::new(),
        xid: 1,
        ipxe: false,
        freebsd_loader: false,
        grub: false,
        http_client: false,
        booting: false,
        host_name: None,
        interface: "eth1".to_owned(),
        relay: None,
        circuit_id: None,
        remote_id: None,
        message: Kind::Extend { address },
        answer: AnswerKind::Ack,
        reason: "its static address".into(),
        address: Some(address),
        known: true,
        alarm: false,
        pool_full: None,
        part: DhcpPart::Full,
        boot_server: false,
        left: None,
    }
}
