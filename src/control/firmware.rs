//! What the firmware of machines reported, and the boot loader that it gets.

use super::{Context, api, refusal::Shared};
use axum::{Json, extract::State};
use rackstrap_base::{
    clock::Timestamp,
    firmware::{Firmware, name},
};
use rackstrap_model::decide::{Decision, Requester, decide};
use rackstrap_registries::discovery::Machine;
use rackstrap_wire::HwAddr;

/// What the firmware of that card reported last; none if it was never heard of.
pub(super) fn of(context: &Context, hwaddr: HwAddr) -> Option<Firmware> {
    context.firmware.said(hwaddr).or_else(|| {
        let view = context.discovery.view(Timestamp::now());
        let mut machines = view.machines.into_iter().map(|waiting| waiting.machine);
        machines
            .find(|machine| machine.hwaddr == hwaddr)
            .map(|machine| reported(&machine))
    })
}

/// Why the firmware of an unknown machine gets no loader; none if it gets one, or if only iPXE or a system was heard of.
pub(super) fn no_loader(context: &Context, machine: &Machine) -> Option<String> {
    if !machine.booting {
        return None;
    }
    row(context, None, machine.hwaddr, reported(machine)).problem
}

/// The step of an explanation that says that the file of the chosen loader does not exist. That no loader is made for the firmware is a step
/// of the decision itself.
pub(super) fn missing_file(context: &Context, requester: &Requester, decision: &Decision) -> Option<String> {
    if requester.class.is_empty() {
        return None;
    }
    decision.loader().as_ref().ok()?;
    let problem = context.loaders.load().offer(requester.arch, decision.loader()).err()?;
    Some(format!("its firmware gets nothing to boot: {problem}"))
}

/// `GET /v1/firmware`
pub(super) async fn list(State(context): State<Shared>) -> Json<Vec<api::FirmwareRow>> {
    let world = context.world.load_full();
    let cards = world
        .inventory
        .iter()
        .flat_map(|node| node.hwaddrs.iter().map(move |card| (node, *card)));
    let of_nodes = cards.filter_map(|(node, card)| Some((Some(node.name.clone()), card, context.firmware.said(card)?)));
    let waiting = context.discovery.view(Timestamp::now()).machines.into_iter();
    let unknown = waiting
        .map(|waiting| waiting.machine)
        .filter(|machine| machine.booting && !machine.ignored)
        .map(|machine| (None, machine.hwaddr, reported(&machine)));
    let all = of_nodes.chain(unknown);
    Json(all.map(|(node, card, said)| row(&context, node, card, said)).collect())
}

fn reported(machine: &Machine) -> Firmware {
    Firmware {
        arch: machine.arch,
        class: machine.class.clone(),
    }
}

fn row(context: &Context, node: Option<String>, hwaddr: HwAddr, said: Firmware) -> api::FirmwareRow {
    let requester = Requester {
        hwaddr: Some(hwaddr),
        arch: said.arch,
        class: said.class.clone(),
        ..Requester::default()
    };
    let mut row = api::FirmwareRow {
        node,
        hwaddr,
        arch: said.arch,
        firmware: said.arch.map(name).unwrap_or_default(),
        vendor_class: said.class,
        loader: None,
        file: None,
        problem: None,
    };
    // All firmware has a vendor class. Without one only iPXE was heard of, in the ROM of a card: it gets its script, and no loader.
    if !row.vendor_class.is_empty() {
        let decision = decide(&context.world.load(), &requester);
        let offered = context.loaders.load().offer(row.arch, decision.loader());
        row.loader = decision.loader().as_ref().ok().map(|choice| choice.name.clone());
        row.file = offered.as_ref().ok().filter(|file| !file.is_empty()).cloned();
        row.problem = offered.err();
    }
    row
}
