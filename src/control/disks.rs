//! The routes of nodes' disks: their state, and orders for the next boots.

use super::{
    api,
    refusal::{OfNodes, Refusal, Shared, blocking, broken},
    signed::Signed,
};
use axum::{Json, extract::State, http::StatusCode};
use rackstrap_base::{clock::Timestamp, text::quoted};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::{
    decide::World,
    disks::{DiskEffect, DiskTrouble, DiskWish, EffectKind},
    inventory::{Changed, Node, Settings, find},
};
use rackstrap_registries::timeline::{Event, EventKind, Level, Subject};
use rackstrap_wire::FileSystem;

pub(super) async fn list(State(context): State<Shared>) -> Json<Vec<api::DiskRow>> {
    let world = context.world.load_full();
    let rows = world.inventory.iter().map(|node| api::DiskRow {
        disk: context.boots.disks().get(&node.name).map(api::NodeDiskRow::from),
        held: (context.boots.disks().next_effect(world.disk_rules(), node))
            .filter(|effect| effect.kind == EffectKind::Held),
        node: api::NodeRow::from(&**node),
    });
    Json(rows.collect())
}

/// Warnings about a node's disk: data that its next boot loses, and the command that corrects what keeps the node from using
/// its disk.
pub(super) fn warnings(context: &Shared, world: &World, node: &Node) -> Vec<String> {
    let disk = context.boots.disks().get(&node.name);
    let effect = context.boots.disks().next_effect(world.disk_rules(), node);
    let effect = effect.map(|effect| effect.to_string());
    let trouble = disk.as_ref().and_then(DiskTrouble::of);
    let remedy = trouble.map(|trouble| trouble.remedy(&node.name));
    effect.into_iter().chain(remedy).collect()
}

/// The effects of a change of nodes' profiles on their disks at the next boots, because the layout belongs to the profile.
pub(super) fn effects_of(context: &Shared, changed: &[Changed]) -> Vec<DiskEffect> {
    let world = context.world.load_full();
    let effects = changed.iter().filter_map(|changed| {
        let (before, after) = (changed.before.as_ref()?, changed.after.as_ref()?);
        let disk = context.boots.disks().get(&before.name)?;
        let effect = |node| {
            context
                .boots
                .disks()
                .next_effect_on(world.disk_rules(), node, Some(&disk))
        };
        effect(after).filter(|after| effect(before).is_none_or(|before| before.to_string() != after.to_string()))
    });
    effects.collect()
}

pub(super) async fn wish(
    State(context): State<Shared>,
    Signed { mut asked, by }: Signed<api::WishDisks>,
) -> Result<Json<api::Done>, Refusal> {
    let wish = DiskWish::from(asked.wish);
    asked.nodes.sort();
    asked.nodes.dedup();
    let message = blocking(move || {
        let now = Timestamp::now();
        // If the name were given up meanwhile, the order would remain for the next machine with that name.
        let withdrawn = context.nodes.while_unchanged(|inventory| {
            for node in &asked.nodes {
                find(inventory, node)?;
            }
            lacking_partitions(&context.world.load(), &asked.nodes, &asked.partitions)?;
            let disks = context.boots.disks();
            disks
                .wish_of(&asked.nodes, wish, &asked.partitions, &by, now)
                .map_err(broken)
        })?;
        // A node that boots again gets a repeated order again.
        let late = withdrawn.iter().filter(|(node, order)| {
            !matches!(wish, DiskWish::Prepare { .. }) && context.boots.has_order(node, order.id)
        });
        let late: NodeSet = late.map(|(node, _)| node.as_str()).collect();
        let had: NodeSet = withdrawn.iter().map(|(node, _)| node.as_str()).collect();
        let said = match wish {
            DiskWish::Cancel => cancelled(&asked.nodes, &had),
            wish if asked.partitions.is_empty() => describe(wish).to_owned(),
            _ => format!(
                "the next boot makes the file system of {} again",
                asked.partitions.join(", ")
            ),
        };
        // If there was no order, nothing was changed.
        let touched = |node: &&String| wish != DiskWish::Cancel || had.contains(node);
        for node in asked.nodes.iter().filter(touched) {
            let (level, detail) = match late.contains(node) {
                true => (Level::Error, format!("{TOO_LATE} (by {by})")),
                false => (Level::Ok, format!("{said} (by {by})")),
            };
            let event = Event::new(now, EventKind::Reprep, level, detail);
            context.recorder.record(Subject::Node(node.clone()), event);
        }
        match late.is_empty() {
            true => Ok(said),
            false => Err(Refusal(
                StatusCode::CONFLICT,
                format!("{}: {TOO_LATE}; for all others: {said}", late.fold()),
            )),
        }
    })
    .await??;
    Ok(Json(api::Done { message }))
}

/// Refuses an order about partitions that the layouts of some of the nodes do not have, or that have no file system.
fn lacking_partitions(world: &World, nodes: &[String], partitions: &[String]) -> Result<(), Refusal> {
    let mut problems = OfNodes::default();
    for name in nodes.iter().filter(|_| !partitions.is_empty()) {
        let node = find(&world.inventory, name)?;
        let settings = Settings::of_node(&world.site, node, |_| ());
        let layout = settings
            .text(|p| &p.layout)
            .and_then(|name| world.site.layouts.get(name));
        let Some(policy) = layout else {
            let text = "it has no disk layout, so its disk is left alone".to_owned();
            problems.add(text, name);
            continue;
        };
        let layout = &policy.layout;
        let is_encrypted = |name: &String| {
            rackstrap_wire::content_of(&policy.contents, name).is_some_and(|content| content.encrypt.is_some())
        };
        if let Some(partition) = partitions.iter().find(|name| is_encrypted(name)) {
            let text = format!(
                "the file system of {} in layout {} is encrypted and made at each boot: restart the node instead",
                quoted(partition, 40),
                layout.name
            );
            problems.add(text, name);
            continue;
        }
        let made = layout
            .partitions
            .iter()
            .filter(|partition| partition.fs != FileSystem::Raw);
        let made: Vec<&str> = made.map(|partition| partition.name.as_str()).collect();
        if let Some(partition) = partitions.iter().find(|name| !made.contains(&name.as_str())) {
            let text = format!(
                "layout {} has no partition {} with a file system; it has {}",
                layout.name,
                quoted(partition, 40),
                made.join(", ")
            );
            problems.add(text, name);
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, problems.lines().join("\n"))),
    }
}

/// The message if a node carries out the order that was cancelled.
const TOO_LATE: &str = "the earlier order stays in force: the node has fetched it, and prepares its disk in this boot";

/// The message about cancelled orders of `nodes`; nodes in `had` had one (pure).
fn cancelled(nodes: &[String], had: &NodeSet) -> String {
    let then = describe(DiskWish::Cancel);
    let without: NodeSet = nodes
        .iter()
        .map(String::as_str)
        .filter(|node| !had.contains(node))
        .collect();
    match (had.is_empty(), without.is_empty()) {
        (true, _) => format!("there was no order to cancel; {then}"),
        (false, true) => format!("the order is cancelled; {then}"),
        (false, false) => format!("the order for {had} is cancelled, {without} had none; {then}"),
    }
}

fn describe(wish: DiskWish) -> &'static str {
    match wish {
        DiskWish::NewDisk { wipe_foreign: false } => "the next boot uses the disk that is there",
        DiskWish::NewDisk { wipe_foreign: true } => {
            "the next boot uses the disk that is there and prepares it, even if it holds data that rackstrap did not write"
        }
        DiskWish::Prepare { wipe_foreign: false } => "the next boot prepares the disk again",
        DiskWish::Prepare { wipe_foreign: true } => {
            "the next boot prepares the disk again, even if it holds data that rackstrap did not write"
        }
        DiskWish::Cancel => "the next boot treats the disk as the layout says",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_says_whether_there_was_an_order() {
        let nodes = ["r01n01".to_owned(), "r01n02".to_owned()];
        let said = |had: &[&str]| cancelled(&nodes, &had.iter().copied().collect());
        let then = "the next boot treats the disk as the layout says";
        assert_eq!(said(&[]), format!("there was no order to cancel; {then}"));
        assert_eq!(said(&["r01n01", "r01n02"]), format!("the order is cancelled; {then}"));
        assert_eq!(
            said(&["r01n01"]),
            format!("the order for r01n01 is cancelled, r01n02 had none; {then}")
        );
    }
}
