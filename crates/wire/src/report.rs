//! What the agent tells the server.

use crate::{CheckResult, DiskMarker, FileSystem, HwAddr, RestartReport, text::one_line, users::UsersReport};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The agent's phases, in the order in which they run.
///
/// The root comes before the disk: `mkfs` and `fsck` are run from the image's own root.
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
    /// Checking the marker; keeping or preparing the disk; mounting its file systems.
    Disk,
    /// The writable layer and the node's own files.
    Overlay,
    /// Handing over to the operating system.
    SwitchRoot,
}

impl Phase {
    /// All phases, in the order in which they run.
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

    /// The name that people see.
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

/// How a phase, or one attempt at it, went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It begins.
    Started,
    /// A step inside it is done; the detail names it (`disk: step table`).
    Step,
    /// It is done.
    Done,
    /// Done, but less than asked for; the detail says what is missing.
    Degraded,
    /// An attempt failed; another follows.
    Retrying,
    /// All attempts failed; the machine restarts.
    Failed,
}

/// One event of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// Number within the boot, from 1. A report whose answer was lost is sent again; by this the server
    /// knows what it has heard. 0 from an agent that does not count.
    #[serde(default)]
    pub seq: u64,
    /// Which phase.
    pub phase: Phase,
    /// How it went.
    pub outcome: Outcome,
    /// Milliseconds since the kernel started (CLOCK_BOOTTIME), as nodes may have no clock.
    pub uptime_ms: u64,
    /// How long the phase took, in milliseconds; 0 for `Started`.
    pub took_ms: u64,
    /// Attempt, from 1.
    pub attempt: u32,
    /// For people; at most 500 bytes.
    pub detail: String,
}

/// `POST /v1/report/{id}`: events since the last report that got through, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The boot's token.
    pub token: String,
    /// At most 256 a report.
    pub events: Vec<AgentEvent>,
}

/// `POST /v1/overlay/{id}`: the disk as it is, so that fstab names only what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayRequest {
    /// The boot's token; secrets go out once for it.
    pub token: String,
    /// The disk as the agent left it.
    pub disk: DiskState,
    /// What the machine is.
    pub hardware: Hardware,
}

/// What the agent found out about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Processors online.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Maker, product and serial from DMI; empty where there is none.
    pub vendor: String,
    /// Product name.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// All hardware addresses found.
    pub hwaddrs: Vec<HwAddr>,
    /// Names of the kernel modules that its devices ask for by their modaliases, sorted; at most [`MOST_MODULES`].
    #[serde(default)]
    pub modules: Vec<String>,
}

/// Most modules of a [`Hardware`].
pub const MOST_MODULES: usize = 512;

/// Longest name of a kernel module: MODULE_NAME_LEN of linux/moduleparam.h is 64 less a long, with its NUL.
const LONGEST_MODULE: usize = 64;

/// Bytes of a name or number that a node says of itself.
const TEXT: usize = 128;

/// Cuts what a node says, and takes out what would act on a terminal.
fn cut(text: &mut String, most: usize) {
    *text = one_line(text, most);
}

/// The same of a name that stands in commands which people are advised to run: nothing that a shell knows is left in it.
fn cut_name(text: &mut String) {
    cut(text, TEXT);
    *text = text.replace(
        |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | '!' | ':'),
        "_",
    );
}

impl Hardware {
    /// Most network cards.
    const MOST_CARDS: usize = 64;

    /// The same with texts of bounded length, and no more cards and modules than a machine has, each module with a name that one may
    /// have.
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
        self
    }
}

/// The node's disk after the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// What happened.
    pub status: DiskStatus,
    /// Kernel name of the disk, `vda`; empty without one.
    pub device: String,
    /// Size of the disk in bytes; 0 without one.
    pub size: u64,
    /// Partitions in use.
    pub mounts: Vec<MountedPartition>,
    /// What else is known; nothing from an older agent.
    #[serde(default)]
    pub facts: DiskFacts,
}

impl DiskState {
    /// Most partitions in use.
    const MOST_MOUNTS: usize = 64;

    /// The same with texts of bounded length, and no more partitions and disks than a node has. Whoever is root on a node may say
    /// anything, and all of this is shown to administrators.
    pub fn bounded(mut self) -> Self {
        /// Bytes of a reason, which may name several disks.
        const REASON: usize = 500;
        match &mut self.status {
            DiskStatus::NotWanted => {}
            DiskStatus::Kept { layout } => cut(layout, TEXT),
            DiskStatus::Prepared { from, to } => {
                cut(from, TEXT);
                cut(to, TEXT);
            }
            DiskStatus::Degraded { reason } => cut(reason, REASON),
        }
        cut_name(&mut self.device);
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

/// What a disk is, apart from what was done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// What the device says of itself (WWID, serial number), at most 128 bytes; empty if it says nothing.
    #[serde(default)]
    pub serial: String,
    /// The marker that it carries now.
    #[serde(default)]
    pub marker: Option<DiskMarker>,
    /// What kind of problem keeps the node from its disk, if one does.
    #[serde(default)]
    pub problem: Option<DiskProblem>,
    /// What somebody else wrote on it, for people; empty if nothing.
    #[serde(default)]
    pub foreign: String,
    /// Further fixed disks, at most [`MOST_UNUSED`].
    #[serde(default)]
    pub unused: Vec<UnusedDisk>,
}

impl DiskFacts {
    /// The same with texts of bounded length, and no more disks than [`MOST_UNUSED`].
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.serial, &mut self.foreign] {
            cut(text, TEXT);
        }
        if let Some(marker) = &mut self.marker {
            for text in [&mut marker.id, &mut marker.layout, &mut marker.digest] {
                cut(text, TEXT);
            }
        }
        self.unused.truncate(MOST_UNUSED);
        for disk in &mut self.unused {
            cut_name(&mut disk.device);
            cut(&mut disk.what, TEXT);
        }
        self
    }
}

/// Most disks of [`DiskFacts::unused`].
pub const MOST_UNUSED: usize = 32;

/// Why the disk phase left disks alone, where an administrator can decide otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskProblem {
    /// The disk holds somebody else's data.
    Foreign,
    /// The disk of the last boot is missing.
    Missing,
    /// A disk with another marker than the last boot's is there in its place.
    OtherMarker,
    /// Several disks carry a marker.
    SeveralMarkers,
    /// The profile names one disk, and another one carries the marker.
    OtherName,
    /// A newer agent's.
    #[serde(other)]
    Unknown,
}

/// A disk that is not the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedDisk {
    /// Kernel name.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// `blank`, `scratch v1`, `xfs`, for people.
    pub what: String,
}

/// How full a file system of the disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedSpace {
    /// Mount point.
    pub mount: String,
    /// Bytes in use.
    pub bytes: u64,
}

/// What the disk phase did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DiskStatus {
    /// The plan names no layout.
    #[default]
    NotWanted,
    /// The marker was equal; nothing was written.
    Kept {
        /// `scratch v1`.
        layout: String,
    },
    /// The disk was prepared.
    Prepared {
        /// What it was: `blank`, `scratch v1`, `half-prepared scratch v2`, `foreign (ext4)`.
        from: String,
        /// What it is: `scratch v1`.
        to: String,
    },
    /// The node runs without (all of) its local disk.
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
    /// Bytes of the partition, of which its file system takes some; 0 if unknown.
    #[serde(default)]
    pub size: u64,
}

/// `POST /v1/ready/{id}`: the operating system is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// What says so: `systemd reached multi-user.target`.
    pub detail: String,
    /// What came of the plan's checks, at most [`crate::MOST_RESULTS`].
    #[serde(default)]
    pub checks: Vec<CheckResult>,
}

/// `POST /v1/waiting/{id}`: the operating system is up, and something that the plan wants of it does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// What came of the plan's checks so far, at most [`crate::MOST_RESULTS`].
    pub checks: Vec<CheckResult>,
}

/// `POST /v1/heartbeat/{id}`: the node is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The boot's token.
    pub token: String,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Empty when all mounts of the disk are what they were at boot and all checks hold; otherwise what is missing.
    pub trouble: String,
    /// Whether all checks hold; none from a node that makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What the node does about a restart that it was told of; said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartReport>,
    /// What came of the plan's checks, at most [`crate::MOST_RESULTS`]; said when it is other than what was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<CheckResult>>,
    /// Which of the server's users it has; none from a node that takes no others while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersReport>,
    /// How full the mounted file systems of its disk are; empty without any, and from an older agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<UsedSpace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_its_disks_is_short_and_acts_on_nothing() {
        let evil = format!("sda\u{1b}]0;x\u{7}\n; reboot #{}", "d".repeat(9000));
        let mount = MountedPartition {
            name: evil.clone(),
            device: evil.clone(),
            fs: FileSystem::Ext4,
            uuid: evil.clone(),
            mount: Some(evil.clone()),
            options: evil.clone(),
            size: 1,
        };
        let unused = UnusedDisk {
            device: evil.clone(),
            size: 1,
            what: evil.clone(),
        };
        let state = DiskState {
            status: DiskStatus::Degraded { reason: evil.clone() },
            device: evil.clone(),
            size: 1,
            mounts: vec![mount; 5000],
            facts: DiskFacts {
                serial: evil.clone(),
                foreign: evil.clone(),
                unused: vec![unused; 5000],
                ..DiskFacts::default()
            },
        };
        let hardware = Hardware {
            vendor: evil.clone(),
            product: evil.clone(),
            serial: evil,
            ..Hardware::default()
        };
        let (state, hardware) = (state.bounded(), hardware.bounded());
        for text in [serde_json::to_string(&state), serde_json::to_string(&hardware)].map(Result::unwrap) {
            assert!(text.len() < 200_000, "{}", text.len());
            assert!(!text.contains("\\u001b") && !text.contains("\\n") && !text.contains("\\u0007"));
        }
        // It stands in a command.
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
