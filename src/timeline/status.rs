//! The rows of `rackstrap status`: one for each node.

use super::{NodeState, NodeStatus, Recorder};
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

/// One row of `rackstrap status`: a node, or an unknown machine that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRow {
    /// Node name, or the hardware address of an unknown machine.
    pub node: String,
    /// Where the node is.
    pub state: NodeState,
    /// When the state began; none if the node was never heard of.
    pub since: Option<Timestamp>,
    /// Image version of its boot; none if it never booted.
    pub image: Option<ImageRef>,
    /// Address of the node, or of the lease of an unknown machine; none if it has no lease.
    pub ipaddr: Option<std::net::Ipv4Addr>,
    /// Its disk in a few words; empty if no agent reported it.
    pub disk: String,
    /// What its next boot does to the disk other than keeping it; empty if nothing.
    #[serde(default)]
    pub next_disk: String,
    /// Why its disk was left alone; none if a person cannot correct that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_trouble: Option<DiskTrouble>,
    /// The last failure, retry or lack; why an unknown machine is not placed automatically. Empty if there is none.
    pub last_error: String,
    /// When it was last heard of; none if it never was.
    pub heard: Option<Timestamp>,
    /// Id of the boot that it is in, empty if none is pinned.
    pub boot: String,
    /// The difference from what its image asks for, in a few words (`SELinux permissive`); empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
}

/// The rows of all nodes, by name, without unknown machines.
pub fn status(world: &World, recorder: &Recorder, boots: &Boots, now: Timestamp) -> Vec<StatusRow> {
    let nodes = world.inventory.iter().map(|node| {
        let status = NodeStatus::of(world, recorder, boots, &node.name, now);
        let boot = status.last_boot().cloned();
        let permissive = boot.as_ref().is_some_and(|boot| boots_permissive(world, node, boot));
        let known = boots.disks().get(&node.name);
        let next = boots.disks().next_effect(world.disk_rules(), node);
        let disk = boot.as_ref().and_then(|boot| boot.disk.as_ref());
        StatusRow {
            node: node.name.clone(),
            state: status.state,
            since: status.since,
            image: status.version,
            ipaddr: Some(node.ipaddr),
            disk: disk.map(describe_disk).unwrap_or_default(),
            next_disk: next.map(|effect| effect.to_string()).unwrap_or_default(),
            disk_trouble: known.as_ref().and_then(DiskTrouble::of),
            last_error: status.reason,
            heard: status.heard,
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

/// Whether the image of the boot enforces SELinux, and the nodes of the image boot permissive.
fn boots_permissive(world: &World, node: &Node, boot: &Boot) -> bool {
    let enforces = |version: &Arc<ImageVersion>| version.enforces_selinux();
    world.images.get(boot.image()).is_some_and(enforces) && {
        let settings = Settings::of(&world.site, &node.profiles, |_| ());
        let given = settings.text(|p| &p.kernel_args).unwrap_or_default();
        permissive_args(given) != given
    }
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
