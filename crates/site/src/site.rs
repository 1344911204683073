//! The checked site: what every service may rely on.

use ipnet::Ipv4Net;
use rackstrap_base::subnet::Subnet;
use rackstrap_hostlist::naming::{Naming, NamingError};
use rackstrap_wire::{Layout, Wipe};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
    path::PathBuf,
};

/// A site file that passed every check.
#[derive(Clone, Debug)]
pub struct Site {
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[server]`
    pub server: Server,
    /// `[[subnet]]`, at least one; they do not overlap.
    pub subnets: Vec<Subnet>,
    /// `[profile.NAME]`; `default` always exists (empty if the file has none).
    pub profiles: BTreeMap<String, Profile>,
    /// `[layout.NAME]`
    pub layouts: BTreeMap<String, LayoutPolicy>,
    /// `[[mount]]`, in the order of the file
    pub mounts: Vec<Mount>,
    /// `[users]`; none = nodes have their image's own users and no others.
    pub users: Option<Users>,
    /// `[hooks]`
    pub hooks: Hooks,
    /// `[backup]`
    pub backup: Backup,
    /// `[limits]`
    pub limits: Limits,
    /// `[dns]`; none = the daemon answers no DNS.
    pub dns: Option<Dns>,
}

/// `[cluster]`: names and addresses.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Cluster name, for people.
    pub name: String,
    /// DNS domain of the nodes; may be empty.
    pub domain: String,
    /// `node-name` and `node-address`, both ways.
    pub naming: Naming,
    /// Networks that no node may have an address in (`reserved`).
    pub reserved: Vec<Ipv4Net>,
}

/// `[server]`: where the daemon keeps things and listens.
#[derive(Clone, Debug)]
pub struct Server {
    /// Store, images, keys: `/var/lib/rackstrap`.
    pub state_dir: PathBuf,
    /// Unix socket of the command line: `/run/rackstrap/rackstrap.sock`.
    pub socket: PathBuf,
    /// TCP port of HTTP: 80.
    pub http_port: u16,
    /// TCP port of NFS and MOUNT: 2049.
    pub nfs_port: u16,
    /// UDP port of TFTP: 69.
    pub tftp_port: u16,
    /// Directories searched in this order for boot loaders: the site's own, then Debian's `/usr/lib/ipxe`.
    pub loader_dirs: Vec<PathBuf>,
    /// The site's templates directory, searched before the built-in templates; none = built-in only.
    pub templates_dir: Option<PathBuf>,
    /// The site's boot scripts directory, searched before the built-in scripts.
    pub bootscripts_dir: Option<PathBuf>,
    /// Whether IPv6 router solicitations on the interfaces of the subnets are answered, so that boot loaders do not wait for a router: yes.
    pub answer_router_solicitations: bool,
    /// Whether other DHCP servers on the interfaces of the subnets are listened for, and asked for each hour: yes.
    pub look_for_dhcp_servers: bool,
}

/// `[profile.NAME]`: settings that many nodes share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Image to boot, by name (its current version) or pinned (`debian@3`).
    pub image: Option<String>,
    /// Layout of the disk; an empty string is none (disks are left alone).
    pub layout: Option<String>,
    /// Disk that the layout is for: `auto` or a kernel name.
    pub disk: Option<String>,
    /// Appended to the kernel command line.
    pub kernel_args: Option<String>,
    /// Overlay trees, in order, below `templates/`.
    pub templates: Option<Vec<String>>,
    /// Public keys for root's authorized_keys.
    pub authorized_keys: Option<Vec<String>>,
    /// Serial console, `ttyS0,115200`; an empty string is none.
    pub console: Option<String>,
    /// Program to run as PID 1.
    pub init: Option<String>,
    /// Size limit of the writable layer in RAM.
    pub ram_size: Option<String>,
    /// What must be true of a node that is ready: [`rackstrap_wire::Check`]s as they are written.
    pub checks: Option<Vec<String>>,
    /// Whether a node that nobody can log in to is `degraded`; true where it is left out.
    pub check_login: Option<bool>,
}

/// `[layout.NAME]`: what a disk should look like, and what may be overwritten for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPolicy {
    /// The layout.
    pub layout: Layout,
    /// Digest of the layout's canonical form, 32 hex digits.
    pub digest: String,
    /// What may be overwritten.
    pub wipe: Wipe,
}

/// `[[mount]]`: something that nodes mount besides their root and their local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What, as mount(8) takes it: `10.5.0.2:/home`, `LABEL=data`.
    pub what: String,
    /// Where: an absolute path without blanks, `.` and `..` (`where` in the file).
    pub place: String,
    /// Type of file system, as mount(8) takes it (`type` in the file).
    pub kind: String,
    /// Options as in fstab, may be empty.
    pub options: String,
    /// Profiles whose nodes have it; none = all nodes.
    pub profiles: Option<Vec<String>>,
    /// A node is not ready without it.
    pub required: bool,
}

impl Mount {
    /// True if a node with these profiles (`default`, which all have, may be left out) has it.
    pub fn applies_to(&self, profiles: &[String]) -> bool {
        let Some(wanted) = &self.profiles else { return true };
        wanted.iter().any(|name| name == "default" || profiles.contains(name))
    }
}

/// `[users]`: whom of the server's own users and groups the nodes know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Numbers of users.
    pub uid: RangeInclusive<u32>,
    /// Numbers of groups.
    pub gid: RangeInclusive<u32>,
    /// Names of users and groups that are left out all the same.
    pub exclude: Vec<String>,
    /// Password hashes go to the nodes as well.
    pub shadow: bool,
    /// Directory with `passwd`, `group` and `shadow`.
    pub from: PathBuf,
}

/// `[hooks]`: the site's own programs, which the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments to run when the inventory has changed; empty = none.
    pub on_change: Vec<String>,
    /// Program and arguments to run before nodes are told to restart; empty = none.
    pub drain: Vec<String>,
    /// Program and arguments to run when they are ready again; empty = none.
    pub resume: Vec<String>,
    /// Seconds after which a program that still runs is killed.
    pub timeout_secs: u32,
}

/// `[backup]`: backups of the store that the daemon makes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Nightly backups that are kept; the oldest is deleted first. 0 = none are made.
    pub keep: usize,
    /// Directory that they are written to, made where it is missing.
    pub dir: PathBuf,
    /// Hour and minute of the server's local time.
    pub at: (u8, u8),
}

/// `[limits]`: bounds that an administrator may have to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events kept per node, the oldest forgotten first.
    pub timeline_events: usize,
    /// Unknown machines remembered.
    pub unknown_machines: usize,
    /// Seconds between two heartbeats of a node.
    pub heartbeat_secs: u32,
    /// Boots of a version without getting ready, after which a node goes back to the last one on which it was; 0 = never.
    pub boots_before_going_back: u32,
    /// Seconds within which a node's checks have to hold, before it reports those that do not.
    pub checks_within_secs: u32,
    /// Seconds that one command among the checks may take.
    pub check_timeout_secs: u32,
}

/// `[dns]`: the cluster's names and addresses, answered on port 53 of every server address. The domain is
/// [`Cluster::domain`], which is then not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The server's own name in the domain, one label.
    pub name: String,
    /// Where questions of the site's own machines about other names go, in this order; empty = they are refused.
    pub forward: Vec<SocketAddrV4>,
}

impl Site {
    /// Where a node with these profiles mounts what it cannot do without.
    pub fn required_mounts(&self, profiles: &[String]) -> Vec<String> {
        let mut places: Vec<&str> = Vec::new();
        let mut required = Vec::new();
        for mount in self.mounts.iter().filter(|mount| mount.applies_to(profiles)) {
            // Two profiles may each have a mount there: the first one counts.
            if !places.contains(&mount.place.as_str()) {
                places.push(&mount.place);
                required.extend(mount.required.then(|| mount.place.clone()));
            }
        }
        required
    }

    /// The subnet that holds `address`.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.network.contains(&address))
    }

    /// `[profile.NAME]` with what it leaves out taken from `[profile.default]`; none if there is no such profile.
    #[cfg(test)]
    pub fn profile(&self, name: &str) -> Option<Profile> {
        let own = self.profiles.get(name)?.clone();
        let base = self.profiles.get("default").cloned().unwrap_or_default();
        Some(Profile {
            image: own.image.or(base.image),
            layout: own.layout.or(base.layout),
            disk: own.disk.or(base.disk),
            kernel_args: own.kernel_args.or(base.kernel_args),
            templates: own.templates.or(base.templates),
            authorized_keys: own.authorized_keys.or(base.authorized_keys),
            console: own.console.or(base.console),
            init: own.init.or(base.init),
            ram_size: own.ram_size.or(base.ram_size),
            checks: own.checks.or(base.checks),
            check_login: own.check_login.or(base.check_login),
        })
    }

    /// The address of the node called `name`, if there may be such a node: the name follows the pattern, and
    /// its address is not reserved, is in a subnet, and is one that a host there may have.
    ///
    /// # Errors
    /// Any [`NamingError`]; its text says what to do.
    #[cfg(test)]
    pub fn address_of(&self, name: &str) -> Result<Ipv4Addr, NamingError> {
        let address = self.cluster.address_of(name)?;
        let name = || name.to_owned();
        let Some(subnet) = self.subnet_of(address) else {
            return Err(NamingError::NoSubnet { name: name(), address });
        };
        let network = subnet.network;
        let what = match address {
            a if a == network.network() => "network address",
            a if a == network.broadcast() => "broadcast address",
            _ => return Ok(address),
        };
        Err(NamingError::Taken {
            name: name(),
            address,
            what,
            network,
        })
    }
}

impl Cluster {
    /// The address of the node called `name`, if `reserved` does not hold it.
    ///
    /// # Errors
    /// Those of [`Naming::name_to_address`], and [`NamingError::Reserved`] with the range.
    pub fn address_of(&self, name: &str) -> Result<Ipv4Addr, NamingError> {
        let address = self.naming.name_to_address(name)?;
        match self.reserved.iter().find(|range| range.contains(&address)) {
            None => Ok(address),
            Some(range) => Err(NamingError::Reserved {
                name: name.to_owned(),
                address,
                range: *range,
            }),
        }
    }
}
