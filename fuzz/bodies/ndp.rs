//! Any IPv6 packet: no panic, and answers of one size to the one who asked.

use rackstrap_ndp::{answer, own_address};
use rackstrap_wire::HwAddr;

/// One run; true if the packet was a solicitation.
pub fn run(bytes: &[u8]) -> bool {
    match answer(bytes, own_address(HwAddr([0x52, 0x54, 0, 0, 0, 1]))) {
        Ok(reply) => {
            assert_eq!(reply.len(), 56);
            assert_eq!(reply[24..40], bytes[8..24]);
            true
        }
        Err(_) => false,
    }
}
