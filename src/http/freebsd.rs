//! What a running FreeBSD fetches: the id of its boot, and the secret with which it reports `ready` and heartbeats.

use super::{
    answer::Problem,
    counters::Reason,
    service::{Peer, Service},
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use rackstrap_wire::{DiskFacts, DiskState, DiskStatus, FIRST_USER_PORT, Hardware, OverlayRequest};
use std::sync::Arc;

/// `GET /v1/freebsd`: lines `NAME=VALUE` for the node's reporter, a script. No token is on FreeBSD's kernel command line, so the node is known
/// by its address, and its root by the port. NFS asks for no more before it hands out the root. The boot is the one whose root was mounted,
/// not the one that was requested last, because users may be on the node by now. The secret is repeated until the node has
/// reported `ready`, because an answer can be lost on the way.
pub async fn claim(State(service): State<Arc<Service>>, peer: axum::Extension<Peer>) -> Result<Response, Problem> {
    let world = service.snapshot();
    let address = peer.ipv4();
    let node = world.inventory.by_ipaddr(address).cloned();
    let node = node.ok_or_else(|| Problem::forbidden(Reason::Stranger, format!("{address} is not a node")))?;
    if !peer.is_root() {
        let port = peer.0.0.port();
        let detail = format!("asked from port {port}; root of a node asks from one below {FIRST_USER_PORT}");
        return Err(Problem::forbidden(Reason::UnprivilegedPort, detail));
    }
    let boot = service.freebsd.running(&node.name).ok_or_else(|| {
        let detail = format!("no boot of FreeBSD is known for {}; restart it", node.name);
        Problem::not_found(Reason::UnknownBoot, detail)
    })?;
    let id = &boot.plan.id;
    if boot.ready.is_some() {
        return Err(Problem::conflict(format!(
            "boot {id}: {} has reported already",
            node.name
        )));
    }
    let secret = service.overlays.node_secret(id);
    let secret = secret.map_err(|error| Problem::unavailable(error.to_string()))?;
    if !boot.redeemed {
        service.expect_agent(*peer, &boot)?;
        let request = OverlayRequest {
            networks: true,
            token: boot.token.clone(),
            disk: DiskState {
                status: DiskStatus::NotWanted,
                device: String::new(),
                size: 0,
                mounts: Vec::new(),
                facts: DiskFacts::default(),
                layouts: Vec::new(),
            },
            hardware: Hardware::default(),
        };
        service.pinning.boots.redeem(id, &request, Some(secret.clone())).await?;
        service.pinning.windows.close(&node.name);
    }
    let seconds = boot.plan.heartbeat_secs;
    let text = format!("id={id}\nsecret={secret}\nnode={}\nheartbeat={seconds}\n", node.name);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
