//! Requests that change something: signed with the author that the daemon knows.

use super::{api, refusal::Refusal, socket::Peer};
use crate::author;
use axum::{
    Json,
    extract::{ConnectInfo, FromRequest, Request},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

/// A request whose author goes into a history.
pub(super) trait Authored: DeserializeOwned {
    /// Sets the author.
    fn sign(&mut self, by: String);
}

/// A body with its author, who is known by the credentials of the connection (SO_PEERCRED, unix(7)).
pub(super) struct Signed<T>(pub(super) T);

impl<T: Authored, S: Send + Sync> FromRequest<S> for Signed<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let peer = request.extensions().get::<ConnectInfo<Peer>>().copied();
        let by = match peer {
            Some(ConnectInfo(Peer(Some((uid, pid))))) => author::of_process(uid, pid),
            _ => {
                return Err(Refusal(
                    StatusCode::FORBIDDEN,
                    "the kernel does not say who asks".into(),
                ));
            }
        };
        let body = Json::<T>::from_request(request, state).await;
        let Json(mut asked) = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
        asked.sign(by);
        Ok(Signed(asked))
    }
}

macro_rules! authored {
    ($($request:ty),+ $(,)?) => {$(
        impl Authored for $request {
            fn sign(&mut self, by: String) {
                self.by = by;
            }
        }
    )+};
}

authored!(
    api::Accept,
    api::Begin,
    api::BeginRollout,
    api::CancelRestarts,
    api::Changes,
    api::PromoteImage,
    api::Rack,
    api::ReleaseLeases,
    api::Retry,
    api::RollBack,
    api::RolloutOrder,
);

impl Authored for api::WantRestarts {
    fn sign(&mut self, by: String) {
        if self.want.reason.is_empty() {
            self.want.reason = format!("restart wanted by {by}");
        }
        self.want.by = by;
    }
}
