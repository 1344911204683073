//! Of waiting machines, and of racks that are being filled.

use super::{FullPool, NodeState, Watchable};
use ipnet::Ipv4Net;
use rackstrap_base::{clock::Timestamp, firmware};
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::Ipv4Addr};
use uuid::Uuid;

/// `rackstrap discover list` and `watch`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscoveryAnswer {
    /// The daemon's present.
    pub now: Timestamp,
    /// Machines that wait, in the order of their first packets.
    pub machines: Vec<WaitingRow>,
    /// Racks that are being filled.
    pub sessions: Vec<FillingRow>,
    /// Pools that have no address for some of the machines.
    pub full: Vec<FullPool>,
    /// Packets that were not looked at, as there were too many; since the start.
    pub dropped: u64,
    /// Those racks, position by position.
    pub racks: Vec<Elevation>,
}

impl Watchable for DiscoveryAnswer {
    fn now(&mut self) -> Option<&mut Timestamp> {
        Some(&mut self.now)
    }
}

/// A machine that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingRow {
    /// The machine.
    pub machine: MachineRow,
    /// Why it is not racked by itself, empty if nothing is in the way.
    pub trouble: String,
    /// The rack that is being filled and will take it, empty if none.
    pub rack: String,
}

/// An unknown machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRow {
    /// Hardware address of the card that boots.
    pub hwaddr: HwAddr,
    /// Counts up with each machine, in the order of first packets.
    pub number: u64,
    /// UUID of its mainboard; none if it says none that is its own.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578); none if it does not say.
    pub arch: Option<u16>,
    /// Serial number, empty if unknown.
    pub serial: String,
    /// Maker, empty if unknown.
    pub vendor: String,
    /// Product, empty if unknown.
    pub product: String,
    /// Where it is plugged in.
    pub place: PlaceRow,
    /// Where it was before, and until when.
    pub before: Option<(PlaceRow, Timestamp)>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// True if it is booting, and not an operating system.
    pub booting: bool,
    /// True if it has got an address.
    pub confirmed: bool,
    /// Set while it asks for an address in vain.
    pub no_room: Option<NoRoomRow>,
    /// True if it is neither shown nor racked.
    pub ignored: bool,
    /// True if sessions leave it alone: it was taken back.
    pub held: bool,
}

impl MachineRow {
    /// `x64 UEFI`, `BIOS`; empty if it did not say.
    pub fn firmware(&self) -> String {
        self.arch.map(firmware::name).unwrap_or_default()
    }
}

/// Where a machine is plugged in, as far as its packets say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRow {
    /// The server's interface that its packets came in by.
    pub interface: String,
    /// The relay that its requests came through; none if there is none.
    pub relay: Option<Ipv4Addr>,
    /// The subnet that the relay is in, if it is in one of ours.
    pub network: Option<Ipv4Net>,
    /// Option 82, remote id: the switch. Empty if the relay does not say.
    pub switch: String,
    /// Option 82, circuit id: the port. Empty if the relay does not say.
    pub port: String,
}

impl PlaceRow {
    /// `switch sw1 port Gi1/0/7`, or else the relay or the interface.
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
}

/// No address was left for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoomRow {
    /// The subnet whose pool is full.
    pub network: Ipv4Net,
    /// What DHCP says about it: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when the machine asks in vain.
    pub since: Timestamp,
    /// When a lease of the pool ends, and an address may be free; none if that is unknown.
    pub until: Option<Timestamp>,
}

/// A rack that is being filled, and its next position.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FillingRow {
    /// The session.
    pub session: SessionRow,
    /// The next position; none if the rack is full.
    pub next: Option<String>,
}

/// A rack that is being filled, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The rack.
    pub rack: String,
    /// The subnet that its addresses are in.
    pub network: Ipv4Net,
    /// The interface of that subnet; none if it is behind relays.
    pub interface: Option<String>,
    /// The position from which it continues.
    pub next: String,
    /// Positions that stay free.
    pub skip: BTreeSet<String>,
    /// Profiles of the new nodes.
    pub profiles: Vec<String>,
    /// Groups of the new nodes.
    pub groups: BTreeSet<String>,
    /// True if each machine waits for a yes.
    pub confirm: bool,
    /// Which machines it takes.
    pub only: PlaceFilter,
    /// Machines that were first seen before are not taken.
    pub began: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Who began it.
    pub by: String,
    /// Machines that were placed, in this order.
    pub placed: Vec<PlacedRow>,
}

/// What tells the machines of one session from those of another. Without any, all machines of the subnet are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceFilter {
    /// Only through this relay.
    pub relay: Option<Ipv4Addr>,
    /// Only at this switch (remote id of option 82).
    pub switch: Option<String>,
    /// Only at ports whose text (circuit id of option 82) begins so.
    pub port: Option<String>,
}

/// A machine that got a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRow {
    /// The machine, as it was when it waited.
    pub machine: MachineRow,
    /// The node that it is.
    pub node: String,
    /// When it was placed.
    pub at: Timestamp,
}

/// A rack, from its lowest position up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Elevation {
    /// The rack.
    pub rack: String,
    /// Its positions, as far as they matter: up to some behind the next one.
    pub slots: Vec<Slot>,
}

/// A position in a rack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The name that belongs to it.
    pub name: String,
    /// What is there.
    pub what: SlotState,
    /// The node's card.
    pub hwaddr: Option<HwAddr>,
    /// Where the node is.
    pub state: Option<NodeState>,
    /// True if this session placed it.
    pub new: bool,
}

/// What is at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// A node.
    Node,
    /// Nothing: the next machine comes here.
    Next,
    /// Nothing yet.
    Free,
    /// Nothing, by wish.
    Skipped,
    /// Nothing, as the site file reserves its address.
    Reserved,
}

/// `rackstrap discover start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartSession {
    /// What is wanted.
    pub wanted: SessionWish,
}

/// What an administrator wants of a rack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionWish {
    /// The rack: a name without its last number, `r03`.
    pub rack: String,
    /// The first position, `n01` or `r03n01`; none for the lowest one.
    #[serde(default)]
    pub from: Option<String>,
    /// Positions to leave free, `n05` or `r03n05`.
    #[serde(default)]
    pub skip: Vec<String>,
    /// Profiles of the new nodes.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Groups of the new nodes.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// True if each machine is to wait for a yes.
    #[serde(default)]
    pub confirm: bool,
    /// True if machines that wait already are taken first.
    #[serde(default)]
    pub waiting_too: bool,
    /// How long, seconds.
    pub secs: u64,
    /// Which machines.
    #[serde(default)]
    pub only: PlaceFilter,
}

/// A rack that is being filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rack {
    /// Its name.
    pub rack: String,
    /// Also if a node that runs loses its root.
    #[serde(default)]
    pub running: bool,
}

/// `rackstrap discover accept`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// The machine.
    pub hwaddr: HwAddr,
    /// The node that it shall be; none for the next position of its rack.
    pub node: Option<String>,
    /// The node exists, and gets this machine.
    #[serde(default)]
    pub replace: bool,
}

/// What became of [`Accept`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The node that the machine is.
    pub node: String,
}

/// `rackstrap discover ignore`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ignore {
    /// The machine.
    pub hwaddr: HwAddr,
    /// False to show it again.
    pub ignored: bool,
}
