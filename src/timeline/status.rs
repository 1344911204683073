//! One row a node: what `rackstrap status` shows.

use super::{NodeState, Recorder, Subject};
use crate::{
    boots::{Boot, Boots, DiskTrouble, disk_size},
    decide::World,
    inventory::{Node, Settings},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_image::{ImageVersion, permissive_args};
use rackstrap_wire::{DiskState, DiskStatus, ImageRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A node or a waiting machine, at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRow {
    /// Node name, or the hardware address of an unknown machine.
    pub node: String,
    /// Where it is.
    pub state: NodeState,
    /// Since when; none if it was never heard of.
    pub since: Option<Timestamp>,
    /// Image version of its boot.
    pub image: Option<ImageRef>,
    /// Address; of an unknown machine, the one that it was lent.
    pub ipaddr: Option<std::net::Ipv4Addr>,
    /// What its disk is, in a few words; empty if nobody knows.
    pub disk: String,
    /// What its next boot does to the disk other than keeping it; empty if nothing.
    #[serde(default)]
    pub next_disk: String,
    /// Why its disk was left alone, if a person can mend that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_trouble: Option<DiskTrouble>,
    /// The last failure, retry or lack; why an unknown machine is not racked by itself. Empty if there is none.
    pub last_error: String,
    /// When it was last heard of.
    pub heard: Option<Timestamp>,
    /// Id of the boot that it is in, empty if none is pinned.
    pub boot: String,
    /// What differs from what its image asks for, in a few words (`SELinux permissive`); empty if nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
}

/// All nodes by name.
pub fn status(world: &World, recorder: &Recorder, boots: &Boots, now: Timestamp) -> Vec<StatusRow> {
    recorder.settle(now);
    let nodes = world.inventory.iter().map(|node| {
        let heartbeat = world.site.limits.heartbeat_secs;
        let standing = recorder.standing_at(&Subject::Node(node.name.clone()), now, heartbeat);
        let standing = standing.unwrap_or_default();
        let (state, since) = (standing.state, standing.since);
        // While firmware asks, no boot is pinned yet: the one before is what the node had.
        let boot = boots.get(&standing.boot).or_else(|| boots.current(&node.name));
        let last_error = match standing.last_error.is_empty() {
            true => gone_back(world, &node.name).unwrap_or_default(),
            false => standing.last_error,
        };
        let permissive = boot.as_ref().is_some_and(|boot| boots_permissive(world, node, boot));
        let known = boots.disks().get(&node.name);
        let next = boots.disks().next_effect(world.disk_rules(), node);
        StatusRow {
            next_disk: next.map(|effect| effect.to_string()).unwrap_or_default(),
            disk_trouble: known.as_ref().and_then(DiskTrouble::of),
            node: node.name.clone(),
            state,
            since: (state != NodeState::Absent).then_some(since),
            image: boot.as_ref().map(|boot| boot.image().clone()),
            ipaddr: Some(node.ipaddr),
            disk: boot
                .as_ref()
                .and_then(|b| b.disk.as_ref())
                .map(describe_disk)
                .unwrap_or_default(),
            last_error,
            heard: (standing.heard.0 > 0).then_some(standing.heard),
            boot: boot.map(|boot| boot.plan.id.clone()).unwrap_or_default(),
            remark: if permissive {
                "SELinux permissive".to_owned()
            } else {
                String::new()
            },
        }
    });
    nodes.collect()
}

/// True if the image of the boot enforces SELinux, and its nodes are told not to.
fn boots_permissive(world: &World, node: &Node, boot: &Boot) -> bool {
    let enforces = |version: &Arc<ImageVersion>| version.enforces_selinux();
    world.images.get(boot.image()).is_some_and(enforces) && {
        let settings = Settings::of(&world.site, &node.profiles, |_| ());
        let given = settings.text(|p| &p.kernel_args).unwrap_or_default();
        permissive_args(given) != given
    }
}

/// Why the node runs another version than it is to have, if that is so.
fn gone_back(world: &World, node: &str) -> Option<String> {
    let trial = world
        .assignments
        .trials
        .get(node)
        .filter(|trial| trial.back.is_some())?;
    Some(format!("{}: back on {}", trial.verdict(), trial.good))
}

/// A disk in a few words: `/tmp and /var on vda (prepared: blank -> scratch v1)`, and `; unused: sdb 1.9 TB (blank)` where
/// there are further ones.
pub fn describe_disk(disk: &DiskState) -> String {
    let unused = disk.facts.unused.iter();
    let unused: Vec<String> = unused
        .map(|other| format!("{} {} ({})", other.device, disk_size(other.size), other.what))
        .collect();
    match unused.is_empty() {
        true => describe_own(disk),
        false => format!("{}; unused: {}", describe_own(disk), unused.join(", ")),
    }
}

fn describe_own(disk: &DiskState) -> String {
    let mounts: Vec<&str> = disk.mounts.iter().filter_map(|m| m.mount.as_deref()).collect();
    let what = match &disk.status {
        DiskStatus::NotWanted => return "none wanted".into(),
        DiskStatus::Kept { layout } => format!("kept: {layout}"),
        DiskStatus::Prepared { from, to } => format!("prepared: {from} -> {to}"),
        DiskStatus::Degraded { reason } => format!("degraded: {reason}"),
    };
    match (mounts.split_last(), disk.device.is_empty()) {
        (_, true) => what,
        (None, false) => format!("{} ({what})", disk.device),
        (Some((last, [])), false) => format!("{last} on {} ({what})", disk.device),
        (Some((last, others)), false) => format!("{} and {last} on {} ({what})", others.join(", "), disk.device),
    }
}
