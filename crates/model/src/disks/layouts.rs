//! A node's disk records, for several layouts (pure).
//!
//! The record of a node has the disk of its first layout in the fields that a node with one layout has, and the disks of the other ones by
//! the names of their layouts. [`NodeDisk::of_layout`] finds the part that is about one layout, also after the list of layouts changed: a disk
//! belongs to the layout that its marker names.

use super::{
    DiskOrder, NodeDisk,
    effects::{DiskEffect, EffectKind, used, what},
};
use rackstrap_site::LayoutPolicy;
use rackstrap_wire::{DiskFacts, DiskMarker, DiskPlan, DiskProblem, DiskState, DiskStatus, LayoutDisk, SeenDisk};
use serde::{Deserialize, Serialize};

/// Most disks of further layouts that a record keeps.
const MOST_KEPT: usize = 8;

/// The prepared disk of a further layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDisk {
    /// The disk that the next boot must find for the layout.
    pub seen: SeenDisk,
    /// Its marker.
    pub marker: DiskMarker,
}

impl OtherDisk {
    /// A disk of which only the marker matters, by the name of the marker's layout.
    fn marked(marker: &DiskMarker) -> (String, OtherDisk) {
        let disk = OtherDisk {
            seen: SeenDisk::default(),
            marker: marker.clone(),
        };
        (marker.layout.clone(), disk)
    }
}

impl DiskOrder {
    /// Whether the order is for the layout with that name. An order without names was given while the node had one layout, whose record is the
    /// `first` one: layouts that the node got since then have no part in it. Partitions are named by the order itself.
    pub(super) fn is_for(&self, layout: &str, first: bool) -> bool {
        match self.layouts.is_empty() {
            true => first || !self.partitions.is_empty(),
            false => self.layouts.iter().any(|name| name == layout),
        }
    }
}

impl NodeDisk {
    /// The disk that a boot must find for layout `index` of `names`, the names of the node's layouts; none while the agent may choose.
    pub fn seen_of(&self, names: &[&str], index: usize) -> Option<SeenDisk> {
        match (self.is_first(names, index), names.get(index)) {
            (true, _) => self.seen.clone(),
            (false, Some(name)) => self.more.get(*name).map(|other| other.seen.clone()),
            (false, None) => None,
        }
    }

    /// The order for layout `index` of `names`, the names of the node's layouts; none if no order is for it.
    pub fn order_for(&self, names: &[&str], index: usize) -> Option<&DiskOrder> {
        let first = self.is_first(names, index);
        let name = names.get(index)?;
        self.order.as_ref().filter(|order| order.is_for(name, first))
    }

    /// Whether the fields of the first layout's disk are about layout `index` of `names`.
    fn is_first(&self, names: &[&str], index: usize) -> bool {
        let Some(name) = names.get(index) else { return false };
        match &self.marker {
            Some(marker) if names.contains(&marker.layout.as_str()) => marker.layout == *name,
            _ => index == 0 && !self.more.contains_key(*name),
        }
    }

    /// The markers of disks that the node's boots prepared for layouts that are not in `names`, the names of its present layouts.
    fn former(&self, names: &[&str]) -> Vec<&DiskMarker> {
        let is_layouts = (0..names.len()).any(|index| self.is_first(names, index));
        let first = self.marker.iter().filter(|_| !is_layouts);
        let more = self.more.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        first.chain(more.map(|(_, other)| &other.marker)).collect()
    }

    /// The record of the disk of layout `index` of `policies`, the node's layouts. If that layout has no disk yet, the markers are those of
    /// disks that its rule may choose.
    pub(super) fn of_layout(&self, policies: &[&LayoutPolicy], index: usize) -> NodeDisk {
        let names: Vec<&str> = policies.iter().map(|policy| policy.layout.name.as_str()).collect();
        let Some(policy) = policies.get(index) else {
            return NodeDisk::default();
        };
        let name = &policy.layout.name;
        let first = self.is_first(&names, index);
        let reported = self.state.layouts.iter().find(|one| one.layout == *name);
        let state = match (reported, first) {
            (Some(one), _) => state_of(one),
            (None, true) => self.state.clone(),
            (None, false) => DiskState::default(),
        };
        let other = self.more.get(name).filter(|_| !first);
        let own = match first {
            true => self.marker.clone(),
            false => other.map(|other| other.marker.clone()),
        };
        // A disk with the marker of a layout that the node no longer has may be chosen for a layout without a disk, and is then prepared.
        let mut former = match own {
            Some(_) => Vec::new(),
            None => self.former(&names),
        }
        .into_iter();
        let is_mounted = |policy: &LayoutPolicy, mount: &str| {
            let mut all = policy.layout.partitions.iter();
            all.any(|partition| partition.mount.as_deref() == Some(mount))
        };
        // What no layout mounts was on the first one's disk before its layout changed.
        let is_its = |mount: &str| match policies.iter().find(|policy| is_mounted(policy, mount)) {
            Some(policy) => policy.layout.name == *name,
            None => first,
        };
        NodeDisk {
            state,
            seen: self.seen_of(&names, index),
            marker: own.or_else(|| former.next().cloned()),
            more: former.map(OtherDisk::marked).collect(),
            used: self.used.iter().filter(|space| is_its(&space.mount)).cloned().collect(),
            order: self.order_for(&names, index).cloned(),
            health: Vec::new(),
        }
    }

    /// Records the disks that a boot found or prepared. `marker` is that of the first layout's disk.
    pub(super) fn follow_layouts(&mut self, state: &DiskState, marker: Option<DiskMarker>) {
        let several = !state.layouts.is_empty();
        if let Some(marker) = marker {
            let seen = seen(&state.device, &state.facts, &marker);
            let is_other = |was: &DiskMarker| was.layout != marker.layout && !was.id.is_empty() && was.id != marker.id;
            // The disk of a layout that is no longer the first one.
            if let (Some(was), Some(at)) = (&self.marker, &self.seen)
                && is_other(was)
                && (several || self.more.contains_key(&marker.layout))
            {
                let kept = OtherDisk {
                    seen: at.clone(),
                    marker: was.clone(),
                };
                self.more.insert(was.layout.clone(), kept);
            }
            self.more.retain(|name, other| {
                *name != marker.layout && (other.marker.id.is_empty() || other.marker.id != marker.id)
            });
            self.seen = Some(seen);
            self.marker = Some(marker);
        }
        for one in state.layouts.iter().skip(1) {
            let Some(marker) = &one.facts.marker else { continue };
            // The disk of a layout that was the first one. The present first one has no disk yet.
            if state.facts.marker.is_none() && self.marker.as_ref().is_some_and(|first| first.layout == one.layout) {
                (self.seen, self.marker) = (None, None);
            }
            self.more
                .retain(|_, other| other.marker.id.is_empty() || other.marker.id != marker.id);
            let found = OtherDisk {
                seen: seen(&one.device, &one.facts, marker),
                marker: marker.clone(),
            };
            self.more.insert(one.layout.clone(), found);
        }
        let is_present = |name: &String| state.layouts.iter().any(|one| one.layout == *name);
        // A disk that was prepared for another layout since then has another marker and the same serial number. Without this, its former
        // layout would seem to be on it when it comes back.
        let facts = std::iter::once(&state.facts).chain(state.layouts.iter().map(|one| &one.facts));
        let marked = facts.filter(|facts| facts.marker.is_some() && !facts.serial.is_empty());
        let serials: Vec<&str> = marked.map(|facts| facts.serial.as_str()).collect();
        self.more
            .retain(|name, other| is_present(name) || !serials.contains(&other.seen.serial.as_str()));
        while self.more.len() > MOST_KEPT {
            let old = self.more.keys().find(|name| !is_present(name)).cloned();
            let Some(old) = old else { break };
            self.more.remove(&old);
        }
    }

    /// Forgets the disk of the layout with that name: the next boot may find another one for it.
    pub(super) fn forget_layout(&mut self, name: &str) {
        let index = self.state.layouts.iter().position(|one| one.layout == name);
        if let Some(one) = index.and_then(|index| self.state.layouts.get_mut(index)) {
            forget_problem(&mut one.facts);
        }
        if self.more.remove(name).is_none() && index.is_none_or(|index| index == 0) {
            self.forget_first();
        }
    }
}

fn seen(device: &str, facts: &DiskFacts, marker: &DiskMarker) -> SeenDisk {
    SeenDisk {
        device: device.to_owned(),
        serial: facts.serial.clone(),
        marker: marker.id.clone(),
    }
}

/// Clears the problem that the disk of the last boot is not there.
pub(super) fn forget_problem(facts: &mut DiskFacts) {
    let is_missing = |problem: &DiskProblem| matches!(problem, DiskProblem::Missing | DiskProblem::OtherMarker);
    facts.problem = facts.problem.filter(|problem| !is_missing(problem));
}

/// The state of one layout's disk, as a node with this layout alone has it.
pub(super) fn state_of(one: &LayoutDisk) -> DiskState {
    DiskState {
        status: one.status.clone(),
        device: one.device.clone(),
        size: one.size,
        facts: one.facts.clone(),
        ..DiskState::default()
    }
}

/// The effects of one boot on the disks of several layouts, as one: the most severe kind, with all disks that have it or lose data, too.
pub(super) fn together(effects: Vec<DiskEffect>) -> Option<DiskEffect> {
    let severity = |kind| match kind {
        EffectKind::Wipe => 5,
        EffectKind::Prepare => 4,
        EffectKind::Ordered => 3,
        EffectKind::Held => 2,
        EffectKind::Changed => 1,
        EffectKind::Standing => 0,
    };
    let worst = effects.iter().max_by_key(|effect| severity(effect.kind))?.clone();
    let told = |effect: &&DiskEffect| effect.kind == worst.kind || worst.loses_data() && effect.loses_data();
    let told: Vec<&DiskEffect> = effects.iter().filter(told).collect();
    let join = |text: fn(&DiskEffect) -> &str| told.iter().map(|effect| text(effect)).collect::<Vec<_>>().join(" and ");
    let same_kind = told.iter().all(|effect| effect.kind == worst.kind);
    Some(DiskEffect {
        layout: join(|effect| &effect.layout),
        now: join(|effect| &effect.now),
        ordered: effects.iter().any(|effect| effect.ordered),
        partitions: match same_kind {
            true => told.iter().flat_map(|effect| effect.partitions.clone()).collect(),
            false => Vec::new(),
        },
        ..worst
    })
}

/// What is on a node's disks, as far as is known: `scratch v1 and data v2: /tmp 38 GB used, /data 1 GB used`.
pub fn content(disk: &NodeDisk) -> String {
    let (what, used) = (what(disk), used(disk));
    match used.is_empty() {
        true => what,
        false => format!("{what}: {used}"),
    }
}

/// The state that an agent reported for a boot with this plan. An agent that does not know several layouts left the disks of the further ones
/// alone, and one that does not know [`DiskPlan::contents`] left partitions raw: the node is degraded, and the reason says so.
pub fn older_agent(plan: Option<&DiskPlan>, mut state: DiskState) -> DiskState {
    // A boot without the disk phase, such as that of a shell in RAM, says nothing about its agent.
    let Some(plan) = plan.filter(|_| state.layouts.is_empty() && state.status != DiskStatus::NotWanted) else {
        return state;
    };
    let mut reasons = Vec::new();
    if let DiskStatus::Degraded { reason } = &state.status {
        reasons.push(reason.clone());
    } else {
        // Newer agents use each of these partitions, or their nodes are degraded.
        let is_used = |name: &str| state.mounts.iter().any(|mounted| mounted.name == name);
        let made = plan.contents.iter().filter(|content| content.fs.is_some());
        let raw: Vec<&str> = (made.map(|content| content.partition.as_str()))
            .filter(|name| !is_used(name))
            .collect();
        if !raw.is_empty() {
            reasons.push(format!(
                "the image's agent does not know btrfs, vfat and encrypted partitions, so {} is not used",
                raw.join(" and ")
            ));
        }
    }
    if !plan.more.is_empty() {
        let names: Vec<&str> = plan.more.iter().map(|plan| plan.layout.name.as_str()).collect();
        reasons.push(format!(
            "the image's agent does not know several layouts, so there is no disk for {}",
            names.join(" and ")
        ));
    }
    let reported = usize::from(matches!(state.status, DiskStatus::Degraded { .. }));
    if reasons.len() > reported {
        let reasons = reasons.join("; ");
        state.status = DiskStatus::Degraded {
            reason: format!("{reasons}; clone and seal the image again for a newer agent"),
        };
    }
    state
}

#[cfg(test)]
#[path = "layouts_tests.rs"]
mod tests;
