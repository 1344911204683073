//! Ethernet hardware addresses.

use crate::text::cut;
use std::{fmt, str::FromStr};

/// A 48-bit Ethernet address. Displays as `52:54:00:01:01:01`. Parses colons, dashes, Cisco dots (`5254.0001.0101`) and bare digits, in
/// either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HwAddr(pub [u8; 6]);

/// Why a text is not a [`HwAddr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HwAddrError {
    text: String,
    /// It has the length of an InfiniBand port's GUID (8 bytes) or of an IPoIB address (20 bytes).
    infiniband: bool,
}

impl HwAddr {
    /// True for group (multicast and broadcast) addresses, which no network card has.
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// `52-54-00-01-01-01`, the form of iPXE's `${mac:hexhyp}` and of pxelinux file names.
    pub fn hyphenated(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for HwAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for HwAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HwAddr {
    type Err = HwAddrError;

    fn from_str(text: &str) -> Result<Self, HwAddrError> {
        let groups: Vec<&str> = text.split([':', '-', '.']).collect();
        let wrong = || HwAddrError {
            text: cut(text, 60).to_owned(),
            infiniband: matches!(groups.len(), 8 | 20)
                && groups
                    .iter()
                    .all(|g| g.len() == 2 && g.bytes().all(|b| b.is_ascii_hexdigit())),
        };
        let shape_fits = match groups.len() {
            1 => groups[0].len() == 12,
            3 => groups.iter().all(|g| g.len() == 4) && text.contains('.'),
            6 => groups.iter().all(|g| g.len() == 2) && !text.contains('.'),
            _ => false,
        };
        let mixed = text.contains(':') && text.contains('-');
        let digits = groups.concat();
        if !shape_fits || mixed || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 6];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(HwAddr(bytes))
    }
}

impl HwAddrError {
    /// True if the text is an address of an InfiniBand port.
    pub fn is_infiniband(&self) -> bool {
        self.infiniband
    }
}

impl fmt::Display for HwAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.infiniband {
            true => {
                "the address of an InfiniBand port, and rackstrap boots machines by Ethernet; write the six bytes of an Ethernet card"
            }
            false => "not a hardware address; write six bytes in hex",
        };
        write!(f, "'{}' is {what}, such as 52:54:00:01:01:01", self.text)
    }
}

impl std::error::Error for HwAddrError {}

crate::serde_as_text!(HwAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_usual_spellings() {
        let want = HwAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        for text in [
            "52:54:00:ab:cd:ef",
            "52-54-00-AB-CD-EF",
            "5254.00ab.cdef",
            "525400abcdef",
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert_eq!(want.to_string(), "52:54:00:ab:cd:ef");
        assert_eq!(want.hyphenated(), "52-54-00-ab-cd-ef");
    }

    #[test]
    fn addresses_of_infiniband_are_refused_by_name() {
        let said = |text: &str| text.parse::<HwAddr>().unwrap_err().to_string();
        let guid = "00:02:c9:03:00:0a:0b:0c";
        let ipoib = format!("80:00:00:48:fe:80:00:00:00:00:00:00:{guid}");
        for text in [guid, &guid.replace(':', "-"), &ipoib] {
            let expected =
                format!("'{text}' is the address of an InfiniBand port, and rackstrap boots machines by Ethernet");
            assert!(said(text).starts_with(&expected), "{}", said(text));
        }
        for text in ["00:02:c9:03:00:0a:0b:0g", "00:02:c9:03:00:0a:0b", "a:b:c:d:e:f:0:1"] {
            assert!(said(text).contains("is not a hardware address"), "{}", said(text));
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "52:54",
            "52:54:00:ab:cd:eg",
            "52:54-00:ab:cd:ef",
            "5:254:00:ab:cd:ef",
            "52.54.00.ab.cd.ef",
            "é2:54:00:ab:cd:e",
        ] {
            assert!(text.parse::<HwAddr>().is_err(), "{text}");
        }
    }
}
