//! What all routes share: their context and their refusals.

use super::{Context, api};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{InventoryError, Refusals};
use rackstrap_registries::{discovery::DiscoveryError, nodes::ChangeError, rollout::RolloutError};
use std::{collections::BTreeMap, sync::Arc};

/// The context of every route.
pub(super) type Shared = Arc<Context>;

/// An answer with a status other than 2xx.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(api::Failure { error: self.1 })).into_response()
    }
}

/// The nodes that each text concerns.
#[derive(Default)]
pub(super) struct OfNodes(BTreeMap<String, NodeSet>);

impl OfNodes {
    pub(super) fn add(&mut self, text: String, node: &str) {
        self.0.entry(text).or_default().insert(node);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for each text, with its nodes: `r01n[01-03]: ...`.
    pub(super) fn lines(self) -> Vec<String> {
        let all = self.0.into_iter();
        all.map(|(text, nodes)| format!("{nodes}: {text}")).collect()
    }
}

pub(super) fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

impl From<InventoryError> for Refusal {
    fn from(error: InventoryError) -> Self {
        let code = match error {
            InventoryError::Unknown { .. } => StatusCode::NOT_FOUND,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal(code, error.to_string())
    }
}

impl From<Refusals> for Refusal {
    fn from(refusals: Refusals) -> Self {
        Refusal(StatusCode::UNPROCESSABLE_ENTITY, refusals.to_string())
    }
}

impl From<DiscoveryError> for Refusal {
    fn from(error: DiscoveryError) -> Self {
        match error {
            DiscoveryError::Refused(why) => Refusal(StatusCode::UNPROCESSABLE_ENTITY, why),
            DiscoveryError::Change(error) => error.into(),
            DiscoveryError::Store(_) => broken(error),
        }
    }
}

impl From<RolloutError> for Refusal {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Refused(why) => Refusal(StatusCode::UNPROCESSABLE_ENTITY, why),
            RolloutError::Store(_) => broken(error),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refusals) => refusals.into(),
            ChangeError::Store(_) => broken(error),
        }
    }
}

/// Runs `f`, which blocks for a disk, on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(f).await.map_err(broken)
}
