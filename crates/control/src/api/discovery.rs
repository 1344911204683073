//! Requests and answers about waiting machines, and about racks that are being filled.

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
    /// The daemon's present time.
    pub now: Timestamp,
    /// Machines that wait, in the order of their first packets.
    pub machines: Vec<WaitingRow>,
    /// Racks that are being filled.
    pub sessions: Vec<FillingRow>,
    /// Pools that have no address for some of the machines.
    pub full: Vec<FullPool>,
    /// Number of packets that were dropped since the start, because too many came.
    pub dropped: u64,
    /// The racks that are being filled, position by position.
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
    /// Why it is not placed automatically; empty if nothing prevents it.
    pub trouble: String,
    /// The rack that is being filled and will take it; empty if there is none.
    pub rack: String,
    /// Why its firmware gets no boot loader; empty if it gets one.
    #[serde(default)]
    pub no_loader: String,
    /// What its loader reports that is not what is known of the machine; empty if nothing.
    #[serde(default)]
    pub contradiction: String,
}

/// An unknown machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRow {
    /// Hardware address of the card that boots.
    pub hwaddr: HwAddr,
    /// Number of the machine in the order of first packets.
    pub number: u64,
    /// UUID of its mainboard; none if it does not report one of its own.
    pub uuid: Option<Uuid>,
    /// Architecture (RFC 4578); none if it does not report one.
    pub arch: Option<u16>,
    /// Serial number, empty if unknown.
    pub serial: String,
    /// Manufacturer; empty if it is unknown.
    pub vendor: String,
    /// Product, empty if unknown.
    pub product: String,
    /// Where it is plugged in.
    pub place: PlaceRow,
    /// Where it was before, and until when; none if it never moved.
    pub before: Option<(PlaceRow, Timestamp)>,
    /// Time of its first packet.
    pub first_seen: Timestamp,
    /// Time of its last packet.
    pub last_seen: Timestamp,
    /// Whether firmware or a loader asked last, and not an operating system.
    pub booting: bool,
    /// Whether it accepted an address.
    pub confirmed: bool,
    /// The pool that has no address for it; none if it is not refused.
    pub no_room: Option<NoRoomRow>,
    /// Whether it is neither shown nor racked.
    pub ignored: bool,
    /// Whether sessions leave it alone, because its placement was undone.
    pub held: bool,
}

impl MachineRow {
    /// `x64 UEFI`, `BIOS`; empty if it is unknown.
    pub fn firmware(&self) -> String {
        self.arch.map(firmware::name).unwrap_or_default()
    }
}

/// Where a machine is plugged in, as far as its packets show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRow {
    /// The server's interface on which its packets arrived.
    pub interface: String,
    /// The relay that forwarded its requests; none for a machine on the daemon's own network.
    pub relay: Option<Ipv4Addr>,
    /// The subnet that the relay is in; none if it is in no subnet of the site.
    pub network: Option<Ipv4Net>,
    /// The switch (option 82, remote id); empty if it is unknown.
    pub switch: String,
    /// The port (option 82, circuit id); empty if it is unknown.
    pub port: String,
}

impl PlaceRow {
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
}

/// A pool had no address for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoomRow {
    /// The subnet whose pool is full.
    pub network: Ipv4Net,
    /// The message of DHCP: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when the machine is refused.
    pub since: Timestamp,
    /// When the next lease of the pool ends, so that an address may be free; none if that is unknown.
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
    /// The rack's name.
    pub rack: String,
    /// The subnet of its addresses.
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
    /// Whether each placement waits for a confirmation.
    pub confirm: bool,
    /// Which machines are placed.
    pub only: PlaceFilter,
    /// When it began. Machines that were first seen before are not placed.
    pub began: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// The user who began it.
    pub by: String,
    /// Placed machines, in order.
    pub placed: Vec<PlacedRow>,
}

/// Which machines belong to a session. Without any condition, all machines of the subnet do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceFilter {
    /// Only machines behind this relay.
    pub relay: Option<Ipv4Addr>,
    /// Only machines at this switch (remote id of option 82).
    pub switch: Option<String>,
    /// Only machines at ports whose text (circuit id of option 82) begins with this.
    pub port: Option<String>,
}

/// A machine that got a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRow {
    /// The machine, as it was when it waited.
    pub machine: MachineRow,
    /// The name of the node that it became.
    pub node: String,
    /// When it was placed.
    pub at: Timestamp,
}

/// A rack, from its lowest position up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Elevation {
    /// The rack.
    pub rack: String,
    /// Its positions, up to a few after the next one.
    pub slots: Vec<Slot>,
}

/// A position in a rack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The node name of the position.
    pub name: String,
    /// The content of the position.
    pub what: SlotState,
    /// Hardware address of the node; none if there is no node.
    pub hwaddr: Option<HwAddr>,
    /// The state of the node; none if there is no node.
    pub state: Option<NodeState>,
    /// Whether this session placed the node.
    pub new: bool,
}

/// The content of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// A node.
    Node,
    /// Empty: the next machine is placed here.
    Next,
    /// Empty, and not the next place.
    Free,
    /// Empty, because the request skips it.
    Skipped,
    /// Empty, because the site file reserves its address.
    Reserved,
}

/// `rackstrap discover start`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartSession {
    /// The request.
    pub wanted: SessionWish,
}

/// A request to fill a rack.
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
    /// Whether each placement waits for a confirmation.
    #[serde(default)]
    pub confirm: bool,
    /// Whether machines that are waiting already are placed first.
    #[serde(default)]
    pub waiting_too: bool,
    /// How long to fill the rack, in seconds.
    pub secs: u64,
    /// Which machines are placed.
    #[serde(default)]
    pub only: PlaceFilter,
}

/// A rack that is being filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rack {
    /// The name of the rack.
    pub rack: String,
    /// Whether to undo a placement even if the node runs and loses its root.
    #[serde(default)]
    pub running: bool,
}

/// `rackstrap discover accept`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// The machine.
    pub hwaddr: HwAddr,
    /// The node that it becomes; none for the next position of its rack.
    pub node: Option<String>,
    /// Whether the node exists, and gets this machine.
    #[serde(default)]
    pub replace: bool,
}

/// The result of [`Accept`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The node that the machine became.
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
