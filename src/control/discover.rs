//! The waiting room's routes.

use super::{
    api,
    nodes::refuse_if_running,
    routes::{Refusal, Shared, blocking},
};
use crate::{
    clock::Timestamp,
    discovery::{Placed, Session, View},
    inventory::Change,
};
use axum::{Json, extract::State};

pub(super) async fn view(State(context): State<Shared>) -> Json<View> {
    Json(context.discovery.view(Timestamp::now()))
}

pub(super) async fn start(
    State(context): State<Shared>,
    Json(asked): Json<api::Begin>,
) -> Result<Json<Session>, Refusal> {
    let begun = blocking(move || context.discovery.begin(&asked.wanted, &asked.by, Timestamp::now())).await??;
    Ok(Json(begun))
}

pub(super) async fn stop(
    State(context): State<Shared>,
    Json(asked): Json<api::Rack>,
) -> Result<Json<Session>, Refusal> {
    Ok(Json(blocking(move || context.discovery.end(&asked.rack)).await??))
}

pub(super) async fn undo(State(context): State<Shared>, Json(asked): Json<api::Rack>) -> Result<Json<Placed>, Refusal> {
    if let (false, Some(name)) = (asked.running, context.discovery.last_placed(&asked.rack)) {
        refuse_if_running(&context, &[Change::Delete { name }])?;
    }
    let undone = blocking(move || context.discovery.undo(&asked.rack, &asked.by, Timestamp::now())).await??;
    Ok(Json(undone))
}

pub(super) async fn accept(
    State(context): State<Shared>,
    Json(asked): Json<api::Accept>,
) -> Result<Json<api::Accepted>, Refusal> {
    let node = blocking(move || {
        let name = asked.node.as_deref();
        context
            .discovery
            .accept(asked.hwaddr, name, asked.replace, &asked.by, Timestamp::now())
    })
    .await??;
    Ok(Json(api::Accepted { node }))
}

pub(super) async fn ignore(
    State(context): State<Shared>,
    Json(asked): Json<api::Ignore>,
) -> Result<Json<api::Done>, Refusal> {
    blocking(move || context.discovery.ignore(asked.hwaddr, asked.ignored)).await??;
    let message = match asked.ignored {
        true => format!("{} is ignored", asked.hwaddr),
        false => format!("{} is shown again", asked.hwaddr),
    };
    Ok(Json(api::Done { message }))
}
