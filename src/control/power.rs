//! The routes of power.

use super::{
    api,
    refusal::{Refusal, Shared},
    signed::Signed,
};
use axum::{Json, extract::State, http::StatusCode};

pub(super) async fn begin(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::SwitchPower>,
) -> Result<Json<api::PowerBegun>, Refusal> {
    let begun = context.power.begin(&asked, &by);
    let id = begun.map_err(|why| Refusal(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    Ok(Json(api::PowerBegun { id }))
}

pub(super) async fn show(context: Shared, id: String) -> Result<api::PowerAnswer, Refusal> {
    let task = id.parse().ok().and_then(|id| context.power.of(id));
    task.ok_or_else(|| {
        let text = "this power command is not known: the daemon was restarted, or newer ones displaced it\n\
                    help: `rackstrap timeline` shows what was done to a node";
        Refusal(StatusCode::NOT_FOUND, text.to_owned())
    })
}
