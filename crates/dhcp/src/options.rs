//! Our own scan of a request's options.
//!
//! dhcproto stops at the first option that it cannot make a value of (a host name that is not UTF-8 hides
//! the client's architecture behind it), keeps only the last of repeated options, and ignores
//! overload, so requests are read here: every option stays bytes.

use super::guard::{HEADER_LEN, Malformed};
use std::borrow::Cow;

/// Option codes that rackstrap reads (RFC 2132 unless said otherwise).
pub mod code {
    #![allow(missing_docs)]
    pub const HOST_NAME: u8 = 12;
    /// Of PXE clients: the tags of PXE 2.1, table 2-1.
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    /// RFC 3004; iPXE writes the bare text.
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub const RELAY_INFO: u8 = 82;
    /// RFC 4578.
    pub const ARCHITECTURE: u8 = 93;
    /// RFC 4578.
    pub const MACHINE_ID: u8 = 97;
    /// iPXE's own.
    pub const IPXE: u8 = 175;
}

const PAD: u8 = 0;
const END: u8 = 255;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// The options of one message, in order, as they were sent.
#[derive(Debug, Default)]
pub struct Options<'a> {
    pieces: Vec<(u8, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Scans a message that passed [`super::guard::check`]: the options field, then `file` and `sname` where option 52
    /// says that options continue there, in that order (RFC 3396 section 5). A missing end
    /// option is accepted, as some firmware forgets it; a length past the end is not.
    pub fn scan(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut options = Options::default();
        options.field(&message[HEADER_LEN..])?;
        let overload = match options.get(code::OVERLOAD).as_deref() {
            None => 0,
            Some([value @ 1..=3]) => *value,
            Some(_) => return Err(Malformed::OptionLength),
        };
        if overload & 1 != 0 {
            options.field(&message[FILE])?;
        }
        if overload & 2 != 0 {
            options.field(&message[SNAME])?;
        }
        Ok(options)
    }

    fn field(&mut self, mut bytes: &'a [u8]) -> Result<(), Malformed> {
        while let [code, rest @ ..] = bytes {
            bytes = match *code {
                PAD => rest,
                END => break,
                code => {
                    let (len, rest) = rest.split_first().ok_or(Malformed::OptionTruncated)?;
                    let (value, rest) = rest
                        .split_at_checked(usize::from(*len))
                        .ok_or(Malformed::OptionTruncated)?;
                    self.pieces.push((code, value));
                    rest
                }
            };
        }
        Ok(())
    }

    /// The value of an option; pieces of one that came several times are put together (RFC 3396).
    pub fn get(&self, code: u8) -> Option<Cow<'a, [u8]>> {
        let mut pieces = self.pieces.iter().filter(|(c, _)| *c == code).map(|(_, v)| *v);
        let mut value = Cow::Borrowed(pieces.next()?);
        for piece in pieces {
            value.to_mut().extend_from_slice(piece);
        }
        Some(value)
    }

    /// The value of an option that must be `N` bytes, if it is there.
    pub fn fixed<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, Malformed> {
        let value = self.get(code);
        value
            .map(|v| <[u8; N]>::try_from(&*v).map_err(|_| Malformed::OptionLength))
            .transpose()
    }
}

/// The value of a sub-option inside an option such as 82 or 175. What follows a broken length is ignored: these come from
/// relays and loaders whose other options are still good.
pub fn sub_option(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [code, len, rest @ ..] = bytes {
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        if *code == wanted {
            return Some(value);
        }
        bytes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn a_host_name_of_noise_hides_nothing() {
        let bytes = message(&[12, 2, 0xff, 0xfe, 0, 0, 93, 2, 0, 7, 255, 93, 2, 0, 9]);
        let options = Options::scan(&bytes).unwrap();
        assert_eq!(options.get(93).as_deref(), Some(&[0, 7][..]));
        assert_eq!(options.get(12).as_deref(), Some(&[0xff, 0xfe][..]));
    }

    #[test]
    fn pieces_join_across_the_overloaded_fields() {
        let mut bytes = message(&[52, 1, 3, 82, 2, 1, 2, 255]);
        bytes[FILE][..4].copy_from_slice(&[82, 1, 3, 255]);
        bytes[SNAME][..5].copy_from_slice(&[82, 2, 4, 5, 255]);
        let options = Options::scan(&bytes).unwrap();
        assert_eq!(options.get(82).as_deref(), Some(&[1, 2, 3, 4, 5][..]));
    }

    #[test]
    fn fields_are_text_without_overload() {
        let mut bytes = message(&[53, 1, 1]);
        bytes[FILE][..3].copy_from_slice(&[82, 1, 3]);
        assert_eq!(Options::scan(&bytes).unwrap().get(82), None);
    }

    #[test]
    fn broken_lengths_are_refused() {
        for (options, want) in [
            (&[53][..], Malformed::OptionTruncated),
            (&[53, 2, 1][..], Malformed::OptionTruncated),
            (&[52, 1, 0][..], Malformed::OptionLength),
            (&[52, 1, 4][..], Malformed::OptionLength),
            (&[52, 2, 1, 1][..], Malformed::OptionLength),
        ] {
            assert_eq!(Options::scan(&message(options)).unwrap_err(), want, "{options:?}");
        }
        let bytes = message(&[54, 4, 1, 2, 3, 4, 54, 4, 1, 2, 3, 4]);
        assert_eq!(
            Options::scan(&bytes).unwrap().fixed::<4>(54),
            Err(Malformed::OptionLength)
        );
    }

    #[test]
    fn sub_options_stop_at_a_broken_length() {
        assert_eq!(sub_option(&[1, 1, 9, 2, 2, 8, 7], 2), Some(&[8, 7][..]));
        assert_eq!(sub_option(&[1, 9, 9, 2, 1, 8], 2), None);
        assert_eq!(sub_option(&[1], 1), None);
    }
}
