//! What the rackstrap server and its agent say to each other.
//!
//! Everything here is plain data with serde derives: no clocks, no sockets, no files. The server
//! writes a [`Plan`]; the agent reads it, acts, and answers with [`Report`]s. Both ends are built
//! from one workspace, yet a node may run an agent that is one release older or newer than the
//! daemon, so fields are only added, never reused, and [`WIRE_VERSION`] names breaking changes.

mod health;
mod hwaddr;
mod layout;
mod plan;
mod report;

pub use health::{
    Check, CheckError, CheckResult, Health, HeartbeatAnswer, MOST_RESULTS, Restart, RestartNote, failures,
};
pub use hwaddr::{HwAddr, HwAddrError};
pub use layout::{DiskPlan, FileSystem, Layout, Partition, PartitionTable, Size, SizeError, Wipe};
pub use plan::{ImageRef, ImageRefError, NetPlan, NfsRoot, Overlay, OverlayContent, OverlayFile, Plan};
pub use report::{
    AgentEvent, DiskState, DiskStatus, Hardware, Heartbeat, MOST_MODULES, MountedPartition, Outcome, OverlayRequest,
    Phase, Ready, Report,
};

/// Version of this vocabulary; an agent refuses a [`Plan`] with another one, saying both numbers.
pub const WIRE_VERSION: u32 = 1;

/// Kernel command line parameters by which the boot script tells the agent how to begin.
///
/// Everything else the agent learns from its [`Plan`]. Debian's kernel has no `CONFIG_IP_PNP`, so
/// the address comes here as well and the agent configures it itself.
pub mod cmdline {
    /// `rackstrap.server=http://10.5.0.1:80`: where plans, overlays and reports live.
    pub const SERVER: &str = "rackstrap.server";
    /// `rackstrap.plan=ID`: the boot this machine is in; pins image, kernel and layout.
    pub const PLAN: &str = "rackstrap.plan";
    /// `rackstrap.token=HEX`: proves that the request belongs to this boot; good for secrets once.
    pub const TOKEN: &str = "rackstrap.token";
    /// `rackstrap.hwaddr=52:54:00:01:01:01`: the network card that booted.
    pub const HWADDR: &str = "rackstrap.hwaddr";
    /// `rackstrap.ipaddr=10.5.1.1/16`: address and prefix length to give that card.
    pub const IPADDR: &str = "rackstrap.ipaddr";
    /// `rackstrap.router=10.5.0.1`: default router; absent where the subnet has none.
    pub const ROUTER: &str = "rackstrap.router";
    /// `rackstrap.hold=STEP`: a debugging aid; the agent stops for good after that step of disk
    /// preparation, so that a power cut can be placed exactly (see the virtual machine tests).
    pub const HOLD: &str = "rackstrap.hold";
}

/// Paths of the HTTP interface between agent and server, below [`cmdline::SERVER`].
pub mod paths {
    /// `GET /v1/plan/{id}` with `Authorization: Bearer TOKEN` -> [`crate::Plan`] as JSON.
    pub const PLAN: &str = "/v1/plan/";
    /// `POST /v1/overlay/{id}` with an [`crate::OverlayRequest`] -> [`crate::Overlay`]; once a boot.
    pub const OVERLAY: &str = "/v1/overlay/";
    /// `POST /v1/report/{id}` with a [`crate::Report`]: what the agent did, in order.
    pub const REPORT: &str = "/v1/report/";
    /// `POST /v1/ready/{id}` with a [`crate::Ready`], from the running operating system.
    pub const READY: &str = "/v1/ready/";
    /// `POST /v1/heartbeat/{id}` with a [`crate::Heartbeat`], every `Plan::heartbeat_secs`; 204, or a
    /// [`crate::HeartbeatAnswer`] where the server has something to say.
    pub const HEARTBEAT: &str = "/v1/heartbeat/";
}
