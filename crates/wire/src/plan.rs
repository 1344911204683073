//! The server's instructions for the agent.

use crate::{DiskPlan, Health, HwAddr, NetworkPlan, NfsRoot, Root, WIRE_VERSION, text::cut, users::GivenUsers};
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Everything that one boot of one node does, pinned when the boot script was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the protocol for the answers: the older one of the server's [`crate::WIRE_VERSION`] and the agent's.
    pub wire: u32,
    /// The boot's id, as on the kernel command line.
    pub id: String,
    /// Node name, `r01n03`.
    pub node: String,
    /// Network card and address of the node.
    pub net: NetPlan,
    /// The networks besides the boot network, each after those that it is made of; empty from a server that knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::network::lines")]
    pub networks: Vec<NetworkPlan>,
    /// The image version that is the node's root.
    pub image: ImageRef,
    /// The variant of that version, as an architecture (`arm64`); empty for the one with which the version was made. The agent does
    /// not need it; a server before the first variants wrote none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The source of the root.
    pub root: Root,
    /// Program to execute as PID 1, absolute inside the root; `/sbin/init` by default.
    pub init: String,
    /// The plan for the disk; none to leave all disks alone.
    pub disk: Option<DiskPlan>,
    /// Size limit of the RAM for changes to the root, as an option of tmpfs: `50%` or `2g`.
    pub ram_size: String,
    /// Seconds between two heartbeats of the running node.
    pub heartbeat_secs: u32,
    /// The checks of the running node; none from a server that sends none.
    #[serde(default)]
    pub health: Health,
    /// Whether UEFI firmware is to try the network before all else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network_first: bool,
    /// UDP port of the server for the kernel's messages (netconsole); none if it takes none. Set when the plan is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netconsole: Option<u16>,
}

impl Plan {
    /// A plan that no boot has: where a text is tried that needs some plan, and in tests. `node` has the card and the address of r01n01,
    /// image@1 by NFS from 10.5.0.1, no disk, and a heartbeat every 30 s.
    pub fn example(node: &str) -> Self {
        Plan {
            wire: WIRE_VERSION,
            id: "example".to_owned(),
            node: node.to_owned(),
            net: NetPlan {
                hwaddr: HwAddr([0x52, 0x54, 0, 1, 1, 1]),
                ipaddr: Ipv4Addr::new(10, 5, 1, 1),
                prefix: 16,
                router: None,
                dns: Vec::new(),
                domain: String::new(),
                mtu: None,
                vlan: None,
            },
            image: ImageRef {
                name: "image".to_owned(),
                version: 1,
            },
            variant: String::new(),
            root: Root::Nfs(NfsRoot {
                server: Ipv4Addr::new(10, 5, 0, 1),
                port: 2049,
                export: String::new(),
                options: String::new(),
            }),
            init: "/sbin/init".to_owned(),
            disk: None,
            ram_size: "50%".to_owned(),
            heartbeat_secs: 30,
            health: Health::default(),
            networks: Vec::new(),
            network_first: false,
            netconsole: None,
        }
    }
}

/// The node's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPlan {
    /// The card that booted.
    pub hwaddr: HwAddr,
    /// Its address.
    pub ipaddr: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
    /// Default router; none if the subnet has none.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// DNS domain, may be empty.
    pub domain: String,
    /// MTU of the card in bytes; none = as the card has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The VLAN of the boot network, 1 to 4094: the agent sets its tag; none = packets have no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

/// A version of an image: `debian@1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Image name, `[a-z0-9][a-z0-9._-]*`, at most 64 bytes.
    pub name: String,
    /// Version, from 1.
    pub version: u32,
}

/// Why a text is not an [`ImageRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRefError(String);

impl ImageRef {
    /// True for a valid name of an image.
    pub fn valid_name(name: &str) -> bool {
        let first = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        first
            && name.len() <= 64
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let wrong = || ImageRefError(cut(text, 80).to_owned());
        let (name, version) = text.split_once('@').ok_or_else(wrong)?;
        let plain = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
        let version = version.parse().map_err(|_| wrong())?;
        if !plain || !ImageRef::valid_name(name) {
            return Err(wrong());
        }
        Ok(ImageRef {
            name: name.to_owned(),
            version,
        })
    }
}

impl fmt::Display for ImageRefError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not an image version; write NAME@VERSION, such as debian@1",
            self.0
        )
    }
}

impl std::error::Error for ImageRefError {}

crate::serde_as_text!(ImageRef);

/// Files for one node, to be written into the writable layer of its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Files in the order of writing. Missing parent directories are made with mode 0755 and owner root.
    pub files: Vec<OverlayFile>,
    /// Authenticates root of the node, 64 hex digits; only root can read it there. None from a server without such secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The server's users in `files`; none if the site's own templates made these files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<GivenUsers>,
}

/// One file of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayFile {
    /// Absolute path inside the root, without `.` or `..`.
    pub path: String,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The kind of file, with its content.
    pub content: OverlayContent,
}

/// The content of a file of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayContent {
    /// A regular file with this text.
    Text(String),
    /// A symbolic link to this target.
    Symlink(String),
    /// A directory. An existing one keeps its owner and mode.
    Directory,
}
