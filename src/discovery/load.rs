//! What the waiting room begins with: machines and racks from the store, and what nodes said of themselves at their boots.

use super::{
    floor::Floor,
    kin::Traits,
    machine::Machine,
    session::{Session, Sessions},
};
use crate::boots::Boots;
use rackstrap_model::decide::SharedWorld;
use rackstrap_store::{Store, StoreError, Table};
use uuid::Uuid;

/// What the disk has of machines that wait and of racks that are being filled.
pub(super) fn load(world: &SharedWorld, store: &Store, boots: &Boots) -> Result<Floor, StoreError> {
    let machines = store.scan::<Machine>(Table::Machines, b"")?;
    let sessions = store.scan::<Session>(Table::Sessions, b"")?;
    let world = world.load();
    let mut floor = Floor::new(
        machines.into_iter().map(|(_, machine)| machine).collect(),
        sessions
            .into_iter()
            .map(|(_, s)| (s.rack.clone(), s))
            .collect::<Sessions>(),
        world.site.limits.unknown_machines,
    );
    let placed = floor.sessions.values().flat_map(|session| &session.placed);
    for placed in placed.cloned().collect::<Vec<_>>() {
        floor.kin.learn(placed.machine.hwaddr, &placed.machine.traits());
    }
    for boot in world.inventory.iter().flat_map(|node| boots.of_node(&node.name)) {
        let hwaddr = boot.plan.net.hwaddr;
        floor.kin.learn(hwaddr, &of_uuid(boot.uuid));
        if let Some(hardware) = &boot.hardware {
            floor.kin.learn_hardware(hwaddr, hardware);
        }
    }
    Ok(floor)
}

/// A machine of which no more is known than its UUID.
pub(super) fn of_uuid(uuid: Option<Uuid>) -> Traits {
    Traits {
        uuid,
        ..Traits::default()
    }
}
