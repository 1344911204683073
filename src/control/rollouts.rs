//! The routes of current versions and rollouts.

use super::{
    Context, api,
    refusal::{Refusal, Shared, blocking},
    signed::{Asked, Signed},
};
use axum::{Json, extract::State};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;
use rackstrap_image::{KernelModules, missing_modules};
use rackstrap_registries::{
    boots::Boots,
    image_setting,
    rollout::{Rollout, RolloutError, Wish},
};
use std::collections::BTreeMap;

pub(super) async fn current(State(context): State<Shared>) -> Result<Json<Vec<api::CurrentVersion>>, Refusal> {
    let current = blocking(move || context.rollouts.current()).await?;
    Ok(Json(current.into_iter().map(api::CurrentVersion::from).collect()))
}

pub(super) async fn promote_image(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::PromoteImage>,
) -> Result<Json<api::CurrentVersion>, Refusal> {
    let promoted = move || context.rollouts.promote_image(&asked.image, &by, Timestamp::now());
    Ok(Json(blocking(promoted).await??.into()))
}

pub(super) async fn rename_image(
    State(context): State<Shared>,
    Asked(asked): Asked<api::RenameImage>,
) -> Result<Json<api::Done>, Refusal> {
    let renamed = move || context.rollouts.rename(&asked.into());
    blocking(renamed).await??;
    let message = String::new();
    Ok(Json(api::Done { message }))
}

pub(super) async fn roll_back(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::RollBack>,
) -> Result<Json<api::RolledBack>, Refusal> {
    let rolled_back = move || {
        let (current, ended, restarts) = context.rollouts.roll_back(&asked.name, &by, Timestamp::now())?;
        Ok::<_, RolloutError>(api::RolledBack {
            current: current.into(),
            ended,
            restarts: restarts.into(),
        })
    };
    Ok(Json(blocking(rolled_back).await??))
}

pub(super) async fn all(context: Shared, _: String) -> Result<api::RolloutsAnswer, Refusal> {
    let answer = blocking(move || {
        let now = Timestamp::now();
        let rollouts = context.rollouts.all().into_iter();
        api::RolloutsAnswer {
            now,
            current: (context.rollouts.current().into_iter())
                .map(api::CurrentVersion::from)
                .collect(),
            rollouts: rollouts.map(|rollout| row(rollout, &context.boots, now)).collect(),
        }
    });
    answer.await
}

/// How rollouts concern a node, one line for each: active ones of its image, and the reason if it rolled back.
pub(super) fn of_node(context: &Context, node: &str) -> Vec<String> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let mut lines = Vec::new();
    let found = world.inventory.iter().find(|one| one.name == node);
    let setting = found.and_then(|node| image_setting(&world, node));
    for rollout in context.rollouts.all() {
        let member = rollout.nodes.get(node);
        let (image, stage) = (&rollout.image, rollout.stage);
        let on = rollout.ended.is_none();
        let waits = match rollout.waits_for(now) {
            text if text.is_empty() => String::new(),
            text => format!("; it {}", text.trim_start_matches("it ")),
        };
        match member {
            Some(member) if on || member.state.is_failure() => {
                let why = match member.state.why() {
                    "" => String::new(),
                    why => format!(": {why}"),
                };
                let batch = match member.batch {
                    0 => "in its canary".to_owned(),
                    batch => format!("in its batch {batch}"),
                };
                let state = &member.state;
                lines.push(format!(
                    "rollout of {image} ({stage}): this node is {batch}, and {state}{why}{waits}"
                ));
            }
            // Nodes whose settings pin a version take no part in the rollout.
            None if on && setting.as_deref().is_some_and(|setting| pins(setting, &image.name)) => lines.push(format!(
                "rollout of {image} ({stage}): this node is left out, because its settings pin {}",
                setting.as_deref().unwrap_or_default()
            )),
            None if on && setting.as_deref() == Some(&image.name) => lines.push(format!(
                "rollout of {image} ({stage}): this node is not given it yet, and has {} until then{waits}",
                rollout.from
            )),
            _ => {}
        }
    }
    if let Some(trial) = world.assignments.trials.get(node) {
        let limit = world.site.limits.boots_before_going_back;
        lines.push(match (trial.rolled_back, limit) {
            (Some(_), _) => format!(
                "rolled back to {}: {}; to try it again: rackstrap rollout retry {node}",
                trial.last_known_good,
                trial.verdict()
            ),
            (None, limit) => {
                let of = match limit {
                    0 => String::new(),
                    limit => format!(
                        " of {limit}, after which this node rolls back to {}",
                        trial.last_known_good
                    ),
                };
                format!(
                    "boots of {} without being ready so far: {}{of}",
                    trial.image, trial.boots
                )
            }
        });
    }
    lines
}

fn row(mut rollout: Rollout, boots: &Boots, now: Timestamp) -> api::RolloutRow {
    let waits_for = rollout.waits_for(now);
    let nodes = std::mem::take(&mut rollout.nodes).into_iter();
    let nodes = nodes.map(|(node, member)| {
        let image = boots.current(&node).map(|boot| boot.image().clone());
        api::RolloutNode::of(node, member, image)
    });
    api::RolloutRow {
        nodes: nodes.collect(),
        waits_for,
        rollout: rollout.into(),
    }
}

pub(super) async fn begin(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::BeginRollout>,
) -> Result<Json<api::RolloutBegun>, Refusal> {
    let begun = move || {
        let wish = Wish::from(asked.wish);
        let rollout = context.rollouts.begin(&wish, &by, Timestamp::now())?.into();
        let mut warnings = lacking(&context, &wish);
        warnings.extend(left_out(&context, &wish.image.name));
        Ok::<_, RolloutError>(api::RolloutBegun { rollout, warnings })
    };
    Ok(Json(blocking(begun).await??))
}

/// Whether an image setting pins a version of that image.
fn pins(setting: &str, image: &str) -> bool {
    setting.split_once('@').is_some_and(|(name, _)| name == image)
}

/// The nodes that no batch of a rollout of that image gets, because they pin a version of it: one line for each version.
fn left_out(context: &Shared, image: &str) -> Vec<String> {
    let world = context.world.load_full();
    let mut pinned: BTreeMap<String, NodeSet> = BTreeMap::new();
    for node in world.inventory.iter() {
        if let Some(setting) = image_setting(&world, node).filter(|setting| pins(setting, image)) {
            pinned.entry(setting).or_default().insert(node.name.as_str());
        }
    }
    let lines = pinned.into_iter();
    lines
        .map(|(version, nodes)| format!("{nodes}: left out, because their settings pin {version}"))
        .collect()
}

/// Architectures of nodes at their last boots for which the version has no variant, and kernel modules that their hardware used then
/// and that the version lacks, with the nodes.
fn lacking(context: &Shared, wish: &Wish) -> Vec<String> {
    let world = context.world.load_full();
    let Some(version) = world.images.get(&wish.image) else {
        return Vec::new();
    };
    // Of each variant: its kernel's modules.
    let mut kernels: BTreeMap<String, KernelModules> = BTreeMap::new();
    let mut unknown = Vec::new();
    for variant in version.variants() {
        let name = variant.export_name();
        match KernelModules::read(variant) {
            Ok(kernel) => kernels.insert(variant.variant.clone(), kernel),
            Err(error) => {
                unknown.push(format!("which kernel modules {name} has is unknown: {error}"));
                None
            }
        };
    }
    let mut without: BTreeMap<String, NodeSet> = BTreeMap::new();
    let mut lacking: BTreeMap<String, NodeSet> = BTreeMap::new();
    for node in &wish.nodes {
        let boots = context.boots.of_node(node);
        let last = boots.iter().find_map(|boot| world.images.of_plan(&boot.plan));
        let machine = last.and_then(|variant| variant.architecture());
        let Some(variant) = version.variant_for(machine) else {
            let name = machine.map(|machine| machine.to_string()).unwrap_or_default();
            without.entry(name).or_default().insert(node.as_str());
            continue;
        };
        let Some(kernel) = kernels.get(&variant.variant) else {
            continue;
        };
        let hardware = boots.iter().find_map(|boot| boot.hardware.as_ref());
        for module in hardware
            .map(|hardware| missing_modules(hardware, kernel))
            .unwrap_or_default()
        {
            lacking.entry(module).or_default().insert(node.as_str());
        }
    }
    let line = |(module, nodes): (String, NodeSet)| {
        format!(
            "{} lacks the kernel module {module}, which hardware of {} needed at its last boot",
            wish.image,
            nodes.fold()
        )
    };
    let no_variant = without.into_iter().map(|(machine, nodes)| {
        format!(
            "{image} has no variant for {machine}, which {} had at its last boot; nodes without a variant do not boot; add it with: \
             rackstrap image import {image} --arch {machine} --from TREE",
            nodes.fold(),
            image = wish.image,
        )
    });
    no_variant.chain(unknown).chain(lacking.into_iter().map(line)).collect()
}

pub(super) async fn promote(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::RolloutOrder>,
) -> Result<Json<api::RolloutAnswer>, Refusal> {
    let image = asked.image;
    let done = move || {
        let rollouts = &context.rollouts;
        rollouts.promote(image.as_deref(), &asked.pace.into(), &by, Timestamp::now())
    };
    Ok(Json(blocking(done).await??.into()))
}

pub(super) async fn pause(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::RolloutOrder>,
) -> Result<Json<api::RolloutHeld>, Refusal> {
    let done = move || {
        let now = Timestamp::now();
        let (rollout, restarts) = context.rollouts.pause(asked.image.as_deref(), &by, now)?;
        Ok::<_, RolloutError>(api::RolloutHeld {
            rollout: rollout.into(),
            restarts: restarts.into(),
        })
    };
    Ok(Json(blocking(done).await??))
}

pub(super) async fn resume(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::RolloutOrder>,
) -> Result<Json<api::RolloutAnswer>, Refusal> {
    let limit = asked.pace.max_failures;
    let done = move || {
        let rollouts = &context.rollouts;
        rollouts.resume(asked.image.as_deref(), limit, &by, Timestamp::now())
    };
    Ok(Json(blocking(done).await??.into()))
}

pub(super) async fn abort(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::RolloutOrder>,
) -> Result<Json<api::RolloutHeld>, Refusal> {
    let done = move || {
        let now = Timestamp::now();
        let (rollout, restarts) = context.rollouts.abort(asked.image.as_deref(), &by, now)?;
        Ok::<_, RolloutError>(api::RolloutHeld {
            rollout: rollout.into(),
            restarts: restarts.into(),
        })
    };
    Ok(Json(blocking(done).await??))
}

pub(super) async fn retry(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::Retry>,
) -> Result<Json<Vec<String>>, Refusal> {
    let done = move || context.rollouts.retry(&asked.nodes, &by, Timestamp::now());
    Ok(Json(blocking(done).await??))
}
