//! What the rackstrap server and its agent say to each other.
//!
//! Everything here is plain data with serde derives: no clocks, no sockets, no files. The server
//! writes a [`Plan`]; the agent reads it, acts, and answers with [`Report`]s. Both ends are built
//! from one workspace, yet a node may run an agent that is one release older or newer than the
//! daemon, so fields are only added, never reused, and [`WIRE_VERSION`] names breaking changes.

pub mod backoff;
mod health;
mod hwaddr;
pub mod image_list;
mod layout;
mod plan;
mod report;
mod root;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod users;

pub use health::{
    Check, CheckError, CheckResult, Health, HeartbeatAnswer, LOGIN, MOST_RESULTS, Restart, RestartReport, failures,
    waits,
};
pub use hwaddr::{HwAddr, HwAddrError};
pub use image_list::ImageList;
pub use layout::{
    DiskLoader, DiskMarker, DiskPlan, FileSystem, Layout, Partition, PartitionTable, SeenDisk, Size, SizeError, Wipe,
};
pub use plan::{ImageRef, ImageRefError, NetPlan, Overlay, OverlayContent, OverlayFile, Plan};
pub use report::{
    AgentEvent, DiskFacts, DiskProblem, DiskState, DiskStatus, Hardware, Heartbeat, MOST_MODULES, MOST_UNUSED,
    MountedPartition, Outcome, OverlayRequest, Phase, Ready, Report, UnusedDisk, UsedSpace, Waiting,
};
pub use root::{NfsRoot, Root};

/// Version of this vocabulary. A sealed image keeps the agent that it was sealed with, so that a daemon meets older ones for years:
/// an agent says its version in the header [`paths::WIRE_HEADER`], and is answered in the older one of the two, which is what
/// [`Plan::wire`] says.
///
/// | Version | Since then |
/// |---|---|
/// | 1 | the first; agents that say nothing |
/// | 2 | [`OverlayContent::Directory`], [`Overlay::secret`] and [`Overlay::users`]; the agent mounts [`Health::mounts`] and says what it waits for ([`Waiting`]) |
/// | 3 | once the overlay went out, the agent proves itself with [`Overlay::secret`] instead of the token: see [`SECRET_SPEAKS`] |
/// | 4 | the agent asks from a port below 1024: see [`PRIVILEGED_PORTS`] |
pub const WIRE_VERSION: u32 = 4;
/// From this version on, the agent sends its requests from a port below 1024, which takes root's rights on the node. A server gives
/// nothing for the token of a boot into an image with such an agent to anybody who asks from another port.
pub const PRIVILEGED_PORTS: u32 = 4;
/// From this version on, reports, `waiting`, `ready` and heartbeats after the overlay carry [`Overlay::secret`] in their field
/// `token`. Every local user can read the boot's token on the kernel command line.
pub const SECRET_SPEAKS: u32 = 3;
/// From this port on, any user of a machine may send (ip(7); capabilities(7): CAP_NET_BIND_SERVICE).
pub const FIRST_USER_PORT: u16 = 1024;
/// The oldest version that this one can still talk to.
pub const OLDEST_WIRE: u32 = 1;

/// The version in which a server of [`WIRE_VERSION`] talks to an agent of version `agent`; none if that one is too old.
pub fn common_version(agent: u32) -> Option<u32> {
    (agent >= OLDEST_WIRE).then(|| agent.min(WIRE_VERSION))
}

/// What the agent calls itself in its requests. It stands in its binary, so that whoever seals an image with it knows what it speaks.
pub const USER_AGENT: &str = concat!("rackstrap-agent/", env!("CARGO_PKG_VERSION"), " (rackstrap-wire 4)");

/// The [`WIRE_VERSION`] of the agent with that binary; none if it is older than 4 or no agent.
pub fn wire_of_agent(binary: &[u8]) -> Option<u32> {
    binary.split(|byte| *byte == b'(').find_map(|part| {
        let digits = part.strip_prefix(b"rackstrap-wire ")?;
        let end = digits.iter().take(10).position(|byte| *byte == b')')?;
        str::from_utf8(&digits[..end]).ok()?.parse().ok()
    })
}

/// Kernel command line parameters by which the boot script tells the agent how to begin.
///
/// Everything else the agent learns from its [`Plan`]. Debian's kernel has no `CONFIG_IP_PNP`, so
/// the address comes here as well and the agent configures it itself.
pub mod cmdline {
    /// `rackstrap.server=http://10.5.0.1:80`: where plans, overlays and reports live.
    pub const SERVER: &str = "rackstrap.server";
    /// `rackstrap.plan=ID`: the boot this machine is in; pins image, kernel and layout.
    pub const PLAN: &str = "rackstrap.plan";
    /// `rackstrap.token=HEX`: proves that the request belongs to this boot, until its overlay went out; good for secrets once.
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
    /// `GET /v1/disk-loader/{id}` with `Authorization: Bearer TOKEN` -> the bytes of [`crate::DiskPlan::loader`].
    pub const DISK_LOADER: &str = "/v1/disk-loader/";
    /// `POST /v1/overlay/{id}` with an [`crate::OverlayRequest`] -> [`crate::Overlay`]; once a boot.
    pub const OVERLAY: &str = "/v1/overlay/";
    /// `POST /v1/report/{id}` with a [`crate::Report`]: what the agent did, in order.
    pub const REPORT: &str = "/v1/report/";
    /// `GET /v1/users/{id}` with `Authorization: Bearer SECRET`, the [`crate::Overlay::secret`] and not the token, which every user of
    /// a node can read on its kernel's command line -> [`crate::users::NodeUsers`].
    pub const USERS: &str = "/v1/users/";
    /// `POST /v1/waiting/{id}` with a [`crate::Waiting`]: the system is up, and checks do not hold yet.
    pub const WAITING: &str = "/v1/waiting/";
    /// `POST /v1/ready/{id}` with a [`crate::Ready`], from the running operating system.
    pub const READY: &str = "/v1/ready/";
    /// `POST /v1/heartbeat/{id}` with a [`crate::Heartbeat`], every `Plan::heartbeat_secs`; 204, or a
    /// [`crate::HeartbeatAnswer`] where the server has something to say.
    pub const HEARTBEAT: &str = "/v1/heartbeat/";
    /// Header of an agent's requests: its [`crate::WIRE_VERSION`].
    pub const WIRE_HEADER: &str = "Rackstrap-Wire";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_one_of_two_versions_is_spoken() {
        assert_eq!(common_version(OLDEST_WIRE), Some(OLDEST_WIRE));
        assert_eq!(common_version(WIRE_VERSION), Some(WIRE_VERSION));
        assert_eq!(common_version(u32::MAX), Some(WIRE_VERSION));
        assert_eq!(common_version(OLDEST_WIRE - 1), None);
    }

    #[test]
    fn a_binary_says_what_its_agent_speaks() {
        let binary = |text: &str| [b"\x7fELF\0(\0(rackstrap-wire x)(", text.as_bytes(), b"\0HTTP"].concat();
        assert_eq!(wire_of_agent(&binary(USER_AGENT)), Some(WIRE_VERSION));
        assert_eq!(wire_of_agent(&binary("rackstrap-agent/0.1.0")), None);
        assert_eq!(wire_of_agent(&binary("(rackstrap-wire 99999999999)")), None);
        assert_eq!(wire_of_agent(b"(rackstrap-wire 7"), None);
    }

    #[test]
    fn what_an_older_agent_or_server_says_is_read() {
        let beat: Heartbeat = serde_json::from_str(r#"{"token":"x","uptime_ms":1,"trouble":""}"#).unwrap();
        assert_eq!((beat.users, beat.checks), (None, None));
        let overlay: Overlay = serde_json::from_str(r#"{"files":[]}"#).unwrap();
        assert_eq!((overlay.secret, overlay.users), (None, None));
        let health: Health =
            serde_json::from_str(r#"{"checks":["mount /"],"within_secs":1,"command_secs":1}"#).unwrap();
        assert!(health.mounts.is_empty());
    }
}
