//! What a datagram must be before anything else looks at it, and why others are dropped.

use super::belief::Disbelief;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Fixed part of a message up to and with the magic cookie (RFC 2131 section 2).
pub const HEADER_LEN: usize = 240;
/// Largest message that is looked at, in bytes: a jumbo frame. Firmware offers up to 65,280 in option 57 but sends 600.
pub const MAX_LEN: usize = 9000;
/// RFC 2131 section 3.
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Why a datagram is no request that can be answered. All of them are dropped and counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Malformed {
    /// Shorter than the fixed header.
    TooShort,
    /// Longer than 9,000 bytes.
    TooLong,
    /// `op` is not BOOTREQUEST: a reply of another server, or noise.
    NotARequest,
    /// `htype` is not Ethernet or `hlen` is not 6. (dhcproto panics above 16.)
    HardwareType,
    /// `chaddr` is all zeros or a group address.
    HardwareAddress,
    /// No magic cookie: BOOTP of 1985, or noise.
    NoCookie,
    /// No option 53: BOOTP.
    NoMessageType,
    /// Option 53 is not one byte or names a message that clients do not send.
    BadMessageType,
    /// An option's length points past the end of its field.
    OptionTruncated,
    /// An option of fixed length (50, 52, 54) has another, for example because it came twice.
    OptionLength,
    /// A REQUEST, RELEASE, DECLINE or INFORM that names no address.
    NoAddress,
}

impl Malformed {
    /// All of them, in the order of [`Counters`].
    pub const ALL: [Malformed; 11] = [
        Malformed::TooShort,
        Malformed::TooLong,
        Malformed::NotARequest,
        Malformed::HardwareType,
        Malformed::HardwareAddress,
        Malformed::NoCookie,
        Malformed::NoMessageType,
        Malformed::BadMessageType,
        Malformed::OptionTruncated,
        Malformed::OptionLength,
        Malformed::NoAddress,
    ];

    /// Name in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Malformed::TooShort => "too-short",
            Malformed::TooLong => "too-long",
            Malformed::NotARequest => "not-a-request",
            Malformed::HardwareType => "hardware-type",
            Malformed::HardwareAddress => "hardware-address",
            Malformed::NoCookie => "no-cookie",
            Malformed::NoMessageType => "no-message-type",
            Malformed::BadMessageType => "bad-message-type",
            Malformed::OptionTruncated => "option-truncated",
            Malformed::OptionLength => "option-length",
            Malformed::NoAddress => "no-address",
        }
    }
}

/// Checks length, op, hardware type and cookie. What passes can be indexed up to [`HEADER_LEN`].
pub fn check(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() < HEADER_LEN {
        return Err(Malformed::TooShort);
    }
    if bytes.len() > MAX_LEN {
        return Err(Malformed::TooLong);
    }
    if bytes[0] != 1 {
        return Err(Malformed::NotARequest);
    }
    if bytes[1] != 1 || bytes[2] != 6 {
        return Err(Malformed::HardwareType);
    }
    if bytes[28] & 1 == 1 || bytes[28..34] == [0; 6] {
        return Err(Malformed::HardwareAddress);
    }
    if bytes[236..240] != MAGIC_COOKIE {
        return Err(Malformed::NoCookie);
    }
    Ok(())
}

/// How a packet ended, for [`Counters`]: answers beside the malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// An OFFER went out.
    Offer,
    /// An ACK went out.
    Ack,
    /// A NAK went out.
    Nak,
    /// No answer, by decision.
    Silent,
    /// No answer: the lease could not be stored.
    NotStored,
    /// No answer: too many leases wait for the disk.
    Busy,
    /// The reply could not be sent.
    SendFailed,
    /// Not looked at: too many requests of machines that are no nodes.
    Crowded,
    /// Ignored: [`Disbelief::SourcePort`].
    SourcePort,
    /// Ignored: [`Disbelief::NodeForAnother`].
    NodeForAnother,
    /// Ignored: [`Disbelief::RelayIsNode`].
    RelayIsNode,
    /// A reply went out without the relay's option 82, which did not fit (RFC 3046 section 2.2 wants it counted).
    RelayInfoLeftOut,
}

const TALLIES: [(Tally, &str); 12] = [
    (Tally::Offer, "offer"),
    (Tally::Ack, "ack"),
    (Tally::Nak, "nak"),
    (Tally::Silent, "silent"),
    (Tally::NotStored, "lease-not-stored"),
    (Tally::Busy, "store-busy"),
    (Tally::SendFailed, "send-failed"),
    (Tally::Crowded, "crowded-out"),
    (Tally::SourcePort, "ignored-source-port"),
    (Tally::NodeForAnother, "ignored-node-for-another"),
    (Tally::RelayIsNode, "ignored-relay-is-node"),
    (Tally::RelayInfoLeftOut, "relay-info-left-out"),
];

/// Counts since start; shared by all sockets.
#[derive(Debug, Default)]
pub struct Counters {
    malformed: [AtomicU64; Malformed::ALL.len()],
    tallies: [AtomicU64; TALLIES.len()],
}

impl Counters {
    /// Counts a dropped datagram; returns how many of that kind there are now.
    pub fn malformed(&self, why: Malformed) -> u64 {
        self.malformed[why as usize].fetch_add(1, Relaxed) + 1
    }

    /// Counts a packet's end; returns how many of that kind there are now.
    pub fn tally(&self, what: Tally) -> u64 {
        self.tallies[what as usize].fetch_add(1, Relaxed) + 1
    }

    /// Counts a request that is not believed; returns how many of that kind there are now.
    pub fn disbelieved(&self, why: Disbelief) -> u64 {
        let what = match why {
            Disbelief::SourcePort => Tally::SourcePort,
            Disbelief::NodeForAnother => Tally::NodeForAnother,
            Disbelief::RelayIsNode => Tally::RelayIsNode,
        };
        self.tally(what)
    }

    /// Malformed datagrams by reason.
    pub fn malformed_by_reason(&self) -> Vec<(&'static str, u64)> {
        let count = |why: &Malformed| (why.name(), self.malformed[*why as usize].load(Relaxed));
        Malformed::ALL.iter().map(count).collect()
    }

    /// Well-formed packets by how they ended.
    pub fn answers(&self) -> Vec<(&'static str, u64)> {
        let count = |(what, name): &(Tally, &'static str)| (*name, self.tallies[*what as usize].load(Relaxed));
        TALLIES.iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 1, 1, 1]);
        bytes[236..].copy_from_slice(&MAGIC_COOKIE);
        bytes
    }

    #[test]
    fn each_defect_has_its_reason() {
        assert_eq!(check(&valid()), Ok(()));
        assert_eq!(check(&[]), Err(Malformed::TooShort));
        assert_eq!(check(&valid()[..239]), Err(Malformed::TooShort));
        assert_eq!(check(&vec![1; MAX_LEN + 1]), Err(Malformed::TooLong));
        for (at, value, want) in [
            (0, 2, Malformed::NotARequest),
            (1, 6, Malformed::HardwareType),
            (2, 17, Malformed::HardwareType),
            (2, 0, Malformed::HardwareType),
            (28, 0x53, Malformed::HardwareAddress),
            (239, 0, Malformed::NoCookie),
        ] {
            let mut bytes = valid();
            bytes[at] = value;
            assert_eq!(check(&bytes), Err(want), "byte {at} = {value}");
        }
        let mut bytes = valid();
        bytes[28..34].fill(0);
        assert_eq!(check(&bytes), Err(Malformed::HardwareAddress));
    }

    #[test]
    fn counters_are_in_the_order_of_their_names() {
        let counters = Counters::default();
        for (i, why) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, i);
            (0..=i).for_each(|_| assert!(counters.malformed(why) > 0));
        }
        for (i, (what, _)) in TALLIES.iter().enumerate() {
            assert_eq!(*what as usize, i);
            counters.tally(*what);
        }
        assert_eq!(counters.malformed_by_reason()[10], ("no-address", 11));
        assert!(counters.answers().iter().all(|(_, n)| *n == 1));
    }
}
