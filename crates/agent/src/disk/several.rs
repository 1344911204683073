//! The disks of a node with several layouts: one disk for each, chosen in the order of the layouts.
//!
//! No disk is used twice, and a disk that belongs to another layout is never chosen, whatever the rule of this one says: a disk belongs to
//! the layout that its marker names, and to the layout that had it at the last boot.

use super::{
    candidate::Candidate,
    choose::InspectedDisk,
    phase::{Context, Outcome, run_among},
};
use rackstrap_wire::{DiskPlan, DiskProblem, DiskRule, DiskState, DiskStatus, LayoutDisk, MOST_LAYOUTS, SeenDisk};
use std::cell::RefCell;

/// Does what each of the plans says with its disk.
pub(super) fn run_all(first: &DiskPlan, present: &dyn Fn() -> Vec<Candidate>, context: Context<'_>) -> Outcome {
    let plans: Vec<&DiskPlan> = std::iter::once(first).chain(&first.more).take(MOST_LAYOUTS).collect();
    let mut all: Vec<(&DiskPlan, Outcome)> = Vec::new();
    let mut taken: Vec<Taken> = Vec::new();
    let Context {
        node,
        image,
        list,
        mounts,
        on_step,
        on_line,
    } = context;
    for (index, plan) in plans.iter().enumerate() {
        let others: Vec<&DiskPlan> = (plans.iter().enumerate())
            .filter(|(other, _)| *other != index)
            .map(|(_, plan)| *plan)
            .collect();
        let seen: RefCell<Vec<Candidate>> = RefCell::default();
        let free = || {
            let mut disks = present();
            seen.borrow_mut().clone_from(&disks);
            disks.retain(|disk| !taken.iter().any(|taken| taken.has(disk)));
            disks
        };
        let reserved = |disk: &InspectedDisk| is_of_another(disk, plan, &others);
        // An order for a node with several layouts says which one it means.
        let named = format!("{node} --layout {}", plan.layout.name);
        let context = Context {
            node: &named,
            image,
            list,
            mounts,
            on_step: &mut *on_step,
            on_line: &mut *on_line,
        };
        let (mut state, mut text) = run_among(plan, &free, &reserved, context);
        if let Some(why) = fits_but_taken(plan, &state, &seen.borrow(), &taken) {
            text = format!("{text}; {why}");
            state.status = DiskStatus::Degraded { reason: text.clone() };
        }
        let disk = seen.borrow().iter().find(|disk| disk.name == state.device).cloned();
        taken.extend(disk.map(|disk| Taken {
            disk,
            layout: plan.layout.name.clone(),
        }));
        all.push((plan, (state, text)));
    }
    together(all)
}

/// A disk that a layout has.
struct Taken {
    disk: Candidate,
    layout: String,
}

impl Taken {
    /// Whether it is that disk, perhaps over another path.
    fn has(&self, disk: &Candidate) -> bool {
        self.disk.name == disk.name || self.disk.is_same_device(disk)
    }
}

/// Whether the disk belongs to one of `others`, so that `plan` must not have it (pure).
fn is_of_another(disk: &InspectedDisk, plan: &DiskPlan, others: &[&DiskPlan]) -> bool {
    let record = disk.finding.as_ref().ok().and_then(|finding| finding.record());
    if record.is_some_and(|record| record.name == plan.layout.name) {
        return false;
    }
    if record.is_some_and(|record| others.iter().any(|other| other.layout.name == record.name)) {
        return true;
    }
    let is = |seen: &SeenDisk| {
        let equal = |a: &str, b: &str| !a.is_empty() && a == b;
        equal(&seen.marker, &disk.marker) || equal(&seen.serial, &disk.disk.serial)
    };
    // Disks of some adapters have one serial number, which then identifies none of them.
    let own = plan.seen.as_ref().is_some_and(is);
    !own && others.iter().any(|other| other.seen.as_ref().is_some_and(is))
}

/// Names the disks that fit the rule of `plan` and that earlier layouts have, if no other disk fits (pure).
fn fits_but_taken(plan: &DiskPlan, state: &DiskState, present: &[Candidate], taken: &[Taken]) -> Option<String> {
    let without = state.device.is_empty() && matches!(state.facts.problem, None | Some(DiskProblem::NoFit));
    if !without {
        return None;
    }
    let rule = plan.device.parse::<DiskRule>().ok();
    let fits = |taken: &&Taken| match &rule {
        Some(rule) => taken.disk.fits(rule),
        None => taken.disk.name == plan.device,
    };
    let there = |taken: &&Taken| present.iter().any(|disk| taken.has(disk));
    let named = taken.iter().filter(fits).filter(there);
    let named: Vec<String> = named
        .map(|taken| {
            format!(
                "{} fits, and is the disk of the layout {}",
                taken.disk.name, taken.layout
            )
        })
        .collect();
    (!named.is_empty()).then(|| named.join("; "))
}

/// The state of the node: that of the first layout, with the results of all (pure).
fn together(all: Vec<(&DiskPlan, Outcome)>) -> Outcome {
    let mut state = DiskState::default();
    let (mut texts, mut reasons) = (Vec::new(), Vec::new());
    // What the last layout could not have is unused.
    let unused = all
        .last()
        .map(|(_, (last, _))| last.facts.unused.clone())
        .unwrap_or_default();
    for (index, (plan, (mut one, text))) in all.into_iter().enumerate() {
        one.facts.unused.clear();
        let layout = &plan.layout.name;
        if let DiskStatus::Degraded { reason } = &one.status {
            reasons.push(format!("layout {layout}: {reason}"));
        }
        texts.push(text);
        let partitions = one.mounts.iter().map(|mounted| mounted.name.clone()).collect();
        state.mounts.append(&mut one.mounts);
        state.layouts.push(LayoutDisk {
            layout: layout.clone(),
            status: one.status.clone(),
            device: one.device.clone(),
            size: one.size,
            partitions,
            facts: one.facts.clone(),
        });
        if index == 0 {
            state.status = one.status;
            state.device = one.device;
            state.size = one.size;
            state.facts = one.facts;
        }
    }
    state.facts.unused = unused;
    state
        .facts
        .unused
        .retain(|unused| !state.layouts.iter().any(|one| one.device == unused.device));
    if !reasons.is_empty() {
        state.status = DiskStatus::Degraded {
            reason: reasons.join("; "),
        };
    }
    (state, texts.join("; "))
}

#[cfg(test)]
#[path = "several_tests.rs"]
mod tests;
