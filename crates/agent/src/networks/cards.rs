//! The node's network cards, and which of them a network means (pure, but for [`read`]).

use super::names::{Place, without_port};
use crate::network::OWN_ADDRESS;
use rackstrap_wire::{CardMatch, HwAddr};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// PCI base class 02, network controllers, and its subclass 07, InfiniBand (PCI Code and ID Assignment Specification, section 1.3).
const NETWORK_CLASS: &str = "0x02";
const INFINIBAND_CLASS: &str = "0x0207";
/// Types of interfaces (linux/if_arp.h).
const ARPHRD_ETHER: &str = "1";
const ARPHRD_INFINIBAND: &str = "32";
/// Longer lists of cards are cut in messages.
const MOST_NAMED: usize = 8;

/// One port of a network card. The initramfs has no drivers for some cards, which have no interface then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// PCI address, `0000:81:00.0`; empty for other buses.
    pub pci: String,
    /// Number of the port of a PCI function that has several (`dev_port`), from 0.
    pub port: u32,
    /// Name of the interface now; none without one.
    pub interface: Option<String>,
    /// Hardware address; none without an interface, and for InfiniBand.
    pub mac: Option<HwAddr>,
    /// Kernel driver; empty if no driver has the card.
    pub driver: String,
    /// Whether it is an InfiniBand port.
    pub infiniband: bool,
    /// The names that systemd derives from its place, the preferred one first; empty for other buses.
    pub names: Vec<String>,
    /// The firmware's name of it, `NIC 1` (`label`, of ACPI's _DSM or of SMBIOS type 41); empty without one.
    pub label: String,
}

impl Card {
    /// `0000:02:00.0 igb a0:36:9f:00:00:01 eth0 eno1 "NIC 1"`, for people. Of systemd's names, it has those of onboard cards and slots only:
    /// the other one follows from the PCI address.
    pub fn describe(&self) -> String {
        let mac = self.mac.map(|mac| mac.to_string());
        let label = Some(&self.label).filter(|label| !label.is_empty());
        let name = self.names.first().filter(|_| self.names.len() > 1);
        let parts = [
            self.pci.clone(),
            self.driver.clone(),
            mac.unwrap_or_default(),
            self.interface.clone().unwrap_or_default(),
            name.cloned().unwrap_or_default(),
            label.map(|label| format!("\"{label}\"")).unwrap_or_default(),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    }

    fn has_name(&self, name: &str) -> bool {
        // Some drivers name their ports, depending on the version. Without a driver, the name of a port is unknown.
        let is_derived = |own: &String| {
            let named_by_driver = self.interface.is_none() && own == without_port(name);
            own == name || without_port(own) == name || named_by_driver
        };
        self.interface.as_deref() == Some(name) || self.names.iter().any(is_derived)
    }

    fn fits(&self, wanted: &CardMatch, infiniband: bool) -> bool {
        let is = |wanted: &Option<String>, is: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(is);
        self.infiniband == infiniband
            && is(&wanted.driver, &|driver| driver == self.driver)
            && is(&wanted.pci, &|pci| pci == self.pci)
            && is(&wanted.name, &|name| self.has_name(name))
            && is(&wanted.label, &|label| !label.is_empty() && label == self.label)
            && is(&wanted.mac, &|mac| {
                self.mac.is_some() && mac.parse::<HwAddr>().ok() == self.mac
            })
    }
}

/// The card that is meant, of `cards` in the order of [`read`]. `boot` is the card that booted, which no network can have; it is counted as a port.
///
/// # Errors
/// None fits, or several do, with what the node has.
pub fn choose<'c>(wanted: &CardMatch, infiniband: bool, cards: &'c [Card], boot: HwAddr) -> Result<&'c Card, String> {
    let kind = if infiniband { "InfiniBand" } else { "Ethernet" };
    let mut fitting: Vec<&Card> = cards.iter().filter(|card| card.fits(wanted, infiniband)).collect();
    let is_boot = |card: &Card| card.mac == Some(boot);
    if let Some(port) = wanted.port {
        let index = usize::from(port).saturating_sub(1);
        return match fitting.get(index) {
            Some(card) if is_boot(card) => Err(format!(
                "{wanted} is the boot card, {}; name another port or card",
                card.describe()
            )),
            Some(card) => Ok(card),
            None if fitting.is_empty() => Err(none_fits(wanted, kind, cards)),
            None => {
                let count = fitting.len();
                Err(format!("{wanted} does not exist: {count} fit: {}", named(&fitting)))
            }
        };
    }
    let had_boot = fitting.iter().any(|card| is_boot(card));
    fitting.retain(|card| !is_boot(card));
    match fitting[..] {
        [card] => Ok(card),
        [] if had_boot => Err(format!("of the {kind} cards, only the boot card has {wanted}")),
        [] => Err(none_fits(wanted, kind, cards)),
        _ => Err(format!(
            "{} {kind} cards have {wanted}: {}; add port, pci or mac to 'match'",
            fitting.len(),
            named(&fitting)
        )),
    }
}

fn none_fits(wanted: &CardMatch, kind: &str, cards: &[Card]) -> String {
    let all: Vec<&Card> = cards.iter().collect();
    format!("no {kind} card has {wanted}; this node has: {}", named(&all))
}

fn named(cards: &[&Card]) -> String {
    if cards.is_empty() {
        return "no cards".to_owned();
    }
    let more = cards.len().saturating_sub(MOST_NAMED);
    let mut all: Vec<String> = cards.iter().take(MOST_NAMED).map(|card| card.describe()).collect();
    if more > 0 {
        all.push(format!("{more} more"));
    }
    all.join(", ")
}

/// Whether the text is a PCI address, `0000:81:00.0`.
fn is_pci(text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split([':', '.']).collect::<Vec<_>>()[..] {
        [domain, bus, device, function] => {
            text.contains('.') && [domain, bus, device, function].into_iter().all(hex) && domain.len() >= 4
        }
        _ => false,
    }
}

/// The slot with the device `pci`, of the slots with the addresses of their devices, `0000:81:00`.
fn slot_of(pci: &str, slots: &[(u32, String)]) -> Option<u32> {
    let device = pci.rsplit_once('.').map(|(device, _)| device)?;
    let slot = slots.iter().find(|(_, address)| address == device)?;
    Some(slot.0)
}

/// All network cards below `/sys`, in order.
pub fn read(sys: &Path) -> Vec<Card> {
    let list = |dir: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let base = |path: PathBuf| -> String {
        let target = fs::read_link(path).unwrap_or_default();
        target.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let devices = list(sys.join("bus/pci/devices"));
    let names: Vec<String> = devices
        .iter()
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    let functions = |pci: &str| {
        let device = pci.rsplit_once('.').map_or(pci, |(device, _)| device);
        names
            .iter()
            .filter(|name| name.rsplit_once('.').is_some_and(|(other, _)| other == device))
            .count()
    };
    // Some slots have names that are not numbers. systemd ignores these, too.
    let slots: Vec<(u32, String)> = list(sys.join("bus/pci/slots"))
        .into_iter()
        .filter_map(|slot| Some((slot.file_name()?.to_str()?.parse().ok()?, text(slot.join("address")))))
        .collect();
    let placed = |mut card: Card, port_name: &str| {
        let device = sys.join("bus/pci/devices").join(&card.pci);
        if card.pci.is_empty() {
            return card;
        }
        let number = |file: &str| text(device.join(file)).parse().ok();
        card.label = text(device.join("label"));
        card.names = Place {
            pci: &card.pci,
            functions: functions(&card.pci),
            onboard: number("acpi_index").or_else(|| number("index")),
            slot: slot_of(&card.pci, &slots),
            port: card.port,
            port_name,
            infiniband: card.infiniband,
        }
        .names();
        card
    };
    let mut cards = Vec::new();
    for interface in list(sys.join("class/net")) {
        let kind = text(interface.join("type"));
        // `../../devices/pci0000:00/0000:00:03.0/virtio1/net/eth0`. A bond or a VLAN has no device.
        let device = fs::read_link(&interface).unwrap_or_default();
        if !interface.join("device").exists() {
            continue;
        }
        if kind != ARPHRD_ETHER && kind != ARPHRD_INFINIBAND {
            continue;
        }
        let parents = device.iter().rev().map(|part| part.to_string_lossy().into_owned());
        let card = Card {
            pci: parents.into_iter().find(|part| is_pci(part)).unwrap_or_default(),
            port: text(interface.join("dev_port")).parse().unwrap_or(0),
            interface: interface.file_name().map(|name| name.to_string_lossy().into_owned()),
            // The members of a bond have its address.
            mac: text(interface.join(OWN_ADDRESS))
                .parse()
                .or_else(|_| text(interface.join("address")).parse())
                .ok(),
            driver: base(interface.join("device/driver")),
            infiniband: kind == ARPHRD_INFINIBAND,
            ..Card::default()
        };
        insert(&mut cards, placed(card, &text(interface.join("phys_port_name"))));
    }
    for (path, pci) in devices.iter().zip(&names) {
        let class = text(path.join("class"));
        if !class.starts_with(NETWORK_CLASS) || cards.iter().any(|card| card.pci == *pci) {
            continue;
        }
        let card = Card {
            pci: pci.clone(),
            driver: base(path.join("driver")),
            infiniband: class.starts_with(INFINIBAND_CLASS),
            ..Card::default()
        };
        insert(&mut cards, placed(card, ""));
    }
    cards
}

/// Keeps the cards in the order of their places. An insertion takes a fraction of the code of a sort, of which the agent has few bytes left.
fn insert(cards: &mut Vec<Card>, card: Card) {
    fn place(card: &Card) -> (&str, u32, Option<&str>) {
        (&card.pci, card.port, card.interface.as_deref())
    }
    let at = cards.partition_point(|other| place(other) < place(&card));
    cards.insert(at, card);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    pub(crate) const BOOT: HwAddr = HwAddr([0x52, 0x54, 0, 1, 1, 1]);

    fn card(pci: &str, driver: &str, last: u8) -> Card {
        Card {
            pci: pci.to_owned(),
            driver: driver.to_owned(),
            interface: Some(format!("eth{last}")),
            mac: Some(HwAddr([0x52, 0x54, 0, 1, 1, last])),
            names: Place {
                pci,
                functions: 2,
                ..Place::default()
            }
            .names(),
            ..Card::default()
        }
    }

    fn by_driver(driver: &str, port: Option<u16>) -> CardMatch {
        CardMatch {
            driver: Some(driver.to_owned()),
            port,
            ..CardMatch::default()
        }
    }

    #[test]
    fn one_card_is_chosen_or_the_problem_names_what_the_node_has() {
        let infiniband = Card {
            pci: "0000:81:00.0".to_owned(),
            driver: "mlx5_core".to_owned(),
            infiniband: true,
            ..Card::default()
        };
        let cards = [
            card("0000:02:00.0", "igb", 1),
            card("0000:02:00.1", "igb", 2),
            card("0000:03:00.0", "ixgbe", 3),
            card("0000:03:00.1", "ixgbe", 4),
            infiniband.clone(),
        ];
        let choose =
            |wanted: &CardMatch, infiniband| choose(wanted, infiniband, &cards, BOOT).map(|card| card.pci.as_str());
        assert_eq!(
            choose(&by_driver("igb", None), false),
            Ok("0000:02:00.1"),
            "the other one booted"
        );
        assert_eq!(choose(&by_driver("igb", Some(2)), false), Ok("0000:02:00.1"));
        assert_eq!(choose(&by_driver("ixgbe", Some(1)), false), Ok("0000:03:00.0"));
        assert_eq!(choose(&by_driver("mlx5_core", Some(1)), true), Ok("0000:81:00.0"));
        let of = |set: &dyn Fn(&mut CardMatch)| {
            let mut wanted = CardMatch::default();
            set(&mut wanted);
            wanted
        };
        assert_eq!(
            choose(&of(&|w| w.name = Some("enp3s0f1".into())), false),
            Ok("0000:03:00.1")
        );
        assert_eq!(
            choose(&of(&|w| w.name = Some("eth3".into())), false),
            Ok("0000:03:00.0")
        );
        assert_eq!(
            choose(&of(&|w| w.mac = Some("52:54:00:01:01:04".into())), false),
            Ok("0000:03:00.1")
        );
        assert_eq!(
            choose(&of(&|w| w.pci = Some("0000:03:00.0".into())), false),
            Ok("0000:03:00.0")
        );
        let error = |wanted: &CardMatch, infiniband| choose(wanted, infiniband).unwrap_err();
        assert_eq!(
            error(&by_driver("ixgbe", None), false),
            "2 Ethernet cards have driver ixgbe: 0000:03:00.0 ixgbe 52:54:00:01:01:03 eth3, 0000:03:00.1 ixgbe \
             52:54:00:01:01:04 eth4; add port, pci or mac to 'match'"
        );
        let none = error(&by_driver("mlx5_core", None), false);
        assert!(
            none.starts_with("no Ethernet card has driver mlx5_core; this node has: 0000:02:00.0 igb"),
            "{none}"
        );
        assert!(none.ends_with("0000:81:00.0 mlx5_core"), "{none}");
        assert!(error(&by_driver("ixgbe", Some(3)), false).starts_with("driver ixgbe, port 3 does not exist: 2 fit"));
        assert!(error(&by_driver("igb", Some(1)), false).starts_with("driver igb, port 1 is the boot card"));
        let boot = of(&|w| w.mac = Some(BOOT.to_string()));
        assert!(error(&boot, false).starts_with("of the Ethernet cards, only the boot card has MAC"));
    }

    #[test]
    fn a_card_has_the_names_of_its_firmware_and_of_its_slot() {
        let onboard = |last: u8, pci: &str, index| Card {
            label: format!("NIC {last}"),
            names: Place {
                pci,
                functions: 2,
                onboard: Some(index),
                ..Place::default()
            }
            .names(),
            ..card(pci, "igb", last)
        };
        let without_driver = Card {
            pci: "0000:81:00.0".to_owned(),
            names: vec!["ens3f0".to_owned(), "enp129s0f0".to_owned()],
            ..Card::default()
        };
        let cards = [
            onboard(1, "0000:02:00.0", 1),
            onboard(2, "0000:02:00.1", 2),
            without_driver,
        ];
        let choose = |wanted: &CardMatch| choose(wanted, false, &cards, BOOT).map(|card| card.pci.as_str());
        let name = |name: &str| CardMatch {
            name: Some(name.to_owned()),
            ..CardMatch::default()
        };
        let label = |label: &str| CardMatch {
            label: Some(label.to_owned()),
            ..CardMatch::default()
        };
        for wanted in [name("eno2"), name("enp2s0f1"), name("eth2"), label("NIC 2")] {
            assert_eq!(choose(&wanted), Ok("0000:02:00.1"), "{wanted}");
        }
        for wanted in ["ens3f0", "ens3f0np0", "enp129s0f0", "enp129s0f0np0"] {
            assert_eq!(choose(&name(wanted)), Ok("0000:81:00.0"), "{wanted}");
        }
        let error = choose(&label("NIC 1")).unwrap_err();
        assert_eq!(error, "of the Ethernet cards, only the boot card has label \"NIC 1\"");
        let error = choose(&name("eno3")).unwrap_err();
        assert!(
            error.contains("eth2 eno2 \"NIC 2\", 0000:81:00.0 ens3f0"),
            "the names to write: {error}"
        );
        assert!(choose(&label("")).is_err() && choose(&name("eno2np0")).is_err());
    }

    #[test]
    fn long_lists_are_cut() {
        let cards: Vec<Card> = (10..40).map(|n| card(&format!("0000:{n}:00.0"), "igb", n)).collect();
        let error = choose(&by_driver("e1000", None), false, &cards, BOOT).unwrap_err();
        assert!(error.ends_with(", 22 more") && error.len() < 600, "{error}");
        assert!(
            choose(&by_driver("e1000", None), false, &[], BOOT)
                .unwrap_err()
                .ends_with("no cards")
        );
    }

    #[test]
    fn cards_are_read_with_and_without_interface() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let bus = sys.join("bus/pci/devices");
        fs::create_dir_all(&bus).unwrap();
        for (pci, class, driver) in [
            ("0000:00:03.0", "0x020000", "virtio-pci"),
            ("0000:81:00.0", "0x020700", "mlx5_core"),
            ("0000:00:1f.0", "0x060100", "lpc_ich"),
        ] {
            let device = sys.join("devices/pci0000:00").join(pci);
            write(&device.join("class"), &format!("{class}\n"));
            symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
            symlink(&device, bus.join(pci)).unwrap();
        }
        let virtio = sys.join("devices/pci0000:00/0000:00:03.0/virtio1");
        let interface = virtio.join("net/eth0");
        write(&interface.join("type"), "1\n");
        write(&interface.join("address"), "52:54:00:01:01:02\n");
        write(&interface.join("dev_port"), "nonsense\n");
        symlink("../../../../../bus/virtio/drivers/virtio_net", virtio.join("driver")).unwrap();
        symlink(&virtio, interface.join("device")).unwrap();
        fs::create_dir_all(sys.join("class/net/lo")).unwrap();
        symlink(&interface, sys.join("class/net/eth0")).unwrap();
        let cards = read(sys);
        let described: Vec<String> = cards.iter().map(Card::describe).collect();
        assert_eq!(
            described,
            [
                "0000:00:03.0 virtio_net 52:54:00:01:01:02 eth0",
                "0000:81:00.0 mlx5_core"
            ]
        );
        assert_eq!(cards[0].names, ["enp0s3"]);
        assert_eq!(cards[1].names, ["ibp129s0"]);
        assert!(cards[1].infiniband && !cards[0].infiniband);
        assert!(read(Path::new("/nonexistent")).is_empty());

        // What firmware says of onboard cards and slots. A number that cannot be read and a slot with another name are ignored.
        let onboard = sys.join("devices/pci0000:00/0000:00:03.0");
        write(&onboard.join("acpi_index"), "nonsense\n");
        write(&onboard.join("index"), "1\n");
        write(&onboard.join("label"), "NIC 1\n");
        write(&sys.join("bus/pci/slots/7/address"), "0000:81:00\n");
        write(&sys.join("bus/pci/slots/3-1/address"), "0000:00:03\n");
        let cards = read(sys);
        assert_eq!(cards[0].names, ["eno1", "enp0s3"]);
        assert_eq!(cards[1].names, ["ibs7", "ibp129s0"]);
        assert_eq!(
            cards[0].describe(),
            "0000:00:03.0 virtio_net 52:54:00:01:01:02 eth0 eno1 \"NIC 1\""
        );
        write(&interface.join("phys_port_name"), "p0\n");
        let cards = read(sys);
        assert_eq!(cards[0].names, ["eno1np0", "enp0s3np0"]);
        for name in ["eno1", "eno1np0", "enp0s3", "eth0"] {
            assert!(cards[0].has_name(name), "{name}");
        }
        assert!(!cards[0].has_name("eno1np1") && !cards[0].has_name("eno2"));
    }
}
