//! The orders of administrators. When an order returns, it is on disk and visible to decisions, or nothing has changed. Each
//! order blocks for a disk flush.

use super::{
    error::{RolloutError, refuse},
    ledger::Ledger,
    task::Rollouts,
};
use crate::{observed::setting, restart::Withdrawn};
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::Catalog;
use rackstrap_lifecycle::{
    Level, Observed,
    rollout::{Happened, Pace, Rollout, Stage, Wish, shown},
};
use rackstrap_model::{
    decide::{Current, RenameStep, Renaming, World},
    inventory::find,
};
use rackstrap_store::StoreError;
use rackstrap_wire::ImageRef;
use std::collections::BTreeMap;

/// The shortest time that a node may be given to get ready, in seconds. A shorter time is a typing error, and would stop
/// every rollout.
const SOONEST_SECS: u64 = 10;

impl Rollouts {
    /// Makes the newest version of each new image its current version.
    ///
    /// # Errors
    /// Those of the store.
    pub fn see(&self, images: &Catalog, now: Timestamp) -> Result<(), StoreError> {
        self.shared.change(|ledger, _| {
            for version in images.iter() {
                let name = &version.manifest.image.name;
                if !ledger.current.contains_key(name)
                    && let Some(newest) = images.newest(name)
                {
                    ledger.set_current(Current::first(newest.manifest.image.clone(), "the first one", now));
                }
            }
            Ok(())
        })
    }

    /// The current versions, by image name.
    pub fn current(&self) -> Vec<Current> {
        self.shared.ledger().current.values().cloned().collect()
    }

    /// All remembered rollouts, the newest last. Of ended rollouts, only the last one of each image has its nodes.
    pub fn all(&self) -> Vec<Rollout> {
        self.shared.ledger().rollouts.values().cloned().collect()
    }

    /// Gives a version to all nodes of its image at their next boots.
    ///
    /// # Errors
    /// The version does not exist, is current, or the image is being rolled out.
    pub fn promote_image(&self, image: &ImageRef, by: &str, now: Timestamp) -> Result<Current, RolloutError> {
        self.order(|ledger, world| {
            expect_version(&world.images, image)?;
            if let Some(rollout) = ledger.on(&image.name) {
                return refuse(format!(
                    "{}; to give {} to the rest: rackstrap rollout promote {}; to end it: rackstrap rollout abort {}",
                    busy(rollout),
                    rollout.image,
                    image.name,
                    image.name
                ));
            }
            let next = match ledger.current.get(&image.name) {
                Some(current) if current.image == *image => {
                    return refuse(format!("{image} is already the current version"));
                }
                Some(current) => current.promoted(image.version, by, now),
                None => Current::first(image.clone(), by, now),
            };
            ledger.set_current(next.clone());
            Ok(next)
        })
    }

    /// Renames an image.
    ///
    /// # Errors
    /// A rollout of the image is active, or another image has the new name.
    pub fn rename(&self, renaming: &Renaming) -> Result<(), RolloutError> {
        self.order(|ledger, world| {
            // The name is checked only before the directory is renamed. Afterwards the image with the new name is the renamed
            // one.
            if renaming.step == RenameStep::Begin && world.images.newest(&renaming.new).is_some() {
                return refuse(format!("the name {} is taken: it is an image", renaming.new));
            }
            ledger.rename(renaming).map_err(RolloutError::Refused)
        })
    }

    /// Makes the version before the current one current again. If a rollout is active, ends it instead, so that all nodes get
    /// the current version. Returns the current version, the rollout that was ended, and what happens to its restarts.
    ///
    /// # Errors
    /// There is no earlier version.
    pub fn roll_back(
        &self,
        name: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(Current, Option<ImageRef>, Withdrawn), RolloutError> {
        let before = self.shared.restarts.list();
        let (current, ended) = self.order(|ledger, world| {
            let current = expect_current(ledger, name)?.clone();
            let last = ledger.last_of(name).map(|r| (r.number, r.image.clone(), r.stage));
            if let Some((number, image, Stage::Canary | Stage::Promoting)) = last {
                end(ledger, number, Stage::RolledBack, by, now)?;
                return Ok((current, Some(image)));
            }
            let there = |image: &ImageRef| world.images.get(image).is_some();
            let Some(next) = current.rolled_back(there, by, now) else {
                return refuse(format!(
                    "{}: no version was current before it, or none of those exists any more; choose one of rackstrap image \
                     list: rackstrap image promote {name}@VERSION",
                    current.image
                ));
            };
            if let Some((number, image, Stage::Done)) = last
                && image == current.image
            {
                ledger.change(number, |rollout| {
                    rollout.stage = Stage::RolledBack;
                    rollout.ended = Some(now);
                    let what = format!("rolled back to {}, by {by}", next.image);
                    rollout.remark_that(Happened::TakenBack, what, now);
                });
            }
            ledger.set_current(next.clone());
            Ok((next, None))
        })?;
        let withdrawn = Withdrawn::between(name, &before, &self.shared.restarts.list());
        Ok((current, ended, withdrawn))
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// The problem of the request.
    pub fn begin(&self, wish: &Wish, by: &str, now: Timestamp) -> Result<Rollout, RolloutError> {
        self.order(|ledger, world| {
            let (image, name) = (&wish.image, wish.image.name.as_str());
            expect_version(&world.images, image)?;
            if let Some(rollout) = ledger.on(name) {
                return refuse(format!(
                    "{}; one rollout an image at a time: {} rackstrap rollout {} {name}, or end it with rackstrap \
                     rollout abort {name}",
                    busy(rollout),
                    if rollout.is_held() { "go on with" } else { "give it to the rest with" },
                    if rollout.is_held() { "resume" } else { "promote" },
                ));
            }
            if wish.ready_within_secs < SOONEST_SECS {
                return refuse(format!(
                    "no node is ready {} s after its kernel began to boot; write --ready-within {SOONEST_SECS}s or more",
                    wish.ready_within_secs
                ));
            }
            let current = expect_current(ledger, name)?.image.clone();
            if current == *image {
                return refuse(format!("{image} is already the current version: there is nothing to roll out"));
            }
            expect_followers(world, &wish.nodes, name)?;
            let audience = self.shared.audience(world, [name].into(), now);
            let unknown = Observed::default();
            let observe = |node: &str| audience.get(node).map_or(&unknown, |node| &node.observed);
            let mut rollout = Rollout::begin(wish, ledger.next_number(), &current, observe, by, now);
            rollout.all = audience.len();
            rollout.count();
            for node in rollout.nodes.keys() {
                // Earlier failures of the node on this version are forgotten.
                ledger.set_trial(node, None);
                ledger.tell(node, Level::Ok, format!("given {image} ({})", rollout.batch_name(0)));
            }
            ledger.add(rollout.clone());
            Ok(rollout)
        })
    }

    /// Gives the version of a rollout to all other nodes, batch by batch.
    ///
    /// # Errors
    /// The rollout does not exist, or is paused or stopped.
    pub fn promote(&self, image: Option<&str>, pace: &Pace, by: &str, now: Timestamp) -> Result<Rollout, RolloutError> {
        self.of_rollout(image, |rollout| rollout.promote(pace, by, now))
    }

    /// Pauses a rollout: no further nodes get its version, and restarts for it are cancelled.
    ///
    /// # Errors
    /// The rollout does not exist, or is paused.
    pub fn pause(&self, image: Option<&str>, by: &str, now: Timestamp) -> Result<(Rollout, Withdrawn), RolloutError> {
        self.holding(|| self.of_rollout(image, |rollout| rollout.pause(by, now)))
    }

    /// Pauses or ends a rollout; also returns what happens to its restarts.
    fn holding(
        &self,
        order: impl FnOnce() -> Result<Rollout, RolloutError>,
    ) -> Result<(Rollout, Withdrawn), RolloutError> {
        let before = self.shared.restarts.list();
        let rollout = order()?;
        let withdrawn = Withdrawn::between(&rollout.image.name, &before, &self.shared.restarts.list());
        Ok((rollout, withdrawn))
    }

    /// Continues a rollout.
    ///
    /// # Errors
    /// The rollout does not exist, is not paused or stopped, or would stop again at once.
    pub fn resume(
        &self,
        image: Option<&str>,
        max_failures: Option<u32>,
        by: &str,
        now: Timestamp,
    ) -> Result<Rollout, RolloutError> {
        self.of_rollout(image, |rollout| rollout.resume(max_failures, by, now))
    }

    /// Ends a rollout: its nodes return to the version before at their next boots, and restarts for it are cancelled.
    ///
    /// # Errors
    /// The rollout does not exist.
    pub fn abort(&self, image: Option<&str>, by: &str, now: Timestamp) -> Result<(Rollout, Withdrawn), RolloutError> {
        let abort = |ledger: &mut Ledger, _: &World| {
            let number = meant(ledger, image)?;
            end(ledger, number, Stage::Aborted, by, now)?;
            ledger
                .rollouts
                .get(&number)
                .cloned()
                .map_or_else(|| refuse("it went away"), Ok)
        };
        self.holding(|| self.order(abort))
    }

    /// Lets nodes try a version again that failed on them. Returns these nodes.
    ///
    /// # Errors
    /// No version failed on these nodes.
    pub fn retry(&self, nodes: &[String], by: &str, now: Timestamp) -> Result<Vec<String>, RolloutError> {
        self.order(|ledger, world| {
            let mut retried = Vec::new();
            for node in nodes {
                find(&world.inventory, node).map_err(|error| RolloutError::Refused(error.to_string()))?;
                let observed = self.shared.observer.observe(node, now).unwrap_or_default();
                if ledger.forgive(node, &observed, now) {
                    ledger.tell(node, Level::Ok, format!("tries again, by {by}"));
                    retried.push(node.clone());
                }
            }
            match retried.is_empty() {
                true => refuse(format!(
                    "{}: none of these nodes has failed on a version, so there is nothing to retry",
                    shown(nodes.iter().map(String::as_str))
                )),
                false => Ok(retried),
            }
        })
    }

    fn of_rollout(
        &self,
        image: Option<&str>,
        change: impl Fn(&mut Rollout) -> Result<(), String>,
    ) -> Result<Rollout, RolloutError> {
        self.order(|ledger, _| {
            let number = meant(ledger, image)?;
            let changed = ledger.change(number, |rollout| change(rollout).map(|()| rollout.clone()));
            changed.map_or_else(|| refuse("it went away"), |done| done.map_err(RolloutError::Refused))
        })
    }

    /// Carries out an order.
    fn order<T>(&self, order: impl Fn(&mut Ledger, &World) -> Result<T, RolloutError>) -> Result<T, RolloutError> {
        let done = self.shared.change(order)?;
        // Immediate consequences, such as the first batch, follow now.
        self.shared.look(Timestamp::now());
        Ok(done)
    }
}

/// The rollout that is meant: the one of that image, or the only active one.
fn meant(ledger: &Ledger, image: Option<&str>) -> Result<u64, RolloutError> {
    let on: Vec<&Rollout> = ledger.rollouts.values().filter(|rollout| rollout.is_on()).collect();
    let names = on
        .iter()
        .map(|rollout| rollout.image.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    match (image, &on[..]) {
        (_, []) => refuse("no rollout is on; begin: rackstrap rollout start IMAGE@VERSION --nodes NODES"),
        (None, [one]) => Ok(one.number),
        (None, _) => refuse(format!("several rollouts are on ({names}); name one")),
        // The text is NAME or NAME@VERSION.
        (Some(text), _) => match on.iter().find(|r| r.image.name == text || r.image.to_string() == text) {
            Some(rollout) => Ok(rollout.number),
            None => refuse(format!("no rollout of {text} is on; these are: {names}")),
        },
    }
}

fn end(ledger: &mut Ledger, number: u64, stage: Stage, by: &str, now: Timestamp) -> Result<(), RolloutError> {
    let ended = ledger.change(number, |rollout| {
        rollout.end(stage, by, now).map(|()| rollout.image.clone())
    });
    let image = ended.unwrap_or_else(|| Err("it went away".to_owned()));
    let image = image.map_err(RolloutError::Refused)?;
    // No node is on trial any more, because all go back.
    let trials = ledger.trials.iter().filter(|(_, trial)| trial.image == image);
    let nodes: Vec<String> = trials.map(|(node, _)| node.clone()).collect();
    for node in nodes {
        ledger.set_trial(&node, None);
    }
    Ok(())
}

fn busy(rollout: &Rollout) -> String {
    let (tally, held) = (&rollout.tally, if rollout.is_held() { ", held" } else { "" });
    format!(
        "{} is being rolled out ({}{held}: {} of {} ready)",
        rollout.image,
        rollout.stage,
        tally.ready,
        rollout.nodes.len()
    )
}

fn expect_version(images: &Catalog, image: &ImageRef) -> Result<(), RolloutError> {
    if images.get(image).is_some() {
        return Ok(());
    }
    let versions = images.iter().map(|version| &version.manifest.image);
    let there: Vec<String> = versions
        .filter(|other| other.name == image.name)
        .map(ToString::to_string)
        .collect();
    refuse(match there.is_empty() {
        true => format!(
            "{image} does not exist, nor any other version of {}; to list the versions: rackstrap image list",
            image.name
        ),
        false => format!("{image} does not exist; available: {}", there.join(", ")),
    })
}

fn expect_current<'a>(ledger: &'a Ledger, name: &str) -> Result<&'a Current, RolloutError> {
    let known: Vec<&str> = ledger.current.keys().map(String::as_str).collect();
    match ledger.current.get(name) {
        Some(current) => Ok(current),
        None if known.is_empty() => refuse(format!("image {name} does not exist: no image has been imported yet")),
        None => refuse(format!("image {name} does not exist; available: {}", known.join(", "))),
    }
}

/// Checks that all of the nodes boot the version of the image that they are given.
fn expect_followers(world: &World, nodes: &[String], image: &str) -> Result<(), RolloutError> {
    if nodes.is_empty() {
        return refuse("name the nodes that get it first: --nodes NODES");
    }
    let mut others: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in nodes {
        let node = find(&world.inventory, name).map_err(|error| RolloutError::Refused(error.to_string()))?;
        match setting(world, node) {
            Some(setting) if setting == image => continue,
            Some(setting) if setting.contains('@') => {
                let by = match node.settings.set().image {
                    Some(_) => "its own setting",
                    None => "a profile",
                };
                let what = format!("pinned to {setting} by {by}");
                others.entry(what).or_default().push(name);
            }
            Some(setting) => others.entry(format!("of image {setting}")).or_default().push(name),
            None => others.entry("without an image".to_owned()).or_default().push(name),
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let lines = others
        .into_iter()
        .map(|(what, names)| format!("{}: {what}", shown(names)));
    refuse(format!(
        "not all of these nodes boot what {image} is given to them; leave out:\n{}",
        lines.collect::<Vec<_>>().join("\n")
    ))
}
