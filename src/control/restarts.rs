//! The routes of restarts.

use super::{
    api,
    refusal::{Refusal, Shared, blocking, broken},
    signed::Signed,
};
use axum::{Json, extract::State, http::StatusCode};
use rackstrap_base::clock::Timestamp;
use rackstrap_registries::restart::RestartError;

impl From<RestartError> for Refusal {
    fn from(error: RestartError) -> Self {
        match error {
            RestartError::Refused(why) => Refusal(StatusCode::UNPROCESSABLE_ENTITY, why),
            RestartError::Store(error) => broken(error),
        }
    }
}

pub(super) async fn list(context: Shared, _: String) -> Result<api::RestartsAnswer, Refusal> {
    Ok(api::RestartsAnswer {
        now: Timestamp::now(),
        requests: context.restarts.list().into_iter().map(api::RestartRow::from).collect(),
        bounds: (context.rollouts.all().into_iter().filter(|rollout| rollout.is_on()))
            .map(|rollout| {
                let bound = format!("at most {} at a time", rollout.max_down.describe(rollout.all));
                (rollout.image.name, bound)
            })
            .collect(),
    })
}

pub(super) async fn want(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::WantRestarts>,
) -> Result<Json<api::RestartsWanted>, Refusal> {
    let want = asked.want.of(by);
    let wanted = blocking(move || context.restarts.want(&want, Timestamp::now(), asked.dry_run)).await??;
    Ok(Json(wanted.into()))
}

pub(super) async fn cancel(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::CancelRestarts>,
) -> Result<Json<api::RestartsCancelled>, Refusal> {
    let cancelled = blocking(move || {
        let cancelled = context.restarts.cancel(&asked.nodes, &by, Timestamp::now());
        if cancelled.as_ref().is_ok_and(|done| !done.cancelled.is_empty()) {
            tracing::info!("restarts cancelled by {}: {}", by, asked.nodes.join(", "));
        }
        cancelled
    });
    Ok(Json(cancelled.await?.map_err(broken)?.into()))
}
