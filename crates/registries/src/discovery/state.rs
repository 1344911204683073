//! Unknown machines and racks that are being filled, in memory: which machines wait, and which of them is placed next (pure).

use super::{
    machine::{LoaderReport, Machine, Observation},
    owners::{CardOwners, Owner, canonical},
    session::{Session, Sessions},
};
use ipnet::Ipv4Net;
use rackstrap_base::clock::Timestamp;
use rackstrap_model::inventory::Inventory;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};
use uuid::Uuid;

/// For this many milliseconds, a machine that was seen first and has no address yet keeps later machines from taking the
/// position before it. Firmware answers an offer within 4 s.
const TURN: u64 = 5_000;

/// After this many milliseconds of silence, a machine that was refused an address does not ask any more. Firmware that gets
/// no offer begins again within some minutes.
const ASKING: u64 = 10 * 60_000;

/// A pool that has no free address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullPool {
    /// The subnet of the pool.
    pub network: Ipv4Net,
    /// The message of DHCP: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when machines are refused.
    pub since: Timestamp,
    /// How many machines are refused.
    pub machines: usize,
}

impl fmt::Display for FullPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machines, get) = match self.machines {
            1 => ("machine", "gets"),
            _ => ("machines", "get"),
        };
        write!(f, "{}; {} {machines} {get} no address", self.why, self.machines)
    }
}

/// All unknown machines, and the racks that are being filled.
#[derive(Debug, Default)]
pub struct RackingState {
    machines: HashMap<HwAddr, Machine>,
    /// Numbers, in order, of machines without an address. These are forgotten first when there are too many.
    unconfirmed: BTreeMap<u64, HwAddr>,
    confirmed: BTreeMap<u64, HwAddr>,
    by_uuid: HashMap<Uuid, BTreeSet<HwAddr>>,
    next_number: u64,
    /// At most this many machines are remembered.
    limit: usize,
    /// Racks that are being filled.
    pub sessions: Sessions,
    /// What the nodes reported of themselves, to recognise their further cards.
    pub owners: CardOwners,
}

/// What followed from an observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the machine has to be written. Machines that never take an address are not, so that a flood of them costs no
    /// disk writes.
    pub write: bool,
    /// Whether the view of the machines has changed.
    pub news: bool,
    /// Machines on disk that were forgotten to make room for this one.
    pub forgotten: Vec<HwAddr>,
}

impl RackingState {
    /// Starts with the stored state.
    pub fn new(machines: Vec<Machine>, sessions: Sessions, limit: usize) -> Self {
        let mut state = RackingState {
            limit,
            sessions,
            ..RackingState::default()
        };
        for machine in machines {
            state.next_number = state.next_number.max(machine.number + 1);
            state.put(machine);
        }
        state
    }

    /// Sets how many machines are remembered at most. Takes effect with the next new machine.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// All machines, in the order of their first packets.
    pub fn machines(&self) -> Vec<&Machine> {
        let mut machines: Vec<&Machine> = self.machines.values().collect();
        machines.sort_by_key(|machine| machine.number);
        machines
    }

    /// The machine with this address.
    pub fn machine(&self, hwaddr: HwAddr) -> Option<&Machine> {
        self.machines.get(&hwaddr)
    }

    /// Adds a machine, or replaces it.
    pub fn put(&mut self, machine: Machine) {
        self.remove(machine.hwaddr);
        let order = if machine.confirmed {
            &mut self.confirmed
        } else {
            &mut self.unconfirmed
        };
        order.insert(machine.number, machine.hwaddr);
        if let Some(uuid) = machine.uuid {
            self.by_uuid.entry(canonical(uuid)).or_default().insert(machine.hwaddr);
        }
        self.machines.insert(machine.hwaddr, machine);
    }

    /// Removes a machine.
    pub fn remove(&mut self, hwaddr: HwAddr) -> Option<Machine> {
        let machine = self.machines.remove(&hwaddr)?;
        self.unconfirmed.remove(&machine.number);
        self.confirmed.remove(&machine.number);
        if let Some(uuid) = machine.uuid
            && let Some(cards) = self.by_uuid.get_mut(&canonical(uuid))
        {
            cards.remove(&hwaddr);
            if cards.is_empty() {
                self.by_uuid.remove(&canonical(uuid));
            }
        }
        Some(machine)
    }

    /// Records a packet of a machine that is not a node.
    pub fn observe(&mut self, seen: &Observation) -> Recorded {
        if let Some(mut machine) = self.machines.get(&seen.hwaddr).cloned() {
            let news = machine.observe(seen);
            let write = news && machine.is_kept();
            self.put(machine);
            return Recorded {
                write,
                news,
                forgotten: Vec::new(),
            };
        }
        let number = self.next_number;
        self.next_number += 1;
        let machine = Machine::new(number, seen);
        let write = machine.is_kept();
        self.put(machine);
        let mut forgotten = Vec::new();
        while self.machines.len() > self.limit.max(1) {
            // Machines that never took an address are forgotten first, the oldest of them before the others, so that a flood
            // replaces itself.
            let oldest = self
                .unconfirmed
                .iter()
                .chain(&self.confirmed)
                .find(|(n, _)| **n != number);
            let Some((_, hwaddr)) = oldest else { break };
            let hwaddr = *hwaddr;
            if self.remove(hwaddr).is_some_and(|machine| machine.is_kept()) {
                forgotten.push(hwaddr);
            }
        }
        Recorded {
            write,
            news: true,
            forgotten,
        }
    }

    /// Records the report of a machine's loader; true if it contains something new.
    pub fn take_report(&mut self, hwaddr: HwAddr, told: &LoaderReport, now: Timestamp) -> bool {
        let Some(mut machine) = self.machine(hwaddr).cloned() else {
            return false;
        };
        let news = machine.take_report(told, now);
        self.put(machine);
        news
    }

    /// The node that the machine's card belongs to.
    pub fn owner(&self, machine: &Machine, inventory: &Inventory) -> Option<Owner> {
        self.owners.owner(machine.hwaddr, &machine.traits(), inventory)
    }

    /// Why the machine is not placed automatically; none if nothing prevents it. It changes ports, is a node's card, or has
    /// the UUID of another machine.
    pub fn trouble(&self, machine: &Machine, inventory: &Inventory, now: Timestamp) -> Option<String> {
        if let Some(flips) = machine.flips(now) {
            return Some(flips);
        }
        if let Some(owner) = self.owner(machine, inventory) {
            return Some(format!(
                "{owner}: {}; if it is another machine: rackstrap discover accept {} NAME",
                owner.remedy(),
                machine.hwaddr
            ));
        }
        let uuid = machine.uuid?;
        let cards = self.by_uuid.get(&canonical(uuid)).into_iter().flatten();
        let twin = cards.into_iter().find(|card| **card != machine.hwaddr)?;
        Some(format!(
            "has the UUID of {twin}: two cards of one machine, or two machines?"
        ))
    }

    /// Pools that had no address for machines that are still asking, by subnet.
    pub fn full_pools(&self, now: Timestamp) -> Vec<FullPool> {
        let mut full: BTreeMap<Ipv4Net, FullPool> = BTreeMap::new();
        let asking = self.machines.values().filter(|m| now.is_within(ASKING, m.last_seen));
        let refused = asking.filter_map(|machine| machine.no_room.as_ref());
        for refused in refused.filter(|refused| refused.holds(now)) {
            let pool = full.entry(refused.network).or_insert_with(|| FullPool {
                network: refused.network,
                why: refused.why.clone(),
                since: refused.since,
                machines: 0,
            });
            pool.since = pool.since.min(refused.since);
            pool.machines += 1;
        }
        full.into_values().collect()
    }

    /// The session that the machine belongs to.
    pub fn session_of(&self, machine: &Machine, now: Timestamp) -> Option<&Session> {
        self.sessions
            .values()
            .find(|session| session.is_on(now) && session.covers(&machine.place) && machine.first_seen >= session.began)
    }

    /// The machines to place now, in the order of first packets, and their racks. Sessions that need a confirmation are left
    /// out.
    pub fn due(&self, inventory: &Inventory, now: Timestamp) -> Vec<(String, HwAddr)> {
        let mut due = Vec::new();
        for session in self
            .sessions
            .values()
            .filter(|session| session.is_on(now) && !session.confirm)
        {
            for machine in self.candidates(session, inventory) {
                let is_fit = || self.trouble(machine, inventory, now).is_none();
                if machine.confirmed {
                    if is_fit() {
                        due.push((session.rack.clone(), machine.hwaddr));
                    }
                } else if now.is_within(TURN, machine.first_seen) && is_fit() {
                    // This machine came first, and may still answer.
                    break;
                }
            }
        }
        due
    }

    /// The machines that wait for a position in `session`, in the order of first packets, including those that are not placed
    /// automatically.
    fn candidates(&self, session: &Session, inventory: &Inventory) -> Vec<&Machine> {
        let mut machines: Vec<&Machine> = self
            .machines
            .values()
            .filter(|machine| {
                machine.booting
                    && !machine.ignored
                    && !machine.held
                    && machine.first_seen >= session.began
                    && session.covers(&machine.place)
                    && inventory.by_hwaddr(machine.hwaddr).is_none()
            })
            .collect();
        machines.sort_by_key(|machine| machine.number);
        machines
    }
}
