//! What a datagram must be before anything else looks at it, and why others are dropped.

use super::{belief::Disbelief, infiniband, proxy::Left};
use rackstrap_base::counters::{self, ReadCounts, counted};

/// Fixed part of a message up to and with the magic cookie (RFC 2131 section 2).
pub const HEADER_LEN: usize = 240;
/// Largest message that is looked at, in bytes: a jumbo frame. Firmware offers up to 65,280 in option 57 but sends 600.
pub const MAX_LEN: usize = 9000;
/// RFC 2131 section 3.
pub const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

counted! {
    /// Why a datagram cannot be answered as a request. All of them are dropped and counted by name.
    pub enum Malformed {
        /// Shorter than the fixed header.
        TooShort = "too-short",
        /// Longer than 9,000 bytes.
        TooLong = "too-long",
        /// `op` is not BOOTREQUEST: a reply of another server, or noise.
        NotARequest = "not-a-request",
        /// `htype` is not Ethernet or `hlen` is not 6. (dhcproto panics above 16.)
        HardwareType = "hardware-type",
        /// `htype` is InfiniBand: rackstrap boots machines by Ethernet. [`infiniband::Port`] reads whose it is.
        InfiniBand = "infiniband",
        /// `chaddr` is all zeros or a group address.
        HardwareAddress = "hardware-address",
        /// No magic cookie: BOOTP of 1985, or noise.
        NoCookie = "no-cookie",
        /// No option 53: BOOTP.
        NoMessageType = "no-message-type",
        /// Option 53 is not one byte or names a message that clients do not send.
        BadMessageType = "bad-message-type",
        /// An option's length points past the end of its field.
        OptionTruncated = "option-truncated",
        /// An option of fixed length (50, 52, 54) has another, for example because it came twice.
        OptionLength = "option-length",
        /// A REQUEST, RELEASE, DECLINE or INFORM that names no address.
        NoAddress = "no-address",
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
    if bytes[1] == infiniband::HARDWARE_TYPE {
        return Err(Malformed::InfiniBand);
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

counted! {
    /// How a well-formed packet ended, for [`Counters`].
    pub enum Tally {
        /// An OFFER went out.
        Offer = "offer",
        /// An ACK went out.
        Ack = "ack",
        /// A NAK went out.
        Nak = "nak",
        /// An OFFER without an address went out (ProxyDHCP).
        BootOffer = "proxy-offer",
        /// An ACK without an address went out from port 4011.
        BootAck = "proxy-ack",
        /// No answer, by decision.
        Silent = "silent",
        /// No answer: [`Left::NotABoot`].
        NotABoot = "proxy-not-a-network-boot",
        /// No answer: [`Left::UBoot`].
        UBoot = "proxy-u-boot",
        /// No answer: [`Left::Address`].
        LeftAddress = "proxy-left-to-other-server",
        /// No answer: [`Left::NoLoader`].
        NoLoader = "proxy-no-loader",
        /// No answer: [`Left::BootRequest`].
        BootRequest = "port-4011-refused",
        /// No answer: [`Left::Off`].
        SubnetOff = "subnet-off",
        /// No answer: the lease could not be stored.
        NotStored = "lease-not-stored",
        /// No answer: too many leases wait for the disk.
        Busy = "store-busy",
        /// The reply could not be sent.
        SendFailed = "send-failed",
        /// Not looked at: too many requests of unknown machines.
        Crowded = "crowded-out",
        /// Ignored: [`Disbelief::SourcePort`].
        SourcePort = "ignored-source-port",
        /// Ignored: [`Disbelief::NodeForAnother`].
        NodeForAnother = "ignored-node-for-another",
        /// Ignored: [`Disbelief::RelayIsNode`].
        RelayIsNode = "ignored-relay-is-node",
        /// A reply went out without the relay's option 82, which did not fit (RFC 3046 section 2.2 wants it counted).
        RelayInfoLeftOut = "relay-info-left-out",
    }
}

/// Counts since start; shared by all sockets.
#[derive(Debug, Default)]
pub struct Counters {
    malformed: counters::Counters<Malformed>,
    tallies: counters::Counters<Tally>,
}

impl Counters {
    /// Counts a dropped datagram; returns how many of that kind there are now.
    pub fn malformed(&self, why: Malformed) -> u64 {
        self.malformed.add(why, 1)
    }

    /// Counts a packet's end; returns how many of that kind there are now.
    pub fn tally(&self, what: Tally) -> u64 {
        self.tallies.add(what, 1)
    }

    /// Counts a packet that is left to another server; returns how many of that kind there are now.
    pub fn left(&self, why: Left) -> u64 {
        let what = match why {
            Left::Off => Tally::SubnetOff,
            Left::NotABoot => Tally::NotABoot,
            Left::UBoot => Tally::UBoot,
            Left::Address => Tally::LeftAddress,
            Left::NoLoader => Tally::NoLoader,
            Left::BootRequest => Tally::BootRequest,
        };
        self.tally(what)
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
}

impl ReadCounts for Counters {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.tallies.read().chain(self.malformed.read()).collect()
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
            (1, 32, Malformed::InfiniBand),
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
    fn each_end_of_a_packet_is_counted_by_name() {
        let counters = Counters::default();
        assert_eq!(counters.malformed(Malformed::NoAddress), 1);
        assert_eq!(counters.malformed(Malformed::NoAddress), 2);
        assert_eq!(counters.tally(Tally::Offer), 1);
        assert_eq!(counters.disbelieved(Disbelief::RelayIsNode), 1);
        let counted: Vec<_> = counters.counts().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("offer", 1), ("ignored-relay-is-node", 1), ("no-address", 2)]);
    }
}
