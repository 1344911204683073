//! Views of unknown machines, for the command line and for the machines' own screens.

use super::{
    machine::{LoaderReport, Machine},
    owners::{Owner, Traits},
    session::{Session, Sessions},
    state::FullPool,
    task::Discovery,
};
use ipnet::Ipv4Net;
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::World;
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use uuid::Uuid;

/// Unknown machines and sessions, as they are shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct View {
    /// Machines in the order of first packets.
    pub machines: Vec<Waiting>,
    /// Racks that are being filled.
    pub sessions: Vec<Filling>,
    /// Pools that have no address for some of the machines.
    pub full: Vec<FullPool>,
    /// Number of packets that were dropped, because too many came.
    pub dropped: u64,
}

/// A machine that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// The machine.
    pub machine: Machine,
    /// Why it is not placed automatically; empty if nothing prevents it.
    pub trouble: String,
    /// The rack that is being filled and will take it; empty if there is none.
    pub rack: String,
}

/// A rack that is being filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filling {
    /// The session.
    pub session: Session,
    /// The next position; none if the rack is full.
    pub next: Option<String>,
}

/// The text on the screen of a waiting machine, in addition to its hardware address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Whether discovery does not know the machine: it was forgotten in a flood, or its packets were dropped.
    pub forgotten: bool,
    /// The position that it will probably get.
    pub suggestion: Option<String>,
    /// Further remarks for a person in front of the machine.
    pub remarks: Vec<String>,
    /// The node that the card belongs to. Such a card does not wait for anything.
    pub owner: Option<Owner>,
}

/// The next position of each rack that is being filled.
fn positions(sessions: &Sessions, world: &World, now: Timestamp) -> BTreeMap<String, Option<String>> {
    let sessions = sessions.values().filter(|session| session.is_on(now));
    sessions
        .map(|session| (session.rack.clone(), session.position(&world.site, &world.inventory)))
        .collect()
}

impl Discovery {
    /// The present view.
    pub fn view(&self, now: Timestamp) -> View {
        let world = self.shared.world.load();
        let state = self.shared.state();
        let next = positions(&state.sessions, &world, now);
        let unknown = |machine: &&Machine| world.inventory.by_hwaddr(machine.hwaddr).is_none();
        let machines = state.machines().into_iter().filter(unknown).map(|machine| {
            let rack = state
                .session_of(machine, now)
                .map(|s| s.rack.as_str())
                .unwrap_or_default();
            let trouble = state
                .trouble(machine, &world.inventory, now)
                .or_else(|| {
                    let full = machine.no_room.as_ref().filter(|full| full.holds(now));
                    full.map(|full| full.why.clone())
                })
                .or_else(|| matches!(next.get(rack), Some(None)).then(|| format!("rack {rack} is full")));
            Waiting {
                trouble: trouble.unwrap_or_default(),
                rack: rack.to_owned(),
                machine: machine.clone(),
            }
        });
        let sessions = state.sessions.values().filter(|session| session.is_on(now));
        View {
            machines: machines.collect(),
            sessions: sessions
                .map(|session| Filling {
                    session: session.clone(),
                    next: next.get(&session.rack).cloned().flatten(),
                })
                .collect(),
            full: state.full_pools(now),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
        }
    }

    /// The node that a card belongs to, by the reported properties of its machine; none if the inventory names the card.
    pub fn owner(&self, hwaddr: HwAddr) -> Option<Owner> {
        let world = self.shared.world.load();
        let state = self.shared.state();
        let traits = state.machine(hwaddr).map_or_else(Traits::default, Machine::traits);
        state.owners.owner(hwaddr, &traits, &world.inventory)
    }

    /// Whether a card that the inventory does not name belongs to a node. `uuid` is what its packet says of the mainboard.
    pub fn is_further_card(&self, hwaddr: HwAddr, uuid: Option<Uuid>) -> bool {
        let world = self.shared.world.load();
        let state = self.shared.state();
        let mut traits = state.machine(hwaddr).map_or_else(Traits::default, Machine::traits);
        traits.uuid = uuid.or(traits.uuid);
        state.owners.owner(hwaddr, &traits, &world.inventory).is_some()
    }

    /// The node whose mainboard has this UUID, as its firmware reported it.
    pub fn node_with_uuid(&self, uuid: Uuid) -> Option<String> {
        let world = self.shared.world.load();
        let node = self.shared.state().owners.node_of(uuid, &world.inventory)?;
        Some(node.name.clone())
    }

    /// Cards of a node that were seen and that the inventory does not name.
    pub fn further_cards(&self, node: &str) -> Vec<Owner> {
        let world = self.shared.world.load();
        let state = self.shared.state();
        let seen = state.machines().into_iter();
        seen.filter_map(|machine| state.owner(machine, &world.inventory))
            .filter(|owner| owner.node.name == node)
            .collect()
    }

    /// The text on the screen of a waiting machine in the subnet `network`. `told` is what its loader reports with this request; where
    /// another server does DHCP, nothing else may be known of the machine. Never waits for the disk.
    pub fn screen(&self, hwaddr: HwAddr, network: Ipv4Net, told: &LoaderReport, now: Timestamp) -> Screen {
        let world = self.shared.world.load();
        let state = self.shared.state();
        let machine = state.machine(hwaddr);
        let session = machine.and_then(|machine| state.session_of(machine, now));
        let next = session.map(|session| session.position(&world.site, &world.inventory));
        let mut remarks = Vec::from_iter(machine.and_then(|machine| state.trouble(machine, &world.inventory, now)));
        if let (Some(None), Some(session)) = (&next, session) {
            remarks.push(format!("rack {} is full", session.rack));
        }
        let full = state.full_pools(now).into_iter().find(|pool| pool.network == network);
        remarks.extend(full.map(|full| full.to_string()));
        Screen {
            forgotten: machine.is_none(),
            suggestion: next.flatten(),
            remarks,
            owner: {
                let known = machine.map_or_else(Traits::default, Machine::traits);
                state.owners.owner(hwaddr, &known.or(told), &world.inventory)
            },
        }
    }
}
