//! Packets: bytes to meaning and back (RFC 1350 section 5, RFC 2347).
//!
//! Parsing borrows from the datagram and allocates nothing that the sender could choose the size of.

use rackstrap_base::text::cut;
use std::fmt;

/// Longest request that RFC 2347 allows, in bytes.
pub const MAX_REQUEST: usize = 512;

/// Most options looked at in one request; the RFCs define five.
pub const MAX_OPTIONS: usize = 16;

/// Error codes (RFC 1350 appendix, RFC 2347).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// Not defined, see the message.
    NotDefined = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    AccessViolation = 2,
    /// Disk full or allocation exceeded.
    DiskFull = 3,
    /// Illegal TFTP operation.
    IllegalOperation = 4,
    /// Unknown transfer ID.
    UnknownTransfer = 5,
    /// File already exists.
    FileExists = 6,
    /// No such user.
    NoSuchUser = 7,
    /// Option negotiation failed (RFC 2347).
    OptionNegotiation = 8,
}

/// How the bytes of a file travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes are sent as they are in the file.
    Octet,
    /// With NVT line ends (RFC 764): LF becomes CR LF, a bare CR becomes CR NUL.
    Netascii,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Octet => "octet",
            Mode::Netascii => "netascii",
        })
    }
}

/// A request, borrowed from its datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// File name as the client wrote it.
    pub name: &'a [u8],
    /// Octet or netascii.
    pub mode: Mode,
    /// Option names and values in the client's order, at most [`MAX_OPTIONS`].
    pub options: Vec<(&'a [u8], &'a [u8])>,
}

/// What a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ, opcode 1.
    Read(Request<'a>),
    /// WRQ, opcode 2.
    Write(Request<'a>),
    /// DATA, opcode 3.
    Data,
    /// ACK, opcode 4, with its block number.
    Ack(u16),
    /// ERROR, opcode 5, with its code and message.
    Error(u16, &'a [u8]),
    /// OACK, opcode 6.
    OptionAck,
}

/// Why a datagram is not a TFTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than an opcode, or than the opcode needs.
    #[error("the packet is shorter than its opcode demands")]
    Truncated,
    /// Opcode outside 1 to 6.
    #[error("unknown opcode")]
    UnknownOpcode,
    /// A request above [`MAX_REQUEST`] bytes.
    #[error("the request is longer than 512 bytes, RFC 2347's limit")]
    TooLong,
    /// A file name or mode without its closing NUL.
    #[error("file name or mode is not closed by a NUL")]
    Unterminated,
    /// A mode other than octet and netascii; `mail` is obsolete since RFC 1350.
    #[error("unknown transfer mode; octet and netascii are served")]
    UnknownMode,
    /// More than [`MAX_OPTIONS`] options.
    #[error("more than 16 options")]
    TooManyOptions,
}

impl<'a> Packet<'a> {
    /// Reads one datagram.
    ///
    /// Bytes after an ACK's block number are ignored: Ethernet padding reaches some embedded stacks' UDP length.
    /// An ERROR is one however short it is, because it must end the transfer.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((opcode, rest)) = bytes.split_first_chunk::<2>() else {
            return Err(Malformed::Truncated);
        };
        match u16::from_be_bytes(*opcode) {
            1 => parse_request(bytes.len(), rest).map(Packet::Read),
            2 => parse_request(bytes.len(), rest).map(Packet::Write),
            3 => Ok(Packet::Data),
            4 => {
                let block = rest.first_chunk::<2>().ok_or(Malformed::Truncated)?;
                Ok(Packet::Ack(u16::from_be_bytes(*block)))
            }
            5 => match rest.split_first_chunk::<2>() {
                None => Ok(Packet::Error(0, b"")),
                Some((code, text)) => {
                    let text = text.split(|&b| b == 0).next().unwrap_or_default();
                    Ok(Packet::Error(u16::from_be_bytes(*code), text))
                }
            },
            6 => Ok(Packet::OptionAck),
            _ => Err(Malformed::UnknownOpcode),
        }
    }
}

fn parse_request(len: usize, rest: &[u8]) -> Result<Request<'_>, Malformed> {
    if len > MAX_REQUEST {
        return Err(Malformed::TooLong);
    }
    let (name, rest) = take_string(rest).ok_or(Malformed::Unterminated)?;
    let (mode, mut rest) = take_string(rest).ok_or(Malformed::Unterminated)?;
    let mode = if mode.eq_ignore_ascii_case(b"octet") {
        Mode::Octet
    } else if mode.eq_ignore_ascii_case(b"netascii") {
        Mode::Netascii
    } else {
        return Err(Malformed::UnknownMode);
    };
    let mut options = Vec::new();
    // A name without a value, an unclosed value, and NUL padding after the last option are passed over: an option
    // that is not acknowledged is simply not used (RFC 2347), and the transfer works without it.
    while let Some((option, after)) = take_string(rest) {
        let Some((value, after)) = take_string(after) else {
            break;
        };
        if !option.is_empty() {
            if options.len() == MAX_OPTIONS {
                return Err(Malformed::TooManyOptions);
            }
            options.push((option, value));
        }
        rest = after;
    }
    Ok(Request { name, mode, options })
}

/// Splits at the first NUL.
fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Writes a read request, as a client does: tests and fuzzing send what this makes.
pub fn read_request(name: &[u8], mode: Mode, options: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut packet = vec![0, 1];
    let mode = mode.to_string();
    let strings = [name, mode.as_bytes()].into_iter();
    for string in strings.chain(options.iter().flat_map(|(n, v)| [*n, *v])) {
        packet.extend_from_slice(string);
        packet.push(0);
    }
    packet
}

/// Header of a DATA packet; the block's bytes follow it.
pub fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// An ACK packet.
pub fn ack(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 4, high, low]
}

/// An ERROR packet; the message is cut at 400 bytes, so that the packet stays within every client's 512.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut packet = vec![0, 5];
    packet.extend_from_slice(&(code as u16).to_be_bytes());
    packet.extend(cut(message, 400).bytes().filter(|b| *b != 0));
    packet.push(0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_end_a_transfer_however_short() {
        assert_eq!(Packet::parse(&[0, 5]), Ok(Packet::Error(0, b"")));
        assert_eq!(Packet::parse(&[0, 5, 0]), Ok(Packet::Error(0, b"")));
        assert_eq!(Packet::parse(&[0, 5, 0, 8]), Ok(Packet::Error(8, b"")));
        assert_eq!(
            Packet::parse(b"\0\x05\0\x08User aborted\0x"),
            Ok(Packet::Error(8, b"User aborted"))
        );
    }

    #[test]
    fn malformed_packets_are_named() {
        for (bytes, expected) in [
            (&b""[..], Malformed::Truncated),
            (b"\0", Malformed::Truncated),
            (b"\0\x04\0", Malformed::Truncated),
            (b"\0\0", Malformed::UnknownOpcode),
            (b"\0\x07abc", Malformed::UnknownOpcode),
            (b"\x01\0name\0octet\0", Malformed::UnknownOpcode),
            (b"\0\x01", Malformed::Unterminated),
            (b"\0\x01name", Malformed::Unterminated),
            (b"\0\x01name\0", Malformed::Unterminated),
            (b"\0\x01name\0octet", Malformed::Unterminated),
            (b"\0\x01name\0mail\0", Malformed::UnknownMode),
            (b"\0\x01name\0\0", Malformed::UnknownMode),
            (b"\0\x02name", Malformed::Unterminated),
        ] {
            assert_eq!(Packet::parse(bytes), Err(expected), "{bytes:?}");
        }
        let long = read_request(&[b'a'; 504], Mode::Octet, &[]);
        assert_eq!(long.len(), 513);
        assert_eq!(Packet::parse(&long), Err(Malformed::TooLong));
        assert!(Packet::parse(&read_request(&[b'a'; 503], Mode::Octet, &[])).is_ok());
        let many = read_request(b"a", Mode::Octet, &[(&b"x"[..], &b"1"[..]); 17]);
        assert_eq!(Packet::parse(&many), Err(Malformed::TooManyOptions));
    }

    #[test]
    fn an_option_without_value_does_not_stop_a_boot() {
        for tail in [&b"blksize"[..], b"blksize\0", b"blksize\x0014", b"\0\0\0\0"] {
            let mut bytes = read_request(b"a", Mode::Octet, &[(b"tsize", b"0")]);
            bytes.extend_from_slice(tail);
            let Ok(Packet::Read(request)) = Packet::parse(&bytes) else {
                panic!("refused with {tail:?}");
            };
            assert_eq!(request.options, vec![(&b"tsize"[..], &b"0"[..])]);
        }
    }

    #[test]
    fn error_messages_are_cut_and_closed() {
        let packet = error(ErrorCode::NotFound, &"ä".repeat(300));
        assert_eq!(packet.len(), 4 + 400 + 1);
        assert_eq!(error(ErrorCode::NotFound, "a\0b"), b"\0\x05\0\x01ab\0");
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn requests_round_trip(
            name in "[^\0]{1,40}",
            netascii in any::<bool>(),
            options in proptest::collection::vec(("[a-zA-Z]{1,10}", "[0-9a-z]{0,8}"), 0..8),
        ) {
            let mode = if netascii { Mode::Netascii } else { Mode::Octet };
            let options: Vec<(&[u8], &[u8])> = options.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let bytes = read_request(name.as_bytes(), mode, &options);
            let parsed = Packet::parse(&bytes);
            prop_assert_eq!(parsed, Ok(Packet::Read(Request { name: name.as_bytes(), mode, options })));
        }
    }
}
