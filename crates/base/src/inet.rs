//! The Internet checksum (RFC 1071), which IPv4, UDP and ICMPv6 share.

/// Ones' complement sum of 16-bit words, to be finished by [`fold`]; an odd last byte counts as one with a zero behind it.
pub fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|w| match *w {
        [a, b] => u32::from(u16::from_be_bytes([a, b])),
        [a] => u32::from(u16::from_be_bytes([a, 0])),
        _ => 0,
    });
    // At most 32,768 words of 16 bits: the sum fits.
    start + words.sum::<u32>()
}

/// The checksum of a sum. Of a message with its checksum in place it is 0.
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(0, &bytes)), !0xddf2);
        assert_eq!(fold(sum(0, &[1, 2, 3])), !(0x0102 + 0x0300));
    }
}
