//! All that is assigned, as a value: a change makes another one, and the rows that differ.

use crate::boots::Boot;
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{
    Changed, Level, Observed, Record, deadline, restart,
    rollout::{Member, Rollout, Stage, State},
};
use rackstrap_model::decide::{Assignments, Current, Given, RenameStep, Renaming, Restarting, Trial};
use rackstrap_store::{Batch, Table};
use rackstrap_wire::ImageRef;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Rollouts that are remembered after their end.
const REMEMBERED: usize = 50;

/// Current versions, rollouts, and boots into versions that have to prove themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub(super) current: BTreeMap<String, Current>,
    /// By number. Of those that are over, only the last one of each image has its nodes.
    pub(super) rollouts: BTreeMap<u64, Rollout>,
    pub(super) trials: HashMap<String, Trial>,
    /// The last known good version of each node: the last one on which it was ready. Follows from the boots and the trials.
    pub(super) last_known_good: HashMap<String, ImageRef>,
    /// Ended rollouts of which the planner has nothing to do, with the stage in which they ended. Not on disk: it looks once more after a
    /// start.
    pub(super) finished: BTreeMap<u64, Stage>,
    /// For timelines, once it is on disk.
    pub(super) told: Vec<Record>,
}

/// Key of the row of a rollout's node.
fn node_key(number: u64, node: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], node.as_bytes()].concat()
}

impl Ledger {
    /// Of what is on disk.
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
                .map(|(node, trial)| (node.clone(), trial.good.clone()))
                .collect(),
            trials,
            finished: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// What decisions read.
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
        let restarting = last.filter(|last| last.reboot && !last.paused).map(|last| {
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

    /// The rollout of that image that is on.
    pub fn on(&self, image: &str) -> Option<&Rollout> {
        self.last_of(image).filter(|rollout| rollout.is_on())
    }

    /// The last rollout of that image, on or over.
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

    /// Adds a rollout; older ones of its image lose their nodes, and the oldest of all are forgotten.
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

    /// An image is given another name: what is current of it stays so.
    ///
    /// # Errors
    /// A rollout of it is on.
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
                    // Left over from an image that had this name.
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

    /// The kernel of a boot was taken.
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

    /// A node was told to boot `image`, although it is to have `wanted`.
    pub fn opened(&mut self, node: &str, image: &ImageRef, wanted: &ImageRef, now: Timestamp) {
        let Some(trial) = self.trials.get(node) else { return };
        if trial.good != *image || trial.image != *wanted || trial.back.is_some() {
            return;
        }
        let verdict = trial.verdict();
        let trial = Trial {
            back: Some(now),
            ..trial.clone()
        };
        self.set_trial(node, Some(trial));
        self.tell(node, Level::Retry, format!("{verdict}: rolls back to {image}"));
        self.in_rollout(wanted, node, |rollout| rollout.rolls_back(node, &verdict, now));
    }

    /// The node of `boot` is up; `problem` is what is wrong with it, empty if nothing; `wanted` is what it is to have.
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
            // It is up, so it will not try again by itself: its next boot is one of the version that was well.
            self.try_out(boot, now);
            if let Some(trial) = self.trials.get(node).filter(|trial| trial.image == *image).cloned() {
                let problem = problem.to_owned();
                self.set_trial(node, Some(Trial { problem, ..trial }));
            }
        }
        self.in_rollout(image, node, |rollout| rollout.ready(node, id, problem, now));
    }

    /// Tells the rollout that is on of that very version, if there is one, what happened to one of its nodes.
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

    /// Counts anew, and tells timelines of `nodes`, which are different. `batch` was the last one before.
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
                // Said by the boot itself, or by whoever noticed.
                State::Waiting | State::Booting | State::Ready | State::RolledBack { .. } => {}
            }
        }
        for (node, level, what) in told {
            self.tell(&node, level, what);
        }
        self.change(number, |_| ());
    }

    /// What `node` tried and failed at is forgotten: it tries again. True if there was anything.
    pub fn forgive(&mut self, node: &str, observed: &Observed, now: Timestamp) -> bool {
        let mut again = self.trials.contains_key(node);
        self.set_trial(node, None);
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

    /// The rollouts that the planner looks at: those that are on, and the last one of each image if it restarts nodes and has not finished
    /// with them.
    pub fn planned(&self) -> BTreeMap<u64, Rollout> {
        let planned = self.rollouts.values().filter(|rollout| {
            let last = || self.last_of(&rollout.image.name).map(|last| last.number) == Some(rollout.number);
            let finished = || self.finished.get(&rollout.number) == Some(&rollout.stage);
            rollout.is_on() || rollout.reboot && !finished() && last()
        });
        planned.map(|rollout| (rollout.number, rollout.clone())).collect()
    }

    /// Takes over what the planner decided about a rollout.
    pub fn take_over(&mut self, changed: Changed) {
        let number = changed.rollout.number;
        let Some(rollout) = self.rollouts.get_mut(&number) else {
            return;
        };
        let batch = rollout.last_batch;
        *rollout = changed.rollout;
        self.noted(number, &changed.nodes, batch);
    }

    /// Takes note of the ended rollouts among those that were planned that have finished: no node has to leave what it runs for one
    /// (`wants` says of which images some do, or are on their way), and none that began to boot its version can still come up on it.
    pub fn finish(&mut self, planned: &BTreeMap<u64, Rollout>, wants: impl Fn(&str) -> bool, now: Timestamp) {
        for rollout in planned.keys().filter_map(|number| self.rollouts.get(number)) {
            let come = (rollout.ended).is_some_and(|ended| now > deadline(ended, rollout.ready_within_secs));
            if come && !wants(&rollout.image.name) {
                self.finished.insert(rollout.number, rollout.stage);
            }
        }
        self.finished.retain(|number, _| self.rollouts.contains_key(number));
    }

    /// A version becomes the current one of its image.
    pub fn make_current(&mut self, image: ImageRef, by: &str, now: Timestamp) {
        let current = match self.current.get(&image.name) {
            Some(current) => current.promoted(image.version, by, now),
            None => Current::first(image, by, now),
        };
        self.set_current(current);
    }

    /// Nodes that an older release told to restart for a rollout, as rows of that release say it; taken out of the rows. Rollouts that
    /// are over are included: their nodes may be on their way.
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

    /// What is different since `before`, in lines for the log.
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

/// A rollout without its nodes, which have rows of their own.
fn head(rollout: &Rollout) -> Rollout {
    Rollout {
        nodes: BTreeMap::new(),
        ..rollout.clone()
    }
}

/// What makes `after` of `before` on disk. It expects the rows of what it changes as they were; those of a rollout's nodes change with
/// the rollout's own.
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

/// The keys of two maps, in their order.
fn keys<'a, K: Ord>(before: impl Iterator<Item = &'a K>, after: impl Iterator<Item = &'a K>) -> BTreeSet<&'a K> {
    before.chain(after).collect()
}

/// Has a row that was `old` be `new`.
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
