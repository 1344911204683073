//! A machine that is in no inventory, and what it told of itself.

use super::kin::Traits;
use ipnet::Ipv4Net;
use rackstrap_base::{
    clock::Timestamp,
    firmware,
    text::{cut, one_line},
};
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// Seen in two places within this time, a machine was not carried from one to the other: milliseconds.
pub(super) const MOVE: u64 = 10 * 60_000;
/// The last time it was seen is written to disk when it is that much older than what stands there: milliseconds.
const WRITE_AFTER: u64 = 60_000;
/// Longest text that is kept of what a machine tells, bytes.
const TEXT: usize = 64;

/// Where a machine is plugged in, as far as its packets say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The server's interface that its packets came in by.
    pub interface: String,
    /// The relay that its requests came through.
    pub relay: Option<Ipv4Addr>,
    /// The subnet that the relay is in, if it is in one of ours.
    #[serde(default)]
    pub network: Option<Ipv4Net>,
    /// Option 82, remote id: the switch. Empty if nobody said.
    pub switch: String,
    /// Option 82, circuit id: the port. Empty if nobody said.
    pub port: String,
}

/// A packet of an unknown machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Time of the packet.
    pub at: Timestamp,
    /// Address of the machine that sent it.
    pub hwaddr: HwAddr,
    /// UUID of its mainboard, as it says.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578).
    pub arch: Option<u16>,
    /// True for firmware and boot loaders; false for an operating system, which is not asking to be racked.
    pub booting: bool,
    /// True if it has got an address: it answered to an offer, as no forged sender does.
    pub confirmed: bool,
    /// True if it was offered or given an address.
    pub offered: bool,
    /// The pool that had none for it.
    pub no_room: Option<NoRoom>,
    /// Interface, relay and switch port by which it came.
    pub place: Place,
}

/// No address was left for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// The subnet whose pool is full.
    pub network: Ipv4Net,
    /// What DHCP says about it: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when the machine asks in vain.
    pub since: Timestamp,
    /// When a lease of the pool ends, and an address may be free; none from an older release, which did not say.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl NoRoom {
    /// True as long as no lease has ended since: whether there is room after that, the machine's next packet tells.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What a boot loader knows of the machine beyond its packets (SMBIOS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// UUID.
    pub uuid: Option<Uuid>,
    /// Serial number.
    pub serial: String,
    /// Maker.
    pub vendor: String,
    /// Product.
    pub product: String,
}

/// An unknown machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Hardware address of the card that boots.
    pub hwaddr: HwAddr,
    /// Counts up with each machine, in the order of first packets.
    pub number: u64,
    /// UUID.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578).
    pub arch: Option<u16>,
    /// Serial number, empty if nobody said.
    #[serde(default)]
    pub serial: String,
    /// Maker.
    #[serde(default)]
    pub vendor: String,
    /// Product.
    #[serde(default)]
    pub product: String,
    /// Where it is.
    pub place: Place,
    /// Where it was before, and until when.
    #[serde(default)]
    pub before: Option<(Place, Timestamp)>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// True if it is booting, and not an operating system.
    pub booting: bool,
    /// True if it has got an address.
    pub confirmed: bool,
    /// It asks for an address in vain.
    #[serde(default)]
    pub no_room: Option<NoRoom>,
    /// True if it shall not be shown, nor racked.
    #[serde(default)]
    pub ignored: bool,
    /// True if sessions leave it alone: it was taken back.
    #[serde(default)]
    pub held: bool,
}

impl Machine {
    /// What tells it from others.
    pub fn traits(&self) -> Traits {
        Traits {
            uuid: self.uuid,
            serial: self.serial.clone(),
            product: self.product.clone(),
        }
    }

    /// A machine that was never seen before.
    pub fn new(number: u64, seen: &Seen) -> Self {
        let mut machine = Machine {
            hwaddr: seen.hwaddr,
            number,
            uuid: seen.uuid.filter(says_something),
            arch: seen.arch,
            serial: String::new(),
            vendor: String::new(),
            product: String::new(),
            place: seen.place.clone(),
            before: None,
            first_seen: seen.at,
            last_seen: seen.at,
            booting: seen.booting,
            confirmed: seen.confirmed,
            no_room: None,
            ignored: false,
            held: false,
        };
        machine.ask(seen);
        machine
    }

    /// Takes in whether there was an address for it; true if that is news.
    fn ask(&mut self, seen: &Seen) -> bool {
        match (&seen.no_room, &mut self.no_room) {
            (Some(full), Some(before)) if full.network == before.network && before.holds(seen.at) => {
                before.until = full.until;
                false
            }
            (Some(full), _) => {
                self.no_room = Some(full.clone());
                true
            }
            (None, _) if seen.offered => self.no_room.take().is_some(),
            _ => false,
        }
    }

    /// Takes in another packet of it; true if that is worth writing.
    pub fn see(&mut self, seen: &Seen) -> bool {
        let mut news = !seen.at.is_within(WRITE_AFTER, self.last_seen);
        self.last_seen = seen.at;
        news |= replace_if_some(&mut self.uuid, seen.uuid.filter(says_something));
        news |= replace_if_some(&mut self.arch, seen.arch);
        news |= (seen.booting && !self.booting) || (seen.confirmed && !self.confirmed);
        news |= self.ask(seen);
        self.booting |= seen.booting;
        self.confirmed |= seen.confirmed;
        if self.place != seen.place {
            let left = std::mem::replace(&mut self.place, seen.place.clone());
            self.before = Some((left, seen.at));
            news = true;
        }
        news
    }

    /// Takes in what its loader told; true if that is news.
    pub fn hear(&mut self, told: &Told, now: Timestamp) -> bool {
        // A loader asks every few seconds, and asks DHCP hardly ever.
        let mut news = now.since(self.last_seen) >= WRITE_AFTER;
        self.last_seen = self.last_seen.max(now);
        news |= replace_if_some(&mut self.uuid, told.uuid.filter(says_something));
        for (field, text) in [
            (&mut self.serial, &told.serial),
            (&mut self.vendor, &told.vendor),
            (&mut self.product, &told.product),
        ] {
            let text = clean(text);
            if !text.is_empty() && text != *field {
                *field = text;
                news = true;
            }
        }
        news
    }

    /// True if it is worth a place on disk: it took an address, as no forged sender does, or somebody said something about it.
    pub fn is_kept(&self) -> bool {
        self.confirmed || self.ignored || self.held
    }

    /// What somebody has to look at before it can be racked by itself, if anything.
    pub fn flips(&self, now: Timestamp) -> Option<String> {
        let (before, _) = self.before.as_ref().filter(|(_, at)| now.is_within(MOVE, *at))?;
        before.is_elsewhere(&self.place).then(|| {
            format!(
                "seen at {} and then at {}: two machines with this address, or a loop?",
                before.shown(),
                self.place.shown()
            )
        })
    }

    /// `x64 UEFI`, `BIOS`; empty if it did not say.
    pub fn firmware(&self) -> String {
        self.arch.map(firmware::name).unwrap_or_default()
    }
}

impl Place {
    /// True if a machine that is here and there has moved. A relay that begins to say more of the same port is no move.
    pub fn is_elsewhere(&self, there: &Place) -> bool {
        self.interface != there.interface
            || self.is_behind_another_relay(there)
            || differ(&self.switch, &there.switch)
            || differ(&self.port, &there.port)
    }

    /// Two relays of one subnet are mostly a pair of routers (VRRP, HSRP), and both pass on what a machine says: no move.
    fn is_behind_another_relay(&self, there: &Place) -> bool {
        let pair = self.network.is_some() && self.network == there.network;
        self.relay.is_some() && there.relay.is_some() && self.relay != there.relay && !pair
    }

    /// `switch sw1 port Gi1/0/7`, or the relay or the interface if nobody said more.
    pub fn shown(&self) -> String {
        let words = [("switch", &self.switch), ("port", &self.port)];
        let words: Vec<String> = words
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what} {text}"))
            .collect();
        match (words.is_empty(), self.relay) {
            (false, _) => words.join(" "),
            (true, Some(relay)) => format!("relay {relay}"),
            (true, None) => self.interface.clone(),
        }
    }

    /// Text of an id of option 82: as it is if it can be printed, hexadecimal otherwise.
    pub fn text(id: &[u8]) -> String {
        match std::str::from_utf8(id) {
            Ok(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => {
                cut(text.trim(), TEXT).to_owned()
            }
            _ if id.is_empty() => String::new(),
            _ => format!("0x{}", hex::encode(&id[..id.len().min(TEXT / 2)])),
        }
    }
}

/// Mainboards without a UUID of their own send zeros, ones, or what their BIOS was compiled with.
pub fn says_something(uuid: &Uuid) -> bool {
    // Each as printed, and in the byte order of SMBIOS, which firmware sends.
    const SAMPLES: [Uuid; 5] = [
        // American Megatrends'.
        Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009),
        Uuid::from_u128(0x0002_0003_0004_0005_0006_0007_0008_0009),
        Uuid::from_u128(0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc),
        Uuid::from_u128(0x7856_3412_3412_7856_90ab_cdde_efaa_bbcc),
        Uuid::from_u128(0xfefe_fefe_fefe_fefe_fefe_fefe_fefe_fefe),
    ];
    !uuid.is_nil() && !uuid.is_max() && !SAMPLES.contains(uuid)
}

fn differ(a: &str, b: &str) -> bool {
    !a.is_empty() && !b.is_empty() && a != b
}

fn replace_if_some<T: PartialEq + Copy>(field: &mut Option<T>, new: Option<T>) -> bool {
    let news = new.is_some() && *field != new;
    *field = new.or(*field);
    news
}

/// What is kept of a text that a machine tells: on one line, and not too long.
pub(super) fn clean(text: &str) -> String {
    cut(one_line(text, usize::MAX).trim(), TEXT).to_owned()
}
