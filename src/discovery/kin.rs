//! Which node a card belongs to that the inventory does not name: by what the nodes say of themselves (pure).
//!
//! Firmware says the UUID of its mainboard when it asks for an address, and a node's agent reports its serial number and all its
//! cards. What several nodes say tells nothing, and two machines with different UUIDs are two machines, whatever else they share.

use super::machine::{clean, says_something};
use rackstrap_model::inventory::{Inventory, Node};
use rackstrap_wire::{Hardware, HwAddr};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
    sync::Arc,
};
use uuid::Uuid;

/// Cards of one report that count: machines have eight at most, and each function of a virtual card is one.
const CARDS: usize = 64;

/// Texts that makers ship where a serial number belongs, in lower case.
const NO_SERIALS: [&str; 11] = [
    "0123456789",
    "123456789",
    "1234567890",
    "default string",
    "invalid",
    "not applicable",
    "not specified",
    "system serial number",
    "to be filled by o.e.m.",
    "unknown",
    "chassis serial number",
];

/// What tells a machine from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// UUID of the mainboard, in either byte order.
    pub uuid: Option<Uuid>,
    /// Serial number; empty if nobody said.
    pub serial: String,
    /// Product; empty if nobody said.
    pub product: String,
}

/// What all nodes said of themselves, by the card that they boot from.
#[derive(Debug, Default)]
pub struct Kin {
    said: HashMap<HwAddr, Said>,
    by_uuid: HashMap<Uuid, BTreeSet<HwAddr>>,
    by_serial: HashMap<String, BTreeSet<HwAddr>>,
    by_card: HashMap<HwAddr, BTreeSet<HwAddr>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    uuid: Option<Uuid>,
    serial: Option<String>,
    cards: BTreeSet<HwAddr>,
}

/// What gives a card away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The node's agent reported this very card.
    Reported,
    /// The mainboard's UUID.
    Uuid,
    /// Product and serial number.
    Serial,
}

/// The node that a card belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The card.
    pub card: HwAddr,
    /// The node.
    pub node: Arc<Node>,
    /// By what it is known.
    pub mark: Mark,
}

impl Kin {
    /// Takes in what the machine with the card `hwaddr` says: only what says something counts, the rest stays as it was.
    pub fn learn(&mut self, hwaddr: HwAddr, traits: &Traits) {
        let mut said = self.said.get(&hwaddr).cloned().unwrap_or_default();
        said.uuid = traits.uuid.filter(says_something).map(canonical).or(said.uuid);
        said.serial = serial_key(traits).or(said.serial);
        self.put(hwaddr, said);
    }

    /// Takes in what the agent of the machine with the card `hwaddr` reported.
    pub fn learn_hardware(&mut self, hwaddr: HwAddr, hardware: &Hardware) {
        let mut said = self.said.get(&hwaddr).cloned().unwrap_or_default();
        let traits = Traits {
            uuid: None,
            serial: hardware.serial.clone(),
            product: hardware.product.clone(),
        };
        said.serial = serial_key(&traits).or(said.serial);
        said.cards = hardware.hwaddrs.iter().copied().take(CARDS).collect();
        self.put(hwaddr, said);
    }

    /// Forgets machines that are no nodes any more, where there are many of them.
    pub fn tidy(&mut self, inventory: &Inventory) {
        if self.said.len() <= 64 + 2 * inventory.len() {
            return;
        }
        let gone = self.said.keys().filter(|card| inventory.by_hwaddr(**card).is_none());
        for hwaddr in gone.copied().collect::<Vec<_>>() {
            self.put(hwaddr, Said::default());
            self.said.remove(&hwaddr);
        }
    }

    /// The node that `card` belongs to, although the inventory does not name it there; by what its machine says of itself.
    pub fn owner(&self, card: HwAddr, traits: &Traits, inventory: &Inventory) -> Option<Owner> {
        if inventory.by_hwaddr(card).is_some() {
            return None;
        }
        let uuid = traits.uuid.filter(says_something).map(canonical);
        let is_other_board = |said: HwAddr| {
            let theirs = self.said.get(&said).and_then(|said| said.uuid);
            matches!((uuid, theirs), (Some(ours), Some(theirs)) if ours != theirs)
        };
        let only = |cards: Option<&BTreeSet<HwAddr>>| {
            let nodes: BTreeMap<&str, &Arc<Node>> = cards?
                .iter()
                .filter(|said| !is_other_board(**said))
                .filter_map(|said| inventory.by_hwaddr(*said))
                .map(|node| (node.name.as_str(), node))
                .collect();
            let mut nodes = nodes.into_values();
            nodes.next().filter(|_| nodes.next().is_none()).cloned()
        };
        let serial = serial_key(traits);
        let found = [
            (Mark::Reported, only(self.by_card.get(&card))),
            (Mark::Uuid, uuid.and_then(|uuid| only(self.by_uuid.get(&uuid)))),
            (
                Mark::Serial,
                serial.and_then(|serial| only(self.by_serial.get(&serial))),
            ),
        ];
        found.into_iter().find_map(|(mark, node)| {
            Some(Owner {
                card,
                node: node?,
                mark,
            })
        })
    }

    /// The one place where what was said and its indexes change together.
    fn put(&mut self, hwaddr: HwAddr, said: Said) {
        let before = self.said.insert(hwaddr, said.clone()).unwrap_or_default();
        if before == said {
            return;
        }
        before
            .uuid
            .into_iter()
            .for_each(|uuid| take(&mut self.by_uuid, uuid, hwaddr));
        before
            .serial
            .into_iter()
            .for_each(|text| take(&mut self.by_serial, text, hwaddr));
        before
            .cards
            .into_iter()
            .for_each(|card| take(&mut self.by_card, card, hwaddr));
        said.uuid
            .into_iter()
            .for_each(|uuid| add(&mut self.by_uuid, uuid, hwaddr));
        said.serial
            .into_iter()
            .for_each(|text| add(&mut self.by_serial, text, hwaddr));
        said.cards
            .into_iter()
            .for_each(|card| add(&mut self.by_card, card, hwaddr));
    }
}

fn add<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<HwAddr>>, key: K, hwaddr: HwAddr) {
    index.entry(key).or_default().insert(hwaddr);
}

fn take<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<HwAddr>>, key: K, hwaddr: HwAddr) {
    if let Some(cards) = index.get_mut(&key) {
        cards.remove(&hwaddr);
        if cards.is_empty() {
            index.remove(&key);
        }
    }
}

/// Packets carry a UUID in SMBIOS's byte order, loaders and Linux print it: both are one, the lesser of the two.
pub fn canonical(uuid: Uuid) -> Uuid {
    uuid.min(Uuid::from_bytes(uuid.to_bytes_le()))
}

/// Product and serial number, if that says something: a number alone may be another maker's as well.
fn serial_key(traits: &Traits) -> Option<String> {
    let serial = clean(&traits.serial).to_lowercase();
    let one_letter = serial.chars().all(|c| serial.starts_with(c));
    if serial.len() < 4 || one_letter || NO_SERIALS.contains(&serial.as_str()) {
        return None;
    }
    Some(format!("{}\n{serial}", clean(&traits.product).to_lowercase()))
}

impl Owner {
    /// The command that makes the card one of the node's, beside those that it has.
    pub fn remedy(&self) -> String {
        let cards = self.node.hwaddrs.iter().chain([&self.card]);
        let cards: Vec<String> = cards.map(|card| format!("--hwaddr {card}")).collect();
        format!("rackstrap node set {} {}", self.node.name, cards.join(" "))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.mark {
            Mark::Reported => "the node reported it",
            Mark::Uuid => "same UUID",
            Mark::Serial => "same serial number",
        };
        write!(f, "a further card of {} ({why})", self.node.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> HwAddr {
        HwAddr([0x52, 0x54, 0, 0, 0, n])
    }

    fn inventory() -> Inventory {
        Inventory::new((1..4).map(|n| Node {
            name: format!("r01n0{n}"),
            hwaddrs: vec![mac(n)],
            ipaddr: [10, 5, 1, n].into(),
            profiles: Vec::new(),
            groups: BTreeSet::new(),
            attributes: Default::default(),
        }))
    }

    fn traits(uuid: u128, serial: &str) -> Traits {
        Traits {
            uuid: Some(Uuid::from_u128(uuid)),
            serial: serial.to_owned(),
            product: "R740".to_owned(),
        }
    }

    fn hardware(serial: &str, cards: &[u8]) -> Hardware {
        Hardware {
            serial: serial.to_owned(),
            product: "R740".to_owned(),
            hwaddrs: cards.iter().map(|n| mac(*n)).collect(),
            ..Hardware::default()
        }
    }

    fn found(kin: &Kin, card: u8, traits: &Traits) -> Option<(String, Mark)> {
        let owner = kin.owner(mac(card), traits, &inventory())?;
        Some((owner.node.name.clone(), owner.mark))
    }

    #[test]
    fn a_card_is_known_by_uuid_serial_and_report() {
        let uuid = 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00;
        let swapped = 0x4433_2211_6655_8877_99aa_bbcc_ddee_ff00;
        let mut kin = Kin::default();
        kin.learn(mac(1), &traits(uuid, ""));
        kin.learn_hardware(mac(1), &hardware("ABC123", &[1, 11, 12]));
        let of = |mark| Some(("r01n01".to_owned(), mark));
        assert_eq!(found(&kin, 11, &Traits::default()), of(Mark::Reported));
        assert_eq!(found(&kin, 19, &traits(uuid, "")), of(Mark::Uuid));
        // As a loader prints it.
        assert_eq!(found(&kin, 19, &traits(swapped, "")), of(Mark::Uuid));
        assert_eq!(found(&kin, 19, &traits(0, " abc123 ")), of(Mark::Serial));
        let owner = kin.owner(mac(11), &Traits::default(), &inventory()).unwrap();
        assert_eq!(owner.to_string(), "a further card of r01n01 (the node reported it)");
        assert_eq!(
            owner.remedy(),
            "rackstrap node set r01n01 --hwaddr 52:54:00:00:00:01 --hwaddr 52:54:00:00:00:0b"
        );
        // Another maker's number, a node's own card, another board with the first one's USB card or with its chassis' number.
        let mut other = traits(0, "ABC123");
        other.product = "X11".to_owned();
        assert_eq!(found(&kin, 19, &other), None);
        assert_eq!(found(&kin, 1, &traits(uuid, "")), None);
        assert_eq!(found(&kin, 11, &traits(77, "ABC123")), None);
        assert_eq!(found(&kin, 19, &traits(77, "")), None);
    }

    #[test]
    fn what_several_say_or_nobody_programmed_tells_nothing() {
        let mut kin = Kin::default();
        for n in [1, 2] {
            kin.learn(mac(n), &traits(42, "Default string"));
            kin.learn_hardware(mac(n), &hardware("Default string", &[n, 50]));
        }
        kin.learn(mac(3), &traits(0, "0000000"));
        for serial in ["Default string", "0000000", "", "1"] {
            assert_eq!(found(&kin, 19, &traits(0, serial)), None, "{serial}");
        }
        assert_eq!(found(&kin, 19, &traits(42, "")), None);
        assert_eq!(found(&kin, 50, &Traits::default()), None);
        // The second gets a board of its own: the first one's UUID tells again.
        kin.learn(mac(2), &traits(43, ""));
        assert_eq!(
            found(&kin, 19, &traits(42, "")),
            Some(("r01n01".to_owned(), Mark::Uuid))
        );
        // No node of that card any more.
        kin.learn(mac(9), &traits(99, ""));
        assert_eq!(found(&kin, 19, &traits(99, "")), None);
    }

    #[test]
    fn it_is_bounded_by_the_inventory() {
        let mut kin = Kin::default();
        for n in 0..=255 {
            kin.learn(mac(n), &traits(1000 + u128::from(n), ""));
        }
        kin.tidy(&inventory());
        assert_eq!((kin.said.len(), kin.by_uuid.len()), (3, 3));
        assert!(kin.by_serial.is_empty() && kin.by_card.is_empty());
    }
}
