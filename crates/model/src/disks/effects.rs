//! The effects of a site file on nodes' disks at their next boots (pure).

use super::{
    DiskOrder, NodeDisk,
    layouts::{state_of, together},
};
use crate::inventory::{Node, Settings};
use rackstrap_hostlist::NodeSet;
use rackstrap_site::{LayoutPolicy, Site};
use rackstrap_wire::{DiskFacts, DiskProblem, DiskState, DiskStatus, Wipe};
use serde::{Deserialize, Serialize};

/// The effect of one node's next boot on its disk, if it does not keep the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEffect {
    /// The node.
    pub node: String,
    /// The kind of the effect.
    pub kind: EffectKind,
    /// The layout that the boot uses: `scratch v2`.
    pub layout: String,
    /// The current content of the disk, as text: `scratch v1: /tmp 38 GB used`.
    pub now: String,
    /// Whether there is an order of `node reprep`. It is shown in each case, because it can be cancelled.
    #[serde(default)]
    pub ordered: bool,
    /// Names of the only partitions whose file systems are made again, by an order; empty for the whole disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
}

/// What happens to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectKind {
    /// The disk is prepared again, because the layout has another version or name. Its data is lost.
    Prepare,
    /// The same, by an order of an administrator.
    Ordered,
    /// The disk is prepared again by an order, and no known data is lost.
    Standing,
    /// Foreign data is overwritten, because the layout says `wipe = "always"`, or `"known"` and the data has known formats only.
    Wipe,
    /// The disk is kept, and the node is degraded: the layout changed under the same version.
    Changed,
    /// The disk is treated as before: the layout would lose data, and this was not confirmed.
    Held,
}

impl DiskEffect {
    /// Whether data is lost.
    pub fn loses_data(&self) -> bool {
        !matches!(self.kind, EffectKind::Changed | EffectKind::Held | EffectKind::Standing)
    }

    /// Whether data is lost without an order for this node.
    pub fn needs_consent(&self) -> bool {
        self.loses_data() && self.kind != EffectKind::Ordered
    }
}

impl std::fmt::Display for DiskEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DiskEffect { layout, now, node, .. } = self;
        match self.kind {
            EffectKind::Standing if layout.is_empty() => write!(
                f,
                "the next boot has the order to prepare the disk, and no layout for it: {now}; to cancel the order: rackstrap node \
                 reprep {node} --cancel"
            ),
            EffectKind::Standing => write!(
                f,
                "the next boot has the order to prepare the disk for layout {layout}: {now}; to cancel the order: rackstrap node \
                 reprep {node} --cancel"
            ),
            EffectKind::Prepare => write!(f, "the next boot prepares the disk for layout {layout} and loses {now}"),
            EffectKind::Ordered if !self.partitions.is_empty() => write!(
                f,
                "the next boot makes the file system of {} again, as ordered, and loses what is on it ({now}); to keep it: rackstrap node reprep \
                 {node} --cancel",
                self.partitions.join(", ")
            ),
            EffectKind::Ordered => write!(
                f,
                "the next boot prepares the disk for layout {layout}, as ordered, and loses {now}; to keep it: rackstrap node reprep \
                 {node} --cancel"
            ),
            EffectKind::Wipe => write!(
                f,
                "the next boot overwrites {now} with layout {layout}, as its 'wipe' says"
            ),
            EffectKind::Held => write!(
                f,
                "layout {layout} would lose {now}, and this is not confirmed: the next boot treats the disk as \
                 before; to prepare the disks: rackstrap reload --reprep, or for some nodes: rackstrap node reprep NODES, with --wipe-foreign where the disk is \
                 not ours"
            ),
            EffectKind::Changed => write!(
                f,
                "layout {layout} changed under the same version: the disk is kept, and the node is degraded; raise \
                 its version to prepare the disk again, or restore the old layout"
            ),
        }?;
        match self.kind {
            EffectKind::Wipe | EffectKind::Held if self.ordered => write!(
                f,
                "; there is also an order to prepare it; to cancel that: rackstrap node reprep {node} --cancel"
            ),
            _ => Ok(()),
        }
    }
}

/// The layouts that `site` has for `node`, in their order; empty if it has none.
pub(super) fn policies_of<'a>(site: &'a Site, node: &Node) -> Vec<&'a LayoutPolicy> {
    let settings = Settings::of_node(site, node, |_| ());
    let names = settings.text(|p| &p.layout).unwrap_or_default();
    let all = names.split_ascii_whitespace().map(|name| site.layouts.get(name));
    // Without its first layout a node leaves all disks alone.
    let mut all = all.peekable();
    match all.peek() {
        Some(Some(_)) => all.flatten().collect(),
        _ => Vec::new(),
    }
}

/// The effect of the next boot of `node` on its disks under `site`; none if there is no order and the boot keeps the disks,
/// prepares blank ones, or leaves them alone.
pub(super) fn disk_effect(site: &Site, node: &Node, disk: Option<&NodeDisk>) -> Option<DiskEffect> {
    // Nothing is known to be lost on a node that never reported a disk.
    let disk = disk?;
    match policies_of(site, node).as_slice() {
        [] => layout_effect(None, node, disk),
        policies => {
            let effects = policies.iter().enumerate();
            let effects =
                effects.map(|(index, policy)| layout_effect(Some(policy), node, &disk.of_layout(policies, index)));
            together(effects.flatten().collect())
        }
    }
}

/// The effect on the disk of one layout; without a layout disks are left alone.
fn layout_effect(policy: Option<&LayoutPolicy>, node: &Node, disk: &NodeDisk) -> Option<DiskEffect> {
    let order = disk.order.as_ref();
    let effect = |kind, layout: String, now: String| {
        Some(DiskEffect {
            node: node.name.clone(),
            kind,
            layout,
            now,
            ordered: order.is_some(),
            partitions: Vec::new(),
        })
    };
    let standing = |layout: String, now: String| order.and_then(|_| effect(EffectKind::Standing, layout, now));
    let Some(policy) = policy else {
        let now = "the disk is left alone, and the order is over".to_owned();
        return standing(String::new(), now);
    };
    let layout = &policy.layout;
    let name = format!("{} v{}", layout.name, layout.version);
    let facts = &disk.state.facts;
    if facts.problem == Some(DiskProblem::Foreign) {
        let now = format!("{} on {}", facts.foreign, disk.state.device);
        return match order.is_some_and(|order| order.wipe_foreign) {
            true => effect(EffectKind::Ordered, name, now),
            false if policy.wipe == Wipe::Always || policy.wipe == Wipe::Known && may_be_leftover(facts) => {
                effect(EffectKind::Wipe, name, now)
            }
            false => standing(
                name,
                format!("{now} is data that rackstrap did not write, and is kept without --wipe-foreign"),
            ),
        };
    }
    let Some(marker) = &disk.marker else {
        return match unknown_content(disk) {
            Some(now) if order.is_some_and(|order| order.wipe_foreign) => effect(EffectKind::Ordered, name, now),
            // What was not inspected yet may have a known format.
            Some(now) if policy.wipe != Wipe::Ours => effect(EffectKind::Wipe, name, now),
            Some(now) => standing(
                name,
                format!("it loses {now}, unless rackstrap did not write that data"),
            ),
            None => standing(name, "nothing is known to be lost".to_owned()),
        };
    };
    let same = marker.layout == layout.name && marker.version == layout.version;
    let is_its = |name: &&String| layout.partitions.iter().any(|partition| partition.name == **name);
    let partitions = |order: &DiskOrder| -> Vec<String> { order.partitions.iter().filter(is_its).cloned().collect() };
    if let Some(order) = order.filter(|order| order.partitions.is_empty() || same && !partitions(order).is_empty()) {
        let effect = effect(EffectKind::Ordered, name, now(disk));
        let partitions = partitions(order);
        return effect.map(|effect| DiskEffect { partitions, ..effect });
    }
    if !same {
        return effect(EffectKind::Prepare, name, now(disk));
    }
    match marker.digest.is_empty() || marker.digest == policy.digest {
        true => None,
        false => effect(EffectKind::Changed, name, now(disk)),
    }
}

/// Whether `wipe = "known"` may apply to foreign data. An older agent does not report that, nor the properties of its disk, and the node's next
/// agent may be newer.
fn may_be_leftover(facts: &DiskFacts) -> bool {
    facts.leftover || facts.about.is_empty()
}

/// What may be on a disk without a marker, as far as is known; none if no data is lost there.
fn unknown_content(disk: &NodeDisk) -> Option<String> {
    let DiskState {
        status, device, facts, ..
    } = &disk.state;
    match status {
        // None of the node's boots had a layout, so no agent has inspected its disks.
        DiskStatus::NotWanted => Some("data that no boot has inspected yet".to_owned()),
        // Older agents report their findings as text only.
        DiskStatus::Degraded { reason } if *facts == DiskFacts::default() && !device.is_empty() => {
            Some(format!("what is on {device} ({reason})"))
        }
        _ => None,
    }
}

/// The same for all nodes.
pub fn disk_effects<'a>(
    site: &Site,
    nodes: impl Iterator<Item = &'a Node>,
    disk: impl Fn(&str) -> Option<NodeDisk>,
) -> Vec<DiskEffect> {
    nodes
        .filter_map(|node| disk_effect(site, node, disk(&node.name).as_ref()))
        .collect()
}

/// For people: one line for all nodes with the same text (`r01n[01-04]: the next boot ...`), at most `most` lines.
pub fn describe_effects(effects: &[DiskEffect], most: usize) -> Vec<String> {
    let mut by_text: Vec<(String, NodeSet)> = Vec::new();
    for effect in effects {
        let text = effect.to_string();
        let found = by_text.iter().position(|(known, _)| *known == text);
        let index = found.unwrap_or_else(|| {
            by_text.push((text, NodeSet::default()));
            by_text.len() - 1
        });
        by_text[index].1.extend([effect.node.clone()]);
    }
    // If there are too many different texts, the remaining nodes are named without theirs.
    let rest = by_text.split_off(most.min(by_text.len()));
    let mut lines: Vec<String> = by_text
        .into_iter()
        .map(|(text, nodes)| format!("{}: {text}", nodes.fold()))
        .collect();
    let rest: NodeSet = rest.iter().flat_map(|(_, nodes)| nodes.iter()).collect();
    if !rest.is_empty() {
        let rest = rest.fold();
        lines.push(format!("{rest}: their disks too; for each: rackstrap explain NODE"));
    }
    lines
}

/// Describes the layouts of `site` that have the version of a layout in use (given as name, version and digest) but another
/// content.
pub fn changed_layouts<'a>(site: &Site, in_use: impl Iterator<Item = (&'a str, u32, &'a str)>) -> Vec<String> {
    let changed = in_use.filter(|(name, version, digest)| {
        let policy = site.layouts.get(*name);
        policy.is_some_and(|new| new.layout.version == *version && new.digest != *digest)
    });
    let text = |(name, version, _)| {
        format!(
            "layout {name} v{version} changed under the same version: disks that have it are kept as they are, and their nodes are \
             degraded at the next boot; write version = {} to have the disks prepared again",
            u64::from(version) + 1
        )
    };
    changed.map(text).collect()
}

/// `scratch v1: /tmp 38 GB used, /var 2 GB used`.
fn now(disk: &NodeDisk) -> String {
    let (what, used) = (what(disk), used(disk));
    let is_known = disk.marker.is_some() || !disk.state.facts.foreign.is_empty();
    match used.is_empty() || !is_known {
        true => what,
        false => format!("{what}: {used}"),
    }
}

/// `scratch v1 and data v2`, foreign data, or `no known data`.
pub(super) fn what(disk: &NodeDisk) -> String {
    let foreign = &disk.state.facts.foreign;
    let mut all = Vec::new();
    if disk.marker.is_none() && !foreign.is_empty() {
        all.push(foreign.clone());
    }
    let markers = (disk.marker.iter()).chain(disk.more.values().map(|other| &other.marker));
    all.extend(markers.map(|marker| format!("{} v{}", marker.layout, marker.version)));
    match all.is_empty() {
        true => "no known data".to_owned(),
        false => all.join(" and "),
    }
}

/// `/tmp 38 GB used, /var 2 GB used`; empty if nothing was reported.
pub(super) fn used(disk: &NodeDisk) -> String {
    let used: Vec<String> = disk
        .used
        .iter()
        .map(|space| format!("{} {} used", space.mount, size(space.bytes)))
        .collect();
    used.join(", ")
}

/// `38 GB`, in powers of ten, as disks are sold.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes / unit < 10 && bytes % unit >= unit / 10 => {
            format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10))
        }
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// Why a node's disk was left alone, if a person can correct that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiskTrouble {
    /// The problem.
    pub problem: DiskProblem,
    /// Kernel name of the disk; empty if none was chosen.
    pub device: String,
    /// Name of the layout; empty if the node has one layout only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub layout: String,
    /// Whether that layout is not the node's first one, so that its own section says which disk it is for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub further: bool,
}

impl DiskTrouble {
    /// The trouble with a node's disk; none if there is no trouble, or if the next boot has an order about it.
    pub fn of(disk: &NodeDisk) -> Option<DiskTrouble> {
        match disk.state.layouts.as_slice() {
            [] => DiskTrouble::in_state(&disk.state, disk.order.as_ref()),
            layouts => layouts.iter().enumerate().find_map(|(index, one)| {
                let order = disk
                    .order
                    .as_ref()
                    .filter(|order| order.is_for(&one.layout, index == 0));
                let trouble = DiskTrouble::in_state(&state_of(one), order)?;
                Some(DiskTrouble {
                    layout: one.layout.clone(),
                    further: index > 0,
                    ..trouble
                })
            }),
        }
    }

    fn in_state(state: &DiskState, order: Option<&DiskOrder>) -> Option<DiskTrouble> {
        let problem = state.facts.problem.filter(|problem| *problem != DiskProblem::Unknown)?;
        let ordered = order.is_some_and(|order| order.wipe_foreign);
        (!ordered || problem != DiskProblem::Foreign).then(|| DiskTrouble {
            problem,
            device: state.device.clone(),
            layout: String::new(),
            further: false,
        })
    }

    /// The commands that correct it, for `nodes` (a hostlist).
    pub fn remedy(&self, nodes: &str) -> String {
        let device = &self.device;
        let of = match self.layout.as_str() {
            "" => String::new(),
            layout => format!(" --layout {layout}"),
        };
        match self.problem {
            DiskProblem::Foreign => format!(
                "to lose what is on {device} and give it to rackstrap: `wipefs -a /dev/{device}` on the node, or `rackstrap node reprep \
                 {nodes}{of} --wipe-foreign`; then restart the node"
            ),
            DiskProblem::Missing | DiskProblem::OtherMarker => format!(
                "check the disk and its cable; if the old disk is gone for good: `rackstrap node reprep {nodes}{of} --new-disk`, then \
                 restart the node"
            ),
            DiskProblem::SeveralMarkers => "take one of the disks out, or make one of them blank (it loses its data): `wipefs -a \
                                            /dev/DISK` on the node; then restart the node"
                .to_owned(),
            DiskProblem::OtherName if self.further => format!(
                "change `disk` in [layout.{}] to the disk with the marker, or make that disk blank (it loses its data): `wipefs -a /dev/DISK` on \
                 the node; then restart the node",
                self.layout
            ),
            DiskProblem::OtherName => "write `disk = \"auto\"` into the profile to use the disk with the marker, or make that disk \
                                       blank (it loses its data): `wipefs -a /dev/DISK` on the node; then restart the node"
                .to_owned(),
            DiskProblem::NoFit | DiskProblem::SeveralFit if self.further => format!(
                "`rackstrap explain NODE` lists the disks with their properties; change `disk` in [layout.{}], or add the disk that is missing; \
                 then restart the node",
                self.layout
            ),
            DiskProblem::NoFit | DiskProblem::SeveralFit => format!(
                "`rackstrap explain NODE` lists the disks with their properties; change `disk` of the profile, or of the node: \
                 `rackstrap node set {nodes} disk=serial=SERIAL`; then restart the node"
            ),
            DiskProblem::OtherRule => {
                let place = match self.further {
                    true => format!("in [layout.{}]", self.layout),
                    false => "of the profile".to_owned(),
                };
                format!(
                    "change `disk` {place} so that it fits the disk that the node has; or, to leave that disk and use another one: \
                     `rackstrap node reprep {nodes}{of} --new-disk`, then restart the node"
                )
            }
            DiskProblem::OneSerial if self.further => format!(
                "take one of the disks out, or name the place of the right one by `disk` in [layout.{}], and \
                 `rackstrap node reprep {nodes}{of} --new-disk`; then restart the node",
                self.layout
            ),
            DiskProblem::OneSerial => format!(
                "take one of the disks out, or name the place of the right one: `rackstrap node set {nodes} disk=by-path=NAME` and \
                 `rackstrap node reprep {nodes}{of} --new-disk`; then restart the node"
            ),
            DiskProblem::Unknown => "update the daemon, which is older than the node's agent".to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
