//! Option negotiation (RFC 2347, 2348, 2349, 7440): what was asked for, what is granted.
//!
//! An option with a value outside its RFC's range, one that is no number, and one nobody defined are left out of the
//! OACK, which tells the client that it is not in use; the transfer then runs with that option's default. That is the
//! server's duty in RFC 2347; ERROR 8 belongs to the client, which may refuse a transfer without an option.

use super::packet::Request;
use std::time::Duration;

/// Block size without the option (RFC 1350), bytes.
const DEFAULT_BLKSIZE: u16 = 512;

/// Largest window granted, blocks. Windows above it gain nothing on a LAN and only overrun the firmware's ring of
/// receive buffers; async-tftp shows what buffering 65,535 blocks does to the server.
pub const MAX_WINDOWSIZE: u16 = 64;

/// What a transfer runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Bytes per block: 8 to 65464 (RFC 2348).
    pub blksize: u16,
    /// Blocks per acknowledgement: 1 to [`MAX_WINDOWSIZE`] (RFC 7440).
    pub windowsize: u16,
    /// Retransmission interval that the client asked for (RFC 2349), 1 to 255 s.
    pub timeout: Option<Duration>,
    /// True if the client asked for the size.
    pub tsize: bool,
    /// The OACK packet; none if no option was granted, and the transfer then begins with DATA 1.
    pub oack: Option<Vec<u8>>,
}

impl Negotiated {
    /// Grants what can be granted. `size` is the length of the file as it will travel (after netascii conversion).
    ///
    /// A repeated option counts once, the first time: RFC 2347 forbids repeating, but a boot need not fail for it.
    pub fn new(request: &Request<'_>, size: u64) -> Self {
        let mut this = Negotiated {
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            timeout: None,
            tsize: false,
            oack: None,
        };
        let mut oack = vec![0, 6];
        let mut seen = [false; 4];
        for &(name, value) in &request.options {
            let Some(kind) = KINDS.iter().position(|kind| name.eq_ignore_ascii_case(kind.as_bytes())) else {
                continue;
            };
            if std::mem::replace(&mut seen[kind], true) {
                continue;
            }
            let Some(asked) = number(value) else { continue };
            let granted = match (kind, asked) {
                (BLKSIZE, 8..=65464) => {
                    this.blksize = asked as u16;
                    asked
                }
                // The value in a request has no meaning (RFC 2349 says 0); the answer is the size.
                (TSIZE, _) => {
                    this.tsize = true;
                    size
                }
                (TIMEOUT, 1..=255) => {
                    this.timeout = Some(Duration::from_secs(asked));
                    asked
                }
                (WINDOWSIZE, 1..=65535) => {
                    this.windowsize = (asked as u16).min(MAX_WINDOWSIZE);
                    u64::from(this.windowsize)
                }
                _ => continue,
            };
            oack.extend_from_slice(KINDS[kind].as_bytes());
            oack.push(0);
            oack.extend_from_slice(granted.to_string().as_bytes());
            oack.push(0);
        }
        if oack.len() > 2 {
            this.oack = Some(oack);
        }
        this
    }
}

const KINDS: [&str; 4] = ["blksize", "tsize", "timeout", "windowsize"];
const BLKSIZE: usize = 0;
const TSIZE: usize = 1;
const TIMEOUT: usize = 2;
const WINDOWSIZE: usize = 3;

/// Decimal digits only, as the RFCs write values; no sign, no space; none if it does not fit.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Mode;

    fn negotiate(options: &[(&str, &str)]) -> Negotiated {
        let options = options.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let request = Request {
            name: b"a",
            mode: Mode::Octet,
            options,
        };
        Negotiated::new(&request, 77_777)
    }

    #[test]
    fn answers_keep_the_order_of_the_request() {
        let got = negotiate(&[
            ("tsize", "0"),
            ("BLKSIZE", "1468"),
            ("windowsize", "4"),
            ("timeout", "3"),
        ]);
        let oack = b"\0\x06tsize\x0077777\0blksize\x001468\0windowsize\x004\0timeout\x003\0";
        assert_eq!(got.oack.as_deref(), Some(&oack[..]));
        assert_eq!(
            (got.blksize, got.windowsize, got.timeout),
            (1468, 4, Some(Duration::from_secs(3)))
        );
    }

    #[test]
    fn values_out_of_range_are_left_out() {
        for (name, value) in [
            ("blksize", "1"),
            ("blksize", "7"),
            ("blksize", "65465"),
            ("blksize", "100000000000000000000"),
            ("blksize", "-8"),
            ("blksize", "+512"),
            ("blksize", " 512"),
            ("blksize", "0x200"),
            ("blksize", ""),
            ("timeout", "0"),
            ("timeout", "256"),
            ("windowsize", "0"),
            ("windowsize", "65536"),
            ("tsize", "abc"),
            ("multicast", ""),
            ("utimeout", "100"),
        ] {
            let got = negotiate(&[(name, value)]);
            assert_eq!(got.oack, None, "{name}={value}");
            assert_eq!(
                (got.blksize, got.windowsize, got.timeout),
                (512, 1, None),
                "{name}={value}"
            );
        }
        let got = negotiate(&[("blksize", "1"), ("tsize", "0")]);
        assert_eq!(got.oack.as_deref(), Some(&b"\0\x06tsize\x0077777\0"[..]));
    }

    #[test]
    fn edges_and_repetitions() {
        assert_eq!(negotiate(&[("blksize", "8")]).blksize, 8);
        assert_eq!(negotiate(&[("blksize", "65464")]).blksize, 65464);
        let got = negotiate(&[("windowsize", "65535")]);
        assert_eq!(got.oack.as_deref(), Some(&b"\0\x06windowsize\x0064\0"[..]));
        let got = negotiate(&[("blksize", "1024"), ("blksize", "2048")]);
        assert_eq!(got.oack.as_deref(), Some(&b"\0\x06blksize\x001024\0"[..]));
    }
}
