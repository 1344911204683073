//! The waiting room and the sessions, in memory: who waits, and who is to be placed next. Without any effect of its own.

use super::{
    kin::{Kin, Owner, canonical},
    machine::{Machine, Seen, Told},
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

/// How long a machine that was seen first, and has no address yet, keeps later ones from taking the position before it:
/// milliseconds. Firmware answers an offer within 4 s.
const TURN: u64 = 5_000;

/// A machine that was refused an address, and is not heard of for so long, asks no more: milliseconds. Firmware that gets
/// no offer begins again within some minutes.
const ASKING: u64 = 10 * 60_000;

/// A pool that has no address left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullPool {
    /// Its subnet.
    pub network: Ipv4Net,
    /// What DHCP says about it: `the temporary pool 10.5.255.1-10.5.255.254 is full: …`
    pub why: String,
    /// Since when machines ask in vain.
    pub since: Timestamp,
    /// How many do.
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

/// What is known of machines and racks.
#[derive(Debug, Default)]
pub struct Floor {
    machines: HashMap<HwAddr, Machine>,
    /// Numbers in order, those without an address apart: they go first when there are too many.
    unconfirmed: BTreeMap<u64, HwAddr>,
    confirmed: BTreeMap<u64, HwAddr>,
    by_uuid: HashMap<Uuid, BTreeSet<HwAddr>>,
    next_number: u64,
    /// Machines that are remembered at most.
    limit: usize,
    /// Racks that are being filled.
    pub sessions: Sessions,
    /// What the nodes said of themselves.
    pub kin: Kin,
}

/// What became of an observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The machine is to be written: a flood of machines that never take an address costs no disk.
    pub write: bool,
    /// What there is to be shown is different.
    pub news: bool,
    /// Others that are on disk were forgotten for it.
    pub forgotten: Vec<HwAddr>,
}

impl Floor {
    /// With what was known before.
    pub fn new(machines: Vec<Machine>, sessions: Sessions, limit: usize) -> Self {
        let mut floor = Floor {
            limit,
            sessions,
            ..Floor::default()
        };
        for machine in machines {
            floor.next_number = floor.next_number.max(machine.number + 1);
            floor.put(machine);
        }
        floor
    }

    /// Machines that are remembered at most; takes effect with the next new one.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// All machines, in the order of their first packets.
    pub fn machines(&self) -> Vec<&Machine> {
        let mut machines: Vec<&Machine> = self.machines.values().collect();
        machines.sort_by_key(|machine| machine.number);
        machines
    }

    /// One machine.
    pub fn machine(&self, hwaddr: HwAddr) -> Option<&Machine> {
        self.machines.get(&hwaddr)
    }

    /// Puts a machine in, or back.
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

    /// Takes a machine out.
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

    /// A packet of a machine that is no node.
    pub fn see(&mut self, seen: &Seen) -> Noted {
        if let Some(mut machine) = self.machines.get(&seen.hwaddr).cloned() {
            let news = machine.see(seen);
            let write = news && machine.is_kept();
            self.put(machine);
            return Noted {
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
            // Whoever never took an address first, and of those the oldest; a flood forgets itself.
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
        Noted {
            write,
            news: true,
            forgotten,
        }
    }

    /// What a machine's loader told; true if that is news.
    pub fn hear(&mut self, hwaddr: HwAddr, told: &Told, now: Timestamp) -> bool {
        let Some(mut machine) = self.machine(hwaddr).cloned() else {
            return false;
        };
        let news = machine.hear(told, now);
        self.put(machine);
        news
    }

    /// The node that a machine's card belongs to.
    pub fn owner(&self, machine: &Machine, inventory: &Inventory) -> Option<Owner> {
        self.kin.owner(machine.hwaddr, &machine.traits(), inventory)
    }

    /// Why a machine is not racked by itself, if so: it flips between ports, is a node's card, or has another one's UUID.
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

    /// Pools that had no address for machines that are here and still ask, by their subnets.
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

    /// The session that a machine belongs to.
    pub fn session_of(&self, machine: &Machine, now: Timestamp) -> Option<&Session> {
        self.sessions
            .values()
            .find(|session| session.is_on(now) && session.covers(&machine.place) && machine.first_seen >= session.began)
    }

    /// Who is to be placed now, in the order of first packets, and in which rack. `confirmed_by_hand` sessions are left out.
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
                    // It came first, and may take its turn yet.
                    break;
                }
            }
        }
        due
    }

    /// Who waits for a position in `session`, in the order of first packets, those in trouble as well.
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
