//! Messages on a connection.

/// A message after its length (RFC 1035 section 4.2.2).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // Messages are shorter than 64 KiB: the encoder, the length on the wire and the limit of a reply ensure it.
    let length = u16::try_from(message.len()).unwrap_or_default();
    [&length.to_be_bytes(), message].concat()
}
