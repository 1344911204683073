//! The routes of unknown machines and of racks that are being filled.

use super::{
    api::{self, SlotState},
    firmware,
    nodes::refuse_if_running,
    refusal::{Refusal, Shared, blocking},
    signed::{Asked, Signed},
};
use axum::{Json, extract::State};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{decide::World, inventory::Change};
use rackstrap_registries::{
    discovery::Filling,
    timeline::{NodeState, NodeStatus},
};

/// Positions after the next one that are shown.
const AHEAD: usize = 2;

pub(super) async fn view(context: Shared, _: String) -> Result<api::DiscoveryAnswer, Refusal> {
    let (world, now) = (context.world.load_full(), Timestamp::now());
    let view = context.discovery.view(now);
    let state = |node: &str| NodeStatus::of(&world, &context.recorder, &context.boots, node, now).state;
    Ok(api::DiscoveryAnswer {
        now,
        racks: view
            .sessions
            .iter()
            .map(|filling| elevation(&world, filling, state))
            .collect(),
        machines: (view.machines.iter())
            .map(|waiting| api::WaitingRow {
                no_loader: firmware::no_loader(&context, &waiting.machine).unwrap_or_default(),
                ..api::WaitingRow::from(waiting)
            })
            .collect(),
        sessions: view.sessions.iter().map(api::FillingRow::from).collect(),
        full: view.full,
        dropped: view.dropped,
    })
}

/// The rack of a session, from its lowest position to a few after the next one.
fn elevation(world: &World, filling: &Filling, state: impl Fn(&str) -> NodeState) -> api::Elevation {
    let (site, session) = (&world.site, &filling.session);
    let naming = &site.cluster.naming;
    let first = naming.position_in(&session.rack, None).ok();
    // A rack of one number may have tens of thousands of positions, of which few are shown.
    let nodes = world
        .inventory
        .iter()
        .filter(|node| naming.rack_of(&node.name) == session.rack);
    let mut left = nodes.count() + usize::from(filling.next.is_some());
    let mut ahead = AHEAD;
    let matters = |slot: &api::Slot| matches!(slot.what, SlotState::Node | SlotState::Next);
    let mut slots: Vec<api::Slot> = std::iter::successors(first, |name| naming.after(name))
        .map(|name| {
            let node = world.inventory.get(&name);
            let what = match node {
                Some(_) => SlotState::Node,
                None if filling.next.as_ref() == Some(&name) => SlotState::Next,
                None if session.skip.contains(&name) => SlotState::Skipped,
                None if site.cluster.address_of(&name).is_err() => SlotState::Reserved,
                None => SlotState::Free,
            };
            api::Slot {
                hwaddr: node.and_then(|node| node.hwaddrs.first().copied()),
                state: node.map(|node| state(&node.name)),
                new: session.placed.iter().any(|placed| placed.node == name),
                what,
                name,
            }
        })
        .take_while(|slot| {
            match (left, matters(slot)) {
                (0, _) if ahead == 0 => return false,
                (0, _) => ahead -= 1,
                (_, true) => left -= 1,
                (_, false) => {}
            }
            true
        })
        .collect();
    let end = slots.iter().rposition(matters).map_or(0, |last| last + 1 + AHEAD);
    slots.truncate(end);
    api::Elevation {
        rack: session.rack.clone(),
        slots,
    }
}

pub(super) async fn start(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::StartSession>,
) -> Result<Json<api::SessionRow>, Refusal> {
    let wanted = asked.wanted.into();
    let begun = blocking(move || context.discovery.begin(&wanted, &by, Timestamp::now())).await??;
    Ok(Json(api::SessionRow::from(&begun)))
}

pub(super) async fn stop(
    State(context): State<Shared>,
    Asked(asked): Asked<api::Rack>,
) -> Result<Json<api::SessionRow>, Refusal> {
    let ended = blocking(move || context.discovery.end(&asked.rack)).await??;
    Ok(Json(api::SessionRow::from(&ended)))
}

pub(super) async fn undo(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::Rack>,
) -> Result<Json<api::PlacedRow>, Refusal> {
    if let (false, Some(name)) = (asked.running, context.discovery.last_placed(&asked.rack)) {
        refuse_if_running(&context, &[Change::Delete { name }])?;
    }
    let undone = blocking(move || context.discovery.undo(&asked.rack, &by, Timestamp::now())).await??;
    Ok(Json(api::PlacedRow::from(&undone)))
}

pub(super) async fn accept(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::Accept>,
) -> Result<Json<api::Accepted>, Refusal> {
    let node = blocking(move || {
        let name = asked.node.as_deref();
        context
            .discovery
            .accept(asked.hwaddr, name, asked.replace, &by, Timestamp::now())
    })
    .await??;
    Ok(Json(api::Accepted { node }))
}

pub(super) async fn ignore(
    State(context): State<Shared>,
    Asked(asked): Asked<api::Ignore>,
) -> Result<Json<api::Done>, Refusal> {
    blocking(move || context.discovery.ignore(asked.hwaddr, asked.ignored)).await??;
    let message = match asked.ignored {
        true => format!("{} is ignored", asked.hwaddr),
        false => format!("{} is no longer ignored", asked.hwaddr),
    };
    Ok(Json(api::Done { message }))
}
