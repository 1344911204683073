//! A plan for tests of this package and of packages that depend on it. The program does not use it.

use crate::{DiskPlan, HwAddr, Layout, PartitionTable, Plan, Root, Wipe};
use std::net::Ipv4Addr;

/// A builder of a test's plan: `plan("r01n01").image("debian@2").pinned()`.
#[derive(Clone, Debug)]
pub struct PlanOf {
    plan: Plan,
}

/// A plan for `node`: debian@1 by NFS from 10.5.0.1, no disk, a heartbeat every 30 s. Its card and its address are those of r01n01.
pub fn plan(node: &str) -> PlanOf {
    let plan = Plan {
        id: String::new(),
        ..Plan::example(node)
    };
    PlanOf { plan }.image("debian@1")
}

impl PlanOf {
    /// Sets the image version (`debian@2`), with its own export.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.plan.image = image.parse().unwrap_or_else(|error| panic!("{image}: {error}"));
        let Root::Nfs(root) = &mut self.plan.root;
        root.export = format!("/{image}");
        self
    }

    /// Sets the network card that boots.
    #[must_use]
    pub fn hwaddr(mut self, hwaddr: HwAddr) -> Self {
        self.plan.net.hwaddr = hwaddr;
        self
    }

    /// Sets the address.
    #[must_use]
    pub fn ipaddr(mut self, ipaddr: Ipv4Addr) -> Self {
        self.plan.net.ipaddr = ipaddr;
        self
    }

    /// Sets the plan for the disk.
    #[must_use]
    pub fn disk(mut self, disk: DiskPlan) -> Self {
        self.plan.disk = Some(disk);
        self
    }

    /// Sets the seconds between heartbeats.
    #[must_use]
    pub fn heartbeat_secs(mut self, secs: u32) -> Self {
        self.plan.heartbeat_secs = secs;
        self
    }

    /// A function that makes the plan for a boot's id, as the registry of boots expects it.
    pub fn pinned(self) -> impl FnOnce(&str) -> Plan {
        move |id| Plan {
            id: id.to_owned(),
            ..self.plan
        }
    }

    /// The plan for a boot with the empty id.
    pub fn build(self) -> Plan {
        self.plan
    }
}

/// A disk plan with layout `scratch v1`, without partitions. Disks of other programs are not written.
pub fn disk() -> DiskPlan {
    DiskPlan {
        layout: Layout {
            name: "scratch".to_owned(),
            version: 1,
            table: PartitionTable::Gpt,
            partitions: Vec::new(),
        },
        digest: "0".repeat(32),
        device: "auto".to_owned(),
        wipe: Wipe::Ours,
        wipe_known: false,
        roots: Vec::new(),
        seen: None,
        again: false,
        remake: Vec::new(),
        more: Vec::new(),
        loader: None,
        esp: Vec::new(),
        layout_esp: None,
        contents: Vec::new(),
    }
}
