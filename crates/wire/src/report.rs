//! The agent's reports to the server.

use crate::{
    CheckResult, DiskHealth, DiskMarker, FileSystem, HwAddr, LayoutDisk, MOST_BOOT_ENTRIES, MOST_FOREIGN_ESPS,
    MOST_LAYOUTS, RestartReport, Uefi, text::one_line, users::UsersReport,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The agent's phases, in order.
///
/// The root precedes the disk, because `mkfs` and `fsck` come from the image's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// /proc, /sys, /dev, /run.
    EarlyMounts,
    /// Reading the kernel command line.
    CommandLine,
    /// Loading kernel modules by modalias.
    Modules,
    /// Finding the card that booted, link up, address, router.
    Network,
    /// Fetching the plan.
    Plan,
    /// Mounting the root read-only.
    Root,
    /// Checking the marker, keeping or preparing the disk, mounting its file systems.
    Disk,
    /// The writable layer and the node's own files.
    Overlay,
    /// Handing over to the operating system.
    SwitchRoot,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 9] = [
        Phase::EarlyMounts,
        Phase::CommandLine,
        Phase::Modules,
        Phase::Network,
        Phase::Plan,
        Phase::Root,
        Phase::Disk,
        Phase::Overlay,
        Phase::SwitchRoot,
    ];

    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::EarlyMounts => "early-mounts",
            Phase::CommandLine => "command-line",
            Phase::Modules => "modules",
            Phase::Network => "network",
            Phase::Plan => "plan",
            Phase::Root => "root",
            Phase::Disk => "disk",
            Phase::Overlay => "overlay",
            Phase::SwitchRoot => "switch-root",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of a phase, or of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The phase started.
    Started,
    /// A step inside the phase is complete; the detail names it (`disk: step table`).
    Step,
    /// The phase is complete.
    Done,
    /// The phase is complete, but only in part; the detail says what is missing.
    Degraded,
    /// An attempt failed; another follows.
    Retrying,
    /// All attempts failed; the machine restarts.
    Failed,
}

/// One event of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// Number within the boot, from 1. If the answer to a report is lost, the report is sent again, and this number shows the server
    /// which events it has. 0 from an agent that does not number events.
    #[serde(default)]
    pub seq: u64,
    /// The phase.
    pub phase: Phase,
    /// Its result.
    pub outcome: Outcome,
    /// Milliseconds since the kernel started (CLOCK_BOOTTIME), because nodes may have no clock.
    pub uptime_ms: u64,
    /// How long the phase took, in milliseconds; 0 for `Started`.
    pub took_ms: u64,
    /// Attempt, from 1.
    pub attempt: u32,
    /// For people; at most 500 bytes.
    pub detail: String,
    /// Set if the detail is a line of a console, in which case the outcome is [`Outcome::Step`]. A server that does not know
    /// this field shows the line as a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleLine>,
}

/// Where a line of a console is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleLine {
    /// The kernel of this boot.
    Kernel,
    /// The kernel of an earlier boot, which crashed: from the machine's persistent store.
    Crash,
    /// A source that only a newer agent knows.
    #[serde(other)]
    Other,
}

/// `POST /v1/report/{id}`: events since the last successful report, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The boot's token.
    pub token: String,
    /// At most 256 events.
    pub events: Vec<AgentEvent>,
}

/// `POST /v1/overlay/{id}`: the state of the disk, so that fstab contains only what exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayRequest {
    /// The boot's token. The server answers with secrets once.
    pub token: String,
    /// The disk after the disk phase.
    pub disk: DiskState,
    /// The machine's hardware.
    pub hardware: Hardware,
    /// Whether the agent sets up [`crate::Plan::networks`]; older ones do not.
    #[serde(default)]
    pub networks: bool,
}

/// The hardware of a machine, as the agent found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Processors online.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Maker, product and serial from DMI; empty if there is none.
    pub vendor: String,
    /// Product name.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// All hardware addresses.
    pub hwaddrs: Vec<HwAddr>,
    /// Names of the kernel modules that its devices request by modalias, sorted; at most [`MOST_MODULES`].
    #[serde(default)]
    pub modules: Vec<String>,
    /// What UEFI firmware says; none on a BIOS, and from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<Uefi>,
}

/// Most modules of a [`Hardware`].
pub const MOST_MODULES: usize = 512;

/// Longest name of a kernel module: MODULE_NAME_LEN of linux/moduleparam.h is 64 minus a long, with the NUL.
const LONGEST_MODULE: usize = 64;

/// Most bytes of a name or number that a node reports.
const TEXT: usize = 128;
/// Most bytes of a reason, which may name several disks.
const REASON: usize = 500;

/// Cuts a text of a node, and removes control characters that would act on a terminal.
fn cut(text: &mut String, most: usize) {
    *text = one_line(text, most);
}

/// Like [`cut`], for a name in commands that people may run: it also removes characters that are special to a shell.
pub(crate) fn cut_name(text: &mut String) {
    cut(text, TEXT);
    *text = text.replace(
        |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | '!' | ':'),
        "_",
    );
}

impl Hardware {
    /// Most network cards.
    const MOST_CARDS: usize = 64;

    /// The same hardware with limits on the length of texts and on the number of cards and modules, and with valid module names only.
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.vendor, &mut self.product, &mut self.serial] {
            cut(text, TEXT);
        }
        self.hwaddrs.truncate(Self::MOST_CARDS);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        self.modules
            .retain(|name| !name.is_empty() && name.len() <= LONGEST_MODULE && name.bytes().all(plain));
        self.modules.sort();
        self.modules.dedup();
        self.modules.truncate(MOST_MODULES);
        if let Some(uefi) = &mut self.uefi {
            uefi.before_network.truncate(MOST_BOOT_ENTRIES);
            for name in &mut uefi.before_network {
                cut(name, TEXT);
            }
            if let Some(entry) = &mut uefi.started_by {
                cut(&mut entry.name, TEXT);
            }
            uefi.foreign_esps.truncate(MOST_FOREIGN_ESPS);
            uefi.foreign_esps.iter_mut().for_each(cut_name);
        }
        self
    }
}

/// The node's disk after the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// The result of the phase.
    pub status: DiskStatus,
    /// Kernel name of the disk, `vda`; empty without one.
    pub device: String,
    /// Size of the disk in bytes; 0 without one.
    pub size: u64,
    /// Partitions in use.
    pub mounts: Vec<MountedPartition>,
    /// Further facts; empty from an older agent.
    #[serde(default)]
    pub facts: DiskFacts,
    /// What became of each layout, in the plan's order, if the plan has several. The other fields are then about the first one, except that
    /// `status` is degraded if any layout is, and `mounts` has the partitions of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<LayoutDisk>,
}

impl DiskState {
    /// Most partitions in use.
    pub(crate) const MOST_MOUNTS: usize = 64;

    /// The same state with limits on the length of texts and on the number of partitions and disks. Root on a node can report anything, and
    /// all of this is shown to administrators.
    pub fn bounded(mut self) -> Self {
        self.status.cut();
        cut_name(&mut self.device);
        self.layouts.truncate(MOST_LAYOUTS);
        self.layouts = self.layouts.into_iter().map(LayoutDisk::bounded).collect();
        self.mounts.truncate(Self::MOST_MOUNTS);
        for mount in &mut self.mounts {
            cut_name(&mut mount.device);
            cut_name(&mut mount.uuid);
            cut(&mut mount.name, TEXT);
            cut(&mut mount.options, REASON);
            if let Some(place) = &mut mount.mount {
                cut(place, REASON);
            }
        }
        self.facts = self.facts.bounded();
        self
    }
}

impl DiskStatus {
    /// Limits the length of its texts.
    pub(crate) fn cut(&mut self) {
        match self {
            DiskStatus::NotWanted => {}
            DiskStatus::Kept { layout } => cut(layout, TEXT),
            DiskStatus::Prepared { from, to } => {
                cut(from, TEXT);
                cut(to, TEXT);
            }
            DiskStatus::Degraded { reason } => cut(reason, REASON),
        }
    }
}

/// Facts about a disk, apart from the result of the phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// The device's own identity (WWID, serial number), at most 128 bytes; empty if it has none.
    #[serde(default)]
    pub serial: String,
    /// Its properties, as in [`UnusedDisk::about`]; empty without a disk, and from an older agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Its marker after the phase.
    #[serde(default)]
    pub marker: Option<DiskMarker>,
    /// The problem that keeps the node from its disk; none if the node can use it.
    #[serde(default)]
    pub problem: Option<DiskProblem>,
    /// Foreign data on the disk, described for people; empty if there is none.
    #[serde(default)]
    pub foreign: String,
    /// Whether that data has known formats only, so that `wipe = "known"` overwrites it. False from an older agent, which overwrites it in
    /// no case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leftover: bool,
    /// Further fixed disks, at most [`MOST_UNUSED`].
    #[serde(default)]
    pub unused: Vec<UnusedDisk>,
    /// Names of partitions whose file systems were made again by an order ([`DiskPlan::remake`](crate::DiskPlan::remake)), at most
    /// [`MOST_UNUSED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remade: Vec<String>,
}

impl DiskFacts {
    /// The same facts with limits on the length of texts, and with at most [`MOST_UNUSED`] disks.
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.serial, &mut self.foreign] {
            cut(text, TEXT);
        }
        cut(&mut self.about, REASON);
        if let Some(marker) = &mut self.marker {
            for text in [&mut marker.id, &mut marker.layout, &mut marker.digest] {
                cut(text, TEXT);
            }
        }
        self.unused.truncate(MOST_UNUSED);
        self.remade.truncate(MOST_UNUSED);
        self.remade.iter_mut().for_each(cut_name);
        for disk in &mut self.unused {
            cut_name(&mut disk.device);
            cut(&mut disk.what, TEXT);
            cut(&mut disk.about, REASON);
        }
        self
    }
}

/// Most disks of [`DiskFacts::unused`].
pub const MOST_UNUSED: usize = 32;

/// Why the disk phase left disks alone, if an administrator can change that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskProblem {
    /// The disk holds foreign data.
    Foreign,
    /// The disk of the last boot is missing.
    Missing,
    /// Instead of the last boot's disk, one with another marker is there.
    OtherMarker,
    /// Several disks carry a marker.
    SeveralMarkers,
    /// The profile names one disk, and another one carries the marker.
    OtherName,
    /// No disk fits the rule of the profile.
    NoFit,
    /// Several disks fit the rule of the profile, and it does not say which one to take.
    SeveralFit,
    /// The disk of the last boot does not fit the rule of the profile.
    OtherRule,
    /// Several disks have the serial number of the last boot's disk, and none has its marker.
    OneSerial,
    /// A problem that only a newer agent knows.
    #[serde(other)]
    Unknown,
}

/// A disk that is not the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedDisk {
    /// Kernel name.
    pub device: String,
    /// Size in bytes.
    pub size: u64,
    /// `blank`, `scratch v1`, `xfs`, for people.
    pub what: String,
    /// The properties that a rule can name, as the text of a rule (`serial=S4EMNX0R, transport=nvme`); empty from an older agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
}

/// The used space of a file system of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedSpace {
    /// Mount point.
    pub mount: String,
    /// Bytes in use.
    pub bytes: u64,
}

/// The result of the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DiskStatus {
    /// The plan has no layout.
    #[default]
    NotWanted,
    /// The marker was equal; nothing was written.
    Kept {
        /// `scratch v1`.
        layout: String,
    },
    /// The disk was prepared.
    Prepared {
        /// The former content: `blank`, `scratch v1`, `half-prepared scratch v2`, `foreign (ext4)`.
        from: String,
        /// The new layout: `scratch v1`.
        to: String,
    },
    /// The node runs without its local disk, or without parts of it.
    Degraded {
        /// Why, for people: `no disk found`, `vda holds a foreign xfs file system; left untouched`.
        reason: String,
    },
}

/// One partition in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedPartition {
    /// Partition name in the layout.
    pub name: String,
    /// Device, `/dev/vda2`.
    pub device: String,
    /// File system.
    pub fs: FileSystem,
    /// File system UUID, empty if unknown.
    pub uuid: String,
    /// Mount point; none for swap.
    pub mount: Option<String>,
    /// Options as in fstab.
    pub options: String,
    /// Size of the partition in bytes, a part of which its file system uses; 0 if unknown.
    #[serde(default)]
    pub size: u64,
    /// Whether it is encrypted with a key of this boot; false from an older agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

/// `POST /v1/ready/{id}`: the operating system is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// How the agent knows: `systemd reached multi-user.target`.
    pub detail: String,
    /// The results of the plan's checks, at most [`crate::MOST_RESULTS`].
    #[serde(default)]
    pub checks: Vec<CheckResult>,
}

/// `POST /v1/waiting/{id}`: the operating system is up, and some of the plan's checks do not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// The results of the plan's checks so far, at most [`crate::MOST_RESULTS`].
    pub checks: Vec<CheckResult>,
}

/// `POST /v1/heartbeat/{id}`: the node is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Missing mounts and failed checks; empty if all mounts of the disk are as at boot and all checks hold.
    pub trouble: String,
    /// Whether all checks hold; none from a node without checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// The progress of a restart that the server ordered; sent once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartReport>,
    /// The results of the plan's checks, at most [`crate::MOST_RESULTS`]; sent only when they have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<CheckResult>>,
    /// The server's users that the node has; none from a node that cannot fetch users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersReport>,
    /// The used space of the mounted file systems of its disk; empty without any, and from an older agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
    /// The health of its disks, at most [`crate::MOST_HEALTH`]; sent only when it has changed. Faults are in `trouble`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<DiskHealth>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StartedBy;

    #[test]
    fn reports_about_disks_are_shortened_and_cleaned() {
        let evil = format!("sda\u{1b}]0;x\u{7}\n; reboot #{}", "d".repeat(9000));
        let mount = MountedPartition {
            name: evil.clone(),
            device: evil.clone(),
            fs: FileSystem::Ext4,
            uuid: evil.clone(),
            mount: Some(evil.clone()),
            options: evil.clone(),
            size: 1,
            encrypted: false,
        };
        let unused = UnusedDisk {
            device: evil.clone(),
            size: 1,
            what: evil.clone(),
            about: evil.clone(),
        };
        let state = DiskState {
            status: DiskStatus::Degraded { reason: evil.clone() },
            device: evil.clone(),
            size: 1,
            mounts: vec![mount; 5000],
            facts: DiskFacts {
                serial: evil.clone(),
                foreign: evil.clone(),
                about: evil.clone(),
                unused: vec![unused; 5000],
                ..DiskFacts::default()
            },
            layouts: Vec::new(),
        };
        let layout = LayoutDisk {
            layout: evil.clone(),
            status: state.status.clone(),
            device: evil.clone(),
            size: 1,
            partitions: vec![evil.clone(); 50],
            facts: DiskFacts {
                unused: vec![state.facts.unused[0].clone(); 50],
                ..state.facts.clone()
            },
        };
        let state = DiskState {
            layouts: vec![layout; 20],
            ..state
        };
        let hardware = Hardware {
            vendor: evil.clone(),
            product: evil.clone(),
            serial: evil.clone(),
            uefi: Some(Uefi {
                before_network: vec![evil.clone(); 500],
                started_by: Some(StartedBy {
                    name: evil.clone(),
                    network: false,
                }),
                foreign_esps: vec![evil; 500],
                ..Uefi::default()
            }),
            ..Hardware::default()
        };
        let (state, hardware) = (state.bounded(), hardware.bounded());
        for text in [serde_json::to_string(&state), serde_json::to_string(&hardware)].map(Result::unwrap) {
            assert!(text.len() < 200_000, "{}", text.len());
            assert!(!text.contains("\\u001b") && !text.contains("\\n") && !text.contains("\\u0007"));
        }
        // This text becomes part of a command.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/!:".contains(c);
        assert!(
            state.device.starts_with("sda_") && state.device.chars().all(plain),
            "{}",
            state.device
        );
        for device in ["nvme0n1", "mapper/vg-root", "cciss!c0d0", ""] {
            let honest = DiskState {
                device: device.to_owned(),
                ..DiskState::default()
            };
            assert_eq!(honest.clone().bounded(), honest);
        }
    }
}
