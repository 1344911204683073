//! Requests that change something: signed with the author that the daemon knows.

use super::{refusal::Refusal, socket::Peer};
use crate::author;
use axum::{
    Json,
    extract::{ConnectInfo, FromRequest, Request},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

/// A body with its author, who is known by the credentials of the connection (SO_PEERCRED, unix(7)). The body itself says
/// nothing about that.
pub(super) struct Signed<T> {
    pub(super) asked: T,
    /// For histories and logs.
    pub(super) by: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Signed<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let peer = request.extensions().get::<ConnectInfo<Peer>>().copied();
        let by = match peer {
            Some(ConnectInfo(Peer(Some((uid, pid))))) => author::of_process(uid, pid),
            _ => {
                return Err(Refusal(
                    StatusCode::FORBIDDEN,
                    "the kernel does not report the peer".into(),
                ));
            }
        };
        let body = Json::<T>::from_request(request, state).await;
        let Json(asked) = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
        Ok(Signed { asked, by })
    }
}
