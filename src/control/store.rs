//! The routes that check the store.

use super::{
    api,
    refusal::{Refusal, Shared, blocking, broken},
};
use axum::{Json, extract::State};

pub(super) async fn look(State(context): State<Shared>) -> Result<Json<api::StoreAnswer>, Refusal> {
    let looked = blocking(move || {
        let backup = &context.world.load().site.backup;
        Ok(api::StoreAnswer {
            look: context.store.look()?,
            set_aside: (context.store.rows_set_aside()?.into_iter())
                .map(api::SetAsideRow::from)
                .collect(),
            backups: (backup.keep > 0).then(|| backup.dir.clone()),
        })
    });
    looked
        .await?
        .map(Json)
        .map_err(|error: rackstrap_store::StoreError| broken(error))
}

pub(super) async fn discard(State(context): State<Shared>) -> Result<Json<api::Discarded>, Refusal> {
    let warnings = context.warnings.clone();
    let rows = blocking(move || context.store.forget_rows_set_aside()).await?;
    warnings.clear("store");
    Ok(Json(api::Discarded {
        rows: rows.map_err(broken)?,
    }))
}
