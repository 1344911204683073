//! The protocol between the rackstrap server and its agent.
//!
//! Everything here is plain data with serde derives: no clocks, no sockets, no files. The server writes a [`Plan`]; the agent reads
//! it, acts, and answers with [`Report`]s. Both are built from one workspace, but a node may run an agent that is older or newer than
//! the daemon. So fields are only added, never reused, and [`WIRE_VERSION`] names breaking changes.

pub mod backoff;
mod contents;
mod disk_health;
pub mod disk_rule;
mod health;
mod hwaddr;
pub mod image_list;
mod kernel_log;
mod layout;
mod layout_disk;
pub mod neighbour;
mod network;
pub mod network_service;
mod plan;
mod report;
mod root;
#[doc(hidden)]
pub mod testing;
pub mod text;
mod uefi;
pub mod users;

pub use contents::{ContentOf, Encryption, content_of, for_agents, label_of};
pub use disk_health::{DiskFault, DiskHealth, FaultKind, MOST_HEALTH, bounded as bounded_health};
pub use disk_rule::{DiskRule, Pick, Transport};
pub use health::{
    Check, CheckError, CheckResult, Health, HeartbeatAnswer, LOGIN, MOST_RESULTS, Restart, RestartReport, failures,
    waits,
};
pub use hwaddr::{HwAddr, HwAddrError};
pub use image_list::ImageList;
pub use kernel_log::{PANIC, is_end_of_panic, is_panic, kernel_message};
pub use layout::{
    DiskLoader, DiskMarker, DiskPlan, ESP_AT, ESP_LENGTH, ESP_PARTITION, EspImage, FileSystem, Layout, LayoutEsp,
    MOST_ESP_IMAGE, MOST_LAYOUTS, Partition, PartitionTable, RootOf, SeenDisk, Size, SizeError, Wipe,
};
pub use layout_disk::LayoutDisk;
pub use network::{BOND_MODES, BOOT_NETWORK, CardMatch, NetworkKind, NetworkPlan, NetworkRoute, network_check};
pub use plan::{ImageRef, ImageRefError, NetPlan, Overlay, OverlayContent, OverlayFile, Plan};
pub use report::{
    AgentEvent, ConsoleLine, DiskFacts, DiskProblem, DiskState, DiskStatus, Hardware, Heartbeat, MOST_MODULES,
    MOST_UNUSED, MountedPartition, Outcome, OverlayRequest, Phase, Ready, Report, UnusedDisk, UsedSpace, Waiting,
};
pub use root::{NfsRoot, Root};
pub use uefi::{MOST_BOOT_ENTRIES, MOST_FOREIGN_ESPS, StartedBy, Uefi};

/// Version of this protocol. A sealed image keeps its agent, so a daemon meets older agents for years. An agent sends its version in
/// the header [`paths::WIRE_HEADER`], and the server answers in the older one of the two versions, which is [`Plan::wire`].
///
/// | Version | Changes |
/// |---|---|
/// | 1 | the first; agents that send no version |
/// | 2 | [`OverlayContent::Directory`], [`Overlay::secret`] and [`Overlay::users`]; the agent mounts [`Health::mounts`] and reports for what it waits ([`Waiting`]) |
/// | 3 | after the overlay, the agent authenticates with [`Overlay::secret`] instead of the token: see [`SECRET_AUTHENTICATES`] |
/// | 4 | the agent sends requests from a port below 1024: see [`PRIVILEGED_PORTS`] |
/// | 5 | the agent can be in a VLAN, see [`BOOT_VLAN`], and knows several layouts, see [`SEVERAL_LAYOUTS`] |
pub const WIRE_VERSION: u32 = 5;
/// From this version on, the agent sets the tag of the boot network's VLAN ([`cmdline::VLAN`]). An older one would ask without it, and not reach
/// the server.
pub const BOOT_VLAN: u32 = 5;
/// From this version on, the agent has a disk for each of several layouts ([`DiskPlan::more`]). An older one knows the first layout only, and if
/// the rule of that one fits any disk, it could prepare the disk of another layout.
pub const SEVERAL_LAYOUTS: u32 = 5;
/// From this version on, the agent sends its requests from a port below 1024, which only root of the node can use. If the image of a
/// boot has such an agent, the server refuses the boot's token from other ports.
pub const PRIVILEGED_PORTS: u32 = 4;
/// From this version on, reports, `waiting`, `ready` and heartbeats after the overlay carry [`Overlay::secret`] in their field
/// `token`. Every local user can read the boot's token on the kernel command line.
pub const SECRET_AUTHENTICATES: u32 = 3;
/// From this port on, any user of a machine can send (ip(7); capabilities(7): CAP_NET_BIND_SERVICE).
pub const FIRST_USER_PORT: u16 = 1024;
/// The port from which nodes' kernels send their messages (netconsole). It is below [`FIRST_USER_PORT`], so that no user of a node can
/// send lines in the kernel's name.
pub const NETCONSOLE_PORT: u16 = 666;
/// The oldest version that this one still supports.
pub const OLDEST_WIRE: u32 = 1;

/// The version that a server of [`WIRE_VERSION`] uses with an agent of version `agent`; none if that is too old.
pub fn common_version(agent: u32) -> Option<u32> {
    (agent >= OLDEST_WIRE).then(|| agent.min(WIRE_VERSION))
}

/// The agent's name in its requests. Its binary contains it, so that a seal can find out the agent's version.
pub const USER_AGENT: &str = concat!("rackstrap-agent/", env!("CARGO_PKG_VERSION"), " (rackstrap-wire 5)");

/// The [`WIRE_VERSION`] of the agent with that binary; none if it is older than 4 or not an agent.
pub fn wire_of_agent(binary: &[u8]) -> Option<u32> {
    binary.split(|byte| *byte == b'(').find_map(|part| {
        let digits = part.strip_prefix(b"rackstrap-wire ")?;
        let end = digits.iter().take(10).position(|byte| *byte == b')')?;
        str::from_utf8(&digits[..end]).ok()?.parse().ok()
    })
}

/// Parameters on the kernel command line, with which the boot script starts the agent.
///
/// The agent gets everything else from its [`Plan`]. Debian's kernel has no `CONFIG_IP_PNP`, so the address is here too, and the agent
/// configures it itself.
pub mod cmdline {
    /// `rackstrap.server=http://10.5.0.1:80`: base of the URLs of plans, overlays and reports.
    pub const SERVER: &str = "rackstrap.server";
    /// `rackstrap.plan=ID`: the boot of this machine; it pins image, kernel and layout.
    pub const PLAN: &str = "rackstrap.plan";
    /// `rackstrap.token=HEX`: authenticates requests of this boot until its overlay was sent; it fetches secrets once.
    pub const TOKEN: &str = "rackstrap.token";
    /// `rackstrap.hwaddr=52:54:00:01:01:01`: the network card that booted.
    pub const HWADDR: &str = "rackstrap.hwaddr";
    /// `rackstrap.ipaddr=10.5.1.1/16`: address and prefix length for that card.
    pub const IPADDR: &str = "rackstrap.ipaddr";
    /// `rackstrap.router=10.5.0.1`: default router; missing if the subnet has none.
    pub const ROUTER: &str = "rackstrap.router";
    /// `rackstrap.mtu=9000`: MTU of that card in bytes; missing if the site sets none. Agents of older releases ignore it.
    pub const MTU: &str = "rackstrap.mtu";
    /// `rackstrap.vlan=5`: the VLAN in which the card has the address; missing if packets have no tag. Only agents of [`super::BOOT_VLAN`] read
    /// it, so the server starts no older ones in a VLAN.
    pub const VLAN: &str = "rackstrap.vlan";
    /// `rackstrap.hold=STEP`: a debugging aid. The agent stops for good after that step of disk preparation, so that tests can cut the
    /// power at an exact moment.
    pub const HOLD: &str = "rackstrap.hold";
    /// `rackstrap.hung-after=SECONDS`: a debugging aid. An agent without a step for so long counts as hung, in place of half an hour, so that
    /// tests can see the watchdog reset the machine.
    pub const HUNG_AFTER: &str = "rackstrap.hung-after";
}

/// Paths of the HTTP interface between agent and server, below [`cmdline::SERVER`].
pub mod paths {
    /// `GET /v1/plan/{id}` with `Authorization: Bearer TOKEN` -> [`crate::Plan`] as JSON.
    pub const PLAN: &str = "/v1/plan/";
    /// `GET /v1/freebsd`, from a port below 1024 -> lines `NAME=VALUE` for the reporter of a node with FreeBSD.
    pub const FREEBSD: &str = "/v1/freebsd";
    /// `GET /v1/disk-loader/{id}` with `Authorization: Bearer TOKEN` -> the bytes of [`crate::DiskPlan::loader`].
    pub const DISK_LOADER: &str = "/v1/disk-loader/";
    /// `GET /v1/esp/{arch}-{sector}/{id}` with `Authorization: Bearer TOKEN` -> the bytes of that [`crate::EspImage`].
    pub const ESP: &str = "/v1/esp/";
    /// `GET /v1/layout-esp/{arch}-{sector}/{id}`: the same of [`crate::DiskPlan::layout_esp`].
    pub const LAYOUT_ESP: &str = "/v1/layout-esp/";
    /// `POST /v1/overlay/{id}` with an [`crate::OverlayRequest`] -> [`crate::Overlay`]; once a boot.
    pub const OVERLAY: &str = "/v1/overlay/";
    /// `POST /v1/report/{id}` with a [`crate::Report`]: the agent's events, in order.
    pub const REPORT: &str = "/v1/report/";
    /// `GET /v1/users/{id}` with `Authorization: Bearer SECRET` -> [`crate::users::NodeUsers`]. The secret is [`crate::Overlay::secret`] and
    /// not the token, which every user of a node can read on the kernel command line.
    pub const USERS: &str = "/v1/users/";
    /// `POST /v1/waiting/{id}` with a [`crate::Waiting`]: the system is up, and some checks do not hold yet.
    pub const WAITING: &str = "/v1/waiting/";
    /// `POST /v1/ready/{id}` with a [`crate::Ready`], from the running operating system.
    pub const READY: &str = "/v1/ready/";
    /// `POST /v1/heartbeat/{id}` with a [`crate::Heartbeat`], every `Plan::heartbeat_secs`. The answer is 204 or a
    /// [`crate::HeartbeatAnswer`].
    pub const HEARTBEAT: &str = "/v1/heartbeat/";
    /// Header of an agent's requests: its [`crate::WIRE_VERSION`].
    pub const WIRE_HEADER: &str = "Rackstrap-Wire";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_one_of_two_versions_is_used() {
        assert_eq!(common_version(OLDEST_WIRE), Some(OLDEST_WIRE));
        assert_eq!(common_version(WIRE_VERSION), Some(WIRE_VERSION));
        assert_eq!(common_version(u32::MAX), Some(WIRE_VERSION));
        assert_eq!(common_version(OLDEST_WIRE - 1), None);
    }

    #[test]
    fn the_version_is_found_in_the_agents_binary() {
        let binary = |text: &str| [b"\x7fELF\0(\0(rackstrap-wire x)(", text.as_bytes(), b"\0HTTP"].concat();
        assert_eq!(wire_of_agent(&binary(USER_AGENT)), Some(WIRE_VERSION));
        assert_eq!(wire_of_agent(&binary("rackstrap-agent/0.1.0")), None);
        assert_eq!(wire_of_agent(&binary("(rackstrap-wire 99999999999)")), None);
        assert_eq!(wire_of_agent(b"(rackstrap-wire 7"), None);
    }

    #[test]
    fn documents_of_older_agents_and_servers_are_read() {
        let beat: Heartbeat = serde_json::from_str(r#"{"token":"x","uptime_ms":1,"trouble":""}"#).unwrap();
        assert_eq!((beat.users, beat.checks), (None, None));
        let overlay: Overlay = serde_json::from_str(r#"{"files":[]}"#).unwrap();
        assert_eq!((overlay.secret, overlay.users), (None, None));
        let health: Health =
            serde_json::from_str(r#"{"checks":["mount /"],"within_secs":1,"command_secs":1}"#).unwrap();
        assert!(health.mounts.is_empty());
        // Plans of boots that are on disk, and of older servers, name no EFI system partition of a layout.
        let disk = r#"{"layout":{"name":"scratch","version":1,"table":"gpt","partitions":[]},"digest":"","device":"auto","wipe":"ours"}"#;
        let disk: DiskPlan = serde_json::from_str(disk).unwrap();
        assert_eq!((disk.esp, disk.layout_esp), (Vec::new(), None));
    }
}
