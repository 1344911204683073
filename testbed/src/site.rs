//! Site files, written by tests.

use crate::{Result, netns};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// Kernel arguments of all nodes, before those of a test. Mitigations are useless in an emulated machine and slow down each return of the
/// kernel: Debian 12 takes 64 s to its login with them, and 55 s without.
const KERNEL_ARGS: &str = "mitigations=off";

/// A site file: the network of the testbed, with profiles and layouts that a test can change.
#[derive(Clone, Debug)]
pub struct Site {
    /// `[[subnet]]`
    pub subnets: Vec<Subnet>,
    /// `[cluster] reserved`
    pub reserved: Vec<String>,
    /// `[limits] unknown-machines`; none for the daemon's default.
    pub unknown_machines: Option<u32>,
    /// `[profile.NAME]`
    pub profiles: BTreeMap<String, Profile>,
    /// `[layout.NAME]`
    pub layouts: BTreeMap<String, Layout>,
    /// `[hooks] on-change`
    pub on_change: Vec<String>,
    /// `[hooks] drain`
    pub drain: Vec<String>,
    /// `[hooks] resume`
    pub resume: Vec<String>,
    /// `[hooks] timeout` in seconds; none for the daemon's default.
    pub hook_timeout_secs: Option<u32>,
    /// DNS domain of the nodes; none without one.
    pub domain: Option<String>,
    /// `[dns]` with these forwarders; none for no such section.
    pub dns_forward: Option<Vec<String>>,
    /// Seconds between heartbeats; short, so that a test gets several.
    pub heartbeat_secs: u32,
    /// Seconds that a node waits for its checks.
    pub checks_within_secs: u32,
    /// `[limits] boots-before-going-back`; none for the daemon's default.
    pub boots_before_going_back: Option<u32>,
    /// `[server] answer-router-solicitations`; none for the daemon's default.
    pub answer_router_solicitations: Option<bool>,
    /// Further sections, as TOML.
    pub more: String,
}

/// `[[subnet]]`; fields that are none are omitted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Subnet {
    /// The network.
    pub network: String,
    /// The daemon's interface in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it is behind relays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub relayed: bool,
    /// The daemon's address.
    pub server: String,
    /// VLAN of its nodes; none for packets without a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Address of the router; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// The part of DHCP that the daemon answers; none for its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<String>,
    /// Temporary pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// MTU of the nodes' cards in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

impl Subnet {
    /// The network of the bridge: 10.5.0.0/16, with a pool of 254 addresses.
    pub fn of_the_bridge() -> Self {
        Subnet {
            network: "10.5.0.0/16".to_owned(),
            interface: Some(netns::BRIDGE.to_owned()),
            server: netns::SERVER.to_owned(),
            pool: Some("10.5.255.1-10.5.255.254".to_owned()),
            ..Subnet::default()
        }
    }

    /// A network behind a relay with the address `router`.
    pub fn behind_a_relay(network: &str, router: &str, pool: &str) -> Self {
        Subnet {
            network: network.to_owned(),
            relayed: true,
            server: netns::SERVER.to_owned(),
            router: Some(router.to_owned()),
            pool: Some(pool.to_owned()),
            ..Subnet::default()
        }
    }
}

/// `[profile.NAME]`; fields that are none are omitted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Profile {
    /// Image, by name or pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Layout of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// More kernel arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_args: Option<String>,
    /// What the agent does to the machine's firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Overlay trees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<String>>,
    /// Serial console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Public keys of root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorized_keys: Option<Vec<String>>,
    /// The checks of a node that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
    /// Whether the login check runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_login: Option<bool>,
}

/// `[layout.NAME]`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layout {
    /// Version of the layout, from 1.
    pub version: u32,
    /// `gpt` or `mbr`; none for the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The disks that may be overwritten: `ours` or `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<String>,
    /// Size of an EFI system partition with shim and GRUB; none for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// Partitions, in their order on the disk.
    #[serde(rename = "partition")]
    pub partitions: Vec<Partition>,
}

/// `[[layout.NAME.partition]]`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Name and label.
    pub name: String,
    /// Size as in the site file.
    pub size: String,
    /// File system.
    pub fs: String,
    /// Mount point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// Encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<String>,
}

impl Partition {
    /// A partition; an empty mount point means none.
    pub fn new(name: &str, size: &str, fs: &str, mount: &str) -> Self {
        let mount = (!mount.is_empty()).then(|| mount.to_owned());
        Partition {
            name: name.to_owned(),
            size: size.to_owned(),
            fs: fs.to_owned(),
            mount,
            encrypt: None,
        }
    }
}

impl Layout {
    /// The layout of the demo's and most tests' nodes: swap, /tmp, and the rest for /var.
    pub fn scratch() -> Self {
        Layout {
            version: 1,
            table: None,
            wipe: None,
            esp: None,
            partitions: vec![
                Partition::new("swap", "256MiB", "swap", ""),
                Partition::new("tmp", "512MiB", "ext4", "/tmp"),
                Partition::new("var", "rest", "ext4", "/var"),
            ],
        }
    }
}

/// With a key, nodes have the login check. This one is the curve's base point, whose private key is unknown.
const NOBODYS_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm nobody";

impl Site {
    /// The demo's site with the root that is up in seconds, for [`crate::Cluster::start_small`].
    pub fn small() -> Self {
        let mut site = Site::demo();
        site.default_profile().image = Some("small".to_owned());
        site
    }

    /// The demo's site without /var on the disk, for tests of Debian that do not look at its disk. With it the first boot copies all of
    /// /var, which takes an emulated machine fifteen seconds.
    pub fn without_var() -> Self {
        let mut site = Site::demo();
        for partition in &mut site.scratch().partitions {
            if partition.name == "var" {
                partition.mount = Some("/scratch".to_owned());
            }
        }
        site
    }

    /// The demo's site: image `debian`, layout `scratch`, root logged in on the serial console.
    pub fn demo() -> Self {
        let default = Profile {
            image: Some("debian".to_owned()),
            layout: Some("scratch".to_owned()),
            templates: Some(vec!["base".to_owned(), "console".to_owned()]),
            console: Some("ttyS0,115200".to_owned()),
            authorized_keys: Some(vec![NOBODYS_KEY.to_owned()]),
            ..Profile::default()
        };
        Site {
            subnets: vec![Subnet::of_the_bridge()],
            reserved: ["10.5.0.0/24", "10.5.255.0/24"].map(str::to_owned).to_vec(),
            unknown_machines: None,
            profiles: [("default".to_owned(), default)].into(),
            layouts: [("scratch".to_owned(), Layout::scratch())].into(),
            on_change: Vec::new(),
            drain: Vec::new(),
            resume: Vec::new(),
            hook_timeout_secs: None,
            domain: None,
            dns_forward: None,
            heartbeat_secs: 5,
            answer_router_solicitations: None,
            more: String::new(),
            checks_within_secs: 120,
            boots_before_going_back: None,
        }
    }

    /// The profile of all nodes.
    pub fn default_profile(&mut self) -> &mut Profile {
        self.profiles.entry("default".to_owned()).or_default()
    }

    /// The layout of all nodes.
    pub fn scratch(&mut self) -> &mut Layout {
        self.layouts.entry("scratch".to_owned()).or_insert_with(Layout::scratch)
    }

    /// The file's text, for a daemon with all its files below `dir`.
    pub fn to_toml(&self, dir: &Path) -> Result<String> {
        let mut file = toml::Table::new();
        let mut cluster = toml::Table::new();
        cluster.insert("name".into(), "demo".into());
        cluster.insert("node-name".into(), "r{rack:02}n{slot:02}".into());
        cluster.insert("node-address".into(), "10.5.{rack}.{slot}".into());
        if let Some(domain) = &self.domain {
            cluster.insert("domain".into(), domain.as_str().into());
        }
        cluster.insert("reserved".into(), self.reserved.clone().into());
        file.insert("cluster".into(), cluster.into());
        if let Some(forward) = &self.dns_forward {
            let dns = toml::Table::from_iter([("forward".to_owned(), forward.clone().into())]);
            file.insert("dns".into(), dns.into());
        }
        let mut server = toml::Table::new();
        server.insert("state-dir".into(), dir.to_string_lossy().as_ref().into());
        server.insert(
            "socket".into(),
            dir.join("rackstrap.sock").to_string_lossy().as_ref().into(),
        );
        let templates = crate::paths::repo_root().join("testbed/templates");
        server.insert("templates-dir".into(), templates.to_string_lossy().as_ref().into());
        if let Some(answer) = self.answer_router_solicitations {
            server.insert("answer-router-solicitations".into(), answer.into());
        }
        file.insert("server".into(), server.into());
        file.insert("subnet".into(), toml::Value::try_from(&self.subnets)?);
        let mut profiles = self.profiles.clone();
        if let Some(default) = profiles.get_mut("default") {
            let more = default.kernel_args.as_deref().unwrap_or_default();
            default.kernel_args = Some(format!("{KERNEL_ARGS} {more}").trim().to_owned());
        }
        file.insert("profile".into(), toml::Value::try_from(&profiles)?);
        file.insert("layout".into(), toml::Value::try_from(&self.layouts)?);
        let mut hooks = toml::Table::new();
        hooks.insert("on-change".into(), self.on_change.clone().into());
        hooks.insert("drain".into(), self.drain.clone().into());
        hooks.insert("resume".into(), self.resume.clone().into());
        if let Some(secs) = self.hook_timeout_secs {
            hooks.insert("timeout".into(), format!("{secs}s").into());
        }
        file.insert("hooks".into(), hooks.into());
        let mut limits = toml::Table::new();
        limits.insert("heartbeat".into(), format!("{}s", self.heartbeat_secs).into());
        if let Some(most) = self.unknown_machines {
            limits.insert("unknown-machines".into(), i64::from(most).into());
        }
        limits.insert("checks-within".into(), format!("{}s", self.checks_within_secs).into());
        if let Some(boots) = self.boots_before_going_back {
            limits.insert("boots-before-going-back".into(), i64::from(boots).into());
        }
        file.insert("limits".into(), limits.into());
        Ok(format!("{}\n{}", toml::to_string(&file)?, self.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_file_contains_the_settings() {
        let mut site = Site::demo();
        site.default_profile().kernel_args = Some("rackstrap.hold=table".to_owned());
        site.scratch().version = 2;
        let text = site.to_toml(Path::new("/run/x")).unwrap();
        let file: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(
            file["profile"]["default"]["kernel-args"].as_str(),
            Some("mitigations=off rackstrap.hold=table")
        );
        assert_eq!(file["layout"]["scratch"]["version"].as_integer(), Some(2));
        assert_eq!(file["layout"]["scratch"]["partition"][2]["size"].as_str(), Some("rest"));
        assert_eq!(file["server"]["socket"].as_str(), Some("/run/x/rackstrap.sock"));
    }
}
