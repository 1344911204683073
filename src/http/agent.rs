//! What agents fetch and report: plan, overlay, reports, ready, heartbeat.

use super::{
    agent_message::AgentMessage,
    answer::Problem,
    counters::Reason,
    service::{Peer, Service, seal_anew},
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::orders::Once;
use rackstrap_registries::{
    boots::{Boot, Refusal},
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_wire::{
    CheckResult, DiskPlan, DiskStatus, Heartbeat, HeartbeatAnswer, MOST_RESULTS, OLDEST_WIRE, Overlay, OverlayRequest,
    Plan, Ready, Report, Size, WIRE_VERSION, Waiting, common_version, failures, paths, users::UsersReport, waits,
};
use std::sync::Arc;

/// At most this many events are accepted in one report.
const MAX_EVENTS: usize = 256;
/// At most this many of the things that a node lacks are put on its timeline; `rackstrap explain` lists all.
const MAX_NOTES: usize = 10;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Unknown(_) => Problem::not_found(Reason::UnknownBoot, text),
            Refusal::Token(_) | Refusal::Secret(_) => Problem::forbidden(Reason::WrongToken, text),
            Refusal::Redeemed(_) | Refusal::Void(_) => Problem::conflict(text),
            Refusal::Store(_) => Problem::unavailable(text),
        }
    }
}

/// `GET /v1/plan/{id}`
pub async fn plan(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Plan>, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    service.pinning.boots.authenticate(&id, bearer(&headers))?;
    service.expect_agent(*peer, &boot)?;
    let agent = wire_of(&headers)?;
    let Some(common) = common_version(agent) else {
        let detail = too_old(&boot, agent);
        service.record(&boot, EventKind::Plan, Level::Error, detail.clone(), None);
        return Err(Problem::gone(detail));
    };
    // After the overlay the request comes from a user of the node, and does not advance a boot.
    if !boot.redeemed {
        // Its kernel counted already, unless that was fetched from elsewhere or in pieces, or it was in doubt that firmware
        // boots.
        if boot.doubted && boot.is_usual() {
            service.pinning.rollouts.opened(&boot, Timestamp::now());
        }
        if boot.is_usual() {
            service.pinning.rollouts.took(&boot, Timestamp::now());
        }
        service.loading.leave(&boot.plan.node, None);
        let detail = format!("{} for {}", boot.plan.image, boot.plan.node);
        service.record(&boot, EventKind::Plan, Level::Ok, detail, None);
        if common < WIRE_VERSION {
            service.record(&boot, EventKind::Plan, Level::Ok, old(&boot, agent), None);
        }
    }
    let sent = service.pinning.boots.send_plan(&id);
    let sent = sent.ok_or_else(|| Problem::from(Refusal::Unknown(id)))?;
    let mut plan = Plan {
        wire: common,
        ..sent.plan
    };
    if let Some(disk) = &mut plan.disk {
        let loaders = service.loaders.load();
        disk.loader = loaders.disk().map(|(loader, _)| *loader);
        let size = esp_size(disk);
        match &mut disk.layout_esp {
            // A disk has one of the two: firmware would start either.
            Some(esp) => esp.images = size.map_or_else(Vec::new, |size| loaders.layout_esps().images(size)),
            None => disk.esp = loaders.esps().images(),
        }
    }
    let port = service.world.load().site.server.netconsole_port;
    plan.netconsole = (port != 0).then_some(port);
    Ok(Json(plan))
}

/// `GET /v1/disk-loader/{id}`
pub async fn disk_loader(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Bytes, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    service.pinning.boots.authenticate(&id, bearer(&headers))?;
    service.expect_agent(*peer, &boot)?;
    let loaders = service.loaders.load();
    let (_, bytes) = loaders
        .disk()
        .ok_or_else(|| Problem::unavailable("this server has no usable ipxe.lkrn for disks"))?;
    Ok(bytes.clone())
}

/// `GET /v1/esp/{kind}/{id}`
pub async fn esp(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Bytes, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    service.pinning.boots.authenticate(&id, bearer(&headers))?;
    service.expect_agent(*peer, &boot)?;
    let found = service.loaders.load().esps().bytes(&kind);
    found.ok_or_else(|| Problem::unavailable("this server has no EFI system partition of that kind"))
}

/// `GET /v1/layout-esp/{kind}/{id}`: in pieces, so that all nodes share the memory of the loaders' files.
pub async fn layout_esp(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Body, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    service.pinning.boots.authenticate(&id, bearer(&headers))?;
    service.expect_agent(*peer, &boot)?;
    let size = boot.plan.disk.as_ref().and_then(esp_size);
    let loaders = service.loaders.load();
    let found = size.and_then(|size| loaders.layout_esps().pieces(size, &kind));
    let pieces = found.ok_or_else(|| Problem::unavailable("this server has no EFI system partition of that kind"))?;
    Ok(super::pieces::body(pieces))
}

/// Bytes of the EFI system partition of a plan's layout; none if it has none.
fn esp_size(disk: &DiskPlan) -> Option<u64> {
    let esp = disk.layout_esp.as_ref()?;
    let partition = disk.layout.partitions.iter().find(|p| p.name == esp.partition)?;
    match partition.size {
        Size::Bytes(bytes) => Some(bytes),
        Size::Rest => None,
    }
}

/// The value of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    value.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default()
}

/// The wire version that the agent speaks.
fn wire_of(headers: &HeaderMap) -> Result<u32, Problem> {
    let Some(said) = headers.get(paths::WIRE_HEADER) else {
        // The first agents did not send a version.
        return Ok(1);
    };
    let said = said.to_str().ok().and_then(|text| text.parse().ok());
    said.ok_or_else(|| Problem::bad_request(format!("{} is not a version; send a number", paths::WIRE_HEADER)))
}

/// Why an agent of that version gets no plan.
fn too_old(boot: &Boot, agent: u32) -> String {
    let image = boot.image();
    format!(
        "image {image} was sealed with an agent of wire version {agent}, and this daemon speaks {OLDEST_WIRE} to {WIRE_VERSION}; {}",
        seal_anew(image)
    )
}

/// The features that an agent of an older version lacks.
fn old(boot: &Boot, agent: u32) -> String {
    let image = boot.image();
    format!(
        "image {image} was sealed with an agent of wire version {agent}, and this daemon speaks {WIRE_VERSION}: {}{}; {}",
        match agent {
            ..2 => "it gets users of [users] at its boots only, does not say what it waits for, and ",
            _ => "",
        },
        match agent {
            ..3 => "any user of the node can report in its name",
            3 => "its files wait for heartbeats of the system before, if only a DHCP relay says that it boots",
            _ => "its boot network cannot be a VLAN, and its boot card cannot be in a bond",
        },
        seal_anew(image)
    )
}

/// `POST /v1/overlay/{id}`: answered once for each boot, because it holds the node's host keys.
pub async fn overlay(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    AgentMessage(boot, request): AgentMessage<OverlayRequest>,
) -> Result<Json<Overlay>, Problem> {
    service.pinning.boots.may_redeem(&boot.plan.id, &request.token)?;
    let agent = wire_of(&headers)?;
    let wire = common_version(agent).ok_or_else(|| Problem::gone(too_old(&boot, agent)))?;
    // Rendered first: if a template fails, the boot must not lose its only overlay.
    let (renderer, for_boot, disk) = (service.clone(), boot.clone(), request.disk.clone());
    let rendered = tokio::task::spawn_blocking(move || renderer.overlays.for_boot(&for_boot, disk, wire)).await;
    let rendered = rendered
        .unwrap_or_else(|panic| Err(format!("rendering panicked: {panic}")))
        .inspect_err(|problem| service.record(&boot, EventKind::Overlay, Level::Error, problem.clone(), None))
        .map_err(Problem::unavailable)?;
    // An order that was taken back after the boot was pinned is in the pinned plan, and not in the one that was sent.
    let in_force = service
        .pinning
        .boots
        .disks()
        .get(&boot.plan.node)
        .and_then(|disk| disk.order);
    let ordered = boot
        .ordered
        .as_ref()
        .filter(|ordered| in_force.is_some_and(|order| order.id == ordered.id));
    let ordered = ordered.cloned();
    let boot = service
        .pinning
        .boots
        .redeem(&boot.plan.id, &request, rendered.proof(wire))
        .await?;
    service.pinning.windows.close(&boot.plan.node);
    if let Some(problem) = ordered.and_then(|_| not_remade(&boot)) {
        service.record(&boot, EventKind::Reprep, Level::Error, problem, None);
    }
    if let Some(hardware) = &boot.hardware {
        service.pinning.discovery.node_reported(boot.plan.net.hwaddr, hardware);
    }
    for (level, notes) in [(Level::Degraded, &rendered.lacks), (Level::Ok, &rendered.notes)] {
        for note in notes.iter().take(MAX_NOTES) {
            service.record(&boot, EventKind::Overlay, level, note.clone(), None);
        }
    }
    if !request.networks && !boot.plan.networks.is_empty() {
        let image = boot.image();
        let note = format!(
            "the agent of {image} does not set the networks of [[network]] up; {}",
            seal_anew(image)
        );
        service.record(&boot, EventKind::Overlay, Level::Degraded, note, None);
    }
    let overlay = rendered.into_overlay(wire);
    let status = boot.disk.as_ref().map(|disk| &disk.status);
    let (level, detail) = match status {
        Some(DiskStatus::Degraded { reason }) => (
            Level::Degraded,
            format!("{} files; disk: {reason}", overlay.files.len()),
        ),
        _ => (Level::Ok, format!("{} files", overlay.files.len())),
    };
    service.record(&boot, EventKind::Overlay, level, detail, None);
    Ok(Json(overlay))
}

/// The partitions that the boot was ordered to make again and did not, with the reason and the remedy; none if it made all of them.
fn not_remade(boot: &Boot) -> Option<String> {
    let first = boot.plan.disk.as_ref()?;
    let disk = boot.disk.as_ref()?;
    let wanted = first
        .remake
        .iter()
        .chain(first.more.iter().flat_map(|plan| &plan.remake));
    let further = disk.layouts.iter().map(|one| &one.facts);
    let remade: Vec<&String> = std::iter::once(&disk.facts)
        .chain(further)
        .flat_map(|facts| &facts.remade)
        .collect();
    let missing: Vec<&str> = wanted
        .filter(|name| !remade.contains(name))
        .map(String::as_str)
        .collect();
    let (names, image, node) = (missing.join(", "), boot.image(), &boot.plan.node);
    match &disk.status {
        _ if missing.is_empty() => None,
        DiskStatus::Degraded { reason } => Some(format!("{names} was not made again: {reason}")),
        // It has everything again.
        DiskStatus::Prepared { .. } => None,
        DiskStatus::Kept { .. } | DiskStatus::NotWanted => Some(format!(
            "{names} was not made again: the agent of image {image} is of a release that cannot; {}, or prepare the whole disk: rackstrap node reprep {node}",
            seal_anew(image)
        )),
    }
}

/// `POST /v1/report/{id}`
pub async fn report(
    State(service): State<Arc<Service>>,
    AgentMessage(boot, report): AgentMessage<Report>,
) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    service.pinning.boots.authenticate_node(id, &report.token)?;
    service.pinning.boots.hear(&boot);
    if report.events.len() > MAX_EVENTS {
        return Err(Problem::bad_body(format!(
            "a report has at most {MAX_EVENTS} events, this one {}",
            report.events.len()
        )));
    }
    let now = Timestamp::now();
    for event in service.reported.new_events(id, &report.events) {
        service
            .pinning
            .recorder
            .record(Subject::Node(boot.plan.node.clone()), Event::of_agent(now, id, event));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/users/{id}`: for root of the node only, because password hashes may be in the answer.
pub async fn users(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let boot = service.boot_of(*peer, &id)?;
    let known = service.overlays.is_node_secret(&boot.plan.id, bearer(&headers));
    if !known.map_err(|error| Problem::unavailable(error.to_string()))? {
        return Err(Problem::forbidden(
            Reason::WrongToken,
            format!("boot {id}: wrong secret"),
        ));
    }
    let held = service.overlays.held_users();
    let held = held.ok_or_else(|| Problem::unavailable("the server's users could not be read yet; see its log"))?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, held.body.clone()).into_response())
}

/// `POST /v1/waiting/{id}`
pub async fn waiting(
    State(service): State<Arc<Service>>,
    AgentMessage(boot, waiting): AgentMessage<Waiting>,
) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    let before = service.pinning.boots.authenticate_node(id, &waiting.token)?;
    service.pinning.boots.hear(&boot);
    bounded(&waiting.checks)?;
    // A message that was sent before `ready` and arrives after it is out of date.
    if before.ready.is_none() {
        service
            .pinning
            .boots
            .record_checks(id, &waiting.token, waiting.checks.clone())?;
        let detail = waits(&waiting.checks);
        if !detail.is_empty() {
            service.record(&boot, EventKind::Checks, Level::Retry, detail, None);
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

fn bounded(checks: &[CheckResult]) -> Result<(), Problem> {
    match checks.len() {
        0..=MOST_RESULTS => Ok(()),
        count => Err(Problem::bad_body(format!(
            "a node makes at most {MOST_RESULTS} checks, this one {count}"
        ))),
    }
}

/// `POST /v1/ready/{id}`
pub async fn ready(
    State(service): State<Arc<Service>>,
    AgentMessage(boot, ready): AgentMessage<Ready>,
) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    let was_ready = service
        .pinning
        .boots
        .authenticate_node(id, &ready.token)?
        .ready
        .is_some();
    service.pinning.boots.hear(&boot);
    bounded(&ready.checks)?;
    let failed = failures(&ready.checks);
    if !ready.checks.is_empty() {
        // Health is recorded before `ready`, so that no rollout or restart takes an unhealthy node for a healthy one in
        // between.
        service
            .pinning
            .boots
            .record_health(id, &ready.token, failed.is_empty())?;
        service.pinning.boots.record_checks(id, &ready.token, ready.checks)?;
    }
    let boot = service
        .pinning
        .boots
        .mark_ready(id, &ready.token, Timestamp::now())
        .await?;
    if !was_ready {
        let (level, detail) = match (failed.is_empty(), boot.shell()) {
            // Its users and jobs find no system there.
            (_, Some(once)) => (Level::Degraded, in_a_shell(once)),
            (true, None) => (Level::Ok, ready.detail),
            (false, None) => (Level::Degraded, failed),
        };
        if service.pinning.boots.runs(id) {
            service
                .pinning
                .recorder
                .record_running(&Subject::Node(boot.plan.node.clone()), Timestamp::now(), id);
        }
        service.record(&boot, EventKind::Ready, level, detail, Some(ready.uptime_ms));
        if boot.is_usual() {
            service.pinning.rollouts.ready(&boot, Timestamp::now());
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/heartbeat/{id}`
pub async fn heartbeat(
    State(service): State<Arc<Service>>,
    AgentMessage(boot, beat): AgentMessage<Heartbeat>,
) -> Result<Response, Problem> {
    let id = &boot.plan.id;
    service.pinning.boots.authenticate_node(id, &beat.token)?;
    // The system runs, so any request for another boot did not come from the node's firmware.
    service.pinning.windows.close(&boot.plan.node);
    let proven = service.pinning.boots.runs(id);
    if let Some(healthy) = beat.healthy {
        service.pinning.boots.record_health(id, &beat.token, healthy)?;
    }
    if let Some(checks) = beat.checks {
        bounded(&checks)?;
        service.pinning.boots.record_checks(id, &beat.token, checks)?;
    }
    let users = beat.users.as_ref().and_then(|note| users_for(&service, &boot, note));
    let subject = Subject::Node(boot.plan.node.clone());
    let now = Timestamp::now();
    if proven {
        service.pinning.recorder.record_running(&subject, now, id);
    }
    let trouble = match boot.shell() {
        Some(once) if beat.trouble.is_empty() => in_a_shell(once),
        Some(once) => format!("{}; {}", in_a_shell(once), beat.trouble),
        None => beat.trouble,
    };
    service.pinning.recorder.heartbeat(subject, now, id, &trouble);
    service.pinning.boots.disks().record_used(&boot.plan.node, beat.used);
    if let Some(disks) = beat.disks.filter(|_| proven) {
        service.pinning.boots.disks().record_health(&boot.plan.node, disks, now);
    }
    if let Some(note) = &beat.restart {
        service.restarts.noted(&boot, note, now);
    }
    let restart = service.restarts.order(&boot, now).await;
    Ok(match restart.is_some() || users.is_some() {
        true => Json(HeartbeatAnswer { restart, users }).into_response(),
        false => StatusCode::NO_CONTENT.into_response(),
    })
}

/// What a node lacks that runs a shell instead of its system. Its users and jobs find no system there.
fn in_a_shell(once: &Once) -> String {
    format!(
        "runs {}, by the order of {}; rackstrap node restart ends it",
        once.what, once.by
    )
}

/// Records which users a node has. Returns the digest of the users that it should have, if they differ.
fn users_for(service: &Service, boot: &Boot, note: &UsersReport) -> Option<String> {
    if !note.detail.is_empty() {
        let level = if note.failed { Level::Degraded } else { Level::Ok };
        service.record(boot, EventKind::Users, level, note.detail.clone(), None);
    }
    if service.overlays.has_own_users(boot) {
        return None;
    }
    service.overlays.users_told(boot, &note.digest);
    let held = service.overlays.held_users()?;
    (held.digest != note.digest).then(|| held.digest.clone())
}
