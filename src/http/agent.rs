//! What agents ask for and tell: plan, overlay, reports, ready, heartbeat.

use super::{
    answer::Problem,
    counters::Reason,
    service::{Peer, Service},
    told::Told,
};
use crate::{
    boots::{Boot, Refusal},
    clock::Timestamp,
    restart::Want,
    timeline::{Event, Level, Subject},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rackstrap_wire::{
    DiskStatus, Heartbeat, HeartbeatAnswer, MOST_RESULTS, Overlay, OverlayRequest, Plan, Ready, Report, failures,
};
use std::sync::Arc;

/// Most events that are taken from one report.
const MAX_EVENTS: usize = 256;
/// Most things that a node lacks that are told on its timeline; `rackstrap explain` tells all.
const MAX_NOTES: usize = 10;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Unknown(_) => Problem::not_found(Reason::UnknownBoot, text),
            Refusal::Token(_) => Problem::forbidden(Reason::WrongToken, text),
            Refusal::Redeemed(_) => Problem::conflict(text),
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
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    service.boots.authenticate(&id, token.unwrap_or_default())?;
    // Counted by its kernel already, unless that came from elsewhere or in pieces.
    service.rollouts.took(&boot, Timestamp::now());
    service.record(
        &boot,
        "plan",
        Level::Ok,
        format!("{} for {}", boot.plan.image, boot.plan.node),
        None,
    );
    Ok(Json(boot.plan.clone()))
}

/// `POST /v1/overlay/{id}`: once a boot, as it holds the node's host keys.
pub async fn overlay(
    State(service): State<Arc<Service>>,
    Told(boot, request): Told<OverlayRequest>,
) -> Result<Json<Overlay>, Problem> {
    service.boots.authenticate(&boot.plan.id, &request.token)?;
    // Rendered first: a template that fails must not cost the boot its one overlay.
    let (renderer, for_boot, disk) = (service.clone(), boot.clone(), request.disk.clone());
    let rendered = tokio::task::spawn_blocking(move || renderer.overlays.for_boot(&for_boot, disk)).await;
    let rendered = rendered
        .unwrap_or_else(|panic| Err(format!("rendering stopped: {panic}")))
        .inspect_err(|problem| service.record(&boot, "overlay", Level::Error, problem.clone(), None))
        .map_err(Problem::unavailable)?;
    let boot = service.boots.redeem(&boot.plan.id, &request).await?;
    service.windows.close(&boot.plan.node);
    for (level, notes) in [(Level::Degraded, &rendered.lacks), (Level::Ok, &rendered.notes)] {
        for note in notes.iter().take(MAX_NOTES) {
            service.record(&boot, "overlay", level, note.clone(), None);
        }
    }
    let overlay = rendered.into_overlay();
    let (level, detail) = match &request.disk.status {
        DiskStatus::Degraded { reason } => (
            Level::Degraded,
            format!("{} files; disk: {reason}", overlay.files.len()),
        ),
        _ => (Level::Ok, format!("{} files", overlay.files.len())),
    };
    service.record(&boot, "overlay", level, detail, None);
    Ok(Json(overlay))
}

/// `POST /v1/report/{id}`
pub async fn report(
    State(service): State<Arc<Service>>,
    Told(boot, report): Told<Report>,
) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    service.boots.authenticate(id, &report.token)?;
    if report.events.len() > MAX_EVENTS {
        return Err(Problem::bad_body(format!(
            "a report has at most {MAX_EVENTS} events, this one {}",
            report.events.len()
        )));
    }
    let now = Timestamp::now();
    for event in service.heard.news(id, &report.events) {
        service
            .recorder
            .record(Subject::Node(boot.plan.node.clone()), Event::of_agent(now, id, event));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/ready/{id}`
pub async fn ready(State(service): State<Arc<Service>>, Told(boot, ready): Told<Ready>) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    let said_before = service.boots.authenticate(id, &ready.token)?.ready.is_some();
    if ready.checks.len() > MOST_RESULTS {
        return Err(Problem::bad_body(format!(
            "a node makes at most {MOST_RESULTS} checks, this one {}",
            ready.checks.len()
        )));
    }
    let failed = failures(&ready.checks);
    if !ready.checks.is_empty() {
        // First: whoever waits for nodes to be ready is not to take this one for a good one meanwhile.
        service.boots.note_health(id, &ready.token, failed.is_empty())?;
    }
    let boot = service.boots.mark_ready(id, &ready.token, Timestamp::now()).await?;
    if !said_before {
        let (level, detail) = match failed.is_empty() {
            true => (Level::Ok, ready.detail),
            false => (Level::Degraded, failed),
        };
        service.record(&boot, "ready", level, detail, Some(ready.uptime_ms));
        service.rollouts.ready(&boot, Timestamp::now());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/heartbeat/{id}`
pub async fn heartbeat(
    State(service): State<Arc<Service>>,
    Told(boot, beat): Told<Heartbeat>,
) -> Result<Response, Problem> {
    let id = &boot.plan.id;
    service.boots.authenticate(id, &beat.token)?;
    if let Some(healthy) = beat.healthy {
        service.boots.note_health(id, &beat.token, healthy)?;
    }
    let subject = Subject::Node(boot.plan.node.clone());
    let now = Timestamp::now();
    service.recorder.heartbeat(subject, now, id, &beat.trouble);
    if let Some(note) = &beat.restart {
        service.restarts.noted(&boot, note, now);
    }
    let awaited = service.restarts.awaited_by_rollout(&boot.plan.node);
    let wanted = service
        .rollouts
        .reboot_wanted(&boot.plan.node, id, awaited.is_some(), now);
    match (wanted, awaited) {
        (Some(_), Some(_)) | (None, None) => {}
        (Some(image), None) => restart_into_another_version(&service, &boot, image, now).await,
        (None, Some(image)) => stay_in_this_version(&service, &boot, image, now).await,
    }
    Ok(match service.restarts.order(&boot, now).await {
        Some(restart) => Json(HeartbeatAnswer { restart: Some(restart) }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Hands a node that a rollout wants restarted to those who restart nodes, so that it is drained first. One that is on its way
/// already stays with that; what is refused or fails now is asked for again by the next heartbeat.
async fn restart_into_another_version(service: &Service, boot: &Boot, image: String, now: Timestamp) {
    /// A node that is not ready again by then is said to be late. What the rollout makes of it is the rollout's.
    const WITHIN_SECS: u32 = 600;
    let restarts = service.restarts.clone();
    let want = Want {
        nodes: vec![boot.plan.node.clone()],
        reason: format!("a rollout gives it another version than {}", boot.image()),
        max_down: 1,
        drain: true,
        within_secs: WITHIN_SECS,
        by: "rollout".to_owned(),
        rollout: image,
    };
    let wanted = tokio::task::spawn_blocking(move || restarts.want(&want, now, false)).await;
    if let Ok(Err(error)) = wanted {
        tracing::warn!(node = %boot.plan.node, "not restarted for a rollout yet: {error}");
    }
}

/// Has a node that a rollout wanted restarted, and wants no more, stay: the rollout stopped by itself before the node was told, say.
async fn stay_in_this_version(service: &Service, boot: &Boot, image: String, now: Timestamp) {
    let node = boot.plan.node.clone();
    if service.rollouts.wants_restarted(&image, &node) {
        return;
    }
    let (restarts, rollouts) = (service.restarts.clone(), service.rollouts.clone());
    let withdraw = move || {
        let wanted = |name: &str| rollouts.wants_restarted(&image, name);
        let why = format!("the rollout of {image} gives it no other version now");
        let withdrawn = restarts.withdraw(&image, Some(&node), wanted, &why, now);
        rollouts.not_restarted(&image, &[node]);
        withdrawn
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(withdraw).await {
        tracing::warn!(node = %boot.plan.node, "a restart that is not wanted any more comes back with the daemon: {error}");
    }
}
