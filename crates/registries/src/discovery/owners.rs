//! Finds the node that a card belongs to if the inventory does not name the card, by what nodes report of themselves (pure).
//!
//! Firmware sends the UUID of its mainboard when it asks for an address. A node's agent reports its serial number and all its
//! cards. A value that several nodes have identifies none of them, and two machines with different UUIDs are different,
//! whatever else they have in common.

use super::machine::{LoaderReport, clean, says_something};
use rackstrap_model::inventory::{Inventory, Node};
use rackstrap_wire::{Hardware, HwAddr};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
    sync::Arc,
};
use uuid::Uuid;

/// At most this many cards of one report count. Machines have up to eight, but each function of a virtual card is one.
const CARDS: usize = 64;

/// Texts that manufacturers leave where a serial number belongs, in lower case.
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

/// The values that identify a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// UUID of the mainboard, in either byte order.
    pub uuid: Option<Uuid>,
    /// Serial number; empty if it is unknown.
    pub serial: String,
    /// Product; empty if it is unknown.
    pub product: String,
}

impl Traits {
    /// These, and for those that are unknown what a loader reports.
    pub fn or(mut self, told: &LoaderReport) -> Traits {
        self.uuid = self.uuid.filter(says_something).or(told.uuid);
        if self.serial.is_empty() {
            self.serial = clean(&told.serial);
            self.product = clean(&told.product);
        }
        self
    }
}

/// The reports of all nodes, by the card that each boots from.
#[derive(Debug, Default)]
pub struct CardOwners {
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

/// How the owner of a card was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The node's agent reported this card.
    Reported,
    /// By the UUID of the mainboard.
    Uuid,
    /// By product and serial number.
    Serial,
}

/// The node that a card belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The card.
    pub card: HwAddr,
    /// The node.
    pub node: Arc<Node>,
    /// How the node was recognised.
    pub mark: Mark,
}

impl CardOwners {
    /// Records what the machine with the card `hwaddr` reports. Empty values change nothing.
    pub fn learn(&mut self, hwaddr: HwAddr, traits: &Traits) {
        let mut said = self.said.get(&hwaddr).cloned().unwrap_or_default();
        said.uuid = traits.uuid.filter(says_something).map(canonical).or(said.uuid);
        said.serial = serial_key(traits).or(said.serial);
        self.put(hwaddr, said);
    }

    /// Records the report of the agent on the machine with the card `hwaddr`.
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

    /// Forgets machines that are no longer nodes, if there are many.
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

    /// The node that `card` belongs to although the inventory does not name the card, by the traits of its machine.
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

    /// The node whose mainboard has this UUID; none if several have it.
    pub fn node_of(&self, uuid: Uuid, inventory: &Inventory) -> Option<Arc<Node>> {
        let cards = self.by_uuid.get(&canonical(Some(uuid).filter(says_something)?))?;
        let mut nodes = cards.iter().filter_map(|card| inventory.by_hwaddr(*card));
        let node = nodes.next()?;
        nodes.all(|other| other.name == node.name).then(|| node.clone())
    }

    /// The only place that changes reports and their indexes, so that they stay consistent.
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

/// Packets carry a UUID in the byte order of SMBIOS, and loaders and Linux print it in the other order. Both count as the
/// same UUID: the lesser of the two.
pub fn canonical(uuid: Uuid) -> Uuid {
    uuid.min(Uuid::from_bytes(uuid.to_bytes_le()))
}

/// Product and serial number, if they identify a machine. A number alone may also be one of another manufacturer.
fn serial_key(traits: &Traits) -> Option<String> {
    let serial = clean(&traits.serial).to_lowercase();
    let one_letter = serial.chars().all(|c| serial.starts_with(c));
    if serial.len() < 4 || one_letter || NO_SERIALS.contains(&serial.as_str()) {
        return None;
    }
    Some(format!("{}\n{serial}", clean(&traits.product).to_lowercase()))
}

impl Owner {
    /// The command that adds the card to those of the node.
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
            settings: Default::default(),
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

    fn found(owners: &CardOwners, card: u8, traits: &Traits) -> Option<(String, Mark)> {
        let owner = owners.owner(mac(card), traits, &inventory())?;
        Some((owner.node.name.clone(), owner.mark))
    }

    #[test]
    fn a_card_is_known_by_uuid_serial_and_report() {
        let uuid = 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00;
        let swapped = 0x4433_2211_6655_8877_99aa_bbcc_ddee_ff00;
        let mut owners = CardOwners::default();
        owners.learn(mac(1), &traits(uuid, ""));
        owners.learn_hardware(mac(1), &hardware("ABC123", &[1, 11, 12]));
        let of = |mark| Some(("r01n01".to_owned(), mark));
        assert_eq!(found(&owners, 11, &Traits::default()), of(Mark::Reported));
        assert_eq!(found(&owners, 19, &traits(uuid, "")), of(Mark::Uuid));
        // In the byte order in which a loader prints it.
        assert_eq!(found(&owners, 19, &traits(swapped, "")), of(Mark::Uuid));
        assert_eq!(found(&owners, 19, &traits(0, " abc123 ")), of(Mark::Serial));
        let owner = owners.owner(mac(11), &Traits::default(), &inventory()).unwrap();
        assert_eq!(owner.to_string(), "a further card of r01n01 (the node reported it)");
        assert_eq!(
            owner.remedy(),
            "rackstrap node set r01n01 --hwaddr 52:54:00:00:00:01 --hwaddr 52:54:00:00:00:0b"
        );
        // Another manufacturer's number, a node's own card, another board with the first one's USB card or with its chassis'
        // number.
        let mut other = traits(0, "ABC123");
        other.product = "X11".to_owned();
        assert_eq!(found(&owners, 19, &other), None);
        assert_eq!(found(&owners, 1, &traits(uuid, "")), None);
        assert_eq!(found(&owners, 11, &traits(77, "ABC123")), None);
        assert_eq!(found(&owners, 19, &traits(77, "")), None);
    }

    #[test]
    fn shared_or_default_values_identify_no_node() {
        let mut owners = CardOwners::default();
        for n in [1, 2] {
            owners.learn(mac(n), &traits(42, "Default string"));
            owners.learn_hardware(mac(n), &hardware("Default string", &[n, 50]));
        }
        owners.learn(mac(3), &traits(0, "0000000"));
        for serial in ["Default string", "0000000", "", "1"] {
            assert_eq!(found(&owners, 19, &traits(0, serial)), None, "{serial}");
        }
        assert_eq!(found(&owners, 19, &traits(42, "")), None);
        assert_eq!(found(&owners, 50, &Traits::default()), None);
        assert_eq!(owners.node_of(Uuid::from_u128(42), &inventory()), None);
        assert_eq!(owners.node_of(Uuid::nil(), &inventory()), None);
        // The second node gets its own board, so the UUID of the first one identifies it again.
        owners.learn(mac(2), &traits(43, ""));
        assert_eq!(
            found(&owners, 19, &traits(42, "")),
            Some(("r01n01".to_owned(), Mark::Uuid))
        );
        let node = owners.node_of(Uuid::from_u128(42), &inventory()).unwrap();
        assert_eq!(node.name, "r01n01");
        // This card belongs to no node any more.
        owners.learn(mac(9), &traits(99, ""));
        assert_eq!(owners.node_of(Uuid::from_u128(99), &inventory()), None);
        assert_eq!(found(&owners, 19, &traits(99, "")), None);
    }

    #[test]
    fn reports_are_bounded_by_the_inventory() {
        let mut owners = CardOwners::default();
        for n in 0..=255 {
            owners.learn(mac(n), &traits(1000 + u128::from(n), ""));
        }
        owners.tidy(&inventory());
        assert_eq!((owners.said.len(), owners.by_uuid.len()), (3, 3));
        assert!(owners.by_serial.is_empty() && owners.by_card.is_empty());
    }
}
