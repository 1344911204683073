//! What agents send: a body about a boot, accepted only from the node that the boot belongs to.

use super::{
    answer::Problem,
    service::{Peer, Service},
};
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use hyper::body::Body as _;
use rackstrap_registries::boots::Boot;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::timeout;

/// A boot and a message about it. The sender is checked before the first byte of the body is read, so that only nodes in
/// their boots can make the daemon hold one. The token in the body is not checked yet.
pub struct AgentMessage<T>(pub Arc<Boot>, pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for AgentMessage<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let id = Path::<String>::from_request_parts(&mut parts, service).await;
        let Path(id) = id.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        let peer = parts.extensions.get::<Peer>().copied();
        let peer = peer.ok_or_else(|| Problem::unavailable("the peer of the connection is unknown"))?;
        let boot = service.boot_of(peer, &id)?;
        // Later there is a secret that only root of the node knows, and any port is accepted.
        if boot.secret.is_none() {
            service.expect_agent(peer, &boot)?;
        }
        let limits = service.limits;
        // axum checks what has arrived, not what is announced.
        if body.size_hint().lower() > limits.body_bytes as u64 {
            return Err(Problem::too_large(limits.body_bytes));
        }
        let body = Json::<T>::from_request(Request::from_parts(parts, body), service);
        match timeout(limits.body_timeout, body).await {
            Ok(Ok(Json(said))) => Ok(AgentMessage(boot, said)),
            Ok(Err(rejection)) => Err(Problem::of_body(&rejection, limits.body_bytes)),
            Err(_) => Err(Problem::too_slow(format!(
                "the body did not arrive within {} s",
                limits.body_timeout.as_secs()
            ))),
        }
    }
}
