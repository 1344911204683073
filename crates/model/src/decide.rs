//! The decision about a machine: which node it is, and what it boots.
//!
//! DHCP, TFTP, HTTP and NFS ask it; none of them knows the reasons. It is pure: a [`World`] and a [`Requester`] go in, an
//! answer with its reasons comes out. It uses no clock, no file and no lock.

mod assignments;
mod freebsd;
mod holds;
mod layouts;
mod loaders;
mod networks;
mod once;
mod vlan;

pub use assignments::{Assignments, Choice, Current, Given, RenameStep, Renaming, Restarting, Source, Trial};

pub use freebsd::{FREEBSD, FREEBSD_NFS_PORT, freebsd_file, freebsd_needs_ipxe, freebsd_problem};
pub use loaders::{LoaderChoice, choose_loader, conditions, loaders_of};
pub use networks::{describe_network, host_address, host_at, hosts_of, networks_of};

use crate::{
    disks::{DiskRules, NodeDisk},
    inventory::{Inventory, Node, Settings},
};
use rackstrap_base::{arch::Architecture, dhcp_option::DhcpOption, firmware, subnet::Subnet};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_site::{BOOT_LOCAL, LayoutPolicy, Site};
use rackstrap_wire::{
    Check, DiskPlan, ESP_PARTITION, Health, HwAddr, LOGIN, LayoutEsp, NetPlan, NetworkPlan, NfsRoot, Plan, Root,
    WIRE_VERSION, Wipe, network_check,
};
use std::{net::Ipv4Addr, sync::Arc};

/// Everything that decisions are made from; immutable, and replaced as a whole when anything changes.
#[derive(Clone, Debug)]
pub struct World {
    /// The checked site file.
    pub site: Arc<Site>,
    /// All nodes.
    pub inventory: Arc<Inventory>,
    /// All sealed images.
    pub images: Arc<Catalog>,
    /// Which version each node is given.
    pub assignments: Arc<Assignments>,
    /// The site file with the rules for disks that were last confirmed, while those of `site` wait for a confirmation.
    pub confirmed: Option<Arc<Site>>,
}

impl World {
    /// The rules for nodes' disks.
    pub fn disk_rules(&self) -> DiskRules<'_> {
        DiskRules {
            site: &self.site,
            confirmed: self.confirmed.as_deref(),
        }
    }
}

/// The world that every task reads. A reader takes one snapshot for each packet.
pub type SharedWorld = Arc<arc_swap::ArcSwap<World>>;

/// The known properties of a request's sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// Hardware address: chaddr of DHCP, or the one in a boot script's URL.
    pub hwaddr: Option<HwAddr>,
    /// Sender address, where there is one.
    pub ipaddr: Option<Ipv4Addr>,
    /// Client architecture (RFC 4578 option 93, first value); none if it was not sent.
    pub arch: Option<u16>,
    /// Vendor class (option 60) by [`firmware::class_text`]; empty if it was not sent, or is not known any more.
    pub class: String,
    /// Whether the sender is iPXE (user class 77 `iPXE`, or its options 175).
    pub ipxe: bool,
    /// Whether the sender asked for HTTP boot (vendor class `HTTPClient`).
    pub http_client: bool,
}

impl Requester {
    /// The architecture of its processor; none if its firmware did not report it.
    fn architecture(&self) -> Option<Architecture> {
        self.arch.and_then(Architecture::of_firmware)
    }

    /// `x64 UEFI (architecture 7, vendor class PXEClient)`; none if it did not report itself.
    fn name_of_firmware(&self) -> Option<String> {
        let arch = self.arch.map(|arch| format!("architecture {arch}"));
        let class = (!self.class.is_empty()).then(|| format!("vendor class {}", self.class));
        let said: Vec<String> = [arch, class].into_iter().flatten().collect();
        if said.is_empty() {
            return None;
        }
        // U-Boot of x86 sends the type of a BIOS, or none.
        let name = match self.arch {
            None | Some(0) if firmware::is_u_boot(self.arch, &self.class) => firmware::U_BOOT.to_owned(),
            arch => firmware::name(firmware::or_bios(arch)),
        };
        Some(format!("{name} ({})", said.join(", ")))
    }

    /// One line about its firmware; none if it did not report itself.
    fn about_firmware(&self, loader: &Result<LoaderChoice, String>) -> Option<String> {
        let about = self.name_of_firmware()?;
        Some(match loader {
            Ok(choice) if choice.files.is_empty() => format!("its firmware is {about}: {}", choice.why),
            Ok(choice) => format!(
                "its firmware is {about}, which loads {}: {}",
                choice
                    .files
                    .first()
                    .map_or_else(|| "nothing".to_owned(), |file| firmware::chain_of(file)),
                choice.why
            ),
            Err(why) => format!("its firmware gets nothing to boot: {why}"),
        })
    }
}

/// The answer to [`decide`].
#[derive(Clone, Debug)]
pub enum Decision {
    /// A node of the inventory.
    Node(Box<NodeDecision>),
    /// The machine is not a node.
    Unknown {
        /// The loader for its firmware, or why it gets no loader.
        loader: Result<LoaderChoice, String>,
        /// How the decision was made, one line for each step.
        why: Vec<String>,
    },
}

impl Decision {
    /// The loader for the machine's firmware, or why it gets no loader.
    pub fn loader(&self) -> &Result<LoaderChoice, String> {
        match self {
            Decision::Node(node) => &node.loader,
            Decision::Unknown { loader, .. } => loader,
        }
    }
}

/// The boot decision for a node.
#[derive(Clone, Debug)]
pub struct NodeDecision {
    /// The node.
    pub node: Arc<Node>,
    /// The subnet of its address.
    pub subnet: Subnet,
    /// The variant of the image version for this machine, or why there is none.
    pub image: Result<Arc<ImageVersion>, String>,
    /// The loader for its firmware, or why it gets no loader.
    pub loader: Result<LoaderChoice, String>,
    /// The plan for the disk; none if disks are left alone.
    pub disk: Option<DiskPlan>,
    /// Kernel arguments of the site for this node.
    pub kernel_args: String,
    /// Overlay trees, in order.
    pub templates: Vec<String>,
    /// Public SSH keys for root.
    pub authorized_keys: Vec<String>,
    /// Whether the agent puts the network first in the boot order of UEFI firmware.
    pub network_first: bool,
    /// The serial console; empty if there is none.
    pub console: String,
    /// The path of PID 1.
    pub init: String,
    /// Size limit of the writable layer.
    pub ram_size: String,
    /// MTU of its card in bytes, if a profile sets one; otherwise that of the subnet counts.
    pub mtu: Option<u16>,
    /// Options of DHCP answers, in addition to those of the subnet or instead of them.
    pub dhcp_options: Vec<DhcpOption>,
    /// The networks besides the boot network.
    pub networks: Vec<NetworkPlan>,
    /// The checks that a ready node passes: those of its profile, and one for each required mount.
    pub checks: Vec<String>,
    /// Whether the agent also checks that users can log in.
    pub check_login: bool,
    /// Whether the node boots from its own disk, not from the network.
    pub local: bool,
    /// The mount points of required mounts: the agent mounts those that are missing.
    pub required_mounts: Vec<String>,
    /// How the decision was made, one line for each step, for `rackstrap explain`.
    pub why: Vec<String>,
}

/// Decides which machine this is, and what it boots.
///
/// The hardware address decides; if there is none, the sender's address does.
pub fn decide(world: &World, requester: &Requester) -> Decision {
    let mut why = Vec::new();
    let found = identify(&world.inventory, requester, &mut why);
    let mut loader = choose_loader(
        &world.site,
        requester,
        found.as_ref().map(|node| node.profiles.as_slice()),
    );
    let firmware_step = why.len();
    why.extend(requester.about_firmware(&loader));
    let Some(node) = found else {
        return Decision::Unknown { loader, why };
    };
    let Some(subnet) = world.site.subnet_of(node.ipaddr) else {
        why.push(format!(
            "its address {} is in no [[subnet]] of the site file: it gets no answer",
            node.ipaddr
        ));
        return Decision::Unknown { loader, why };
    };
    let naming = &world.site.cluster.naming;
    let own = node.settings.ipaddr() == Some(node.ipaddr);
    let by = match naming.name_to_address(&node.name) {
        Ok(address) if own && address != node.ipaddr => format!("its own setting, instead of {address} of its name"),
        _ if own => "its own setting".to_owned(),
        Ok(address) if address == node.ipaddr => "by the name's position".to_owned(),
        Ok(address) => format!("kept from before: node-address gives {address} to this name"),
        Err(_) => format!("kept from before: its name does not follow {}", naming.name_pattern()),
    };
    why.push(format!("address {} in subnet {}, {by}", node.ipaddr, subnet.network));
    why.extend(vlan::explain(&world.site, subnet));
    match node.profiles.as_slice() {
        [] => why.push("profile default".to_owned()),
        [one] => why.push(format!("profile {one}, then default")),
        several => why.push(format!(
            "profiles {}, the last one wins, then default",
            several.join(", ")
        )),
    }
    let settings = Settings::of_node(&world.site, &node, |profile| {
        why.push(format!("profile {profile} is not in the site file: it is ignored"));
    });
    if !node.settings.is_empty() {
        let keys: Vec<&str> = node.settings.written().keys().map(String::as_str).collect();
        why.push(format!("settings of the node itself, which win: {}", keys.join(", ")));
        let problems = node.settings.problems(&world.site).into_iter();
        why.extend(problems.map(|problem| format!("setting {problem}: it has no effect")));
    }
    let image = choose_image(world, &node.name, settings.text(|p| &p.image), &mut why)
        .and_then(|version| choose_variant(&node.name, &version, requester.architecture(), &mut why))
        .and_then(|version| {
            let problem = freebsd_problem(&world.site, subnet, &version)
                .or_else(|| agent_problem(subnet, &settings, &version))
                .or_else(|| freebsd::refused_by(requester, &loader, &version));
            problem.map_or(Ok(version), Err)
        })
        .inspect_err(|problem| why.push(problem.clone()));
    // Without its arguments the node could come up as another machine than it should be.
    let (image, kernel_args) = match settings.kernel_args() {
        Ok(kernel_args) => (image, kernel_args),
        Err(problem) => {
            let problem = format!("kernel-args: {problem}");
            why.push(problem.clone());
            (image.and(Err(problem)), String::new())
        }
    };
    let freebsd = image.as_ref().ok().filter(|version| version.is_freebsd());
    // A loader of the site file wins: iPXE leads to FreeBSD's loader, too. Firmware that asks for names of its own is offered no file.
    let stays = (loader.as_ref()).is_ok_and(|choice| choice.of_site || choice.files.is_empty());
    if let Some(version) = freebsd.filter(|_| !stays) {
        let before = requester.about_firmware(&loader);
        loader = freebsd::loader(requester, version);
        if let (Some(_), Some(now)) = (before, requester.about_firmware(&loader)) {
            why[firmware_step] = now;
        }
    }
    let disk = match freebsd {
        Some(version) => {
            why.push(freebsd::chain(subnet, version));
            None
        }
        None => choose_disk(&world.site, &settings, &mut why),
    };
    let (networks, problems) = match freebsd {
        // FreeBSD has no agent that sets networks up.
        Some(_) => Default::default(),
        None => networks_of(&world.site, &node, &settings),
    };
    why.extend(
        networks
            .iter()
            .map(|plan| format!("network {}: {}", plan.name, describe_network(plan))),
    );
    why.extend(problems);
    // FreeBSD has no agent that mounts and checks.
    let required_mounts = match freebsd {
        Some(_) => Vec::new(),
        None => world.site.required_mounts(&node.profiles),
    };
    let local = settings.text(|p| &p.boot) == Some(BOOT_LOCAL);
    if local {
        why.push("boot = \"local\": its loader starts the system on its own disk".to_owned());
    }
    let has_agent = freebsd.is_none();
    let checks = settings.get(|p| p.checks.as_ref()).filter(|_| has_agent);
    let mut checks = checks.cloned().unwrap_or_default();
    for place in &required_mounts {
        let check = Check::Mount(place.clone()).to_string();
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    Decision::Node(Box::new(NodeDecision {
        subnet: subnet.clone(),
        image,
        loader,
        disk,
        kernel_args,
        templates: settings.templates(),
        authorized_keys: settings
            .get(|p| p.authorized_keys.as_ref())
            .cloned()
            .unwrap_or_default(),
        network_first: settings.network_first(),
        console: settings.text(|p| &p.console).unwrap_or_default().to_owned(),
        local,
        init: settings.text(|p| &p.init).unwrap_or("/sbin/init").to_owned(),
        ram_size: settings.text(|p| &p.ram_size).unwrap_or("50%").to_owned(),
        mtu: settings.get(|p| p.mtu.as_ref()).copied(),
        dhcp_options: settings.get(|p| p.dhcp_options.as_ref()).cloned().unwrap_or_default(),
        networks,
        checks,
        check_login: has_agent && settings.get(|p| p.check_login.as_ref()).copied().unwrap_or(true),
        required_mounts,
        node,
        why,
    }))
}

/// Mount options of a root. A sealed image never changes, so the client may cache attributes of files for ten minutes: that
/// halved the calls of a Debian boot (4,700 to 2,290). 1 MiB is the largest read that Linux makes. With `hard` the client
/// waits for a restarted daemon without a time limit.
const ROOT_OPTIONS: &str = "hard,nocto,acregmin=600,acregmax=600,acdirmin=600,acdirmax=600,rsize=1048576";

impl NodeDecision {
    /// Treats the disk by the rules that were last confirmed, if those of the site file are held back for this node.
    pub fn hold_disk(&mut self, rules: DiskRules<'_>, disk: Option<&NodeDisk>) {
        if self.image.as_ref().is_ok_and(|version| version.is_freebsd()) {
            return;
        }
        let Some(confirmed) = rules.instead(&self.node, disk) else {
            return;
        };
        self.why.push(
            "the site file's disk layout is held back, because it would lose data and is not confirmed".to_owned(),
        );
        let settings = Settings::of_node(confirmed, &self.node, |_| ());
        self.disk = choose_disk(confirmed, &settings, &mut self.why);
    }

    /// All checks of the node, for people.
    pub fn all_checks(&self) -> Vec<String> {
        let login = self.check_login.then(|| LOGIN.to_owned());
        let networks = self.networks.iter().map(|plan| network_check(&plan.name));
        self.checks.iter().cloned().chain(login).chain(networks).collect()
    }

    /// The plan of a boot of this node, or why it cannot boot.
    pub fn plan(&self, site: &Site, hwaddr: HwAddr, id: &str) -> Result<Plan, String> {
        let version = self.image.clone()?;
        Ok(Plan {
            wire: WIRE_VERSION,
            id: id.to_owned(),
            node: self.node.name.clone(),
            net: NetPlan {
                hwaddr,
                ipaddr: self.node.ipaddr,
                prefix: self.subnet.network.prefix_len(),
                router: self.subnet.router,
                dns: self.subnet.dns.clone(),
                domain: site.cluster.domain.clone(),
                mtu: self.mtu.or(self.subnet.mtu),
                vlan: self.subnet.vlan,
            },
            networks: self.networks.clone(),
            root: Root::Nfs(NfsRoot {
                server: self.subnet.server,
                port: site.server.nfs_port,
                export: format!("/{}", version.export_name()),
                options: ROOT_OPTIONS.to_owned(),
            }),
            image: version.manifest.image.clone(),
            variant: version.variant.clone(),
            init: self.init.clone(),
            disk: self.disk.clone(),
            ram_size: self.ram_size.clone(),
            heartbeat_secs: site.limits.heartbeat_secs,
            health: Health {
                checks: self.checks.clone(),
                within_secs: site.limits.checks_within_secs,
                command_secs: site.limits.check_timeout_secs,
                mounts: self.required_mounts.clone(),
                login: self.check_login,
                networks: self.networks.iter().map(|plan| plan.name.clone()).collect(),
            },
            network_first: self.network_first,
            // Not pinned: filled in when the plan is sent.
            netconsole: None,
        })
    }
}

fn identify(inventory: &Inventory, requester: &Requester, why: &mut Vec<String>) -> Option<Arc<Node>> {
    if let Some(hwaddr) = requester.hwaddr {
        let found = inventory.by_hwaddr(hwaddr);
        why.push(match found {
            Some(node) => format!("hardware address {hwaddr} belongs to node {}", node.name),
            None => format!("hardware address {hwaddr} belongs to no node"),
        });
        return found.cloned();
    }
    let Some(ipaddr) = requester.ipaddr else {
        why.push("the requester's hardware address and IP address are unknown".to_owned());
        return None;
    };
    let found = inventory.by_ipaddr(ipaddr);
    why.push(match found {
        Some(node) => format!("address {ipaddr} belongs to node {}", node.name),
        None => format!("address {ipaddr} belongs to no node"),
    });
    found.cloned()
}

fn choose_image(
    world: &World,
    node: &str,
    wanted: Option<&str>,
    why: &mut Vec<String>,
) -> Result<Arc<ImageVersion>, String> {
    let setting =
        wanted.ok_or_else(|| "its profile names no image; write image = \"NAME\" in [profile.default]".to_owned());
    let limit = world.site.limits.boots_before_going_back;
    let choice = setting.and_then(|setting| world.assignments.choose(node, setting, &world.images, limit));
    choice.and_then(|choice| {
        let version = world.images.get(&choice.image).cloned();
        why.push(choice.why);
        version.ok_or_else(|| format!("image {} does not exist", choice.image))
    })
}

/// The version's variant for a machine of that architecture.
fn choose_variant(
    node: &str,
    version: &Arc<ImageVersion>,
    machine: Option<Architecture>,
    why: &mut Vec<String>,
) -> Result<Arc<ImageVersion>, String> {
    if let Some(variant) = version.variant_for(machine) {
        if version.variants().nth(1).is_some() {
            why.push(match machine {
                Some(machine) => format!("its variant {} for an {machine} machine", variant.architecture_name()),
                None => format!(
                    "its variant {}, because the firmware has not reported the machine's architecture",
                    variant.architecture_name()
                ),
            });
        }
        return Ok(variant.clone());
    }
    let (image, machine) = (
        &version.manifest.image,
        machine.map(|m| m.to_string()).unwrap_or_default(),
    );
    Err(format!(
        "image {image} has no variant for {machine}, and node {node} is an {machine} machine; it has {}; add a variant with: \
         rackstrap image import {image} --arch {machine} --from TREE",
        version.architectures(),
    ))
}

/// Why the image's agent cannot do what the node needs; none if it can.
fn agent_problem(subnet: &Subnet, settings: &Settings<'_>, version: &ImageVersion) -> Option<String> {
    vlan::problem(subnet, version).or_else(|| layouts::problem(settings, version))
}

fn choose_disk(site: &Site, settings: &Settings<'_>, why: &mut Vec<String>) -> Option<DiskPlan> {
    let names = settings.text(|p| &p.layout).unwrap_or_default();
    if names.is_empty() {
        why.push("no disk layout: local disks are left alone".to_owned());
        return None;
    }
    // A checked site has every layout that a profile names. A node may still have one that was removed from the site file.
    let mut names = names.split_ascii_whitespace();
    let first = names.next().unwrap_or_default();
    let Some(policy) = site.layouts.get(first) else {
        why.push(format!(
            "layout {first}, which the node itself has, is not in the site file: local disks are left alone"
        ));
        return None;
    };
    let device = settings.text(|p| &p.disk).or(policy.disk.as_deref()).unwrap_or("auto");
    let mut plan = disk_plan(policy, device, why);
    for name in names {
        // A further layout never takes just any disk.
        let policy = site.layouts.get(name);
        match policy.and_then(|policy| Some((policy, policy.disk.as_deref().filter(|disk| *disk != "auto")?))) {
            Some((policy, device)) => plan.more.push(disk_plan(policy, device, why)),
            None => why.push(format!(
                "layout {name}, which the node itself has, is not in the site file, or does not say which disk it is for: no disk is used \
                 for it"
            )),
        }
    }
    Some(plan)
}

/// The plan for the disk of one layout. `device` says which disk that is.
fn disk_plan(policy: &LayoutPolicy, device: &str, why: &mut Vec<String>) -> DiskPlan {
    let name = &policy.layout.name;
    let esp = match policy.esp {
        true => "; shim and GRUB on the disk ask the network, if UEFI starts it",
        false => "",
    };
    let encrypted: Vec<&str> = (policy.contents.iter())
        .filter(|content| content.encrypt.is_some())
        .map(|content| content.partition.as_str())
        .collect();
    let encrypted = match encrypted.as_slice() {
        [] => String::new(),
        [one] => format!("; {one} is encrypted with a key of each boot"),
        [all @ .., last] => format!("; {} and {last} are encrypted with a key of each boot", all.join(", ")),
    };
    why.push(format!(
        "disk layout {name} v{} on {device}{esp}{encrypted}",
        policy.layout.version
    ));
    let (layout, contents) = rackstrap_wire::for_agents(&policy.layout, &policy.contents);
    DiskPlan {
        layout,
        contents,
        digest: policy.digest.clone(),
        device: device.to_owned(),
        wipe: match policy.wipe {
            Wipe::Known => Wipe::Ours,
            wipe => wipe,
        },
        wipe_known: policy.wipe == Wipe::Known,
        roots: policy.roots.clone(),
        // Facts of the node, which the registry of disks adds.
        seen: None,
        again: false,
        remake: Vec::new(),
        more: Vec::new(),
        loader: None,
        esp: Vec::new(),
        layout_esp: policy.esp.then(|| LayoutEsp {
            partition: ESP_PARTITION.to_owned(),
            images: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests;
