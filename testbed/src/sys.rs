//! System calls without a safe wrapper.
#![allow(unsafe_code)]

use anyhow::{Context, ensure};
use rustix::ioctl::{Setter, ioctl};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{fs::File, os::fd::OwnedFd};

/// `TUNSETIFF`, linux/if_tun.h: `_IOW('T', 202, int)`, with a `struct ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
/// `IFF_TAP | IFF_NO_PI`: whole frames without a header.
const FRAMES: u16 = 0x0002 | 0x1000;
/// IFNAMSIZ, and the rest of a `struct ifreq`.
const NAME: usize = 16;
const REST: usize = 22;

/// `struct ifreq`, linux/if.h.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; REST],
}

/// Opens the tap `name` of this thread's network namespace: each read and each write is one frame.
pub fn open_tap(name: &str) -> crate::Result<File> {
    let mut request = Request {
        name: [0; NAME],
        flags: FRAMES,
        rest: [0; REST],
    };
    ensure!(name.len() < NAME, "{name} is too long for an interface");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let tap = File::options().read(true).write(true).open("/dev/net/tun");
    let tap = tap.context("opening /dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes a struct ifreq of 40 bytes, which `Request` is.
    unsafe { ioctl(&tap, Setter::<TUNSETIFF, Request>::new(request)) }.with_context(|| format!("opening {name}"))?;
    Ok(tap)
}

/// A socket for the frames of this Ethernet type on an interface of this thread's network namespace.
pub fn packet_socket(interface: i32, ethernet_type: u16) -> crate::Result<File> {
    let protocol = Protocol::from(i32::from(ethernet_type.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("opening a packet socket")?;
    // SAFETY: all bytes zero are a valid sockaddr_storage, the fields of sockaddr_ll are within it, and its length is returned.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = ethernet_type.to_be();
            (*link).sll_ifindex = interface;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address).context("binding a packet socket")?;
    Ok(File::from(OwnedFd::from(socket)))
}
