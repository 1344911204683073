//! Requests of InfiniBand cards, which are recognised in order to be refused by name (pure).
//!
//! IPoIB's hardware addresses have 20 bytes, which do not fit into `chaddr`. RFC 4390 therefore sets `htype` to 32 and `hlen` to 0, and
//! identifies the card by option 61. The last 8 of the 20 bytes are the GUID of the card's port (RFC 4391 section 9.1.1).

use super::{
    guard::{HEADER_LEN, MAGIC_COOKIE},
    options::{Options, code},
};
use rackstrap_base::firmware;
use std::{fmt, net::Ipv4Addr};
use uuid::Uuid;

/// `htype` of InfiniBand (IANA, ARP parameters, hardware types).
pub const HARDWARE_TYPE: u8 = 32;
/// Length of a port's GUID.
const GUID_LEN: usize = 8;

/// The GUID of an InfiniBand card's port. Displays as `00:02:c9:03:00:0a:0b:0c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; GUID_LEN]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A DISCOVER of an InfiniBand card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The GUID; none if the packet does not have it.
    pub guid: Option<Guid>,
    /// UUID of the machine as sent (option 97).
    pub uuid: Option<Uuid>,
    /// The relay's address, or 0.0.0.0.
    pub relay: Ipv4Addr,
}

impl Port {
    /// Reads the DISCOVER of firmware or a boot loader on an InfiniBand card. None for any other packet: a system asks on InfiniBand
    /// for an address only, which is another server's to give.
    pub fn parse(bytes: &[u8]) -> Option<Port> {
        if bytes.len() < HEADER_LEN || bytes[..2] != [1, HARDWARE_TYPE] || bytes[236..240] != MAGIC_COOKIE {
            return None;
        }
        let options = Options::scan(bytes).ok()?;
        let class = options.get(code::VENDOR_CLASS).unwrap_or_default();
        let boots = options.get(code::IPXE).is_some()
            || [firmware::PXE_CLIENT, firmware::HTTP_CLIENT]
                .iter()
                .any(|name| class.starts_with(name.as_bytes()));
        if options.get(code::MESSAGE_TYPE).as_deref() != Some(&[1]) || !boots {
            return None;
        }
        let client_id = options.get(code::CLIENT_ID).unwrap_or_default();
        Some(Port {
            // iPXE writes the GUID into `chaddr` (dhcp_chaddr() in its src/net/udp/dhcp.c), which fits there.
            guid: guid_of(&client_id).or_else(|| match bytes[2] {
                8 => guid(&bytes[28..36]),
                _ => None,
            }),
            uuid: match options.get(code::MACHINE_ID).as_deref() {
                Some([0, uuid @ ..]) => Uuid::from_slice(uuid).ok(),
                _ => None,
            },
            relay: Ipv4Addr::new(bytes[24], bytes[25], bytes[26], bytes[27]),
        })
    }
}

/// The GUID in a client identifier (option 61), in the forms that cards and systems send.
fn guid_of(client_id: &[u8]) -> Option<Guid> {
    match client_id {
        // Type 255 with an IAID and a DUID (RFC 4361 section 6.1). A DUID of type 1 or 3 ends with the hardware address (RFC 8415 section
        // 11), and that of FlexBoot, type 2 with Mellanox' enterprise number 713 (02:c9), with the GUID.
        [255, _, _, _, _, 0, 1 | 3, 0, HARDWARE_TYPE, address @ ..] if address.len() >= GUID_LEN => last(address),
        [255, _, _, _, _, 0, 2, 0, 0, 2, 0xc9, _, address @ ..] if address.len() == GUID_LEN => last(address),
        // The hardware type with the address of 20 bytes, or with the GUID alone (FlexBoot, "DHCP Client-Id HW Type IB").
        [HARDWARE_TYPE, address @ ..] if matches!(address.len(), GUID_LEN | 20) => last(address),
        _ => None,
    }
}

fn last(address: &[u8]) -> Option<Guid> {
    guid(address.last_chunk::<GUID_LEN>()?)
}

/// `bytes` as a GUID; none if they are all zeros.
fn guid(bytes: &[u8]) -> Option<Guid> {
    let guid = Guid(bytes.try_into().ok()?);
    (guid.0 != [0; GUID_LEN]).then_some(guid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Malformed, Request};
    use proptest::prelude::*;

    const GUID: [u8; 8] = [0x00, 0x02, 0xc9, 0x03, 0x00, 0x0a, 0x0b, 0x0c];
    const SHOWN: &str = "00:02:c9:03:00:0a:0b:0c";
    /// Queue pair 0x48 and a port's GID in the subnet fe80::/64.
    const PREFIX: [u8; 12] = [0x80, 0, 0, 0x48, 0xfe, 0x80, 0, 0, 0, 0, 0, 0];

    /// A DISCOVER with this hardware address and client identifier, which asks for a broadcast reply (RFC 4390 section 2.2).
    fn discover(chaddr: &[u8], client_id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..3].copy_from_slice(&[1, HARDWARE_TYPE, chaddr.len() as u8]);
        bytes[10] = 0x80;
        bytes[28..28 + chaddr.len()].copy_from_slice(chaddr);
        bytes[236..].copy_from_slice(&MAGIC_COOKIE);
        let uuid = [&[0][..], &[0x47; 16]].concat();
        let class = b"PXEClient:Arch:00000:UNDI:002001";
        for (code, value) in [
            (code::MESSAGE_TYPE, &[1][..]),
            (code::CLIENT_ID, client_id),
            (code::MACHINE_ID, &uuid),
            (code::VENDOR_CLASS, class),
        ] {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }

    fn shown(bytes: &[u8]) -> Option<String> {
        Some(Port::parse(bytes)?.guid?.to_string())
    }

    #[test]
    fn the_guid_is_read_in_each_form_that_cards_send() {
        let flexboot = [&[255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0][..], &GUID].concat();
        let of_type = [&[HARDWARE_TYPE][..], &GUID].concat();
        let whole = [&[HARDWARE_TYPE][..], &PREFIX, &GUID].concat();
        let link_layer = [&[255, 0, 0x0a, 0x0b, 0x0c, 0, 3, 0, 32][..], &PREFIX, &GUID].concat();
        let with_time = [&[255, 0, 0x0a, 0x0b, 0x0c, 0, 1, 0, 32, 9, 9, 9, 9][..], &PREFIX, &GUID].concat();
        // FlexBoot shortens the GUID to an Ethernet address.
        let short = [0, 2, 0xc9, 0x0a, 0x0b, 0x0c];
        for (chaddr, client_id) in [
            (&[][..], &flexboot),
            (&short, &flexboot),
            (&short, &of_type),
            (&[], &whole),
            (&[], &link_layer),
            (&[], &with_time),
            (&GUID, &vec![]),
            (&GUID, &vec![0, 1, 2, 3]),
        ] {
            let bytes = discover(chaddr, client_id);
            assert_eq!(shown(&bytes).as_deref(), Some(SHOWN), "{client_id:?}");
            assert_eq!(Request::parse(&bytes), Err(Malformed::InfiniBand));
            assert_eq!(Port::parse(&bytes).unwrap().uuid, Some(Uuid::from_bytes([0x47; 16])));
        }
    }

    #[test]
    fn a_card_without_a_guid_is_a_card_and_a_system_is_not() {
        for client_id in [
            &[][..],
            &[255, 0],
            &[HARDWARE_TYPE, 1, 2],
            &[HARDWARE_TYPE, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let port = Port::parse(&discover(&[], client_id)).unwrap();
            assert_eq!(port.guid, None, "{client_id:?}");
        }
        let bytes = discover(&GUID, &[]);
        let class = bytes.windows(9).position(|text| text == b"PXEClient").unwrap();
        let mut system = bytes.clone();
        system[class] = b'd';
        let mut request = bytes.clone();
        request[HEADER_LEN + 2] = 3;
        let mut ethernet = bytes.clone();
        ethernet[1] = 1;
        for other in [&system, &request, &ethernet, &bytes[..HEADER_LEN - 1].to_vec()] {
            assert_eq!(Port::parse(other), None);
        }
        assert_eq!(Request::parse(&request), Err(Malformed::InfiniBand));
    }

    proptest! {
        #[test]
        fn any_packet_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), client_id in proptest::collection::vec(any::<u8>(), 0..40)) {
            Port::parse(&bytes);
            Port::parse(&discover(&bytes[..bytes.len().min(16)], &client_id));
        }
    }
}
