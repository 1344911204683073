//! The state of discovery at the start of the daemon: machines and racks from the store, and what nodes reported at their
//! boots.

use super::{
    machine::Machine,
    owners::Traits,
    session::{Session, Sessions},
    state::RackingState,
};
use crate::boots::Boots;
use rackstrap_model::decide::SharedWorld;
use rackstrap_store::{Store, StoreError, Table};
use uuid::Uuid;

/// Reads waiting machines and racks that are being filled from the store.
pub(super) fn load(world: &SharedWorld, store: &Store, boots: &Boots) -> Result<RackingState, StoreError> {
    let machines = store.scan::<Machine>(Table::Machines, b"")?;
    let sessions = store.scan::<Session>(Table::Sessions, b"")?;
    let world = world.load();
    let mut state = RackingState::new(
        machines.into_iter().map(|(_, machine)| machine).collect(),
        sessions
            .into_iter()
            .map(|(_, s)| (s.rack.clone(), s))
            .collect::<Sessions>(),
        world.site.limits.unknown_machines,
    );
    let placed = state.sessions.values().flat_map(|session| &session.placed);
    for placed in placed.cloned().collect::<Vec<_>>() {
        state.owners.learn(placed.machine.hwaddr, &placed.machine.traits());
    }
    for boot in world.inventory.iter().flat_map(|node| boots.of_node(&node.name)) {
        let hwaddr = boot.plan.net.hwaddr;
        state.owners.learn(hwaddr, &of_uuid(boot.uuid));
        if let Some(hardware) = &boot.hardware {
            state.owners.learn_hardware(hwaddr, hardware);
        }
    }
    Ok(state)
}

/// The traits of a machine of which only the UUID is known.
pub(super) fn of_uuid(uuid: Option<Uuid>) -> Traits {
    Traits {
        uuid,
        ..Traits::default()
    }
}
