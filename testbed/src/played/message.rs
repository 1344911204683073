//! DHCP messages, written without the code of the daemon.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
};

/// Destination of a client without an address.
pub const TO_ALL: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 67);

/// A DHCP message under construction: `Message::new(1, card).firmware(7).build()`.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of that kind (option 53) from that card.
    pub fn new(kind: u8, hwaddr: [u8; 6]) -> Message {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[28..34].copy_from_slice(&hwaddr);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        Message(bytes).option(53, &[kind])
    }

    fn set(mut self, at: usize, value: &[u8]) -> Self {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }

    /// Is a server's reply.
    #[must_use]
    pub fn reply(self) -> Self {
        self.set(0, &[2])
    }

    /// Belongs to that exchange.
    #[must_use]
    pub fn xid(self, xid: u32) -> Self {
        self.set(4, &xid.to_be_bytes())
    }

    /// Asks for a reply by broadcast: no card of a namespace takes a frame for another hardware address.
    #[must_use]
    pub fn broadcast(self) -> Self {
        self.set(10, &[0x80])
    }

    /// Comes from a client with that address.
    #[must_use]
    pub fn ciaddr(self, address: Ipv4Addr) -> Self {
        self.set(12, &address.octets())
    }

    /// Was passed on by that relay.
    #[must_use]
    pub fn giaddr(self, relay: Ipv4Addr) -> Self {
        self.set(24, &relay.octets())
    }

    /// Has been passed on so many times.
    #[must_use]
    pub fn hops(self, hops: u8) -> Self {
        self.set(3, &[hops])
    }

    /// Has that option.
    #[must_use]
    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.0.extend_from_slice(&[code, value.len() as u8]);
        self.0.extend_from_slice(value);
        self
    }

    /// Has these options, as they are on the wire.
    #[must_use]
    pub fn options(mut self, encoded: &[u8]) -> Self {
        self.0.extend_from_slice(encoded);
        self
    }

    /// Is meant for that server.
    #[must_use]
    pub fn server(self, address: Ipv4Addr) -> Self {
        self.option(54, &address.octets())
    }

    /// Wants that address.
    #[must_use]
    pub fn requested(self, address: Ipv4Addr) -> Self {
        self.option(50, &address.octets())
    }

    /// Is of firmware that boots from the network, of that architecture (RFC 4578).
    #[must_use]
    pub fn firmware(self, arch: u16) -> Self {
        let class = format!("PXEClient:Arch:{arch:05}:UNDI:003016");
        self.option(60, class.as_bytes()).option(93, &arch.to_be_bytes())
    }

    /// Is of Debian's iPXE, which can do HTTP, DNS, TFTP and menus.
    #[must_use]
    pub fn ipxe(self) -> Self {
        self.option(77, b"iPXE")
            .option(175, &[19, 1, 1, 23, 1, 1, 21, 1, 1, 39, 1, 1])
    }

    /// The bytes, at least the 300 that RFC 1542 section 2.1 asks for.
    pub fn build(mut self) -> Vec<u8> {
        self.0.push(255);
        self.0.resize(self.0.len().max(300), 0);
        self.0
    }
}

/// A number that no other exchange of this process has.
pub fn next_xid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0x7261_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An option's value.
pub fn option(message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = message.get(240..)?;
    loop {
        match rest {
            [0, tail @ ..] => rest = tail,
            [255, ..] | [] => return None,
            [code, len, tail @ ..] => {
                let (value, tail) = tail.split_at_checked(usize::from(*len))?;
                if *code == wanted {
                    return Some(value.to_vec());
                }
                rest = tail;
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_behind_padding_and_not_behind_the_end() {
        let message = Message::new(3, [2; 6]).options(&[0, 0]).ipxe().build();
        assert_eq!(message.len(), 300);
        assert_eq!(option(&message, 53), Some(vec![3]));
        assert_eq!(option(&message, 77), Some(b"iPXE".to_vec()));
        assert_eq!(option(&message, 54), None);
        let behind = [&message[..], &[54, 4, 10, 5, 0, 1]].concat();
        assert_eq!(option(&behind, 54), None);
        assert_eq!(option(&message[..241], 53), None, "cut");
    }
}
