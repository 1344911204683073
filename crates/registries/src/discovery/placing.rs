//! Which machine becomes which node, and the resulting change of the inventory (pure).

use super::{machine::Machine, session::Session, state::RackingState, task::DiscoveryError};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    decide::World,
    inventory::{Change, NewNode, Patch},
};
use rackstrap_wire::HwAddr;

/// A machine and the node that it becomes.
pub(super) struct Placing {
    pub machine: Machine,
    pub node: String,
    /// The session that places it; none if it is placed by hand outside of a session.
    pub session: Option<Session>,
    /// Whether the node exists, and gets this machine.
    pub replace: bool,
}

impl Placing {
    /// The change of the inventory.
    pub fn change(&self) -> Change {
        let hwaddrs = vec![self.machine.hwaddr];
        if self.replace {
            return Change::Set {
                name: self.node.clone(),
                patch: Patch {
                    hwaddrs: Some(hwaddrs),
                    ..Patch::default()
                },
            };
        }
        let session = self.session.as_ref();
        Change::Add(NewNode {
            name: self.node.clone(),
            hwaddrs,
            profiles: session.map(|session| session.profiles.clone()).unwrap_or_default(),
            groups: session.map(|session| session.groups.clone()).unwrap_or_default(),
            attributes: Default::default(),
            settings: Default::default(),
        })
    }
}

/// The placement when an administrator accepts a machine, or why it is refused (pure).
pub(super) fn accepted(
    state: &RackingState,
    world: &World,
    hwaddr: HwAddr,
    name: Option<&str>,
    replace: bool,
    now: Timestamp,
) -> Result<Placing, DiscoveryError> {
    let Some(machine) = state.machine(hwaddr).cloned() else {
        return Err(DiscoveryError::Refused(match world.inventory.by_hwaddr(hwaddr) {
            Some(node) => format!("{hwaddr} is already {}", node.name),
            None => format!(
                "{hwaddr} is not waiting to be racked; to list the machines that are: rackstrap discover list; to \
                 add a node before it is seen: rackstrap node add NAME --hwaddr {hwaddr}"
            ),
        }));
    };
    if let (Some(node), false) = (name.and_then(|name| world.inventory.get(name)), replace) {
        let cards: Vec<String> = node.hwaddrs.iter().map(|card| format!("--hwaddr {card}")).collect();
        return Err(DiscoveryError::Refused(format!(
            "node {0} already exists; to give it this machine instead of its present one: rackstrap discover accept {hwaddr} {0} \
             --replace; if this is a further card of it: rackstrap node set {0} {1} --hwaddr {hwaddr}",
            node.name,
            cards.join(" ")
        )));
    }
    if let (None, Some(owner)) = (name, state.owner(&machine, &world.inventory)) {
        return Err(DiscoveryError::Refused(format!(
            "{hwaddr} is {owner}: {}; if it is another machine, name its node: rackstrap discover accept {hwaddr} NAME",
            owner.remedy()
        )));
    }
    let session = state.session_of(&machine, now).or_else(|| {
        // A machine that waited before the session began is not placed automatically; here an administrator orders it.
        let covers = |session: &&Session| session.is_on(now) && session.covers(&machine.place);
        state.sessions.values().find(covers).filter(|_| name.is_none())
    });
    let session = session.cloned();
    let (node, session) = match (name, session) {
        (Some(name), session) => {
            let next = session.as_ref().and_then(|s| s.position(&world.site, &world.inventory));
            // It is placed by hand in the session's next position, so the session continues after it.
            let session = session.filter(|_| next.as_deref() == Some(name));
            (name.to_owned(), session)
        }
        (None, Some(session)) => match session.position(&world.site, &world.inventory) {
            Some(next) => (next, Some(session)),
            None => return Err(DiscoveryError::Refused(format!("rack {} is full", session.rack))),
        },
        (None, None) => {
            return Err(DiscoveryError::Refused(format!(
                "no rack that is being filled matches {hwaddr}; name a node: rackstrap discover accept {hwaddr} NAME"
            )));
        }
    };
    Ok(Placing {
        machine,
        node,
        session,
        replace,
    })
}
