//! The routes of current versions and rollouts.

use super::{
    api,
    routes::{Refusal, Shared, blocking},
};
use crate::{clock::Timestamp, rollout::Current};
use axum::{Json, extract::State};

pub(super) async fn current(State(context): State<Shared>) -> Result<Json<Vec<Current>>, Refusal> {
    Ok(Json(blocking(move || context.rollouts.current()).await?))
}

pub(super) async fn promote_image(
    State(context): State<Shared>,
    Json(asked): Json<api::PromoteImage>,
) -> Result<Json<Current>, Refusal> {
    let promoted = move || {
        context
            .rollouts
            .promote_image(&asked.image, &asked.by, Timestamp::now())
    };
    Ok(Json(blocking(promoted).await??))
}

pub(super) async fn roll_back(
    State(context): State<Shared>,
    Json(asked): Json<api::RollBack>,
) -> Result<Json<api::RolledBack>, Refusal> {
    let rolled_back = move || context.rollouts.roll_back(&asked.name, &asked.by, Timestamp::now());
    let (current, ended) = blocking(rolled_back).await??;
    Ok(Json(api::RolledBack { current, ended }))
}
