//! The checked site, on whose values every service may rely.

use super::vars::Vars;
use ipnet::Ipv4Net;
use rackstrap_base::{dhcp_option::DhcpOption, subnet::Subnet};
use rackstrap_hostlist::naming::{Naming, NamingError};
use rackstrap_wire::{ContentOf, Layout, NetworkKind, NetworkPlan, NetworkRoute, RootOf, Size, Wipe};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
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
    /// `[[network]]`, each after those that it is made of.
    pub networks: Vec<Network>,
    /// `[loader.NAME]`, in the order of the file; empty = all firmware gets the default loaders.
    pub loaders: Vec<LoaderRule>,
    /// `[bmc]`; none = only nodes with a BMC address of their own have a BMC.
    pub bmc: Option<Bmc>,
    /// `[users]`; none = nodes have only their image's own users.
    pub users: Option<Users>,
    /// `[hooks]`
    pub hooks: Hooks,
    /// `[backup]`
    pub backup: Backup,
    /// `[limits]`
    pub limits: Limits,
    /// `[dns]`; none = the daemon answers no DNS.
    pub dns: Option<Dns>,
    /// The places (`FILE:LINE:COLUMN`) of texts that read variables: of `kernel-args` by
    /// `profile NAME`, of a mount by `mount TEXT`, of a network's card by `network NAME`.
    pub places: BTreeMap<String, String>,
}

/// `[cluster]`: names and addresses.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Cluster name, for people.
    pub name: String,
    /// DNS domain of the nodes; may be empty.
    pub domain: String,
    /// `node-name` and `node-address`, in both directions.
    pub naming: Naming,
    /// Networks that no node may have an address in (`reserved`).
    pub reserved: Vec<Ipv4Net>,
    /// `[cluster.vars]` and `vars-secret`: below those of all profiles and nodes.
    pub vars: Vars,
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
    /// UDP port for the messages of nodes' kernels; 0 if they send none.
    pub netconsole_port: u16,
    /// Directories that are searched for boot loaders, in order: the site's own, then [`SYSTEM_LOADER_DIRS`](super::SYSTEM_LOADER_DIRS).
    pub loader_dirs: Vec<PathBuf>,
    /// The site's templates directory, searched before the built-in templates; none = built-in only.
    pub templates_dir: Option<PathBuf>,
    /// The site's boot scripts directory, searched before the built-in scripts.
    pub bootscripts_dir: Option<PathBuf>,
    /// Whether IPv6 router solicitations on the interfaces of the subnets are answered, so that boot loaders do not wait for
    /// a router. Default: true.
    pub answer_router_solicitations: bool,
    /// Whether the daemon listens for other DHCP servers on the interfaces of the subnets, and searches for them each hour.
    /// Default: true.
    pub look_for_dhcp_servers: bool,
}

/// `[profile.NAME]`: settings that many nodes share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Image to boot, by name (its current version) or pinned (`debian@3`).
    pub image: Option<String>,
    /// Layouts of the node's disks, by name, with a space between them; an empty string means that disks are left alone.
    pub layout: Option<String>,
    /// The disk that the first layout is for: `auto`, a kernel name, or a rule.
    pub disk: Option<String>,
    /// Appended to the kernel command line.
    pub kernel_args: Option<String>,
    /// Overlay trees, in order, below `templates/`.
    pub templates: Option<Vec<String>>,
    /// Public keys for root's authorized_keys.
    pub authorized_keys: Option<Vec<String>>,
    /// What the agent does to the machine's firmware: `network-first`; an empty string is nothing.
    pub firmware: Option<String>,
    /// Where the node boots from: `network` or `local`.
    pub boot: Option<String>,
    /// Serial console, `ttyS0,115200`; an empty string is none.
    pub console: Option<String>,
    /// Program to run as PID 1.
    pub init: Option<String>,
    /// Size limit of the writable layer in RAM.
    pub ram_size: Option<String>,
    /// MTU of the node's card in bytes, instead of that of its subnet.
    pub mtu: Option<u16>,
    /// Options of DHCP answers, in addition to those of the subnet or instead of them, each code once.
    pub dhcp_options: Option<Vec<DhcpOption>>,
    /// The checks of a ready node: [`rackstrap_wire::Check`]s as text.
    pub checks: Option<Vec<String>>,
    /// Whether a node on which logins fail is `degraded`; true if it is left out.
    pub check_login: Option<bool>,
    /// Address of the node's BMC, instead of that of `[bmc]`; an empty string = the node has no BMC.
    pub bmc_address: Option<String>,
    /// The user on the BMC.
    pub bmc_user: Option<String>,
    /// Absolute path of the file with that user's password.
    pub bmc_password_file: Option<String>,
    /// `[profile.NAME.vars]` and `vars-secret`
    pub vars: Vars,
}

/// `[layout.NAME]`: the layout of a disk, and which data it may overwrite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPolicy {
    /// The layout.
    pub layout: Layout,
    /// Digest of the layout's canonical form, 32 hex digits.
    pub digest: String,
    /// Which data may be overwritten.
    pub wipe: Wipe,
    /// The disk that the layout is for, unless the node has a setting `disk` and this is its first layout; none for `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Whether the first partition is an EFI system partition of rackstrap (`esp`): a raw one with the name
    /// [`rackstrap_wire::ESP_PARTITION`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub esp: bool,
    /// Owners and modes of the partitions' root directories, of those that have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootOf>,
    /// What is special about the content of partitions: labels and encryption.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ContentOf>,
}

impl LayoutPolicy {
    /// Bytes of the EFI system partition; none if the layout has none.
    pub fn esp_size(&self) -> Option<u64> {
        match self.layout.partitions.first().filter(|_| self.esp)?.size {
            Size::Bytes(bytes) => Some(bytes),
            Size::Rest => None,
        }
    }
}

/// `[[mount]]`: what nodes mount in addition to their root and their local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The source, as mount(8) accepts it: `10.5.0.2:/home`, `LABEL=data`.
    pub what: String,
    /// The mount point: an absolute path without blanks, `.` and `..` (`where` in the file).
    pub place: String,
    /// Type of file system, as mount(8) accepts it (`type` in the file).
    pub kind: String,
    /// Options as in fstab, may be empty.
    pub options: String,
    /// Profiles whose nodes mount it; none = all nodes.
    pub profiles: Option<Vec<String>>,
    /// Whether a node without it is not ready.
    pub required: bool,
}

impl Mount {
    /// Whether a node with these profiles mounts it. `default`, which all nodes have, may be left out.
    pub fn applies_to(&self, profiles: &[String]) -> bool {
        let Some(wanted) = &self.profiles else { return true };
        wanted.iter().any(|name| name == "default" || profiles.contains(name))
    }
}

/// `[[network]]`: a network of nodes besides the boot network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The name, which is also that of the interface on the nodes.
    pub name: String,
    /// What the interface is made of. Conditions of a card may have variables.
    pub kind: NetworkKind,
    /// Names `NODE-NETWORK` with their addresses; none = the nodes have no address in it.
    pub hosts: Option<Naming>,
    /// Prefix length of the addresses.
    pub prefix: u8,
    /// MTU in bytes; none = as the card has it.
    pub mtu: Option<u16>,
    /// Default router of nodes whose boot network has none.
    pub router: Option<Ipv4Addr>,
    /// Further routes.
    pub routes: Vec<NetworkRoute>,
    /// Name servers, after those of the boot network.
    pub dns: Vec<Ipv4Addr>,
    /// DNS search domains, after the cluster's.
    pub search: Vec<String>,
    /// Profiles whose nodes have it; none = all nodes.
    pub profiles: Option<Vec<String>>,
    /// The least speed in Mb/s; none = any.
    pub speed: Option<u32>,
}

impl Network {
    /// Whether a node with these profiles has it. `default`, which all nodes have, may be left out.
    pub fn applies_to(&self, profiles: &[String]) -> bool {
        let Some(wanted) = &self.profiles else { return true };
        wanted.iter().any(|name| name == "default" || profiles.contains(name))
    }

    /// The name of a node in this network, `r01n03-ib`.
    pub fn host_name(&self, node: &str) -> String {
        format!("{node}-{}", self.name)
    }

    /// The address of that node in it; none if nodes have none there, or if the node's name follows no pattern.
    pub fn address_of(&self, node: &str) -> Option<Ipv4Addr> {
        self.hosts.as_ref()?.name_to_address(&self.host_name(node)).ok()
    }

    /// The node that has this address in it.
    pub fn node_at(&self, address: Ipv4Addr) -> Option<String> {
        let name = self.hosts.as_ref()?.address_to_name(address)?;
        let node = name.strip_suffix(&self.name)?.strip_suffix('-')?;
        Some(node.to_owned())
    }

    /// The network around an address of nodes that overlaps `within`; none if `within` has none of its addresses.
    pub fn network_in(&self, within: Ipv4Net) -> Option<Ipv4Net> {
        let mut patterns = self.hosts.iter().flat_map(Naming::patterns);
        let address = patterns.find_map(|pattern| pattern.address_near(self.prefix, within))?;
        Ipv4Net::new(address, self.prefix).ok().map(|network| network.trunc())
    }

    /// What a node needs to have it, where a card's conditions are `kind`'s.
    pub fn plan(&self, node: &str, kind: NetworkKind) -> NetworkPlan {
        NetworkPlan {
            name: self.name.clone(),
            kind,
            address: self.address_of(node).map(|address| (address, self.prefix)),
            mtu: self.mtu,
            router: self.router,
            routes: self.routes.clone(),
            dns: self.dns.clone(),
            search: self.search.clone(),
            speed: self.speed,
        }
    }
}

/// `[loader.NAME]`: a boot loader, and the firmware that gets it instead of the default one. All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderRule {
    /// The NAME.
    pub name: String,
    /// The file.
    pub file: LoaderFile,
    /// Architecture types (option 93) in ascending order; empty = all.
    pub archs: Vec<u16>,
    /// How the vendor class (option 60) begins; empty = any, or none.
    pub vendor_class: String,
    /// Profiles whose nodes get it; none = all machines, also unknown ones.
    pub profiles: Option<Vec<String>>,
}

/// Where the file of a loader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoaderFile {
    /// Below a loader directory, by its name there.
    Named(String),
    /// At this absolute path.
    Path(PathBuf),
}

impl LoaderRule {
    /// The name by which firmware asks for the file. A file with a path has a directory of its own, because packages give the loaders
    /// of different architectures the same name.
    pub fn served(&self) -> String {
        match &self.file {
            LoaderFile::Named(name) => name.clone(),
            LoaderFile::Path(path) => {
                let last = path.file_name().unwrap_or_default().to_string_lossy();
                format!("loader.{}/{last}", self.name)
            }
        }
    }
}

/// `[bmc]`: the controllers that switch the nodes' power. A profile or a node may have other values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bmc {
    /// Names `NODE-bmc` with the addresses of the BMCs; none = nodes have a BMC only by their own `bmc-address`.
    pub hosts: Option<Naming>,
    /// How the BMCs are reached.
    pub driver: BmcDriver,
    /// The user; empty = a profile or the node names one.
    pub user: String,
    /// The file with the user's password; none = a profile or the node names one.
    pub password_file: Option<PathBuf>,
}

/// How BMCs are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BmcDriver {
    /// IPMI 2.0 over LAN, UDP port 623.
    #[default]
    Ipmi,
}

impl fmt::Display for BmcDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BmcDriver::Ipmi => "ipmi",
        })
    }
}

/// `[users]`: which of the server's users and groups nodes get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Numbers of users.
    pub uid: RangeInclusive<u32>,
    /// Numbers of groups.
    pub gid: RangeInclusive<u32>,
    /// Names of users and groups that nodes do not get.
    pub exclude: Vec<String>,
    /// Whether nodes get the password hashes, too.
    pub shadow: bool,
    /// Directory with `passwd`, `group` and `shadow`.
    pub from: PathBuf,
}

/// `[hooks]`: the site's own programs, which the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments to run when the inventory has changed; empty = none.
    pub on_change: Vec<String>,
    /// Program and arguments to run before nodes get the order to restart; empty = none.
    pub drain: Vec<String>,
    /// Program and arguments to run when they are ready again; empty = none.
    pub resume: Vec<String>,
    /// Seconds after which a program that still runs is killed.
    pub timeout_secs: u32,
}

/// `[backup]`: backups of the store that the daemon makes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How many nightly backups are kept; the oldest is deleted first. 0 = none are made.
    pub keep: usize,
    /// The directory of the backups, which is made if it is missing.
    pub dir: PathBuf,
    /// Hour and minute of the server's local time.
    pub at: (u8, u8),
}

/// `[limits]`: bounds that an administrator can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events kept per node; the oldest are forgotten first.
    pub timeline_events: usize,
    /// Unknown machines remembered.
    pub unknown_machines: usize,
    /// Seconds between two heartbeats of a node.
    pub heartbeat_secs: u32,
    /// Failed boots of a version after which a node rolls back to its last known good version; 0 = never.
    pub boots_before_going_back: u32,
    /// Seconds within which a node's checks must pass. After that, the node reports the failed ones.
    pub checks_within_secs: u32,
    /// Seconds that a command of a check may take.
    pub check_timeout_secs: u32,
}

/// `[dns]`: the cluster's names and addresses, answered on port 53 of every server address. The domain is
/// [`Cluster::domain`], which is not empty then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The server's own name in the domain, one label.
    pub name: String,
    /// Servers that other questions of the site's machines are forwarded to, in order; empty = these questions are refused.
    pub forward: Vec<SocketAddrV4>,
}

impl Site {
    /// The mount points of the required mounts of a node with these profiles.
    pub fn required_mounts(&self, profiles: &[String]) -> Vec<String> {
        let mut places: Vec<&str> = Vec::new();
        let mut required = Vec::new();
        for mount in self.mounts.iter().filter(|mount| mount.applies_to(profiles)) {
            // Two profiles may each have a mount for the same place: the first one counts.
            if !places.contains(&mount.place.as_str()) {
                places.push(&mount.place);
                required.extend(mount.required.then(|| mount.place.clone()));
            }
        }
        required
    }

    /// The subnet that contains `address`.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.network.contains(&address))
    }

    /// `[profile.NAME]`, completed from `[profile.default]`; none if it does not exist.
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
            firmware: own.firmware.or(base.firmware),
            boot: own.boot.or(base.boot),
            console: own.console.or(base.console),
            init: own.init.or(base.init),
            ram_size: own.ram_size.or(base.ram_size),
            mtu: own.mtu.or(base.mtu),
            dhcp_options: own.dhcp_options.or(base.dhcp_options),
            checks: own.checks.or(base.checks),
            check_login: own.check_login.or(base.check_login),
            bmc_address: own.bmc_address.or(base.bmc_address),
            bmc_user: own.bmc_user.or(base.bmc_user),
            bmc_password_file: own.bmc_password_file.or(base.bmc_password_file),
            vars: own.vars,
        })
    }

    /// The address of the node called `name`, if such a node may exist: the name follows the pattern, and its address is not
    /// reserved, is in a subnet, and may belong to a host there.
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
    /// The address of the node called `name`, if it is not in `reserved`.
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
