//! The rows of `rackstrap status`: one for each node.

use crate::api::{BootOrderRow, StatusRow};
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::ImageVersion;
use rackstrap_image::permissive_args;
use rackstrap_model::{
    decide::World,
    disks::{DiskTrouble, disk_size},
    inventory::{Node, Settings},
};
use rackstrap_registries::{
    boots::{Boot, Boots},
    timeline::{NodeStatus, Recorder},
};
use rackstrap_wire::{DiskState, DiskStatus, Hardware, LayoutDisk, MountedPartition, Uefi};
use std::sync::Arc;

/// The rows of all nodes, by name, without unknown machines.
pub fn status(world: &World, recorder: &Recorder, boots: &Boots, now: Timestamp) -> Vec<StatusRow> {
    let nodes = world.inventory.iter().map(|node| {
        let status = NodeStatus::of(world, recorder, boots, &node.name, now);
        let boot = status.last_boot().cloned();
        let permissive = boot.as_ref().is_some_and(|boot| boots_permissive(world, node, boot));
        let known = boots.disks().get(&node.name);
        let next = boots.disks().next_effect(world.disk_rules(), node);
        let disk = boot.as_ref().and_then(|boot| boot.disk.as_ref());
        let uefi = status.hardware().and_then(|hardware| hardware.uefi.as_ref());
        let order = uefi.and_then(boot_order);
        let foreign = uefi.and_then(foreign_start);
        let stale = status.state.is_up() && boot.as_ref().is_some_and(|boot| is_stale(world, node, boot));
        let ordered = boots.orders().get(&node.name).map(BootOrderRow::from);
        let remarks = [
            ordered.as_ref().map(BootOrderRow::describe),
            permissive.then(|| "SELinux permissive".to_owned()),
            order,
            foreign,
            stale.then(|| STALE.to_owned()),
        ];
        let remark = remarks.into_iter().flatten().collect::<Vec<_>>().join("; ");
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
            remark,
            order: ordered,
            retries: status.retries.current,
        }
    });
    nodes.collect()
}

/// The remark about a node whose settings changed.
const STALE: &str = "new settings at its next boot";

/// Whether the node has other settings now than at that boot.
pub fn is_stale(world: &World, node: &Node, boot: &Boot) -> bool {
    let now = || Settings::of_node(&world.site, node, |_| ()).digest();
    boot.settings.is_some_and(|then| then != now())
}

/// How the boot order of UEFI firmware differs from the network first; none if it does not.
fn boot_order(uefi: &Uefi) -> Option<String> {
    match uefi.before_network.as_slice() {
        _ if !uefi.network => Some("boot order: no network".to_owned()),
        [] => None,
        [first, ..] => Some(format!("boot order: {first} before the network")),
    }
}

/// The system of a disk that starts by itself: the firmware started the machine by another entry than the network's, or tries one first, and a
/// disk has an EFI system partition that is not rackstrap's.
fn foreign_start(uefi: &Uefi) -> Option<String> {
    let partitions = foreign_esps(uefi)?;
    match &uefi.started_by {
        Some(entry) if !entry.network => Some(format!("started by {}, not by the network; {partitions}", entry.name)),
        _ if !uefi.before_network.is_empty() => Some(partitions),
        _ => None,
    }
}

/// The EFI system partitions that are not rackstrap's, for people.
fn foreign_esps(uefi: &Uefi) -> Option<String> {
    let names = uefi.foreign_esps.join(", ");
    (!names.is_empty()).then(|| format!("EFI system partition of another system: {names}"))
}

/// The boot entry by which the firmware of a node started it last, and other systems on its disks that firmware can start; empty if neither is
/// known.
pub fn describe_start(hardware: Option<&Hardware>) -> String {
    let Some(uefi) = hardware.and_then(|hardware| hardware.uefi.as_ref()) else {
        return String::new();
    };
    let entry = uefi.started_by.as_ref().map(|entry| match entry.network {
        true => format!("{}, from the network", entry.name),
        false => format!("{}, not from the network", entry.name),
    });
    entry
        .into_iter()
        .chain(foreign_esps(uefi))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The boot order of a node's UEFI firmware as its agent reported it last, and whether the agent puts the network first; empty on a BIOS.
pub fn describe_boot_order(hardware: Option<&Hardware>, network_first: bool) -> String {
    let uefi = hardware.map(|hardware| hardware.uefi.as_ref());
    let order = match uefi {
        Some(None) => return String::new(),
        None if !network_first => return String::new(),
        None => "not reported yet".to_owned(),
        Some(Some(uefi)) if !uefi.network && network_first => {
            return "no entry for the network, which the agent would put first (firmware = \"network-first\"): switch on network boot in \
                    the firmware's setup"
                .to_owned();
        }
        Some(Some(uefi)) if !uefi.network => "no entry for the network".to_owned(),
        Some(Some(uefi)) if uefi.before_network.is_empty() => "the network first".to_owned(),
        Some(Some(uefi)) => format!("{} before the network", uefi.before_network.join(", ")),
    };
    let asked = match network_first {
        true => "the agent puts the network first (firmware = \"network-first\")",
        false => "the agent leaves it (no firmware = \"network-first\" in its profiles)",
    };
    format!("{order}; {asked}")
}

/// Whether the image of the boot enforces SELinux, and the nodes of the image boot permissive.
fn boots_permissive(world: &World, node: &Node, boot: &Boot) -> bool {
    let enforces = |version: &Arc<ImageVersion>| version.enforces_selinux;
    world.images.of_plan(&boot.plan).is_some_and(enforces) && {
        let settings = Settings::of_node(&world.site, node, |_| ());
        let given = settings.text(|p| &p.kernel_args).unwrap_or_default();
        permissive_args(given) != given
    }
}

/// A disk in a few words: `/tmp and /var on vda (prepared: blank -> scratch v1)`, and `; unused: sdb 1.9 TB (blank)` where
/// there are further ones.
fn describe_disk(disk: &DiskState) -> String {
    let unused = disk.facts.unused.iter();
    let unused: Vec<String> = unused
        .map(|other| format!("{} {} ({})", other.device, disk_size(other.size), other.what))
        .collect();
    let own = match disk.layouts.as_slice() {
        [] => describe_own(disk),
        layouts => {
            let each: Vec<String> = layouts.iter().map(|one| describe_layout(one, &disk.mounts)).collect();
            each.join("; ")
        }
    };
    match unused.is_empty() {
        true => own,
        false => format!("{own}; unused: {}", unused.join(", ")),
    }
}

/// The disk of one of several layouts: `/data on vdb (kept: data v2)`.
fn describe_layout(one: &LayoutDisk, mounts: &[MountedPartition]) -> String {
    let is_its = |mounted: &&MountedPartition| one.partitions.contains(&mounted.name);
    let own = describe_own(&DiskState {
        status: one.status.clone(),
        device: one.device.clone(),
        mounts: mounts.iter().filter(is_its).cloned().collect(),
        ..DiskState::default()
    });
    match &one.status {
        DiskStatus::Degraded { .. } => format!("layout {}: {own}", one.layout),
        _ => own,
    }
}

fn describe_own(disk: &DiskState) -> String {
    let mounted = disk.mounts.iter().filter_map(|m| match (&m.mount, m.encrypted) {
        (Some(mount), true) => Some(format!("{mount} (encrypted)")),
        (mount, _) => mount.clone(),
    });
    let mounts: Vec<String> = mounted.collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::{FileSystem, StartedBy};

    #[test]
    fn the_boot_order_is_shown_with_what_the_agent_does_to_it() {
        let of = |uefi: Option<Uefi>, network_first| {
            let hardware = Hardware {
                uefi,
                ..Hardware::default()
            };
            describe_boot_order(Some(&hardware), network_first)
        };
        let order = |before: &[&str]| {
            Some(Uefi {
                network: true,
                before_network: before.iter().map(|name| (*name).to_owned()).collect(),
                ..Uefi::default()
            })
        };
        let left = "the agent leaves it (no firmware = \"network-first\" in its profiles)";
        let put = "the agent puts the network first (firmware = \"network-first\")";
        assert_eq!(of(order(&[]), false), format!("the network first; {left}"));
        assert_eq!(
            of(order(&["debian", "Windows"]), true),
            format!("debian, Windows before the network; {put}")
        );
        assert_eq!(
            of(Some(Uefi::default()), false),
            format!("no entry for the network; {left}")
        );
        let remedy = of(Some(Uefi::default()), true);
        assert!(
            remedy.starts_with("no entry for the network")
                && remedy.contains("the firmware's setup")
                && !remedy.contains(put),
            "{remedy}"
        );
        assert_eq!(of(None, true), "", "a BIOS");
        assert_eq!(describe_boot_order(None, true), format!("not reported yet; {put}"));
        assert_eq!(describe_boot_order(None, false), "");
    }

    #[test]
    fn a_disk_of_another_system_is_named_where_it_starts_by_itself() {
        let mut uefi = Uefi {
            network: true,
            ..Uefi::default()
        };
        let shown = |uefi: &Uefi| {
            let hardware = Hardware {
                uefi: Some(uefi.clone()),
                ..Hardware::default()
            };
            (foreign_start(uefi), describe_start(Some(&hardware)))
        };
        assert_eq!(shown(&uefi), (None, String::new()), "from an older agent");
        let by = |name: &str, network| {
            Some(StartedBy {
                name: name.to_owned(),
                network,
            })
        };
        // The loader that rackstrap wrote to the disk starts by itself on purpose.
        uefi.started_by = by("UEFI Misc Device", false);
        assert_eq!(
            shown(&uefi),
            (None, "UEFI Misc Device, not from the network".to_owned())
        );

        uefi.foreign_esps = vec!["sda1".to_owned(), "sdb2".to_owned()];
        let names = "EFI system partition of another system: sda1, sdb2";
        uefi.started_by = by("debian", false);
        assert_eq!(
            shown(&uefi),
            (
                Some(format!("started by debian, not by the network; {names}")),
                format!("debian, not from the network; {names}")
            )
        );
        // A disk that the firmware does not try does no harm.
        uefi.started_by = by("UEFI PXEv4", true);
        assert_eq!(shown(&uefi), (None, format!("UEFI PXEv4, from the network; {names}")));
        uefi.before_network = vec!["debian".to_owned()];
        assert_eq!(shown(&uefi).0.as_deref(), Some(names));
        assert_eq!(describe_start(None), "");
    }

    #[test]
    fn each_of_several_layouts_is_named_with_its_disk() {
        let mount = |device: &str, name: &str| MountedPartition {
            name: name.into(),
            device: device.into(),
            fs: FileSystem::Ext4,
            uuid: String::new(),
            mount: Some(format!("/{name}")),
            options: String::new(),
            size: 0,
            encrypted: device.contains("mapper"),
        };
        let one = |layout: &str, device: &str, partition: &str, status| LayoutDisk {
            layout: layout.to_owned(),
            status,
            device: device.to_owned(),
            partitions: vec![partition.to_owned()],
            ..LayoutDisk::default()
        };
        let kept = |layout: &str| DiskStatus::Kept {
            layout: layout.to_owned(),
        };
        let mut disk = DiskState {
            // The device of an encrypted partition does not tell which disk it is on.
            mounts: vec![
                mount("/dev/mapper/rackstrap-tmp", "tmp"),
                mount("/dev/nvme0n10p1", "data"),
            ],
            layouts: vec![
                one("scratch", "nvme0n1", "tmp", kept("scratch v1")),
                one("data", "nvme0n10", "data", kept("data v3")),
            ],
            ..DiskState::default()
        };
        assert_eq!(
            describe_disk(&disk),
            "/tmp (encrypted) on nvme0n1 (kept: scratch v1); /data on nvme0n10 (kept: data v3)"
        );
        disk.mounts.truncate(1);
        disk.layouts[1] = one(
            "data",
            "",
            "data",
            DiskStatus::Degraded {
                reason: "no disk fits".to_owned(),
            },
        );
        assert_eq!(
            describe_disk(&disk),
            "/tmp (encrypted) on nvme0n1 (kept: scratch v1); layout data: degraded: no disk fits"
        );
    }

    #[test]
    fn disks_in_a_few_words() {
        let mount = |path: Option<&str>| MountedPartition {
            name: "p".into(),
            device: "/dev/vda1".into(),
            fs: FileSystem::Ext4,
            uuid: String::new(),
            mount: path.map(str::to_owned),
            options: String::new(),
            size: 0,
            encrypted: false,
        };
        let disk = |status, device: &str, mounts: &[Option<&str>]| {
            describe_disk(&DiskState {
                status,
                device: device.into(),
                size: 0,
                mounts: mounts.iter().map(|path| mount(*path)).collect(),
                ..DiskState::default()
            })
        };
        let prepared = DiskStatus::Prepared {
            from: "blank".into(),
            to: "scratch v1".into(),
        };
        assert_eq!(
            disk(prepared, "vda", &[Some("/tmp"), None, Some("/var")]),
            "/tmp and /var on vda (prepared: blank -> scratch v1)"
        );
        let kept = DiskStatus::Kept {
            layout: "scratch v1".into(),
        };
        assert_eq!(
            disk(kept.clone(), "vda", &[Some("/tmp")]),
            "/tmp on vda (kept: scratch v1)"
        );
        assert_eq!(disk(kept, "vda", &[]), "vda (kept: scratch v1)");
        let none = DiskStatus::Degraded {
            reason: "no disk found".into(),
        };
        assert_eq!(disk(none, "", &[]), "degraded: no disk found");
        assert_eq!(disk(DiskStatus::NotWanted, "", &[]), "none wanted");
    }
}
