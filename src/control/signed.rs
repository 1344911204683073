//! Bodies of requests: parsed or refused with what to do, and signed with the author that the daemon knows.

use super::{refusal::Refusal, socket::Peer};
use axum::{
    Json,
    extract::{ConnectInfo, FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
};
use rackstrap_control::author;
use serde::de::DeserializeOwned;

/// A request's body.
pub(super) struct Asked<T>(pub(super) T);

/// A request's body with its author, by the credentials of the connection (SO_PEERCRED, unix(7)). An author in
/// the body is ignored.
pub(super) struct Signed<T> {
    pub(super) asked: T,
    /// The author, for histories and logs.
    pub(super) by: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let path = request.uri().path().to_owned();
        let body = Json::<T>::from_request(request, state).await;
        let Json(asked) = body.map_err(|rejection| not_understood(&path, &rejection))?;
        Ok(Asked(asked))
    }
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
        let Asked(asked) = Asked::from_request(request, state).await?;
        Ok(Signed { asked, by })
    }
}

/// If the JSON does not match the expected type, the command is of another release.
fn not_understood(path: &str, rejection: &JsonRejection) -> Refusal {
    let text = match rejection {
        JsonRejection::JsonDataError(error) => format!(
            "{path}: this daemon does not understand the request ({}): daemon and command are of different releases\nhelp: `systemctl \
             restart rackstrap` starts the installed one",
            error.body_text()
        ),
        other => format!("{path}: {}", other.body_text()),
    };
    Refusal(rejection.status(), text)
}
