//! A machine that is not in the inventory, with its reported properties.

use super::owners::{Traits, canonical};
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

/// A machine that is seen in two places within this time, in milliseconds, was not carried from one to the other.
pub(super) const MOVE: u64 = 10 * 60_000;
/// The time of the last packet is written again when it is this much newer than the one on disk, in milliseconds.
const WRITE_AFTER: u64 = 60_000;
/// The longest text that is kept of a machine's report, in bytes.
const TEXT: usize = 64;

/// Where a machine is plugged in, as far as its packets show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The server's interface on which its packets arrived.
    pub interface: String,
    /// The relay that forwarded its requests.
    pub relay: Option<Ipv4Addr>,
    /// The subnet that the relay is in; none if it is in no subnet of the site.
    #[serde(default)]
    pub network: Option<Ipv4Net>,
    /// The switch (option 82, remote id); empty if it is unknown.
    pub switch: String,
    /// The port (option 82, circuit id); empty if it is unknown.
    pub port: String,
}

/// A packet of an unknown machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Time of the packet.
    pub at: Timestamp,
    /// Hardware address of the machine that sent it.
    pub hwaddr: HwAddr,
    /// UUID of its mainboard, as the packet has it.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578).
    pub arch: Option<u16>,
    /// Vendor class (option 60) of firmware; empty if it sent none, or if iPXE sent the packet.
    pub class: String,
    /// Whether firmware or a boot loader sent it. An operating system does not ask to be racked.
    pub booting: bool,
    /// Whether the machine accepted an address: it answered an offer, which a forged sender cannot.
    pub confirmed: bool,
    /// Whether it was offered or given an address.
    pub offered: bool,
    /// The pool that had no address for it.
    pub no_room: Option<NoRoom>,
    /// Interface, relay and switch port by which the packet came.
    pub place: Place,
}

impl Observation {
    /// A loader's request for its script, where no DHCP is heard: the machine `hwaddr` answers to ARP at the sender's address.
    pub fn of_script(at: Timestamp, hwaddr: HwAddr, arch: Option<u16>, interface: &str) -> Self {
        Observation {
            at,
            hwaddr,
            uuid: None,
            arch,
            class: String::new(),
            booting: true,
            confirmed: true,
            offered: false,
            no_room: None,
            place: Place {
                interface: interface.to_owned(),
                relay: None,
                network: None,
                switch: String::new(),
                port: String::new(),
            },
        }
    }
}

/// A pool had no address for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// The subnet whose pool is full.
    pub network: Ipv4Net,
    /// The message of DHCP: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when the machine is refused.
    pub since: Timestamp,
    /// When the next lease of the pool ends, so that an address may be free. None if an older release wrote this.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl NoRoom {
    /// Whether no lease has ended since. After that, the machine's next packet shows whether there is room.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Properties of the machine that a boot loader reports in addition to its packets (SMBIOS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderReport {
    /// UUID.
    pub uuid: Option<Uuid>,
    /// Serial number.
    pub serial: String,
    /// The manufacturer, from SMBIOS.
    pub vendor: String,
    /// The product's name, from SMBIOS.
    pub product: String,
}

/// An unknown machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Hardware address of the card that boots.
    pub hwaddr: HwAddr,
    /// Number of the machine in the order of first packets.
    pub number: u64,
    /// UUID of the mainboard.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578).
    pub arch: Option<u16>,
    /// Vendor class (option 60) of its firmware, which may decide on its loader; empty if it is unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// Serial number; empty if it is unknown.
    #[serde(default)]
    pub serial: String,
    /// Manufacturer; empty if it is unknown.
    #[serde(default)]
    pub vendor: String,
    /// Product; empty if it is unknown.
    #[serde(default)]
    pub product: String,
    /// What its loader reports that is not what is known of the machine; empty if nothing, or if an older release wrote this.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contradiction: String,
    /// Where the machine is plugged in.
    pub place: Place,
    /// Where it was before, and until when; none if it never moved.
    #[serde(default)]
    pub before: Option<(Place, Timestamp)>,
    /// Time of its first packet.
    pub first_seen: Timestamp,
    /// Time of its last packet.
    pub last_seen: Timestamp,
    /// Whether firmware or a loader asked last, and not an operating system.
    pub booting: bool,
    /// Whether it accepted an address.
    pub confirmed: bool,
    /// The pool that has no address for it; none if it is not refused.
    #[serde(default)]
    pub no_room: Option<NoRoom>,
    /// Whether it is neither shown nor racked.
    #[serde(default)]
    pub ignored: bool,
    /// Whether sessions leave it alone, because its placement was undone.
    #[serde(default)]
    pub held: bool,
}

impl Machine {
    /// The values that identify it.
    pub fn traits(&self) -> Traits {
        Traits {
            uuid: self.uuid,
            serial: self.serial.clone(),
            product: self.product.clone(),
        }
    }

    /// A machine that was never seen before.
    pub fn new(number: u64, seen: &Observation) -> Self {
        let mut machine = Machine {
            hwaddr: seen.hwaddr,
            number,
            uuid: seen.uuid.filter(says_something),
            arch: seen.arch,
            class: seen.class.clone(),
            serial: String::new(),
            vendor: String::new(),
            product: String::new(),
            contradiction: String::new(),
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

    /// Records whether there was an address for it; true if that has changed.
    fn ask(&mut self, seen: &Observation) -> bool {
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

    /// Records another packet; true if the machine has to be written.
    pub fn observe(&mut self, seen: &Observation) -> bool {
        let mut news = !seen.at.is_within(WRITE_AFTER, self.last_seen);
        self.last_seen = seen.at;
        news |= self.take_uuid(seen.uuid.filter(says_something));
        news |= replace_if_some(&mut self.arch, seen.arch);
        if seen.booting && !seen.class.is_empty() && self.class != seen.class {
            self.class.clone_from(&seen.class);
            news = true;
        }
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

    /// Records the UUID of a packet; true if that is news. With another UUID it is another mainboard, whose loader has not reported yet.
    fn take_uuid(&mut self, uuid: Option<Uuid>) -> bool {
        let other = |before: Uuid| uuid.is_some_and(|uuid| canonical(uuid) != canonical(before));
        if self.uuid.is_some_and(other) {
            for text in [
                &mut self.serial,
                &mut self.vendor,
                &mut self.product,
                &mut self.contradiction,
            ] {
                text.clear();
            }
        }
        replace_if_some(&mut self.uuid, uuid)
    }

    /// Records the report of its loader; true if it contains something new. The report adds what is unknown. It replaces nothing,
    /// because packets say more reliably than a report by HTTP which machine this is: a value that contradicts is a remark.
    pub(crate) fn take_report(&mut self, told: &LoaderReport, now: Timestamp) -> bool {
        // A loader asks for its script every few seconds, but hardly ever asks DHCP.
        let mut news = now.since(self.last_seen) >= WRITE_AFTER;
        self.last_seen = self.last_seen.max(now);
        let mut contradicts = Vec::new();
        match (self.uuid, told.uuid.filter(says_something)) {
            (None, Some(uuid)) => news |= replace_if_some(&mut self.uuid, Some(uuid)),
            (Some(known), Some(uuid)) if canonical(known) != canonical(uuid) => {
                contradicts.push(format!("the UUID {uuid} instead of {known}"));
            }
            _ => {}
        }
        for (what, field, text) in [
            ("serial number", &mut self.serial, &told.serial),
            ("vendor", &mut self.vendor, &told.vendor),
            ("product", &mut self.product, &told.product),
        ] {
            let text = clean(text);
            if field.is_empty() && !text.is_empty() {
                *field = text;
                news = true;
            } else if !text.is_empty() && text != *field {
                contradicts.push(format!("the {what} '{text}' instead of '{field}'"));
            }
        }
        let contradiction = match contradicts.is_empty() {
            true => String::new(),
            false => format!("its loader reports {}", contradicts.join(", ")),
        };
        news |= contradiction != self.contradiction;
        self.contradiction = contradiction;
        news
    }

    /// Whether it is kept on disk: it accepted an address, which a forged sender cannot, or an administrator gave an order
    /// about it.
    pub(crate) fn is_kept(&self) -> bool {
        self.confirmed || self.ignored || self.held
    }

    /// Why an administrator has to look at it before it can be placed; none if nothing is wrong.
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

    /// `x64 UEFI`, `BIOS`; empty if it is unknown.
    pub fn firmware(&self) -> String {
        self.arch.map(firmware::name).unwrap_or_default()
    }
}

impl Place {
    /// Whether a machine that was here and is there has moved. If a relay begins to send more about the same port, the
    /// machine has not moved.
    pub(crate) fn is_elsewhere(&self, there: &Place) -> bool {
        self.interface != there.interface
            || self.is_behind_another_relay(there)
            || differ(&self.switch, &there.switch)
            || differ(&self.port, &there.port)
    }

    /// Two relays of one subnet are usually a pair of routers (VRRP, HSRP), which both forward the machine's packets: it has
    /// not moved.
    fn is_behind_another_relay(&self, there: &Place) -> bool {
        let pair = self.network.is_some() && self.network == there.network;
        self.relay.is_some() && there.relay.is_some() && self.relay != there.relay && !pair
    }

    /// `switch sw1 port Gi1/0/7`; the relay or the interface if nothing more is known.
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

    /// The text of an id of option 82: unchanged if it can be printed, otherwise hexadecimal.
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

/// Whether the UUID identifies a mainboard. Mainboards without their own UUID send zeros, ones, or a value that is compiled
/// into the BIOS.
pub(crate) fn says_something(uuid: &Uuid) -> bool {
    // Each as printed, and in the byte order of SMBIOS, which firmware sends.
    const SAMPLES: [Uuid; 5] = [
        // The UUID of boards by American Megatrends without one of their own.
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

/// The part of a machine's text that is kept: on one line, and of limited length.
pub(super) fn clean(text: &str) -> String {
    cut(one_line(text, usize::MAX).trim(), TEXT).to_owned()
}
