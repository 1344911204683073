//! The routes of nodes' files: trees, previews, and the server's users.

use super::{
    api,
    meant::{Meant, meant},
    refusal::{Refusal, Shared, blocking},
};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::inventory::Settings;
use rackstrap_registries::timeline::NodeStatus;

pub(super) async fn trees(State(context): State<Shared>) -> Json<Vec<api::TreeRow>> {
    let world = context.world.load_full();
    let rows = context.overlays.templates().list().into_iter().map(|tree| {
        let profiles = world.site.profiles.keys().filter(|name| {
            let settings = Settings::of(&world.site, std::slice::from_ref(*name), |_| ());
            settings.templates().contains(&tree.name)
        });
        api::TreeRow {
            profiles: profiles.cloned().collect(),
            tree,
        }
    });
    Json(rows.collect())
}

#[derive(serde::Deserialize)]
pub(super) struct PreviewOf {
    #[serde(default)]
    secrets: bool,
}

pub(super) async fn preview(
    State(context): State<Shared>,
    Path(text): Path<String>,
    Query(asked): Query<PreviewOf>,
) -> Result<Json<api::Preview>, Refusal> {
    let refuse = |why: String| Refusal(StatusCode::UNPROCESSABLE_ENTITY, why);
    let (node, hwaddr) = match meant(&context.world.load(), &text)? {
        Meant::Node(node) => {
            let named = text.parse().ok().filter(|hwaddr| node.hwaddrs.contains(hwaddr));
            (node.name.clone(), named.or(node.hwaddrs.first().copied()))
        }
        Meant::Machine(_) | Meant::Address(_) => {
            return Err(refuse(format!("{text} belongs to no node, so it gets no files")));
        }
    };
    let hwaddr = hwaddr.ok_or_else(|| {
        refuse(format!(
            "node {node} has no hardware address, so it cannot boot; give it one: rackstrap node set {node} --hwaddr MAC"
        ))
    })?;
    let preview = blocking(move || context.overlays.preview(hwaddr, asked.secrets)).await?;
    preview.map(Json).map_err(refuse)
}

pub(super) async fn users(State(context): State<Shared>) -> Result<Json<api::UsersReport>, Refusal> {
    report(context).await
}

pub(super) async fn sync(State(context): State<Shared>) -> Result<Json<api::UsersReport>, Refusal> {
    let overlays = context.overlays.clone();
    blocking(move || overlays.hold_users())
        .await?
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    report(context).await
}

async fn report(context: Shared) -> Result<Json<api::UsersReport>, Refusal> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let running = world.inventory.iter().filter_map(|node| {
        let status = NodeStatus::of(&world, &context.recorder, &context.boots, &node.name, now);
        let boot = status.last_boot().filter(|_| status.state.has_root())?;
        Some((node.name.clone(), boot.plan.id.clone(), boot.image().clone()))
    });
    let running: Vec<_> = running.collect();
    match blocking(move || context.overlays.users(&running)).await? {
        Ok(Some(report)) => Ok(Json(report)),
        Ok(None) => Err(Refusal(
            StatusCode::NOT_FOUND,
            "the site file has no [users] section, so nodes have only the users of their image; write [users] and \
             uid = \"1000-59999\", then: rackstrap reload"
                .to_owned(),
        )),
        Err(problem) => Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem)),
    }
}
