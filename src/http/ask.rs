//! The scripts of all loaders: one decision and one pinning, in whatever language and by whatever protocol a loader asks.

use super::{
    answer::Problem,
    boards::has_device_trees,
    counters::{Reason, Total},
    failed::FailedAttempt,
    once::script_file,
    script::NodeScript,
    service::{Peer, Service, base_url},
};
use rackstrap_base::{
    bootname::{BootFile, BootName, ScriptLanguage, ScriptName},
    clock::Timestamp,
    pauses::Pauses,
    subnet::DhcpPart,
    text::quoted,
};
use rackstrap_catalog::ImageVersion;
use rackstrap_image::{kernel_is_signed, permissive_args};
use rackstrap_model::{
    decide::{Decision, NodeDecision, Requester, World, decide, freebsd_needs_ipxe},
    inventory::Settings,
    orders::Once,
};
use rackstrap_registries::{
    boots::{Boot, Turn},
    discovery::LoaderReport,
    timeline::{Event, EventKind, Level, LoaderStep, Subject},
};
use rackstrap_wire::HwAddr;
use std::sync::Arc;

/// What a loader gives as the failed step if it waited as its script said.
const WAITED: &str = "wait";

/// A loader's request for its script.
#[derive(Debug)]
pub struct ScriptAsk {
    /// The language that it understands.
    pub language: ScriptLanguage,
    /// The card that it booted from.
    pub hwaddr: HwAddr,
    /// The sender.
    pub peer: Peer,
    /// The architecture type that the loader was built for; none if it does not say. What the firmware said takes precedence.
    pub arch: Option<u16>,
    /// The step at which its last script failed; empty at the first request.
    pub failed: String,
    /// iPXE's number of the error; empty from other loaders.
    pub error: String,
    /// How often iPXE asked for its script in vain before this request; empty from other loaders.
    pub asked: String,
    /// How often the loader of the machine's disk asked the network in vain before; 0 from any other loader.
    pub tried: u64,
    /// Whether the loader starts signed kernels only.
    pub locked: bool,
    /// Whether it is GRUB on the node's disk.
    pub on_disk: bool,
    /// Whether it waited before, so that the report of its DHCP packets has been processed.
    pub again: bool,
    /// What the loader knows of the machine by SMBIOS; empty if it does not say.
    pub told: LoaderReport,
}

impl ScriptAsk {
    /// The first request of a loader that says nothing of its machine.
    pub fn new(language: ScriptLanguage, hwaddr: HwAddr, peer: Peer) -> Self {
        ScriptAsk {
            language,
            hwaddr,
            peer,
            arch: None,
            failed: String::new(),
            error: String::new(),
            asked: String::new(),
            tried: 0,
            locked: false,
            on_disk: false,
            again: false,
            told: LoaderReport::default(),
        }
    }

    fn failed_attempt(&self) -> FailedAttempt {
        FailedAttempt::read(&self.failed, &self.error, &self.asked)
    }
}

impl Service {
    /// The script for that request: makes a new decision at each call, and pins a node's boot.
    ///
    /// # Errors
    /// Nothing can be decided for the sender now.
    pub(super) async fn script(&self, asks: ScriptAsk) -> Result<String, Problem> {
        let (hwaddr, peer) = (asks.hwaddr, asks.peer);
        let node = self.world.load().inventory.by_hwaddr(hwaddr).cloned();
        if let Some(node) = node {
            self.pinning.wait_for_last_boot(&node.name).await;
        }
        let world = self.snapshot();
        let requester = Requester {
            hwaddr: Some(hwaddr),
            arch: self.firmware.of(hwaddr).or(asks.arch),
            ipxe: asks.language == ScriptLanguage::Ipxe,
            ..Requester::default()
        };
        let decision = decide(&world, &requester);
        // The address of one node says nothing about other machines: such a request changes nothing, and is on no timeline.
        let speaks_for_another = world
            .inventory
            .by_ipaddr(peer.ipv4())
            .is_some_and(|node| !node.hwaddrs.contains(&hwaddr));
        if let Decision::Node(decision) = &decision {
            self.open_without_dhcp(&world, decision, peer);
            if decision.subnet.dhcp.is_of_another_server() && decision.node.ipaddr == peer.ipv4() {
                self.firmware.note_address(hwaddr, peer.ipv4());
            }
        }
        match decision {
            _ if speaks_for_another => self.another_nodes_address(&world, &asks),
            Decision::Node(decision)
                if decision.node.ipaddr != peer.ipv4()
                    && !self.starts_untagged(decision.subnet.vlan, hwaddr, peer)
                    && decision.subnet.dhcp.is_of_another_server() =>
            {
                self.unreserved(&world, &decision, &asks)
            }
            Decision::Node(decision)
                if decision.node.ipaddr != peer.ipv4() && !self.starts_untagged(decision.subnet.vlan, hwaddr, peer) =>
            {
                self.moved(&world, &decision, &asks)
            }
            Decision::Node(decision) if !self.pinning.windows.is_open(&decision.node.name, Timestamp::now()) => {
                let detail = format!("{} has to ask DHCP before it boots", decision.node.name);
                self.send_to_dhcp(&world, &decision, &asks, detail, Some(Level::Retry))
            }
            Decision::Node(decision) => self.node_script(&world, &requester, decision, &asks).await,
            Decision::Unknown { .. } => {
                if asks.again && asks.told != LoaderReport::default() && self.is_own_address(hwaddr, peer) {
                    self.pinning.discovery.report(hwaddr, asks.told.clone());
                }
                self.stranger_script(&world, &asks)
            }
        }
    }

    /// The script of a node that asks from its own address, in a window that its firmware opened.
    async fn node_script(
        &self,
        world: &World,
        requester: &Requester,
        mut decision: Box<NodeDecision>,
        asks: &ScriptAsk,
    ) -> Result<String, Problem> {
        let disk = self.pinning.boots.disks().get(&decision.node.name);
        decision.hold_disk(world.disk_rules(), disk.as_ref());
        self.note_rounds(&decision.node.name, asks.tried);
        let failed = (!asks.failed.is_empty() && asks.failed != WAITED).then(|| asks.failed_attempt());
        if let Some(failed) = &failed {
            self.note_failure(&decision.node.name, failed, asks.locked).await;
        }
        let once = self
            .take_order(world, requester, &mut decision, asks, failed.is_some())
            .await?;
        match self.unmanaged_script(world, &decision, asks, once.as_ref())? {
            Some(text) => Ok(text),
            None => self.boot_script(world, &decision, asks, failed, once).await,
        }
    }

    /// The script that a loader asks for by `name`, by HTTP or TFTP.
    ///
    /// # Errors
    /// No script has that name, or nothing can be decided for the sender.
    pub async fn named_script(&self, name: &str, peer: Peer) -> Result<String, Problem> {
        let unknown = || {
            let text = format!("no boot script is called {}", quoted(name, 60));
            Problem::not_found(Reason::UnknownPath, text)
        };
        match BootName::parse(name) {
            Some(BootName::Start(_)) => {
                let site = self.snapshot().site.clone();
                let subnet = site.subnet_of(peer.ipv4()).ok_or_else(|| self.stranger(peer))?;
                let pauses = Pauses::spread(rand::random());
                let text = self.scripts.load().start(subnet.server, site.server.http_port, &pauses);
                text.map_err(Problem::unavailable)
            }
            Some(BootName::Script(script)) => {
                let ScriptName {
                    language,
                    failed,
                    locked,
                    on_disk,
                    ..
                } = script;
                let hwaddr = script.hwaddr.or_else(|| self.card_at(peer));
                let asks = ScriptAsk {
                    arch: script.arch,
                    failed: failed.to_owned(),
                    tried: on_disk.map_or(0, u64::from),
                    locked,
                    on_disk: on_disk.is_some(),
                    again: failed == WAITED,
                    ..ScriptAsk::new(language, hwaddr.ok_or_else(unknown)?, peer)
                };
                self.script(asks).await
            }
            Some(
                BootName::File { .. } | BootName::DeviceTree { .. } | BootName::RaspberryPi { .. } | BootName::Optional,
            )
            | None => Err(unknown()),
        }
    }

    /// The card of the machine at that address, for loaders that do not know theirs: of a node, or of a machine with a temporary
    /// address.
    fn card_at(&self, peer: Peer) -> Option<HwAddr> {
        let world = self.world.load();
        match world.inventory.by_ipaddr(peer.ipv4()) {
            // The firmware of one of them has just asked for this address.
            Some(node) => self.firmware.booted(&node.hwaddrs, peer.ipv4()),
            None => (self.holder)(peer.ipv4()),
        }
    }

    pub(super) fn stranger(&self, peer: Peer) -> Problem {
        let text = format!("{} is in no [[subnet]] of the site file", peer.ipv4());
        Problem::forbidden(Reason::Stranger, text)
    }

    /// With `dhcp = "off"` no DHCP exchange is heard that could open the node's window, so its request for a script opens it. A
    /// user of the running system can send that, too: while the system sends heartbeats, the boot is in doubt, as with a
    /// relay that passes on what users send.
    fn open_without_dhcp(&self, world: &World, decision: &NodeDecision, peer: Peer) {
        let node = &decision.node;
        if decision.subnet.dhcp != DhcpPart::Off || node.ipaddr != peer.ipv4() {
            return;
        }
        let doubted = self
            .pinning
            .boots
            .is_alive(&node.name, world.site.limits.heartbeat_secs);
        self.pinning.windows.open(&node.name, Timestamp::now(), doubted);
    }

    /// Records that the loader tried, failed, paused, and asks again. `locked` is whether it starts signed kernels only.
    async fn note_failure(&self, node: &str, failed: &FailedAttempt, locked: bool) {
        let (mut level, mut detail) = (Level::Retry, failed.describe());
        if locked
            && matches!(failed.step, Some(LoaderStep::Kernel | LoaderStep::Boot))
            && let Some(text) = self.unsigned(node).await
        {
            (level, detail) = (Level::Error, text);
        }
        let doubted = self.pinning.windows.is_doubted(node);
        let record = |step, level, detail: String, count: u64| {
            let kind = match doubted {
                true => EventKind::script(true),
                false => EventKind::Retry(step),
            };
            let event = Event {
                count,
                ..Event::new(Timestamp::now(), kind, level, detail)
            };
            self.pinning.recorder.record(Subject::Node(node.to_owned()), event);
        };
        if failed.step.is_some_and(|step| step != LoaderStep::Script) && failed.asked > 0 {
            let detail = "it asked for its script in vain".to_owned();
            record(LoaderStep::Script, Level::Retry, detail, failed.asked);
        }
        record(failed.step.unwrap_or(LoaderStep::Script), level, detail, 1);
    }

    /// Records how often the loader of the node's disk asked the network in vain.
    fn note_rounds(&self, node: &str, tried: u64) {
        let detail = match tried {
            0 => return,
            1 => "the loader on its disk asked the network once in vain".to_owned(),
            _ => format!("the loader on its disk asked the network {tried} times in vain"),
        };
        let kind = match self.pinning.windows.is_doubted(node) {
            true => EventKind::script(true),
            false => EventKind::Retry(LoaderStep::Script),
        };
        let event = Event {
            count: tried,
            ..Event::new(Timestamp::now(), kind, Level::Retry, detail)
        };
        self.pinning.recorder.record(Subject::Node(node.to_owned()), event);
    }

    /// Why Secure Boot keeps the kernel of the node's last boot from starting, with the remedy; none if that kernel is not known any more.
    async fn unsigned(&self, node: &str) -> Option<String> {
        let boot = self.pinning.boots.current(node)?;
        let image = boot.image().clone();
        let path = self
            .world
            .load()
            .images
            .of_plan(&boot.plan)?
            .dir
            .join(BootFile::Kernel.name());
        let signed = tokio::task::spawn_blocking(move || kernel_is_signed(&path))
            .await
            .ok()??;
        Some(match signed {
            false => format!(
                "the firmware refused the kernel of {image}: it is not signed for Secure Boot; install a signed kernel in the image (Debian: \
                 linux-image-amd64) and seal it, or turn Secure Boot off"
            ),
            true => format!(
                "the kernel of {image} did not load, and Secure Boot is on: if the kernel was sent whole, the firmware does not trust its \
                 signature; enrol its key with mokutil, or install the kernel of a distribution whose shim is used"
            ),
        })
    }

    /// Pins a boot of the node, or takes the one that it began just now, and renders its script.
    async fn boot_script(
        &self,
        world: &World,
        decision: &NodeDecision,
        asks: &ScriptAsk,
        failed: Option<FailedAttempt>,
        once: Option<Once>,
    ) -> Result<String, Problem> {
        let base = self.base_of(world, decision, asks.peer);
        let agent_base = base_url(&world.site, decision.subnet.server);
        let name = &decision.node.name;
        let doubted = self.pinning.windows.is_doubted(name);
        // A Raspberry Pi asks for its file several times in one attempt.
        let again = match asks.language {
            ScriptLanguage::RaspberryPi => self.begun(name),
            _ => None,
        };
        let plan = decision.plan(&world.site, asks.hwaddr, "").and_then(|plan| {
            can_start(asks.language, world.images.of_plan(&plan))?;
            Ok(plan)
        });
        let plan = match plan {
            Ok(plan) => plan,
            Err(problem) => {
                self.pinning.refuse(name, &problem);
                return self.wait(asks, &base, &[format!("{name}: nothing to boot"), problem], false);
            }
        };
        let privileged = (world.images.of_plan(&plan))
            .is_some_and(|version| version.asks_from_privileged_ports() || version.is_freebsd());
        let settings = Settings::of_node(&world.site, &decision.node, |_| ());
        let first = again.is_none();
        let boot = match again {
            Some(boot) => boot,
            None => {
                let boot = self
                    .pinning
                    .open(plan, privileged, doubted, Some(settings.digest()), once)
                    .await;
                boot.map_err(Problem::unavailable)?
            }
        };
        let version = world.images.of_plan(&boot.plan);
        let (kernel_args, permissive) = arguments(decision, version);
        let turn = self.turn(name, asks.language, version, doubted);
        let pauses = Pauses::spread(rand::random());
        let text = match version {
            Some(version) if version.is_freebsd() => can_start(asks.language, Some(version))
                .and_then(|()| self.scripts.load().freebsd(&boot.plan, &base, &pauses)),
            _ => {
                let script = NodeScript {
                    plan: &boot.plan,
                    token: &boot.token,
                    base: &base,
                    agent_base: &agent_base,
                    console: &decision.console,
                    attributes: &decision.node.attributes,
                    vars: &settings.plain_vars(),
                    is_board: version.is_some_and(|version| version.is_for_boards()),
                    kernel_args: &kernel_args,
                    device_trees: asks.language == ScriptLanguage::Pxelinux
                        && version.is_some_and(|v| has_device_trees(v)),
                    pauses,
                    turn,
                    limited: !failed.is_some_and(|failed| failed.may_lack_options()),
                    file: script_file(&boot),
                };
                self.scripts.load().node(asks.language, &script)
            }
        };
        match text {
            Ok(text) => {
                if first {
                    self.announce_script(&boot, asks, doubted, permissive, turn);
                }
                Ok(text)
            }
            Err(problem) => {
                self.record(&boot, EventKind::script(doubted), Level::Error, problem.clone(), None);
                self.wait(asks, &base, &[format!("{name}: nothing to boot"), problem], false)
            }
        }
    }

    /// When the node begins to load.
    fn turn(&self, node: &str, language: ScriptLanguage, version: Option<&Arc<ImageVersion>>, doubted: bool) -> Turn {
        let is_freebsd = version.is_some_and(|version| version.is_freebsd());
        // A user can ask in a boot in doubt, and takes no turn from a machine. FreeBSD's loader is small, and its kernel comes by NFS.
        match language {
            ScriptLanguage::Ipxe | ScriptLanguage::Grub if !doubted && !is_freebsd => {
                self.loading.enter(node, Timestamp::now())
            }
            // Other languages cannot wait before they load.
            _ => Turn::default(),
        }
    }

    /// Records on the timeline what the script boots, in which order and when.
    fn announce_script(&self, boot: &Arc<Boot>, asks: &ScriptAsk, doubted: bool, permissive: bool, turn: Turn) {
        let how = if permissive { ", SELinux permissive" } else { "" };
        let wait = match turn.secs {
            0 => String::new(),
            secs => {
                self.counters.total(Total::Paced);
                format!(", in {secs} s: {} nodes load now", turn.others)
            }
        };
        let by = if asks.on_disk { " by GRUB on the disk" } else { "" };
        let order = boot.once.as_ref();
        let order = order.map_or_else(String::new, |once| {
            format!(" ({}, by the order of {})", once.what, once.by)
        });
        let detail = format!("boots {}{by}{how}{order}{wait}", boot.export_name());
        self.pinning.announce(boot, detail);
        if let (Some(file), false) = (script_file(boot), doubted) {
            let detail = format!("runs the boot script {file}, which may report nothing");
            self.record(boot, EventKind::Unmanaged, Level::Ok, detail, None);
        }
    }
}

/// The site's kernel arguments of a boot, and whether they make a policy of SELinux permissive. Files on an NFS root have no labels, so if
/// the policy is enforced, logins fail.
fn arguments(decision: &NodeDecision, version: Option<&Arc<ImageVersion>>) -> (String, bool) {
    let site = &decision.kernel_args;
    if !version.is_some_and(|version| version.enforces_selinux) {
        return (site.clone(), false);
    }
    let all = permissive_args(site);
    // If the site's kernel arguments say so, the image enforces its policy nevertheless.
    let permissive = all != *site;
    (all, permissive)
}

/// Refuses an image that the loader cannot start: iPXE alone starts the loader of FreeBSD.
fn can_start(language: ScriptLanguage, version: Option<&Arc<ImageVersion>>) -> Result<(), String> {
    match version {
        Some(version) if version.is_freebsd() && language != ScriptLanguage::Ipxe => {
            Err(freebsd_needs_ipxe(version, language.loader()))
        }
        _ => Ok(()),
    }
}
