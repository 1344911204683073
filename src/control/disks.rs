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
use rackstrap_registries::{
    boots::Parts,
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_site::LayoutPolicy;
use rackstrap_wire::{FileSystem, content_of};

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
            let parts = Parts {
                layouts: asked.layouts.clone(),
                partitions: asked.partitions.clone(),
            };
            if wish != DiskWish::Cancel {
                lacking(&context.world.load(), &asked.nodes, &parts)?;
            }
            let disks = context.boots.disks();
            disks.wish_of(&asked.nodes, wish, &parts, &by, now).map_err(broken)
        })?;
        // A node that boots again gets a repeated order again.
        let late = withdrawn.iter().filter(|(node, order)| {
            !matches!(wish, DiskWish::Prepare { .. }) && context.boots.has_order(node, order.id)
        });
        let late: NodeSet = late.map(|(node, _)| node.as_str()).collect();
        let had: NodeSet = withdrawn.iter().map(|(node, _)| node.as_str()).collect();
        let said = match wish {
            DiskWish::Cancel => cancelled(&asked.nodes, &had),
            wish if asked.partitions.is_empty() => match asked.layouts.as_slice() {
                [] => describe(wish).to_owned(),
                names => format!("{} (layout {})", describe(wish), names.join(", ")),
            },
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

/// Refuses an order about layouts and partitions that some of the nodes do not have, or that have no file system, and an order for a whole
/// disk of a node with several layouts that does not say which one.
fn lacking(world: &World, nodes: &[String], parts: &Parts) -> Result<(), Refusal> {
    let mut problems = OfNodes::default();
    for name in nodes {
        let node = find(&world.inventory, name)?;
        let settings = Settings::of_node(&world.site, node, |_| ());
        let names = settings.text(|p| &p.layout).unwrap_or_default();
        let layouts: Vec<&LayoutPolicy> = world.site.layouts_of(names).collect();
        if let Some(text) = lacks(&layouts, parts) {
            problems.add(text, name);
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, problems.lines().join("\n"))),
    }
}

/// Why a node with these layouts cannot have an order about `parts`; none if it can (pure).
fn lacks(layouts: &[&LayoutPolicy], parts: &Parts) -> Option<String> {
    let Parts {
        layouts: wanted,
        partitions,
    } = parts;
    let asked = !wanted.is_empty() || !partitions.is_empty();
    if layouts.is_empty() {
        return asked.then(|| "it has no disk layout, so its disk is left alone".to_owned());
    }
    let names: Vec<&str> = layouts.iter().map(|policy| policy.layout.name.as_str()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        return Some(format!(
            "it has no layout {}; it has {}",
            quoted(unknown, 40),
            names.join(", ")
        ));
    }
    if let ([_, second, ..], false) = (names.as_slice(), asked) {
        return Some(format!(
            "it has the layouts {}, each with a disk of its own; name the disk that you mean, such as: --layout {second}",
            names.join(", ")
        ));
    }
    let is_meant = |policy: &&&LayoutPolicy| wanted.is_empty() || wanted.contains(&policy.layout.name);
    for policy in layouts.iter().filter(is_meant) {
        let content = |name: &String| content_of(&policy.contents, name);
        let is_encrypted = |name: &&String| content(name).is_some_and(|content| content.encrypt.is_some());
        if let Some(partition) = partitions.iter().find(is_encrypted) {
            return Some(format!(
                "the file system of {} in layout {} is encrypted and made at each boot: restart the node instead",
                quoted(partition, 40),
                policy.layout.name
            ));
        }
    }
    let made = layouts
        .iter()
        .filter(is_meant)
        .flat_map(|policy| &policy.layout.partitions);
    let made = made.filter(|partition| partition.fs != FileSystem::Raw);
    let made: Vec<&str> = made.map(|partition| partition.name.as_str()).collect();
    let unknown = partitions.iter().find(|name| !made.contains(&name.as_str()))?;
    Some(format!(
        "layout {} has no partition {} with a file system; it has {}",
        names.join(", "),
        quoted(unknown, 40),
        made.join(", ")
    ))
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
    use rackstrap_wire::{ContentOf, Encryption};

    #[test]
    fn an_order_for_a_node_with_several_layouts_says_which_disk_it_means() {
        let layout = |name: &str, partition: &str| -> LayoutPolicy {
            let text = format!(
                "{{\"layout\":{{\"name\":\"{name}\",\"version\":1,\"table\":\"gpt\",\"partitions\":[\
                 {{\"name\":\"{partition}\",\"size\":\"rest\",\"fs\":\"ext4\"}}]}},\"digest\":\"\",\"wipe\":\"ours\"}}"
            );
            serde_json::from_str(&text).unwrap()
        };
        let (scratch, data) = (layout("scratch", "tmp"), layout("data", "data"));
        let both = [&scratch, &data];
        let parts = |layouts: &[&str], partitions: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
            Parts {
                layouts: owned(layouts),
                partitions: owned(partitions),
            }
        };
        let none = parts(&[], &[]);
        let mut encrypted = scratch.clone();
        encrypted.contents.push(ContentOf {
            encrypt: Some(Encryption::BootKey),
            ..ContentOf::new("tmp")
        });
        let said = lacks(&[&encrypted, &data], &parts(&[], &["tmp"])).unwrap();
        assert!(said.contains("restart the node instead"), "{said}");
        assert_eq!((lacks(&[], &none), lacks(&[&scratch], &none)), (None, None));
        let said = lacks(&both, &none).unwrap();
        assert!(
            said.contains("scratch, data") && said.contains("--layout data"),
            "{said}"
        );
        for right in [
            parts(&["data"], &[]),
            parts(&["data", "scratch"], &[]),
            parts(&[], &["data"]),
        ] {
            assert_eq!(lacks(&both, &right), None);
        }
        let unknown = lacks(&both, &parts(&["date"], &[])).unwrap();
        assert!(unknown.contains("no layout date"), "{unknown}");
        assert!(
            lacks(&both, &parts(&["scratch"], &["data"]))
                .unwrap()
                .contains("no partition data")
        );
        assert!(lacks(&[], &parts(&["data"], &[])).unwrap().contains("no disk layout"));
    }

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
