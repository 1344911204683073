//! The reports about the disks of several layouts.

use crate::{DiskFacts, DiskState, DiskStatus, report::cut_name};
use serde::{Deserialize, Serialize};

/// The disk of one of several layouts after the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutDisk {
    /// Name of the layout.
    pub layout: String,
    /// The result of the phase for it.
    pub status: DiskStatus,
    /// Kernel name of its disk, `vdb`; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Size of the disk in bytes; 0 without one.
    #[serde(default)]
    pub size: u64,
    /// Names of its partitions in [`DiskState::mounts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
    /// Further facts. Unused disks are in those of [`DiskState::facts`] only.
    #[serde(default)]
    pub facts: DiskFacts,
}

impl LayoutDisk {
    /// The same with limits on the length of texts.
    pub(crate) fn bounded(mut self) -> Self {
        cut_name(&mut self.layout);
        self.status.cut();
        cut_name(&mut self.device);
        self.partitions.truncate(DiskState::MOST_MOUNTS);
        self.partitions.iter_mut().for_each(cut_name);
        self.facts = self.facts.bounded();
        self.facts.unused.clear();
        self
    }
}

impl DiskState {
    /// The result for the first layout, whose disk is `device`. It differs from `status` if only a further layout is degraded.
    pub fn first_status(&self) -> &DiskStatus {
        self.layouts.first().map_or(&self.status, |first| &first.status)
    }
}
