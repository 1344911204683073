//! What agents ask for and tell: plan, overlay, reports, ready, heartbeat.

use super::{
    answer::Problem,
    counters::Reason,
    service::{Peer, Service},
    told::Told,
};
use crate::{
    boots::Refusal,
    clock::Timestamp,
    timeline::{Event, Level, Subject},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
};
use rackstrap_wire::{DiskStatus, Heartbeat, Overlay, OverlayRequest, Plan, Ready, Report};
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
    let boot = service.boots.mark_ready(id, &ready.token, Timestamp::now()).await?;
    if !said_before {
        service.record(&boot, "ready", Level::Ok, ready.detail, Some(ready.uptime_ms));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/heartbeat/{id}`
pub async fn heartbeat(
    State(service): State<Arc<Service>>,
    Told(boot, beat): Told<Heartbeat>,
) -> Result<StatusCode, Problem> {
    let id = &boot.plan.id;
    service.boots.authenticate(id, &beat.token)?;
    let subject = Subject::Node(boot.plan.node.clone());
    service.recorder.heartbeat(subject, Timestamp::now(), id, &beat.trouble);
    Ok(StatusCode::NO_CONTENT)
}
