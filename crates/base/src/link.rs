//! Packet sockets: IP packets in the frames of one interface, past this machine's own IP.
//!
//! A client that has no address yet cannot answer ARP, so the kernel cannot send to it by itself. The alternative, an ARP entry per
//! request, changes state of the whole machine, needs CAP_NET_ADMIN, and fails when the neighbour table is
//! full (1,024 entries by default), which is exactly when a big cluster starts. Broadcasts go the same
//! way: their source address is then the server identifier even if the interface has other addresses, and no route is needed.
//! What is received this way are packets that are not meant for this machine's IP, or for a version of it that is switched off.
#![allow(unsafe_code)]

pub mod each;

use rackstrap_wire::HwAddr;
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// IPv4 in Ethernet.
pub const IPV4: u16 = libc::ETH_P_IP as u16;
/// IPv6 in Ethernet.
pub const IPV6: u16 = libc::ETH_P_IPV6 as u16;

/// Sends and receives IP packets on one interface. Needs CAP_NET_RAW to be opened.
#[derive(Debug)]
pub struct LinkSocket {
    socket: Socket,
    index: u32,
}

impl LinkSocket {
    /// A socket for the interface with this index that receives nothing.
    pub fn sender(index: u32) -> io::Result<Self> {
        // Type DGRAM: the kernel writes the Ethernet header. Protocol 0: nothing is received, so nothing queues up.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        Ok(LinkSocket { socket, index })
    }

    /// The same, which also receives packets of one protocol that pass `filter`. What this machine sends itself is not among
    /// them. Offsets in the filter are those of the IP packet.
    pub fn receiver(index: u32, protocol: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let link = LinkSocket::sender(index)?;
        // Before it is bound, so that nothing else ever queues up.
        link.socket.attach_filter(filter)?;
        link.socket.bind(&link.address(HwAddr([0; 6]), protocol)?)?;
        Ok(link)
    }

    /// Has the card take frames to a group as well.
    pub fn join(&self, group: HwAddr) -> io::Result<()> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group.0);
        let request = libc::packet_mreq {
            mr_ifindex: self.index as i32,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        // SAFETY: the pointer is to a packet_mreq, whose size is given, and is not kept (packet(7)).
        let done = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one IP packet to a hardware address.
    pub fn send(&self, to: HwAddr, protocol: u16, packet: &[u8]) -> io::Result<()> {
        self.socket.send_to(packet, &self.address(to, protocol)?)?;
        Ok(())
    }

    /// Receives one packet: its length, and the hardware address that its frame came from. What does not fit is cut off.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, HwAddr)> {
        // SAFETY: all its fields are integers, for which zero is a value.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: both buffers are ours, and as long as is said; the kernel writes no more than that.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        match usize::try_from(received) {
            Ok(received) => Ok((received, hwaddr_of(&from))),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// The interface's own hardware address.
    pub fn own_hwaddr(&self) -> io::Result<HwAddr> {
        // SAFETY: all its fields are integers, for which zero is a value.
        let mut own: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the buffer is ours, and as long as is said; the kernel writes no more than that.
        let done = unsafe { libc::getsockname(self.socket.as_raw_fd(), (&raw mut own).cast(), &raw mut length) };
        match done {
            0 => Ok(hwaddr_of(&own)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The socket for use in tasks.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of a socket which this value owns and never exchanges, so it is open, and the same, until
        // the value is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        registered.map_err(io::Error::from)
    }

    fn address(&self, to: HwAddr, protocol: u16) -> io::Result<SockAddr> {
        let mut addr = [0; 8];
        addr[..6].copy_from_slice(&to.0);
        let link = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
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

/// Names of all network interfaces of this machine, sorted; none if sysfs cannot be read.
pub fn interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    // Interfaces are links to directories; `bonding_masters` is a file next to them.
    let interfaces = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = interfaces
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// MTU of a network interface of this machine, bytes; none if there is no such interface.
pub fn mtu(interface: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?;
    text.trim().parse().ok()
}

fn hwaddr_of(address: &libc::sockaddr_ll) -> HwAddr {
    let a = address.sll_addr;
    HwAddr([a[0], a[1], a[2], a[3], a[4], a[5]])
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for LinkSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
