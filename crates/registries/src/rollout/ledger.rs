//! All assignments, as a value: a change makes another value, and writes the rows that differ.

use crate::boots::Boot;
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{
    Changed, Level, Observed, Record, deadline, restart,
    rollout::{Member, Rollout, State},
};
use rackstrap_model::decide::{Assignments, Current, Given, RenameStep, Renaming, Restarting, Trial};
use rackstrap_store::{Batch, Table};
use rackstrap_wire::ImageRef;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// At most this many ended rollouts are remembered.
const REMEMBERED: usize = 50;

/// Current versions, rollouts, and boots into versions on which nodes were not ready yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub(super) current: BTreeMap<String, Current>,
    /// By number. Of ended rollouts, only the last one of each image has its nodes.
    pub(super) rollouts: BTreeMap<u64, Rollout>,
    pub(super) trials: HashMap<String, Trial>,
    /// The last known good version of each node, on which it was last ready. Follows from the boots and the trials.
    pub(super) last_known_good: HashMap<String, ImageRef>,
    /// Entries for timelines, which are recorded after the ledger is on disk.
    pub(super) told: Vec<Record>,
}

/// Key of the row of a rollout's node.
fn node_key(number: u64, node: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], node.as_bytes()].concat()
}

impl Ledger {
    /// Makes the ledger from what is on disk.
    pub fn load(
        current: Vec<Current>,
        rollouts: Vec<Rollout>,
        nodes: Vec<(Vec<u8>, Member)>,
        trials: Vec<(Vec<u8>, Trial)>,
    ) -> Ledger {
        let mut rollouts: BTreeMap<u64, Rollout> = rollouts.into_iter().map(|r| (r.number, r)).collect();
        for (key, member) in nodes {
            let Some((number, name)) = key.split_first_chunk::<8>() else {
                continue;
            };
            let Ok(name) = String::from_utf8(name.to_vec()) else {
                continue;
            };
            if let Some(rollout) = rollouts.get_mut(&u64::from_be_bytes(*number)) {
                rollout.nodes.insert(name, member);
            }
        }
        let trials: HashMap<String, Trial> = trials
            .into_iter()
            .filter_map(|(key, trial)| Some((String::from_utf8(key).ok()?, trial)))
            .collect();
        Ledger {
            current: current.into_iter().map(|c| (c.image.name.clone(), c)).collect(),
            rollouts,
            last_known_good: trials
                .iter()
                .map(|(node, trial)| (node.clone(), trial.last_known_good.clone()))
                .collect(),
            trials,
            told: Vec::new(),
        }
    }

    /// The assignments that decisions read.
    pub fn assignments(&self) -> Assignments {
        let on = self.rollouts.values().filter(|rollout| rollout.is_on());
        let given = on.map(|rollout| {
            let nodes = rollout.nodes.keys().filter(|node| rollout.gives(node));
            let given = Given {
                version: rollout.image.version,
                stage: rollout.stage.to_string(),
                nodes: nodes.cloned().collect(),
            };
            (rollout.image.name.clone(), given)
        });
        let last = self.current.keys().filter_map(|name| self.last_of(name));
        let restarting = last.filter(|last| last.reboot && !last.paused && !last.is_finished());
        let restarting = restarting.map(|last| {
            let restarting = Restarting {
                version: last.image.version,
                taken_back: last.stage.is_taken_back(),
            };
            (last.image.name.clone(), restarting)
        });
        Assignments {
            current: Arc::new(self.current.clone()),
            given: Arc::new(given.collect()),
            trials: Arc::new(self.trials.clone()),
            restarting: Arc::new(restarting.collect()),
        }
    }

    /// The active rollout of that image.
    pub fn on(&self, image: &str) -> Option<&Rollout> {
        self.last_of(image).filter(|rollout| rollout.is_on())
    }

    /// The last rollout of that image, active or ended.
    pub fn last_of(&self, image: &str) -> Option<&Rollout> {
        self.rollouts.values().rev().find(|rollout| rollout.image.name == image)
    }

    /// Changes a rollout.
    pub(super) fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Rollout) -> T) -> Option<T> {
        let rollout = self.rollouts.get_mut(&number)?;
        let result = change(rollout);
        rollout.count();
        Some(result)
    }

    /// Adds a rollout. Older rollouts of its image lose their nodes, and the oldest of all are forgotten.
    pub(super) fn add(&mut self, rollout: Rollout) {
        let older = self.rollouts.values_mut();
        for older in older.filter(|older| older.image.name == rollout.image.name) {
            older.nodes.clear();
        }
        self.rollouts.insert(rollout.number, rollout);
        while self.rollouts.len() > REMEMBERED {
            let Some(oldest) = self.rollouts.values().find(|r| !r.is_on()).map(|r| r.number) else {
                break;
            };
            self.rollouts.remove(&oldest);
        }
    }

    /// The number of the next rollout.
    pub(super) fn next_number(&self) -> u64 {
        self.rollouts.keys().next_back().map_or(1, |last| last + 1)
    }

    pub(super) fn set_current(&mut self, current: Current) {
        self.current.insert(current.image.name.clone(), current);
    }

    /// Renames an image, whose current version stays.
    ///
    /// # Errors
    /// A rollout of the image is active.
    pub(super) fn rename(&mut self, renaming: &Renaming) -> Result<(), String> {
        let Renaming { old, new, step } = renaming;
        match step {
            RenameStep::Begin => {
                if let Some(rollout) = self.on(old) {
                    return Err(format!("{} is being rolled out", rollout.image));
                }
                match self.current.get(old) {
                    Some(current) => {
                        let mut current = current.clone();
                        current.image.name.clone_from(new);
                        self.set_current(current);
                    }
                    // A row that is left of an earlier image with this name.
                    None => drop(self.current.remove(new)),
                }
            }
            RenameStep::Done => drop(self.current.remove(old)),
            RenameStep::Failed => drop(self.current.remove(new)),
        }
        Ok(())
    }

    pub(super) fn set_trial(&mut self, node: &str, trial: Option<Trial>) {
        match trial {
            Some(trial) => drop(self.trials.insert(node.to_owned(), trial)),
            None => drop(self.trials.remove(node)),
        }
    }

    pub(super) fn tell(&mut self, node: &str, level: Level, text: impl Into<String>) {
        self.told.push(Record {
            node: node.to_owned(),
            level,
            text: text.into(),
        });
    }

    /// Records that the kernel of a boot was fetched.
    pub fn took(&mut self, boot: &Boot, now: Timestamp) {
        self.try_out(boot, now);
        let (node, id) = (&boot.plan.node, &boot.plan.id);
        self.in_rollout(boot.image(), node, |rollout| rollout.boots(node, id, now));
    }

    /// Counts a boot into a version on which the node was not ready yet.
    fn try_out(&mut self, boot: &Boot, now: Timestamp) {
        let (node, id, image) = (boot.plan.node.as_str(), boot.plan.id.as_str(), boot.image());
        let Some(good) = self
            .last_known_good
            .get(node)
            .filter(|good| good.name == image.name && *good != image)
        else {
            return;
        };
        let mut trial = match self.trials.get(node).filter(|trial| trial.image == *image) {
            Some(trial) if trial.last == id => return,
            Some(trial) => trial.clone(),
            None => Trial::begin(image, good, now),
        };
        trial.boots = trial.boots.saturating_add(1);
        id.clone_into(&mut trial.last);
        trial.hwaddr = Some(boot.plan.net.hwaddr);
        self.set_trial(node, Some(trial));
    }

    /// Records that a node was told to boot `image`, although it is assigned `wanted`.
    pub fn opened(&mut self, node: &str, image: &ImageRef, wanted: &ImageRef, now: Timestamp) {
        let Some(trial) = self.trials.get(node) else { return };
        if trial.last_known_good != *image || trial.image != *wanted || trial.rolled_back.is_some() {
            return;
        }
        let verdict = trial.verdict();
        let trial = Trial {
            rolled_back: Some(now),
            ..trial.clone()
        };
        self.set_trial(node, Some(trial));
        self.tell(node, Level::Retry, format!("{verdict}: rolls back to {image}"));
        self.in_rollout(wanted, node, |rollout| rollout.rolls_back(node, &verdict, now));
    }

    /// Records that the node of `boot` is up. `problem` is what is wrong with it, empty if nothing is; `wanted` is the
    /// version that it is assigned.
    pub fn ready(&mut self, boot: &Boot, problem: &str, wanted: Option<&ImageRef>, now: Timestamp) {
        let (node, id, image) = (boot.plan.node.as_str(), boot.plan.id.as_str(), boot.image());
        let trial = self.trials.get(node);
        if problem.is_empty() {
            if trial.is_some_and(|trial| trial.image == *image || Some(&trial.image) != wanted) {
                self.set_trial(node, None);
            }
            self.last_known_good.insert(node.to_owned(), image.clone());
        } else if self
            .on(&image.name)
            .is_some_and(|r| r.image == *image && r.nodes.contains_key(node))
        {
            // The node is up, so it will not restart by itself. Its next boot is one of its last known good version.
            self.try_out(boot, now);
            if let Some(trial) = self.trials.get(node).filter(|trial| trial.image == *image).cloned() {
                let problem = problem.to_owned();
                self.set_trial(node, Some(Trial { problem, ..trial }));
            }
        }
        self.in_rollout(image, node, |rollout| rollout.ready(node, id, problem, now));
    }

    /// Records in the active rollout of exactly this version, if there is one, what happened to one of its nodes.
    fn in_rollout(&mut self, image: &ImageRef, node: &str, tell: impl FnOnce(&mut Rollout) -> bool) {
        let Some(number) = self.on(&image.name).filter(|r| r.image == *image).map(|r| r.number) else {
            return;
        };
        let Some(rollout) = self.rollouts.get_mut(&number) else {
            return;
        };
        let batch = rollout.last_batch;
        if tell(rollout) {
            self.noted(number, &[node.to_owned()], batch);
        }
    }

    /// Counts again, and records the changes of `nodes` for timelines. `batch` is the number of the last batch before.
    fn noted(&mut self, number: u64, nodes: &[String], batch: u32) {
        let Some(rollout) = self.rollouts.get(&number) else {
            return;
        };
        let mut told = Vec::new();
        for node in nodes {
            let Some(member) = rollout.nodes.get(node) else {
                continue;
            };
            match &member.state {
                State::Waiting if member.batch > batch => {
                    let what = format!("given {} ({})", rollout.image, rollout.batch_name(member.batch));
                    told.push((node.clone(), Level::Ok, what));
                }
                State::Failed { why } => told.push((node.clone(), Level::Error, format!("{}: {why}", rollout.image))),
                // The boot itself recorded these, or the place that noticed them.
                State::Waiting | State::Booting | State::Ready | State::RolledBack { .. } => {}
            }
        }
        for (node, level, what) in told {
            self.tell(&node, level, what);
        }
        self.change(number, |_| ());
    }

    /// Forgets the failed trial of `node`, so that it tries again. Returns whether there was one.
    pub fn forgive(&mut self, node: &str, observed: &Observed, now: Timestamp) -> bool {
        let trial = self.trials.get(node).map(|trial| trial.image.clone());
        let mut again = trial.is_some();
        self.set_trial(node, None);
        // The node must leave its version for that of the trial again, so the rollout of that version restarts it.
        for rollout in self
            .rollouts
            .values_mut()
            .filter(|rollout| Some(&rollout.image) == trial.as_ref())
        {
            rollout.finished = None;
        }
        let on: Vec<u64> = self.rollouts.values().filter(|r| r.is_on()).map(|r| r.number).collect();
        for number in on {
            let failed = self.rollouts.get(&number).and_then(|r| r.nodes.get(node));
            if failed.is_some_and(|member| member.state.is_failure()) {
                let retry = |rollout: &mut Rollout| rollout.retry(node, observed, now);
                again |= self.change(number, retry).unwrap_or(false);
            }
        }
        again
    }

    /// The rollouts that the planner considers: active ones, and the last one of each image if it restarts nodes and the planner
    /// has more to do for it.
    pub fn planned(&self) -> BTreeMap<u64, Rollout> {
        let planned = self.rollouts.values().filter(|rollout| {
            let last = || self.last_of(&rollout.image.name).map(|last| last.number) == Some(rollout.number);
            rollout.is_on() || rollout.reboot && !rollout.is_finished() && last()
        });
        planned.map(|rollout| (rollout.number, rollout.clone())).collect()
    }

    /// Accepts the planner's decision about a rollout.
    pub fn take_over(&mut self, changed: Changed) {
        let number = changed.rollout.number;
        let Some(rollout) = self.rollouts.get_mut(&number) else {
            return;
        };
        let batch = rollout.last_batch;
        *rollout = changed.rollout;
        self.noted(number, &changed.nodes, batch);
    }

    /// Records which of the `planned` rollouts have ended and are finished. A rollout is finished if no node must leave its
    /// version for it, and if the nodes that started to boot its version are up or late. `wants` returns whether a node must
    /// leave its version of an image, or restarts for it.
    pub fn finish(&mut self, planned: &BTreeMap<u64, Rollout>, wants: impl Fn(&str) -> bool, now: Timestamp) {
        for number in planned.keys() {
            let Some(rollout) = self.rollouts.get_mut(number) else {
                continue;
            };
            let come = (rollout.ended).is_some_and(|ended| now > deadline(ended, rollout.ready_within_secs));
            if come && !wants(&rollout.image.name) {
                rollout.finished = Some(rollout.stage);
            }
        }
    }

    /// Makes a version the current one of its image.
    pub fn make_current(&mut self, image: ImageRef, by: &str, now: Timestamp) {
        let current = match self.current.get(&image.name) {
            Some(current) => current.promoted(image.version, by, now),
            None => Current::first(image, by, now),
        };
        self.set_current(current);
    }

    /// Removes from the rows, and returns, the nodes that an older release ordered to restart for a rollout. Ended rollouts
    /// are included, because their nodes may be restarting.
    pub fn take_told(&mut self) -> Vec<(u64, Vec<restart::Member>)> {
        let mut told = Vec::new();
        for rollout in self.rollouts.values_mut() {
            let mut members = Vec::new();
            for (node, member) in &mut rollout.nodes {
                let before = std::mem::take(&mut member.before_planner);
                if !before.restart.is_empty() {
                    members.push(restart::Member::with_order(node, &before.restart, before.asked));
                }
            }
            if !members.is_empty() {
                told.push((rollout.number, members));
            }
        }
        told
    }

    /// The changes since `before`, as lines for the log.
    pub fn news(&self, before: &Ledger) -> Vec<String> {
        let current = self.current.iter();
        let current = current.filter(|(name, current)| before.current.get(*name) != Some(current));
        let mut lines: Vec<String> = current
            .map(|(name, current)| format!("image {name}: {} is current, by {}", current.image, current.by))
            .collect();
        for (number, rollout) in &self.rollouts {
            let known = before.rollouts.get(number).and_then(|rollout| rollout.remarks.last());
            let fresh = rollout.remarks.iter().rev().take_while(|remark| known != Some(*remark));
            let fresh: Vec<String> = fresh
                .map(|remark| format!("rollout of {}: {}", rollout.image, remark.what))
                .collect();
            lines.extend(fresh.into_iter().rev());
        }
        lines
    }
}

/// A rollout without its nodes, which have their own rows.
fn head(rollout: &Rollout) -> Rollout {
    Rollout {
        nodes: BTreeMap::new(),
        ..rollout.clone()
    }
}

/// Writes the differences between `before` and `after`. The batch fails if a row that it changes is not as in `before`. For the
/// nodes of a rollout, it compares the row of the rollout.
pub(super) fn changes(before: &Ledger, after: &Ledger) -> Batch {
    let mut batch = Batch::new();
    for name in keys(before.current.keys(), after.current.keys()) {
        let (old, new) = (before.current.get(name), after.current.get(name));
        batch = row(batch, Table::Current, name.as_bytes(), old, new);
    }
    for number in keys(before.rollouts.keys(), after.rollouts.keys()) {
        let (old, new) = (before.rollouts.get(number), after.rollouts.get(number));
        if old == new {
            continue;
        }
        let key = number.to_be_bytes();
        let (old_head, new_head) = (old.map(head), new.map(head));
        batch = batch.expect_read(Table::Rollouts, key, old_head.as_ref());
        if old_head != new_head {
            batch = put(batch, Table::Rollouts, &key, new_head.as_ref());
        }
        let none = BTreeMap::new();
        let old = old.map_or(&none, |rollout| &rollout.nodes);
        let new = new.map_or(&none, |rollout| &rollout.nodes);
        for node in keys(old.keys(), new.keys()) {
            if old.get(node) != new.get(node) {
                batch = put(batch, Table::RolloutNodes, &node_key(*number, node), new.get(node));
            }
        }
    }
    for node in keys(before.trials.keys(), after.trials.keys()) {
        let (old, new) = (before.trials.get(node), after.trials.get(node));
        batch = row(batch, Table::Trials, node.as_bytes(), old, new);
    }
    batch
}

/// The keys of two maps, sorted.
fn keys<'a, K: Ord>(before: impl Iterator<Item = &'a K>, after: impl Iterator<Item = &'a K>) -> BTreeSet<&'a K> {
    before.chain(after).collect()
}

/// Changes a row from `old` to `new`.
fn row<T>(batch: Batch, table: Table, key: &[u8], old: Option<&T>, new: Option<&T>) -> Batch
where
    T: PartialEq + Serialize + DeserializeOwned,
{
    match old == new {
        true => batch,
        false => put(batch.expect_read(table, key, old), table, key, new),
    }
}

fn put<T: Serialize>(batch: Batch, table: Table, key: &[u8], value: Option<&T>) -> Batch {
    match value {
        Some(value) => batch.put(table, key, value),
        None => batch.delete(table, key),
    }
}
