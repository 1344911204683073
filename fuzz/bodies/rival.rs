//! Any IPv4 packet that may be another DHCP server's: no panic, and only an address that a server can have is named.

use rackstrap_dhcp::server_of;

/// One run; true if the packet is a reply that names its server.
pub fn run(bytes: &[u8]) -> bool {
    let Some(server) = server_of(bytes) else {
        return false;
    };
    assert!(!server.is_unspecified() && !server.is_broadcast() && !server.is_multicast());
    // A relay that put itself in the server's place is no server.
    assert_ne!(server.octets(), bytes[52..56]);
    true
}
