//! What boot loaders fetch: their script, the kernel, the initramfs, and loaders themselves.

use super::{
    answer::Problem,
    counters::Reason,
    script::{NodeScript, Pauses, WaitScript},
    service::{Peer, Service, base_url},
};
use axum::{
    body::Body,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rackstrap_base::{
    clock::Timestamp,
    firmware::arch_of_ipxe,
    subnet::{DhcpPart, wrong_address},
    text::quoted,
};
use rackstrap_catalog::{EFI_LOADER, PXE_LOADER, export_name};
use rackstrap_image::permissive_args;
use rackstrap_model::decide::{Decision, NodeDecision, Requester, World, decide};
use rackstrap_registries::{
    boots::{Boot, Origin},
    discovery::{LoaderReport, Owner},
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_wire::HwAddr;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tower::ServiceExt;
use tower_http::services::ServeFile;

/// Query of `/ipxe`.
#[derive(serde::Deserialize)]
pub struct WhoAsks {
    mac: String,
    /// iPXE's `${buildarch}`; empty if an older release gave it the URL.
    #[serde(default)]
    arch: String,
    /// The step at which its last script failed.
    failed: Option<String>,
    /// What iPXE knows of the machine by SMBIOS, sent when it asks a second time. Fields that it does not know are empty,
    /// which must not prevent an answer.
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    product: String,
}

/// `GET /ipxe?mac=52-54-00-01-01-01`: makes a new decision at each call, and pins a node's boot.
pub async fn script(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    query: Result<Query<WhoAsks>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let hwaddr: HwAddr = query
        .mac
        .parse()
        .map_err(|e| Problem::bad_request(format!("mac: {e}")))?;
    service.wait_for_last_boot(hwaddr).await;
    let world = service.snapshot();
    let requester = Requester {
        hwaddr: Some(hwaddr),
        arch: service.firmware.of(hwaddr).or_else(|| arch_of_ipxe(&query.arch)),
        ipxe: true,
        ..Requester::default()
    };
    let decision = decide(&world, &requester);
    // The address of one node says nothing about other machines: such a request changes nothing, and is on no timeline.
    let speaks_for_another = world
        .inventory
        .by_ipaddr(peer.ipv4())
        .is_some_and(|node| !node.hwaddrs.contains(&hwaddr));
    if let Decision::Node(decision) = &decision {
        service.open_without_dhcp(&world, decision, *peer);
        if decision.subnet.dhcp.is_of_another_server() && decision.node.ipaddr == peer.ipv4() {
            service.firmware.note_address(hwaddr, peer.ipv4());
        }
    }
    let text = match decision {
        _ if speaks_for_another => {
            let subnet = world.site.subnet_of(peer.ipv4());
            let base = base_url(&world.site, subnet.map_or(peer.ipv4(), |subnet| subnet.server));
            let message = format!("{} is not the address of {hwaddr}", peer.ipv4());
            service.wait(&base, hwaddr, &[message], true)?
        }
        Decision::Node(decision)
            if decision.node.ipaddr != peer.ipv4() && decision.subnet.dhcp.is_of_another_server() =>
        {
            let detail = wrong_address(&decision.node.name, peer.ipv4(), decision.node.ipaddr);
            // With "proxy" the machine's DHCP was heard, so that a request from elsewhere is not its own.
            let own = match decision.subnet.dhcp {
                DhcpPart::Proxy => service.firmware.address_of(hwaddr) == Some(peer.ipv4()),
                _ => decision.subnet.network.contains(&peer.ipv4()),
            };
            // Heartbeats come from the node's own address: while it sends them, somebody else asks in its name.
            let own = own
                && !service
                    .boots
                    .is_alive(&decision.node.name, world.site.limits.heartbeat_secs);
            if own {
                service.firmware.note_address(hwaddr, peer.ipv4());
            }
            service.send_to_dhcp(&world, &decision, hwaddr, detail, own.then_some(Level::Error))?
        }
        Decision::Node(decision) if decision.node.ipaddr != peer.ipv4() => {
            let detail = format!(
                "this machine is {} now, its address {}",
                decision.node.name, decision.node.ipaddr
            );
            // The machine waited there until it became a node, which is normal. Only its own requests are put on the
            // timeline.
            let at_home = (service.waits)(hwaddr, peer.ipv4());
            let level = at_home.then_some(Level::Ok);
            service.send_to_dhcp(&world, &decision, hwaddr, detail, level)?
        }
        Decision::Node(decision) if !service.windows.is_open(&decision.node.name, Timestamp::now()) => {
            let detail = format!("{} has to ask DHCP before it boots", decision.node.name);
            service.send_to_dhcp(&world, &decision, hwaddr, detail, Some(Level::Retry))?
        }
        Decision::Node(mut decision) => {
            let disk = service.boots.disks().get(&decision.node.name);
            decision.hold_disk(world.disk_rules(), disk.as_ref());
            if let Some(failed) = &query.failed {
                service.note_failure(&decision.node.name, failed);
            }
            service.boot_script(&world, &decision, hwaddr).await?
        }
        Decision::Unknown { .. } => {
            let told = LoaderReport {
                uuid: query.uuid.parse().ok(),
                serial: query.serial,
                vendor: query.vendor,
                product: query.product,
            };
            // This is at least its second request, so the report of its DHCP packets has been processed.
            let again = told != LoaderReport::default();
            if again && (service.waits)(hwaddr, peer.ipv4()) {
                service.discovery.report(hwaddr, told);
            }
            service.stranger_script(&world, hwaddr, *peer, again)?
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

impl Service {
    /// Waits until the last boot is counted: after a boot that did not get ready, the decision depends on the number of such
    /// boots.
    async fn wait_for_last_boot(&self, hwaddr: HwAddr) {
        let node = self.world.load().inventory.by_hwaddr(hwaddr).cloned();
        let last = node.and_then(|node| self.boots.current(&node.name));
        if last.is_some_and(|boot| boot.ready.is_none()) {
            self.rollouts.heard_all().await;
        }
    }

    /// With `dhcp = "off"` no DHCP exchange is heard that could open the node's window, so its request for a script opens it. A
    /// user of the running system can send that, too: while the system sends heartbeats, the boot is in doubt, as with a
    /// relay that passes on what users send.
    fn open_without_dhcp(&self, world: &World, decision: &NodeDecision, peer: Peer) {
        let node = &decision.node;
        if decision.subnet.dhcp != DhcpPart::Off || node.ipaddr != peer.ipv4() {
            return;
        }
        let doubted = self.boots.is_alive(&node.name, world.site.limits.heartbeat_secs);
        self.windows.open(&node.name, Timestamp::now(), doubted);
    }

    /// Records that the loader tried, failed, paused, and asks again.
    fn note_failure(&self, node: &str, failed: &str) {
        let detail = match failed {
            "kernel" => "asks again: its kernel did not load",
            "initramfs" => "asks again: its initramfs did not load",
            "boot" => "asks again: its kernel did not start",
            _ => "asks again",
        };
        let kind = Requested::Script.kind(self.windows.is_doubted(node));
        let event = Event::new(Timestamp::now(), kind, Level::Retry, detail);
        self.recorder.record(Subject::Node(node.to_owned()), event);
    }

    async fn boot_script(&self, world: &World, decision: &NodeDecision, hwaddr: HwAddr) -> Result<String, Problem> {
        let base = base_url(&world.site, decision.subnet.server);
        let subject = Subject::Node(decision.node.name.clone());
        let doubted = self.windows.is_doubted(&decision.node.name);
        let kind = Requested::Script.kind(doubted);
        let plan = match decision.plan(&world.site, hwaddr, "") {
            Ok(plan) => plan,
            Err(problem) => {
                let event = Event::new(Timestamp::now(), kind, Level::Error, problem.clone());
                self.recorder.record(subject, event);
                let message = [format!("{}: nothing to boot", decision.node.name), problem];
                return self.wait(&base, hwaddr, &message, false);
            }
        };
        let origin = Origin {
            uuid: self.discovery.uuid_of(hwaddr),
            privileged: (world.images.of_plan(&plan))
                .is_some_and(|version| version.asks_from_privileged_ports() || version.is_freebsd()),
            doubted,
        };
        let boot = self.boots.open_on(Timestamp::now(), origin, move |_| plan).await;
        let boot = boot.map_err(|e| Problem::unavailable(e.to_string()))?;
        // Files on an NFS root have no labels, so if the policy is enforced, logins fail.
        let version = world.images.of_plan(&boot.plan);
        let permissive = version.is_some_and(|version| version.enforces_selinux);
        let kernel_args = match permissive {
            true => permissive_args(&decision.kernel_args),
            false => decision.kernel_args.clone(),
        };
        // If the site's kernel arguments say so, the image enforces its policy nevertheless.
        let permissive = permissive && kernel_args != decision.kernel_args;
        let pauses = Pauses::spread(rand::random());
        let text = match version {
            Some(version) if version.is_freebsd() => self.scripts.load().freebsd(&boot.plan, &base, pauses),
            _ => self.scripts.load().node(&NodeScript {
                plan: &boot.plan,
                token: &boot.token,
                base: &base,
                console: &decision.console,
                attributes: &decision.node.attributes,
                kernel_args: &kernel_args,
                pauses,
            }),
        };
        match text {
            Ok(text) => {
                if !doubted {
                    self.rollouts.opened(&boot, Timestamp::now());
                }
                let how = if permissive { ", SELinux permissive" } else { "" };
                self.record(
                    &boot,
                    kind,
                    Level::Ok,
                    format!("boots {}{how}", boots_what(&boot)),
                    None,
                );
                Ok(text)
            }
            Err(problem) => {
                self.record(&boot, kind, Level::Error, problem.clone(), None);
                self.wait(
                    &base,
                    hwaddr,
                    &[format!("{}: nothing to boot", decision.node.name), problem],
                    false,
                )
            }
        }
    }

    /// For a machine with an address that is not its own (it got the address as an unknown machine), or a request outside of
    /// a PXE exchange: a user on the running node, or a loader that survived a restart of the daemon. It gets no token. A
    /// DHCP exchange corrects both, and takes more rights than a user has.
    fn send_to_dhcp(
        &self,
        world: &World,
        decision: &NodeDecision,
        hwaddr: HwAddr,
        detail: String,
        level: Option<Level>,
    ) -> Result<String, Problem> {
        let base = base_url(&world.site, decision.subnet.server);
        if let Some(level) = level {
            let event = Event::new(Timestamp::now(), EventKind::DhcpFirst, level, detail.clone());
            self.recorder.record(Subject::Node(decision.node.name.clone()), event);
        }
        self.wait(&base, hwaddr, &[detail], true)
    }

    fn stranger_script(&self, world: &World, hwaddr: HwAddr, peer: Peer, again: bool) -> Result<String, Problem> {
        let subnet = world.site.subnet_of(peer.ipv4()).ok_or_else(|| {
            let text = format!("{} is in no [[subnet]] of the site file", peer.ipv4());
            Problem::forbidden(Reason::Stranger, text)
        })?;
        let at_home = (self.waits)(hwaddr, peer.ipv4());
        let screen = self.discovery.screen(hwaddr, subnet.network, Timestamp::now());
        if let Some(owner) = &screen.owner {
            return self.leave(hwaddr, owner);
        }
        let without_dhcp = subnet.dhcp == DhcpPart::Off;
        let (name, hint) = match screen.suggestion {
            Some(next) => (next, "it boots without a further command".to_owned()),
            None => {
                let example = world.site.cluster.naming.example();
                let hint = format!("with its position instead of {example}; it boots without a further command");
                (example, hint)
            }
        };
        // No DHCP exchange tells discovery of a machine in such a subnet, so that it cannot be accepted.
        let command = match without_dhcp {
            true => format!("add it with: rackstrap node add {name} --hwaddr {hwaddr}"),
            false => format!("rack it with: rackstrap discover accept {hwaddr} {name}"),
        };
        let mut message = vec![
            format!("unknown machine {hwaddr} - waiting to be racked"),
            command,
            hint,
        ];
        message.extend(screen.remarks);
        let event = Event::new(Timestamp::now(), EventKind::Script, Level::Ok, "waits to be racked");
        self.recorder.record(Subject::Machine(hwaddr), event);
        // A machine that discovery does not know cannot be racked. A DHCP exchange makes it known again.
        let ask_dhcp = !without_dhcp && (!at_home || (again && screen.forgotten));
        self.wait(&base_url(&world.site, subnet.server), hwaddr, &message, ask_dhcp)
    }

    /// For a card of a node that the inventory does not name: the machine boots from another card, so nothing is waited for.
    fn leave(&self, hwaddr: HwAddr, owner: &Owner) -> Result<String, Problem> {
        let event = Event::new(
            Timestamp::now(),
            EventKind::Script,
            Level::Ok,
            format!("{owner}: leaves the machine to the next card"),
        );
        self.recorder.record(Subject::Machine(hwaddr), event);
        let message = [
            format!("{hwaddr} is {owner}"),
            format!("to boot from it: {}", owner.remedy()),
        ];
        self.scripts
            .load()
            .leave(hwaddr, &message)
            .map_err(Problem::unavailable)
    }

    fn wait(&self, base: &str, hwaddr: HwAddr, message: &[String], new_address: bool) -> Result<String, Problem> {
        let pauses = match new_address {
            // An administrator has just typed the machine's name and is watching.
            true => Pauses { first: 1, longest: 32 },
            false => Pauses::spread(rand::random()),
        };
        let script = WaitScript {
            base,
            hwaddr,
            message,
            new_address,
            pauses,
        };
        self.scripts.load().wait(&script).map_err(Problem::unavailable)
    }
}

/// `debian@3`, and `debian@3/arm64` for a further variant.
fn boots_what(boot: &Boot) -> String {
    export_name(&boot.plan.image, &boot.plan.variant)
}

/// `GET|HEAD /boot/{id}/kernel` and `/boot/{id}/initramfs`: the files of the pinned version, even if another one is current
/// now.
pub async fn boot_file(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path((id, file)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    let (requested, name) = match file.as_str() {
        "kernel" => (Requested::Kernel, "kernel"),
        "initramfs" => (Requested::Initramfs, "initramfs"),
        // The loader is what iPXE starts; the kernel comes by NFS.
        PXE_LOADER => (Requested::Script, PXE_LOADER),
        EFI_LOADER => (Requested::Script, EFI_LOADER),
        _ => {
            let text = format!("a boot has a kernel and an initramfs, but no {}", quoted(&file, 60));
            return Err(Problem::not_found(Reason::UnknownPath, text));
        }
    };
    let world = service.snapshot();
    let version = world.images.of_plan(&boot.plan).ok_or_else(|| {
        let detail = format!(
            "image {} is gone; the machine has to ask for a new boot",
            boots_what(&boot)
        );
        service.record(&boot, requested.kind(false), Level::Error, detail.clone(), None);
        Problem::not_found(Reason::UnknownBoot, detail)
    })?;
    let path = version.dir.join(name);
    // iPXE sometimes asks with HEAD or for a range; only whole files are put on the timeline. A boot that has its overlay has
    // its kernel already: then the request comes from a user of the node.
    let whole = !boot.redeemed && request.method() == "GET" && !request.headers().contains_key(header::RANGE);
    let response = send_file(path, request).await?;
    if !whole || response.status() != StatusCode::OK {
        return Ok(response);
    }
    let note = TransferNote {
        service,
        boot,
        requested,
        began: Instant::now(),
        left: content_length(response.headers()),
    };
    Ok(response.map(|body| watched(body, note)))
}

/// `GET|HEAD /loader/{*name}`: boot loaders, for firmware that boots by HTTP.
pub async fn loader(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if let Some(found) = service.freebsd.file(peer.ipv4(), &name).await {
        let path = found.map_err(|why| Problem::not_found(Reason::UnknownPath, why))?;
        let mut response = send_file(path, request).await?;
        let efi = HeaderValue::from_static("application/efi");
        response.headers_mut().insert(header::CONTENT_TYPE, efi);
        return Ok(response);
    }
    let content = service
        .loaders
        .load()
        .get(&name)
        .map_err(|e| Problem::not_found(Reason::UnknownPath, e.to_string()))?;
    // OVMF recognises a boot file as an EFI program by this media type or by its name (UEFI 2.10, 24.7.3.2).
    Ok(([(header::CONTENT_TYPE, "application/efi")], content).into_response())
}

async fn send_file(path: PathBuf, request: Request) -> Result<Response, Problem> {
    let shown = path.display().to_string();
    let answer = ServeFile::new(path).oneshot(request).await;
    let Ok(mut response) = answer.map(|r| r.map(Body::new));
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Problem::unavailable(format!("{shown} is missing or cannot be read")));
    }
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

fn content_length(headers: &HeaderMap) -> u64 {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// A boot loader's request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Requested {
    Script,
    Kernel,
    Initramfs,
}

impl Requested {
    /// The kind of its events. While it is in doubt that firmware boots, a user of the node can ask for the same, and the
    /// state of the node stays as it was.
    fn kind(self, doubted: bool) -> EventKind {
        match (self, doubted) {
            (Requested::Script, false) => EventKind::Script,
            (Requested::Script, true) => EventKind::ScriptClient,
            (Requested::Kernel, false) => EventKind::Kernel,
            (Requested::Kernel, true) => EventKind::KernelClient,
            (Requested::Initramfs, false) => EventKind::Initramfs,
            (Requested::Initramfs, true) => EventKind::InitramfsClient,
        }
    }
}

/// Records on the timeline how a transfer ended. It is written when the body is dropped, after the last byte or before.
struct TransferNote {
    service: Arc<Service>,
    boot: Arc<Boot>,
    requested: Requested,
    began: Instant,
    left: u64,
}

impl Drop for TransferNote {
    fn drop(&mut self) {
        let took: Duration = self.began.elapsed();
        if self.left == 0 && self.requested == Requested::Kernel && !self.boot.doubted {
            self.service.rollouts.took(&self.boot, Timestamp::now());
        }
        let (level, detail) = match self.left {
            0 => (Level::Ok, String::from("sent")),
            left => (Level::Retry, format!("broken off {left} bytes before its end")),
        };
        self.service.record(
            &self.boot,
            self.requested.kind(self.boot.doubted),
            level,
            detail,
            Some(took.as_millis() as u64),
        );
    }
}

fn watched(body: Body, mut note: TransferNote) -> Body {
    use http_body_util::BodyExt;
    Body::new(body.map_frame(move |frame| {
        // The closure owns the whole note, not a copy of its counter, so that the note is dropped with the body.
        let note = &mut note;
        if let Some(data) = frame.data_ref() {
            note.left = note.left.saturating_sub(data.len() as u64);
        }
        frame
    }))
}
