//! A packet socket for replies to clients that have no address yet.
//!
//! Such a client cannot answer ARP, so the kernel cannot send to it by itself. The alternative, an ARP entry per
//! request, changes state of the whole machine, needs CAP_NET_ADMIN, and fails when the neighbour table is
//! full (1,024 entries by default), which is exactly when a big cluster starts. Broadcasts go the same
//! way: their source address is then the server identifier even if the interface has other addresses, and no route is needed.
#![allow(unsafe_code)]

use rackstrap_wire::HwAddr;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;

/// Sends IPv4 packets in Ethernet frames on one interface; receives nothing.
#[derive(Debug)]
pub(super) struct FrameSocket {
    socket: Socket,
    index: u32,
}

impl FrameSocket {
    /// A socket for the interface with this index; needs CAP_NET_RAW.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        // Type DGRAM: the kernel writes the Ethernet header. Protocol 0: nothing is received, so nothing queues up.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        Ok(FrameSocket { socket, index })
    }

    /// Sends one IPv4 packet to a hardware address.
    pub(super) fn send(&self, to: HwAddr, packet: &[u8]) -> io::Result<()> {
        let address = self.address(to)?;
        self.socket.send_to(packet, &address)?;
        Ok(())
    }

    fn address(&self, to: HwAddr) -> io::Result<SockAddr> {
        let mut addr = [0; 8];
        addr[..6].copy_from_slice(&to.0);
        let link = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: self.index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: addr,
        };
        // SAFETY: `storage` points to a zeroed, suitably aligned sockaddr_storage, which is larger than sockaddr_ll (20
        // bytes); the length set is that of what was written, whose family is AF_PACKET.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, len| {
                storage.cast::<libc::sockaddr_ll>().write(link);
                *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })?
        };
        Ok(address)
    }
}
