//! Which of our addresses a datagram was sent to (IP_PKTINFO, ip(7)), for a listener on the wildcard address.
#![allow(unsafe_code)]

use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockRef};
use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
};

/// Asks the kernel to report the destination of every datagram.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call, and the option's value is a C int of the size given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A received datagram.
pub struct Received {
    /// Bytes put into the buffer.
    pub len: usize,
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// The address of ours that the datagram came in on, and the one in its header; they differ for broadcasts.
    pub local: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// Receives one datagram with its destination, without waiting.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let socket = SockRef::from(socket);
    let mut control = [MaybeUninit::new(0u8); 128];
    let zeroed = [0u8; 128];
    let mut peer = {
        // SAFETY: an all-zero sockaddr_storage is a valid one (family AF_UNSPEC); the kernel overwrites it.
        let storage = unsafe { std::mem::zeroed() };
        // SAFETY: the length is that of the whole storage.
        unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_storage>() as libc::socklen_t) }
    };
    let capacity = buffer.len();
    // SAFETY: u8 and MaybeUninit<u8> have the same layout, and recvmsg(2) only ever writes initialised bytes.
    let uninit = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<MaybeUninit<u8>>(), capacity) };
    let (len, control_len) = {
        let mut buffers = [MaybeUninitSlice::new(uninit)];
        let mut message = MsgHdrMut::new()
            .with_addr(&mut peer)
            .with_buffers(&mut buffers)
            .with_control(&mut control);
        let len = socket.recvmsg(&mut message, 0)?;
        (len, message.control_len())
    };
    let mut bytes = zeroed;
    for (to, from) in bytes.iter_mut().zip(control.iter()).take(control_len) {
        // SAFETY: every element was initialised above, and the kernel writes initialised bytes.
        *to = unsafe { from.assume_init() };
    }
    let peer = peer
        .as_socket()
        .ok_or_else(|| io::Error::other("a datagram came without a sender"))?;
    Ok(Received {
        len: len.min(capacity),
        peer,
        local: destination(&bytes[..control_len.min(bytes.len())]),
    })
}

/// Finds in_pktinfo among the control messages: cmsghdr is length (a word), level and type (C ints each), and every
/// message is padded to a word.
fn destination(mut control: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let int = |bytes: &[u8], at: usize| Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let address = |bytes: &[u8], at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    loop {
        let len = usize::from_ne_bytes(*control.first_chunk()?);
        if len < HEADER || len > control.len() {
            return None;
        }
        let message = &control[..len];
        if int(message, size_of::<usize>())? == libc::IPPROTO_IP
            && int(message, size_of::<usize>() + 4)? == libc::IP_PKTINFO
        {
            // struct in_pktinfo: interface index, local address, header's destination.
            return Some((address(message, HEADER + 4)?, address(message, HEADER + 8)?));
        }
        control = control.get(len.next_multiple_of(size_of::<usize>())..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_destination_is_reported() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        enable(&socket).unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for last in [1, 9, 77] {
            let to = Ipv4Addr::new(127, 0, 0, last);
            client.send_to(b"hello", (to, port)).unwrap();
            let mut buffer = [0; 16];
            let got = receive(&socket, &mut buffer).unwrap();
            assert_eq!(&buffer[..got.len], b"hello");
            assert_eq!(got.peer, client.local_addr().unwrap());
            assert_eq!(got.local, Some((to, to)));
        }
    }

    #[test]
    fn odd_control_messages_are_passed_over() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0; 40]), None);
        assert_eq!(destination(&[0xff; 40]), None);
        let mut other = 24usize.to_ne_bytes().to_vec();
        other.resize(24, 0);
        assert_eq!(destination(&other), None);
    }
}
